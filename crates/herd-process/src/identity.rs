//! Users of the host that belong to one worker alone.

use std::{
    ffi::OsString,
    fmt, fs,
    hash::{BuildHasher as _, RandomState},
    io,
    ops::RangeInclusive,
    os::{
        fd::OwnedFd,
        unix::{
            ffi::{OsStrExt as _, OsStringExt as _},
            fs::{FileExt as _, MetadataExt as _},
        },
    },
    path::{Path, PathBuf},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU32, Ordering},
    },
};

use herd_sandbox::Identity;

use crate::{
    lock::Locked,
    registry::{Registry, RegistryError},
};

/// Where all daemons of a host tell each other which users are taken. It does not outlive a reboot, as no process does.
/// It is in a directory that is root's: `/run/herd` belongs to whoever a daemon runs as, and goes with that daemon.
pub(crate) const DIRECTORY: &str = "/run/herd-uids";

/// The users that workers get if nothing else is said.
///
/// Nobody else hands these out: Debian's policy (§9.2.2) leaves everything above 65535 to the administrator, systemd
/// ("Users, Groups, UIDs and GIDs on systemd Systems") uses nothing between 1879048192 and 2147352575, the subordinate
/// IDs of useradd(8) end at 600165535, and the ranges that SSSD and FreeIPA map directories to end at 2000200000.
pub(crate) const DEFAULT_RANGE: RangeInclusive<u32> = 2_100_000_000..=2_100_065_535;

/// How often a lock is tried that somebody may hold for a moment only.
const TRIES: usize = 100;

/// Hands out users, each to one worker at a time on this host, whichever daemon asks.
///
/// Each taken user has a file that is locked for as long as its worker runs: the lock is in the hands of the daemon and
/// of the worker's init, so that it also outlasts a daemon that is killed for as long as processes of the worker live.
#[derive(Debug)]
pub(crate) struct Identities {
    directory: PathBuf,
    /// Opened when it is first needed: to look at what could be done makes nothing.
    registry: OnceLock<Arc<Registry>>,
    range: RangeInclusive<u32>,
    /// Where the search for a free one begins: how many after the first.
    next: AtomicU32,
}

/// A user that belongs to one worker until this is dropped. The group has the same number.
#[derive(Debug)]
pub(crate) struct TakenIdentity {
    id: u32,
    registry: Arc<Registry>,
    /// Locked.
    file: fs::File,
    /// Whether files of this user stay when its worker is gone, so that nobody else may get it.
    stays: bool,
}

/// No user could be handed out.
#[derive(Debug, thiserror::Error)]
pub(crate) enum IdentityError {
    #[error(
        "all {} user IDs of uid_range ({}) are taken by live workers and by workspaces that are kept; widen the range",
        count(.0), Range(.0)
    )]
    Exhausted(RangeInclusive<u32>),
    #[error("user {0}, to which the workspace belongs, is taken by another live worker; try again when that has ended")]
    Taken(u32),
    #[error("user {id}, to which the workspace belongs, is not in uid_range ({}); widen the range, or give the workspace to a user in it (chown -R)", Range(.range))]
    Outside { id: u32, range: RangeInclusive<u32> },
    #[error(transparent)]
    Registry(#[from] RegistryError),
}

/// A range as it is written: `A-B`.
pub(crate) struct Range<'a>(pub(crate) &'a RangeInclusive<u32>);

impl fmt::Display for Range<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.0.start(), self.0.end())
    }
}

fn count(range: &RangeInclusive<u32>) -> u32 {
    range.end() - range.start() + 1
}

impl Identities {
    /// Users of this range, which is not empty, has no 0 and not all numbers. Makes and removes nothing yet.
    pub(crate) fn examine(range: RangeInclusive<u32>) -> Result<Self, IdentityError> {
        Self::examine_at(Path::new(DIRECTORY), range)
    }

    fn examine_at(directory: &Path, range: RangeInclusive<u32>) -> Result<Self, IdentityError> {
        Registry::examine(directory)?;
        // Daemons that begin at different places rarely try the same users.
        let next = RandomState::new().hash_one(()) as u32 % count(&range);
        let registry = OnceLock::new();
        Ok(Self { directory: directory.to_owned(), registry, range, next: AtomicU32::new(next) })
    }

    #[cfg(test)]
    pub(crate) fn open_at(directory: &Path, range: RangeInclusive<u32>) -> Result<Self, IdentityError> {
        let identities = Self::examine_at(directory, range)?;
        identities.sweep()?;
        Ok(identities)
    }

    /// Removes what killed daemons and workspaces that are no more have left of this range, whichever daemon's that was.
    pub(crate) fn sweep(&self) -> Result<(), IdentityError> {
        for name in self.registry()?.names()? {
            let id = name.parse::<u32>().ok().filter(|id| self.range.contains(id) && id.to_string() == name);
            if let Some(id) = id
                && let Some((mut taken, keeper)) = self.lock(id)?
            {
                taken.stays = keeper.is_some_and(|workspace| belongs_to(&workspace, id));
            }
        }
        Ok(())
    }

    /// Takes a user that nobody has.
    pub(crate) fn take(&self) -> Result<TakenIdentity, IdentityError> {
        for _ in 0..count(&self.range) {
            let turn = self.next.fetch_add(1, Ordering::Relaxed) % count(&self.range);
            let id = self.range.start() + turn;
            if let Some((taken, keeper)) = self.lock(id)? {
                if keeper.is_some_and(|workspace| belongs_to(&workspace, id)) {
                    continue;
                }
                return Ok(taken);
            }
        }
        Err(IdentityError::Exhausted(self.range.clone()))
    }

    /// Takes the user to which a workspace belongs that is kept.
    pub(crate) fn take_again(&self, id: u32, workspace: &Path) -> Result<TakenIdentity, IdentityError> {
        if !self.range.contains(&id) {
            return Err(IdentityError::Outside { id, range: self.range.clone() });
        }
        for _ in 0..TRIES {
            if let Some((mut taken, _)) = self.lock(id)? {
                self.keep(&mut taken, workspace)?;
                return Ok(taken);
            }
            // A daemon that begins looks at every lock for a moment.
            std::thread::yield_now();
        }
        Err(IdentityError::Taken(id))
    }

    /// Keeps a user from others beyond the life of its worker, for as long as the workspace belongs to it.
    pub(crate) fn keep(&self, taken: &mut TakenIdentity, workspace: &Path) -> Result<(), IdentityError> {
        taken.keep_for(workspace).map_err(|source| taken.registry.unusable(source).into())
    }

    /// Keeps the users of workspaces that are there already from others, as far as nobody has them.
    pub(crate) fn keep_all(&self, workspaces: impl IntoIterator<Item = (u32, PathBuf)>) -> Result<(), IdentityError> {
        for (id, workspace) in workspaces {
            if self.range.contains(&id)
                && let Some((mut taken, _)) = self.lock(id)?
            {
                self.keep(&mut taken, &workspace)?;
            }
        }
        Ok(())
    }

    /// Locks a user, and reads for which workspace it is kept; `None` if somebody has it.
    fn lock(&self, id: u32) -> Result<Option<(TakenIdentity, Option<PathBuf>)>, IdentityError> {
        let registry = self.registry()?;
        let Locked::Ours(lock) = registry.lock(&id.to_string())? else { return Ok(None) };
        let file = fs::File::from(lock);
        let mut text = Vec::new();
        // From its beginning, as it was just opened.
        io::Read::read_to_end(&mut &file, &mut text).map_err(|source| registry.unusable(source))?;
        let keeper = (!text.is_empty()).then(|| PathBuf::from(OsString::from_vec(text)));
        let stays = keeper.is_some();
        Ok(Some((TakenIdentity { id, registry: Arc::clone(registry), file, stays }, keeper)))
    }

    fn registry(&self) -> Result<&Arc<Registry>, IdentityError> {
        if let Some(registry) = self.registry.get() {
            return Ok(registry);
        }
        let registry = Arc::new(Registry::open(&self.directory)?);
        Ok(self.registry.get_or_init(|| registry))
    }
}

impl TakenIdentity {
    pub(crate) fn identity(&self) -> Identity {
        Identity { uid: self.id, gid: self.id }
    }

    /// Keeps it from others for as long as this directory belongs to it.
    pub(crate) fn keep_for(&mut self, directory: &Path) -> io::Result<()> {
        let text = directory.as_os_str().as_bytes();
        self.file.write_all_at(text, 0)?;
        self.file.set_len(text.len() as u64)?;
        self.stays = true;
        Ok(())
    }

    /// A copy of what holds the lock, for the worker's init.
    pub(crate) fn lock(&self) -> io::Result<OwnedFd> {
        self.file.try_clone().map(OwnedFd::from)
    }
}

impl Drop for TakenIdentity {
    fn drop(&mut self) {
        // While it is still locked: whoever opened it before finds that it is not the named file any more.
        if !self.stays
            && let Err(error) = self.registry.remove(&self.id.to_string())
        {
            tracing::debug!(user = self.id, %error, "a user's lock could not be removed");
        }
    }
}

fn belongs_to(workspace: &Path, id: u32) -> bool {
    fs::symlink_metadata(workspace).is_ok_and(|meta| meta.uid() == id)
}

/// Whether the user namespace of this process knows all users and groups of a range: a container often has few.
pub(crate) fn is_mapped(range: &RangeInclusive<u32>) -> bool {
    ["/proc/self/uid_map", "/proc/self/gid_map"].iter().all(|map| {
        // Without the file there are no user namespaces.
        fs::read_to_string(map).map_or(true, |map| covers(&map, range))
    })
}

/// Whether the lines of a map, each with a first number inside, one outside and a count, hold all of a range inside; see
/// user_namespaces(7).
fn covers(map: &str, range: &RangeInclusive<u32>) -> bool {
    let mut parts: Vec<(u64, u64)> = map
        .lines()
        .filter_map(|line| {
            let mut numbers = line.split_whitespace().map(str::parse::<u64>);
            let (first, _, count) = (numbers.next()?.ok()?, numbers.next()?.ok()?, numbers.next()?.ok()?);
            Some((first, first + count))
        })
        .collect();
    parts.sort_unstable();
    let mut missing = u64::from(*range.start());
    for (first, end) in parts {
        if first <= missing {
            missing = missing.max(end);
        }
    }
    missing > u64::from(*range.end())
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::lock::lock_or_create;

    fn identities(directory: &Path, range: RangeInclusive<u32>) -> Identities {
        Identities::open_at(directory, range).expect("it can be made")
    }

    #[test]
    fn no_two_live_workers_have_the_same_user_whichever_daemon_started_them() {
        let directory = tempfile::tempdir().expect("a directory");
        let daemons = [(); 2].map(|()| identities(directory.path(), 100..=119));
        let taken: Vec<_> = (0..20).map(|turn| daemons[turn % 2].take().expect("there are 20")).collect();
        let distinct: HashSet<_> = taken.iter().map(TakenIdentity::identity).collect();
        assert_eq!(distinct.len(), 20);
        let error = daemons[0].take().expect_err("there is no 21st").to_string();
        assert!(error.contains("all 20 user IDs of uid_range (100-119) are taken"), "{error}");
        drop(taken);
        daemons[1].take().expect("they are free again");
    }

    #[test]
    fn the_user_of_a_killed_daemons_worker_is_free_when_the_workers_init_is_gone() {
        let directory = tempfile::tempdir().expect("a directory");
        let daemon = identities(directory.path(), 100..=100);
        // What is left is init's copy of the descriptor.
        let Ok(Locked::Ours(held_by_init)) = lock_or_create(&directory.path().join("100")) else {
            panic!("it is free")
        };
        assert!(matches!(daemon.take(), Err(IdentityError::Exhausted(_))));
        drop(held_by_init);
        daemon.take().expect("nobody has it any more");
    }

    #[test]
    fn what_killed_daemons_left_of_the_range_is_removed_by_the_next_one_and_nothing_else() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = |name: &str| directory.path().join(name);
        // Its range has this user in it, to whom the directory belongs.
        let me = rustix::process::getuid().as_raw();
        let [gone, moved, held] = [me + 1, me + 2, me + 3].map(|id| id.to_string());
        let (mine, outside) = (me.to_string(), (me + 10).to_string());
        fs::write(path(&gone), "").expect("a file");
        fs::write(path(&moved), "/nowhere/at/all").expect("a file");
        fs::write(path(&mine), directory.path().as_os_str().as_bytes()).expect("a file");
        let zeroes = format!("0{}", me + 4);
        for other in ["other", &outside, &zeroes] {
            fs::write(path(other), "").expect("a file");
        }
        let Ok(Locked::Ours(_held)) = lock_or_create(&path(&held)) else { panic!("it is free") };
        let left = || {
            let entries = fs::read_dir(directory.path()).expect("it is there").flatten();
            let mut left: Vec<_> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
            left.sort();
            left
        };
        let before = left();
        let examined = Identities::examine_at(directory.path(), me..=me + 9).expect("it is ours");
        assert_eq!(left(), before, "to look changes nothing");
        examined.sweep().expect("it can be swept");
        let mut expected = vec![held, mine, "other".to_owned(), outside, zeroes];
        expected.sort();
        assert_eq!(left(), expected);
    }

    #[test]
    fn when_the_directory_is_gone_no_user_is_handed_out_and_the_reason_is_told() {
        let base = tempfile::tempdir().expect("a directory");
        let directory = base.path().join("uids");
        let daemon = identities(&directory, 100..=119);
        let taken = daemon.take().expect("there is one");
        fs::remove_dir_all(&directory).expect("it is ours");
        let error = daemon.take().expect_err("who has which one is not known any more").to_string();
        assert!(error.contains("was removed or replaced while herd runs"), "{error}");
        // What another daemon has taken since is not this one's to remove.
        let other = identities(&directory, 100..=119);
        let _others: Vec<_> = (0..20).map(|_| other.take().expect("there are 20")).collect();
        drop(taken);
        assert_eq!(fs::read_dir(&directory).expect("it is there").count(), 20);
    }

    #[test]
    fn a_user_whose_workspace_is_kept_goes_to_nobody_else() {
        let directory = tempfile::tempdir().expect("a directory");
        let me = rustix::process::getuid().as_raw();
        let daemon = identities(directory.path(), me..=me);
        let workspace = directory.path().join("workspace");
        fs::create_dir(&workspace).expect("a directory");
        let mut taken = daemon.take().expect("there is one");
        daemon.keep(&mut taken, &workspace).expect("it can be kept");
        drop(taken);
        assert!(matches!(daemon.take(), Err(IdentityError::Exhausted(_))));
        drop(daemon.take_again(me, &workspace).expect("its own worker gets it"));
        assert!(matches!(daemon.take(), Err(IdentityError::Exhausted(_))), "it is kept again");
        fs::remove_dir(&workspace).expect("it is empty");
        daemon.take().expect("nothing belongs to it any more");
    }

    #[test]
    fn a_workspace_of_a_user_that_is_taken_or_foreign_is_refused() {
        let directory = tempfile::tempdir().expect("a directory");
        let daemon = identities(directory.path(), 100..=100);
        let _taken = daemon.take().expect("there is one");
        assert!(matches!(daemon.take_again(100, Path::new("/w")), Err(IdentityError::Taken(100))));
        assert!(matches!(daemon.take_again(0, Path::new("/w")), Err(IdentityError::Outside { id: 0, .. })));
    }

    #[test]
    fn a_range_is_mapped_if_every_user_of_it_is() {
        let whole = "         0          0 4294967295\n";
        assert!(covers(whole, &DEFAULT_RANGE));
        let container = "0 1000 1\n1 100000 65536\n";
        assert!(covers(container, &(0..=65_536)));
        assert!(!covers(container, &(65_000..=65_537)));
        assert!(!covers(container, &DEFAULT_RANGE));
        assert!(!covers("", &(1..=1)));
    }
}
