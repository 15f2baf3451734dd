//! Limits for all of a worker's processes together: control groups, version 2.
//!
//! A [`CgroupRoot`] is the part of the hierarchy where this process may work; it makes one [`Cgroup`] for each worker.
//! A worker is born into its cgroup (`CLONE_INTO_CGROUP`, see clone(2)), so there is no moment at which it has no
//! limits and no process of it that is not counted.
//!
//! ```text
//! the delegated cgroup           cgroup.subtree_control = cpu memory pids
//! ├─ herd-daemon                 the launching process: one with children may hold no processes itself
//! └─ herd-workers-4711           one for each launching process, locked as long as that lives
//!    ├─ worker-1                 memory.max, memory.swap.max, memory.oom.group, cpu.max, pids.max
//!    └─ worker-2
//! ```
//!
//! ```no_run
//! use herd_sandbox::cgroup::{CgroupRoot, Limits};
//!
//! # fn main() -> Result<(), herd_sandbox::cgroup::CgroupError> {
//! let root = CgroupRoot::open()?;
//! root.sweep()?;
//! let limits = Limits { memory: Some(512 << 20), cpu: Some(0.5), pids: Some(100) };
//! let cgroup = root.create("worker-1", &limits)?;
//! // Hand `cgroup.directory()` to the launch; when the worker has ended:
//! cgroup.remove()
//! # }
//! ```
//!
//! # What holds
//! - A limit that was asked for is in force before the first process is born, or there is a [`CgroupError`].
//! - Nothing is written above the delegated cgroup, and never anything at the top of the host's hierarchy.
//! - What a killed daemon left is ended by the next one's [`sweep`](CgroupRoot::sweep), and what belongs to a living one
//!   is not, even if both work in the same delegated cgroup.
//!
//! # What does not hold
//! - Without root a worker is of the same user as its cgroup's files. That it cannot lift its own limits is for the rest
//!   of the sandbox, which shows it no hierarchy.
//! - The limits are of what the cgroup's processes use. What they have others do for them, a database for example, is
//!   accounted to those.
//!
//! Facts about the files are from the kernel's `Documentation/admin-guide/cgroup-v2.rst`, those about delegation by
//! systemd from its `CGROUP_DELEGATION` document.

mod delegation;
mod directory;
mod error;
mod group;
mod limits;
mod root;
mod text;
mod usage;

pub use delegation::Delegation;
pub use error::CgroupError;
pub use group::Cgroup;
pub use limits::{Controller, Limits};
pub use root::CgroupRoot;
pub use usage::CgroupUsage;
