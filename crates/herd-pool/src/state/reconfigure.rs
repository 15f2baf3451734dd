//! What happens when another configuration is to count.

use super::{
    Action, Force, Phase, State, Timer,
    entry::{Kind, Probe},
};
use crate::{WorkerId, backoff::Backoff, clock::Moment, generation::Generation, options::Options, queue::Stand};

impl<W: Clone> State<W> {
    /// Lets these options, and workers of this generation, count from now on.
    pub(super) fn reconfigure(&mut self, options: Options, generation: Generation, now: Moment) {
        if !self.running() {
            return;
        }
        let Options {
            min_workers: _,
            max_workers,
            spare: _,
            // Sessions keep those that they started with.
            ttl: _,
            max_lifetime: _,
            idle_by: _,
            acquire_timeout: _,
            max_waiting: _,
            when_full: _,
            // Of no interest here: the shell keeps to it.
            spawn_timeout: _,
            health_interval,
            worker_reuse: _,
            per_session: _,
        } = options;
        let probes_change = health_interval != self.options.health_interval;
        self.template.configure(&options);
        self.counters.max_workers = max_workers;
        self.options = options;
        self.generation = generation;
        self.given_up = self.count(Kind::Starting);
        // What did not start before says nothing about what is to start now.
        self.backoff = Backoff::default();
        self.last_spawn_error = None;
        for session in self.setbacks.clear() {
            self.line_up(&session);
        }
        self.give_up_starts(Some(generation));
        self.end_free_workers(now);
        // There may be less room than was promised.
        self.queue.lines_mut().break_promises();
        if probes_change {
            self.reschedule_probes(now);
        }
    }

    /// Gives up the starts of all generations but this one. Sessions for which a worker is being started wait until
    /// nothing of that worker is left.
    pub(super) fn give_up_starts(&mut self, except: Option<Generation>) {
        for (session, worker) in std::mem::take(&mut self.coming) {
            self.queue.place(&session, Stand::Aside);
            self.endings.insert(session, worker);
        }
        self.act(Action::CancelSpawns { except });
    }

    /// Ends all workers that have no session, and those whose former session has leases left.
    pub(super) fn end_free_workers(&mut self, now: Moment) {
        let is_free = |kind| matches!(kind, Kind::Checking | Kind::Spare | Kind::Lingering);
        let entries = self.workers.iter().filter(|(_, entry)| is_free(entry.phase.kind()));
        let free: Vec<_> = entries.map(|(&worker, _)| worker).collect();
        for worker in free {
            match self.phase_mut(worker) {
                Some(Phase::Lingering(_)) => self.hurry(worker, Force::Close, now),
                _ => self.retire(worker, Force::Close, now),
            }
        }
    }

    /// Whether a worker comes from the factory that counts now.
    pub(super) fn is_current(&self, worker: WorkerId) -> bool {
        self.workers.get(&worker).is_some_and(|entry| entry.generation == self.generation)
    }

    /// Lets the probes that are to come keep to an interval that has changed.
    fn reschedule_probes(&mut self, now: Moment) {
        let due = self.workers.iter().filter_map(|(&worker, entry)| match entry.probe {
            Probe::Due(at) => Some((worker, at)),
            Probe::None | Probe::Overdue | Probe::Running => None,
        });
        for (worker, at) in due.collect::<Vec<_>>() {
            self.timers.remove(at, Timer::Probe(worker));
            self.schedule_first_probe(worker, now);
        }
    }
}
