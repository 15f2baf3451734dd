//! Starts one command under a small supervising process of its own, the *init*, on Linux.
//!
//! Init is the parent of the worker that it starts, so that the worker has nothing of the launching process but what
//! its [`Spec`] names, and so that nothing of the worker outlives the launching process, however that one ends.
//!
//! ```no_run
//! use std::time::Duration;
//!
//! use herd_sandbox::{Init, Report, Signal, Spec};
//!
//! fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     // Before anything else: init is this same program, started once more.
//!     herd_sandbox::enter_init();
//!
//!     let mut spec = Spec::new("sleep");
//!     spec.args.push("60".into());
//!     let init = Init::launch(spec)?;
//!     // Poll the control socket (`AsFd`) and ask when it is readable.
//!     while let Ok(Some(report)) = init.recv() {
//!         match report {
//!             Report::Ready { .. } => init.stop(Signal::TERM, Duration::from_secs(10))?,
//!             Report::Failed(failure) => return Err(failure.into()),
//!             _ => {}
//!         }
//!     }
//!     Ok(())
//! }
//! ```
//!
//! It is synchronous, starts no thread but for reaping dropped inits, and works the same under any runtime or none.
//!
//! # Who talks to whom
//! ```text
//! launching process                   init                          worker
//!   Init::launch ── plain spawn ──▶ enter_init
//!                ◀───── Hello ──────  harden
//!                ────── Plan ──────▶  fork ────────────────────────▶ steps of the plan
//!                ◀─ Ready | Failed ─  ◀── a pipe that exec closes ── exec
//!                ── Signal · Stop ─▶  kill(2) to its group ────────▶
//!                ◀──── Exited ──────  kill and reap the rest
//!                ◀── end of stream ─  nothing is left
//! ```
//! The two are connected by one `SOCK_SEQPACKET` socket. Plans travel in a sealed memory file, descriptors beside it.
//!
//! # What holds
//! - The launching process never forks and runs no code between fork and exec: it starts init by posix_spawn(3).
//! - **Dead-man's switch.** When the control socket ends, because the launching process dropped its [`Init`], ended or
//!   was killed with -9, init kills the worker's whole tree and ends.
//! - The end of the stream says that the tree is gone and reaped. Init is a child subreaper (prctl(2)): what the worker
//!   starts, whatever session it moves to and whoever of its ancestors dies, stays below init.
//! - Init is single-threaded, keeps nothing of the launching process or the plan, blocks all signals, is not dumpable,
//!   and has a session of its own, so that a Ctrl-C for the launching process reaches neither it nor the worker.
//! - Nothing of a plan that cannot be carried out is skipped: it is a [`Failure`] that names the step.
//!
//! # What does not hold
//! - A worker runs as the same user as its init and can signal it. One that kills its init with -9 dies with it, but
//!   its descendants may live on; [`Init::reap`] tells that init was killed. One that stops its init again and again
//!   delays its own end: init is continued by [`Init::kill`], by dropping the [`Init`], and when the launching process
//!   ends.
//! - A process that hangs in the kernel (state `D`) dies when the kernel lets it; init waits for that.
//! - Processes that multiply faster than one process can stop them can evade for as long as they keep that up.
//!
//! All three need a PID namespace or a cgroup to be closed.
//!
//! Linux 5.9 or newer with `/proc` mounted. Built with `CONFIG_PROC_CHILDREN` init finds the worker's processes without
//! looking through all of the system's.
//!
//! # Where things are
//! `spec` what is wanted · `plan` the steps and why in this order · `launch`, `handle` the launching side · `protocol`,
//! `codec`, `channel` what goes over the socket · `init` the other side: `supervisor` its loop, `worker` from fork to
//! exec, `program` finding it, `tree` killing all of it · `sys` the system calls that need `unsafe`.
#![expect(unexpected_cfgs, reason = "cargo-fuzz sets `fuzzing`, which cargo does not know")]

pub mod cgroup;
mod channel;
mod codec;
mod entry;
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzzing;
mod handle;
mod host;
mod inherited;
mod init;
mod isolation;
mod landlock;
mod launch;
mod plan;
mod protocol;
mod reaper;
mod report;
pub mod seccomp;
mod signal;
mod spec;
mod sys;

pub use entry::enter_init;
pub use handle::Init;
pub use host::{Host, Layer, Obstacle};
pub use inherited::inherited_listeners;
pub use isolation::{Files, Identity, Isolation, Mode, Mount, Network, Seccomp};
pub use launch::LaunchError;
pub use plan::{Explanation, Missing, Place, Plan, PlanError};
pub use report::{Failure, Report, Usage};
pub use signal::{InvalidSignal, Signal};
pub use spec::{Limit, Spec, SpecError};
