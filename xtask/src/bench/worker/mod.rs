//! The small worker that every proxy in the benchmark stands in front of: one thread, HTTP/1.1 with keep-alive.
//!
//! It answers `POST` with the number of bytes that it was sent, `GET /download` with [`LARGE`] bytes, `GET /ws` with a
//! WebSocket echo, and all else (such as `GET /health`) with [`SMALL_BODY`].

mod connection;

use std::{
    io::{self, ErrorKind, Write, stderr, stdout},
    net::{Ipv4Addr, TcpListener},
    os::fd::OwnedFd,
};

use anyhow::{Context, Result};
use rustix::{
    buffer::spare_capacity,
    event::epoll::{self, CreateFlags, EventData, EventFlags},
    io::Errno,
};

use self::connection::{Connection, Wants};
use super::cores::Cores;

pub(crate) use self::connection::SMALL_BODY;

/// The size of the large bodies, in bytes.
pub(crate) const LARGE: u64 = 64 << 20;

const LISTENER: u64 = u64::MAX;
const BUFFER: usize = 256 * 1024;

#[derive(clap::Args, Debug)]
pub(crate) struct Options {
    /// Listen on this port of 127.0.0.1; 0 takes a free one. It is printed either way
    #[arg(long, default_value_t = 0)]
    port: u16,
    /// Stay on these cores
    #[arg(long)]
    cores: Option<Cores>,
}

/// Serves until it is killed.
pub(crate) fn run(options: &Options) -> Result<()> {
    if let Some(cores) = &options.cores {
        cores.pin_this_thread()?;
    }
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, options.port)).context("cannot listen")?;
    listener.set_nonblocking(true)?;
    writeln!(stdout(), "{}", listener.local_addr()?)?;
    Server::new(listener)?.serve()
}

struct Server {
    epoll: OwnedFd,
    listener: TcpListener,
    connections: Vec<Option<Connection>>,
    vacant: Vec<usize>,
    buffer: Vec<u8>,
}

impl Server {
    fn new(listener: TcpListener) -> Result<Self> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        epoll::add(&epoll, &listener, EventData::new_u64(LISTENER), EventFlags::IN)?;
        Ok(Self { epoll, listener, connections: Vec::new(), vacant: Vec::new(), buffer: vec![0; BUFFER] })
    }

    fn serve(mut self) -> Result<()> {
        let mut events = Vec::with_capacity(512);
        loop {
            match epoll::wait(&self.epoll, spare_capacity(&mut events), None) {
                Err(Errno::INTR) => continue,
                other => other.context("cannot wait for connections")?,
            };
            for event in events.drain(..) {
                match event.data.u64() {
                    LISTENER => self.accept()?,
                    slot => self.advance(usize::try_from(slot)?),
                }
            }
        }
    }

    fn accept(&mut self) -> Result<()> {
        loop {
            let stream = match self.listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                // The client was gone before it was accepted.
                Err(error) if matches!(error.kind(), ErrorKind::ConnectionAborted | ErrorKind::Interrupted) => continue,
                Err(error) => return Err(error).context("cannot accept"),
            };
            stream.set_nonblocking(true)?;
            stream.set_nodelay(true)?;
            let slot = self.vacant.pop().unwrap_or_else(|| {
                self.connections.push(None);
                self.connections.len() - 1
            });
            epoll::add(&self.epoll, &stream, EventData::new_u64(slot as u64), EventFlags::IN)?;
            self.connections[slot] = Some(Connection::new(stream));
        }
    }

    /// A connection that breaks, or that talks nonsense, is closed; the worker serves the others.
    fn advance(&mut self, slot: usize) {
        let Some(connection) = self.connections.get_mut(slot).and_then(Option::as_mut) else { return };
        let before = connection.wants();
        let alive = match connection.advance(&mut self.buffer) {
            Ok(Wants::Nothing) => false,
            Err(error) => {
                // That clients go away is usual; what they should not have said is worth knowing.
                if error.downcast_ref::<io::Error>().is_none() {
                    let _ = writeln!(stderr(), "{error:#}");
                }
                false
            }
            Ok(wants) if wants == before => true,
            Ok(wants) => {
                let flags = if wants == Wants::ToWrite { EventFlags::OUT } else { EventFlags::IN };
                epoll::modify(&self.epoll, connection.stream(), EventData::new_u64(slot as u64), flags).is_ok()
            }
        };
        if !alive {
            // Closing the descriptor takes it out of the epoll set.
            self.connections[slot] = None;
            self.vacant.push(slot);
        }
    }
}
