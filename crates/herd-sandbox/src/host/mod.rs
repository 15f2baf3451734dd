mod probe;
mod remedy;

use std::{collections::BTreeMap, fmt, path::PathBuf};

pub(crate) use self::probe::has_users;

/// What this kernel and this user can do.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Host {
    /// The kernel's version, its first two numbers.
    pub kernel: (u32, u32),
    /// The effective user ID of the launching process.
    pub uid: u32,
    /// The effective group ID of the launching process.
    pub gid: u32,
    /// Whether the launching process is root with the capabilities that the sandbox is built with.
    pub root: bool,
    /// The version of Landlock's interface; 0 where there is none. See landlock(7).
    pub landlock: u32,
    /// The program that leads out of a private network, see [`Pasta`](crate::Pasta), if there is one.
    pub pasta: Option<PathBuf>,
    /// What stands in the way of a layer. A layer that is not named can be had.
    pub obstacles: BTreeMap<Layer, Obstacle>,
}

/// One layer of the sandbox.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[non_exhaustive]
pub enum Layer {
    /// A user namespace that knows the worker's user and group alone.
    UserNamespace,
    /// Processes: the worker sees its own alone, and init is their PID 1.
    PidNamespace,
    /// Files: a root of the worker's own.
    Files,
    /// System V IPC and POSIX message queues.
    Ipc,
    /// Host name.
    HostName,
    /// Network: a loopback of the worker's own.
    Network,
    /// The worker sees its own cgroup as the root of all.
    CgroupNamespace,
    /// A user and a group of the host that are the worker's alone.
    Identity,
    /// No capability, and none to be had.
    Capabilities,
    /// A filter of system calls.
    Seccomp,
    /// A second wall for files, and for signals and abstract sockets where the kernel has it.
    Landlock,
    /// Limits of memory, CPU time and processes, for all of a worker's processes together.
    Cgroup,
    /// Outbound connections out of a private network.
    Egress,
}

/// Why a layer cannot be had here, and what to do about it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Obstacle {
    /// The step that failed, as [`Failure`](crate::Failure) names it.
    pub step: String,
    /// The operating system's error number, where there is one.
    pub errno: Option<i32>,
    /// Why, in a person's words.
    pub reason: String,
    /// What to do.
    pub remedy: String,
}

impl Layer {
    /// All of them, from the outermost.
    pub const ALL: [Self; 13] = [
        Self::UserNamespace,
        Self::PidNamespace,
        Self::Files,
        Self::Ipc,
        Self::HostName,
        Self::Network,
        Self::CgroupNamespace,
        Self::Identity,
        Self::Capabilities,
        Self::Seccomp,
        Self::Landlock,
        Self::Cgroup,
        Self::Egress,
    ];

    /// What it is called in lists: `user namespace`, for example.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::UserNamespace => "user namespace",
            Self::PidNamespace => "PID namespace",
            Self::Files => "own root",
            Self::Ipc => "IPC namespace",
            Self::HostName => "UTS namespace",
            Self::Network => "network namespace",
            Self::CgroupNamespace => "cgroup namespace",
            Self::Identity => "own user",
            Self::Capabilities => "no capabilities",
            Self::Seccomp => "seccomp",
            Self::Landlock => "Landlock",
            Self::Cgroup => "cgroup limits",
            Self::Egress => "egress",
        }
    }
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "step '{}' fails", self.step)?;
        if let Some(errno) = self.errno {
            write!(f, " with {}", std::io::Error::from_raw_os_error(errno))?;
        }
        write!(f, ": {}; {}", self.reason, self.remedy)
    }
}

impl fmt::Display for Layer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
