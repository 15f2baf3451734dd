use std::{error::Error, fmt, time::Duration};

use crate::{EndReason, SpawnError};

/// Why a session could not be had.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum AcquireError {
    /// As many callers as allowed wait already, or did so when a caller came whose tenant had fewer of them.
    QueueFull {
        /// The bound, see [`PoolBuilder::max_waiting`](crate::PoolBuilder::max_waiting).
        max_waiting: usize,
    },
    /// The session's tenant has as many sessions as it may have, counting those that start and those that end.
    TenantSessions {
        /// The bound, see [`TenantLimits`](crate::TenantLimits).
        max_sessions: usize,
    },
    /// As many callers of the session's tenant as allowed wait already.
    TenantWaiting {
        /// The bound, see [`TenantLimits`](crate::TenantLimits).
        max_waiting: usize,
    },
    /// No worker was to be had in time.
    TimedOut {
        /// How long the caller waited.
        after: Duration,
        /// The last failure to start a worker, if there was one since the last success. Where each worker is
        /// [for one session](crate::WorkerFactory::is_per_session), that is a failure to start this session's: what
        /// made it fail may be the session's own, so nobody else is told of it.
        last_spawn_error: Option<SpawnError>,
    },
    /// The worker for the session could not be started.
    Spawn(SpawnError),
    /// The session was ended while the caller waited for its worker.
    Ended(EndReason),
    /// The pool drains: it serves the leases it has and gives no new ones.
    Draining,
    /// The pool has shut down.
    ShutDown,
}

impl AcquireError {
    /// When it makes sense to try again, if at all.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::QueueFull { .. }
            | Self::TenantSessions { .. }
            | Self::TenantWaiting { .. }
            | Self::TimedOut { .. }
            | Self::Ended(_) => Some(Duration::from_secs(1)),
            Self::Spawn(_) | Self::Draining => Some(Duration::from_secs(5)),
            Self::ShutDown => None,
        }
    }
}

impl fmt::Display for AcquireError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::QueueFull { max_waiting: 1 } => f.write_str("1 caller waits for a worker already (max_waiting)"),
            Self::QueueFull { max_waiting } => {
                write!(f, "{max_waiting} callers wait for a worker already (max_waiting)")
            }
            Self::TenantSessions { max_sessions: 1 } => {
                f.write_str("the tenant has 1 session already, which is as many as it may have")
            }
            Self::TenantSessions { max_sessions } => {
                write!(f, "the tenant has {max_sessions} sessions already, which is as many as it may have")
            }
            Self::TenantWaiting { max_waiting: 1 } => f.write_str("1 caller of the tenant waits for a worker already"),
            Self::TenantWaiting { max_waiting } => {
                write!(f, "{max_waiting} callers of the tenant wait for a worker already")
            }
            // How many there are is not told: whoever asks may be one of several tenants.
            Self::TimedOut { after, last_spawn_error: None } => {
                write!(f, "no worker was free within {after:?}; max_workers says how many there may be")
            }
            Self::TimedOut { after, last_spawn_error: Some(_) } => {
                write!(f, "no worker could be started within {after:?}")
            }
            Self::Spawn(_) => f.write_str("the worker could not be started"),
            Self::Ended(reason) => write!(f, "the session was ended before it had a worker: {reason}"),
            Self::Draining => f.write_str("the pool is draining"),
            Self::ShutDown => f.write_str("the pool has shut down"),
        }
    }
}

impl Error for AcquireError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Spawn(error) | Self::TimedOut { last_spawn_error: Some(error), .. } => Some(error),
            _ => None,
        }
    }
}

/// There is no session with the given ID.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct NoSuchSession;

impl fmt::Display for NoSuchSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("there is no such session")
    }
}

impl Error for NoSuchSession {}

/// Why a pool could not be built, or not be reconfigured.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum OptionsError {
    /// `max_workers` is 0.
    NoWorkers,
    /// `min_workers` is above `max_workers`.
    MinAboveMax {
        /// The given `min_workers`.
        min_workers: usize,
        /// The given `max_workers`.
        max_workers: usize,
    },
    /// `max_waiting` is 0, so that no caller could wait for a worker to start.
    NoWaiting,
    /// A duration that must be above zero is not.
    Zero {
        /// Which one.
        option: &'static str,
    },
    /// `worker_reuse` is set, and the factory's workers serve the session alone that they were started for, see
    /// [`WorkerFactory::is_per_session`](crate::WorkerFactory::is_per_session).
    ReusePerSession,
    /// The pool was built outside of a tokio runtime.
    NoRuntime,
}

impl fmt::Display for OptionsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoWorkers => f.write_str("max_workers is 0; a pool needs at least one worker"),
            Self::MinAboveMax { min_workers, max_workers } => {
                write!(f, "min_workers ({min_workers}) is above max_workers ({max_workers})")
            }
            Self::NoWaiting => f.write_str("max_waiting is 0; at least one caller must be able to wait for a worker"),
            Self::Zero { option } => write!(f, "{option} is zero; it must be longer"),
            Self::ReusePerSession => f.write_str(
                "worker_reuse is set, but these workers serve the one session that they were started for; leave it out",
            ),
            Self::NoRuntime => f.write_str("a pool must be built within a tokio runtime"),
        }
    }
}

impl Error for OptionsError {}
