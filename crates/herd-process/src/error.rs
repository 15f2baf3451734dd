use std::{error::Error, fmt, io, path::Path, sync::Arc, time::Duration};

use herd_pool::ExitStatus;

use crate::probe;

/// How many lines of a worker's standard error an error's text holds, and how long each may be. The error itself has
/// them all.
const SHOWN_LINES: usize = 5;
const SHOWN_CHARS: usize = 300;

/// A worker could not be started. It is inside of the pool's [`SpawnError`](herd_pool::SpawnError).
///
/// The text names the program and the last lines of its standard error, and nothing of its arguments or environment.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The factory was [closed](crate::ProcessFactory::close).
    #[error("no worker is started any more: the daemon is stopping")]
    Closed,
    /// The daemon has no more of something that a worker needs: descriptors, processes, disk space.
    #[error("the worker's {what} could not be made")]
    Resource {
        /// What the worker needed: `private directory`, for example.
        what: &'static str,
        /// What the operating system said.
        source: io::Error,
    },
    /// Something that belongs to the sandbox of one worker cannot be had: a user of its own, its workspace, its cgroup.
    #[error("the worker's {what} cannot be had: {source}{}", cause(.source.as_ref()))]
    Unavailable {
        /// What the worker needed: `workspace`, for example.
        what: &'static str,
        /// Why it cannot be had.
        source: Box<dyn Error + Send + Sync>,
    },
    /// The worker needed more memory before it was ready than its limit allows.
    #[error("`{program}` was out of memory before it was ready{}", tail(.stderr_tail))]
    OutOfMemory {
        /// The program.
        program: String,
        /// The last lines of its standard error, oldest first.
        stderr_tail: Arc<[String]>,
    },
    /// Live workers and other programs hold every port that workers may have.
    #[error("no port is free for the worker; fewer workers, `listen: socket` or `listen: inherit` would help")]
    NoFreePort,
    /// The worker's init could not be launched.
    #[error("the worker's init could not be launched")]
    Launch(#[source] Box<dyn Error + Send + Sync>),
    /// Init could not start the program, for example because there is no such program.
    #[error("`{program}` could not be started: {failure}")]
    Failed {
        /// The program.
        program: String,
        /// Which step failed, why, and what helps.
        failure: herd_sandbox::Failure,
    },
    /// The worker ended before it was ready.
    #[error("`{program}` ended with {status} before it was ready{}", tail(.stderr_tail))]
    Exited {
        /// The program.
        program: String,
        /// How it ended.
        status: ExitStatus,
        /// The last lines of its standard error, oldest first.
        stderr_tail: Arc<[String]>,
    },
    /// The worker did not become ready in time. It was killed.
    #[error("`{program}` was not ready after {after:?}: waited for {waited_for}, last saw {last_seen}{}{}", remedy(.last_seen), tail(.stderr_tail))]
    TimedOut {
        /// The program.
        program: String,
        /// The start timeout.
        after: Duration,
        /// What it was to show: `a 2xx answer to GET /health`, for example.
        waited_for: String,
        /// What it showed last: `connection refused` or `status 503`, for example.
        last_seen: String,
        /// The last lines of its standard error, oldest first.
        stderr_tail: Arc<[String]>,
    },
    /// Each time, another program listened on the worker's port before the worker did.
    #[error("other programs took the worker's port {} times in a row ({ports:?}){}", .ports.len(), tail(.stderr_tail))]
    PortsLost {
        /// The ports.
        ports: Vec<u16>,
        /// The last lines of the last try's standard error, oldest first.
        stderr_tail: Arc<[String]>,
    },
}

impl StartError {
    /// No directory for the worker in `base`.
    pub(crate) fn directory(base: &Path, source: &io::Error) -> Self {
        let remedy = match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "; free space or inodes there",
            io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied => "; let herd's user write there",
            io::ErrorKind::NotFound => "; it was removed, so restart the daemon",
            _ => "",
        };
        let source = io::Error::new(source.kind(), format!("cannot write in {}: {source}{remedy}", base.display()));
        Self::Resource { what: "private directory", source }
    }

    pub(crate) fn unavailable(what: &'static str, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Unavailable { what, source: source.into() }
    }
}

/// `: ` and what is behind an error, or nothing.
fn cause(error: &(dyn Error + Send + Sync)) -> String {
    error.source().map(|source| format!(": {source}")).unwrap_or_default()
}

/// What a worker most likely does wrong that shows nothing else, or nothing.
fn remedy(last_seen: &str) -> &'static str {
    match last_seen {
        probe::REFUSED => {
            "; it has to listen on 127.0.0.1 at the port that `{{.Port}}` in its command and the variable PORT stand for, \
             within `start_timeout`"
        }
        probe::NO_SOCKET => {
            "; it has to listen on the Unix socket that `{{.Socket}}` in its command stands for, within `start_timeout`"
        }
        _ => "",
    }
}

/// `; its stderr ended with "a" / "b"`, or nothing.
fn tail(lines: &[String]) -> String {
    let shown = &lines[lines.len().saturating_sub(SHOWN_LINES)..];
    if shown.is_empty() {
        return String::new();
    }
    let quoted: Vec<_> = shown
        .iter()
        .map(|line| match line.char_indices().nth(SHOWN_CHARS) {
            Some((end, _)) => format!("\"{}…\"", &line[..end]),
            None => format!("\"{line}\""),
        })
        .collect();
    format!("; its stderr ended with {}", quoted.join(" / "))
}

/// Options of a worker that cannot be: all mistakes, in the order of the options.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct OptionsError {
    mistakes: Vec<Mistake>,
}

/// One option that cannot be.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Mistake {
    /// Which one: `args[2]` or `env[TOKEN]`, for example. Indexes count from 0.
    pub option: String,
    /// What is wrong with it and what is allowed.
    pub problem: String,
}

impl OptionsError {
    pub(crate) fn new(mistakes: Vec<Mistake>) -> Self {
        debug_assert!(!mistakes.is_empty());
        Self { mistakes }
    }

    /// All mistakes; at least one.
    #[must_use]
    pub fn mistakes(&self) -> &[Mistake] {
        &self.mistakes
    }
}

impl fmt::Display for OptionsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, mistake) in self.mistakes.iter().enumerate() {
            let separator = if index == 0 { "" } else { "; " };
            write!(f, "{separator}{mistake}")?;
        }
        Ok(())
    }
}

impl Error for OptionsError {}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.option, self.problem)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_named_with_its_directory_and_what_to_do() {
        let full = io::Error::from_raw_os_error(rustix::io::Errno::NOSPC.raw_os_error());
        let error = StartError::directory(Path::new("/run/herd-1"), &full);
        assert_eq!(error.to_string(), "the worker's private directory could not be made");
        let cause = error.source().expect("it has one").to_string();
        let said = "cannot write in /run/herd-1: No space left on device (os error 28); free space or inodes there";
        assert_eq!(cause, said);
    }

    #[test]
    fn a_long_tail_is_shown_in_part() {
        let lines: Vec<_> = (0..20).map(|number| number.to_string().repeat(1000)).collect();
        let error =
            StartError::Exited { program: "p".to_owned(), status: ExitStatus::Code(3), stderr_tail: lines.into() };
        let text = error.to_string();
        assert!(text.starts_with("`p` ended with exit code 3 before it was ready; its stderr ended with \"1515"));
        assert!(text.len() < 2_000 && text.matches(" / ").count() == SHOWN_LINES - 1, "{text}");
    }
}
