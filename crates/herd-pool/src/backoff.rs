//! How fast workers that cannot be started are tried again.

use std::time::Duration;

use crate::{WorkerId, clock::Moment};

const FIRST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(10);

/// After a failure, starts are one at a time and ever further apart, up to 10 seconds; a worker that proves itself ends
/// that. To become ready is no proof: a worker that dies right afterwards would be started without a pause for ever.
#[derive(Debug, Default)]
pub(crate) struct Backoff {
    failures: u32,
    until: Moment,
    /// The one start that is being tried. Failures of others, begun before the first failure, do not count again.
    trial: Option<WorkerId>,
}

impl Backoff {
    /// Whether a start may begin now.
    pub(crate) fn allows(&self, now: Moment) -> bool {
        self.failures == 0 || (self.trial.is_none() && now >= self.until)
    }

    /// When a start may begin; `None` if that takes the outcome of another one.
    pub(crate) fn until(&self) -> Option<Moment> {
        self.trial.is_none().then_some(self.until)
    }

    pub(crate) fn started(&mut self, worker: WorkerId) {
        if self.failures > 0 {
            self.trial = Some(worker);
        }
    }

    pub(crate) fn failed(&mut self, worker: WorkerId, now: Moment) {
        if self.failures == 0 || self.trial == Some(worker) {
            let delay = FIRST.saturating_mul(1 << self.failures.min(16)).min(LONGEST);
            self.failures = self.failures.saturating_add(1);
            self.until = now.after(delay);
            self.trial = None;
        }
    }

    /// A worker became ready: the next start may be tried.
    pub(crate) fn ready(&mut self, worker: WorkerId) {
        if self.trial == Some(worker) {
            self.trial = None;
        }
    }

    /// A worker died soon after it became ready, and served nobody. Those that die during a pause count once.
    pub(crate) fn died_young(&mut self, worker: WorkerId, now: Moment) {
        if self.trial.is_none() && now >= self.until {
            self.trial = Some(worker);
            self.failed(worker, now);
        }
    }

    /// A worker served a session, or lived long enough to count as one that works.
    pub(crate) fn succeeded(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_delay_doubles_up_to_its_cap_and_a_success_resets_it() {
        let mut backoff = Backoff::default();
        let mut now = Moment(0);
        let mut delays = Vec::new();
        for number in 1..=10 {
            assert!(backoff.allows(now));
            backoff.started(WorkerId::new(number));
            backoff.failed(WorkerId::new(number), now);
            let until = backoff.until().unwrap();
            assert!(!backoff.allows(Moment(until.0 - 1)));
            delays.push(until.since(now).as_millis());
            now = until;
        }
        assert_eq!(delays, [100, 200, 400, 800, 1600, 3200, 6400, 10_000, 10_000, 10_000]);
        backoff.succeeded();
        assert!(backoff.allows(now));
    }

    #[test]
    fn dying_right_after_becoming_ready_is_no_success() {
        let mut backoff = Backoff::default();
        let mut now = Moment(0);
        let mut delays = Vec::new();
        for number in 1..=9 {
            assert!(backoff.allows(now));
            backoff.started(WorkerId::new(number));
            backoff.ready(WorkerId::new(number));
            backoff.died_young(WorkerId::new(number), now);
            backoff.died_young(WorkerId::new(100), now);
            let until = backoff.until().unwrap();
            delays.push(until.since(now).as_millis());
            now = until;
        }
        assert_eq!(delays, [100, 200, 400, 800, 1600, 3200, 6400, 10_000, 10_000]);
    }

    #[test]
    fn workers_that_fail_together_count_once() {
        let mut backoff = Backoff::default();
        for number in 1..=10 {
            backoff.started(WorkerId::new(number));
        }
        for number in 1..=10 {
            backoff.failed(WorkerId::new(number), Moment(0));
        }
        assert_eq!(backoff.until(), Some(Moment(0).after(FIRST)));
    }
}
