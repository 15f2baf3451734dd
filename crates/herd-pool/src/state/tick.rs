//! What happens because time passed.

use super::{Force, Mode, State, Timer, entry::Listing};
use crate::{AcquireError, EndReason, WorkerId, clock::Moment, sync::Arc};

/// How much of what is due is done in one go. If there is more, the driver comes back right after, without the lock
/// held in between.
const BATCH: usize = 256;

impl<W: Clone> State<W> {
    /// When the state wants to be told of the time, at the latest.
    pub(crate) fn deadline(&self) -> Option<Moment> {
        if self.evict_on {
            return Some(Moment(0));
        }
        let idle = self.idle.first().map(|(at, _)| at);
        let silent = self.silent.first().map(|(at, _)| at);
        let timer = self.timers.first().map(|(at, _)| at);
        let waiter = self.queue.deadline(self.options.acquire_timeout);
        [idle, silent, timer, waiter, self.held_until, self.setbacks.deadline()].into_iter().flatten().min()
    }

    pub(super) fn tick(&mut self, now: Moment) {
        for _ in 0..BATCH {
            let Some(timer) = self.timers.pop_due(now) else { break };
            match timer {
                Timer::Lifetime(worker) => self.end_session(worker, EndReason::MaxLifetime, Force::Close, None, now),
                Timer::Probe(worker) => self.probe_due(worker, now),
                Timer::Linger(worker) => self.hurry(worker, Force::Close, now),
                Timer::Drain if matches!(self.mode, Mode::Draining { .. }) => self.shutdown(now),
                Timer::Drain => {}
            }
        }
        for _ in 0..BATCH {
            let first = [self.idle.first(), self.silent.first()].into_iter().flatten().min();
            let Some((_, worker)) = first.filter(|(at, _)| *at <= now) else { break };
            self.expire_or_relist(worker, now);
        }
        while let Some((session, caller)) = self.queue.pop_late(self.options.acquire_timeout, now) {
            let after = self.options.acquire_timeout;
            // Of a worker for one session that session alone may hear: it may have quoted what the session keeps.
            let last_spawn_error = self.setbacks.error(&session).or(self.last_spawn_error.as_ref()).cloned();
            self.dismiss(caller, AcquireError::TimedOut { after, last_spawn_error }, now);
        }
    }

    /// Ends a session that is due to be idle if it really is, and otherwise finds out when to look again.
    fn expire_or_relist(&mut self, worker: WorkerId, now: Moment) {
        let Some(entry) = self.workers.get(&worker) else { return };
        let Some(slot) = entry.live().map(Arc::clone) else { return };
        let listing = entry.listing;
        loop {
            let seen = slot.gate().read();
            if slot.leases_count() && seen.leases() > 0 {
                if slot.gate().watch_unchanged(seen) {
                    return self.list(worker, Listing::None);
                }
                continue;
            }
            let idle_at = slot.idle_at();
            if idle_at > now {
                let silent = matches!(listing, Listing::Silent(_));
                return self.list(worker, if silent { Listing::Silent(idle_at) } else { Listing::Idle(idle_at) });
            }
            if slot.gate().close_unchanged(seen) {
                return self.end_session(worker, EndReason::Idle, Force::Close, None, now);
            }
        }
    }
}
