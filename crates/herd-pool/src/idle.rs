//! Live sessions by whose they are, and which of them may be idle.

use std::collections::{BTreeSet, HashMap};

use crate::{WorkerId, clock::Moment, schedule::Schedule, tenant::Whose};

/// How many live sessions each tenant has, and those that may be idle by when they end for it. Every operation is
/// O(log n).
#[derive(Debug, Default)]
pub(crate) struct Idle {
    shares: HashMap<Whose, Share>,
    /// Tenants with sessions that may be idle, by when the first of these ends.
    firsts: BTreeSet<(Moment, Whose)>,
    /// The same tenants by how many live sessions they have.
    ranks: BTreeSet<(usize, Whose)>,
}

#[derive(Debug, Default)]
struct Share {
    live: usize,
    idle: Schedule<WorkerId>,
}

impl Idle {
    /// Counts a session that is live from now on.
    pub(crate) fn started(&mut self, whose: &Whose) {
        self.change(whose, |share| share.live += 1);
    }

    /// Stops counting a session.
    pub(crate) fn ended(&mut self, whose: &Whose) {
        self.change(whose, |share| share.live -= 1);
    }

    /// Lists a session that may be idle.
    pub(crate) fn add(&mut self, at: Moment, worker: WorkerId, whose: &Whose) {
        self.change(whose, |share| share.idle.add(at, worker));
    }

    /// Takes a session off the list.
    pub(crate) fn remove(&mut self, at: Moment, worker: WorkerId, whose: &Whose) {
        self.change(whose, |share| share.idle.remove(at, worker));
    }

    /// How many live sessions the tenant has.
    pub(crate) fn live(&self, whose: &Whose) -> usize {
        self.shares.get(whose).map_or(0, |share| share.live)
    }

    /// The session that ends first, and when.
    pub(crate) fn first(&self) -> Option<(Moment, WorkerId)> {
        let (_, whose) = self.firsts.first()?;
        self.shares.get(whose)?.idle.first()
    }

    /// The session of this tenant that ends first.
    pub(crate) fn first_of(&self, whose: &Whose) -> Option<WorkerId> {
        let (_, worker) = self.shares.get(whose)?.idle.first()?;
        Some(worker)
    }

    /// Of the tenants with sessions that may be idle the one with most live sessions, and how many these are.
    pub(crate) fn richest(&self) -> Option<(usize, &Whose)> {
        self.ranks.last().map(|(live, whose)| (*live, whose))
    }

    fn change(&mut self, whose: &Whose, change: impl FnOnce(&mut Share)) {
        let share = self.shares.entry(whose.clone()).or_default();
        let (first, live) = (share.idle.first(), share.live);
        change(share);
        let now = share.idle.first();
        if now.map(|(at, _)| at) != first.map(|(at, _)| at) {
            if let Some((at, _)) = first {
                self.firsts.remove(&(at, whose.clone()));
            }
            if let Some((at, _)) = now {
                self.firsts.insert((at, whose.clone()));
            }
        }
        if (now.is_some(), share.live) != (first.is_some(), live) {
            if first.is_some() {
                self.ranks.remove(&(live, whose.clone()));
            }
            if now.is_some() {
                self.ranks.insert((share.live, whose.clone()));
            }
        }
        if share.live == 0 && now.is_none() {
            self.shares.remove(whose);
        }
    }
}
