//! What the state knows about one worker.

use super::{Force, State};
use crate::{
    SessionId, WorkerId, clock::Moment, generation::Generation, queue::Ticket, slot::Slot, sync::Arc,
    tenant::CountedSession,
};

/// A worker's entry.
pub(super) struct Entry<W> {
    pub(super) phase: Phase<W>,
    /// The session that it was started for, if it is for one alone. Boxed, since most pools have no such workers.
    pub(super) reserved: Option<Box<SessionId>>,
    /// The session that it is started for, serves, or served, as its tenant's limit counts it.
    pub(super) counted: Option<CountedSession>,
    /// Whether it has served a session before. Such a worker is not for tenants.
    pub(super) is_used: bool,
    /// Which factory it comes from.
    pub(super) generation: Generation,
    pub(super) started: Moment,
    pub(super) ready: Option<Moment>,
    /// Where its session is listed to be looked at again.
    pub(super) listing: Listing,
    pub(super) probe: Probe,
    /// Probes that failed in a row.
    pub(super) failures: u8,
}

/// Where a worker is in its life.
pub(super) enum Phase<W> {
    /// The factory is starting it.
    Starting,
    /// It is being checked, and serves the session at the head of the line afterwards.
    Checking(W),
    /// It waits for a session.
    Spare(W),
    /// It has a session.
    Live(Arc<Slot<W>>),
    /// Its session has ended, but not all leases are back; it is reused when they are.
    Lingering(Box<Ending<W>>),
    /// It is being closed or killed.
    Ending(Box<Ending<W>>),
}

/// What is remembered of a worker while it ends.
#[derive(Debug)]
pub(crate) struct Ending<W> {
    pub(super) handle: W,
    /// The session it had.
    pub(super) slot: Option<Arc<Slot<W>>>,
    /// Who waits for the end.
    pub(super) tickets: Vec<Ticket>,
    pub(super) force: Force,
    pub(super) since: Moment,
}

/// Where a live session is listed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Listing {
    /// Nowhere: its leases keep it from being idle, and its gate is watched.
    None,
    /// Among those that may be idle.
    Idle(Moment),
    /// Among those that have leases, but whose silence is measured all the same; its gate is watched.
    Silent(Moment),
}

/// Where a worker's liveness probe stands.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Probe {
    None,
    Due(Moment),
    Overdue,
    Running,
}

/// A phase without what is in it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Kind {
    Starting,
    Checking,
    Spare,
    Live,
    Lingering,
    Ending,
}

impl Kind {
    pub(super) const COUNT: usize = 6;
}

impl<W> Phase<W> {
    pub(super) fn kind(&self) -> Kind {
        match self {
            Self::Starting => Kind::Starting,
            Self::Checking(_) => Kind::Checking,
            Self::Spare(_) => Kind::Spare,
            Self::Live(_) => Kind::Live,
            Self::Lingering(_) => Kind::Lingering,
            Self::Ending(_) => Kind::Ending,
        }
    }
}

impl<W: Clone> Entry<W> {
    pub(super) fn starting(reserved: Option<SessionId>, generation: Generation, now: Moment) -> Self {
        Self {
            phase: Phase::Starting,
            reserved: reserved.map(Box::new),
            counted: None,
            is_used: false,
            generation,
            started: now,
            ready: None,
            listing: Listing::None,
            probe: Probe::None,
            failures: 0,
        }
    }

    /// The session it has.
    pub(super) fn live(&self) -> Option<&Arc<Slot<W>>> {
        match &self.phase {
            Phase::Live(slot) => Some(slot),
            _ => None,
        }
    }

    /// The running worker, unless it is still starting.
    pub(super) fn handle(&self) -> Option<&W> {
        match &self.phase {
            Phase::Starting => None,
            Phase::Checking(handle) | Phase::Spare(handle) => Some(handle),
            Phase::Live(slot) => Some(&slot.worker),
            Phase::Lingering(ending) | Phase::Ending(ending) => Some(&ending.handle),
        }
    }
}

impl<W: Clone> State<W> {
    pub(super) fn count(&self, kind: Kind) -> usize {
        self.census[kind as usize]
    }

    pub(super) fn phase_mut(&mut self, worker: WorkerId) -> Option<&mut Phase<W>> {
        self.workers.get_mut(&worker).map(|entry| &mut entry.phase)
    }

    /// Lists a live session elsewhere. The one place where listings change.
    pub(super) fn list(&mut self, worker: WorkerId, listing: Listing) {
        let Some(entry) = self.workers.get_mut(&worker) else { return };
        let Some(slot) = entry.live() else { return };
        let whose = || slot.id().tenant().cloned();
        match entry.listing {
            Listing::None => {}
            Listing::Idle(at) => self.idle.remove(at, worker, &whose()),
            Listing::Silent(at) => self.silent.remove(at, worker),
        }
        match listing {
            Listing::None => {}
            Listing::Idle(at) => self.idle.add(at, worker, &whose()),
            Listing::Silent(at) => self.silent.add(at, worker),
        }
        entry.listing = listing;
    }

    /// Adds a worker that starts.
    pub(super) fn add(&mut self, worker: WorkerId, reserved: Option<SessionId>, now: Moment) {
        self.workers.insert(worker, Entry::starting(reserved, self.generation, now));
        self.census[Kind::Starting as usize] += 1;
    }

    /// Moves a worker into another phase, and hands out the old one. The one place where phases change.
    pub(super) fn enter(&mut self, worker: WorkerId, phase: Phase<W>) -> Option<Phase<W>> {
        let entry = self.workers.get_mut(&worker)?;
        let kind = phase.kind();
        let old = std::mem::replace(&mut entry.phase, phase);
        if old.kind() == Kind::Starting && entry.generation != self.generation {
            self.given_up -= 1;
        }
        self.census[old.kind() as usize] -= 1;
        self.census[kind as usize] += 1;
        if old.kind() == Kind::Spare {
            self.spares.remove(&worker);
        }
        if kind == Kind::Spare {
            self.spares.insert(worker);
        }
        Some(old)
    }

    /// Removes a worker.
    pub(super) fn take(&mut self, worker: WorkerId) -> Option<Entry<W>> {
        let entry = self.workers.remove(&worker)?;
        if entry.phase.kind() == Kind::Starting && entry.generation != self.generation {
            self.given_up -= 1;
        }
        self.census[entry.phase.kind() as usize] -= 1;
        self.spares.remove(&worker);
        Some(entry)
    }
}
