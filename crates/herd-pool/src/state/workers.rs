//! How workers start, are checked, and end.

use std::time::Duration;

use super::{
    Action, Ending, Force, Mode, Phase, State, Timer,
    entry::{Kind, Probe},
};
use crate::{
    AcquireError, Crash, EndReason, EventKind, Exit, HealthError, SessionId, SpawnError, WorkerId, clock::Moment,
};

/// Probes that a worker with a session may fail in a row before its session ends.
const TOLERATED_FAILURES: u8 = 3;

/// How long a worker that no session needs must live after it became ready, to count as one that works.
const SETTLED: Duration = Duration::from_secs(10);

/// Probes that run at once, so that 10,000 workers do not make a storm of them.
const MAX_PROBES: usize = 256;

impl<W: Clone> State<W> {
    pub(super) fn start_worker(&mut self, session: Option<SessionId>, now: Moment) {
        let worker = self.worker_ids.next();
        if let Some(session) = &session {
            self.coming.insert(session.clone(), worker);
        }
        self.add(worker, session.clone(), now);
        if let Some(session) = &session
            && let Some(entry) = self.workers.get_mut(&worker)
        {
            entry.counted = self.queue.counted(session);
        }
        match &session {
            Some(session) => self.setbacks.started(session, worker),
            None => self.backoff.started(worker),
        }
        self.publish(EventKind::WorkerStarting { worker });
        self.act(Action::Spawn { worker, session, generation: self.generation });
    }

    pub(super) fn ready(&mut self, worker: WorkerId, handle: W, now: Moment) {
        let Some(entry) = self.workers.get_mut(&worker) else { return };
        entry.ready = Some(now);
        let after = now.since(entry.started);
        let reserved = entry.reserved.as_deref();
        if let Some(session) = reserved.filter(|session| self.coming.get(session) == Some(&worker)) {
            self.coming.remove(session);
        }
        self.counters.spawn_to_ready.record(after);
        self.publish(EventKind::WorkerReady { worker, after });
        if self.is_current(worker) {
            match self.workers.get(&worker).and_then(|entry| entry.reserved.as_deref()) {
                Some(session) => self.setbacks.succeeded(session),
                None => {
                    self.backoff.ready(worker);
                    self.last_spawn_error = None;
                }
            }
        }
        self.enter(worker, Phase::Checking(handle.clone()));
        self.schedule_first_probe(worker, now);
        // It has just shown that it is healthy; checking it again would only cost time.
        self.place(worker, handle, now);
    }

    pub(super) fn spawn_failed(&mut self, worker: WorkerId, error: &SpawnError, now: Moment) {
        self.counters.spawn_failures += 1;
        self.publish(EventKind::SpawnFailed { worker, error: error.clone() });
        let is_current = self.is_current(worker);
        let reserved = self.workers.get(&worker).and_then(|entry| entry.reserved.clone());
        self.remove(worker);
        // Of a start that was given up nobody expects anything any more.
        if !self.running() || !is_current {
            return;
        }
        let party = match reserved {
            Some(session) => {
                self.setbacks.failed(&session, worker, error.clone(), now);
                self.queue.dissolve(&session)
            }
            None => {
                self.backoff.failed(worker, now);
                self.last_spawn_error = Some(error.clone());
                self.queue.pop().map(|(_, party)| party)
            }
        };
        for caller in party.into_iter().flat_map(|party| party.callers) {
            self.dismiss(caller, AcquireError::Spawn(error.clone()), now);
        }
    }

    pub(super) fn checked(&mut self, worker: WorkerId, outcome: Result<(), HealthError>, now: Moment) {
        let Some(Phase::Checking(handle)) = self.phase_mut(worker) else { return };
        let handle = handle.clone();
        match outcome {
            Ok(()) => self.place(worker, handle, now),
            Err(finding) => {
                self.publish(EventKind::WorkerUnhealthy { worker, finding });
                self.retire(worker, Force::Kill, now);
            }
        }
    }

    /// Ends a worker that has no session, or whose session has ended already.
    pub(super) fn retire(&mut self, worker: WorkerId, force: Force, now: Moment) {
        let ending = match self.phase_mut(worker) {
            Some(Phase::Checking(handle) | Phase::Spare(handle)) => {
                Box::new(Ending { handle: handle.clone(), slot: None, tickets: Vec::new(), force, since: now })
            }
            Some(Phase::Lingering(ending)) => Box::new(Ending {
                handle: ending.handle.clone(),
                slot: ending.slot.take(),
                tickets: std::mem::take(&mut ending.tickets),
                force,
                since: now,
            }),
            _ => return,
        };
        if let Some(session) = self.workers.get(&worker).and_then(|entry| entry.reserved.as_deref()) {
            // Until it is gone, what belongs to the session is in use.
            self.endings.insert(session.clone(), worker);
        }
        self.act(Action::End { worker, handle: ending.handle.clone(), force });
        self.enter(worker, Phase::Ending(ending));
    }

    pub(super) fn exited(&mut self, worker: WorkerId, exit: Exit, now: Moment) {
        let Some(entry) = self.workers.get(&worker) else { return };
        let session = match &entry.phase {
            // It is expected to exit.
            Phase::Starting | Phase::Ending(_) => return,
            Phase::Checking(_) | Phase::Spare(_) | Phase::Lingering(_) => None,
            Phase::Live(slot) => Some(slot.id().clone()),
        };
        let is_young = entry.ready.is_none_or(|ready| now.since(ready) < SETTLED);
        if is_young && session.is_none() && self.is_current(worker) {
            self.backoff.died_young(worker, now);
        }
        self.counters.worker_exits += 1;
        self.publish(EventKind::WorkerCrashed { worker, exit: exit.clone() });
        let reason = if exit.out_of_memory { EndReason::OutOfMemory } else { EndReason::Crashed(exit.status) };
        // The main process is gone, but others of the worker may be left; killing it makes sure that nothing is.
        match self.phase_mut(worker) {
            Some(Phase::Live(_)) => self.end_session(worker, reason, Force::Kill, None, now),
            Some(Phase::Lingering(_)) => self.hurry(worker, Force::Kill, now),
            _ => self.retire(worker, Force::Kill, now),
        }
        self.act(Action::Crashed(Crash { session, worker, exit }));
    }

    pub(super) fn closed(&mut self, worker: WorkerId) {
        if let Some(Phase::Ending(_)) = self.phase_mut(worker) {
            self.remove(worker);
        }
    }

    /// Forgets a worker of which nothing is left.
    pub(super) fn remove(&mut self, worker: WorkerId) {
        let Some(entry) = self.take(worker) else { return };
        if let Probe::Due(at) = entry.probe {
            self.timers.remove(at, Timer::Probe(worker));
        }
        let was_running = entry.handle().is_some();
        if let Some(session) = entry.reserved.as_deref() {
            if self.coming.get(session) == Some(&worker) {
                self.coming.remove(session);
            }
            if self.endings.get(session) == Some(&worker) {
                self.endings.remove(session);
                self.line_up(session);
            }
        }
        if let Phase::Ending(ending) = entry.phase {
            self.over(&ending);
            self.act(Action::Discard(worker, Some(ending)));
        } else {
            self.act(Action::Discard(worker, None));
        }
        if was_running {
            self.publish(EventKind::WorkerGone { worker });
        }
        self.report_if_empty();
    }

    pub(super) fn report_if_empty(&mut self) {
        if self.workers.is_empty() && self.mode != Mode::Running {
            self.act(Action::Emptied);
        }
    }

    /// Spreads the probes of workers that were started together over the whole interval.
    pub(super) fn schedule_first_probe(&mut self, worker: WorkerId, now: Moment) {
        // Multiples of the golden ratio fall evenly into an interval, however many of them there are.
        let turn = u128::from(worker.number().wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) + 1;
        let part = (self.options.health_interval.as_nanos().min(u64::MAX.into()) * turn) >> 32;
        self.schedule_probe(worker, now.after(Duration::from_nanos(u64::try_from(part).unwrap_or(u64::MAX))));
    }

    fn schedule_probe(&mut self, worker: WorkerId, at: Moment) {
        if let Some(entry) = self.workers.get_mut(&worker) {
            entry.probe = Probe::Due(at);
            self.timers.add(at, Timer::Probe(worker));
        }
    }

    pub(super) fn probe_due(&mut self, worker: WorkerId, now: Moment) {
        let Some(entry) = self.workers.get_mut(&worker) else { return };
        match &entry.phase {
            Phase::Spare(_) | Phase::Live(_) if self.probes.running < MAX_PROBES => {
                let Some(handle) = entry.handle().cloned() else { return };
                entry.probe = Probe::Running;
                self.probes.running += 1;
                self.act(Action::Probe { worker, handle });
            }
            Phase::Spare(_) | Phase::Live(_) => {
                entry.probe = Probe::Overdue;
                self.probes.overdue.push_back(worker);
            }
            // Its health is asked for already, or is of no interest at this moment.
            Phase::Starting | Phase::Checking(_) | Phase::Lingering(_) => {
                self.schedule_probe(worker, now.after(self.options.health_interval));
            }
            Phase::Ending(_) => entry.probe = Probe::None,
        }
    }

    pub(super) fn probed(&mut self, worker: WorkerId, outcome: Result<(), HealthError>, now: Moment) {
        self.probes.running -= 1;
        if let Some(entry) = self.workers.get_mut(&worker) {
            entry.failures = if outcome.is_ok() { 0 } else { entry.failures.saturating_add(1) };
            if outcome.is_ok() && entry.ready.is_some_and(|ready| now.since(ready) >= SETTLED) {
                self.backoff.succeeded();
            }
            let failures = entry.failures;
            match (entry.phase.kind(), outcome) {
                (Kind::Spare, Err(finding)) => {
                    self.publish(EventKind::WorkerUnhealthy { worker, finding });
                    self.retire(worker, Force::Kill, now);
                }
                (Kind::Live, Err(finding)) if failures >= TOLERATED_FAILURES => {
                    self.publish(EventKind::WorkerUnhealthy { worker, finding });
                    self.end_session(worker, EndReason::Unhealthy, Force::Kill, None, now);
                }
                _ => {}
            }
            self.schedule_probe(worker, now.after(self.options.health_interval));
        }
        while self.probes.running < MAX_PROBES
            && let Some(worker) = self.probes.overdue.pop_front()
        {
            if self.workers.get(&worker).is_some_and(|entry| entry.probe == Probe::Overdue) {
                self.probe_due(worker, now);
            }
        }
    }
}
