//! Many who follow the daemon's events.

use std::{
    io::{ErrorKind, Read, Write},
    net::{SocketAddr, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use rustix::{
    buffer::spare_capacity,
    event::{
        Timespec,
        epoll::{self, CreateFlags, EventData, EventFlags},
    },
    io::Errno,
};

/// How soon a thread finds that it is to end.
const LOOK_AFTER: Duration = Duration::from_millis(20);

/// Followers of `GET /v1/events`, each on a connection of its own. One thread reads for all: they are to cost next to
/// nothing beside the daemon.
#[derive(Debug)]
pub(crate) struct Followers {
    enough: Arc<AtomicBool>,
    thread: JoinHandle<Result<Vec<u64>>>,
}

impl Followers {
    pub(crate) fn start(admin: SocketAddr, count: usize) -> Result<Self> {
        let streams: Vec<TcpStream> = (0..count).map(|_| follow(admin)).collect::<Result<_>>()?;
        let enough = Arc::new(AtomicBool::new(false));
        let until = Arc::clone(&enough);
        Ok(Self { enough, thread: thread::spawn(move || read_all(&streams, &until)) })
    }

    /// Ends them, and returns how many bytes the least of them was sent.
    ///
    /// It is an error if the daemon has left one of them.
    pub(crate) fn stop(self) -> Result<u64> {
        self.enough.store(true, Ordering::Relaxed);
        let Ok(read) = self.thread.join() else { bail!("the thread of the followers has panicked") };
        read?.into_iter().min().context("nobody follows")
    }
}

fn follow(admin: SocketAddr) -> Result<TcpStream> {
    let mut stream = TcpStream::connect(admin).with_context(|| format!("cannot connect to {admin}"))?;
    write!(stream, "GET /v1/events HTTP/1.1\r\nhost: {admin}\r\naccept: text/event-stream\r\n\r\n")?;
    let mut start = [0; 12];
    stream.read_exact(&mut start)?;
    ensure!(&start == b"HTTP/1.1 200", "a follower is answered with {}", String::from_utf8_lossy(&start));
    stream.set_nonblocking(true)?;
    Ok(stream)
}

fn read_all(streams: &[TcpStream], enough: &AtomicBool) -> Result<Vec<u64>> {
    let epoll = epoll::create(CreateFlags::CLOEXEC)?;
    for (number, stream) in streams.iter().enumerate() {
        epoll::add(&epoll, stream, EventData::new_u64(number as u64), EventFlags::IN)?;
    }
    let mut read = vec![0; streams.len()];
    let mut buffer = vec![0; 64 * 1024];
    let mut events = Vec::with_capacity(streams.len());
    let look_after = Timespec::try_from(LOOK_AFTER)?;
    while !enough.load(Ordering::Relaxed) {
        match epoll::wait(&epoll, spare_capacity(&mut events), Some(&look_after)) {
            Err(Errno::INTR) => continue,
            other => other.context("cannot wait for events")?,
        };
        for event in events.drain(..) {
            let number = usize::try_from(event.data.u64())?;
            match (&streams[number]).read(&mut buffer) {
                Ok(0) => bail!("the daemon has left a follower, who had read {} bytes", read[number]),
                Ok(bytes) => read[number] += bytes as u64,
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
                Err(error) => return Err(error).context("a follower cannot read"),
            }
        }
    }
    Ok(read)
}
