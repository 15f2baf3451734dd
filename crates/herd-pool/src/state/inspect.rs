//! What the state tells about itself.

use super::{Phase, State, entry::Kind};
#[cfg(test)]
use crate::tenant::Whose;
use crate::{SessionId, Stats, WorkerId, WorkerState, clock::Moment, slot::Slot, sync::Arc};

/// A worker, as the state knows it.
pub(crate) struct WorkerView<W> {
    pub(crate) id: WorkerId,
    pub(crate) state: WorkerState,
    pub(crate) session: Option<SessionId>,
    pub(crate) started: Moment,
    pub(crate) ready: Option<Moment>,
    pub(crate) handle: Option<W>,
}

/// What tests look at.
#[cfg(test)]
#[derive(Debug)]
pub(crate) struct Audit {
    pub(crate) running: bool,
    /// Workers, as counted by phase.
    pub(crate) counted: usize,
    /// Sessions that stand in line.
    pub(crate) in_line: usize,
    /// Spares that are not being checked.
    pub(crate) spares: usize,
    /// Whether a start waits for the back-off.
    pub(crate) held_back: bool,
    /// Sessions whose last start failed, and until when they are not tried again.
    pub(crate) set_back: Vec<(Moment, SessionId)>,
}

/// A session, as the state or the index knows it.
pub(crate) enum SessionView<W> {
    Starting { id: SessionId, since: Moment },
    Live(Arc<Slot<W>>),
    Ending(Arc<Slot<W>>),
}

impl<W> SessionView<W> {
    pub(crate) fn id(&self) -> &SessionId {
        match self {
            Self::Starting { id, .. } => id,
            Self::Live(slot) | Self::Ending(slot) => slot.id(),
        }
    }
}

impl<W: Clone> State<W> {
    /// The numbers, without the hits that never came to the state.
    pub(crate) fn stats(&self) -> Stats {
        Stats {
            workers: self.workers.len(),
            workers_starting: self.count(Kind::Starting),
            workers_spare: self.count(Kind::Spare) + self.count(Kind::Checking),
            workers_in_session: self.count(Kind::Live),
            workers_ending: self.count(Kind::Lingering) + self.count(Kind::Ending),
            sessions: self.count(Kind::Live),
            waiting: self.queue.waiting(),
            ..self.counters
        }
    }

    /// What tests look at.
    #[cfg(test)]
    pub(crate) fn audit(&self) -> Audit {
        Audit {
            running: self.running(),
            counted: self.census.iter().sum(),
            in_line: self.queue.in_line(),
            spares: self.count(Kind::Spare),
            held_back: self.held_back,
            set_back: self.setbacks.held().map(|(at, session)| (at, session.clone())).collect(),
        }
    }

    /// How many live sessions the tenant has, for what is evicted.
    #[cfg(test)]
    pub(crate) fn live_of(&self, whose: &Whose) -> usize {
        self.idle.live(whose)
    }

    /// Whether all is over.
    pub(crate) fn is_finished(&self) -> bool {
        !self.running() && self.workers.is_empty()
    }

    pub(crate) fn worker(&self, id: WorkerId) -> Option<WorkerView<W>> {
        self.workers_from(id).next().filter(|view| view.id == id)
    }

    /// Workers in order of their IDs, from the given one on.
    pub(crate) fn workers_from(&self, first: WorkerId) -> impl Iterator<Item = WorkerView<W>> {
        self.workers.range(first..).map(|(&id, entry)| {
            let (state, slot) = match &entry.phase {
                Phase::Starting => (WorkerState::Starting, None),
                Phase::Checking(_) | Phase::Spare(_) => (WorkerState::Spare, None),
                Phase::Live(slot) => (WorkerState::InSession, Some(slot)),
                Phase::Lingering(ending) | Phase::Ending(ending) => (WorkerState::Ending, ending.slot.as_ref()),
            };
            let session = slot.map(|slot| slot.id().clone());
            let handle = entry.handle().cloned();
            WorkerView { id, state, session, started: entry.started, ready: entry.ready, handle }
        })
    }

    /// The session if it is starting or ending. One whose former worker is ending and that is waited for again is
    /// shown as ending.
    pub(crate) fn pending_session(&self, id: &SessionId) -> Option<SessionView<W>> {
        if let Some(ending) = self.endings.get(id).and_then(|worker| self.ending(*worker)) {
            return Some(ending);
        }
        let since = self.queue.since(id)?;
        Some(SessionView::Starting { id: id.clone(), since })
    }

    /// The sessions that are starting or ending, and whose ID `fits`.
    pub(crate) fn pending_sessions(&self, fits: impl Fn(&SessionId) -> bool) -> Vec<SessionView<W>> {
        let endings = self.endings.iter().filter(|(id, _)| fits(id));
        let ending = endings.filter_map(|(_, worker)| self.ending(*worker));
        let starting = self
            .queue
            .sessions()
            .filter(|(id, _)| fits(id))
            .filter(|(id, _)| self.endings.get(id).is_none_or(|worker| self.ending(*worker).is_none()))
            .map(|(id, since)| SessionView::Starting { id: id.clone(), since });
        ending.chain(starting).collect()
    }

    fn ending(&self, worker: WorkerId) -> Option<SessionView<W>> {
        match &self.workers.get(&worker)?.phase {
            Phase::Lingering(ending) | Phase::Ending(ending) => {
                ending.slot.as_ref().map(|slot| SessionView::Ending(Arc::clone(slot)))
            }
            _ => None,
        }
    }
}
