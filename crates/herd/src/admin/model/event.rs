use herd_pool::{EventKind, SessionId, Tenant, WorkerId};
use serde::Serialize;
use utoipa::ToSchema;

use super::{exact_millis, time};
use crate::journal;

/// Something that happened, with the fields that its kind has.
#[derive(Debug, Default, Serialize, ToSchema)]
pub(crate) struct Event {
    /// Counts the daemon's events, from 1 and without gaps.
    sequence: u64,
    #[schema(format = DateTime, example = "2026-01-31T12:00:00.000Z")]
    at: String,
    /// The pool in which it happened.
    #[schema(example = "default")]
    pool: String,
    /// `worker-starting`, `worker-ready`, `spawn-failed`, `worker-crashed`, `worker-unhealthy`, `worker-gone`,
    /// `session-started`, `session-ended`, `draining` or `shutting-down`; a later version may have further ones.
    #[schema(value_type = String, example = "session-started")]
    kind: &'static str,
    /// The session's ID.
    #[serde(skip_serializing_if = "Option::is_none")]
    session: Option<String>,
    /// With `session`: to whom it belongs; `null`: to nobody.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    tenant: Option<Option<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    worker: Option<String>,
    /// How long the worker's start took.
    #[serde(skip_serializing_if = "Option::is_none")]
    ready_after_ms: Option<f64>,
    /// Why the worker could not be started, or what its last health check found.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    /// How the worker ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    exit: Option<String>,
    /// Whether its memory limit ended it.
    #[serde(skip_serializing_if = "Option::is_none")]
    out_of_memory: Option<bool>,
    /// The worker's last lines on standard error, cut after 1,000 characters each; up to 8 KiB of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    stderr_tail: Option<Vec<String>>,
    /// The name of the reason for which the session ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    reason: Option<&'static str>,
    /// The same in words.
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<String>,
}

impl Event {
    pub(crate) fn new(event: &journal::Event) -> Self {
        let this = Self {
            sequence: event.sequence,
            at: time(event.at),
            pool: event.pool.to_string(),
            kind: event.kind.name(),
            ..Self::default()
        };
        match &event.kind {
            EventKind::WorkerStarting { worker } | EventKind::WorkerGone { worker } => this.worker(*worker),
            EventKind::WorkerUnhealthy { worker, finding } => {
                Self { error: Some(finding.to_string()), ..this.worker(*worker) }
            }
            EventKind::WorkerReady { worker, after } => {
                Self { ready_after_ms: Some(exact_millis(*after)), ..this.worker(*worker) }
            }
            EventKind::SpawnFailed { worker, error } => Self { error: Some(error.to_string()), ..this.worker(*worker) },
            EventKind::WorkerCrashed { worker, exit } => Self {
                exit: Some(exit.to_string()),
                out_of_memory: Some(exit.out_of_memory),
                stderr_tail: Some(exit.stderr_tail.to_vec()),
                ..this.worker(*worker)
            },
            EventKind::SessionStarted { session, worker } => this.session(session).worker(*worker),
            EventKind::SessionEnded { session, worker, reason } => Self {
                reason: Some(reason.name()),
                detail: Some(reason.to_string()),
                ..this.session(session).worker(*worker)
            },
            // Kinds without details, and those that a later pool may have.
            _ => this,
        }
    }

    pub(crate) fn to_json(&self) -> String {
        // Structures whose keys are text cannot fail.
        serde_json::to_string(self).unwrap_or_default()
    }

    fn worker(self, worker: WorkerId) -> Self {
        Self { worker: Some(worker.to_string()), ..self }
    }

    fn session(self, session: &SessionId) -> Self {
        let tenant = session.tenant().map(Tenant::to_string);
        Self { session: Some(session.to_string()), tenant: Some(tenant), ..self }
    }
}
