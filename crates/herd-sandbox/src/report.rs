use std::{fmt, io, os::fd::OwnedFd, process::ExitStatus, time::Duration};

/// What an init tells about its worker, in this order: first [`Ready`](Self::Ready) or [`Failed`](Self::Failed), after
/// `Ready` one [`Exited`](Self::Exited); for each further command [`Executed`](Self::Executed) and
/// [`ExecutionEnded`](Self::ExecutionEnded), or [`ExecutionFailed`](Self::ExecutionFailed). Then it closes the connection, and with that says that nothing of the worker
/// is left.
#[derive(Debug)]
#[non_exhaustive]
pub enum Report {
    /// The worker's program runs: its execve(2) succeeded.
    Ready {
        /// The process ID of the worker's main process, as the launching process sees it; it is also the ID of its process
        /// group and session.
        pid: u32,
    },
    /// The worker could not be started. Nothing of it runs.
    Failed(Failure),
    /// The worker's main process ended, by itself or because it was told to. Its descendants are killed now, if there
    /// are any.
    Exited {
        /// How it ended.
        status: ExitStatus,
        /// What it used.
        usage: Usage,
    },
    /// The worker waits for a way out of its network, before it begins: only with
    /// [`Network::Egress`](crate::Network::Egress). It goes on when the [`Pasta`](crate::Pasta) of its isolation
    /// has joined the network of this process. Comes first of all.
    Router {
        /// A process in the network that needs a way out.
        process: u32,
        /// The socket on which the worker asks for names by datagrams (RFC 1035), non-blocking. Who answers there decides
        /// what names the worker knows.
        datagrams: OwnedFd,
        /// The listening socket on which it does so by streams (RFC 7766), non-blocking.
        streams: OwnedFd,
    },
    /// The answer to [`Init::request_sockets`](crate::Init::request_sockets).
    Sockets {
        /// TCP sockets of the worker's network, non-blocking, not connected.
        sockets: Vec<OwnedFd>,
        /// Why there are fewer than were asked for, as the operating system's error number.
        errno: Option<i32>,
    },
    /// The program of a further command runs: see [`Init::execute`](crate::Init::execute).
    Executed {
        /// The number that the launching process gave it.
        id: u32,
        /// The process ID of its main process, as the launching process sees it; also that of its group and session.
        pid: u32,
        /// This side of its terminal, non-blocking, if it was to have one. `None` for one that was: this process has as many
        /// descriptors as it may, and the command is to be ended. The other side is in the worker's sandbox, where
        /// the worker can do with it whatever the command can.
        terminal: Option<OwnedFd>,
    },
    /// A further command could not be run. Nothing of it runs.
    ExecutionFailed {
        /// The number that the launching process gave it.
        id: u32,
        /// At which step, and why.
        failure: Failure,
    },
    /// The main process of a further command has ended. What it started is being killed, but for what took a session of
    /// its own.
    ExecutionEnded {
        /// The number that the launching process gave it.
        id: u32,
        /// How it ended.
        status: ExitStatus,
    },
}

/// What a worker's main process used, together with those of its descendants that it waited for; see getrusage(2).
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Usage {
    /// CPU time in its own code.
    pub user: Duration,
    /// CPU time in the kernel on its behalf.
    pub system: Duration,
    /// The most memory that any one of these processes had resident at once, in bytes.
    pub max_rss: u64,
}

/// A worker could not be started: at which step, why, and what helps.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Failure {
    /// The step of the start, for example `exec` or `working directory`.
    pub step: String,
    /// The operating system's error number, where there is one.
    pub errno: Option<i32>,
    /// One sentence for a person: what was tried and what to do.
    pub hint: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "step '{}' failed", self.step)?;
        if let Some(errno) = self.errno {
            write!(f, ": {}", io::Error::from_raw_os_error(errno))?;
        }
        if !self.hint.is_empty() {
            write!(f, ": {}", self.hint)?;
        }
        Ok(())
    }
}

impl std::error::Error for Failure {}
