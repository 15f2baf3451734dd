use std::{error::Error, fmt::Write, io, time::Duration};

use herd_pool::{AcquireError, EndReason, SessionId};
use hyper::{
    Response, StatusCode,
    header::{CONNECTION, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE},
};

use crate::{Refusal, SessionKey, failure_kind::FailureKind, session_key::KeyError, wish::Wish};

/// Names the kind of a failure, so that programs need not read the `detail`.
pub(crate) const HERD_ERROR: HeaderName = HeaderName::from_static("herd-error");

/// Which credentials the gateway knows.
const CHALLENGE: &str = "Bearer realm=\"herd\"";

/// Why a request got no answer from a worker.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The request can be read in more than one way, or not at all.
    #[error("{0}")]
    Malformed(&'static str),
    /// The request is not let in.
    #[error(transparent)]
    Access(#[from] Refusal),
    #[error("these credentials are for another session")]
    ForbiddenSession,
    #[error("this page tells of all tenants, and these credentials are one tenant's")]
    ForbiddenPage,
    #[error("this gateway ends no sessions: they are started and ended elsewhere")]
    ForbiddenEnd,
    #[error("no pool serves this host and path")]
    NoRoute,
    /// The request is well-formed, but the gateway cannot do this.
    #[error("{0}")]
    Unsupported(&'static str),
    #[error("the request names no session; it has to, in {0}")]
    NoKey(SessionKey),
    #[error(transparent)]
    Key(#[from] KeyError),
    /// What the request wants of its session cannot be read.
    #[error("the request's field herd-session is not understood: {0}")]
    Wish(&'static str),
    #[error("there is no such session, and {}", .0.not_found())]
    NoSession(Wish),
    #[error(transparent)]
    Acquire(#[from] AcquireError),
    /// The session ended while the request was with its worker.
    #[error("the session ended while its worker answered: {0}")]
    Ended(EndReason),
    #[error("the worker could not be reached")]
    Connect(#[source] io::Error),
    /// The worker closed the connection or sent what is not HTTP.
    #[error("the worker gave no proper answer: {0}")]
    Answer(&'static str),
    #[error("the worker did not answer within {0:?}")]
    TimedOut(Duration),
    #[error("the client's request body broke off")]
    ClientBody,
    #[error("no random bytes for a session ID are to be had")]
    Random,
}

impl Failure {
    /// What it is called in `herd-error`, `type` and metrics.
    pub(crate) fn kind(&self) -> FailureKind {
        match self {
            Self::Malformed(_) | Self::ClientBody | Self::Wish(_) => FailureKind::BadRequest,
            Self::Access(Refusal::TooManyRequests { .. }) => FailureKind::TooManyRequests,
            Self::Access(_) => FailureKind::Unauthorized,
            Self::ForbiddenSession => FailureKind::ForbiddenSession,
            Self::ForbiddenPage => FailureKind::ForbiddenPage,
            Self::ForbiddenEnd => FailureKind::ForbiddenEnd,
            Self::NoRoute => FailureKind::NoRoute,
            Self::Unsupported(_) => FailureKind::NotImplemented,
            Self::NoKey(_) => FailureKind::NoSessionId,
            Self::Key(_) => FailureKind::InvalidSessionId,
            Self::NoSession(_) => FailureKind::NoSuchSession,
            Self::Acquire(error) => match error {
                AcquireError::QueueFull { .. } => FailureKind::QueueFull,
                AcquireError::TenantSessions { .. } => FailureKind::TenantSessions,
                AcquireError::TenantWaiting { .. } => FailureKind::TenantWaiting,
                AcquireError::TimedOut { .. } => FailureKind::AcquireTimeout,
                AcquireError::Spawn(_) => FailureKind::SpawnFailed,
                AcquireError::Draining => FailureKind::Draining,
                AcquireError::ShutDown => FailureKind::Shutdown,
                AcquireError::Ended(_) => FailureKind::SessionEnded,
                _ => FailureKind::NoWorker,
            },
            Self::Ended(reason) if reason.is_failure() => FailureKind::WorkerCrashed,
            Self::Ended(_) => FailureKind::SessionEnded,
            Self::Connect(_) => FailureKind::WorkerUnreachable,
            Self::Answer(_) => FailureKind::BadGateway,
            Self::TimedOut(_) => FailureKind::WorkerTimeout,
            Self::Random => FailureKind::Internal,
        }
    }

    /// Whether it is about who the caller is, and not about what they ask for.
    pub(crate) fn refuses(&self) -> bool {
        matches!(
            self,
            Self::Access(_)
                | Self::ForbiddenSession
                | Self::ForbiddenPage
                | Self::Acquire(AcquireError::TenantSessions { .. } | AcquireError::TenantWaiting { .. })
        )
    }

    /// Who is refused, as far as only the refusal tells.
    pub(crate) fn caller(&self) -> Option<&str> {
        match self {
            Self::Access(Refusal::TooManyRequests { caller, .. }) => caller.as_deref(),
            _ => None,
        }
    }

    fn status(&self) -> StatusCode {
        match self {
            Self::Malformed(_) | Self::ClientBody | Self::Wish(_) | Self::NoKey(_) | Self::Key(_) => {
                StatusCode::BAD_REQUEST
            }
            Self::Unsupported(_) => StatusCode::NOT_IMPLEMENTED,
            Self::Access(Refusal::TooManyRequests { .. })
            | Self::Acquire(AcquireError::TenantSessions { .. } | AcquireError::TenantWaiting { .. }) => {
                StatusCode::TOO_MANY_REQUESTS
            }
            Self::Access(_) => StatusCode::UNAUTHORIZED,
            Self::ForbiddenSession | Self::ForbiddenPage | Self::ForbiddenEnd => StatusCode::FORBIDDEN,
            Self::NoSession(_) | Self::NoRoute => StatusCode::NOT_FOUND,
            Self::Acquire(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Ended(_) | Self::Connect(_) | Self::Answer(_) => StatusCode::BAD_GATEWAY,
            Self::TimedOut(_) => StatusCode::GATEWAY_TIMEOUT,
            Self::Random => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// Whether the client's connection must not be used again: nobody can tell where its next request begins, or it is
    /// time to go elsewhere.
    fn closes(&self) -> bool {
        matches!(
            self,
            Self::Malformed(_) | Self::ClientBody | Self::Acquire(AcquireError::Draining | AcquireError::ShutDown)
        )
    }

    fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Access(Refusal::TooManyRequests { retry_after, .. }) => Some(*retry_after),
            // A pool that shuts down says nothing about when the next one is there.
            Self::Acquire(error) => Some(error.retry_after().unwrap_or(Duration::from_secs(5))),
            _ => None,
        }
    }

    /// What a client without good credentials is asked for (RFC 6750 §3).
    fn challenge(&self) -> Option<HeaderValue> {
        let error = match self {
            // Who has shown nothing is told nothing more (§3.1).
            Self::Access(Refusal::NoCredentials) => return Some(HeaderValue::from_static(CHALLENGE)),
            Self::Access(Refusal::TooManyRequests { .. }) => return None,
            Self::Access(refusal) => refusal.to_string(),
            _ => return None,
        };
        // Quotes and what is not ASCII may not stand there; `detail` has it all.
        let error: String =
            error.chars().filter(|char| matches!(char, ' '..='~') && !matches!(char, '"' | '\\')).collect();
        let challenge = format!("{CHALLENGE}, error=\"invalid_token\", error_description=\"{error}\"");
        Some(HeaderValue::try_from(challenge).expect("visible ASCII makes a field value"))
    }

    /// The error and its causes in one sentence.
    fn detail(&self) -> String {
        let mut detail = self.to_string();
        let mut cause = self.source();
        while let Some(error) = cause {
            // An error that shows its cause's text as its own is not told twice.
            let text = error.to_string();
            if !detail.ends_with(&text) {
                let _ = write!(detail, ": {text}");
            }
            cause = error.source();
        }
        detail
    }

    /// The answer that tells the client about it (RFC 9457).
    pub(crate) fn into_response(self, session: Option<&SessionId>) -> Response<String> {
        let mut response = problem(self.status(), self.kind(), &self.detail(), session);
        let headers = response.headers_mut();
        if let Some(delay) = self.retry_after() {
            let seconds = delay.as_secs().saturating_add(u64::from(delay.subsec_nanos() > 0));
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds.max(1)));
        }
        if let Some(challenge) = self.challenge() {
            headers.insert(WWW_AUTHENTICATE, challenge);
        }
        if self.closes() {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}

/// A response with a problem document. JSON escapes whatever a hostile peer put into the texts.
pub(crate) fn problem(
    status: StatusCode,
    kind: FailureKind,
    detail: &str,
    session: Option<&SessionId>,
) -> Response<String> {
    let name = kind.name();
    let mut document = serde_json::json!({
        "type": format!("urn:herd:problem:{name}"),
        "title": status.canonical_reason().unwrap_or("Error"),
        "status": status.as_u16(),
        "detail": detail,
    });
    if let Some(session) = session {
        document["session"] = session.as_str().into();
    }
    let mut response = Response::new(document.to_string());
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    response.headers_mut().insert(HERD_ERROR, HeaderValue::from_static(name));
    response
}
