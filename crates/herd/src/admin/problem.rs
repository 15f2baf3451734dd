use std::time::Duration;

use axum::{
    http::{HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use utoipa::ToSchema;

/// What can be wrong with a request, or with the daemon at this moment.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Kind {
    AcquireTimeout,
    AmbiguousSession,
    BadBody,
    BadField,
    BadPath,
    BadQuery,
    BadToken,
    BodyTooLarge,
    BodyTooSlow,
    Draining,
    ForeignHost,
    ForeignOrigin,
    Internal,
    InvalidSessionId,
    InvalidTenant,
    InvalidWorkerId,
    MethodNotAllowed,
    NoLogYet,
    NoSuchPage,
    NoSuchPool,
    NoSuchSession,
    NoSuchWorker,
    NoTenants,
    NoToken,
    NotJson,
    NotReady,
    NotReloaded,
    QueueFull,
    SessionEnded,
    SessionRestarted,
    SpawnFailed,
    TenantLimit,
    TooManyBadTokens,
    TooManyReaders,
}

impl Kind {
    /// Its name, which programs go by, its status, and what it says to people.
    fn meaning(self) -> (&'static str, StatusCode, &'static str) {
        match self {
            Self::AcquireTimeout => {
                ("acquire-timeout", StatusCode::SERVICE_UNAVAILABLE, "No worker was to be had in time")
            }
            Self::AmbiguousSession => {
                ("ambiguous-session", StatusCode::CONFLICT, "Several pools or tenants have a session of that ID")
            }
            Self::BadBody => ("bad-body", StatusCode::BAD_REQUEST, "The body is not understood"),
            Self::BadField => ("bad-field", StatusCode::BAD_REQUEST, "A field of the request is not understood"),
            Self::BadPath => ("bad-path", StatusCode::BAD_REQUEST, "The path cannot be read"),
            Self::BadQuery => ("bad-query", StatusCode::BAD_REQUEST, "The query is not understood"),
            Self::BadToken => ("bad-token", StatusCode::UNAUTHORIZED, "That is not the token"),
            Self::BodyTooLarge => ("body-too-large", StatusCode::PAYLOAD_TOO_LARGE, "The body is too large"),
            Self::BodyTooSlow => ("body-too-slow", StatusCode::REQUEST_TIMEOUT, "The body did not come in time"),
            Self::Draining => ("draining", StatusCode::SERVICE_UNAVAILABLE, "No sessions are taken on any more"),
            Self::ForeignHost => ("foreign-host", StatusCode::FORBIDDEN, "The request names no host of this API"),
            Self::ForeignOrigin => {
                ("foreign-origin", StatusCode::FORBIDDEN, "The request comes from another site's page")
            }
            Self::Internal => ("internal", StatusCode::INTERNAL_SERVER_ERROR, "The daemon could not do it"),
            Self::InvalidSessionId => ("invalid-session-id", StatusCode::BAD_REQUEST, "That is no session ID"),
            Self::InvalidTenant => ("invalid-tenant", StatusCode::BAD_REQUEST, "That is no name of a tenant"),
            Self::InvalidWorkerId => ("invalid-worker-id", StatusCode::BAD_REQUEST, "That is no worker ID"),
            Self::MethodNotAllowed => {
                ("method-not-allowed", StatusCode::METHOD_NOT_ALLOWED, "This page does not take that method")
            }
            Self::NoLogYet => ("no-log-yet", StatusCode::CONFLICT, "The worker has no log yet"),
            Self::NoSuchPage => ("no-such-page", StatusCode::NOT_FOUND, "There is no such page"),
            Self::NoSuchPool => ("no-such-pool", StatusCode::NOT_FOUND, "There is no such pool"),
            Self::NoSuchSession => ("no-such-session", StatusCode::NOT_FOUND, "There is no such session"),
            Self::NoSuchWorker => ("no-such-worker", StatusCode::NOT_FOUND, "There is no such worker"),
            Self::NoTenants => ("no-tenants", StatusCode::CONFLICT, "The gateway admits nobody of a tenant"),
            Self::NoToken => ("no-token", StatusCode::UNAUTHORIZED, "This page asks for a token"),
            Self::NotJson => ("not-json", StatusCode::UNSUPPORTED_MEDIA_TYPE, "The body is not said to be JSON"),
            Self::NotReady => ("not-ready", StatusCode::SERVICE_UNAVAILABLE, "No pool can start a worker"),
            Self::NotReloaded => {
                ("not-reloaded", StatusCode::UNPROCESSABLE_ENTITY, "The configuration was not applied")
            }
            Self::QueueFull => ("queue-full", StatusCode::SERVICE_UNAVAILABLE, "Too many callers wait for a worker"),
            Self::SessionEnded => {
                ("session-ended", StatusCode::SERVICE_UNAVAILABLE, "The session was ended before it had a worker")
            }
            Self::SessionRestarted => {
                ("session-restarted", StatusCode::CONFLICT, "The session ended and was started anew meanwhile")
            }
            Self::SpawnFailed => ("spawn-failed", StatusCode::SERVICE_UNAVAILABLE, "The worker could not be started"),
            Self::TenantLimit => {
                ("tenant-limit", StatusCode::TOO_MANY_REQUESTS, "The tenant has as much as it may have")
            }
            Self::TooManyBadTokens => {
                ("too-many-bad-tokens", StatusCode::TOO_MANY_REQUESTS, "Too many wrong tokens came from this address")
            }
            Self::TooManyReaders => {
                ("too-many-readers", StatusCode::SERVICE_UNAVAILABLE, "Too many read this stream already")
            }
        }
    }
}

/// An error as the API answers it. It is large and rare, and so it is kept in a box.
#[derive(Clone, Debug)]
pub(super) struct Problem(Box<Document>);

/// A problem document, RFC 9457.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = Problem, example = json!({
    "type": "urn:herd:problem:no-such-session",
    "title": "There is no such session",
    "status": 404,
    "detail": "it never started, or it has ended; /v1/sessions lists those that live",
    "session": "alice"
}))]
pub(super) struct Document {
    /// What is wrong, for programs: `urn:herd:problem:NAME`.
    #[serde(rename = "type")]
    #[schema(pattern = "^urn:herd:problem:[a-z-]+$")]
    kind: String,
    /// The same for people.
    #[schema(value_type = String)]
    title: &'static str,
    /// The status of the response.
    status: u16,
    /// What exactly, and what to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<String>,
    /// The ID of the session that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    session: Option<String>,
    /// With `session-restarted`: the worker that it has now.
    #[serde(skip_serializing_if = "Option::is_none")]
    worker: Option<String>,
    /// With `ambiguous-session`: the sessions that have this ID.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    candidates: Vec<Candidate>,
    /// With `not-reloaded`: every mistake in the configuration, one a line.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    mistakes: Vec<String>,
    #[serde(skip)]
    field: Option<(HeaderName, HeaderValue)>,
}

/// A session that an ambiguous ID may mean.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(super) struct Candidate {
    pub(super) pool: String,
    /// `null`: it belongs to no tenant; ask for it with an empty `tenant=`.
    pub(super) tenant: Option<String>,
}

impl Problem {
    pub(super) fn new(kind: Kind) -> Self {
        let (name, status, title) = kind.meaning();
        Self(Box::new(Document {
            kind: format!("urn:herd:problem:{name}"),
            title,
            status: status.as_u16(),
            detail: None,
            session: None,
            worker: None,
            candidates: Vec::new(),
            mistakes: Vec::new(),
            field: None,
        }))
    }

    pub(super) fn detail(mut self, detail: impl Into<String>) -> Self {
        self.0.detail = Some(detail.into());
        self
    }

    pub(super) fn session(mut self, session: impl Into<String>) -> Self {
        self.0.session = Some(session.into());
        self
    }

    pub(super) fn worker(mut self, worker: impl Into<String>) -> Self {
        self.0.worker = Some(worker.into());
        self
    }

    pub(super) fn candidates(mut self, candidates: Vec<Candidate>) -> Self {
        self.0.candidates = candidates;
        self
    }

    pub(super) fn mistakes(mut self, mistakes: Vec<String>) -> Self {
        self.0.mistakes = mistakes;
        self
    }

    /// When it makes sense to try again; in whole seconds, at least one.
    pub(super) fn retry_after(mut self, delay: Duration) -> Self {
        let seconds = delay.as_secs() + u64::from(delay.subsec_nanos() > 0);
        self.0.field = Some((header::RETRY_AFTER, HeaderValue::from(seconds.max(1))));
        self
    }

    /// Which credentials the page takes, RFC 6750 §3.
    pub(super) fn challenge(mut self, challenge: &'static str) -> Self {
        self.0.field = Some((header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge)));
        self
    }
}

#[cfg(test)]
impl Problem {
    pub(super) fn to_json(&self) -> serde_json::Value {
        serde_json::to_value(&self.0).unwrap()
    }
}

impl IntoResponse for Problem {
    fn into_response(mut self) -> Response {
        let field = self.0.field.take();
        let status = StatusCode::from_u16(self.0.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let body = serde_json::to_vec(&self.0).unwrap_or_default();
        let mut response = (status, [(header::CONTENT_TYPE, "application/problem+json")], body).into_response();
        if let Some((name, value)) = field {
            response.headers_mut().insert(name, value);
        }
        response
    }
}
