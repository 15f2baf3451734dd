use std::{
    collections::BTreeMap,
    fs,
    os::fd::OwnedFd,
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, PidfdFlags, pidfd_open},
};

/// Some processes of this machine: their IDs and names.
#[derive(Debug, Default, Eq, PartialEq)]
pub(crate) struct Processes(BTreeMap<u32, String>);

impl Processes {
    /// All descendants of a process.
    pub(crate) fn below(ancestor: u32) -> Self {
        let parents: BTreeMap<u32, (u32, String)> =
            all().filter_map(|pid| Some((pid, parent_and_name(pid)?))).collect();
        let descends = |mut pid: u32| {
            while let Some((parent, _)) = parents.get(&pid) {
                if *parent == ancestor {
                    return true;
                }
                pid = *parent;
            }
            false
        };
        Self(parents.iter().filter(|(pid, _)| descends(**pid)).map(|(pid, (_, name))| (*pid, name.clone())).collect())
    }

    /// All processes that were started with this variable (`NAME=value`) in their environment.
    pub(crate) fn with_variable(variable: &str) -> Self {
        let has = |pid: &u32| {
            let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            environment.split(|byte| *byte == 0).any(|entry| entry == variable.as_bytes())
        };
        Self(all().filter(has).filter_map(|pid| Some((pid, parent_and_name(pid)?.1))).collect())
    }

    pub(crate) fn pids(&self) -> impl Iterator<Item = u32> {
        self.0.keys().copied()
    }

    pub(crate) fn count(&self, name: &str) -> usize {
        self.0.values().filter(|other| *other == name).count()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Holds on to processes so that their ends are events, and their IDs are not mistaken for those of others.
#[derive(Debug)]
pub(crate) struct Watch(Vec<(u32, OwnedFd)>);

impl Watch {
    /// Those that have ended already are left out.
    pub(crate) fn of(pids: impl IntoIterator<Item = u32>) -> Self {
        let open = |pid: u32| {
            let pid_of_it = Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
            Some((pid, pidfd_open(pid_of_it, PidfdFlags::empty()).ok()?))
        };
        Self(pids.into_iter().filter_map(open).collect())
    }

    /// Returns when all have ended.
    pub(crate) fn wait_for_exits(&self, timeout: Duration) {
        let left = self.left_after(timeout);
        assert!(left.is_empty(), "still there after {timeout:?}: {left:?}");
    }

    /// Waits until all have ended, and returns those that have not in time.
    pub(crate) fn left_after(&self, timeout: Duration) -> Processes {
        let start = Instant::now();
        let runs = |pidfd: &OwnedFd| {
            let left = Timespec::try_from(timeout.saturating_sub(start.elapsed())).unwrap();
            // A pidfd is readable when its process has ended; see pidfd_open(2).
            poll(&mut [PollFd::new(pidfd, PollFlags::IN)], Some(&left)).unwrap() == 0
        };
        let left = self.0.iter().filter(|(_, pidfd)| runs(pidfd));
        Processes(left.filter_map(|(pid, _)| Some((*pid, parent_and_name(*pid)?.1))).collect())
    }
}

fn all() -> impl Iterator<Item = u32> {
    fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
}

/// See proc_pid_stat(5). Nothing if the process is gone, or has ended and waits to be reaped.
fn parent_and_name(pid: u32) -> Option<(u32, String)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (name, rest) = stat.split_once('(')?.1.rsplit_once(')')?;
    let mut fields = rest.split_whitespace();
    let state = fields.next()?;
    let parent = fields.next()?.parse().ok()?;
    (state != "Z").then(|| (parent, name.to_owned()))
}
