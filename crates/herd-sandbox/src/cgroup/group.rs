use std::{
    io, mem,
    os::fd::{AsFd, BorrowedFd},
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    CgroupError, CgroupUsage,
    directory::Directory,
    root::{Workers, is_busy},
    text,
};

/// The cgroup of one worker.
///
/// Dropping it kills what is in it and removes it, if need be with the next cgroup that is made, or with its
/// [`CgroupRoot`](super::CgroupRoot).
#[derive(Debug)]
pub struct Cgroup {
    directory: Directory,
    /// Empty once it was removed.
    name: String,
    workers: Arc<Workers>,
}

/// How long a cgroup may stay busy that tells to be empty.
const BUSY: Duration = Duration::from_secs(10);

impl Cgroup {
    /// Opens a cgroup that was made just now.
    pub(super) fn open(workers: Arc<Workers>, name: &str) -> Result<Self, CgroupError> {
        let directory = match workers.directory().child(name) {
            Ok(directory) => directory,
            Err(error) => {
                workers.abandon(name.to_owned());
                return Err(CgroupError::io("open a worker's cgroup", workers.directory().path().join(name))(error));
            }
        };
        Ok(Self { directory, name: name.to_owned(), workers })
    }

    /// What it was named when it was made.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Its directory, opened to be read: what `CLONE_INTO_CGROUP` needs (see clone(2)).
    #[must_use]
    pub fn directory(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }

    pub(super) fn directory_file(&self) -> &Directory {
        &self.directory
    }

    /// What its processes use, and what those have used that have ended.
    ///
    /// # Errors
    /// Those of reading the cgroup's files. `InvalidData` for one that has other contents than are documented.
    pub fn usage(&self) -> io::Result<CgroupUsage> {
        let value = |file: &str, text: &str, key: &str| {
            text::value(text, key)
                .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, format!("{file} has no line {key}")))
        };
        let cpu = self.directory.read("cpu.stat")?;
        let time = |key| value("cpu.stat", &cpu, key).map(Duration::from_micros);
        let memory_events = self.directory.read("memory.events")?;
        let pids_events = self.directory.read("pids.events")?;
        let memory_peak = match self.directory.number("memory.peak") {
            Ok(peak) => Some(peak),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        Ok(CgroupUsage {
            cpu: time("usage_usec")?,
            cpu_user: time("user_usec")?,
            cpu_system: time("system_usec")?,
            // Missing in kernels that cannot limit CPU time, where there is none of these cgroups.
            throttled: text::value(&cpu, "nr_throttled").unwrap_or_default(),
            memory: self.directory.number("memory.current")?,
            memory_peak,
            pids: self.directory.number("pids.current")?,
            pids_refused: value("pids.events", &pids_events, "max")?,
            oom_kills: value("memory.events", &memory_events, "oom_kill")?,
        })
    }

    /// Kills all that is in it, whatever session or process group it has gone to: `cgroup.kill`, or before Linux 5.14
    /// one after the other while all are frozen. They are dying when this returns; [`wait_empty`](Self::wait_empty)
    /// waits until they are gone.
    ///
    /// # Errors
    /// Those of writing `cgroup.kill`, and of sending signals.
    pub fn kill(&self) -> io::Result<()> {
        self.directory.kill()
    }

    /// Whether any process is in it. Zombies do not count.
    ///
    /// # Errors
    /// Those of reading `cgroup.events`.
    pub fn is_populated(&self) -> io::Result<bool> {
        self.directory.is_populated()
    }

    /// Waits until no process is in it. `false` if there still is one when the time is over.
    ///
    /// # Errors
    /// Those of reading `cgroup.events` and of poll(2).
    pub fn wait_empty(&self, timeout: Duration) -> io::Result<bool> {
        self.directory.wait_empty(timeout)
    }

    /// Removes it, and what was made below it. Kills nothing: it waits until the last process has ended, for 10 seconds
    /// at most.
    ///
    /// # Errors
    /// [`CgroupError`]: it is dropped then, with all that means.
    pub fn remove(mut self) -> Result<(), CgroupError> {
        let deadline = Instant::now() + BUSY;
        let failed = CgroupError::io("remove a worker's cgroup", self.path().to_owned());
        loop {
            match self.workers.directory().remove(&self.name) {
                Ok(()) => {
                    self.name.clear();
                    return Ok(());
                }
                Err(error) if is_busy(&error) => {}
                Err(error) => return Err(failed(error)),
            }
            match self.directory.wait_empty(deadline.saturating_duration_since(Instant::now())) {
                Ok(true) if Instant::now() < deadline => {}
                Ok(_) => return Err(failed(io::Error::new(io::ErrorKind::TimedOut, "its processes do not end"))),
                Err(error) => return Err(failed(error)),
            }
        }
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        if self.name.is_empty() {
            return;
        }
        // If that fails it stays populated, and removing its parent at the latest tries again.
        let _ = self.directory.kill();
        if self.workers.directory().remove(&self.name).is_err() {
            self.workers.abandon(mem::take(&mut self.name));
        }
    }
}
