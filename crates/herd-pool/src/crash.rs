use crate::{Exit, SessionId, WorkerId};

/// A worker ended by itself.
#[derive(Clone, Debug)]
pub struct Crash {
    /// The session that was lost with it; `None` if it was a spare.
    pub session: Option<SessionId>,
    /// The worker.
    pub worker: WorkerId,
    /// How it ended and what it said last.
    pub exit: Exit,
}
