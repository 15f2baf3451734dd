//! Turns what the core knows into what callers see.

use std::time::SystemTime;

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
        let pending = self.inspect(|state| state.pending_sessions());
        let live = self.index.all();
        let live = live.iter().map(|slot| self.slot_info(slot, SessionState::Live));
        live.chain(pending.into_iter().map(|view| self.pending_info(view))).collect()
    }

    pub(crate) fn session(&self, id: &SessionId) -> Option<SessionInfo> {
        if let Some(slot) = self.index.find(id) {
            return Some(self.slot_info(&slot, SessionState::Live));
        }
        let view = self.inspect(|state| state.pending_session(id))?;
        Some(self.pending_info(view))
    }

    pub(crate) fn workers(&self) -> Vec<WorkerInfo<F::Worker>> {
        let mut workers = Vec::new();
        let mut next = WorkerId::new(0);
        loop {
            let page: Vec<_> = self.inspect(|state| state.workers_from(next).take(PAGE).collect());
            let Some(last) = page.last() else { return workers };
            next = WorkerId::new(last.id.number() + 1);
            workers.extend(page.into_iter().map(|view| self.worker_info(view)));
        }
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

    fn pending_info(&self, view: SessionView<WorkerOf<F>>) -> SessionInfo {
        match view {
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
