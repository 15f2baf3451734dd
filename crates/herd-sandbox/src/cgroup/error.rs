use std::{fmt::Write as _, io, path::PathBuf};

use super::Controller;
use crate::host::Obstacle;

/// Why workers cannot be limited, or why something about a cgroup failed.
///
/// The message says what is in the way, [`remedy`](Self::remedy) what to do about it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CgroupError {
    /// No hierarchy of version 2 is mounted.
    #[error("no cgroup v2 hierarchy is mounted")]
    NoHierarchy,
    /// There is a hierarchy of version 2, but the controllers belong to version 1: a "hybrid" host.
    #[error("cgroup v1 holds the controllers {}, so cgroup v2 cannot limit anything (a hybrid host)", names(.controllers))]
    Hybrid {
        /// Those that version 1 holds, of those that are needed.
        controllers: Vec<Controller>,
    },
    /// The mounted hierarchy does not show the cgroup of this process.
    #[error("this process is in the cgroup {cgroup:?}, which no mounted hierarchy shows")]
    Invisible {
        /// As `/proc/self/cgroup` names it.
        cgroup: String,
    },
    /// What was named is no directory of a cgroup v2 hierarchy.
    #[error("{path:?} is no cgroup v2")]
    NoCgroup {
        /// What was named.
        path: PathBuf,
    },
    /// The hierarchy is mounted read-only, as it is inside of most containers.
    #[error("the cgroup hierarchy at {path:?} is mounted read-only")]
    ReadOnly {
        /// Where it is mounted.
        path: PathBuf,
    },
    /// This process is at the top of the host's hierarchy, which belongs to the system.
    #[error("the top of the host's cgroup hierarchy, {path:?}, belongs to the system and is not herd's to use")]
    Top {
        /// Where the hierarchy is mounted.
        path: PathBuf,
    },
    /// The cgroup of this process is not this process's to divide.
    #[error("the cgroup {path:?} is not delegated to this process")]
    NotDelegated {
        /// The cgroup.
        path: PathBuf,
        /// Whether this process is root.
        root: bool,
        /// What was refused. `None` if nothing was, but the system's manager does not know of a delegation and would
        /// take limits back whenever it looks after its own.
        #[source]
        source: Option<io::Error>,
    },
    /// Controllers are missing in the delegated cgroup.
    #[error("the cgroup {path:?} lacks the controllers {}", names(.missing))]
    MissingControllers {
        /// The cgroup.
        path: PathBuf,
        /// Those that are missing there, of those that are needed.
        missing: Vec<Controller>,
        /// Those of them that the kernel was told not to have when it was booted.
        disabled: Vec<Controller>,
    },
    /// Other processes are in the cgroup, which may have no processes once it is divided.
    #[error("other processes are in the cgroup {path:?}: {}", numbers(.pids))]
    OtherProcesses {
        /// The cgroup.
        path: PathBuf,
        /// Their PIDs; 0 for one of another PID namespace.
        pids: Vec<u32>,
    },
    /// The host swaps, but the kernel does not count it, so memory could be had beyond the limit.
    #[error("this host has swap space, and its kernel cannot keep a cgroup out of it")]
    UnlimitedSwap,
    /// A limit or a name that cannot be.
    #[error("{what} cannot be {value}: {reason}")]
    Invalid {
        /// What it is for: `the CPU limit`.
        what: &'static str,
        /// What was given.
        value: String,
        /// Why it cannot be.
        reason: &'static str,
    },
    /// The operating system refused.
    #[error("cannot {step} ({path:?})")]
    Io {
        /// What was tried: `set the memory limit`.
        step: &'static str,
        /// On which file or directory.
        path: PathBuf,
        /// Why it was refused.
        source: io::Error,
    },
}

impl CgroupError {
    /// What was being done.
    #[must_use]
    pub fn step(&self) -> &'static str {
        match self {
            Self::NoHierarchy | Self::Hybrid { .. } | Self::Invisible { .. } | Self::NoCgroup { .. } => {
                "find the cgroup v2 hierarchy"
            }
            Self::ReadOnly { .. } | Self::Top { .. } | Self::NotDelegated { .. } | Self::OtherProcesses { .. } => {
                "find a delegated cgroup"
            }
            Self::MissingControllers { .. } => "enable the cgroup controllers",
            Self::UnlimitedSwap => "set the swap limit",
            Self::Invalid { .. } => "read the limits",
            Self::Io { step, .. } => step,
        }
    }

    /// The operating system's error number, where there is one.
    #[must_use]
    pub fn errno(&self) -> Option<i32> {
        match self {
            Self::Io { source, .. } | Self::NotDelegated { source: Some(source), .. } => source.raw_os_error(),
            Self::ReadOnly { .. } => Some(rustix::io::Errno::ROFS.raw_os_error()),
            Self::OtherProcesses { .. } => Some(rustix::io::Errno::BUSY.raw_os_error()),
            _ => None,
        }
    }

    /// What to do about it, as a sentence without its full stop.
    #[must_use]
    pub fn remedy(&self) -> String {
        match self {
            Self::NoHierarchy => "boot a system with cgroup v2 (systemd.unified_cgroup_hierarchy=1), or mount it: \
                                  mount -t cgroup2 none /sys/fs/cgroup"
                .into(),
            Self::Hybrid { .. } => {
                "boot with systemd.unified_cgroup_hierarchy=1 on the kernel's command line (without \
                                    systemd: cgroup_no_v1=all, and mount cgroup2 alone)"
                    .into()
            }
            Self::Invisible { .. } => {
                "mount the hierarchy in this cgroup namespace: mount -t cgroup2 none /sys/fs/cgroup".into()
            }
            Self::NoCgroup { .. } => "name a directory below a cgroup2 mount, such as /sys/fs/cgroup/herd".into(),
            Self::ReadOnly { .. } => "make it writable: docker run --security-opt writable-cgroups=true (Docker 28), \
                                      podman run --security-opt unmask=/sys/fs/cgroup, or --privileged"
                .into(),
            Self::Top { path } => format!(
                "start herd as a systemd unit with Delegate=yes, or with {SYSTEM_SCOPE}; without systemd in a \
                 cgroup made for it: mkdir {0}/herd && echo '+cpu +memory +pids' > {0}/cgroup.subtree_control && sh -c \
                 'echo 0 > {0}/herd/cgroup.procs && exec herd …'",
                path.display()
            ),
            Self::NotDelegated { root: true, .. } => {
                format!("start herd as a systemd unit with Delegate=yes, or with {SYSTEM_SCOPE}")
            }
            Self::NotDelegated { root: false, .. } => format!("start herd with {USER_SCOPE}"),
            Self::MissingControllers { disabled, .. } if !disabled.is_empty() => {
                let mut parameters = String::new();
                for controller in disabled {
                    let _ = write!(parameters, " cgroup_enable={controller}");
                }
                format!("take cgroup_disable= off the kernel's command line, or add{parameters} to it, and boot again")
            }
            Self::MissingControllers { .. } => {
                "have them delegated too: Delegate=cpu memory pids in the unit (for users \
                                                in user@.service: systemctl edit user@.service, then log in again); \
                                                without systemd: echo '+cpu +memory +pids' > cgroup.subtree_control in \
                                                every cgroup above"
                    .into()
            }
            Self::OtherProcesses { .. } => {
                format!("give herd a cgroup of its own: {SYSTEM_SCOPE}, or as a user {USER_SCOPE}")
            }
            Self::UnlimitedSwap => "boot with swapaccount=1, or switch swap off: swapoff -a".into(),
            Self::Invalid { .. } => "give a value that can be".into(),
            Self::Io { .. } => format!(
                "see that nothing else writes below herd's cgroup, and that it is delegated: {SYSTEM_SCOPE}, or as a \
                 user {USER_SCOPE}"
            ),
        }
    }

    /// The same for a list of what a host cannot give.
    #[must_use]
    pub fn obstacle(&self) -> Obstacle {
        let mut reason = self.to_string();
        if let Some(source) = std::error::Error::source(self) {
            let _ = write!(reason, ": {source}");
        }
        Obstacle { step: self.step().to_owned(), errno: self.errno(), reason, remedy: self.remedy() }
    }

    pub(super) fn io(step: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { step, path, source }
    }
}

const SYSTEM_SCOPE: &str = "systemd-run --scope -p Delegate=yes herd …";
const USER_SCOPE: &str = "systemd-run --user --scope -p Delegate=yes herd …";

fn names(controllers: &[Controller]) -> String {
    let names: Vec<_> = controllers.iter().map(|controller| controller.name()).collect();
    names.join(", ")
}

fn numbers(pids: &[u32]) -> String {
    /// More say no more.
    const SHOWN: usize = 8;
    let shown: Vec<_> = pids
        .iter()
        .take(SHOWN)
        .map(|pid| if *pid == 0 { "one of another PID namespace".to_owned() } else { pid.to_string() })
        .collect();
    let rest = pids.len().saturating_sub(SHOWN);
    let shown = shown.join(", ");
    if rest == 0 { shown } else { format!("{shown} and {rest} more") }
}
