//! A session-affine pool: one session ID, at most one live worker, for the lifetime of the session.
//!
//! Bring a [`WorkerFactory`] and the pool does the rest: it starts workers, pins each session to one of them, keeps
//! spares ready, ends idle sessions, replaces workers that die, and tells why every session ended.
//! It knows neither processes nor HTTP.
//!
//! # Example
//! Workers that live in memory, each with a number that its session adds to:
//! ```
//! use std::{future::Future, sync::atomic::{AtomicU64, Ordering}, time::Duration};
//!
//! use herd_pool::{EndReason, Exit, ExitStatus, HealthError, Pool, SessionId, SpawnError, Worker, WorkerFactory, WorkerId};
//! use tokio::sync::watch;
//!
//! struct Adder {
//!     id: WorkerId,
//!     sum: AtomicU64,
//!     exit: watch::Sender<Option<Exit>>,
//! }
//!
//! impl Worker for Adder {
//!     type Client = AtomicU64;
//!
//!     fn id(&self) -> WorkerId {
//!         self.id
//!     }
//!
//!     fn address(&self) -> &str {
//!         "memory:adder"
//!     }
//!
//!     fn client(&self) -> &AtomicU64 {
//!         &self.sum
//!     }
//!
//!     async fn healthy(&self) -> Result<(), HealthError> {
//!         Ok(())
//!     }
//!
//!     fn exited(&self) -> impl Future<Output = Exit> + Send + 'static {
//!         let mut exit = self.exit.subscribe();
//!         async move {
//!             let exit = exit.wait_for(Option::is_some).await.ok().and_then(|exit| exit.clone());
//!             exit.unwrap_or(Exit::with_status(ExitStatus::Unknown))
//!         }
//!     }
//!
//!     async fn close(&self) {
//!         self.exit.send_replace(Some(Exit::with_status(ExitStatus::Code(0))));
//!     }
//! }
//!
//! struct Adders;
//!
//! impl WorkerFactory for Adders {
//!     type Worker = Adder;
//!
//!     async fn spawn(&self, id: WorkerId) -> Result<Adder, SpawnError> {
//!         Ok(Adder { id, sum: AtomicU64::new(0), exit: watch::Sender::new(None) })
//!     }
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let pool = Pool::builder(Adders).max_workers(4).ttl(Duration::from_secs(60)).build()?;
//! let (alice, bob) = (SessionId::new("alice")?, SessionId::new("bob")?);
//!
//! pool.acquire(&alice).await?.worker().client().fetch_add(41, Ordering::Relaxed);
//! let lease = pool.acquire(&alice).await?;
//! assert!(!lease.is_new());
//! assert_eq!(lease.worker().client().load(Ordering::Relaxed), 41);
//! assert_eq!(pool.acquire(&bob).await?.worker().client().load(Ordering::Relaxed), 0);
//!
//! assert_eq!(pool.end(&alice).await?, EndReason::Released);
//! assert_eq!(lease.ended().await, EndReason::Released);
//! pool.shutdown().await;
//! # Ok(())
//! # }
//! ```
//!
//! # What holds at any moment
//! - One session has at most one live worker, and one worker at most one session. Where workers are
//!   [reused](PoolBuilder::worker_reuse), one changes hands only when no lease of its former session is left.
//! - The workers that start, wait as spares, serve and end are together never more than
//!   [`max_workers`](PoolBuilder::max_workers).
//! - Every caller of [`Pool::acquire`] gets exactly one answer, at the latest after
//!   [`acquire_timeout`](PoolBuilder::acquire_timeout). A caller that gives up loses nothing for others: no worker, no
//!   capacity.
//! - A session in use is never ended as idle or evicted. Every session ends with exactly one [`EndReason`].
//! - A worker that a factory of [before](Pool::reconfigure) started serves the session that it has, and no other.
//!
//! # What tenants share
//! Sessions may belong to [`Tenant`]s, see [`SessionId::of`]. Those without one are treated as if one more tenant had
//! them all, which has no limits.
//! - Free workers go round the tenants that wait, one session of each; within a tenant sessions are served in the order
//!   in which their first callers came. Whoever waits with a thousand callers delays the first one of another tenant by
//!   one worker.
//! - If as many callers wait as [may](PoolBuilder::max_waiting), one of a tenant with fewer takes the place of the
//!   newest of the tenant with most, as long as that leaves the latter no fewer than the former has.
//! - With [`WhenFull::EvictIdle`] the tenant with most sessions loses the one that has been idle for longest, but only
//!   to a tenant with fewer. Whoever has as many or more makes room by an idle session of its own, or waits.
//! - [`TenantLimits`] hold over all pools that the tenant has sessions in: callers beyond them are refused at once. A
//!   session counts from its first caller until its worker is gone.
//! - No worker of a tenant's session serves another one afterwards.
//!
//! # What it costs
//! An acquire of a live session takes no lock of the whole pool and allocates nothing: it reads the session's bucket in
//! one of 128 parts of the index, and counts the lease in the session's gate, one atomic word. Its cost does not depend
//! on the number of sessions, but once they do not fit into the processor's caches it is that of these two places in
//! memory. Everything else happens under the core's lock in at most O(log n): starts, ends, and timers. A session takes
//! less than 1 KiB in the pool, beside what its worker takes. To look at sessions a [page](Pool::sessions_after) at a time
//! takes O(n), mostly without the core's lock, and [reconfiguring](Pool::reconfigure) O(n log n) with it.
//!
//! # Map
//! What callers see: `pool`, `lease`, `builder` and `options`, `error`, `event`, `info`, `stats`, `histogram`, `crash`,
//! and the vocabulary in `worker`, `connect`, `exit`, `reason`, `session_id`, `tenant`.
//!
//! The core, which decides and does no I/O:
//! - `state` takes what happened and the time, and says what to do. `state::sessions` starts and ends sessions,
//!   `state::workers` follows workers from spawn to end, `state::balance` hands out spares, starts workers and evicts,
//!   `state::tick` does what is due, `state::reconfigure` lets another factory and other options count, `state::entry`
//!   is what is known of one worker and `state::inspect` what others may know of the state.
//! - `queue` holds those who wait, `lines` whose turn it is, and `crowd` who has how many of them. `idle` holds the
//!   sessions that may be idle, `schedule` what is due when, `backoff` how fast failed starts are repeated, `setbacks`
//!   the same where each is for one session, and `generation` tells the configurations apart that a pool has had.
//! - `slot` is a session with its worker, shared by its leases; `gate` counts them; `index` finds slots by session ID,
//!   in the hash `table`s.
//!
//! The shell, which performs what the core decides:
//! - `shared` keeps the core behind its lock, with the `setup` that counts, and performs actions in order, `perform`
//!   has what each action does,
//!   `driver` tells the core of the passing of time, `view` makes the core's state presentable, `caught` contains
//!   panics.
//!
//! Of locks there are: the core's, then those of the setup, the index's parts and the replies to callers, in this
//! order. None is held while code of callers, workers or subscribers runs, and none across an await.
#![forbid(unsafe_code)]

mod backoff;
mod builder;
mod caught;
mod clock;
mod connect;
mod crash;
mod crowd;
mod driver;
mod error;
mod event;
mod exit;
mod gate;
mod generation;
mod histogram;
mod idle;
mod index;
mod info;
mod lease;
mod lines;
mod options;
mod perform;
mod pool;
mod queue;
mod reason;
mod schedule;
mod session_id;
mod setbacks;
mod setup;
mod shared;
mod slot;
mod state;
mod stats;
mod sync;
mod table;
mod tenant;
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
pub use histogram::{Histogram, SharedHistogram};
pub use info::{SessionInfo, SessionOutline, SessionState, WorkerInfo, WorkerState};
pub use lease::Lease;
pub use options::{IdleBy, WhenFull};
pub use pool::Pool;
pub use reason::EndReason;
pub use session_id::{InvalidSessionId, SessionId};
pub use stats::{SessionsEnded, Stats};
pub use tenant::{InvalidTenant, Tenant, TenantLimits};
pub use worker::{HealthError, InvalidWorkerId, SpawnError, Worker, WorkerFactory, WorkerId};
pub use worker_ids::WorkerIds;
