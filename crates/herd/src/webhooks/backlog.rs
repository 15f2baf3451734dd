//! Events that wait for a receiver.

use std::{collections::VecDeque, sync::Arc};

use tokio::time::Instant;

/// How many events are posted together at most. A receiver that is far away would otherwise fall behind for good.
const BATCH: usize = 100;
/// How many bytes of events are posted together, unless a single one has more.
const BATCH_BYTES: usize = 256 * 1024;

/// Events in the order in which they happened, the oldest first, and never more than a bound.
#[derive(Debug)]
pub(super) struct Backlog {
    bound: usize,
    events: VecDeque<Waiting>,
    /// How many were dropped since the receiver was told last.
    missed: u64,
}

/// One event, as the JSON that is posted.
#[derive(Clone, Debug)]
pub(super) struct Waiting {
    pub(super) sequence: u64,
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
        Self { bound, events: VecDeque::new(), missed: 0 }
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

    /// Notes that events were lost before they came here.
    pub(super) fn miss(&mut self, count: u64) {
        self.missed += count;
    }

    pub(super) fn len(&self) -> usize {
        self.events.len()
    }

    /// What is to be posted next, if anything. It stays here until it is [`done`](Self::done).
    pub(super) fn next(&self) -> Option<Batch> {
        let mut bytes = 0;
        let fits = |event: &&Waiting| {
            bytes += event.json.len();
            bytes <= BATCH_BYTES
        };
        let mut events: Vec<_> = self.events.iter().take(BATCH).take_while(fits).cloned().collect();
        if events.is_empty() {
            events.extend(self.events.front().cloned());
        }
        (!events.is_empty()).then_some(Batch { events, missed: self.missed })
    }

    /// Removes what was posted. Some of it may have been dropped meanwhile: that was no loss, then, and how many that
    /// were is the answer.
    pub(super) fn done(&mut self, batch: &Batch) -> u64 {
        let before = self.events.len();
        self.remove(batch);
        let dropped = (batch.events.len() - (before - self.events.len())) as u64;
        // What was told, and what arrived all the same, is not missed any more.
        self.missed = self.missed.saturating_sub(batch.missed + dropped);
        dropped
    }

    /// Removes what nobody will try to post again; returns how many events were still here.
    pub(super) fn give_up(&mut self, batch: &Batch) -> u64 {
        let before = self.events.len();
        self.remove(batch);
        let lost = (before - self.events.len()) as u64;
        self.missed += lost;
        lost
    }

    fn remove(&mut self, batch: &Batch) {
        let Some(last) = batch.events.last().map(|event| event.sequence) else { return };
        while self.events.front().is_some_and(|event| event.sequence <= last) {
            self.events.pop_front();
        }
    }

    fn trim(&mut self) -> u64 {
        let excess = self.events.len().saturating_sub(self.bound);
        self.events.drain(..excess);
        self.missed += excess as u64;
        excess as u64
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn event(sequence: u64) -> Waiting {
        Waiting { sequence, since: Instant::now(), json: "{}".into() }
    }

    fn sequences(batch: &Batch) -> Vec<u64> {
        batch.events.iter().map(|event| event.sequence).collect()
    }

    #[tokio::test]
    async fn within_the_bound_nothing_is_lost_and_all_comes_in_order() {
        let mut backlog = Backlog::new(500);
        let dropped: u64 = (1..=500).map(|sequence| backlog.push(event(sequence))).sum();
        assert_eq!(dropped, 0);
        let mut seen = Vec::new();
        while let Some(batch) = backlog.next() {
            assert_eq!(batch.missed, 0);
            seen.extend(sequences(&batch));
            assert_eq!(backlog.done(&batch), 0);
        }
        assert_eq!(seen, (1..=500).collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn beyond_the_bound_the_oldest_go_and_the_receiver_is_told_how_many() {
        let mut backlog = Backlog::new(3);
        assert_eq!((1..=5).map(|sequence| backlog.push(event(sequence))).sum::<u64>(), 2);
        let batch = backlog.next().unwrap();
        assert_eq!((sequences(&batch), batch.missed), (vec![3, 4, 5], 2));
        backlog.done(&batch);
        backlog.push(event(6));
        assert_eq!(backlog.next().unwrap().missed, 0, "it is told once");
        assert_eq!(backlog.bound(0), 1);
        assert!(backlog.next().is_none());
    }

    #[tokio::test]
    async fn what_is_dropped_while_it_is_posted_is_not_missed_if_it_arrives() {
        let mut backlog = Backlog::new(2);
        backlog.push(event(1));
        backlog.push(event(2));
        let batch = backlog.next().unwrap();
        assert_eq!(backlog.push(event(3)), 1);
        assert_eq!(backlog.done(&batch), 1, "the first was dropped and has arrived");
        let next = backlog.next().unwrap();
        assert_eq!((sequences(&next), next.missed), (vec![3], 0));
    }

    #[tokio::test]
    async fn large_events_are_posted_alone() {
        let mut backlog = Backlog::new(10);
        let large: Arc<str> = "x".repeat(BATCH_BYTES + 1).into();
        for sequence in 1..=2 {
            backlog.push(Waiting { json: Arc::clone(&large), ..event(sequence) });
        }
        assert_eq!(sequences(&backlog.next().unwrap()), [1]);
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
                        delivered.extend(sequences(&batch));
                        told += batch.missed;
                    },
                    _ => if let Some(batch) = posted.take() {
                        backlog.give_up(&batch);
                    },
                }
                prop_assert!(backlog.len() <= bound);
            }
            prop_assert!(delivered.is_sorted());
            let unique = delivered.len();
            let accounted = unique as u64 + told + backlog.missed + backlog.len() as u64;
            prop_assert_eq!(accounted, pushed);
        }
    }
}
