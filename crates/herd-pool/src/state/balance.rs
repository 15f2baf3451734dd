//! Keeps as many workers as are needed: hands out spares, starts workers, and makes room.

use super::{
    Action, Force, Phase, State,
    entry::{Kind, Listing},
};
use crate::{EndReason, SessionId, WhenFull, WorkerId, clock::Moment, sync::Arc};

/// How many sessions are looked at in one go for one to evict. The driver goes on right after, without the lock held
/// in between.
const EVICT_BATCH: usize = 256;

impl<W: Clone> State<W> {
    /// Brings the workers in line with what is wanted. Runs after every input, and does nothing if nothing is to do.
    pub(super) fn balance(&mut self, now: Moment) {
        self.held_back = false;
        self.evict_on = false;
        if !self.running() {
            return;
        }
        self.check_spares();
        self.start_workers(now);
        if self.options.when_full == WhenFull::EvictIdle {
            self.evict(now);
        }
    }

    /// Checks a spare for each session in line. Who passes goes to the head of the line, whoever that is by then.
    fn check_spares(&mut self) {
        while self.queue.in_line() > self.count(Kind::Checking)
            && let Some(&worker) = self.spares.first()
            && let Some(Phase::Spare(handle)) = self.phase_mut(worker)
        {
            let handle = handle.clone();
            self.enter(worker, Phase::Checking(handle.clone()));
            self.act(Action::Check { worker, handle });
        }
    }

    /// Starts a worker for each session in line that has none coming, as far as there is room.
    fn start_workers_for_sessions(&mut self, now: Moment) {
        let room = self.options.max_workers.saturating_sub(self.workers.len());
        let line = self.queue.line().filter(|session| !self.coming.contains_key(session));
        let without: Vec<SessionId> = line.take(room).cloned().collect();
        for session in without {
            if !self.backoff.allows(now) {
                self.held_back = true;
                return;
            }
            self.start_worker(Some(session), now);
        }
    }

    fn start_workers(&mut self, now: Moment) {
        if self.options.per_session {
            return self.start_workers_for_sessions(now);
        }
        let coming = self.count(Kind::Starting) + self.count(Kind::Checking) + self.count(Kind::Spare);
        let for_sessions = (self.queue.in_line() + self.options.spare).saturating_sub(coming);
        let staying = self.workers.len() - self.count(Kind::Ending);
        let for_the_floor = self.options.min_workers.saturating_sub(staying);
        let room = self.options.max_workers.saturating_sub(self.workers.len());
        for _ in 0..for_sessions.max(for_the_floor).min(room) {
            if !self.backoff.allows(now) {
                self.held_back = true;
                return;
            }
            self.start_worker(None, now);
        }
    }

    /// Ends idle sessions if more sessions stand in line than workers are on their way to them.
    fn evict(&mut self, now: Moment) {
        if self.workers.len() < self.options.max_workers {
            return;
        }
        let coming = self.workers.len() - self.count(Kind::Live);
        let mut lacking = self.queue.in_line().saturating_sub(coming);
        for _ in 0..EVICT_BATCH {
            if lacking == 0 {
                return;
            }
            let Some((_, worker)) = self.idle.first() else { return };
            if self.evict_or_relist(worker, now) {
                lacking -= 1;
            }
        }
        self.evict_on = lacking > 0;
    }

    /// Evicts the session that seems to be idle for longest if it really is. Returns whether it did.
    fn evict_or_relist(&mut self, worker: WorkerId, now: Moment) -> bool {
        let Some(entry) = self.workers.get(&worker) else { return false };
        let Some(slot) = entry.live().map(Arc::clone) else { return false };
        let listing = entry.listing;
        let seen = slot.gate().read();
        let idle_at = slot.idle_at();
        if seen.leases() > 0 {
            if slot.gate().watch_unchanged(seen) {
                self.list(worker, if slot.leases_count() { Listing::None } else { Listing::Silent(idle_at) });
            }
        } else if listing != Listing::Idle(idle_at) {
            self.list(worker, Listing::Idle(idle_at));
        } else if slot.gate().close_unchanged(seen) {
            self.end_session(worker, EndReason::Evicted, Force::Close, None, now);
            return true;
        }
        false
    }
}
