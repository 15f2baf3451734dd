//! Callers that wait for a worker.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::Duration,
};

use crate::{
    SessionId,
    clock::Moment,
    crowd::Crowd,
    lines::Lines,
    tenant::{CountedCaller, CountedSession, Whose},
};

/// Names one call of the pool that waits for an answer. Later callers have higher tickets.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(crate) struct Ticket(pub(crate) u64);

/// Callers that wait, grouped by session: all who wait for the same session are one party, and are served together.
///
/// A party stands in its tenant's line where its first caller arrived. While its session's former worker is still
/// ending it waits aside, and takes its place in the line afterwards.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    waiters: BTreeMap<Ticket, Waiter>,
    parties: HashMap<SessionId, Party>,
    /// Parties that stand in line.
    lines: Lines,
    /// Parties for which a worker of their own is being started.
    served: usize,
    crowd: Crowd,
}

#[derive(Debug)]
struct Waiter {
    session: SessionId,
    arrived: Moment,
    _counted: Option<CountedCaller>,
}

#[derive(Debug)]
struct Party {
    place: Ticket,
    since: Moment,
    tickets: BTreeSet<Ticket>,
    stand: Stand,
    counted: Option<CountedSession>,
}

/// Where a party waits.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Stand {
    /// For the end of its session's former worker, or until a failed start may be tried again.
    Aside,
    /// For any worker that becomes free, or for room for one of its own.
    InLine,
    /// For a worker of its own that is being started.
    Served,
}

/// A caller that waited.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Caller {
    pub(crate) ticket: Ticket,
    pub(crate) arrived: Moment,
}

/// A party that waits no more.
#[derive(Debug)]
pub(crate) struct Dissolved {
    /// In order of arrival.
    pub(crate) callers: Vec<Caller>,
    /// The session, as its tenant's limit counts it.
    pub(crate) counted: Option<CountedSession>,
}

impl Queue {
    /// How many callers wait.
    pub(crate) fn waiting(&self) -> usize {
        self.waiters.len()
    }

    /// How many sessions wait for a worker, and not for the end of a former one.
    pub(crate) fn in_line(&self) -> usize {
        self.lines.len() + self.served
    }

    /// The lines of those who have no worker of their own coming.
    pub(crate) fn lines(&self) -> &Lines {
        &self.lines
    }

    pub(crate) fn lines_mut(&mut self) -> &mut Lines {
        &mut self.lines
    }

    /// Since when somebody waits for this session.
    pub(crate) fn since(&self, session: &SessionId) -> Option<Moment> {
        self.parties.get(session).map(|party| party.since)
    }

    /// All sessions that somebody waits for.
    pub(crate) fn sessions(&self) -> impl Iterator<Item = (&SessionId, Moment)> {
        self.parties.iter().map(|(session, party)| (session, party.since))
    }

    /// How the session that this party waits for is counted.
    pub(crate) fn counted(&self, session: &SessionId) -> Option<CountedSession> {
        self.parties.get(session)?.counted.clone()
    }

    /// Adds a caller to its session's party, which is [open](Self::open).
    pub(crate) fn join(&mut self, ticket: Ticket, session: &SessionId, counted: Option<CountedCaller>, now: Moment) {
        let Some(party) = self.parties.get_mut(session) else { return };
        party.tickets.insert(ticket);
        self.waiters.insert(ticket, Waiter { session: session.clone(), arrived: now, _counted: counted });
        self.crowd.add(ticket, session.tenant().cloned());
    }

    /// Opens the party of a session that nobody waits for, before its first caller [joins](Self::join).
    pub(crate) fn open(
        &mut self,
        place: Ticket,
        session: &SessionId,
        stand: Stand,
        counted: Option<CountedSession>,
        now: Moment,
    ) {
        let party = Party { place, since: now, tickets: BTreeSet::new(), stand: Stand::Aside, counted };
        self.parties.insert(session.clone(), party);
        self.place(session, stand);
    }

    /// Lets the session's party, if there is one, wait there.
    pub(crate) fn place(&mut self, session: &SessionId, stand: Stand) {
        let Some(party) = self.parties.get_mut(session) else { return };
        match std::mem::replace(&mut party.stand, stand) {
            Stand::Aside => {}
            Stand::InLine => self.lines.remove(party.place, session),
            Stand::Served => self.served -= 1,
        }
        match stand {
            Stand::Aside => {}
            Stand::InLine => self.lines.add(party.place, session.clone()),
            Stand::Served => self.served += 1,
        }
    }

    /// Takes out of the lines the session whose turn it is, because a worker of its own is started. Tenants for whom
    /// this is no turn keep theirs.
    pub(crate) fn serve_next(&mut self, fits: impl Fn(&Whose) -> bool) -> Option<SessionId> {
        let session = self.lines.pop_where(fits)?;
        // It stands in no line any more, which taking it out once more does not change.
        self.place(&session, Stand::Served);
        Some(session)
    }

    /// Removes a caller, if it is there.
    pub(crate) fn leave(&mut self, ticket: Ticket) -> Option<Caller> {
        let Waiter { session, arrived, .. } = self.waiters.remove(&ticket)?;
        self.crowd.remove(ticket, session.tenant().cloned());
        if let Some(party) = self.parties.get_mut(&session) {
            party.tickets.remove(&ticket);
            if party.tickets.is_empty() {
                self.dissolve(&session);
            }
        }
        Some(Caller { ticket, arrived })
    }

    /// Removes the party whose turn it is.
    pub(crate) fn pop(&mut self) -> Option<(SessionId, Dissolved)> {
        let session = self.lines.pop_where(|_| true)?;
        let party = self.dissolve(&session)?;
        Some((session, party))
    }

    /// Removes the session's party, wherever it waits.
    pub(crate) fn dissolve(&mut self, session: &SessionId) -> Option<Dissolved> {
        self.place(session, Stand::Aside);
        let Party { tickets, counted, .. } = self.parties.remove(session)?;
        let mut callers = Vec::with_capacity(tickets.len());
        for ticket in tickets {
            if let Some(Waiter { arrived, .. }) = self.waiters.remove(&ticket) {
                self.crowd.remove(ticket, session.tenant().cloned());
                callers.push(Caller { ticket, arrived });
            }
        }
        Some(Dissolved { callers, counted })
    }

    /// Removes everybody.
    pub(crate) fn clear(&mut self) -> Vec<Caller> {
        let everybody = std::mem::take(self);
        everybody.waiters.into_iter().map(|(ticket, Waiter { arrived, .. })| Caller { ticket, arrived }).collect()
    }

    /// Removes the caller, if there is one, that has to make room for one more of this tenant.
    pub(crate) fn make_room(&mut self, whose: &Whose) -> Option<Caller> {
        let ticket = self.crowd.in_the_way_of(whose)?;
        self.leave(ticket)
    }

    /// When the first caller has waited for `timeout`. All wait equally long, so that is the first to have arrived.
    pub(crate) fn deadline(&self, timeout: Duration) -> Option<Moment> {
        self.waiters.first_key_value().map(|(_, waiter)| waiter.arrived.after(timeout))
    }

    /// Removes the first caller if it has waited for `timeout` by `now`, and tells for which session that was.
    pub(crate) fn pop_late(&mut self, timeout: Duration, now: Moment) -> Option<(SessionId, Caller)> {
        let (&ticket, waiter) = self.waiters.first_key_value()?;
        if waiter.arrived.after(timeout) > now {
            return None;
        }
        let session = waiter.session.clone();
        self.leave(ticket).map(|caller| (session, caller))
    }
}
