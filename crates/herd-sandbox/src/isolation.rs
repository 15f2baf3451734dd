use std::{os::fd::OwnedFd, path::PathBuf};

use crate::Egress;

/// How far a worker is sealed off from the host and from other workers.
///
/// What a mode cannot have is decided before anything is started.
#[derive(Debug)]
#[non_exhaustive]
pub struct Isolation {
    /// What becomes of a layer that this host cannot give.
    pub mode: Mode,
    /// Whom the worker runs as, as root only: see [`Identity`]. Without root it is always the launching user, under a
    /// user namespace that knows no other.
    pub identity: Option<Identity>,
    /// What the worker sees of the file system.
    pub files: Files,
    /// What the worker reaches of the network. Default: its own loopback.
    pub network: Network,
    /// What [`Network::Egress`] leads to beyond public addresses. Default: nothing.
    pub egress: Egress,
    /// Which system calls the worker may make. Default: [`Seccomp::Default`].
    pub seccomp: Seccomp,
    /// Whether the kernel logs system calls that are refused (`SECCOMP_FILTER_FLAG_LOG`, see seccomp(2)). Default: no.
    pub seccomp_log: bool,
    /// The host name that the worker sees. Default: `herd`.
    pub host_name: String,
    /// The directory of the cgroup into which init and the worker are born, see cgroups(7). Default: the launching
    /// process's own.
    pub cgroup: Option<OwnedFd>,
}

/// What is done where a layer of the sandbox cannot be had.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Mode {
    /// Nothing is isolated, and that was asked for. What needs no privilege and hides nothing is on all the same: a
    /// session of its own, closed descriptors, a clean environment, rlimits, `no_new_privs`.
    Off,
    /// The worker is started without the layer.
    BestEffort,
    /// Nothing is started.
    Required,
}

/// A user and a group of the host that belong to one worker alone.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Identity {
    /// The user ID. Not 0.
    pub uid: u32,
    /// The group ID. Not 0.
    pub gid: u32,
}

/// The worker's file system: a root of its own, on which the system's directories are readable.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Files {
    /// Paths of the host that are visible under the same name and cannot be changed, beyond the system's directories.
    pub read_only: Vec<PathBuf>,
    /// Paths of the host that are visible under the same name and can be changed, as far as their permissions allow.
    pub writable: Vec<PathBuf>,
    /// Paths that would be visible and are not: a directory appears empty, a file cannot be read.
    pub hidden: Vec<PathBuf>,
    /// Paths of the host that are visible under another name.
    pub mounts: Vec<Mount>,
    /// The size of `/tmp`, in bytes. Default: 64 MiB.
    pub tmp_limit: u64,
    /// The size of `/dev/shm`, in bytes. Default: 64 MiB.
    pub shm_limit: u64,
}

/// A directory or file of the host that the worker sees under a name of its own.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Mount {
    /// Where it is on the host.
    pub source: PathBuf,
    /// Where the worker sees it.
    pub target: PathBuf,
    /// Whether the worker may change it.
    pub writable: bool,
}

/// What a worker reaches of the network.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Network {
    /// A loopback of its own and nothing else.
    Private,
    /// What the host reaches, the host's own loopback included.
    Host,
    /// A loopback of its own, outbound TCP connections to public IPv4 addresses, and DNS. It takes a launching process
    /// that answers [`Report::Router`](crate::Report::Router).
    Egress,
}

/// Which system calls a worker may make.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Seccomp {
    /// What programs of all kinds need.
    Default,
    /// What a browser needs in addition to build its own sandbox: user, PID and network namespaces, and chroot(2).
    Browser,
    /// Everything.
    Off,
}

impl Isolation {
    /// No isolation: see [`Mode::Off`].
    #[must_use]
    pub fn off() -> Self {
        Self::new(Mode::Off)
    }

    /// The defaults that are named at each field.
    #[must_use]
    pub fn new(mode: Mode) -> Self {
        Self {
            mode,
            identity: None,
            files: Files::default(),
            network: Network::Private,
            egress: Egress::default(),
            seccomp: Seccomp::Default,
            seccomp_log: false,
            host_name: "herd".to_owned(),
            cgroup: None,
        }
    }
}

impl Files {
    /// The default size of `/tmp` and of `/dev/shm`, in bytes.
    pub const DEFAULT_LIMIT: u64 = 64 * 1024 * 1024;

    /// What every worker may read of the host: programs, libraries and their data.
    pub const SYSTEM: [&str; 10] =
        ["/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/opt", "/nix/store", "/gnu/store"];

    /// What a worker with a root of its own has for itself, whatever the host has there.
    pub const OWN: [&str; 9] = [
        "/dev",
        "/proc",
        "/sys",
        "/etc/group",
        "/etc/hostname",
        "/etc/hosts",
        "/etc/nsswitch.conf",
        "/etc/passwd",
        "/etc/resolv.conf",
    ];
}

impl Default for Files {
    fn default() -> Self {
        Self {
            read_only: Vec::new(),
            writable: Vec::new(),
            hidden: Vec::new(),
            mounts: Vec::new(),
            tmp_limit: Self::DEFAULT_LIMIT,
            shm_limit: Self::DEFAULT_LIMIT,
        }
    }
}
