use std::{sync::Arc, time::Instant};

use herd_pool::{Tenant, WorkerFactory};
use hyper::{StatusCode, header::HeaderValue};
use tracing::Level;

use crate::{
    Admission,
    latency::Phase,
    setup::Seat,
    trace::{Trace, TraceEnd},
};

/// What one request takes, by phase. The clock is read only where something may have been waited for.
pub(crate) struct Account<F: WorkerFactory> {
    begun: Instant,
    /// When the current phase began.
    since: Instant,
    phase: Phase,
    /// Time has passed since the last phase began.
    lingers: bool,
    seat: Option<Arc<Seat<F>>>,
    trace: Option<Box<dyn Trace>>,
    status: Option<StatusCode>,
    session_is_new: Option<bool>,
    /// Who sent it, if the log wants to know.
    pub(crate) caller: Option<Caller>,
}

/// Who was let in.
#[derive(Debug)]
pub(crate) struct Caller {
    pub(crate) name: Option<Arc<str>>,
    pub(crate) tenant: Option<Tenant>,
}

impl<F: WorkerFactory> Account<F> {
    pub(crate) fn begin() -> Self {
        let now = Instant::now();
        Self {
            begun: now,
            since: now,
            phase: Phase::Admit,
            lingers: false,
            seat: None,
            trace: None,
            status: None,
            session_is_new: None,
            caller: None,
        }
    }

    pub(crate) fn follow(&mut self, trace: Option<Box<dyn Trace>>) {
        self.trace = trace;
    }

    /// The caller was let in.
    pub(crate) fn admitted(&mut self, admission: &Admission) {
        if !tracing::enabled!(Level::DEBUG) {
            return;
        }
        let (name, tenant) = (admission.caller.clone(), admission.tenant.clone());
        tracing::trace!(caller = name.as_deref(), tenant = tenant.as_ref().map(Tenant::name), "a caller was let in");
        self.caller = Some(Caller { name, tenant });
    }

    /// The request goes to this pool.
    pub(crate) fn seated(&mut self, seat: Arc<Seat<F>>) {
        self.seat = Some(seat);
    }

    /// The path for the worker, which names no session.
    pub(crate) fn tell_path(&mut self, path: &str) {
        if let Some(trace) = &mut self.trace {
            trace.path(path);
        }
    }

    /// The `traceparent` for the worker, if the request is followed.
    pub(crate) fn traceparent(&self) -> Option<HeaderValue> {
        self.trace.as_ref().map(|trace| trace.traceparent())
    }

    /// The current phase is over.
    pub(crate) fn enter(&mut self, phase: Phase) {
        self.end_phase();
        self.begin_phase(phase);
    }

    /// The current phase is over, and took no time: nothing had to be waited for.
    pub(crate) fn pass(&mut self, phase: Phase) {
        if let Some(seat) = &self.seat {
            seat.record.phase(self.phase).record_none();
        }
        self.begin_phase(phase);
    }

    /// The head of the worker's response is there.
    pub(crate) fn answered(&mut self, session_is_new: bool) {
        self.session_is_new = Some(session_is_new);
        self.enter(Phase::Relay);
        if let Some(seat) = &self.seat {
            seat.record.first_byte.record(self.since - self.begun);
        }
    }

    /// The client is about to get a response with this status.
    pub(crate) fn respond(&mut self, status: StatusCode) {
        // A worker's answer has begun the last phase already; what the gateway says itself begins it now.
        if self.phase != Phase::Relay {
            self.enter(Phase::Relay);
        }
        self.status = Some(status);
        if let Some(seat) = &self.seat {
            seat.record.responded(status);
        }
    }

    /// Not all of the response was there together with its head.
    pub(crate) fn linger(&mut self) {
        self.lingers = true;
    }

    fn begin_phase(&mut self, phase: Phase) {
        self.phase = phase;
        if let Some(trace) = &mut self.trace {
            trace.phase(phase.name());
        }
    }

    fn end_phase(&mut self) {
        let now = Instant::now();
        if let Some(seat) = &self.seat {
            seat.record.phase(self.phase).record(now - self.since);
        }
        self.since = now;
    }
}

impl<F: WorkerFactory> Drop for Account<F> {
    fn drop(&mut self) {
        // Without a status, the client went away before there was an answer.
        let Some(status) = self.status else { return };
        if self.lingers {
            self.end_phase();
        } else if let Some(seat) = &self.seat {
            seat.record.phase(Phase::Relay).record_none();
        }
        if let Some(seat) = &self.seat {
            seat.record.request.record(self.since - self.begun);
        }
        if let Some(trace) = self.trace.take() {
            let pool = self.seat.as_ref().map(|seat| &*seat.name);
            trace.end(&TraceEnd { status, pool, session_is_new: self.session_is_new });
        }
    }
}
