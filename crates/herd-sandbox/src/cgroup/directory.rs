use std::{
    collections::HashSet,
    ffi::{CStr, CString},
    fs::File,
    io::{self, Read as _, Write as _},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::{AtFlags, CWD, Dir, FileType, FlockOperation, Mode, OFlags, flock, fstat, mkdirat, openat, unlinkat},
    io::Errno,
    process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal},
};

use super::text;

/// The directory of a cgroup, opened. What is done to it is done to this very cgroup, whatever its path leads to
/// meanwhile.
#[derive(Debug)]
pub(super) struct Directory {
    descriptor: OwnedFd,
    path: PathBuf,
}

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// A cgroup2 file system, as statfs(2) tells it.
const MAGIC: u64 = 0x6367_7270;

/// How long the processes of a cgroup may take to be frozen before they are killed while they run.
const FREEZING: Duration = Duration::from_secs(1);

impl Directory {
    /// Opens what need not be a cgroup.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let descriptor = openat(CWD, path, DIRECTORY, Mode::empty())?;
        Ok(Self { descriptor, path: path.to_owned() })
    }

    pub(super) fn child(&self, name: &str) -> io::Result<Self> {
        let descriptor = openat(&self.descriptor, name, DIRECTORY | OFlags::NOFOLLOW, Mode::empty())?;
        Ok(Self { descriptor, path: self.path.join(name) })
    }

    /// Makes a cgroup below this one.
    pub(super) fn make(&self, name: &str) -> io::Result<()> {
        Ok(mkdirat(&self.descriptor, name, Mode::from_raw_mode(0o755))?)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether this is a cgroup of version 2.
    pub(super) fn is_cgroup(&self) -> io::Result<bool> {
        // The type of the field differs between architectures.
        #[allow(clippy::unnecessary_cast, clippy::cast_sign_loss, clippy::allow_attributes)]
        Ok(rustix::fs::fstatfs(&self.descriptor)?.f_type as u64 == MAGIC)
    }

    /// Whether the two are the same directory.
    pub(super) fn is(&self, other: &Self) -> io::Result<bool> {
        let (one, other) = (fstat(&self.descriptor)?, fstat(&other.descriptor)?);
        Ok((one.st_dev, one.st_ino) == (other.st_dev, other.st_ino))
    }

    /// Locks the directory for as long as it stays open. `false` if somebody else has.
    pub(super) fn lock(&self) -> io::Result<bool> {
        match flock(&self.descriptor, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(true),
            Err(Errno::WOULDBLOCK) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    pub(super) fn read(&self, file: &str) -> io::Result<String> {
        let mut text = String::new();
        self.file(file, OFlags::RDONLY)?.read_to_string(&mut text)?;
        Ok(text)
    }

    /// Writes all of it at once, as the kernel wants it.
    pub(super) fn write(&self, file: &str, value: &str) -> io::Result<()> {
        // A short write would be another value than the one that was meant.
        let written = self.file(file, OFlags::WRONLY)?.write(value.as_bytes())?;
        if written == value.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
    }

    /// A file that holds one number.
    pub(super) fn number(&self, file: &str) -> io::Result<u64> {
        let text = self.read(file)?;
        text.trim_ascii().parse().map_err(|_| io::Error::new(io::ErrorKind::InvalidData, format!("{file}: {text:?}")))
    }

    /// The processes of this cgroup itself, without those of cgroups below.
    pub(super) fn pids(&self) -> io::Result<Vec<u32>> {
        match self.read("cgroup.procs") {
            Ok(text) => Ok(text::pids(&text)),
            // A threaded cgroup: its processes are those of the nearest one above that is not.
            Err(error) if Errno::from_io_error(&error) == Some(Errno::OPNOTSUPP) => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    /// Whether there are processes in it or below that are no zombies.
    pub(super) fn is_populated(&self) -> io::Result<bool> {
        match self.read("cgroup.events") {
            Ok(events) => Ok(text::value(&events, "populated") != Some(0)),
            Err(error) if is_gone(&error) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Waits until nothing is in it. `false` if something still is when the time is over.
    pub(super) fn wait_empty(&self, timeout: Duration) -> io::Result<bool> {
        self.wait_event("populated", 0, timeout)
    }

    fn wait_event(&self, key: &str, expected: u64, timeout: Duration) -> io::Result<bool> {
        let deadline = Instant::now().checked_add(timeout);
        let mut events = match self.file("cgroup.events", OFlags::RDONLY) {
            Ok(events) => events,
            Err(error) if is_gone(&error) => return Ok(true),
            Err(error) => return Err(error),
        };
        loop {
            // From its beginning each time; this is also what arms the next poll.
            let mut text = String::new();
            io::Seek::rewind(&mut events)?;
            match events.read_to_string(&mut text) {
                Ok(_) => {}
                Err(error) if is_gone(&error) => return Ok(true),
                Err(error) => return Err(error),
            }
            if text::value(&text, key) == Some(expected) {
                return Ok(true);
            }
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            if left == Some(Duration::ZERO) {
                return Ok(false);
            }
            let left = left.and_then(|left| Timespec::try_from(left).ok());
            match poll(&mut [PollFd::new(&events, PollFlags::PRI)], left.as_ref()) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Kills all that is in it and below. They are dying when it returns, not yet gone.
    pub(super) fn kill(&self) -> io::Result<()> {
        match self.write("cgroup.kill", "1") {
            Ok(()) => Ok(()),
            // Before Linux 5.14 there is no such file. Whatever else is wrong with it, nobody may live on for that.
            Err(_) => self.kill_each(),
        }
    }

    /// Freezes all that is in it, so that nothing forks any more, and kills one process after the other.
    fn kill_each(&self) -> io::Result<()> {
        // Without it those that are forked meanwhile are found in the next round.
        if self.write("cgroup.freeze", "1").is_ok() {
            self.wait_event("frozen", 1, FREEZING)?;
        }
        let mut killed = HashSet::new();
        loop {
            let mut found = Vec::new();
            self.visit(&mut |cgroup| {
                found.extend(open_processes(cgroup, &killed)?);
                Ok(())
            })?;
            if found.is_empty() {
                return Ok(());
            }
            for (pid, pidfd) in found {
                match pidfd_send_signal(pidfd, Signal::KILL) {
                    Ok(()) | Err(Errno::SRCH) => killed.insert(pid),
                    Err(error) => return Err(error.into()),
                };
            }
        }
    }

    /// This cgroup and all below.
    fn visit(&self, look: &mut dyn FnMut(&Self) -> io::Result<()>) -> io::Result<()> {
        unless_gone(look(self))?;
        for name in unless_gone(self.children())?.unwrap_or_default() {
            if let Some(child) = unless_gone(self.child(&name))? {
                child.visit(look)?;
            }
        }
        Ok(())
    }

    /// The names of the cgroups below.
    pub(super) fn children(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in Dir::read_from(&self.descriptor)? {
            let entry = entry?;
            if entry.file_type() == FileType::Directory && !is_dots(entry.file_name()) {
                // What is no UTF-8 was not made by us, and cannot be named to `child`.
                let name = entry.file_name().to_str().map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
                names.push(name.to_owned());
            }
        }
        Ok(names)
    }

    /// Removes an empty cgroup below, with all that are below that one. It may be gone already.
    ///
    /// # Errors
    /// `EBUSY` while there are processes.
    pub(super) fn remove(&self, name: &str) -> io::Result<()> {
        loop {
            match unlinkat(&self.descriptor, name, AtFlags::REMOVEDIR) {
                Ok(()) | Err(Errno::NOENT) => return Ok(()),
                // Processes, or cgroups below.
                Err(Errno::BUSY) => {}
                Err(error) => return Err(error.into()),
            }
            let Some(child) = unless_gone(self.child(name))? else { return Ok(()) };
            if !child.remove_deepest()? {
                return Err(Errno::BUSY.into());
            }
        }
    }

    /// Removes one of the innermost cgroups below, if there is any. One at a time: however deep somebody has nested
    /// them, it takes two descriptors.
    fn remove_deepest(&self) -> io::Result<bool> {
        let Some(mut name) = first_child(&self.descriptor)? else { return Ok(false) };
        let mut parent = self.descriptor.try_clone()?;
        loop {
            let current = openat(&parent, &name, DIRECTORY | OFlags::NOFOLLOW, Mode::empty())?;
            match first_child(&current)? {
                Some(below) => (parent, name) = (current, below),
                None => break,
            }
        }
        match unlinkat(&parent, &name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => Ok(true),
            Err(error) => Err(error.into()),
        }
    }

    fn file(&self, name: &str, flags: OFlags) -> io::Result<File> {
        Ok(openat(&self.descriptor, name, flags | OFlags::CLOEXEC | OFlags::NOFOLLOW, Mode::empty())?.into())
    }
}

impl AsFd for Directory {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

/// Opens the processes that are in this cgroup and not in `known`. Their numbers cannot be those of others by then.
fn open_processes(cgroup: &Directory, known: &HashSet<u32>) -> io::Result<Vec<(u32, OwnedFd)>> {
    let mut opened = Vec::new();
    for pid in cgroup.pids()?.into_iter().filter(|pid| !known.contains(pid)) {
        let Some(raw) = i32::try_from(pid).ok().and_then(Pid::from_raw) else {
            let message = "a process of another PID namespace is in the cgroup, and this kernel has no cgroup.kill";
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, message));
        };
        match pidfd_open(raw, PidfdFlags::empty()) {
            Ok(pidfd) => opened.push((pid, pidfd)),
            Err(Errno::SRCH) => {}
            Err(error) => return Err(error.into()),
        }
    }
    // A number that is still listed, now that the process is held, was its own all the time.
    let listed: HashSet<_> = cgroup.pids()?.into_iter().collect();
    opened.retain(|(pid, _)| listed.contains(pid));
    Ok(opened)
}

fn first_child(directory: &OwnedFd) -> io::Result<Option<CString>> {
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        if entry.file_type() == FileType::Directory && !is_dots(entry.file_name()) {
            return Ok(Some(entry.file_name().to_owned()));
        }
    }
    Ok(None)
}

fn is_dots(name: &CStr) -> bool {
    matches!(name.to_bytes(), b"." | b"..")
}

/// Whether the cgroup was removed: files cannot be opened in it any more, those that are open cannot be read.
fn is_gone(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::NOENT | Errno::NODEV))
}

fn unless_gone<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if is_gone(&error) => Ok(None),
        Err(error) => Err(error),
    }
}
