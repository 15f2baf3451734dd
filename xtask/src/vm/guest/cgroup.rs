use std::{
    fs::{self, File},
    io::{self, Read as _, Seek as _},
    os::fd::AsFd as _,
    path::{Path, PathBuf},
    process::{Child, Command},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

const HIERARCHY: &str = "/sys/fs/cgroup";

/// How long killed processes may take to be gone.
const GONE_WITHIN: Duration = Duration::from_secs(20);

/// Lets cgroups below the root have the controllers that systemd lets services have.
pub(super) fn offer_controllers() -> Result<()> {
    let file = Path::new(HIERARCHY).join("cgroup.subtree_control");
    fs::write(&file, "+cpu +memory +pids").context("this kernel does not offer the controllers of limits")
}

/// A cgroup below the root, as a service of systemd with `Delegate=yes` has one.
#[derive(Debug)]
pub(super) struct Cgroup {
    directory: PathBuf,
}

impl Cgroup {
    pub(super) fn make(name: &str) -> Result<Self> {
        let directory = Path::new(HIERARCHY).join(name);
        fs::create_dir(&directory).with_context(|| format!("cannot make {}", directory.display()))?;
        Ok(Self { directory })
    }

    /// Starts a process in it. This one is single-threaded, so it may go there and back to have its child begin there.
    pub(super) fn spawn(&self, command: &mut Command) -> Result<Child> {
        enter(&self.directory)?;
        let child = command.spawn();
        enter(Path::new(HIERARCHY))?;
        child.with_context(|| format!("cannot start {}", command.get_program().display()))
    }

    pub(super) fn kill(&self) -> Result<()> {
        let file = self.directory.join("cgroup.kill");
        fs::write(&file, "1").with_context(|| format!("cannot write to {}", file.display()))
    }

    /// Kills what is left in it and removes it with all below it.
    pub(super) fn end(self) -> Result<()> {
        self.kill()?;
        self.await_empty()?;
        remove(&self.directory).with_context(|| format!("cannot remove {}", self.directory.display()))
    }

    fn await_empty(&self) -> Result<()> {
        // A change is told as an exceptional condition of the file that was read: cgroups(7), "cgroup.events file".
        let path = self.directory.join("cgroup.events");
        let mut file = File::open(&path).with_context(|| format!("cannot open {}", path.display()))?;
        loop {
            let mut events = String::new();
            let read = file.rewind().and_then(|()| file.read_to_string(&mut events));
            read.with_context(|| format!("cannot read {}", path.display()))?;
            if events.lines().any(|line| line == "populated 0") {
                return Ok(());
            }
            let mut changed = [PollFd::from_borrowed_fd(file.as_fd(), PollFlags::PRI)];
            let limit = Timespec::try_from(GONE_WITHIN)?;
            let count = poll(&mut changed, Some(&limit)).context("cannot wait for a cgroup")?;
            ensure!(count > 0, "killed processes are still in {} after {GONE_WITHIN:?}", self.directory.display());
        }
    }
}

/// "0" is the process that writes: cgroups(7).
fn enter(directory: &Path) -> Result<()> {
    fs::write(directory.join("cgroup.procs"), "0").with_context(|| format!("cannot enter {}", directory.display()))
}

/// The files in it are the kernel's and go with it; the directories go from the bottom up.
fn remove(directory: &Path) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove(&entry.path())?;
        }
    }
    fs::remove_dir(directory)
}
