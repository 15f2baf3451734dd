use std::{fmt, sync::Arc, time::Duration};

use crate::{Access, SessionKey, Tracer};

/// How a [`Gateway`](crate::Gateway) behaves. All fields have defaults:
///
/// ```
/// use herd_gateway::GatewayOptions;
///
/// let options = GatewayOptions { session_key: "cookie:session".parse().unwrap(), ..GatewayOptions::default() };
/// assert_eq!(options.max_connections, 10_000);
/// ```
///
/// Those that concern clients' connections stay as they were when the gateway was made, whatever
/// [`Gateway::configure`](crate::Gateway::configure) is given: `max_header_bytes`, `header_timeout`, `idle_timeout`,
/// `body_idle_timeout`, `max_connections` and `max_concurrent_streams`.
#[derive(Clone, Debug)]
pub struct GatewayOptions {
    /// Who may use the gateway. The default is that nobody is asked.
    pub access: Option<Arc<dyn Access>>,
    /// Where requests say which session they belong to. The default is the field `X-Session-ID`.
    pub session_key: SessionKey,
    /// Whether requests for unknown sessions start them. The default is that they do.
    pub sessions: Sessions,
    /// What becomes of `x-forwarded-*` fields that clients send. The default is that they are replaced.
    pub forwarded: Forwarded,
    /// A page of metrics for requests that name no session, and that `access` lets in. The default is that there is none.
    pub metrics: Option<MetricsPage>,
    /// Who follows requests through the gateway. The default is that nobody does.
    pub tracer: Option<Arc<dyn Tracer>>,
    /// The longest request head in bytes; a longer one is answered with 431. The default is 32 KiB, the least 8 KiB.
    pub max_header_bytes: usize,
    /// How long a client may take for a request head, counted from its first byte. The default is 10 s.
    pub header_timeout: Duration,
    /// How long a client's connection may wait for its next request. The default is 75 s.
    pub idle_timeout: Duration,
    /// How long one side of a body may stand still: a client that sends nothing of the rest of its request, or takes
    /// nothing of its response. Only HTTP/1.1 connections are watched. The default is without a bound.
    pub body_idle_timeout: Option<Duration>,
    /// How many client connections there may be at once, over all serving threads; more wait to be accepted. The
    /// default is 10,000.
    pub max_connections: usize,
    /// How many requests one HTTP/2 connection may have open at once. The default is 200.
    pub max_concurrent_streams: u32,
    /// How long connecting to a worker may take. The default is 5 s.
    pub connect_timeout: Duration,
    /// How long a worker may take until the head of its response, counted from the end of the connect phase. A worker
    /// that takes longer is answered for with 504. The default is without a bound.
    pub response_timeout: Option<Duration>,
    /// How long a connection to a worker is kept for further requests. It should be below the worker's own limit, so
    /// that a request does not cross with the worker's close; a `keep-alive: timeout=N` from the worker is honoured
    /// where it is shorter. The default is 4 s, since 5 s is the shortest that is common among HTTP servers.
    pub upstream_idle_timeout: Duration,
    /// How long an upgraded connection may go on after its session has ended, so that the worker can say goodbye
    /// itself. The default is 1 s.
    pub upgrade_grace: Duration,
}

impl Default for GatewayOptions {
    fn default() -> Self {
        Self {
            access: None,
            session_key: SessionKey::default(),
            sessions: Sessions::default(),
            forwarded: Forwarded::default(),
            metrics: None,
            tracer: None,
            max_header_bytes: 32 * 1024,
            header_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(75),
            body_idle_timeout: None,
            max_connections: 10_000,
            max_concurrent_streams: 200,
            connect_timeout: Duration::from_secs(5),
            response_timeout: None,
            upstream_idle_timeout: Duration::from_secs(4),
            upgrade_grace: Duration::from_secs(1),
        }
    }
}

/// What a request for an unknown session does.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Sessions {
    /// It starts the session.
    #[default]
    Start,
    /// It is answered with 404: sessions are started elsewhere.
    LookUpOnly,
}

/// What becomes of `x-forwarded-for`, `x-forwarded-host` and `x-forwarded-proto` that clients send.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Forwarded {
    /// They are replaced: anybody can send them, so nobody is believed.
    #[default]
    Replace,
    /// They are believed, because only trusted proxies reach the gateway: the client's address is appended to
    /// `x-forwarded-for`, and the others are kept if present.
    Append,
}

/// A page of metrics that the gateway serves.
#[derive(Clone)]
pub struct MetricsPage {
    /// Its path, for example `/metrics`.
    pub path: String,
    /// Makes its content, in the Prometheus text format. It runs on a serving thread, so it must not block.
    pub render: Arc<dyn Fn() -> String + Send + Sync>,
}

impl fmt::Debug for MetricsPage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MetricsPage").field("path", &self.path).finish_non_exhaustive()
    }
}
