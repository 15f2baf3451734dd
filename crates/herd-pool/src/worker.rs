use std::{error::Error, fmt, future::Future, str::FromStr, sync::Arc};

use crate::{Exit, SessionId};

/// Names a worker: `worker-3`. A pool never gives the same one twice, not even after a crash.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct WorkerId(u64);

impl WorkerId {
    /// The ID with this number.
    #[must_use]
    pub fn new(number: u64) -> Self {
        Self(number)
    }

    /// The ID's number: 3 for `worker-3`.
    #[must_use]
    pub fn number(self) -> u64 {
        self.0
    }
}

impl fmt::Display for WorkerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "worker-{}", self.0)
    }
}

impl FromStr for WorkerId {
    type Err = InvalidWorkerId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let number = text.strip_prefix("worker-").ok_or(InvalidWorkerId)?;
        // `u64::from_str` would also take "+3" and "03", which are not how an ID is written.
        let canonical = !number.starts_with('+') && (number == "0" || !number.starts_with('0'));
        number.parse().ok().filter(|_| canonical).map(Self).ok_or(InvalidWorkerId)
    }
}

/// Some text is not a worker ID.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct InvalidWorkerId;

impl fmt::Display for InvalidWorkerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a worker ID is written worker-N, for example worker-3")
    }
}

impl Error for InvalidWorkerId {}

/// One running worker, which serves one session at a time.
pub trait Worker: Send + Sync + 'static {
    /// The typed connection to the worker: an HTTP client, a gRPC stub, anything.
    type Client: Send + Sync;

    /// The worker's ID.
    fn id(&self) -> WorkerId;

    /// The internal URI at which the worker listens, for example `http://127.0.0.1:41235`.
    fn address(&self) -> &str;

    /// The typed connection to the worker.
    fn client(&self) -> &Self::Client;

    /// Checks that the worker accepts requests. The pool bounds the time this may take.
    ///
    /// Cancel safe: dropping the future abandons the check.
    ///
    /// # Errors
    /// [`HealthError`] says what the check found.
    fn healthy(&self) -> impl Future<Output = Result<(), HealthError>> + Send;

    /// Resolves once the worker has ended, by itself or not, and says how. Every call gets the same answer, also after
    /// the end.
    fn exited(&self) -> impl Future<Output = Exit> + Send + 'static;

    /// Ends the worker in an orderly way: asks it to stop, grants it some time, then kills what is left of it. When
    /// this returns, nothing of the worker runs any more.
    ///
    /// Dropping the future must not leave the worker running.
    fn close(&self) -> impl Future<Output = ()> + Send;

    /// Ends the worker at once. When this returns, nothing of the worker runs any more.
    ///
    /// Dropping the future must not leave the worker running.
    fn kill(&self) -> impl Future<Output = ()> + Send {
        self.close()
    }
}

/// Starts workers for a pool.
pub trait WorkerFactory: Send + Sync + 'static {
    /// What it starts.
    type Worker: Worker;

    /// Starts one worker under the given ID and resolves when it is ready for requests.
    ///
    /// Cancellation is dropping the future: nothing of a half-started worker may be left behind.
    ///
    /// # Errors
    /// [`SpawnError`] says why the worker did not become ready.
    fn spawn(&self, id: WorkerId) -> impl Future<Output = Result<Self::Worker, SpawnError>> + Send;

    /// Whether a worker can serve the one session alone that it was started for, for example because the session's
    /// files are the worker's. The answer must always be the same. Default: no.
    ///
    /// A pool over such a factory has no spares and no floor of workers, calls [`spawn_for`](Self::spawn_for) instead
    /// of [`spawn`](Self::spawn), and starts a second worker for a session only when nothing of the first one runs any
    /// more.
    fn is_per_session(&self) -> bool {
        false
    }

    /// Starts one worker, as [`spawn`](Self::spawn) does, for this session. Default: like any other worker.
    ///
    /// # Errors
    /// As [`spawn`](Self::spawn).
    fn spawn_for(
        &self,
        id: WorkerId,
        session: &SessionId,
    ) -> impl Future<Output = Result<Self::Worker, SpawnError>> + Send {
        let _ = session;
        self.spawn(id)
    }
}

/// A worker could not be started. Cheap to clone: all callers who waited for it get the same one.
#[derive(Clone, Debug)]
pub struct SpawnError(Arc<dyn Error + Send + Sync>);

impl SpawnError {
    /// Wraps the reason. Its text reaches clients, so it must not hold secrets.
    pub fn new(reason: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self(reason.into().into())
    }

    /// The reason as it was given, which can be downcast to the error of the factory.
    #[must_use]
    pub fn reason(&self) -> &(dyn Error + Send + Sync + 'static) {
        &*self.0
    }
}

/// The reason; `{:#}` shows its causes as well.
impl fmt::Display for SpawnError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut cause = self.source().filter(|_| f.alternate());
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

impl Error for SpawnError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.0.source()
    }
}

/// A worker failed a liveness check.
#[derive(Clone, Debug)]
pub struct HealthError(Arc<str>);

impl HealthError {
    /// Says what the check found.
    pub fn new(finding: impl fmt::Display) -> Self {
        Self(finding.to_string().into())
    }
}

impl fmt::Display for HealthError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Error for HealthError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn worker_ids_are_read_back_only_as_they_are_written() {
        assert_eq!("worker-3".parse(), Ok(WorkerId::new(3)));
        assert_eq!(WorkerId::new(3).to_string(), "worker-3");
        for text in
            ["", "3", "worker-", "worker-+3", "worker-03", "worker--3", "Worker-3", "worker-99999999999999999999"]
        {
            assert_eq!(text.parse::<WorkerId>(), Err(InvalidWorkerId), "{text:?}");
        }
    }
}
