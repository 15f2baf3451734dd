use std::{
    io::{ErrorKind, Read, Write},
    net::TcpStream,
};

use anyhow::{Context, Result, bail, ensure};

use super::{
    super::frame::{self, ACCEPT, NONCE},
    LARGE,
};

/// The body of the small response.
pub(crate) const SMALL_BODY: &str =
    "This is the small body that the worker answers every request with: it is one hundred bytes of text.\n";

const LARGEST_HEAD: usize = 64 * 1024;

/// What a connection waits for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Wants {
    ToRead,
    ToWrite,
    /// It has ended.
    Nothing,
}

#[derive(Debug)]
pub(super) struct Connection {
    stream: TcpStream,
    phase: Phase,
    /// What was read and is not complete.
    unread: Vec<u8>,
    unsent: Vec<u8>,
    /// How many bytes of a large body come after `unsent`.
    unsent_body: u64,
}

#[derive(Debug)]
enum Phase {
    Head,
    Body { size: u64, left: u64 },
    WebSocket,
    Closing,
}

impl Connection {
    pub(super) fn new(stream: TcpStream) -> Self {
        Self { stream, phase: Phase::Head, unread: Vec::new(), unsent: Vec::new(), unsent_body: 0 }
    }

    pub(super) fn stream(&self) -> &TcpStream {
        &self.stream
    }

    pub(super) fn wants(&self) -> Wants {
        match self.phase {
            _ if !self.unsent.is_empty() || self.unsent_body > 0 => Wants::ToWrite,
            Phase::Closing => Wants::Nothing,
            _ => Wants::ToRead,
        }
    }

    /// Reads once or writes what is due. It reads nothing more before all answers are sent.
    pub(super) fn advance(&mut self, buffer: &mut [u8]) -> Result<Wants> {
        if self.wants() == Wants::ToRead {
            let read = match self.stream.read(buffer) {
                Ok(0) => return Ok(Wants::Nothing),
                Ok(read) => read,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(Wants::ToRead),
                Err(error) => return Err(error.into()),
            };
            if self.unread.is_empty() {
                let used = self.take(&buffer[..read])?;
                self.unread.extend_from_slice(&buffer[used..read]);
            } else {
                let mut bytes = std::mem::take(&mut self.unread);
                bytes.extend_from_slice(&buffer[..read]);
                let used = self.take(&bytes)?;
                bytes.drain(..used);
                self.unread = bytes;
            }
        }
        self.send(buffer)?;
        Ok(self.wants())
    }

    /// Takes what is complete from the start of `bytes` and answers it; returns how much that was.
    fn take(&mut self, bytes: &[u8]) -> Result<usize> {
        let mut used = 0;
        loop {
            let rest = &bytes[used..];
            used += match &mut self.phase {
                Phase::Head => {
                    let Some(head) = Head::read(rest)? else { return Ok(used) };
                    self.answer(&head)?;
                    head.length
                }
                Phase::Body { size, left } => {
                    let here = rest.len().min(usize::try_from(*left)?);
                    *left -= here as u64;
                    if *left > 0 {
                        return Ok(used + here);
                    }
                    let count = size.to_string();
                    self.respond(&count);
                    self.phase = Phase::Head;
                    here
                }
                Phase::WebSocket => {
                    let Some(frame) = frame::read(rest)? else { return Ok(used) };
                    let opcode = if frame.opcode == frame::PING { frame::PONG } else { frame.opcode };
                    frame::write(&mut self.unsent, opcode, &frame.payload, None);
                    if frame.opcode == frame::CLOSE {
                        self.phase = Phase::Closing;
                    }
                    frame.length
                }
                Phase::Closing => return Ok(bytes.len()),
            };
        }
    }

    fn answer(&mut self, head: &Head) -> Result<()> {
        match &head.wanted {
            Wanted::Upload(size) => self.phase = Phase::Body { size: *size, left: *size },
            Wanted::Small => self.respond(SMALL_BODY),
            Wanted::Download => {
                self.unsent_body = LARGE;
                write!(self.unsent, "HTTP/1.1 200 OK\r\ncontent-length: {LARGE}\r\n\r\n")?;
            }
            Wanted::WebSocket => {
                self.phase = Phase::WebSocket;
                write!(
                    self.unsent,
                    "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
                     sec-websocket-accept: {ACCEPT}\r\n\r\n"
                )?;
            }
        }
        Ok(())
    }

    fn respond(&mut self, body: &str) {
        self.unsent.extend_from_slice(b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: ");
        self.unsent.extend_from_slice(body.len().to_string().as_bytes());
        self.unsent.extend_from_slice(b"\r\n\r\n");
        self.unsent.extend_from_slice(body.as_bytes());
    }

    fn send(&mut self, filler: &[u8]) -> Result<()> {
        while self.wants() == Wants::ToWrite {
            let due = if self.unsent.is_empty() {
                &filler[..filler.len().min(usize::try_from(self.unsent_body)?)]
            } else {
                &self.unsent
            };
            let sent = match self.stream.write(due) {
                Ok(sent) => sent,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error.into()),
            };
            if self.unsent.is_empty() {
                self.unsent_body -= sent as u64;
            } else {
                self.unsent.drain(..sent);
            }
        }
        Ok(())
    }
}

/// The part of a request that decides the answer.
#[derive(Debug)]
struct Head {
    wanted: Wanted,
    length: usize,
}

#[derive(Debug)]
enum Wanted {
    Small,
    Download,
    Upload(u64),
    WebSocket,
}

impl Head {
    fn read(bytes: &[u8]) -> Result<Option<Self>> {
        let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else {
            ensure!(bytes.len() <= LARGEST_HEAD, "the request's head is too long");
            return Ok(None);
        };
        let text = std::str::from_utf8(&bytes[..end])?;
        let mut lines = text.split("\r\n");
        let request = lines.next().context("there is no request line")?;
        let path = request.split(' ').nth(1).context("there is no path")?;
        let mut wanted = if path == "/download" { Wanted::Download } else { Wanted::Small };
        for line in lines {
            let (name, value) = line.split_once(':').context("there is a field without a colon")?;
            let value = value.trim();
            if name.eq_ignore_ascii_case("content-length") {
                match value.parse()? {
                    0 => {}
                    size => wanted = Wanted::Upload(size),
                }
            } else if name.eq_ignore_ascii_case("transfer-encoding") {
                bail!("a body of known length was sent in chunks");
            } else if name.eq_ignore_ascii_case("sec-websocket-key") {
                ensure!(value == NONCE, "only this benchmark's client is answered");
                wanted = Wanted::WebSocket;
            }
        }
        Ok(Some(Self { wanted, length: end + 4 }))
    }
}
