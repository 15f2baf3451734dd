use std::{
    io,
    path::Path,
    process,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use super::{
    Cgroup, CgroupError, Controller, Delegation, Limits,
    delegation::{DAEMON, Seat},
    directory::Directory,
    limits::SWAP,
    text,
};

/// The part of the hierarchy where this process may work, taken into use. It makes one [`Cgroup`] for each worker.
///
/// Dropped together with the last of its cgroups, it removes what it made. What cannot be removed then, the next
/// daemon's [`sweep`](Self::sweep) removes.
#[derive(Clone, Debug)]
pub struct CgroupRoot {
    workers: Arc<Workers>,
}

/// How the cgroups begin that hold the workers of one launching process each.
const WORKERS: &str = "herd-workers-";

/// How often a name for one of these is looked for: a process has a few at most.
const NAMES: u32 = 1000;

/// How long killed processes may take to be gone. They are gone in milliseconds, unless they hang in the kernel.
const DYING: Duration = Duration::from_secs(10);

/// How long the end of a daemon waits for that.
const DYING_WITH_ROOT: Duration = Duration::from_secs(1);

impl CgroupRoot {
    /// Finds the cgroup that is delegated to this process ([`Delegation::find`]) and takes it into use.
    ///
    /// # Errors
    /// [`CgroupError`]; nothing has changed then.
    pub fn open() -> Result<Self, CgroupError> {
        Self::take(&Delegation::find()?)
    }

    /// Takes a cgroup into use that somebody made for this ([`Delegation::at`]).
    ///
    /// # Errors
    /// [`CgroupError`]; nothing has changed then.
    pub fn open_at(path: impl AsRef<Path>) -> Result<Self, CgroupError> {
        Self::take(&Delegation::at(path)?)
    }

    /// Takes a delegated cgroup into use: moves this process into a cgroup `herd-daemon` below it, with all of its
    /// threads, if it is in it itself, as a cgroup with processes cannot be divided; hands the controllers on to the
    /// cgroups below, and makes one for the workers of this process. Children that this process had before stay where
    /// they are, and are in the way.
    ///
    /// # Errors
    /// [`CgroupError`]; nothing has changed then.
    pub fn take(delegation: &Delegation) -> Result<Self, CgroupError> {
        let delegated =
            Directory::open(delegation.path()).map_err(CgroupError::io("open the cgroup", delegation.path()))?;
        match delegated.is_cgroup() {
            Ok(true) => {}
            Ok(false) => return Err(CgroupError::NoCgroup { path: delegation.path().to_owned() }),
            Err(error) => return Err(CgroupError::io("open the cgroup", delegation.path())(error)),
        }
        let moved = Moved::out_of(&delegated, delegation.seat)?;
        let enabled = match enable(&delegated) {
            Ok(enabled) => enabled,
            Err(error) => {
                moved.undo(&delegated);
                return Err(error);
            }
        };
        let workers = Workers::new(delegated).map_err(|(delegated, error)| {
            disable(&delegated, &enabled);
            moved.undo(&delegated);
            error
        });
        Ok(Self { workers: Arc::new(workers?) })
    }

    /// The directory that holds the workers' cgroups.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.workers.directory.path()
    }

    /// Ends and removes what daemons have left in the same delegated cgroup that are no more, and tells how many of them
    /// there were. What belongs to a living one is not touched: as long as it lives it holds a lock (flock(2)), which
    /// the kernel takes back at whatever end.
    ///
    /// Blocks until all of it is gone, for 10 seconds at most.
    ///
    /// # Errors
    /// [`CgroupError`] for the first of them that could not be removed; the others are.
    pub fn sweep(&self) -> Result<usize, CgroupError> {
        const STEP: &str = "remove what a former daemon left";
        let delegated = &self.workers.delegated;
        let names = delegated.children().map_err(CgroupError::io(STEP, delegated.path()))?;
        let deadline = Instant::now() + DYING;
        let mut swept = Ok(0);
        for name in names.iter().filter(|name| name.starts_with(WORKERS)) {
            let result = sweep_one(delegated, name, deadline.saturating_duration_since(Instant::now()));
            match (result, &mut swept) {
                (Ok(gone), Ok(count)) => *count += usize::from(gone),
                (Err(error), Ok(_)) => swept = Err(CgroupError::io(STEP, delegated.path().join(name))(error)),
                (_, Err(_)) => {}
            }
        }
        swept
    }

    /// Makes a cgroup for one worker, with its limits in force. A name is up to 128 letters, digits, hyphens and
    /// underscores, and free again once the cgroup was removed.
    ///
    /// # Errors
    /// [`CgroupError`], if but one of the limits is not in force. Nothing is left then.
    pub fn create(&self, name: &str, limits: &Limits) -> Result<Cgroup, CgroupError> {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        if name.is_empty() || name.len() > 128 || !name.bytes().all(is_plain) {
            let reason = "it must be of up to 128 letters, digits, hyphens and underscores";
            return Err(CgroupError::Invalid { what: "the name of a cgroup", value: format!("{name:?}"), reason });
        }
        let settings = limits.settings()?;
        self.workers.clear();
        let parent = &self.workers.directory;
        parent.make(name).map_err(CgroupError::io("make a cgroup for a worker", parent.path().join(name)))?;
        // From here on dropping it removes it.
        let cgroup = Cgroup::open(Arc::clone(&self.workers), name)?;
        for setting in &settings {
            match cgroup.directory_file().write(setting.file, &setting.value) {
                Ok(()) => {}
                Err(error) if setting.file == SWAP && error.kind() == io::ErrorKind::NotFound => without_swap()?,
                Err(error) => return Err(CgroupError::io(setting.step, cgroup.path().join(setting.file))(error)),
            }
        }
        Ok(cgroup)
    }
}

/// The cgroup of one launching process's workers.
#[derive(Debug)]
pub(super) struct Workers {
    delegated: Directory,
    /// Locked as long as it is open.
    directory: Directory,
    name: String,
    /// Cgroups that were dropped while their processes were dying.
    abandoned: Mutex<Vec<String>>,
}

impl Workers {
    /// Gives the delegated cgroup back if that fails.
    fn new(delegated: Directory) -> Result<Self, (Directory, CgroupError)> {
        let (directory, name) = match make_workers(&delegated) {
            Ok(made) => made,
            Err(error) => return Err((delegated, error)),
        };
        match enable(&directory) {
            Ok(_) => Ok(Self { delegated, directory, name, abandoned: Mutex::default() }),
            Err(error) => {
                // On the way to an error, and empty.
                let _ = delegated.remove(&name);
                Err((delegated, error))
            }
        }
    }

    pub(super) fn directory(&self) -> &Directory {
        &self.directory
    }

    /// Leaves a cgroup to be removed later.
    pub(super) fn abandon(&self, name: String) {
        self.abandoned.lock().unwrap_or_else(PoisonError::into_inner).push(name);
    }

    /// Removes what was abandoned and is empty by now.
    pub(super) fn clear(&self) {
        let mut abandoned = self.abandoned.lock().unwrap_or_else(PoisonError::into_inner);
        abandoned.retain(|name| self.directory.remove(name).is_err());
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        // Whatever fails here is left to the next daemon's sweep, which reports it.
        let _ = remove(&self.delegated, &self.directory, &self.name, DYING_WITH_ROOT);
    }
}

/// Makes a cgroup for the workers of this process and locks it.
fn make_workers(delegated: &Directory) -> Result<(Directory, String), CgroupError> {
    const STEP: &str = "make a cgroup for the workers";
    let pid = process::id();
    for number in 1..=NAMES {
        // A PID is unique in its PID namespace, but there may be several below one delegated cgroup.
        let name = if number == 1 { format!("{WORKERS}{pid}") } else { format!("{WORKERS}{pid}-{number}") };
        match delegated.make(&name) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
            Err(error) => return Err(CgroupError::io(STEP, delegated.path().join(name))(error)),
        }
        // Somebody who sweeps may have seen it before it was locked, and removes it; then the next name may last.
        match lock(delegated, &name) {
            Ok(Some(directory)) => return Ok((directory, name)),
            Ok(None) => {}
            Err(error) => return Err(CgroupError::io(STEP, delegated.path().join(name))(error)),
        }
    }
    Err(CgroupError::io(STEP, delegated.path())(io::ErrorKind::AlreadyExists.into()))
}

/// The move of this process, and with it others of its container, out of a cgroup that is to be divided.
#[derive(Debug)]
struct Moved {
    /// Where to, and from where.
    to: Option<(Directory, Seat)>,
}

impl Moved {
    fn out_of(delegated: &Directory, seat: Seat) -> Result<Self, CgroupError> {
        if seat == Seat::Apart {
            return Ok(Self { to: None });
        }
        let path = delegated.path().join(DAEMON);
        let failed = || CgroupError::io("move this process out of the cgroup that is divided", &path);
        match delegated.make(DAEMON) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(failed()(error)),
            _ => {}
        }
        let daemon = delegated.child(DAEMON).map_err(failed())?;
        // 0 is whoever writes it.
        daemon.write("cgroup.procs", "0").map_err(failed())?;
        let others = if seat == Seat::Container { move_all(delegated, &daemon) } else { Ok(()) };
        let moved = Self { to: Some((daemon, seat)) };
        if let Err(error) = others {
            moved.undo(delegated);
            return Err(failed()(error));
        }
        Ok(moved)
    }

    /// Best effort, on the way to an error: who was moved goes back.
    fn undo(self, delegated: &Directory) {
        let Some((daemon, seat)) = self.to else { return };
        let _ = match seat {
            Seat::Container => move_all(&daemon, delegated),
            _ => delegated.write("cgroup.procs", "0"),
        };
        let _ = delegated.remove(DAEMON);
    }
}

/// Moves all processes from one cgroup to another. They may be forking meanwhile.
fn move_all(from: &Directory, to: &Directory) -> io::Result<()> {
    /// Each round leaves only those that were forked during the one before.
    const ROUNDS: usize = 100;
    for _ in 0..ROUNDS {
        let pids = from.pids()?;
        if pids.is_empty() {
            return Ok(());
        }
        for pid in pids {
            match to.write("cgroup.procs", &pid.to_string()) {
                Ok(()) => {}
                // It has ended.
                Err(error) if error.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error()) => {}
                Err(error) => return Err(error),
            }
        }
    }
    Err(rustix::io::Errno::BUSY.into())
}

/// Where the controllers are that the cgroups below have.
const HANDED_ON: &str = "cgroup.subtree_control";

/// Hands the controllers on to the cgroups below. Those that were not before are returned.
fn enable(directory: &Directory) -> Result<Vec<Controller>, CgroupError> {
    let failed = || CgroupError::io("enable the cgroup controllers", directory.path().join(HANDED_ON));
    let missing = text::missing(&directory.read(HANDED_ON).map_err(failed())?);
    if missing.is_empty() {
        return Ok(missing);
    }
    match directory.write(HANDED_ON, &signed('+', &missing)) {
        Ok(()) => Ok(missing),
        // Somebody has come in between.
        Err(error) if is_busy(&error) => {
            let pids = directory.pids().map_err(failed())?;
            if pids.is_empty() {
                return Err(failed()(error));
            }
            Err(CgroupError::OtherProcesses { path: directory.path().to_owned(), pids })
        }
        Err(error) => Err(failed()(error)),
    }
}

/// Best effort, on the way to an error.
fn disable(directory: &Directory, controllers: &[Controller]) {
    if !controllers.is_empty() {
        let _ = directory.write(HANDED_ON, &signed('-', controllers));
    }
}

fn signed(sign: char, controllers: &[Controller]) -> String {
    let signed: Vec<_> = controllers.iter().map(|controller| format!("{sign}{controller}")).collect();
    signed.join(" ")
}

/// Opens and locks what is still there under this name. `None` if somebody else holds it, or has removed it.
fn lock(delegated: &Directory, name: &str) -> io::Result<Option<Directory>> {
    let open = || match delegated.child(name) {
        Ok(directory) => Ok(Some(directory)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    };
    let Some(directory) = open()? else { return Ok(None) };
    if !directory.lock()? {
        return Ok(None);
    }
    // What was locked may have been removed just before, and even made anew.
    match open()? {
        Some(now) if now.is(&directory)? => Ok(Some(directory)),
        _ => Ok(None),
    }
}

fn sweep_one(delegated: &Directory, name: &str, timeout: Duration) -> io::Result<bool> {
    let Some(directory) = lock(delegated, name)? else { return Ok(false) };
    remove(delegated, &directory, name, timeout)?;
    Ok(true)
}

/// Ends all that is in a cgroup and removes it, with those below.
pub(super) fn remove(parent: &Directory, directory: &Directory, name: &str, timeout: Duration) -> io::Result<()> {
    let deadline = Instant::now() + timeout;
    loop {
        if directory.is_populated()? {
            directory.kill()?;
        }
        if !directory.wait_empty(deadline.saturating_duration_since(Instant::now()))? {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "its processes do not end"));
        }
        match parent.remove(name) {
            // Somebody came in, or went down, between the two.
            Err(error) if is_busy(&error) && Instant::now() < deadline => {}
            result => return result,
        }
    }
}

pub(super) fn is_busy(error: &io::Error) -> bool {
    error.raw_os_error() == Some(rustix::io::Errno::BUSY.raw_os_error())
}

/// Whether it is of no importance that the kernel does not count swap.
fn without_swap() -> Result<(), CgroupError> {
    // The file is also missing where the kernel cannot swap at all, and then there are no swaps to list either.
    let swaps = match std::fs::read_to_string("/proc/swaps") {
        Ok(swaps) => swaps,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(CgroupError::io("set the swap limit", "/proc/swaps")(error)),
    };
    if text::any_swap(&swaps) { Err(CgroupError::UnlimitedSwap) } else { Ok(()) }
}
