//! Workspaces that belong to a session and not to a worker: what is in one outlives a crash, an eviction, and the daemon.

use std::{
    fs, io,
    os::{
        fd::OwnedFd,
        unix::fs::{DirBuilderExt as _, MetadataExt as _},
    },
    path::{Path, PathBuf},
};

use herd_pool::SessionId;
use herd_sandbox::Identity;
use rustix::{fs::fchown, process::geteuid};
use sha2::{Digest as _, Sha256};

use crate::{
    directory::open_directory,
    identity::{Identities, IdentityError, TakenIdentity},
    lock::{Locked, lock_or_create},
};

/// What is in a workspace's own directory: its files, whose workspace it is, and the lock of the worker that has it.
const FILES: &str = "files";
const SESSION: &str = "session";
const LOCK: &str = "lock";

/// A directory with one directory for each session that has ever had a worker, which nobody but herd may enter.
///
/// The name of a session's directory is the SHA-256 hash of its ID and its tenant: an ID is chosen by a client, and must
/// neither lead out of here nor be too long, nor meet another one. Nothing of a workspace is ever removed by herd;
/// whoever wants to do that removes the whole directory of a session that has no worker.
#[derive(Debug)]
pub(crate) struct PersistentWorkspaces {
    base: PathBuf,
}

/// The workspace of one session, in the hands of one worker until this is dropped.
#[derive(Debug)]
pub(crate) struct PersistentWorkspace {
    files: PathBuf,
    identity: Option<TakenIdentity>,
    lock: OwnedFd,
}

/// A session's workspace cannot be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WorkspaceError {
    #[error("another live worker has the session's workspace; it is free when that has ended")]
    Busy,
    #[error(
        "the session's workspace {} belongs to user {owner} and not to this one; give it to this user (chown -R), or remove it",
        .path.display()
    )]
    Foreign { path: PathBuf, owner: u32 },
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error("the session's workspace cannot be used: {}", .path.display())]
    Io { path: PathBuf, source: io::Error },
}

impl PersistentWorkspaces {
    /// Makes the directory if it is not there, and keeps the users to whom workspaces in it belong from others.
    pub(crate) fn open(base: &Path, identities: Option<&Identities>) -> Result<Self, WorkspaceError> {
        let failed = |source| WorkspaceError::Io { path: base.to_owned(), source };
        fs::DirBuilder::new().recursive(true).mode(0o700).create(base).map_err(failed)?;
        let base = base.canonicalize().map_err(failed)?;
        let meta = fs::metadata(&base).map_err(failed)?;
        if meta.uid() != geteuid().as_raw() {
            return Err(WorkspaceError::Foreign { path: base, owner: meta.uid() });
        }
        if meta.mode() & 0o077 != 0 {
            let open = format!("others may enter it (mode {:o}); run `chmod 700` on it", meta.mode() & 0o7777);
            return Err(failed(io::Error::other(open)));
        }
        if let Some(identities) = identities {
            let entries = fs::read_dir(&base).map_err(failed)?;
            let workspaces = entries.flatten().map(|entry| entry.path().join(FILES));
            let owned = workspaces.filter_map(|files| Some((fs::symlink_metadata(&files).ok()?.uid(), files)));
            identities.keep_all(owned)?;
        }
        Ok(Self { base })
    }

    /// Takes the session's workspace, which is made if it has none yet. With `identities` it belongs to the same user of
    /// them for as long as it exists.
    pub(crate) fn take(
        &self,
        session: &SessionId,
        identities: Option<&Identities>,
    ) -> Result<PersistentWorkspace, WorkspaceError> {
        let directory = self.directory(session);
        let failed = |source| WorkspaceError::Io { path: directory.clone(), source };
        make(&directory).map_err(failed)?;
        let lock = match lock_or_create(&directory.join(LOCK)).map_err(|error| failed(error.into()))? {
            Locked::Ours(lock) => lock,
            Locked::Held | Locked::Missing => return Err(WorkspaceError::Busy),
        };
        let name = directory.join(SESSION);
        if !name.exists() {
            let tenant = session.tenant().map_or(String::new(), |tenant| format!("{tenant}\n"));
            fs::write(&name, format!("{session}\n{tenant}")).map_err(failed)?;
        }
        let files = directory.join(FILES);
        make(&files).map_err(failed)?;
        let identity = match identities {
            Some(identities) => Some(own(&files, identities)?),
            None => {
                let owner = fs::symlink_metadata(&files).map_err(failed)?.uid();
                if owner != geteuid().as_raw() {
                    return Err(WorkspaceError::Foreign { path: files, owner });
                }
                None
            }
        };
        Ok(PersistentWorkspace { files, identity, lock })
    }

    fn directory(&self, session: &SessionId) -> PathBuf {
        let hash = match session.tenant() {
            None => Sha256::digest(session.as_str()),
            // Neither has a line break in it, so no other pair makes the same text.
            Some(tenant) => Sha256::digest(format!("{}\n{session}", tenant.name())),
        };
        self.base.join(hash.iter().map(|byte| format!("{byte:02x}")).collect::<String>())
    }
}

impl PersistentWorkspace {
    /// Where its files are.
    pub(crate) fn files(&self) -> &Path {
        &self.files
    }

    /// The user to whom its files belong.
    pub(crate) fn identity(&self) -> Option<Identity> {
        self.identity.as_ref().map(TakenIdentity::identity)
    }

    /// Copies of what holds its locks, for the worker's init.
    pub(crate) fn locks(&self) -> io::Result<Vec<OwnedFd>> {
        let identity = self.identity.as_ref().map(TakenIdentity::lock);
        std::iter::once(self.lock.try_clone()).chain(identity).collect()
    }
}

/// Takes the user to whom the files belong. Fresh ones are given to a user that nobody has.
fn own(files: &Path, identities: &Identities) -> Result<TakenIdentity, WorkspaceError> {
    let failed = |source: io::Error| WorkspaceError::Io { path: files.to_owned(), source };
    let directory = open_directory(files).map_err(|error| failed(error.into()))?;
    let owner = rustix::fs::fstat(&directory).map_err(|error| failed(error.into()))?.st_uid;
    if owner != geteuid().as_raw() {
        return Ok(identities.take_again(owner, files)?);
    }
    // What a worker of the daemon's own user wrote cannot be given away: it may hold links to anything.
    if fs::read_dir(files).map_err(failed)?.next().is_some() {
        return Err(WorkspaceError::Foreign { path: files.to_owned(), owner });
    }
    let mut taken = identities.take()?;
    let Identity { uid, gid } = taken.identity();
    let (uid, gid) = (rustix::fs::Uid::from_raw(uid), rustix::fs::Gid::from_raw(gid));
    fchown(&directory, Some(uid), Some(gid)).map_err(|error| failed(error.into()))?;
    identities.keep(&mut taken, files)?;
    Ok(taken)
}

fn make(directory: &Path) -> io::Result<()> {
    match fs::DirBuilder::new().mode(0o700).create(directory) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        made => made,
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::HashSet, os::unix::fs::PermissionsExt as _};

    use herd_pool::{Tenant, TenantLimits};

    use super::*;

    fn session(text: &str) -> SessionId {
        SessionId::new(text).expect("it is an ID")
    }

    fn workspaces(base: &Path) -> PersistentWorkspaces {
        PersistentWorkspaces::open(&base.join("workspaces"), None).expect("it can be made")
    }

    #[test]
    fn a_hostile_session_id_leads_to_a_directory_of_its_own_inside() {
        let base = tempfile::tempdir().expect("a directory");
        let workspaces = workspaces(base.path());
        let long = "x".repeat(256);
        let names = ["../..", "..", ".", "/", "/etc", "a/../../b", "%00", "\\0", "lock", "files", &long, &long[1..]];
        let taken: Vec<_> =
            names.iter().map(|name| workspaces.take(&session(name), None).expect("it can be had")).collect();
        let inside = base.path().join("workspaces").canonicalize().expect("it is there");
        for workspace in &taken {
            let path = workspace.files().canonicalize().expect("it is there");
            assert_eq!(path.parent().and_then(Path::parent), Some(inside.as_path()), "{path:?}");
        }
        let distinct: HashSet<_> = taken.iter().map(PersistentWorkspace::files).collect();
        assert_eq!(distinct.len(), names.len());
        assert_eq!(fs::read_dir(base.path()).expect("it is there").count(), 1, "nothing beside it");
    }

    #[test]
    fn files_are_there_again_for_the_same_session_and_for_no_other() {
        let base = tempfile::tempdir().expect("a directory");
        let alice = workspaces(base.path()).take(&session("alice"), None).expect("it can be had");
        fs::write(alice.files().join("diary"), "secret").expect("it can be written");
        drop(alice);
        // Another daemon, later.
        let later = workspaces(base.path());
        let bob = later.take(&session("bob"), None).expect("it can be had");
        assert!(!bob.files().join("diary").exists());
        let same_name = session("alice").of(&Tenant::new("acme", TenantLimits::default()).expect("it is a name"));
        let other = later.take(&same_name, None).expect("it can be had");
        assert!(!other.files().join("diary").exists(), "another tenant's session is another session");
        let alice = later.take(&session("alice"), None).expect("it can be had");
        assert_eq!(fs::read_to_string(alice.files().join("diary")).expect("it is there"), "secret");
        let name = alice.files().parent().expect("a parent").join(SESSION);
        assert_eq!(fs::read_to_string(name).expect("it is there"), "alice\n");
    }

    #[test]
    fn two_live_workers_never_have_one_workspace() {
        let base = tempfile::tempdir().expect("a directory");
        let daemons = [(); 2].map(|()| workspaces(base.path()));
        let first = daemons[0].take(&session("alice"), None).expect("it can be had");
        for daemon in &daemons {
            assert!(matches!(daemon.take(&session("alice"), None), Err(WorkspaceError::Busy)));
        }
        let held_by_init = first.locks().expect("descriptors");
        drop(first);
        assert!(matches!(daemons[1].take(&session("alice"), None), Err(WorkspaceError::Busy)), "its init lives");
        drop(held_by_init);
        daemons[1].take(&session("alice"), None).expect("it is free");
    }

    #[test]
    fn a_base_that_others_may_enter_is_refused() {
        let base = tempfile::tempdir().expect("a directory");
        let open = base.path().join("open");
        fs::create_dir(&open).expect("a directory");
        fs::set_permissions(&open, fs::Permissions::from_mode(0o755)).expect("it is ours");
        let error = PersistentWorkspaces::open(&open, None).expect_err("it is open");
        assert!(std::error::Error::source(&error).expect("a cause").to_string().contains("chmod 700"));
    }

    #[test]
    fn as_root_a_workspace_belongs_to_one_user_for_as_long_as_it_exists() {
        assert!(geteuid().is_root(), "a directory is given to another user here; run the tests as root");
        let base = tempfile::tempdir().expect("a directory");
        let range = 2_100_060_000..=2_100_060_002;
        let open = || Identities::open_at(&base.path().join("uids"), range.clone()).expect("it can be made");
        let identities = open();
        let workspaces = workspaces(base.path());
        let alice = workspaces.take(&session("alice"), Some(&identities)).expect("it can be had");
        let hers = alice.identity().expect("a user");
        assert_eq!(fs::metadata(alice.files()).expect("it is there").uid(), hers.uid);
        drop(alice);
        let others = [identities.take().expect("one"), identities.take().expect("another")];
        assert!(others.iter().all(|taken| taken.identity() != hers));
        assert!(identities.take().is_err(), "hers is kept");
        let again = workspaces.take(&session("alice"), Some(&identities)).expect("it can be had");
        assert_eq!(again.identity(), Some(hers));
        drop((again, others));
        // After a reboot the locks are gone, and the workspaces are not.
        fs::remove_dir_all(base.path().join("uids")).expect("they are ours");
        let identities = open();
        PersistentWorkspaces::open(&base.path().join("workspaces"), Some(&identities)).expect("it is there");
        for _ in 0..6 {
            assert_ne!(identities.take().expect("there are two others").identity(), hers);
        }
    }
}
