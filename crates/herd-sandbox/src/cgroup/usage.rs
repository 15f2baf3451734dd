use std::time::Duration;

/// What the processes of a cgroup use, and what those have used that have ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct CgroupUsage {
    /// CPU time.
    pub cpu: Duration,
    /// CPU time outside of the kernel.
    pub cpu_user: Duration,
    /// CPU time inside of the kernel.
    pub cpu_system: Duration,
    /// How often the limit of CPU time made all of them wait for the next period. 0 without such a limit.
    pub throttled: u64,
    /// Memory now, in bytes, page cache included.
    pub memory: u64,
    /// The most memory that there ever was, in bytes. `None` before Linux 5.19, which does not keep it.
    pub memory_peak: Option<u64>,
    /// Processes and threads now, zombies that are not reaped included.
    pub pids: u64,
    /// How often a process was refused because there were too many.
    pub pids_refused: u64,
    /// How many processes were killed because memory ran out, here or in a cgroup above.
    pub oom_kills: u64,
}
