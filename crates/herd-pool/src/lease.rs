use std::{fmt, future::Future, sync::Arc};

use crate::{EndReason, SessionId, WorkerFactory, WorkerId};

/// A caller's hold on a session while it talks to the session's worker. Dropping it gives it back.
pub struct Lease<F: WorkerFactory> {
    worker: Arc<F::Worker>,
}

impl<F: WorkerFactory> Lease<F> {
    /// The session's worker.
    #[must_use]
    pub fn worker(&self) -> &F::Worker {
        &self.worker
    }

    /// The session.
    #[must_use]
    pub fn session(&self) -> &SessionId {
        todo!()
    }

    /// The ID of the session's worker.
    #[must_use]
    pub fn worker_id(&self) -> WorkerId {
        todo!()
    }

    /// Whether the acquire that gave this lease started the session. It is true for one lease of a session only.
    #[must_use]
    pub fn is_new(&self) -> bool {
        todo!()
    }

    /// Resolves when the session ends, whatever the reason, and tells it. The future does not borrow the lease.
    pub fn ended(&self) -> impl Future<Output = EndReason> + Send + use<F> {
        async { todo!() }
    }

    /// Why the session ended; `None` while it lives.
    #[must_use]
    pub fn end_reason(&self) -> Option<EndReason> {
        todo!()
    }

    /// Counts bytes received from the client and sent to it. Under [`IdleBy::Bytes`](crate::IdleBy::Bytes) this
    /// resets the session's idle clock.
    pub fn record_bytes(&self, received: u64, sent: u64) {
        let _ = (received, sent);
        todo!()
    }
}

impl<F: WorkerFactory> fmt::Debug for Lease<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease").finish_non_exhaustive()
    }
}
