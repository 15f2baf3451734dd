use std::{fmt, sync::Arc, time::Duration};

use tokio::{runtime::Handle, sync::oneshot};

use crate::{
    AcquireError, EndReason, Events, Lease, NoSuchSession, OptionsError, PoolBuilder, SessionId, SessionInfo,
    SessionOutline, Stats, WorkerFactory, WorkerId, WorkerIds, WorkerInfo,
    builder::{CrashCallback, EventCallback},
    options::Options,
    queue::Ticket,
    shared::{Reply, Shared},
    state::{Force, Input},
};

/// The map from sessions to workers, with its limits. Cloning it is cheap; all clones are the same pool.
///
/// Dropping the last clone [shuts the pool down](Self::shutdown) without anybody waiting for it.
pub struct Pool<F: WorkerFactory> {
    handle: Arc<PoolHandle<F>>,
}

/// What the clones of a pool share. Its drop is the drop of the last one.
struct PoolHandle<F: WorkerFactory> {
    shared: Arc<Shared<F>>,
}

impl<F: WorkerFactory> Pool<F> {
    /// Begins to set up a pool whose workers `factory` starts.
    pub fn builder(factory: F) -> PoolBuilder<F> {
        PoolBuilder::new(factory)
    }

    pub(crate) fn start(
        factory: F,
        options: Options,
        on_crash: Option<CrashCallback>,
        on_event: Option<EventCallback>,
        worker_ids: WorkerIds,
        runtime: Handle,
    ) -> (Self, Events) {
        let (shared, events) = Shared::start(factory, options, on_crash, on_event, worker_ids, runtime);
        (Self { handle: Arc::new(PoolHandle { shared }) }, events)
    }

    /// Takes a lease of the session, which starts it if there is none.
    ///
    /// If the session is live, this is ready at once: it neither waits nor allocates. Otherwise a spare that passes a
    /// quick health check serves the session, or a worker that is started for it; if all workers are taken, what
    /// happens depends on [`when_full`](PoolBuilder::when_full). Callers of the same session share one worker. Workers
    /// go round the [tenants](crate::Tenant) that wait, and of each to the session whose first caller came first. If
    /// the session is ending, this waits for the end and starts it anew.
    ///
    /// Cancel safe: whoever drops the future loses the place in line and nothing else. The worker that was on its way
    /// serves somebody else or becomes a spare.
    ///
    /// # Errors
    /// [`AcquireError`] says which bound was hit or what failed.
    pub async fn acquire(&self, session: &SessionId) -> Result<Lease<F>, AcquireError> {
        let shared = &self.handle.shared;
        match shared.index.hit(session) {
            Some(slot) => Ok(Lease::new(slot, false)),
            None => self.wait_for(session).await,
        }
    }

    /// Takes a lease of the session if it is live. Never starts one and never waits.
    #[must_use]
    pub fn get(&self, session: &SessionId) -> Option<Lease<F>> {
        let slot = self.handle.shared.index.lease(session)?.ok()?;
        Some(Lease::new(slot, false))
    }

    /// Whether `other` is a clone of this pool.
    #[must_use]
    pub fn is_same_as(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.handle, &other.handle)
    }

    /// Whether the pool gives leases: it does until it is drained or shut down.
    #[must_use]
    pub fn is_accepting(&self) -> bool {
        self.handle.shared.inspect(|state| state.running())
    }

    /// Ends the session in an orderly way, with the reason [`EndReason::Released`].
    ///
    /// It takes no new leases from the first poll on, those who hold one are told through [`Lease::ended`], and its
    /// worker is [closed](crate::Worker::close). Resolves with the real reason once the worker is gone: if the session
    /// was ending already, that is the reason for which it was. A session that is still starting is ended too; those
    /// who wait for it get [`AcquireError::Ended`].
    ///
    /// With [`worker_reuse`](PoolBuilder::worker_reuse) the worker is not closed, and this resolves when the last lease
    /// has been dropped.
    ///
    /// Cancel safe: once it was polled, the session ends whether anybody waits for that or not.
    ///
    /// # Errors
    /// [`NoSuchSession`].
    pub async fn end(&self, session: &SessionId) -> Result<EndReason, NoSuchSession> {
        self.end_by(session, EndReason::Released, Force::Close).await
    }

    /// Like [`end`](Self::end), for a reason of the caller's choice.
    ///
    /// # Errors
    /// [`NoSuchSession`].
    pub async fn end_with(&self, session: &SessionId, reason: EndReason) -> Result<EndReason, NoSuchSession> {
        self.end_by(session, reason, Force::Close).await
    }

    /// Ends the session at once, with the reason [`EndReason::Killed`]: like [`end`](Self::end), but its worker is
    /// [killed](crate::Worker::kill), also if it is being closed already.
    ///
    /// # Errors
    /// [`NoSuchSession`].
    pub async fn kill(&self, session: &SessionId) -> Result<EndReason, NoSuchSession> {
        self.end_by(session, EndReason::Killed, Force::Kill).await
    }

    /// Like [`kill`](Self::kill), for a reason of the caller's choice.
    ///
    /// # Errors
    /// [`NoSuchSession`].
    pub async fn kill_with(&self, session: &SessionId, reason: EndReason) -> Result<EndReason, NoSuchSession> {
        self.end_by(session, reason, Force::Kill).await
    }

    /// Gives no new leases and lets each session end as its last lease is dropped ([`EndReason::Drained`]); what is
    /// left at the timeout ends then ([`EndReason::Shutdown`]). Resolves when no worker is left.
    ///
    /// Callers that wait, and all later ones, get [`AcquireError::Draining`]. Draining again with an earlier end makes
    /// it end earlier.
    ///
    /// Cancel safe: once it was polled, the pool drains whether anybody waits for that or not.
    pub async fn drain(&self, timeout: Duration) {
        let shared = &self.handle.shared;
        shared.feed(Input::Drain { timeout });
        self.emptied().await;
    }

    /// Ends everything now ([`EndReason::Shutdown`]): all workers are closed, in parallel. Resolves when no worker is
    /// left.
    ///
    /// Callers that wait, and all later ones, get [`AcquireError::ShutDown`].
    ///
    /// Cancel safe: once it was polled, the pool shuts down whether anybody waits for that or not.
    pub async fn shutdown(&self) {
        self.handle.shared.feed(Input::Shutdown);
        self.emptied().await;
    }

    /// Lets another factory and other options count from now on, as if the pool had been built with `with`.
    ///
    /// - Sessions stay on the worker that they have, and under the [`ttl`](PoolBuilder::ttl),
    ///   [`max_lifetime`](PoolBuilder::max_lifetime) and [`idle_by`](PoolBuilder::idle_by) that they started with.
    /// - Workers that have no session are ended, and starts given up, as soon as this returns; workers of the new
    ///   factory take their places, first for those who wait. With [`worker_reuse`](PoolBuilder::worker_reuse) no
    ///   worker of the former factory gets another session.
    /// - Everything else counts at once and for all, also for those who wait already: bounds, time-outs, health checks,
    ///   what happens [when the pool is full](PoolBuilder::when_full). If there are more workers than the new
    ///   [`max_workers`](PoolBuilder::max_workers), no session ends for that: none starts until there are fewer.
    /// - Pauses between starts that failed are over.
    ///
    /// The pool goes on to draw worker IDs from where it did, and to tell events to whom it did; the builder's do not
    /// count. The former factory is dropped
    /// when its last start has been given up; workers that it started may live on. A pool that drains or has shut down
    /// starts nothing any more: for it nothing changes.
    ///
    /// # Errors
    /// [`OptionsError`] if the options contradict each other. Then nothing has changed.
    pub fn reconfigure(&self, with: PoolBuilder<F>) -> Result<(), OptionsError> {
        let (factory, options, on_crash) = with.into_parts()?;
        self.handle.shared.reconfigure(factory, options, on_crash);
        Ok(())
    }

    /// The pool's numbers at this moment. Never waits.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let shared = &self.handle.shared;
        let mut stats = shared.inspect(|state| state.stats());
        stats.acquire_requests += shared.index.hits();
        stats
    }

    /// All sessions, in no particular order.
    ///
    /// It is not one snapshot: sessions that start, end or change their state meanwhile may be missing or there twice.
    #[must_use]
    pub fn sessions(&self) -> Vec<SessionInfo> {
        self.handle.shared.sessions()
    }

    /// One session; `None` if there is none with this ID.
    #[must_use]
    pub fn session(&self, id: &SessionId) -> Option<SessionInfo> {
        self.handle.shared.session(id)
    }

    /// Sessions in the order of their IDs, from the first one after `after` on: those of which `fits` holds, up to
    /// `limit` of them. To go on, give the last one's ID.
    ///
    /// It is not one snapshot, but a session that exists all the while is there once. The time that it takes grows with
    /// the number of sessions, but the pool's lock is held only while those that start or end are collected; `fits`
    /// runs without any lock, once for each session after `after`, in no particular order.
    #[must_use]
    pub fn sessions_after(
        &self,
        after: Option<&SessionId>,
        limit: usize,
        fits: impl FnMut(&SessionOutline<'_>) -> bool,
    ) -> Vec<SessionInfo> {
        self.handle.shared.sessions_after(after, limit, fits)
    }

    /// All sessions with this text as their ID, whosever they are, in the order of their IDs. Looks at all sessions.
    #[must_use]
    pub fn session_candidates(&self, text: &str) -> Vec<SessionInfo> {
        self.handle.shared.session_candidates(text)
    }

    /// Workers in the order of their IDs, from the first one after `after` on: those of which `fits` holds, up to
    /// `limit` of them. To go on, give the last one's ID.
    ///
    /// It is not one snapshot: workers that come and go meanwhile may be there or not.
    #[must_use]
    pub fn workers_after(
        &self,
        after: Option<WorkerId>,
        limit: usize,
        fits: impl FnMut(&WorkerInfo<F::Worker>) -> bool,
    ) -> Vec<WorkerInfo<F::Worker>> {
        self.handle.shared.workers_after(after, limit, fits)
    }

    /// All workers, by their IDs.
    ///
    /// It is not one snapshot: workers that come and go meanwhile may be there or not.
    #[must_use]
    pub fn workers(&self) -> Vec<WorkerInfo<F::Worker>> {
        self.handle.shared.workers_after(None, usize::MAX, |_| true)
    }

    /// One worker; `None` if there is none with this ID any more.
    #[must_use]
    pub fn worker(&self, id: WorkerId) -> Option<WorkerInfo<F::Worker>> {
        self.handle.shared.worker(id)
    }

    /// Subscribes to the pool's events from now on. To have the first ones as well, build the pool
    /// [with events](PoolBuilder::build_with_events).
    #[must_use]
    pub fn subscribe(&self) -> Events {
        Events::new(self.handle.shared.events.subscribe())
    }

    async fn wait_for(&self, session: &SessionId) -> Result<Lease<F>, AcquireError> {
        let shared = &self.handle.shared;
        let (reply, answer) = oneshot::channel();
        let session = session.clone();
        let ticket = shared.ask(Reply::Acquire(reply), |ticket| Input::Acquire { ticket, session });
        // Cancellation safety: dropped before the answer has come, `waiting` leaves the line. If the answer comes at
        // the same time, it is a lease in `answer`, or one that finds nobody to go to; both give it back.
        let waiting = Waiting { shared, ticket };
        let outcome = answer.await;
        std::mem::forget(waiting);
        // The sender is only dropped without an answer when the pool's runtime is gone.
        outcome.unwrap_or(Err(AcquireError::ShutDown))
    }

    async fn end_by(&self, session: &SessionId, reason: EndReason, force: Force) -> Result<EndReason, NoSuchSession> {
        let (reply, answer) = oneshot::channel();
        let session = session.clone();
        let shared = &self.handle.shared;
        let ticket = shared.ask(Reply::End(reply), |ticket| Input::End { ticket, session, reason, force });
        let waiting = Waiting { shared, ticket };
        let outcome = answer.await;
        std::mem::forget(waiting);
        outcome.unwrap_or(Err(NoSuchSession))
    }

    async fn emptied(&self) {
        let mut emptied = self.handle.shared.emptied.subscribe();
        // The sender lives as long as the pool, so this ends only when the value turns true.
        let _ = emptied.wait_for(|emptied| *emptied).await;
    }
}

/// A caller that waits for an answer.
struct Waiting<'a, F: WorkerFactory> {
    shared: &'a Arc<Shared<F>>,
    ticket: Ticket,
}

impl<F: WorkerFactory> Drop for Waiting<'_, F> {
    fn drop(&mut self) {
        if let Some(Reply::Acquire(_)) = self.shared.take_reply(self.ticket) {
            self.shared.feed(Input::GiveUp { ticket: self.ticket });
        }
    }
}

impl<F: WorkerFactory> Drop for PoolHandle<F> {
    fn drop(&mut self) {
        self.shared.feed(Input::Shutdown);
    }
}

impl<F: WorkerFactory> Clone for Pool<F> {
    fn clone(&self) -> Self {
        Self { handle: Arc::clone(&self.handle) }
    }
}

impl<F: WorkerFactory> fmt::Debug for Pool<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool")
            .field("options", &self.handle.shared.setup().options)
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}
