//! Starts one command in a sandbox of its own, under a small supervising process, the *init*, on Linux.
//!
//! Init is the parent of the worker that it starts, so that the worker has nothing of the launching process but what
//! its [`Spec`] names, and so that nothing of the worker outlives the launching process, however that one ends. What
//! the worker can see and do beyond its own memory is what its [`Isolation`] leaves it.
//!
//! ```no_run
//! use std::time::Duration;
//!
//! use herd_sandbox::{Init, Isolation, Mode, Report, Signal, Spec};
//!
//! fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     // Before anything else: init is this same program, started once more.
//!     herd_sandbox::enter_init();
//!
//!     let mut spec = Spec::new("sleep");
//!     spec.args.push("60".into());
//!     // As root, name an `identity` too.
//!     spec.isolation = Isolation::new(Mode::Required);
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
//! # From wish to walls
//! [`Spec`] (what is wanted) and [`Host`] (what this kernel and this user can do, tried once by a rehearsal) make a
//! [`Plan`]: an ordered list of steps, pure data, each with its reason. What is required and cannot be had is an error
//! before anything is started; nothing is skipped in silence.
//!
//! # Who talks to whom
//! ```text
//! launching process                 outer                 init                        worker
//!   Init::launch ── plain spawn ──▶ enter_init
//!                ◀───── Hello ──────  harden
//!                ────── Plan ──────▶  user namespace
//!                ◀───── Moved ──────  clone3 ───────────▶ its namespaces, its cgroup
//!                                     end                 new root, loopback
//!                                                         fork ────────────────────▶ own user, no capabilities
//!                ◀── Announced ──────────────────────────────────────────────────── Landlock, seccomp
//!                ◀─ Ready | Failed ────────────────────── ◀─ a pipe that exec closes ─ exec
//!                ── Signal · Stop · Sockets ───────────▶  kill(2), socket(2)
//!                ── Execute ──────────────────────────▶  fork ────────────────────▶ a further command: as the worker
//!                ◀──── Exited ──────────────────────────  kill and reap the rest
//!                ◀── end of stream ─────────────────────  nothing is left
//! ```
//! They are connected by one `SOCK_SEQPACKET` socket. Plans travel in a sealed memory file, descriptors beside it.
//! Without a sandbox, outer goes on as init.
//!
//! # What holds
//! - The launching process never forks and runs no code between fork and exec: it starts outer by posix_spawn(3).
//! - **Dead-man's switch.** When the control socket ends, because the launching process dropped its [`Init`], ended or
//!   was killed with -9, init kills all that the worker has started and ends.
//! - The end of the stream says that nothing of the worker is left. Init is PID 1 of the worker's PID namespace: the
//!   kernel ends them together.
//! - A further command ([`Init::execute`]) is a child of init that does the steps of the worker's own process again: it
//!   has the same namespaces, cgroup, user, limits and filters. It is not dumpable until its filters are on, holds no
//!   descriptor but its streams, and ends with the worker.
//! - Init is single-threaded, keeps nothing of the launching process or the plan, blocks all signals, is not dumpable,
//!   has no capability but, as root, the one to signal its worker (and those to become the worker's user where root
//!   cannot make a user namespace for it), and has a session of its own, so that a Ctrl-C for
//!   the launching process reaches neither it nor the worker. Where its executable belongs to the worker's user, init
//!   runs from a sealed copy in memory.
//! - Nothing of a plan that cannot be carried out is skipped: it is a [`Failure`] that names the step.
//!
//! # What does not hold
//! - A process that hangs in the kernel (state `D`) dies when the kernel lets it; init waits for that.
//! - Under [`Mode::Off`], or where a PID namespace cannot be had, a worker runs beside its init and can signal it. One
//!   that kills its init with -9 dies with it, but its descendants may live on; [`Init::reap`] tells that init was
//!   killed. One that stops its init again and again delays its own end: init is continued by [`Init::kill`], by
//!   dropping the [`Init`], and when the launching process ends. Processes that multiply faster than one process can
//!   stop them can evade for as long as they keep that up.
//! - What a further command has started with a session of its own (setsid(2)) stays when the command is ended; it is
//!   in the sandbox and ends with the worker.
//! - Each further command is in a Landlock domain of its own, with the worker's rules: neither can look into the other,
//!   and from Linux 6.12 on neither can signal the other or connect to its abstract sockets.
//! - Without root, the groups of the launching user beyond its first stay with the worker: the kernel lets nobody drop
//!   them. They matter for files that are mounted into the sandbox alone.
//!
//! Linux 5.9 or newer with `/proc` mounted; 5.12 or newer for a sandbox with a root of its own.
//!
//! # Where things are
//! `spec`, `execution`, `isolation` what is wanted · `host` what can be had · `plan` the steps and why in this order ·
//! `launch`, `handle` the launching side · `protocol`, `codec`, `channel` what goes over the socket · `init` the other
//! side: `birth` from outer to init, `setup` and `root` the new root, `worker` from fork to exec, `execution` the same
//! for further commands, `privilege` capabilities, `program` finding the program, `supervisor` its loop, `tree` killing
//! all where there is no PID namespace · `seccomp`, `landlock`, `cgroup` these layers · `egress` the way out of a private
//! network, with `netlink` and `init`'s `router` · `sys` the system calls that need `unsafe`.
#![expect(unexpected_cfgs, reason = "cargo-fuzz sets `fuzzing`, which cargo does not know")]

pub mod cgroup;
mod channel;
mod codec;
mod egress;
mod entry;
mod execution;
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
mod netlink;
mod plan;
mod protocol;
mod reaper;
mod report;
pub mod seccomp;
mod signal;
mod spec;
mod sys;

pub use egress::{Egress, InvalidReach, Pasta, Reach, Subnet};
pub use entry::enter_init;
pub use execution::{ExecSpec, ExecStreams, TerminalSize};
pub use handle::Init;
pub use host::{Host, Layer, Obstacle};
pub use inherited::inherited_listeners;
pub use isolation::{Files, Identity, Isolation, Mode, Mount, Network, Seccomp};
pub use launch::LaunchError;
pub use netlink::host_addresses;
pub use plan::{Explanation, Missing, Place, Plan, PlanError, Sight, real_path};
pub use report::{Failure, Report, Usage};
pub use signal::{InvalidSignal, Signal};
pub use spec::{Limit, Spec, SpecError};
