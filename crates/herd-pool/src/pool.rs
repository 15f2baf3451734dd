use std::{fmt, future::Future, sync::Arc, time::Duration};

use tokio::runtime::Handle;

use crate::{
    AcquireError, EndReason, Events, Lease, NoSuchSession, PoolBuilder, SessionId, SessionInfo, Stats, WorkerFactory,
    WorkerId, WorkerIds, WorkerInfo,
    builder::{CrashCallback, Options},
};

/// The map from sessions to workers, with its limits. Cloning it is cheap; all clones are the same pool.
pub struct Pool<F: WorkerFactory> {
    shared: Arc<F>,
}

impl<F: WorkerFactory> Pool<F> {
    /// Begins to set up a pool whose workers `factory` starts.
    pub fn builder(factory: F) -> PoolBuilder<F> {
        PoolBuilder::new(factory)
    }

    pub(crate) fn start(_: F, _: Options, _: Option<CrashCallback>, _: WorkerIds, _: Handle) -> Self {
        todo!()
    }

    /// Takes a lease of the session, which starts it if there is none.
    ///
    /// # Errors
    /// [`AcquireError`] says which bound was hit or what failed.
    pub fn acquire(&self, session: &SessionId) -> impl Future<Output = Result<Lease<F>, AcquireError>> + Send {
        let _ = session;
        async { todo!() }
    }

    /// Takes a lease of the session if it is live. Never starts one and never waits.
    #[must_use]
    pub fn get(&self, session: &SessionId) -> Option<Lease<F>> {
        let _ = session;
        todo!()
    }

    /// Ends the session in an orderly way; resolves with the real reason once its worker is gone.
    ///
    /// # Errors
    /// [`NoSuchSession`].
    pub fn end(&self, session: &SessionId) -> impl Future<Output = Result<EndReason, NoSuchSession>> + Send {
        let _ = session;
        async { todo!() }
    }

    /// Like [`end`](Self::end), with a reason of the caller's choice.
    ///
    /// # Errors
    /// [`NoSuchSession`].
    pub fn end_with(
        &self,
        session: &SessionId,
        reason: EndReason,
    ) -> impl Future<Output = Result<EndReason, NoSuchSession>> + Send {
        let _ = (session, reason);
        async { todo!() }
    }

    /// Ends the session and kills its worker; resolves with the real reason once it is gone.
    ///
    /// # Errors
    /// [`NoSuchSession`].
    pub fn kill(&self, session: &SessionId) -> impl Future<Output = Result<EndReason, NoSuchSession>> + Send {
        let _ = session;
        async { todo!() }
    }

    /// Like [`kill`](Self::kill), with a reason of the caller's choice.
    ///
    /// # Errors
    /// [`NoSuchSession`].
    pub fn kill_with(
        &self,
        session: &SessionId,
        reason: EndReason,
    ) -> impl Future<Output = Result<EndReason, NoSuchSession>> + Send {
        let _ = (session, reason);
        async { todo!() }
    }

    /// Gives no new leases, lets sessions end as their last lease is dropped, and ends the rest at the timeout.
    pub fn drain(&self, timeout: Duration) -> impl Future<Output = ()> + Send {
        let _ = timeout;
        async { todo!() }
    }

    /// Ends everything now; resolves when no worker is left.
    pub fn shutdown(&self) -> impl Future<Output = ()> + Send {
        async { todo!() }
    }

    /// The pool's numbers at this moment.
    #[must_use]
    pub fn stats(&self) -> Stats {
        todo!()
    }

    /// All sessions.
    #[must_use]
    pub fn sessions(&self) -> Vec<SessionInfo> {
        todo!()
    }

    /// One session.
    #[must_use]
    pub fn session(&self, id: &SessionId) -> Option<SessionInfo> {
        let _ = id;
        todo!()
    }

    /// All workers.
    #[must_use]
    pub fn workers(&self) -> Vec<WorkerInfo<F::Worker>> {
        todo!()
    }

    /// One worker.
    #[must_use]
    pub fn worker(&self, id: WorkerId) -> Option<WorkerInfo<F::Worker>> {
        let _ = id;
        todo!()
    }

    /// Subscribes to the events from now on.
    #[must_use]
    pub fn subscribe(&self) -> Events {
        todo!()
    }
}

impl<F: WorkerFactory> Clone for Pool<F> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl<F: WorkerFactory> fmt::Debug for Pool<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").finish_non_exhaustive()
    }
}
