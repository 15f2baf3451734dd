//! What leases of one session share.

use std::{fmt, sync::OnceLock, time::Duration};

use tokio::sync::Notify;

use crate::{
    EndReason, SessionId, WorkerId,
    clock::{Clock, Moment},
    gate::{Gate, Refused},
    options::{IdleBy, Options},
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, Ordering},
    },
};

/// Hears of the last lease's return where a gate is watched.
pub(crate) trait Home: Send + Sync {
    fn last_lease_returned(self: Arc<Self>, worker: WorkerId);
}

/// A session with its worker, from the moment it has one until the last lease is gone.
///
/// The fields that each acquire and drop of a lease touch stand first and together, right behind the reference counts
/// that [`Arc`](std::sync::Arc) puts in front: first those that are written, so that they mostly share one cache line.
#[repr(C)]
pub(crate) struct Slot<W> {
    gate: Gate,
    /// When the session was last used: a [`Moment`].
    used: AtomicU64,
    clock: Clock,
    idle_by: IdleBy,
    id: SessionId,
    pub(crate) worker_id: WorkerId,
    pub(crate) worker: W,
    pub(crate) created: Moment,
    terms: Arc<Terms>,
    home: Weak<dyn Home>,
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
    reason: OnceLock<EndReason>,
    ended: Notify,
}

/// What every slot of a pool is made with.
pub(crate) struct Template {
    clock: Clock,
    idle_by: IdleBy,
    home: Weak<dyn Home>,
    terms: Arc<Terms>,
}

/// How long sessions may last. Shared by those that started under the same options.
#[derive(Debug, Eq, PartialEq)]
struct Terms {
    ttl: Duration,
    max_lifetime: Option<Duration>,
}

impl Terms {
    fn of(options: &Options) -> Self {
        Self { ttl: options.ttl, max_lifetime: options.max_lifetime }
    }
}

impl Template {
    pub(crate) fn new(clock: Clock, home: Weak<dyn Home>, options: &Options) -> Self {
        Self { clock, idle_by: options.idle_by, home, terms: Arc::new(Terms::of(options)) }
    }

    /// Makes the slots of sessions that are yet to start keep to other options.
    pub(crate) fn configure(&mut self, options: &Options) {
        self.idle_by = options.idle_by;
        let terms = Terms::of(options);
        if *self.terms != terms {
            self.terms = Arc::new(terms);
        }
    }

    pub(crate) fn slot<W>(&self, id: SessionId, worker_id: WorkerId, worker: W, now: Moment) -> Slot<W> {
        Slot {
            gate: Gate::open(),
            used: AtomicU64::new(now.0),
            id,
            clock: self.clock,
            idle_by: self.idle_by,
            worker_id,
            worker,
            created: now,
            terms: Arc::clone(&self.terms),
            home: Weak::clone(&self.home),
            bytes_in: AtomicU64::new(0),
            bytes_out: AtomicU64::new(0),
            reason: OnceLock::new(),
            ended: Notify::new(),
        }
    }
}

impl<W> Slot<W> {
    pub(crate) fn id(&self) -> &SessionId {
        &self.id
    }

    pub(crate) fn gate(&self) -> &Gate {
        &self.gate
    }

    /// Takes a lease. Whoever gets one must [give it back](Self::give_back).
    pub(crate) fn lease(&self) -> Result<(), Refused> {
        self.gate.lease()?;
        // Under `IdleBy::Lease` the lease itself keeps the session; reading the clock would be for nothing.
        if self.idle_by == IdleBy::Bytes {
            self.touch();
        }
        Ok(())
    }

    /// Gives a lease back.
    pub(crate) fn give_back(&self) {
        // Before the gate shows the return, so that nobody sees an unused session with an old time.
        self.touch();
        if self.gate.give_back()
            && let Some(home) = self.home.upgrade()
        {
            home.last_lease_returned(self.worker_id);
        }
    }

    /// Counts bytes and, where they do so, lets them reset the idle clock.
    pub(crate) fn record_bytes(&self, received: u64, sent: u64) {
        if received > 0 {
            self.bytes_in.fetch_add(received, Ordering::Relaxed);
        }
        if sent > 0 {
            self.bytes_out.fetch_add(sent, Ordering::Relaxed);
        }
        if self.idle_by == IdleBy::Bytes && received + sent > 0 {
            self.touch();
        }
    }

    pub(crate) fn bytes(&self) -> (u64, u64) {
        (self.bytes_in.load(Ordering::Relaxed), self.bytes_out.load(Ordering::Relaxed))
    }

    /// When the session was last used, not counting leases that are out.
    pub(crate) fn used(&self) -> Moment {
        Moment(self.used.load(Ordering::Relaxed))
    }

    /// When the session is over if nobody uses it any more.
    pub(crate) fn idle_at(&self) -> Moment {
        self.used().after(self.terms.ttl)
    }

    /// When the session is over, used or not.
    pub(crate) fn lifetime_ends(&self) -> Option<Moment> {
        self.terms.max_lifetime.map(|lifetime| self.created.after(lifetime))
    }

    /// Whether leases keep the session from being idle.
    pub(crate) fn leases_count(&self) -> bool {
        self.idle_by == IdleBy::Lease
    }

    /// Sets the reason why the session ended. The first one stays.
    pub(crate) fn end(&self, reason: EndReason) {
        // A second reason is not an error: whoever was late finds out by reading the first.
        let _ = self.reason.set(reason);
    }

    /// Wakes those who wait in [`ended`](Self::ended). Apart from `end` because wakers must not run under the lock.
    pub(crate) fn tell(&self) {
        self.ended.notify_waiters();
    }

    pub(crate) fn reason(&self) -> Option<EndReason> {
        self.reason.get().copied()
    }

    /// Resolves when the session has ended.
    pub(crate) async fn ended(&self) -> EndReason {
        loop {
            let told = self.ended.notified();
            // The waiter is registered by `notified` already: a reason set from here on comes with a wake-up.
            if let Some(reason) = self.reason() {
                return reason;
            }
            told.await;
        }
    }

    pub(crate) fn touch(&self) {
        self.used.store(self.clock.now().0, Ordering::Relaxed);
    }
}

impl<W> fmt::Debug for Slot<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slot")
            .field("id", &self.id)
            .field("worker", &self.worker_id)
            .field("gate", &self.gate.read())
            .field("reason", &self.reason())
            .finish_non_exhaustive()
    }
}
