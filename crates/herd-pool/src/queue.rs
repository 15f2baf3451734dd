//! Callers that wait for a worker, in order of arrival.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::Duration,
};

use crate::{SessionId, clock::Moment};

/// Names one call of the pool that waits for an answer. Later callers have higher tickets.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(crate) struct Ticket(pub(crate) u64);

/// Callers that wait, grouped by session: all who wait for the same session are one party, and are served together.
///
/// A party stands in line where its first caller arrived. While its session's former worker is still ending it waits
/// aside, and takes its place in the line afterwards.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    waiters: BTreeMap<Ticket, Waiter>,
    line: BTreeMap<Ticket, SessionId>,
    parties: HashMap<SessionId, Party>,
}

#[derive(Debug)]
struct Waiter {
    session: SessionId,
    arrived: Moment,
}

#[derive(Debug)]
struct Party {
    place: Ticket,
    since: Moment,
    tickets: BTreeSet<Ticket>,
}

impl Queue {
    /// How many callers wait.
    pub(crate) fn waiting(&self) -> usize {
        self.waiters.len()
    }

    /// How many sessions stand in line for a worker.
    pub(crate) fn in_line(&self) -> usize {
        self.line.len()
    }

    /// The sessions that stand in line for a worker, in order.
    pub(crate) fn line(&self) -> impl Iterator<Item = &SessionId> {
        self.line.values()
    }

    /// Since when somebody waits for this session.
    pub(crate) fn since(&self, session: &SessionId) -> Option<Moment> {
        self.parties.get(session).map(|party| party.since)
    }

    /// All sessions that somebody waits for.
    pub(crate) fn sessions(&self) -> impl Iterator<Item = (&SessionId, Moment)> {
        self.parties.iter().map(|(session, party)| (session, party.since))
    }

    /// Adds a caller. `aside` says that the session's former worker is still ending.
    pub(crate) fn join(&mut self, ticket: Ticket, session: &SessionId, aside: bool, now: Moment) {
        let party = self.parties.entry(session.clone()).or_insert_with(|| {
            if !aside {
                self.line.insert(ticket, session.clone());
            }
            Party { place: ticket, since: now, tickets: BTreeSet::new() }
        });
        party.tickets.insert(ticket);
        self.waiters.insert(ticket, Waiter { session: session.clone(), arrived: now });
    }

    /// Lets the session's party, if there is one, take its place in the line.
    pub(crate) fn admit(&mut self, session: &SessionId) {
        if let Some(party) = self.parties.get(session) {
            self.line.insert(party.place, session.clone());
        }
    }

    /// Lets the session's party, if there is one, wait aside.
    pub(crate) fn set_aside(&mut self, session: &SessionId) {
        if let Some(party) = self.parties.get(session) {
            self.line.remove(&party.place);
        }
    }

    /// Removes a caller. Returns whether it was there.
    pub(crate) fn leave(&mut self, ticket: Ticket) -> bool {
        let Some(Waiter { session, .. }) = self.waiters.remove(&ticket) else { return false };
        if let Some(party) = self.parties.get_mut(&session) {
            party.tickets.remove(&ticket);
            if party.tickets.is_empty() {
                self.line.remove(&party.place);
                self.parties.remove(&session);
            }
        }
        true
    }

    /// Removes the party at the head of the line.
    pub(crate) fn pop(&mut self) -> Option<(SessionId, BTreeSet<Ticket>)> {
        let (_, session) = self.line.first_key_value()?;
        let session = session.clone();
        let tickets = self.dissolve(&session);
        Some((session, tickets))
    }

    /// Removes the session's party, wherever it waits.
    pub(crate) fn dissolve(&mut self, session: &SessionId) -> BTreeSet<Ticket> {
        let Some(party) = self.parties.remove(session) else { return BTreeSet::new() };
        self.line.remove(&party.place);
        for ticket in &party.tickets {
            self.waiters.remove(ticket);
        }
        party.tickets
    }

    /// Removes everybody.
    pub(crate) fn clear(&mut self) -> impl Iterator<Item = Ticket> + use<> {
        self.line.clear();
        self.parties.clear();
        std::mem::take(&mut self.waiters).into_keys()
    }

    /// When the first caller has waited for `timeout`. All wait equally long, so that is the first to have arrived.
    pub(crate) fn deadline(&self, timeout: Duration) -> Option<Moment> {
        self.waiters.first_key_value().map(|(_, waiter)| waiter.arrived.after(timeout))
    }

    /// Removes the first caller if it has waited for `timeout` by `now`.
    pub(crate) fn pop_late(&mut self, timeout: Duration, now: Moment) -> Option<Ticket> {
        let (&ticket, waiter) = self.waiters.first_key_value()?;
        if waiter.arrived.after(timeout) > now {
            return None;
        }
        self.leave(ticket);
        Some(ticket)
    }
}
