//! Workers that are processes: [`ProcessFactory`] starts any program for a [`herd_pool::Pool`].
//!
//! Each worker runs under an *init* of its own, a small process that starts it, reaps it, and kills its whole tree when
//! the worker ends or the daemon dies, however it dies. Init is this same program: `main` begins with
//! [`herd_sandbox::enter_init`], before any thread and any runtime is started. Without that call a spawn fails and says
//! so; a program that cannot make it names a helper with
//! [`init_program`](ProcessFactoryBuilder::init_program).
//!
//! ```no_run
//! use herd_pool::{Pool, SessionId, Worker as _};
//! use herd_process::ProcessFactory;
//!
//! fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     herd_sandbox::enter_init();
//!     tokio::runtime::Runtime::new()?.block_on(async {
//!         let factory = ProcessFactory::new("npx")
//!             .args(["playwright-core", "run-server", "--port", "{{.Port}}", "--host", "127.0.0.1"])
//!             .env("PLAYWRIGHT_BROWSERS_PATH", "/opt/browsers")
//!             .health_path("/")
//!             .build()?;
//!         let pool = Pool::builder(factory).max_workers(4).build()?;
//!
//!         // The session's browser: this one and no other, until the session ends.
//!         let lease = pool.acquire(&SessionId::new("alice")?).await?;
//!         println!("{} is at {}", lease.worker_id(), lease.worker().address());
//!         let answer = lease.worker().client().get("/").await?;
//!         println!("it answers {}", answer.status());
//!
//!         drop(lease);
//!         pool.shutdown().await;
//!         Ok(())
//!     })
//! }
//! ```
//!
//! # The sandbox
//! Each worker is sealed off from the host and from every other worker, by default or not at all
//! ([`ProcessFactoryBuilder::sandbox`]): it has processes, a network and a root file system of its own, as root a user of
//! its own, no capabilities, and a filter of its system calls. What is asked for and this host cannot give is an error
//! of [`build`](ProcessFactoryBuilder::build), before anything is started, with the step, the reason and the remedy.
//!
//! Inside, `/workspace` is the worker's workspace and `/run/herd` the directory of its sockets. Of the host it sees the
//! system's directories, the program's own file and runtime, files that arguments name, the working directory that was
//! named, and what [`read_only`](ProcessFactoryBuilder::read_only) and [`writable`](ProcessFactoryBuilder::writable)
//! add. What is said below of the host's network and paths holds for [`Mode::Off`], [`Network::Host`] and a
//! [`Mode::BestEffort`] that falls short.
//!
//! # Where a worker listens
//! [`Listen`] has three ways. In a network of its own nobody else can listen on a worker's *port*, and every worker has
//! the same one. Its init makes sockets there and hands them out, so that a connection is a system call on this side and
//! waits for nobody. In the host's network the worker binds its port itself, so another program can be quicker: what
//! listens there counts only once the socket is found among the descriptors of the worker's own processes, and a lost
//! port is replaced by another, up to five times. Each new connection is checked in the same way, so that a worker that
//! closes its listener does not hand its session to the next program that takes the port. With a *socket* or an
//! *inherited* listener there is nothing to lose.
//!
//! # What a worker is given
//! Its environment is `PATH` (the daemon's), `HOME` (its workspace, an empty directory of its own that is removed with
//! the worker, unless it is [kept](ProcessFactoryBuilder::persistent_workspaces)), `LANG=C.UTF-8`, `PORT`, and what the
//! options name: nothing of the daemon's own. The same holds for descriptors and signals. In arguments, in values of the
//! environment and in the working directory `{{.Port}}`, `{{.Socket}}`, `{{.WorkerID}}` and `{{.Workspace}}` stand for
//! the worker's own, as the worker sees them.
//!
//! # Output
//! Standard output and standard error are read line by line into the log (`tracing`, target `herd::worker`, fields
//! `worker` and `stream`; up to 100 lines a second and stream, then a count of those left out) and into a bounded ring,
//! [`Logs`]. Lines come from a program that may be hostile: they are cut at 8 KiB and made printable. A worker that
//! writes more than a burst of 16 MiB is read at 8 MiB/s, a line counting for at least 128 bytes: its own flood slows it,
//! and nobody else.
//!
//! # Typed clients
//! A worker comes with an [`HttpClient`], or with whatever [`client`](ProcessFactoryBuilder::client) makes from its
//! [`Connector`]. Such a connector is also a [`tower_service::Service`] for clients of hyper-util and tonic.
//!
//! # Caveats
//! - A dropped worker or spawn is killed and reaped by a task on the runtime that polled the spawn. When that runtime is
//!   gone, init kills the worker on its own, but its private directory stays until the next
//!   [`build`](ProcessFactoryBuilder::build) in the same place finds it. [`ProcessFactory::none_left`] waits for all.
//! - Without a sandbox workers share the daemon's user and network: one worker can reach the port, the socket and the
//!   files of another. When init itself is killed there, the worker's process group is killed too, but a descendant that
//!   left the group stays.
//! - Users are handed out once on a host, by locks in `/run/herd-uids`, which is root's alone and has to stay
//!   for as long as workers run. Daemons that do not share that directory, in containers for example, need ranges of
//!   their own.
#![forbid(unsafe_code)]

mod accounts;
mod builder;
mod cgroups;
mod check;
mod client;
mod connector;
mod directory;
mod egress;
mod error;
mod execution;
mod executions;
mod exposure;
mod factory;
mod identity;
mod lines;
mod listener;
mod live;
mod lock;
mod logs;
mod names;
mod needs;
mod notify;
mod options;
mod output;
mod place;
mod ports;
mod probe;
mod process;
mod provision;
mod readiness;
mod registry;
mod removal;
mod sandbox;
mod sock_diag;
mod start;
mod stock;
mod supervisor;
mod template;
mod terminal;
mod watch;
mod worker;
mod workspace;

pub use builder::ProcessFactoryBuilder;
pub use client::{ClientError, HttpClient};
pub use connector::{Connector, Stream};
pub use error::{Mistake, OptionsError, StartError};
pub use execution::{ExecCommand, ExecError, Execution};
pub use factory::ProcessFactory;
pub use herd_sandbox::{
    InvalidReach, Layer, Missing, Mode, Network, Obstacle, Reach, Seccomp, Signal, Subnet, TerminalSize,
    cgroup::CgroupUsage,
};
pub use logs::{Follow, LogLine, Logs, OutputStream};
pub use needs::path_in;
pub use options::{InvalidListen, Limits, Listen};
pub use readiness::{InvalidReadiness, Readiness};
pub use terminal::{ExecInput, ExecOutput};
pub use worker::ProcessWorker;
