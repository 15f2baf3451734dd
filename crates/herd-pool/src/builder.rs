use std::{fmt, sync::Arc, time::Duration};

use tokio::runtime::Handle;

use crate::{Crash, Event, Events, IdleBy, OptionsError, Pool, WhenFull, WorkerFactory, WorkerIds, options::Options};

/// Sets up a [`Pool`]. Made by [`Pool::builder`].
#[must_use = "a builder does nothing until `build` is called"]
pub struct PoolBuilder<F> {
    factory: F,
    options: Options,
    on_crash: Option<CrashCallback>,
    on_event: Option<EventCallback>,
    worker_ids: WorkerIds,
}

pub(crate) type CrashCallback = Arc<dyn Fn(&Crash) + Send + Sync>;
pub(crate) type EventCallback = Box<dyn Fn(&Event) + Send + Sync>;

impl<F: WorkerFactory> PoolBuilder<F> {
    pub(crate) fn new(factory: F) -> Self {
        Self { factory, options: Options::default(), on_crash: None, on_event: None, worker_ids: WorkerIds::new() }
    }

    /// The fewest workers the pool keeps, with or without sessions. The default is 1; 0 is allowed. Where each worker
    /// is [for one session](WorkerFactory::is_per_session) this has no effect.
    pub fn min_workers(mut self, workers: usize) -> Self {
        self.options.min_workers = workers;
        self
    }

    /// The most workers there are at any time, counting those that start and those that end. The default is 10.
    pub fn max_workers(mut self, workers: usize) -> Self {
        self.options.max_workers = workers;
        self
    }

    /// How many healthy workers wait for a session beyond those that have one, as far as `max_workers` allows. The
    /// default is 1; with 0 each new session waits for its worker to start, as it always does where each worker is
    /// [for one session](WorkerFactory::is_per_session).
    pub fn spare(mut self, workers: usize) -> Self {
        self.options.spare = workers;
        self
    }

    /// How long a session may be idle before it ends. What counts as idle is set with [`idle_by`](Self::idle_by). The
    /// default is 5 minutes. It is kept to the millisecond.
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.options.ttl = ttl;
        self
    }

    /// How long a session may live, whether it is in use or not. The default, `None`, is without a bound.
    pub fn max_lifetime(mut self, lifetime: impl Into<Option<Duration>>) -> Self {
        self.options.max_lifetime = lifetime.into();
        self
    }

    /// How long [`Pool::acquire`] waits for a worker before it fails with
    /// [`AcquireError::TimedOut`](crate::AcquireError::TimedOut). The default is 30 seconds.
    pub fn acquire_timeout(mut self, timeout: Duration) -> Self {
        self.options.acquire_timeout = timeout;
        self
    }

    /// How many callers may wait in [`Pool::acquire`] at once, for a worker to start or for room; those beyond it fail
    /// with [`AcquireError::QueueFull`](crate::AcquireError::QueueFull): the newest caller of the tenant with most, if
    /// the one that comes is of a tenant with fewer, and otherwise the one that comes. The default is 1000.
    pub fn max_waiting(mut self, callers: usize) -> Self {
        self.options.max_waiting = callers;
        self
    }

    /// What happens when all workers are taken. The default is [`WhenFull::Wait`].
    pub fn when_full(mut self, when_full: WhenFull) -> Self {
        self.options.when_full = when_full;
        self
    }

    /// How long a worker may take to start before the pool gives up on it. The default is 10 minutes; `None` is without
    /// a bound.
    ///
    /// This is a net for factories that hang: a factory should have a tighter bound of its own and say what it waited
    /// for.
    pub fn spawn_timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.options.spawn_timeout = timeout.into();
        self
    }

    /// How often each worker, with a session or spare, is asked whether it is healthy. The default is 5 seconds.
    ///
    /// A check may take 5 seconds. A spare that fails one is replaced; a session ends as
    /// [`EndReason::Unhealthy`](crate::EndReason::Unhealthy) when its worker fails 3 in a row.
    pub fn health_interval(mut self, interval: Duration) -> Self {
        self.options.health_interval = interval;
        self
    }

    /// Whether the worker of a session that ended may serve another session. The default is `false`: what one session
    /// left reaches the next.
    ///
    /// Whatever this is, the worker of a session that belongs to a [`Tenant`](crate::Tenant) serves that one alone: it
    /// is new, and serves no other one afterwards. Once a session of a tenant has come, a worker that was used goes to
    /// another session only if one without a tenant waits and has its turn, and is closed otherwise.
    ///
    /// A worker changes hands only after the last lease of its former session is gone and it passed a health check.
    /// If leases are still held 10 seconds after the session's end, the worker is closed instead.
    pub fn worker_reuse(mut self, reuse: bool) -> Self {
        self.options.worker_reuse = reuse;
        self
    }

    /// What resets a session's idle clock. The default is [`IdleBy::Lease`].
    pub fn idle_by(mut self, idle_by: IdleBy) -> Self {
        self.options.idle_by = idle_by;
        self
    }

    /// Calls `callback` for each worker that ends by itself, whether or not it had a session.
    ///
    /// It runs in a task of its own on the pool's runtime. Blocking it blocks a thread of that runtime; if it panics,
    /// the pool logs that and goes on.
    pub fn on_crash(mut self, callback: impl Fn(&Crash) + Send + Sync + 'static) -> Self {
        self.on_crash = Some(Arc::new(callback));
        self
    }

    /// Calls `callback` for each of the pool's events, from the very first on, one after the other and in their order.
    /// It misses none, as a [subscriber](Pool::subscribe) does who reads too slowly.
    ///
    /// It runs wherever the pool was called, and everybody who waits for the pool waits for it: it must not block, and
    /// should do no more than write the event down. It holds no lock of the pool and may call it. If it panics, the
    /// pool logs that and goes on. [Reconfiguring](Pool::reconfigure) a pool does not change it.
    pub fn on_event(mut self, callback: impl Fn(&Event) + Send + Sync + 'static) -> Self {
        self.on_event = Some(Box::new(callback));
        self
    }

    /// Takes worker IDs from `ids` instead of the pool's own counter, so that several pools in one program never give
    /// the same ID.
    pub fn worker_ids(mut self, ids: WorkerIds) -> Self {
        self.worker_ids = ids;
        self
    }

    /// Makes the pool and starts its first workers, all at once and in the background.
    ///
    /// The runtime this is called in runs all of the pool's tasks; the pool can be used from others as well.
    ///
    /// # Errors
    /// [`OptionsError`] if the options contradict each other, or if there is no tokio runtime with timers here.
    pub fn build(self) -> Result<Pool<F>, OptionsError> {
        let (pool, _) = self.build_with_events()?;
        Ok(pool)
    }

    /// Like [`build`](Self::build), with a subscription from the very first event on: [`Pool::subscribe`] cannot have
    /// the starts of the first workers, because they begin before there is a pool to subscribe to.
    ///
    /// # Errors
    /// Those of [`build`](Self::build).
    pub fn build_with_events(mut self) -> Result<(Pool<F>, Events), OptionsError> {
        let (worker_ids, on_event) = (self.worker_ids.clone(), self.on_event.take());
        let (factory, options, on_crash) = self.into_parts()?;
        let runtime = Handle::try_current().map_err(|_| OptionsError::NoRuntime)?;
        Ok(Pool::start(factory, options, on_crash, on_event, worker_ids, runtime))
    }

    /// Checks the options, as [`build`](Self::build) does.
    ///
    /// # Errors
    /// [`OptionsError`] if they contradict each other.
    pub fn check(&self) -> Result<(), OptionsError> {
        self.options.check()?;
        if self.factory.is_per_session() { self.options.clone().per_session().check() } else { Ok(()) }
    }

    /// The factory, what the options come to with it, and the crash callback.
    pub(crate) fn into_parts(self) -> Result<(F, Options, Option<CrashCallback>), OptionsError> {
        let Self { factory, mut options, on_crash, on_event: _, worker_ids: _ } = self;
        options.check()?;
        if factory.is_per_session() {
            options = options.per_session();
            options.check()?;
        }
        Ok((factory, options, on_crash))
    }
}

impl<F> fmt::Debug for PoolBuilder<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PoolBuilder").field("options", &self.options).finish_non_exhaustive()
    }
}
