use std::{fmt, sync::Arc};

/// How a worker's main process ended, as wait(2) tells it.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum ExitStatus {
    /// It returned this exit code.
    Code(i32),
    /// This signal ended it.
    Signal(i32),
    /// Nobody can tell: the worker is no process, or whoever watched it is gone.
    Unknown,
}

impl fmt::Display for ExitStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exit code {code}"),
            Self::Signal(signal) => write!(f, "signal {signal}"),
            Self::Unknown => f.write_str("unknown status"),
        }
    }
}

/// How a worker ended and what it said last.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Exit {
    /// The status of the worker's main process.
    pub status: ExitStatus,
    /// Whether the memory limit killed it.
    pub out_of_memory: bool,
    /// The last lines of its standard error, oldest first. They come from the worker, so treat them as hostile text.
    pub stderr_tail: Arc<[String]>,
}

impl Exit {
    /// An exit with nothing else known about it.
    #[must_use]
    pub fn with_status(status: ExitStatus) -> Self {
        Self { status, out_of_memory: false, stderr_tail: Arc::default() }
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.out_of_memory { f.write_str("out of memory") } else { self.status.fmt(f) }
    }
}
