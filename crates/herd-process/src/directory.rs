use std::{
    env, fs,
    hash::{BuildHasher as _, RandomState},
    io,
    os::{
        fd::OwnedFd,
        unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _},
    },
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use herd_pool::WorkerId;
use herd_sandbox::Identity;
use rustix::{
    fs::{Gid, Mode, OFlags, Uid, fchown, open},
    process::geteuid,
};

use crate::{
    lock::{Locked, lock, lock_or_create},
    removal::remove_tree,
};

/// What the names of state directories begin with, so that those left behind are found again.
const PREFIX: &str = "herd-";

/// The file whose lock says that a state directory is in use.
const LOCK: &str = "lock";

/// Who may enter a directory: its owner, or anybody who knows what to look for in it.
const PRIVATE: u32 = 0o700;
const SEARCHABLE: u32 = 0o711;

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
    /// Whether workers that run as other users get to their own directories in it by its path.
    searchable: bool,
    removed: Mutex<bool>,
    /// Holds the lock until it is closed.
    _lock: OwnedFd,
}

impl StateDirectory {
    /// Makes a state directory in `base`, which is made too if it is not there. Only a `searchable` one lets other users
    /// pass, to directories whose names they know and which are theirs.
    pub(crate) fn create(base: &Path, searchable: bool) -> io::Result<Self> {
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
            if let Locked::Ours(lock) = lock_or_create(&path.join(LOCK))? {
                if searchable {
                    fs::set_permissions(&path, fs::Permissions::from_mode(SEARCHABLE))?;
                }
                return Ok(Self { path, searchable, removed: Mutex::default(), _lock: lock });
            }
        }
    }

    /// The longest path of a socket that a worker can have here.
    pub(crate) fn longest_socket_path(&self) -> PathBuf {
        WorkerDirectory::paths(&self.path, WorkerId::new(u64::MAX), MAX_TRY).run.join(NOTIFY)
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

    /// Its name, which no other has on this host.
    pub(crate) fn name(&self) -> String {
        self.path.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    pub(crate) fn path(&self) -> &Path {
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
        if let Ok(Locked::Ours(_lock)) = lock(&path.join(LOCK)) {
            match remove_tree(&path) {
                Ok(()) => tracing::info!(path = %path.display(), "removed what a killed daemon left behind"),
                Err(error) => {
                    tracing::warn!(path = %path.display(), %error, "what a killed daemon left could not be removed");
                }
            }
        }
    }
}

/// One worker's private directory: its workspace and the directory of its sockets. Removed when this is dropped, which
/// blocks for as long as the worker's files take.
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
    run: PathBuf,
}

/// The names of the sockets in the directory of the sockets.
pub(crate) const SOCKET: &str = "socket";
pub(crate) const NOTIFY: &str = "notify";

impl WorkerDirectory {
    /// A directory for one try to start a worker, whose workspace and sockets belong to `owner`, or to this user. What
    /// an earlier try left may still be there, while it is removed.
    pub(crate) fn create(
        state: &Arc<StateDirectory>,
        id: WorkerId,
        number: usize,
        owner: Option<Identity>,
    ) -> io::Result<Self> {
        debug_assert!(number <= MAX_TRY);
        let paths = Self::paths(&state.path, id, number);
        let outer = if state.searchable { SEARCHABLE } else { PRIVATE };
        fs::DirBuilder::new().mode(PRIVATE).create(&paths.directory)?;
        // What was made is removed if what follows fails.
        let cleared = Cleared(&paths.directory);
        if state.searchable {
            // The mode at creation is subject to the umask.
            fs::set_permissions(&paths.directory, fs::Permissions::from_mode(outer))?;
        }
        for path in [&paths.workspace, &paths.run] {
            fs::DirBuilder::new().mode(PRIVATE).create(path)?;
            if let Some(Identity { uid, gid }) = owner {
                fchown(open_directory(path)?, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
            }
        }
        std::mem::forget(cleared);
        Ok(Self { paths, _state: Arc::clone(state) })
    }

    /// The state directory that it is in.
    pub(crate) fn state(&self) -> Option<&Path> {
        self.paths.directory.parent()
    }

    /// The workspace, on the host.
    pub(crate) fn workspace(&self) -> &Path {
        &self.paths.workspace
    }

    /// The directory of the sockets, on the host.
    pub(crate) fn run(&self) -> &Path {
        &self.paths.run
    }

    /// All of it, which no worker sees.
    pub(crate) fn path(&self) -> &Path {
        &self.paths.directory
    }

    /// Opens the directory of the sockets. A worker can replace what is in it, but not the directory itself.
    pub(crate) fn open_run(&self) -> io::Result<OwnedFd> {
        Ok(open_directory(&self.paths.run)?)
    }

    fn paths(state: &Path, id: WorkerId, number: usize) -> Paths {
        let directory = state.join(if number == 0 { id.to_string() } else { format!("{id}.{number}") });
        Paths { workspace: directory.join("workspace"), run: directory.join("run"), directory }
    }
}

impl Drop for WorkerDirectory {
    fn drop(&mut self) {
        drop(Cleared(&self.paths.directory));
    }
}

/// Removes a worker's directory when it is dropped.
struct Cleared<'a>(&'a Path);

impl Drop for Cleared<'_> {
    fn drop(&mut self) {
        if let Err(error) = remove_tree(self.0) {
            tracing::warn!(path = %self.0.display(), %error, "a worker's directory could not be removed");
        }
    }
}

/// Opens a directory whose surroundings nobody else can change.
pub(crate) fn open_directory(path: &Path) -> rustix::io::Result<OwnedFd> {
    open(path, OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_directory_is_private_and_goes_with_the_worker() {
        let base = tempfile::tempdir().expect("a directory");
        let state = Arc::new(StateDirectory::create(base.path(), false).expect("a state directory"));
        let directory = WorkerDirectory::create(&state, WorkerId::new(3), 0, None).expect("a directory");
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
        let live = StateDirectory::create(base.path(), false).expect("a state directory");
        let abandoned = base.path().join("herd-00000000");
        fs::create_dir_all(abandoned.join("worker-1/workspace")).expect("directories");
        fs::write(abandoned.join(LOCK), "").expect("a file");
        let foreign = base.path().join("other");
        fs::create_dir(&foreign).expect("a directory");

        let _next = StateDirectory::create(base.path(), false).expect("a state directory");
        assert!(!abandoned.exists());
        assert!(live.path().exists() && foreign.exists());
    }

    #[test]
    fn as_root_workspace_and_sockets_belong_to_the_workers_user_and_their_surroundings_do_not() {
        assert!(geteuid().is_root(), "a directory is given to another user here; run the tests as root");
        let base = tempfile::tempdir().expect("a directory");
        for (searchable, mode) in [(false, 0o700), (true, 0o711)] {
            let state = Arc::new(StateDirectory::create(base.path(), searchable).expect("a state directory"));
            let owner = Identity { uid: 2_100_000_001, gid: 2_100_000_002 };
            let directory = WorkerDirectory::create(&state, WorkerId::new(3), 0, Some(owner)).expect("a directory");
            for path in [directory.workspace(), directory.run()] {
                let meta = fs::metadata(path).expect("it is there");
                assert_eq!((meta.uid(), meta.gid(), meta.mode() & 0o777), (owner.uid, owner.gid, 0o700));
            }
            for path in directory.run().ancestors().skip(1).take(2) {
                let meta = fs::metadata(path).expect("it is there");
                assert_eq!((meta.uid(), meta.gid(), meta.mode() & 0o777), (0, 0, mode));
            }
        }
    }

    #[test]
    fn the_longest_socket_path_is_that_of_the_highest_worker() {
        let base = tempfile::tempdir().expect("a directory");
        let state = Arc::new(StateDirectory::create(base.path(), false).expect("a state directory"));
        let highest = WorkerDirectory::create(&state, WorkerId::new(u64::MAX), MAX_TRY, None).expect("a directory");
        assert_eq!(highest.run().join(NOTIFY), state.longest_socket_path());
        assert_eq!(SOCKET.len(), NOTIFY.len());
    }
}
