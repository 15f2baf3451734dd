//! Keeps as many workers as are needed: hands out spares, starts workers, and makes room.

use super::{
    Action, Force, Phase, State,
    entry::{Kind, Listing},
};
use crate::{EndReason, WhenFull, WorkerId, clock::Moment, sync::Arc, tenant::Whose};

/// How many sessions are looked at in one go for one to evict. The driver goes on right after, without the lock held
/// in between.
const EVICT_BATCH: usize = 256;

/// How many tenants that wait are looked at in one go for one that may have another's place.
const EVICT_FOR: usize = 64;

impl<W: Clone> State<W> {
    /// Brings the workers in line with what is wanted. Runs after every input, and does nothing if nothing is to do.
    pub(super) fn balance(&mut self, now: Moment) {
        (self.held_back, self.held_until) = (false, None);
        self.evict_on = false;
        if !self.running() {
            return;
        }
        for session in self.setbacks.release(now) {
            self.line_up(&session);
        }
        self.check_spares();
        self.start_workers(now);
        if self.options.when_full == WhenFull::EvictIdle {
            self.evict(now);
        }
    }

    /// Checks a spare for each session in line. Who passes goes to the session whose turn it is by then.
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
        for _ in 0..room.min(self.queue.lines().len()) {
            let Some(session) = self.queue.serve_next(|whose| self.setbacks.allows(whose, now)) else {
                self.held_back = true;
                self.held_until = self.queue.lines().turns().filter_map(|whose| self.setbacks.until(whose)).min();
                return;
            };
            self.start_worker(Some(session), now);
        }
    }

    fn start_workers(&mut self, now: Moment) {
        if self.options.per_session {
            return self.start_workers_for_sessions(now);
        }
        let coming = self.count(Kind::Starting) - self.given_up + self.count(Kind::Checking) + self.count(Kind::Spare);
        let for_sessions = (self.queue.in_line() + self.options.spare).saturating_sub(coming);
        let staying = self.workers.len() - self.count(Kind::Ending) - self.given_up;
        let for_the_floor = self.options.min_workers.saturating_sub(staying);
        let room = self.options.max_workers.saturating_sub(self.workers.len());
        for _ in 0..for_sessions.max(for_the_floor).min(room) {
            if !self.backoff.allows(now) {
                (self.held_back, self.held_until) = (true, self.backoff.until());
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
        if self.queue.lines().promised() > coming {
            // Room that was made was lost again; to wait for it would be in vain.
            self.queue.lines_mut().break_promises();
        }
        for _ in 0..EVICT_BATCH {
            if lacking == 0 {
                return;
            }
            let Some((whose, worker)) = self.find_idle(now) else { return };
            if self.evict_or_relist(worker, now) {
                self.queue.lines_mut().promise(&whose);
                lacking -= 1;
            }
        }
        self.evict_on = lacking > 0;
    }

    /// Who is to have the next session's place, and the worker of that session.
    ///
    /// The tenant with most sessions loses one, but only to a tenant with fewer: to one with as many or more a tenant
    /// loses nothing, however many callers of that one wait. Such a tenant makes room by one of its own.
    fn find_idle(&self, now: Moment) -> Option<(Whose, WorkerId)> {
        let (most, richest) = self.idle.richest()?;
        // A place that cannot be taken yet is worth nobody's session.
        let lines = self.queue.lines().unpromised().filter(|(whose, _)| self.setbacks.allows(whose, now));
        lines.take(EVICT_FOR).find_map(|(whose, promised)| {
            let has = self.idle.live(whose) + promised;
            let loser = if most > has { richest } else { whose };
            Some((whose.clone(), self.idle.first_of(loser)?))
        })
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
