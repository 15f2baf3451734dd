use std::{fmt, future::Future, sync::Arc};

use crate::{EndReason, SessionId, WorkerFactory, WorkerId, shared::WorkerOf, slot::Slot};

/// A caller's hold on a session while it talks to the session's worker.
///
/// Dropping it gives it back, from any thread, within a runtime or not. The idle clock of the session runs from the
/// moment its last lease is dropped. A lease does not keep a session from ending for other reasons: a holder that
/// stays for long waits for [`ended`](Self::ended) as well. Nor does it keep the worker running afterwards.
pub struct Lease<F: WorkerFactory> {
    slot: Arc<Slot<WorkerOf<F>>>,
    is_new: bool,
}

impl<F: WorkerFactory> Lease<F> {
    /// Takes over a lease that is counted in the slot's gate.
    pub(crate) fn new(slot: Arc<Slot<WorkerOf<F>>>, is_new: bool) -> Self {
        Self { slot, is_new }
    }

    /// The session's worker.
    #[must_use]
    pub fn worker(&self) -> &F::Worker {
        &self.slot.worker
    }

    /// The session.
    #[must_use]
    pub fn session(&self) -> &SessionId {
        self.slot.id()
    }

    /// The ID of the session's worker.
    #[must_use]
    pub fn worker_id(&self) -> WorkerId {
        self.slot.worker_id
    }

    /// Whether the acquire that gave this lease started the session. At most one lease of a session says so: of those
    /// who waited together it is the first.
    #[must_use]
    pub fn is_new(&self) -> bool {
        self.is_new
    }

    /// Resolves when the session ends, whatever the reason, and tells it; at once if it has ended already.
    ///
    /// The future does not borrow the lease and does not count as one.
    ///
    /// Cancel safe.
    pub fn ended(&self) -> impl Future<Output = EndReason> + Send + use<F> {
        let slot = Arc::clone(&self.slot);
        async move { slot.ended().await }
    }

    /// Why the session ended; `None` while it lives.
    #[must_use]
    pub fn end_reason(&self) -> Option<EndReason> {
        self.slot.reason()
    }

    /// Resets the session's idle clock. It is for holders that want the session to stay, but have no bytes to record,
    /// under [`IdleBy::Bytes`](crate::IdleBy::Bytes); otherwise a lease stops the clock by itself.
    pub fn touch(&self) {
        self.slot.touch();
    }

    /// Counts bytes received from the client and sent to it. Under [`IdleBy::Bytes`](crate::IdleBy::Bytes) this
    /// resets the session's idle clock, unless both are 0.
    pub fn record_bytes(&self, received: u64, sent: u64) {
        self.slot.record_bytes(received, sent);
    }
}

impl<F: WorkerFactory> Drop for Lease<F> {
    fn drop(&mut self) {
        self.slot.give_back();
    }
}

impl<F: WorkerFactory> fmt::Debug for Lease<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease")
            .field("session", self.session())
            .field("worker", &self.worker_id())
            .field("is_new", &self.is_new)
            .field("end_reason", &self.end_reason())
            .finish()
    }
}
