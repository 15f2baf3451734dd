//! The HTTP front door of one or more pools: it reads the session from each request and passes the request to the
//! session's worker.
//!
//! A [`Gateway`] stands in front of a [`Pool`](herd_pool::Pool) whose workers can be [connected
//! to](herd_pool::Connect), or of several, among which [`Routes`] choose. It knows nothing else about them. Both, and
//! most options, can be [exchanged](Gateway::configure) while it serves.
//!
//! # The life of a request
//! | phase | what happens | how it can fail |
//! | --- | --- | --- |
//! | access | requests that can be read in two ways are refused; [`Access`] lets the caller in, and what the caller showed is taken out of the request | 400, 401, 429 |
//! | route | the first [`Rule`] that fits names the pool | 400, 404 |
//! | key | the [`SessionKey`] names the session, of the caller's tenant | 400, 403 |
//! | lease | the pool is asked for the session, which may start a worker | 404, 429, 503 |
//! | end | instead of all that follows, if the request asks for it in `herd-session`: the session ends | 403, 404 |
//! | connect | a connection to the worker, kept from an earlier request or new | 502 |
//! | rewrite | fields that concern one connection go, `x-forwarded-*` and `x-session-id` are set | |
//! | send | the request goes out, the head of the response comes in | 400, 502, 504 |
//! | relay | the body of the response passes as it comes; it holds the lease until its last byte | the client is cut |
//! | splice | instead of relay, after an upgrade: bytes pass both ways until one side or the session ends | [close codes](close_code) |
//!
//! Failures are problem documents (RFC 9457) with a `herd-error` field that names the failure: `bad-request`,
//! `unauthorized`, `too-many-requests`, `no-route`, `no-session-id`, `invalid-session-id`, `forbidden-session`,
//! `forbidden-page`, `forbidden-end`, `no-such-session`, `tenant-sessions`, `tenant-waiting`, `queue-full`, `acquire-timeout`,
//! `spawn-failed`, `no-worker`, `draining`, `shutdown`, `session-ended`, `worker-crashed`, `worker-unreachable`,
//! `worker-timeout`, `bad-gateway`, `not-implemented`, `request-timeout`, `header-too-large`, `target-too-long`,
//! `tls-required`, `internal`.
//!
//! [`Gateway::stats`] counts them by that name. Callers who are refused for who they are (401, 403, 429) are told of in the
//! log at the level debug, up to ten in a second on each serving thread, and never with what they showed.
//!
//! How long each phase takes is told by [`Gateway::latencies`], for each pool, and by a [`Tracer`] for each request.
//!
//! # What a worker can rely on
//! - `x-session-id` is the session, wherever the client had put it, and `x-forwarded-for` is the client.
//! - All requests of its session are of one tenant, and carry nothing of what their callers showed to be let in.
//! - A request has one framing and one host, and no field that was meant for the gateway alone.
//! - A request is sent twice only if the worker saw nothing of the first attempt, or if it has no body and its method is
//!   idempotent (RFC 9110 §9.2.2) and the connection had been kept from an earlier request.
//! - When the client goes away, the connection is closed (HTTP/1.1) or the stream is reset (HTTP/2).
//!
//! # What a client can rely on
//! - `herd-worker`, `herd-session` and, where there are several pools, `herd-pool` come from the gateway, never from a
//!   worker.
//! - With `herd-session: resume`, a request never starts its session anew. With `herd-session: end`, a `DELETE` ends the
//!   session, and is answered when the worker is gone.
//! - A response that broke off never looks complete.
//! - After a crash no request is silently continued elsewhere. A request that the worker had seen nothing of may start
//!   the session anew, and is told so with `herd-session: new`.
//!
//! # Caveats
//! - HTTP/2 is spoken with clients that choose it by ALPN over TLS, or in plain text with prior knowledge; there is no
//!   upgrade to HTTP/2, and WebSocket needs HTTP/1.1.
//! - Over TLS there is one certificate for all names, and clients are not asked for certificates.
//! - Interim responses other than 100 and 101 are not passed on.
#![forbid(unsafe_code)]

mod access;
mod account;
mod admit;
mod client;
mod counters;
mod decide;
mod decode;
mod encode;
mod exchange;
mod failure;
mod failure_kind;
mod gateway;
mod http1;
mod latency;
mod options;
mod pipe;
mod prefix;
mod query;
mod random;
mod refusal_log;
mod request_body;
mod response_body;
mod rewrite;
mod routes;
mod serve;
mod session_key;
mod setup;
mod splice;
mod stream;
mod tasks;
mod tls;
mod trace;
mod upstream;
mod websocket;
mod wish;

pub use access::{Access, Admission, Credential, Refusal};
pub use counters::GatewayStats;
pub use gateway::{ClientAddress, Gateway};
pub use latency::PoolLatencies;
pub use options::{Forwarded, GatewayOptions, MetricsPage, Sessions};
pub use random::random_session_id;
pub use response_body::{BrokenResponse, ResponseBody};
pub use routes::{InvalidRoutes, Routes, Rule};
pub use session_key::{InvalidSessionKey, SessionKey};
pub use tls::Tls;
pub use trace::{Trace, TraceEnd, Tracer};
pub use websocket::close_code;
