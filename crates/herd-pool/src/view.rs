//! Turns what the core knows into what callers see.

use std::{cmp::Ordering, collections::BinaryHeap, time::SystemTime};

use crate::{
    SessionId, SessionInfo, SessionState, Worker, WorkerFactory, WorkerId, WorkerInfo,
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
        mut fits: impl FnMut(&SessionInfo) -> bool,
    ) -> Vec<SessionInfo> {
        let is_after = |id: &SessionId| after.is_none_or(|after| id > after);
        let mut page: Vec<SessionInfo> = Vec::new();
        let mut found = BinaryHeap::from(self.find(is_after));
        let mut last: Option<SessionId> = None;
        while page.len() < limit
            && let Some(Found { view, .. }) = found.pop()
        {
            if last.as_ref() == Some(view.id()) {
                continue;
            }
            last = Some(view.id().clone());
            let info = self.session_info(view);
            if fits(&info) {
                page.push(info);
            }
        }
        page
    }

    pub(crate) fn session_candidates(&self, text: &str) -> Vec<SessionInfo> {
        let mut found = self.find(|id| id.as_str() == text);
        found.sort_by(|one, other| other.cmp(one));
        found.dedup_by(|later, earlier| later.view.id() == earlier.view.id());
        found.into_iter().map(|found| self.session_info(found.view)).collect()
    }

    /// Sessions with IDs of which `fits` holds. One that changes its state meanwhile may be there several times, but
    /// never not at all.
    fn find(&self, fits: impl Fn(&SessionId) -> bool) -> Vec<Found<WorkerOf<F>>> {
        let pending = |rank| {
            let found = self.inspect(|state| state.pending_sessions(&fits));
            found.into_iter().map(move |view| Found { view, rank })
        };
        let mut found: Vec<_> = pending(0).collect();
        // A session starts, lives, ends, and may start again: whoever was pending before may be live by now, and
        // whoever is live no more is pending afterwards.
        let live = self.index.all(|slot| fits(slot.id()));
        found.extend(live.into_iter().map(|slot| Found { view: SessionView::Live(slot), rank: 1 }));
        found.extend(pending(2));
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
        SessionInfo {
            id: slot.id().clone(),
            state,
            worker: Some(slot.worker_id),
            address: Some(slot.worker.address().to_owned()),
            created: self.clock.system_time(slot.created),
            last_used: if leases > 0 { SystemTime::now() } else { self.clock.system_time(slot.used()) },
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

/// A session that was found, and how late: of what was found of one session the latest counts.
struct Found<W> {
    view: SessionView<W>,
    rank: u8,
}

/// The greatest is the one whose ID comes first.
impl<W> Ord for Found<W> {
    fn cmp(&self, other: &Self) -> Ordering {
        other.view.id().cmp(self.view.id()).then_with(|| self.rank.cmp(&other.rank))
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
