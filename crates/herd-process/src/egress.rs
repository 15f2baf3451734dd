//! The way out of a worker's network: pasta(1) beside the worker's init, and the answers to its questions for names.

use std::{
    collections::VecDeque,
    io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use herd_sandbox::{Host, Init, Isolation, Network, Pasta, Report, host_addresses};
use rustix::pipe::{PipeFlags, pipe_with};
use tokio::{
    io::unix::AsyncFd,
    io::{AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, BufReader},
    net::{TcpListener, UdpSocket, unix::pipe},
    task::{JoinHandle, spawn_blocking},
    time::{Duration, timeout},
};

use crate::{
    error::StartError,
    names,
    supervisor::{PolledInit, next_report, polled},
};

/// How many of its last lines tell why pasta ended, and how long each may be, in bytes.
const LINES: usize = 5;
const LINE: u64 = 500;

/// How long the end of a killed pasta is waited for.
const KILL_PATIENCE: Duration = Duration::from_secs(5);

/// How to make a worker's way out.
#[derive(Debug)]
pub(crate) struct WayOut {
    pasta: Pasta,
    init_program: Option<PathBuf>,
}

/// A way out that is there. **Dropping it closes it.**
#[derive(Debug)]
pub(crate) struct Outlet {
    /// Of pasta.
    init: AsyncFd<PolledInit>,
    names: JoinHandle<()>,
    /// The last lines of what pasta says.
    words: JoinHandle<String>,
}

/// Completes an isolation by what is different on each day: which addresses are the host's own.
pub(crate) fn furnish(isolation: &mut Isolation) -> io::Result<()> {
    if isolation.network == Network::Egress {
        isolation.egress.host = host_addresses()?;
    }
    Ok(())
}

impl WayOut {
    /// The one for a worker with this isolation, if it is to have one and can.
    pub(crate) fn new(isolation: &Isolation, init: Option<&Path>) -> Option<Self> {
        if isolation.network != Network::Egress {
            return None;
        }
        // It was found out when the factory was made.
        let host = init.map_or_else(Host::current, Host::current_with).ok()?;
        Some(Self { pasta: isolation.pasta(host)?, init_program: init.map(Path::to_owned) })
    }

    /// Makes it for the network of this process; names are asked for at these sockets.
    ///
    /// # Errors
    /// [`StartError::Resource`] and [`StartError::Launch`].
    pub(crate) async fn open(self, process: u32, datagrams: OwnedFd, streams: OwnedFd) -> Result<Outlet, StartError> {
        let resource = |what| move |source| StartError::Resource { what, source };
        let names = datagrams_and_streams(datagrams, streams).map_err(resource("name service"))?;
        let (said, say) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)
            .map_err(io::Error::from)
            .and_then(|(said, say)| {
                // Pasta would have to be prepared for a pipe that is full.
                rustix::io::ioctl_fionbio(&say, false)?;
                Ok((pipe::Receiver::from_owned_fd(said)?, say))
            })
            .map_err(resource("output pipe of pasta"))?;
        let Self { pasta, init_program } = self;
        let launched = spawn_blocking(move || {
            let mut spec = pasta.spec(process);
            spec.stderr = Some(say);
            match init_program {
                Some(helper) => Init::launch_with(helper, spec),
                None => Init::launch(spec),
            }
        });
        let init = launched.await.map_err(|error| StartError::Launch(error.into()))?;
        let init = init.map_err(|error| StartError::Launch(error.into()))?;
        let init = polled(PolledInit(init)).map_err(resource("connection to the init of pasta"))?;
        let (datagrams, streams) = names;
        let names = tokio::spawn(names::answer(datagrams, streams, names::servers()));
        Ok(Outlet { init, names, words: tokio::spawn(last_lines(said)) })
    }
}

impl Outlet {
    /// Resolves when it leads nowhere any more, with the reason.
    ///
    /// Cancel safe.
    pub(crate) async fn ended(&mut self) -> String {
        let why = loop {
            match next_report(&self.init).await {
                Ok(Some(Report::Ready { .. })) => {}
                Ok(Some(Report::Failed(failure))) => break failure.to_string(),
                Ok(Some(Report::Exited { status, .. })) => break format!("pasta ended with {status}"),
                Ok(Some(_)) => {}
                Ok(None) => break "the init of pasta was killed".to_owned(),
                Err(error) => break format!("the init of pasta cannot be heard: {error}"),
            }
        };
        // What it said ends with it.
        let words = timeout(KILL_PATIENCE, &mut self.words).await;
        match words {
            Ok(Ok(words)) if !words.is_empty() => format!("{why}: {words}"),
            _ => why,
        }
    }

    /// Closes it and resolves when nothing of it is left.
    pub(crate) async fn close(self) {
        self.init.get_ref().0.kill();
        let gone = async { while let Ok(Some(_)) = next_report(&self.init).await {} };
        // What takes longer ends on its own.
        let _ = timeout(KILL_PATIENCE, gone).await;
    }
}

impl Drop for Outlet {
    fn drop(&mut self) {
        self.names.abort();
        self.words.abort();
    }
}

fn datagrams_and_streams(datagrams: OwnedFd, streams: OwnedFd) -> io::Result<(UdpSocket, TcpListener)> {
    Ok((UdpSocket::from_std(datagrams.into())?, TcpListener::from_std(streams.into())?))
}

/// Reads to the end, as whoever writes must not be held up.
async fn last_lines(said: impl AsyncRead + Unpin) -> String {
    let mut said = BufReader::new(said);
    let mut lines = VecDeque::new();
    loop {
        let mut line = Vec::new();
        match (&mut said).take(LINE).read_until(b'\n', &mut line).await {
            Ok(0) | Err(_) => break,
            Ok(_) => {}
        }
        let line = String::from_utf8_lossy(&line).trim().to_owned();
        // It says so of each message, where there is no system log.
        if line.is_empty() || line.ends_with("bytes to syslog") {
            continue;
        }
        tracing::debug!(line, "pasta says");
        lines.push_back(line);
        if lines.len() > LINES {
            lines.pop_front();
        }
    }
    Vec::from(lines).join(" / ")
}
