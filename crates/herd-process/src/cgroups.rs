//! Limits of all of a worker's processes together, and what they use.

use std::{
    io,
    os::fd::OwnedFd,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use herd_pool::{Exit, ExitStatus};
use herd_sandbox::{
    Signal,
    cgroup::{Cgroup, CgroupError, CgroupRoot, CgroupUsage, Delegation, Limits},
};

/// The part of the hierarchy that was delegated to this process. It can be taken into use once.
static ROOT: Mutex<Weak<CgroupRoot>> = Mutex::new(Weak::new());

/// Makes a cgroup for each worker of a factory.
#[derive(Debug)]
pub(crate) struct Cgroups {
    root: Arc<CgroupRoot>,
    limits: Limits,
    /// What the names of this factory's cgroups begin with.
    prefix: String,
}

/// Whether workers could have cgroups. Changes nothing.
pub(crate) fn look() -> Result<(), CgroupError> {
    if root().upgrade().is_some() { Ok(()) } else { Delegation::find().map(drop) }
}

fn root() -> MutexGuard<'static, Weak<CgroupRoot>> {
    ROOT.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Cgroups {
    /// Takes the delegated cgroup into use, unless that was done already, and ends what killed daemons have left there.
    pub(crate) fn open(limits: Limits, prefix: String) -> Result<Self, CgroupError> {
        let mut shared = root();
        let root = match shared.upgrade() {
            Some(root) => root,
            None => {
                let root = Arc::new(CgroupRoot::open()?);
                match root.sweep() {
                    Ok(0) => {}
                    Ok(daemons) => tracing::info!(daemons, "ended the workers that killed daemons left behind"),
                    Err(error) => tracing::warn!(%error, "what a killed daemon left could not be removed"),
                }
                *shared = Arc::downgrade(&root);
                root
            }
        };
        drop(shared);
        // Of what is limited, init is no part that anybody asked for.
        let pids = limits.pids.map(|pids| pids.saturating_add(1));
        Ok(Self { root, limits: Limits { pids, ..limits }, prefix })
    }

    /// A cgroup for one try to start a worker, with the limits in force.
    pub(crate) fn create(&self, name: &str) -> Result<WorkerCgroup, CgroupError> {
        let cgroup = self.root.create(&format!("{}-{name}", self.prefix), &self.limits)?;
        Ok(WorkerCgroup(Arc::new(Mutex::new(State { cgroup: Some(cgroup), last: None }))))
    }
}

/// The cgroup of one worker. Cheap to clone; it is removed when the worker is gone, whoever still holds one.
#[derive(Clone, Debug)]
pub(crate) struct WorkerCgroup(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    cgroup: Option<Cgroup>,
    /// What was used in the end.
    last: Option<CgroupUsage>,
}

impl WorkerCgroup {
    /// Its directory, for the launch of a process into it.
    pub(crate) fn directory(&self) -> io::Result<OwnedFd> {
        match &self.state().cgroup {
            Some(cgroup) => cgroup.directory().try_clone_to_owned(),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    /// What the worker's processes use, or have used in the end.
    pub(crate) fn usage(&self) -> io::Result<CgroupUsage> {
        let state = self.state();
        match (&state.cgroup, state.last) {
            (Some(cgroup), _) => cgroup.usage(),
            (None, Some(last)) => Ok(last),
            (None, None) => Err(io::ErrorKind::NotFound.into()),
        }
    }

    /// Kills all that is in it.
    pub(crate) fn kill(&self) {
        if let Some(cgroup) = &self.state().cgroup
            && let Err(error) = cgroup.kill()
        {
            tracing::warn!(cgroup = cgroup.name(), %error, "a worker's cgroup could not be killed");
        }
    }

    /// Says of an exit whether the memory limit was its cause.
    pub(crate) fn explain(&self, exit: Exit) -> Exit {
        let killed = ExitStatus::Signal(Signal::KILL.number());
        // Init is killed with the others, and cannot tell then.
        let may_be = exit.status == killed || exit.status == ExitStatus::Unknown;
        let out_of_memory = may_be && self.usage().is_ok_and(|usage| usage.oom_kills > 0);
        if out_of_memory { Exit { status: killed, out_of_memory, ..exit } } else { exit }
    }

    /// Ends what is left in it and removes it. Blocks for as long as that takes.
    pub(crate) fn remove(&self) {
        let mut state = self.state();
        let Some(cgroup) = state.cgroup.take() else { return };
        state.last = cgroup.usage().ok();
        drop(state);
        // The worker's processes are gone, unless one left its PID namespace's or its init's reach.
        if cgroup.is_populated().unwrap_or(true)
            && let Err(error) = cgroup.kill()
        {
            tracing::warn!(cgroup = cgroup.name(), %error, "a worker's cgroup could not be killed");
        }
        let name = cgroup.name().to_owned();
        if let Err(error) = cgroup.remove() {
            tracing::warn!(cgroup = name, %error, "a worker's cgroup could not be removed");
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
