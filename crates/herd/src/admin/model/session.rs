use herd_pool::{SessionInfo, Tenant};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{coming_time, time};
use crate::pools::NamedPool;

/// A session. Its pool, tenant and ID name it together.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
pub(crate) struct Session {
    /// The pool that its worker is of.
    #[schema(example = "default")]
    pub(crate) pool: String,
    /// To whom it belongs; `null`: to nobody.
    #[schema(required = true, example = "acme")]
    pub(crate) tenant: Option<String>,
    #[schema(example = "alice", min_length = 1, max_length = 256, pattern = "^[!-~]+$")]
    pub(crate) id: String,
    #[schema(value_type = SessionState)]
    pub(crate) state: String,
    /// The worker's ID; `null` while the session starts.
    #[schema(required = true, example = "worker-3")]
    pub(crate) worker: Option<String>,
    /// The worker's address, at which the gateway reaches it; `null` while the session starts.
    #[schema(required = true, example = "http://127.0.0.1:8080")]
    pub(crate) address: Option<String>,
    /// When it got its worker; while it starts, when the first caller began to wait.
    #[schema(format = DateTime, example = "2026-01-31T12:00:00.000Z")]
    pub(crate) created: String,
    /// When its last lease was given back; now, if it has one.
    #[schema(format = DateTime, example = "2026-01-31T12:00:00.000Z")]
    pub(crate) last_used: String,
    /// When it ends if nobody uses it any more; `null` unless it is live, and while it is in use.
    #[schema(required = true, format = DateTime, example = "2026-01-31T12:05:00.000Z")]
    pub(crate) idle_until: Option<String>,
    /// When it ends however much it is used; `null` unless it is live, and without such an end.
    #[schema(required = true, format = DateTime, example = "2026-01-31T20:00:00.000Z")]
    pub(crate) ends_by: Option<String>,
    /// Leases held now: requests and connections that are open.
    pub(crate) leases: u32,
    /// Leases given so far.
    pub(crate) requests: u64,
    /// Bytes from clients.
    pub(crate) bytes_in: u64,
    /// Bytes to clients.
    pub(crate) bytes_out: u64,
}

/// Where a session is in its life: callers wait for its worker, it has its worker, its worker is being closed.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum SessionState {
    Starting,
    Live,
    Ending,
}

/// A session that was ended.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
pub(crate) struct Ended {
    #[schema(example = "default")]
    pub(crate) pool: String,
    #[schema(required = true, example = "acme")]
    pub(crate) tenant: Option<String>,
    #[schema(example = "alice")]
    pub(crate) id: String,
    /// Why it ended: if it was ending already, that is the reason for which it was.
    #[schema(example = "released")]
    pub(crate) reason: String,
}

/// A session, and how to reach it.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Acquired {
    #[serde(flatten)]
    pub(crate) session: Session,
    pub(crate) gateway: GatewayAddress,
}

/// Where the gateway is, and how a request to it names this session.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct GatewayAddress {
    #[schema(example = "http://127.0.0.1:8080")]
    pub(crate) url: String,
    /// Where the gateway looks for session IDs, as it was configured.
    #[schema(example = "header:x-session-id")]
    pub(crate) session_key: String,
    pub(crate) name: SessionName,
    /// The routes that lead to the session's pool: a request has to fit one of them, and none before it that leads
    /// elsewhere.
    pub(crate) routes: Vec<RouteTo>,
    /// Whether requests that fit no route go to the session's pool.
    pub(crate) is_default: bool,
    /// What keeps requests from the session; `null`: nothing.
    #[schema(required = true)]
    pub(crate) warning: Option<String>,
}

/// A route, with what a request must have; `null` is whatever it likes.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct RouteTo {
    #[schema(required = true, example = "*.example.com")]
    pub(crate) host: Option<String>,
    #[schema(required = true, example = "/python")]
    pub(crate) path_prefix: Option<String>,
    /// `NAME` or `NAME=VALUE`.
    #[schema(required = true, example = "x-kind=python")]
    pub(crate) header: Option<String>,
}

/// The first place where the gateway looks for a session ID, and what to write there.
#[derive(Debug, Eq, PartialEq, Serialize, ToSchema)]
pub(crate) struct SessionName {
    /// `header`, `cookie`, `query`, `path` (as a segment) or `host` (as the first label).
    #[serde(rename = "in")]
    #[schema(example = "header")]
    pub(crate) place: String,
    /// The field's, cookie's or parameter's name, or the number of the segment, counted from 1; `null` with `host`.
    #[schema(required = true, example = "x-session-id")]
    pub(crate) name: Option<String>,
    /// The session ID, percent-encoded where it stands in a query or path.
    #[schema(example = "alice")]
    pub(crate) value: String,
}

impl SessionState {
    pub(crate) fn fits(self, state: herd_pool::SessionState) -> bool {
        match self {
            Self::Starting => state == herd_pool::SessionState::Starting,
            Self::Live => state == herd_pool::SessionState::Live,
            Self::Ending => state == herd_pool::SessionState::Ending,
        }
    }
}

impl Session {
    pub(crate) fn new(pool: &NamedPool, info: &SessionInfo) -> Self {
        Self {
            pool: pool.name.to_string(),
            tenant: info.id.tenant().map(Tenant::to_string),
            id: info.id.to_string(),
            state: info.state.name().to_owned(),
            worker: info.worker.map(|id| id.to_string()),
            address: info.address.clone(),
            created: time(info.created),
            last_used: time(info.last_used),
            idle_until: info.idle_until.and_then(coming_time),
            ends_by: info.ends_by.and_then(coming_time),
            leases: info.leases,
            requests: info.requests,
            bytes_in: info.bytes_in,
            bytes_out: info.bytes_out,
        }
    }
}
