use std::{
    fmt,
    sync::Arc,
    time::{Duration, SystemTime},
};

use crate::{SessionId, WorkerId};

/// Where a session is in its life.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum SessionState {
    /// Callers wait for its worker.
    Starting,
    /// It has its worker.
    Live,
    /// It has ended and its worker is being closed.
    Ending,
}

impl SessionState {
    /// The state's name, in lower case.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Live => "live",
            Self::Ending => "ending",
        }
    }
}

/// What is known about a session at one moment.
#[derive(Clone, Debug)]
pub struct SessionInfo {
    /// The session.
    pub id: SessionId,
    /// Where it is in its life.
    pub state: SessionState,
    /// Its worker; `None` while it starts.
    pub worker: Option<WorkerId>,
    /// Its worker's address; `None` while it starts.
    pub address: Option<String>,
    /// When it got its worker; while it starts, when the first caller began to wait.
    pub created: SystemTime,
    /// When its last lease was dropped, or now if it has one.
    pub last_used: SystemTime,
    /// When it ends if nobody uses it any more. `None` while a lease keeps it from being idle, and unless it is live.
    pub idle_until: Option<SystemTime>,
    /// When it ends however much it is used; `None` without [`max_lifetime`](crate::PoolBuilder::max_lifetime), and
    /// unless it is live.
    pub ends_by: Option<SystemTime>,
    /// Leases held now.
    pub leases: u32,
    /// Leases given so far.
    pub requests: u64,
    /// Bytes received from clients, as far as leases recorded them.
    pub bytes_in: u64,
    /// Bytes sent to clients, as far as leases recorded them.
    pub bytes_out: u64,
}

/// As much of a session as [`Pool::sessions_after`](crate::Pool::sessions_after) chooses by. To look at it costs next to
/// nothing.
#[derive(Clone, Copy, Debug)]
pub struct SessionOutline<'a> {
    /// The session.
    pub id: &'a SessionId,
    /// Where it is in its life.
    pub state: SessionState,
    /// Its worker; `None` while it starts.
    pub worker: Option<WorkerId>,
}

/// Where a worker is in its life.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum WorkerState {
    /// The factory is starting it.
    Starting,
    /// It waits for a session, or is being checked for one.
    Spare,
    /// It serves a session.
    InSession,
    /// It is being closed.
    Ending,
}

impl WorkerState {
    /// The state's name: lower case, words joined by `-`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Spare => "spare",
            Self::InSession => "in-session",
            Self::Ending => "ending",
        }
    }
}

/// What is known about a worker at one moment.
pub struct WorkerInfo<W> {
    /// The worker's ID.
    pub id: WorkerId,
    /// Where it is in its life.
    pub state: WorkerState,
    /// The session it serves, or served last if it is ending.
    pub session: Option<SessionId>,
    /// When its start began.
    pub started: SystemTime,
    /// How long its start took; `None` while it starts.
    pub ready_after: Option<Duration>,
    /// The worker itself; `None` while it starts. Holding on to it does not keep it running.
    pub worker: Option<Arc<W>>,
}

impl<W> Clone for WorkerInfo<W> {
    fn clone(&self) -> Self {
        let Self { id, state, session, started, ready_after, worker } = self;
        Self {
            id: *id,
            state: *state,
            session: session.clone(),
            started: *started,
            ready_after: *ready_after,
            worker: worker.clone(),
        }
    }
}

impl<W> fmt::Debug for WorkerInfo<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WorkerInfo")
            .field("id", &self.id)
            .field("state", &self.state)
            .field("session", &self.session)
            .field("started", &self.started)
            .field("ready_after", &self.ready_after)
            .finish_non_exhaustive()
    }
}
