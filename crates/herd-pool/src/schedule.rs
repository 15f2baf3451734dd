//! Things that are due at some moment, in order.

use std::collections::BTreeSet;

use crate::clock::Moment;

/// An ordered set of what is due when. Every operation is O(log n).
#[derive(Debug)]
pub(crate) struct Schedule<K>(BTreeSet<(Moment, K)>);

impl<K> Default for Schedule<K> {
    fn default() -> Self {
        Self(BTreeSet::new())
    }
}

impl<K: Copy + Ord> Schedule<K> {
    pub(crate) fn add(&mut self, at: Moment, what: K) {
        self.0.insert((at, what));
    }

    pub(crate) fn remove(&mut self, at: Moment, what: K) {
        self.0.remove(&(at, what));
    }

    /// What is due first, and when.
    pub(crate) fn first(&self) -> Option<(Moment, K)> {
        self.0.first().copied()
    }

    /// Removes and returns the first thing that is due by `now`.
    pub(crate) fn pop_due(&mut self, now: Moment) -> Option<K> {
        if self.0.first()?.0 > now {
            return None;
        }
        self.0.pop_first().map(|(_, what)| what)
    }
}
