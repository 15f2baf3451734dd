use std::{
    error::Error,
    fmt,
    time::{Duration, SystemTime},
};

use tokio::sync::broadcast::{self, error::RecvError};

use crate::{EndReason, Exit, HealthError, SessionId, SpawnError, WorkerId};

/// How many events a subscriber may be behind before it loses some.
pub(crate) const BACKLOG: usize = 1024;

/// Something that happened in a pool.
#[derive(Clone, Debug)]
pub struct Event {
    /// Counts the pool's events, from 1 and without gaps.
    pub sequence: u64,
    /// When it happened, by the system's clock.
    pub at: SystemTime,
    /// What happened.
    pub kind: EventKind,
}

/// What an [`Event`] tells.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum EventKind {
    /// A worker is being started.
    WorkerStarting {
        /// Its ID.
        worker: WorkerId,
    },
    /// A worker is ready for requests.
    WorkerReady {
        /// The worker.
        worker: WorkerId,
        /// How long it took to start.
        after: Duration,
    },
    /// A worker could not be started.
    SpawnFailed {
        /// The ID it would have had.
        worker: WorkerId,
        /// Why.
        error: SpawnError,
    },
    /// A worker ended by itself.
    WorkerCrashed {
        /// The worker.
        worker: WorkerId,
        /// How it ended.
        exit: Exit,
    },
    /// A worker failed its health checks and is being replaced.
    WorkerUnhealthy {
        /// The worker.
        worker: WorkerId,
        /// What the last check found.
        finding: HealthError,
    },
    /// Nothing of a worker runs any more, whatever the reason.
    WorkerGone {
        /// The worker.
        worker: WorkerId,
    },
    /// A session got its worker.
    SessionStarted {
        /// The session.
        session: SessionId,
        /// Its worker.
        worker: WorkerId,
    },
    /// A session ended. Its worker may still be ending.
    SessionEnded {
        /// The session.
        session: SessionId,
        /// The worker it had.
        worker: WorkerId,
        /// Why it ended.
        reason: EndReason,
    },
    /// The pool began to drain.
    Draining,
    /// The pool began to shut down.
    ShuttingDown,
}

impl EventKind {
    /// What [`name`](Self::name) may answer.
    pub const NAMES: [&'static str; 10] = [
        "worker-starting",
        "worker-ready",
        "spawn-failed",
        "worker-crashed",
        "worker-unhealthy",
        "worker-gone",
        "session-started",
        "session-ended",
        "draining",
        "shutting-down",
    ];

    /// The name of the kind: lower case, words joined by `-`.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::WorkerStarting { .. } => "worker-starting",
            Self::WorkerReady { .. } => "worker-ready",
            Self::SpawnFailed { .. } => "spawn-failed",
            Self::WorkerCrashed { .. } => "worker-crashed",
            Self::WorkerUnhealthy { .. } => "worker-unhealthy",
            Self::WorkerGone { .. } => "worker-gone",
            Self::SessionStarted { .. } => "session-started",
            Self::SessionEnded { .. } => "session-ended",
            Self::Draining => "draining",
            Self::ShuttingDown => "shutting-down",
        }
    }
}

/// A subscription to a pool's events. Made by [`Pool::subscribe`](crate::Pool::subscribe), and by
/// [`PoolBuilder::build_with_events`](crate::PoolBuilder::build_with_events).
///
/// It never holds the pool up: a subscriber that falls 1024 events behind loses the oldest and is told how many.
/// Whoever must not lose any has them [told to a callback](crate::PoolBuilder::on_event).
#[derive(Debug)]
pub struct Events(broadcast::Receiver<Event>);

impl Events {
    pub(crate) fn new(receiver: broadcast::Receiver<Event>) -> Self {
        Self(receiver)
    }

    /// Waits for the next event.
    ///
    /// Cancel safe: no event is lost by dropping the future.
    ///
    /// # Errors
    /// [`EventsError::Lagged`] once after events were lost; the next call goes on with the oldest that is left.
    /// [`EventsError::Closed`] when the pool is gone and all its events were read.
    pub async fn next(&mut self) -> Result<Event, EventsError> {
        self.0.recv().await.map_err(|error| match error {
            RecvError::Lagged(missed) => EventsError::Lagged { missed },
            RecvError::Closed => EventsError::Closed,
        })
    }
}

/// Why there is no next event.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum EventsError {
    /// The subscriber was too slow.
    Lagged {
        /// How many events it lost.
        missed: u64,
    },
    /// The pool is gone.
    Closed,
}

impl fmt::Display for EventsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lagged { missed } => write!(f, "{missed} events were lost because they were not read in time"),
            Self::Closed => f.write_str("the pool is gone"),
        }
    }
}

impl Error for EventsError {}
