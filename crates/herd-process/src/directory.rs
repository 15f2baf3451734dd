use std::{
    env, fs,
    hash::{BuildHasher as _, RandomState},
    io,
    os::{
        fd::OwnedFd,
        unix::fs::{DirBuilderExt as _, MetadataExt as _},
    },
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use herd_pool::WorkerId;
use rustix::{
    fs::{FlockOperation, Mode, OFlags, flock, fstat, open, stat},
    io::Errno,
    process::geteuid,
};

use crate::removal::remove_tree;

/// What the names of state directories begin with, so that those left behind are found again.
const PREFIX: &str = "herd-";

/// The file whose lock says that a state directory is in use.
const LOCK: &str = "lock";

/// The highest number that a try to start a worker has; the first one has 0.
const MAX_TRY: usize = 9;

/// The most bytes that the path of a Unix socket can have: `sun_path` less its final NUL, see unix(7).
pub(crate) const MAX_SOCKET_PATH: usize = 107;

/// Where one factory keeps its workers' directories: a fresh directory that only its user may enter.
///
/// It is removed when the factory and its workers are gone. A daemon that is killed cannot do that, so each new state
/// directory first removes those next to it whose owner no longer lives, which their lock tells.
#[derive(Debug)]
pub(crate) struct StateDirectory {
    path: PathBuf,
    removed: Mutex<bool>,
    /// Holds the lock until it is closed.
    _lock: OwnedFd,
}

impl StateDirectory {
    /// Makes a state directory in `base`, which is made too if it is not there.
    pub(crate) fn create(base: &Path) -> io::Result<Self> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(base)?;
        let base = base.canonicalize()?;
        remove_abandoned(&base);
        loop {
            let path = base.join(format!("{PREFIX}{:08x}", RandomState::new().hash_one(()) as u32));
            match fs::DirBuilder::new().mode(0o700).create(&path) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                made => made?,
            }
            // Another process may have taken the new directory for an abandoned one before it was locked.
            if let Some(lock) = lock(&path, OFlags::CREATE)? {
                return Ok(Self { path, removed: Mutex::default(), _lock: lock });
            }
        }
    }

    /// The longest path of a socket that a worker can have here.
    pub(crate) fn longest_socket_path(&self) -> PathBuf {
        WorkerDirectory::paths(&self.path, WorkerId::new(u64::MAX), MAX_TRY).socket
    }

    /// Removes it, with all that is in it. A second call does nothing. Blocks for as long as that takes.
    pub(crate) fn remove(&self) {
        // Held meanwhile, so that a second caller finds it removed as well.
        let mut removed = self.removed.lock().unwrap_or_else(PoisonError::into_inner);
        if std::mem::replace(&mut *removed, true) {
            return;
        }
        if let Err(error) = remove_tree(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "a state directory could not be removed");
        }
    }

    #[cfg(test)]
    fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for StateDirectory {
    fn drop(&mut self) {
        self.remove();
    }
}

/// Where state directories are made if nothing else is said: the user's runtime directory or, without one, the
/// directory for temporary files.
pub(crate) fn default_base() -> PathBuf {
    let runtime = env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|path| path.is_absolute() && path.is_dir());
    runtime.unwrap_or_else(env::temp_dir)
}

/// Takes the lock of a state directory; `None` if somebody else has it or the directory was removed meanwhile.
fn lock(directory: &Path, flags: OFlags) -> io::Result<Option<OwnedFd>> {
    let path = directory.join(LOCK);
    let flags = flags | OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = match open(&path, flags, Mode::RUSR | Mode::WUSR) {
        Err(Errno::NOENT) => return Ok(None),
        opened => opened?,
    };
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Err(Errno::WOULDBLOCK) => return Ok(None),
        locked => locked?,
    }
    let locked = fstat(&file)?;
    let named = stat(&path).ok();
    Ok(named.filter(|named| (named.st_dev, named.st_ino) == (locked.st_dev, locked.st_ino)).map(|_| file))
}

/// Removes the state directories of this user whose owner was killed.
fn remove_abandoned(base: &Path) {
    let Ok(entries) = fs::read_dir(base) else { return };
    for entry in entries.flatten() {
        let is_state = entry.file_name().to_str().is_some_and(|name| name.starts_with(PREFIX));
        // Not followed if it is a symbolic link, and in a shared /tmp not everything with our prefix is ours.
        let is_own = entry.metadata().is_ok_and(|meta| meta.is_dir() && meta.uid() == geteuid().as_raw());
        if !(is_state && is_own) {
            continue;
        }
        let path = entry.path();
        if let Ok(Some(_lock)) = lock(&path, OFlags::empty()) {
            match remove_tree(&path) {
                Ok(()) => tracing::info!(path = %path.display(), "removed what a killed daemon left behind"),
                Err(error) => {
                    tracing::warn!(path = %path.display(), %error, "what a killed daemon left could not be removed");
                }
            }
        }
    }
}

/// One worker's private directory: its workspace and its sockets. Removed when this is dropped, which blocks for as
/// long as the worker's files take.
#[derive(Debug)]
pub(crate) struct WorkerDirectory {
    paths: Paths,
    /// Keeps the state directory.
    _state: Arc<StateDirectory>,
}

#[derive(Debug)]
struct Paths {
    directory: PathBuf,
    workspace: PathBuf,
    socket: PathBuf,
    notify: PathBuf,
}

impl WorkerDirectory {
    /// A directory for one try to start a worker. What an earlier try left may still be there, while it is removed.
    pub(crate) fn create(state: &Arc<StateDirectory>, id: WorkerId, number: usize) -> io::Result<Self> {
        debug_assert!(number <= MAX_TRY);
        let paths = Self::paths(&state.path, id, number);
        let mut builder = fs::DirBuilder::new();
        builder.mode(0o700).create(&paths.directory)?;
        // From here on the guard removes what was made.
        let made = Self { paths, _state: Arc::clone(state) };
        builder.create(&made.paths.workspace)?;
        Ok(made)
    }

    pub(crate) fn workspace(&self) -> &Path {
        &self.paths.workspace
    }

    pub(crate) fn socket(&self) -> &Path {
        &self.paths.socket
    }

    pub(crate) fn notify(&self) -> &Path {
        &self.paths.notify
    }

    fn paths(state: &Path, id: WorkerId, number: usize) -> Paths {
        let directory = state.join(if number == 0 { id.to_string() } else { format!("{id}.{number}") });
        Paths {
            workspace: directory.join("workspace"),
            socket: directory.join("socket"),
            notify: directory.join("notify"),
            directory,
        }
    }
}

impl Drop for WorkerDirectory {
    fn drop(&mut self) {
        let path = &self.paths.directory;
        if let Err(error) = remove_tree(path) {
            tracing::warn!(path = %path.display(), %error, "a worker's directory could not be removed");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_directory_is_private_and_goes_with_the_worker() {
        let base = tempfile::tempdir().expect("a directory");
        let state = Arc::new(StateDirectory::create(base.path()).expect("a state directory"));
        let directory = WorkerDirectory::create(&state, WorkerId::new(3), 0).expect("a directory");
        let workspace = directory.workspace().to_owned();
        for path in [state.path(), workspace.parent().expect("a parent"), &workspace] {
            assert_eq!(fs::metadata(path).expect("it is there").mode() & 0o777, 0o700, "{path:?}");
        }
        fs::write(workspace.join("file"), "x").expect("the workspace can be written");
        drop(directory);
        assert!(!workspace.exists());
        drop(state);
        assert_eq!(fs::read_dir(base.path()).expect("the base").count(), 0);
    }

    #[test]
    fn what_a_killed_daemon_left_behind_is_removed_and_what_is_in_use_is_not() {
        let base = tempfile::tempdir().expect("a directory");
        let live = StateDirectory::create(base.path()).expect("a state directory");
        let abandoned = base.path().join("herd-00000000");
        fs::create_dir_all(abandoned.join("worker-1/workspace")).expect("directories");
        fs::write(abandoned.join(LOCK), "").expect("a file");
        let foreign = base.path().join("other");
        fs::create_dir(&foreign).expect("a directory");

        let _next = StateDirectory::create(base.path()).expect("a state directory");
        assert!(!abandoned.exists());
        assert!(live.path().exists() && foreign.exists());
    }

    #[test]
    fn the_longest_socket_path_is_that_of_the_highest_worker() {
        let base = tempfile::tempdir().expect("a directory");
        let state = Arc::new(StateDirectory::create(base.path()).expect("a state directory"));
        let highest = WorkerDirectory::create(&state, WorkerId::new(u64::MAX), MAX_TRY).expect("a directory");
        assert_eq!(highest.socket(), state.longest_socket_path());
    }
}
