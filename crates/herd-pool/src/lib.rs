//! A session-affine pool: one session ID, at most one live worker, for the lifetime of the session.
//!
//! Bring a [`WorkerFactory`] and the pool does the rest: it starts workers, pins each session to one of them, keeps
//! spares ready, ends idle sessions, replaces workers that die, and tells why every session ended.
//! It knows neither processes nor HTTP.
#![forbid(unsafe_code)]

mod connect;
mod exit;
mod reason;
mod session_id;
mod worker;

pub use connect::{Connect, Protocol};
pub use exit::{Exit, ExitStatus};
pub use reason::EndReason;
pub use session_id::{InvalidSessionId, SessionId};
pub use worker::{HealthError, InvalidWorkerId, SpawnError, Worker, WorkerFactory, WorkerId};
