//! Turns what the core knows into what callers see.

use std::{
    cmp::Ordering,
    collections::{BinaryHeap, HashMap},
    time::SystemTime,
};

use crate::{
    SessionId, SessionInfo, SessionOutline, SessionState, Worker, WorkerFactory, WorkerId, WorkerInfo,
    shared::{Shared, WorkerOf},
    slot::Slot,
    state::{SessionView, WorkerView},
};

/// How many workers are copied under one hold of the core's lock.
const PAGE: usize = 1024;

impl<F: WorkerFactory> Shared<F> {
    pub(crate) fn sessions(&self) -> Vec<SessionInfo> {
        let pending = self.inspect(|state| state.pending_sessions(|_| true));
        let live = self.index.all(|_| true);
        let live = live.iter().map(|slot| self.slot_info(slot, SessionState::Live));
        live.chain(pending.into_iter().map(|view| self.session_info(view))).collect()
    }

    pub(crate) fn sessions_after(
        &self,
        after: Option<&SessionId>,
        limit: usize,
        mut fits: impl FnMut(&SessionOutline<'_>) -> bool,
    ) -> Vec<SessionInfo> {
        let is_after = |id: &SessionId| after.is_none_or(|after| id > after);
        let mut found = self.find(is_after);
        // First, so that only those that fit are put in order, and only the page is told at length.
        found.retain(|found| fits(&outline(&found.view)));
        let mut found = BinaryHeap::from(found);
        let page = std::iter::from_fn(|| found.pop()).take(limit);
        page.map(|found| self.session_info(found.view)).collect()
    }

    pub(crate) fn session_candidates(&self, text: &str) -> Vec<SessionInfo> {
        let mut found = self.find(|id| id.as_str() == text);
        found.sort_by(|one, other| other.cmp(one));
        found.into_iter().map(|found| self.session_info(found.view)).collect()
    }

    /// Sessions with IDs of which `fits` holds, each once.
    fn find(&self, fits: impl Fn(&SessionId) -> bool) -> Vec<Found<WorkerOf<F>>> {
        let pending = |rank| {
            let found = self.inspect(|state| state.pending_sessions(&fits));
            found.into_iter().map(move |view| Found { view, rank })
        };
        let mut found: Vec<_> = pending(Rank::Before).collect();
        // A session starts, lives, ends, and may start again: whoever was pending before may be live by now, and
        // whoever is live no more is pending afterwards. So one that changes its state may be found several times, but
        // never not at all.
        let live = self.index.all(|slot| fits(slot.id()));
        found.extend(live.into_iter().map(|slot| Found { view: SessionView::Live(slot), rank: Rank::Live }));
        found.extend(pending(Rank::After));
        keep_latest(&mut found);
        found
    }

    pub(crate) fn session(&self, id: &SessionId) -> Option<SessionInfo> {
        if let Some(slot) = self.index.find(id) {
            return Some(self.slot_info(&slot, SessionState::Live));
        }
        let view = self.inspect(|state| state.pending_session(id))?;
        Some(self.session_info(view))
    }

    pub(crate) fn workers_after(
        &self,
        after: Option<WorkerId>,
        limit: usize,
        mut fits: impl FnMut(&WorkerInfo<F::Worker>) -> bool,
    ) -> Vec<WorkerInfo<F::Worker>> {
        let mut workers = Vec::new();
        let mut next = after.map_or(Some(0), |after| after.number().checked_add(1));
        while let Some(first) = next.map(WorkerId::new)
            && workers.len() < limit
        {
            // If few of them fit, small pages would take the lock again and again.
            let size = (limit - workers.len()).clamp(PAGE / 8, PAGE);
            let page: Vec<_> = self.inspect(|state| state.workers_from(first).take(size).collect());
            let Some(last) = page.last() else { break };
            next = last.id.number().checked_add(1);
            let page = page.into_iter().map(|view| self.worker_info(view)).filter(&mut fits);
            workers.extend(page.take(limit - workers.len()));
        }
        workers
    }

    pub(crate) fn worker(&self, id: WorkerId) -> Option<WorkerInfo<F::Worker>> {
        let view = self.inspect(|state| state.worker(id))?;
        Some(self.worker_info(view))
    }

    fn slot_info(&self, slot: &Slot<WorkerOf<F>>, state: SessionState) -> SessionInfo {
        let seen = slot.gate().read();
        let (bytes_in, bytes_out) = slot.bytes();
        let leases = u32::try_from(seen.leases()).unwrap_or(u32::MAX);
        let is_live = state == SessionState::Live;
        let may_idle = is_live && !(slot.leases_count() && leases > 0);
        SessionInfo {
            id: slot.id().clone(),
            state,
            worker: Some(slot.worker_id),
            address: Some(slot.worker.address().to_owned()),
            created: self.clock.system_time(slot.created),
            last_used: if leases > 0 { SystemTime::now() } else { self.clock.system_time(slot.used()) },
            idle_until: Some(slot.idle_at()).filter(|_| may_idle).and_then(|at| self.clock.coming_time(at)),
            ends_by: slot.lifetime_ends().filter(|_| is_live).and_then(|at| self.clock.coming_time(at)),
            leases,
            requests: seen.requests(),
            bytes_in,
            bytes_out,
        }
    }

    fn session_info(&self, view: SessionView<WorkerOf<F>>) -> SessionInfo {
        match view {
            SessionView::Live(slot) => self.slot_info(&slot, SessionState::Live),
            SessionView::Ending(slot) => self.slot_info(&slot, SessionState::Ending),
            SessionView::Starting { id, since } => {
                let created = self.clock.system_time(since);
                SessionInfo {
                    id,
                    state: SessionState::Starting,
                    worker: None,
                    address: None,
                    created,
                    last_used: created,
                    idle_until: None,
                    ends_by: None,
                    leases: 0,
                    requests: 0,
                    bytes_in: 0,
                    bytes_out: 0,
                }
            }
        }
    }

    fn worker_info(&self, view: WorkerView<WorkerOf<F>>) -> WorkerInfo<F::Worker> {
        let WorkerView { id, state, session, started, ready, handle } = view;
        WorkerInfo {
            id,
            state,
            session,
            started: self.clock.system_time(started),
            ready_after: ready.map(|ready| ready.since(started)),
            worker: handle,
        }
    }
}

fn outline<W>(view: &SessionView<W>) -> SessionOutline<'_> {
    let (state, worker) = match view {
        SessionView::Starting { .. } => (SessionState::Starting, None),
        SessionView::Live(slot) => (SessionState::Live, Some(slot.worker_id)),
        SessionView::Ending(slot) => (SessionState::Ending, Some(slot.worker_id)),
    };
    SessionOutline { id: view.id(), state, worker }
}

/// A session that was found, and when.
struct Found<W> {
    view: SessionView<W>,
    rank: Rank,
}

/// When a session was found: among the pending ones before the live ones were looked at, among those, or afterwards.
#[derive(Clone, Copy, Eq, Ord, PartialEq, PartialOrd)]
enum Rank {
    Before,
    Live,
    After,
}

/// Of what was found of one session the latest counts.
#[expect(clippy::mutable_key_type, reason = "what changes in a tenant is neither hashed nor compared")]
fn keep_latest<W>(found: &mut Vec<Found<W>>) {
    let pending = found.iter().filter(|found| found.rank != Rank::Live);
    // A later one takes the place of an earlier one. Live sessions are different ones, and mostly many.
    let mut latest: HashMap<_, _> = pending.map(|found| (found.view.id().clone(), found.rank)).collect();
    if latest.is_empty() {
        return;
    }
    for live in found.iter().filter(|found| found.rank == Rank::Live) {
        if let Some(rank) = latest.get_mut(live.view.id()) {
            *rank = Rank::Live.max(*rank);
        }
    }
    found.retain(|found| latest.get(found.view.id()).is_none_or(|rank| found.rank == *rank));
}

/// The greatest is the one whose ID comes first.
impl<W> Ord for Found<W> {
    fn cmp(&self, other: &Self) -> Ordering {
        other.view.id().cmp(self.view.id())
    }
}

impl<W> PartialOrd for Found<W> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<W> PartialEq for Found<W> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl<W> Eq for Found<W> {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Moment;

    #[test]
    fn of_what_was_found_of_a_session_the_latest_counts() {
        let one = |id: &str, rank| {
            let id = SessionId::new(id).unwrap();
            Found::<()> { view: SessionView::Starting { id, since: Moment::default() }, rank }
        };
        let mut found = vec![
            one("started", Rank::Before),
            one("waits", Rank::Before),
            one("ended", Rank::Before),
            one("started", Rank::Live),
            one("ended", Rank::Live),
            one("lives", Rank::Live),
            one("waits", Rank::After),
            one("ended", Rank::After),
        ];
        keep_latest(&mut found);
        let kept: Vec<_> = found.iter().map(|found| (found.view.id().as_str(), found.rank)).collect();
        let expected = [("started", Rank::Live), ("lives", Rank::Live), ("waits", Rank::After), ("ended", Rank::After)];
        assert!(kept == expected);
    }
}
