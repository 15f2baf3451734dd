use std::ops::AddAssign;

use crate::{EndReason, Histogram};

/// Numbers of a pool at one moment. The counters count from the pool's start.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Stats {
    /// The most workers there may be.
    pub max_workers: usize,
    /// All workers: those that start, spares, those with a session, and those that end.
    pub workers: usize,
    /// Workers that are being started.
    pub workers_starting: usize,
    /// Healthy workers that wait for a session, including those that are checked for one at this moment.
    pub workers_spare: usize,
    /// Workers with a session.
    pub workers_in_session: usize,
    /// Workers that are being closed.
    pub workers_ending: usize,
    /// Live sessions.
    pub sessions: usize,
    /// Callers that wait in `acquire`.
    pub waiting: usize,
    /// Calls of `acquire`.
    pub acquire_requests: u64,
    /// Calls of `acquire` that were answered with an error.
    pub acquire_failures: u64,
    /// Sessions that got a worker.
    pub sessions_started: u64,
    /// Sessions that ended, by reason.
    pub sessions_ended: SessionsEnded,
    /// Workers that could not be started.
    pub spawn_failures: u64,
    /// Workers that ended by themselves.
    pub worker_exits: u64,
    /// How long callers waited that were not answered at once, whatever the answer was. Those who gave up are not in
    /// it.
    pub acquire_wait: Histogram,
    /// How long workers took from the begin of their start until they were ready, as far as they became so.
    pub spawn_to_ready: Histogram,
}

impl AddAssign for Stats {
    /// Adds the numbers of another pool.
    fn add_assign(&mut self, other: Self) {
        let Self {
            max_workers,
            workers,
            workers_starting,
            workers_spare,
            workers_in_session,
            workers_ending,
            sessions,
            waiting,
            acquire_requests,
            acquire_failures,
            sessions_started,
            sessions_ended,
            spawn_failures,
            worker_exits,
            acquire_wait,
            spawn_to_ready,
        } = other;
        self.max_workers += max_workers;
        self.workers += workers;
        self.workers_starting += workers_starting;
        self.workers_spare += workers_spare;
        self.workers_in_session += workers_in_session;
        self.workers_ending += workers_ending;
        self.sessions += sessions;
        self.waiting += waiting;
        self.acquire_requests += acquire_requests;
        self.acquire_failures += acquire_failures;
        self.sessions_started += sessions_started;
        for (sum, count) in self.sessions_ended.0.iter_mut().zip(sessions_ended.0) {
            *sum += count;
        }
        self.spawn_failures += spawn_failures;
        self.worker_exits += worker_exits;
        self.acquire_wait.add(&acquire_wait);
        self.spawn_to_ready.add(&spawn_to_ready);
    }
}

/// How many sessions ended, by reason.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct SessionsEnded([u64; REASONS.len()]);

/// The names of the reasons, in the order in which they are counted.
const REASONS: [&str; 11] = [
    "released",
    "idle",
    "max-lifetime",
    "evicted",
    "killed",
    "crashed",
    "out-of-memory",
    "unhealthy",
    "client-stream-closed",
    "drained",
    "shutdown",
];

impl SessionsEnded {
    /// How many sessions ended for this reason. All crashes count together, whatever their status.
    #[must_use]
    pub fn by(&self, reason: EndReason) -> u64 {
        self.0[place(reason)]
    }

    /// All reasons by [name](EndReason::name), with their counts.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> {
        REASONS.into_iter().zip(self.0)
    }

    /// How many sessions ended in all.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }

    pub(crate) fn count(&mut self, reason: EndReason) {
        self.0[place(reason)] += 1;
    }
}

fn place(reason: EndReason) -> usize {
    match reason {
        EndReason::Released => 0,
        EndReason::Idle => 1,
        EndReason::MaxLifetime => 2,
        EndReason::Evicted => 3,
        EndReason::Killed => 4,
        EndReason::Crashed(_) => 5,
        EndReason::OutOfMemory => 6,
        EndReason::Unhealthy => 7,
        EndReason::ClientStreamClosed => 8,
        EndReason::Drained => 9,
        EndReason::Shutdown => 10,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ExitStatus;

    #[test]
    fn every_reason_is_counted_under_its_own_name() {
        let reasons = [
            EndReason::Released,
            EndReason::Idle,
            EndReason::MaxLifetime,
            EndReason::Evicted,
            EndReason::Killed,
            EndReason::Crashed(ExitStatus::Code(1)),
            EndReason::OutOfMemory,
            EndReason::Unhealthy,
            EndReason::ClientStreamClosed,
            EndReason::Drained,
            EndReason::Shutdown,
        ];
        for reason in reasons {
            let mut ended = SessionsEnded::default();
            ended.count(reason);
            assert_eq!(ended.by(reason), 1);
            assert_eq!(ended.iter().filter(|(_, count)| *count > 0).collect::<Vec<_>>(), [(reason.name(), 1)]);
        }
    }
}
