//! How sessions start and end.

use std::time::Duration;

use super::{
    Action, Ending, Force, Mode, Phase, State, Timer,
    entry::{Kind, Listing},
};
use crate::{
    AcquireError, EndReason, EventKind, NoSuchSession, SessionId, Tenant, WorkerId,
    clock::Moment,
    gate::{MAX_LEASES, Refused},
    queue::{Caller, Stand, Ticket},
    sync::Arc,
    tenant::CountedSession,
};

/// How long the leases of an ended session may keep its worker from being reused before it is closed instead.
const LINGER: Duration = Duration::from_secs(10);

impl<W: Clone> State<W> {
    pub(super) fn acquire(&mut self, ticket: Ticket, session: &SessionId, now: Moment) {
        self.counters.acquire_requests += 1;
        let error = match self.mode {
            Mode::Running => match self.index.lease(session) {
                Some(Ok(slot)) => return self.act(Action::Grant { ticket, slot, is_new: false }),
                Some(Err(Refused::Full)) => {
                    AcquireError::QueueFull { max_waiting: usize::try_from(MAX_LEASES).unwrap_or(usize::MAX) }
                }
                // A live session's gate is closed only together with its removal from the index, or by a drain.
                Some(Err(Refused::Closed)) => AcquireError::Draining,
                None => match self.wait(ticket, session, now) {
                    Ok(()) => return,
                    Err(error) => error,
                },
            },
            Mode::Draining { .. } => AcquireError::Draining,
            Mode::Stopping => AcquireError::ShutDown,
        };
        self.deny(ticket, error);
    }

    /// Lets a caller wait for a session that is not live, if its tenant and the pool have room for that.
    fn wait(&mut self, ticket: Ticket, session: &SessionId, now: Moment) -> Result<(), AcquireError> {
        let is_new = self.queue.since(session).is_none();
        // Counted for one tenant and many pools at once, so it is taken before it is needed. Whatever comes of nothing
        // is given back by being dropped.
        let counted = if is_new { self.count_session(session)? } else { None };
        let caller = session.tenant().map(Tenant::count_caller).transpose()?;
        if self.queue.waiting() >= self.options.max_waiting {
            let full = AcquireError::QueueFull { max_waiting: self.options.max_waiting };
            let Some(other) = self.queue.make_room(&session.tenant().cloned()) else { return Err(full) };
            self.dismiss(other, full, now);
        }
        if session.tenant().is_some() && !self.has_tenants {
            self.has_tenants = true;
            self.end_used_spares(now);
        }
        if is_new {
            self.queue.open(ticket, session, self.stand(session), counted, now);
        }
        self.queue.join(ticket, session, caller, now);
        Ok(())
    }

    /// Ends the free workers that have served a session before: what that one left in them must not reach a tenant.
    fn end_used_spares(&mut self, now: Moment) {
        let is_used = |worker: &&WorkerId| self.workers.get(worker).is_some_and(|entry| entry.is_used);
        for worker in self.spares.iter().filter(is_used).copied().collect::<Vec<_>>() {
            self.retire(worker, Force::Close, now);
        }
    }

    /// Where those who wait for a session have to.
    fn stand(&self, session: &SessionId) -> Stand {
        if self.endings.contains_key(session) || self.setbacks.holds(session) {
            Stand::Aside
        } else if self.coming.contains_key(session) {
            Stand::Served
        } else {
            Stand::InLine
        }
    }

    /// Lets those who wait for a session, if there are any, stand where they now have to.
    pub(super) fn line_up(&mut self, session: &SessionId) {
        self.queue.place(session, self.stand(session));
    }

    /// Counts a session that nobody waits for. It counts already if there is a worker that starts or ends for it.
    fn count_session(&self, session: &SessionId) -> Result<Option<CountedSession>, AcquireError> {
        let worker = self.endings.get(session).or_else(|| self.coming.get(session));
        let counted = worker.and_then(|worker| self.workers.get(worker)?.counted.clone());
        match (session.tenant(), counted) {
            (Some(tenant), None) => tenant.count_session().map(Some),
            (_, counted) => Ok(counted),
        }
    }

    /// Lets a caller that waited go with an error.
    pub(super) fn dismiss(&mut self, caller: Caller, error: AcquireError, now: Moment) {
        self.counters.acquire_wait.record(now.since(caller.arrived));
        self.deny(caller.ticket, error);
    }

    pub(super) fn deny(&mut self, ticket: Ticket, error: AcquireError) {
        self.counters.acquire_failures += 1;
        self.act(Action::Deny { ticket, error });
    }

    /// Gives a free, healthy worker to the session at the head of the line, or to the one that it is for; without one
    /// it becomes a spare, or is closed if there are enough.
    pub(super) fn place(&mut self, worker: WorkerId, handle: W, now: Moment) {
        if !self.running() || !self.is_current(worker) {
            return self.retire(worker, Force::Close, now);
        }
        let Some(entry) = self.workers.get(&worker) else { return };
        if entry.is_used && self.has_tenants && self.queue.lines().turns().next() != Some(&None) {
            // It is a tenant's turn, or may be that of one who comes. A new worker serves whoever it is; to pass over
            // those whose turn it is would be to let them wait for as long as others come.
            return self.retire(worker, Force::Close, now);
        }
        let reserved = entry.reserved.clone();
        let party = match reserved {
            Some(session) => self.queue.dissolve(&session).map(|party| (*session, party)),
            None => self.queue.pop(),
        };
        let Some((session, party)) = party else {
            if self.is_wanted() {
                self.enter(worker, Phase::Spare(handle));
            } else {
                self.retire(worker, Force::Close, now);
            }
            return;
        };
        let slot = Arc::new(self.template.slot(session.clone(), worker, handle, now));
        for (place, caller) in party.callers.into_iter().enumerate() {
            let Caller { ticket, arrived } = caller;
            if slot.lease().is_ok() {
                self.counters.acquire_wait.record(now.since(arrived));
                self.act(Action::Grant { ticket, slot: Arc::clone(&slot), is_new: place == 0 });
            } else {
                self.dismiss(caller, AcquireError::QueueFull { max_waiting: self.options.max_waiting }, now);
            }
        }
        if let Some(at) = slot.lifetime_ends() {
            self.timers.add(at, Timer::Lifetime(worker));
        }
        // The old phase holds the worker, of which the slot has a reference: nothing is dropped here.
        self.enter(worker, Phase::Live(Arc::clone(&slot)));
        self.idle.started(&session.tenant().cloned());
        self.list(worker, Listing::Idle(slot.idle_at()));
        if let Some(entry) = self.workers.get_mut(&worker) {
            entry.failures = 0;
            entry.counted = party.counted;
        }
        self.index.insert(slot);
        self.backoff.succeeded();
        self.counters.sessions_started += 1;
        self.publish(EventKind::SessionStarted { session, worker });
    }

    /// Whether one more free worker is of use. The worker in question counts as starting or checking.
    fn is_wanted(&self) -> bool {
        let others = self.workers.len() - self.count(Kind::Ending) - self.given_up - 1;
        self.spares.len() < self.options.spare || others < self.options.min_workers
    }

    pub(super) fn end(&mut self, ticket: Ticket, session: &SessionId, reason: EndReason, force: Force, now: Moment) {
        if let Some(slot) = self.index.find(session) {
            self.end_session(slot.worker_id, reason, force, Some(ticket), now);
        } else if let Some(worker) = self.endings.get(session).copied().filter(|worker| self.had_session(*worker)) {
            if let Some(Phase::Lingering(ending) | Phase::Ending(ending)) = self.phase_mut(worker) {
                ending.tickets.push(ticket);
            }
            if force == Force::Kill {
                self.hurry(worker, force, now);
            }
        } else if self.queue.since(session).is_some() {
            for caller in self.queue.dissolve(session).into_iter().flat_map(|party| party.callers) {
                self.dismiss(caller, AcquireError::Ended(reason), now);
            }
            self.act(Action::Answer { ticket, outcome: Ok(reason) });
        } else {
            self.act(Action::Answer { ticket, outcome: Err(NoSuchSession) });
        }
    }

    /// Whether a worker that ends has had a session, and not only nobody who waited for it.
    fn had_session(&self, worker: WorkerId) -> bool {
        match self.workers.get(&worker).map(|entry| &entry.phase) {
            Some(Phase::Lingering(ending) | Phase::Ending(ending)) => ending.slot.is_some(),
            _ => false,
        }
    }

    /// Ends a live session. It takes no new leases from here on. `ticket` is answered when its worker is free or gone.
    pub(super) fn end_session(
        &mut self,
        worker: WorkerId,
        reason: EndReason,
        force: Force,
        ticket: Option<Ticket>,
        now: Moment,
    ) {
        let Some(slot) = self.workers.get(&worker).and_then(|entry| entry.live()).map(Arc::clone) else { return };
        self.list(worker, Listing::None);
        self.idle.ended(&slot.id().tenant().cloned());
        if let Some(at) = slot.lifetime_ends() {
            self.timers.remove(at, Timer::Lifetime(worker));
        }
        let leases = slot.gate().close().leases();
        slot.end(reason);
        self.index.remove(slot.id());
        self.endings.insert(slot.id().clone(), worker);
        self.counters.sessions_ended.count(reason);
        self.publish(EventKind::SessionEnded { session: slot.id().clone(), worker, reason });
        self.act(Action::Tell(Arc::clone(&slot)));

        let handle = slot.worker.clone();
        let tickets = Vec::from_iter(ticket);
        // What a tenant left in a worker must not reach anybody else, nor what others left a tenant: see `place`.
        let may_reuse = self.options.worker_reuse && slot.id().tenant().is_none();
        let ending = Box::new(Ending { handle, slot: Some(slot), tickets, force, since: now });
        let reuse = may_reuse && force == Force::Close && self.running() && self.is_current(worker);
        if reuse {
            self.timers.add(now.after(LINGER), Timer::Linger(worker));
            self.enter(worker, Phase::Lingering(ending));
            if leases == 0 {
                self.recycle(worker);
            }
        } else {
            self.act(Action::End { worker, handle: ending.handle.clone(), force });
            self.enter(worker, Phase::Ending(ending));
        }
    }

    /// A watched gate saw its last lease return. By now others may have been taken, or the session may have ended.
    pub(super) fn last_lease(&mut self, worker: WorkerId, now: Moment) {
        let Some(phase) = self.phase_mut(worker) else { return };
        match phase {
            Phase::Live(slot) => {
                let slot = Arc::clone(slot);
                match self.mode {
                    Mode::Running => {
                        slot.gate().unwatch();
                        self.list(worker, Listing::Idle(slot.idle_at()));
                    }
                    Mode::Draining { .. } if slot.gate().read().leases() == 0 => {
                        self.end_session(worker, EndReason::Drained, Force::Close, None, now);
                    }
                    Mode::Draining { .. } | Mode::Stopping => {}
                }
            }
            Phase::Lingering(ending) => {
                if ending.slot.as_ref().is_none_or(|slot| slot.gate().read().leases() == 0) {
                    self.recycle(worker);
                }
            }
            Phase::Starting | Phase::Checking(_) | Phase::Spare(_) | Phase::Ending(_) => {}
        }
    }

    /// Lets a worker whose former session has no lease left serve another one, if it is healthy.
    fn recycle(&mut self, worker: WorkerId) {
        let Some(Phase::Lingering(ending)) = self.phase_mut(worker) else { return };
        let handle = ending.handle.clone();
        let Some(Phase::Lingering(ending)) = self.enter(worker, Phase::Checking(handle.clone())) else { return };
        if let Some(entry) = self.workers.get_mut(&worker) {
            entry.is_used = true;
        }
        self.timers.remove(ending.since.after(LINGER), Timer::Linger(worker));
        self.over(&ending);
        self.act(Action::Check { worker, handle });
    }

    /// Ends a lingering worker in the given way, or kills one that is being closed.
    pub(super) fn hurry(&mut self, worker: WorkerId, force: Force, now: Moment) {
        let Some(Phase::Lingering(ending) | Phase::Ending(ending)) = self.phase_mut(worker) else { return };
        let since = ending.since;
        let kill = ending.force == Force::Close && force == Force::Kill;
        if kill {
            ending.force = Force::Kill;
        }
        let handle = ending.handle.clone();
        let Some(entry) = self.workers.get(&worker) else { return };
        if entry.phase.kind() == Kind::Lingering {
            self.timers.remove(since.after(LINGER), Timer::Linger(worker));
            self.retire(worker, force, now);
        } else if kill {
            self.act(Action::End { worker, handle, force });
        }
    }

    /// A session is over for good: nothing stands in the way of another one with the same ID.
    pub(super) fn over(&mut self, ending: &Ending<W>) {
        let Some(slot) = &ending.slot else { return };
        self.endings.remove(slot.id());
        let reason = slot.reason().unwrap_or(EndReason::Released);
        for &ticket in &ending.tickets {
            self.act(Action::Answer { ticket, outcome: Ok(reason) });
        }
        self.line_up(slot.id());
    }

    pub(super) fn drain(&mut self, timeout: Duration, now: Moment) {
        let until = now.after(timeout);
        match self.mode {
            Mode::Running => {
                self.mode = Mode::Draining { until };
                self.publish(EventKind::Draining);
                self.timers.add(until, Timer::Drain);
                self.stop_waiting_and_starting(&AcquireError::Draining, now);
                for worker in self.live_workers() {
                    let Some(slot) = self.workers.get(&worker).and_then(|entry| entry.live()) else { continue };
                    if slot.gate().close().leases() == 0 {
                        self.end_session(worker, EndReason::Drained, Force::Close, None, now);
                    }
                }
                self.report_if_empty();
            }
            // Whoever is in more of a hurry wins.
            Mode::Draining { until: other } if until < other => {
                self.timers.remove(other, Timer::Drain);
                self.timers.add(until, Timer::Drain);
                self.mode = Mode::Draining { until };
            }
            Mode::Draining { .. } | Mode::Stopping => {}
        }
    }

    pub(super) fn shutdown(&mut self, now: Moment) {
        if self.mode == Mode::Stopping {
            return;
        }
        if let Mode::Draining { until } = self.mode {
            self.timers.remove(until, Timer::Drain);
        }
        self.mode = Mode::Stopping;
        self.publish(EventKind::ShuttingDown);
        self.stop_waiting_and_starting(&AcquireError::ShutDown, now);
        for worker in self.live_workers() {
            self.end_session(worker, EndReason::Shutdown, Force::Close, None, now);
        }
        self.report_if_empty();
    }

    /// What draining and shutting down have in common: everything ends but the live sessions.
    fn stop_waiting_and_starting(&mut self, error: &AcquireError, now: Moment) {
        for caller in self.queue.clear() {
            self.dismiss(caller, error.clone(), now);
        }
        drop(self.setbacks.clear());
        self.give_up_starts(None);
        self.end_free_workers(now);
    }

    fn live_workers(&self) -> Vec<WorkerId> {
        self.workers.iter().filter(|(_, entry)| entry.live().is_some()).map(|(&worker, _)| worker).collect()
    }
}
