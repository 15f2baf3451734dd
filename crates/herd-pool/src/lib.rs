//! A session-affine pool: one session ID, at most one live worker, for the lifetime of the session.
//!
//! Bring a [`WorkerFactory`] and the pool does the rest: it starts workers, pins each session to one of them, keeps
//! spares ready, ends idle sessions, replaces workers that die, and tells why every session ended.
//! It knows neither processes nor HTTP.
#![forbid(unsafe_code)]

mod backoff;
mod builder;
mod caught;
mod clock;
mod connect;
mod crash;
mod driver;
mod error;
mod event;
mod exit;
mod gate;
mod index;
mod info;
mod lease;
mod options;
mod perform;
mod pool;
mod queue;
mod reason;
mod schedule;
mod session_id;
mod shared;
mod slot;
mod state;
mod stats;
mod sync;
#[cfg(test)]
mod tests;
mod view;
mod worker;
mod worker_ids;

pub use builder::PoolBuilder;
pub use connect::{Connect, Protocol};
pub use crash::Crash;
pub use error::{AcquireError, NoSuchSession, OptionsError};
pub use event::{Event, EventKind, Events, EventsError};
pub use exit::{Exit, ExitStatus};
pub use info::{SessionInfo, SessionState, WorkerInfo, WorkerState};
pub use lease::Lease;
pub use options::{IdleBy, WhenFull};
pub use pool::Pool;
pub use reason::EndReason;
pub use session_id::{InvalidSessionId, SessionId};
pub use stats::{SessionsEnded, Stats};
pub use worker::{HealthError, InvalidWorkerId, SpawnError, Worker, WorkerFactory, WorkerId};
pub use worker_ids::WorkerIds;
