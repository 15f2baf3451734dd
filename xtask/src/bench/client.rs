//! A small blocking HTTP/1.1 client: one connection, one request at a time.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};

/// No answer takes longer than this.
const PATIENCE: Duration = Duration::from_secs(30);
const LARGEST_HEAD: usize = 64 * 1024;

#[derive(Debug)]
pub(crate) struct Client {
    stream: TcpStream,
    host: SocketAddr,
    buffer: Vec<u8>,
}

#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    head: String,
    /// How long the body was; all of it has been read.
    pub(crate) length: u64,
    /// The body, or as much of it as fits into the buffer.
    pub(crate) start: Vec<u8>,
}

impl Client {
    pub(crate) fn connect(host: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(host).with_context(|| format!("cannot connect to {host}"))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Self { stream, host, buffer: vec![0; 256 * 1024] })
    }

    pub(crate) fn get(&mut self, path: &str, session: &str) -> Result<Response> {
        self.request("GET", path, session, 0)
    }

    /// Sends a request with a body of `length` zero bytes and reads the whole response.
    pub(crate) fn request(&mut self, method: &str, path: &str, session: &str, length: u64) -> Result<Response> {
        let mut head = format!("{method} {path} HTTP/1.1\r\nhost: {}\r\nx-session-id: {session}\r\n", self.host);
        if length > 0 {
            head += &format!("content-length: {length}\r\n");
        }
        head += "\r\n";
        self.stream.write_all(head.as_bytes())?;
        let mut left = length;
        while left > 0 {
            let chunk = self.buffer.len().min(usize::try_from(left)?);
            self.stream.write_all(&self.buffer[..chunk])?;
            left -= chunk as u64;
        }
        self.read_response().with_context(|| format!("{method} {path} of {}", self.host))
    }

    /// Asks for the upgrade of this connection to a WebSocket and returns its stream.
    pub(crate) fn upgrade(mut self, path: &str, session: &str, nonce: &str) -> Result<TcpStream> {
        write!(
            self.stream,
            "GET {path} HTTP/1.1\r\nhost: {}\r\nx-session-id: {session}\r\nconnection: upgrade\r\n\
             upgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: {nonce}\r\n\r\n",
            self.host
        )?;
        let response = self.read_response()?;
        ensure!(response.status == 101, "{} answers {} to the upgrade", self.host, response.status);
        Ok(self.stream)
    }

    fn read_response(&mut self) -> Result<Response> {
        let mut filled = 0;
        let end = loop {
            let read = self.stream.read(&mut self.buffer[filled..])?;
            ensure!(read > 0, "the connection ended before the response");
            filled += read;
            if let Some(end) = self.buffer[..filled].windows(4).position(|window| window == b"\r\n\r\n") {
                break end + 4;
            }
            ensure!(filled <= LARGEST_HEAD, "the response's head is too long");
        };
        let head = std::str::from_utf8(&self.buffer[..end])?.to_owned();
        let status = head.split(' ').nth(1).context("there is no status")?.parse()?;
        let mut response = Response { status, head, length: 0, start: self.buffer[end..filled].to_vec() };
        if status == 101 || status == 204 {
            return Ok(response);
        }
        if response.field("transfer-encoding").is_some() {
            bail!("the response came in chunks");
        }
        response.length = response.field("content-length").context("there is no content-length")?.parse()?;
        let mut received = (filled - end) as u64;
        while received < response.length {
            let read = self.stream.read(&mut self.buffer)?;
            ensure!(read > 0, "the connection ended within the body");
            let room = self.buffer.len().saturating_sub(response.start.len());
            response.start.extend_from_slice(&self.buffer[..read.min(room)]);
            received += read as u64;
        }
        ensure!(received == response.length, "more came than the response's content-length");
        Ok(response)
    }
}

impl Response {
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (found, value) = line.split_once(':')?;
            found.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    pub(crate) fn body(&self) -> String {
        String::from_utf8_lossy(&self.start).into_owned()
    }
}
