//! Events that wait for a receiver.

use std::{collections::VecDeque, sync::Arc};

use tokio::time::Instant;

/// How many events are posted together at most. A receiver that is far away would otherwise fall behind for good.
const BATCH: usize = 100;
/// How many bytes of events are posted together, unless a single one has more.
const BATCH_BYTES: usize = 256 * 1024;

/// Events in the order in which they happened, the oldest first, and hardly more than a bound.
#[derive(Debug)]
pub(super) struct Backlog {
    bound: usize,
    events: VecDeque<Waiting>,
    /// How many of them, from the oldest on, are being posted. They may have arrived already, so they are not dropped.
    posted: usize,
    /// How many were dropped since the receiver was told last.
    missed: u64,
}

/// One event, as the JSON that is posted.
#[derive(Clone, Debug)]
pub(super) struct Waiting {
    pub(super) since: Instant,
    pub(super) json: Arc<str>,
}

/// Events that are posted together.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) events: Vec<Waiting>,
    /// How many events before them the receiver will never see.
    pub(super) missed: u64,
}

impl Backlog {
    pub(super) fn new(bound: usize) -> Self {
        Self { bound, events: VecDeque::new(), posted: 0, missed: 0 }
    }

    /// Changes the bound. What is too much then goes; returns how many events.
    pub(super) fn bound(&mut self, bound: usize) -> u64 {
        self.bound = bound;
        self.trim()
    }

    /// Adds an event. If there are too many the oldest go, which matter least; returns how many.
    pub(super) fn push(&mut self, event: Waiting) -> u64 {
        self.events.push_back(event);
        self.trim()
    }

    pub(super) fn len(&self) -> usize {
        self.events.len()
    }

    /// What is to be posted next, if anything. It stays here until it is [`done`](Self::done) or
    /// [given up](Self::give_up), one of which has to come before the next one.
    pub(super) fn next(&mut self) -> Option<Batch> {
        let mut bytes = 0;
        let fits = |event: &&Waiting| {
            bytes += event.json.len();
            bytes <= BATCH_BYTES
        };
        let mut events: Vec<_> = self.events.iter().take(BATCH).take_while(fits).cloned().collect();
        if events.is_empty() {
            events.extend(self.events.front().cloned());
        }
        self.posted = events.len();
        (!events.is_empty()).then_some(Batch { events, missed: self.missed })
    }

    /// Removes what was posted and has arrived.
    pub(super) fn done(&mut self, batch: &Batch) {
        self.take_posted();
        self.missed -= batch.missed;
    }

    /// Removes what nobody will try to post again; returns how many events.
    pub(super) fn give_up(&mut self) -> u64 {
        let lost = self.take_posted();
        self.missed += lost;
        lost
    }

    fn take_posted(&mut self) -> u64 {
        let posted = std::mem::take(&mut self.posted);
        self.events.drain(..posted).len() as u64
    }

    fn trim(&mut self) -> u64 {
        let excess = self.events.len().saturating_sub(self.bound.max(self.posted));
        let dropped = self.events.drain(self.posted..self.posted + excess).len() as u64;
        self.missed += dropped;
        dropped
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn event(number: u64) -> Waiting {
        Waiting { since: Instant::now(), json: number.to_string().into() }
    }

    fn numbers(batch: &Batch) -> Vec<u64> {
        batch.events.iter().map(|event| event.json.parse().unwrap()).collect()
    }

    #[tokio::test]
    async fn within_the_bound_nothing_is_lost_and_all_comes_in_order() {
        let mut backlog = Backlog::new(500);
        assert_eq!((1..=500).map(|number| backlog.push(event(number))).sum::<u64>(), 0);
        let mut seen = Vec::new();
        while let Some(batch) = backlog.next() {
            assert_eq!(batch.missed, 0);
            seen.extend(numbers(&batch));
            backlog.done(&batch);
        }
        assert_eq!(seen, (1..=500).collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn beyond_the_bound_the_oldest_go_and_the_receiver_is_told_how_many() {
        let mut backlog = Backlog::new(3);
        assert_eq!((1..=5).map(|number| backlog.push(event(number))).sum::<u64>(), 2);
        let batch = backlog.next().unwrap();
        assert_eq!((numbers(&batch), batch.missed), (vec![3, 4, 5], 2));
        backlog.done(&batch);
        backlog.push(event(6));
        let batch = backlog.next().unwrap();
        assert_eq!((numbers(&batch), batch.missed), (vec![6], 0), "it is told once");
        assert_eq!(backlog.give_up(), 1);
        backlog.push(event(7));
        assert_eq!(backlog.bound(0), 1);
        assert!(backlog.next().is_none());
        backlog.bound(1);
        backlog.push(event(8));
        assert_eq!(backlog.next().unwrap().missed, 2);
    }

    #[tokio::test]
    async fn what_is_being_posted_is_not_dropped() {
        let mut backlog = Backlog::new(2);
        backlog.push(event(1));
        backlog.push(event(2));
        let batch = backlog.next().unwrap();
        assert_eq!(backlog.push(event(3)) + backlog.push(event(4)), 2);
        assert_eq!(backlog.bound(0), 0);
        backlog.done(&batch);
        assert_eq!(backlog.bound(2), 0);
        backlog.push(event(5));
        let next = backlog.next().unwrap();
        assert_eq!((numbers(&next), next.missed), (vec![5], 2));
    }

    #[tokio::test]
    async fn large_events_are_posted_alone() {
        let mut backlog = Backlog::new(10);
        let large: Arc<str> = "x".repeat(BATCH_BYTES + 1).into();
        for _ in 1..=2 {
            backlog.push(Waiting { since: Instant::now(), json: Arc::clone(&large) });
        }
        assert_eq!(backlog.next().unwrap().events.len(), 1);
    }

    proptest! {
        /// Each event is delivered once, or counted as missed once: whatever comes between.
        #[test]
        fn every_event_arrives_or_is_missed(bound in 0_usize..8, steps in prop::collection::vec(0_u8..5, 0..200)) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let _guard = runtime.enter();
            let mut backlog = Backlog::new(bound);
            let (mut pushed, mut delivered, mut told) = (0, Vec::new(), 0);
            let mut posted: Option<Batch> = None;
            for step in steps {
                match step {
                    0 | 1 => {
                        pushed += 1;
                        backlog.push(event(pushed));
                    }
                    2 => posted = posted.or_else(|| backlog.next()),
                    3 => if let Some(batch) = posted.take() {
                        backlog.done(&batch);
                        delivered.extend(numbers(&batch));
                        told += batch.missed;
                    },
                    _ => if posted.take().is_some() {
                        backlog.give_up();
                    },
                }
                prop_assert!(backlog.len() <= bound);
            }
            prop_assert!(delivered.is_sorted_by(|earlier, later| earlier < later));
            let accounted = delivered.len() as u64 + told + backlog.missed + backlog.len() as u64;
            prop_assert_eq!(accounted, pushed);
        }
    }
}
