//! What one worker is given of the host for the time of its life: directories, a user, a cgroup.

use std::{
    io,
    os::{fd::OwnedFd, unix::fs::lchown},
    path::{Path, PathBuf},
    sync::Arc,
};

use herd_pool::{SessionId, WorkerId};
use herd_sandbox::{Identity, Limit, Spec};

use crate::{
    cgroups::WorkerCgroup, directory::WorkerDirectory, egress, error::StartError, factory::Shared,
    identity::TakenIdentity, live::LiveGuard, ports::Port, sandbox::Inside, workspace::PersistentWorkspace,
};

/// What belongs to one try to start a worker. When it is dropped, in the order of the fields, nothing of the worker may
/// run any more; that blocks for as long as the worker's files take.
#[derive(Debug)]
pub(crate) struct Place {
    cgroup: Option<RemovedCgroup>,
    /// The port of a worker without a network of its own.
    pub(crate) port: Option<Port>,
    directory: WorkerDirectory,
    workspace: Option<PersistentWorkspace>,
    /// After the files that belong to it.
    identity: Option<LentIdentity>,
    /// Last: when the count is back to zero, everything else is released.
    _live: LiveGuard,
}

/// A user that others get only when nothing is left of what belonged to it.
#[derive(Debug)]
struct LentIdentity {
    /// `None` once it can be given to nobody any more.
    taken: Option<TakenIdentity>,
    /// Where its files are, which should be gone before it.
    directory: PathBuf,
}

/// A cgroup that is removed with its place, and not only when nobody asks for its numbers any more.
#[derive(Debug)]
struct RemovedCgroup(WorkerCgroup);

impl Place {
    /// Makes everything. Blocks.
    pub(crate) fn make(
        shared: &Arc<Shared>,
        live: LiveGuard,
        id: WorkerId,
        session: Option<&SessionId>,
        number: usize,
    ) -> Result<Self, StartError> {
        let workspaces = shared.workspaces.as_ref().zip(session);
        let workspace = workspaces
            .map(|(workspaces, session)| workspaces.take(session, shared.sandbox.identities()))
            .transpose()
            .map_err(|error| StartError::unavailable("workspace", error))?;
        // A workspace that is kept has brought its user with it.
        let identity = if workspace.is_some() { None } else { shared.sandbox.take_identity().transpose() };
        let identity = identity.transpose().map_err(|error| StartError::unavailable("user", error))?;
        let owner = workspace
            .as_ref()
            .map_or_else(|| identity.as_ref().map(TakenIdentity::identity), PersistentWorkspace::identity);
        let directory = WorkerDirectory::create(&shared.state, id, number, owner)
            .map_err(|source| StartError::directory(shared.state.path(), &source))?;
        let cgroup = shared
            .cgroups
            .as_ref()
            .map(|cgroups| cgroups.create(&format!("{id}-{number}")))
            .transpose()
            .map_err(|error| StartError::unavailable("cgroup", error))?;
        let identity =
            identity.map(|taken| LentIdentity { taken: Some(taken), directory: directory.path().to_owned() });
        Ok(Self { cgroup: cgroup.map(RemovedCgroup), port: None, directory, workspace, identity, _live: live })
    }

    pub(crate) fn directory(&self) -> &WorkerDirectory {
        &self.directory
    }

    pub(crate) fn cgroup(&self) -> Option<&WorkerCgroup> {
        self.cgroup.as_ref().map(|cgroup| &cgroup.0)
    }

    /// The user that the worker runs as, if it has one of its own.
    pub(crate) fn identity(&self) -> Option<Identity> {
        let kept = self.workspace.as_ref().and_then(PersistentWorkspace::identity);
        kept.or_else(|| self.taken().map(TakenIdentity::identity))
    }

    /// How the worker sees its places.
    pub(crate) fn inside(&self, shared: &Shared) -> Inside {
        shared.sandbox.inside(&self.directory, self.workspace())
    }

    /// Puts a process of the worker into its place.
    pub(crate) fn furnish(&self, shared: &Shared, spec: &mut Spec) -> io::Result<()> {
        let cgroup = self.cgroup().map(WorkerCgroup::directory).transpose()?;
        let isolation = shared.sandbox.isolation(spec, &self.directory, self.workspace(), self.identity(), cgroup);
        spec.isolation = isolation?;
        egress::furnish(&mut spec.isolation)?;
        if shared.cgroups.is_none() {
            spec.limits.extend(shared.limits.pids.map(|pids| (Limit::Processes, pids)));
        }
        spec.kept = self.locks()?;
        Ok(())
    }

    fn workspace(&self) -> &Path {
        self.workspace.as_ref().map_or_else(|| self.directory.workspace(), PersistentWorkspace::files)
    }

    /// Copies of what holds the locks, for the worker's init: as long as it lives, nobody else gets what is locked.
    fn locks(&self) -> io::Result<Vec<OwnedFd>> {
        let mut locks = self.workspace.as_ref().map(PersistentWorkspace::locks).transpose()?.unwrap_or_default();
        locks.extend(self.taken().map(TakenIdentity::lock).transpose()?);
        Ok(locks)
    }

    fn taken(&self) -> Option<&TakenIdentity> {
        self.identity.as_ref().and_then(|identity| identity.taken.as_ref())
    }
}

impl Drop for LentIdentity {
    fn drop(&mut self) {
        if matches!(self.directory.symlink_metadata(), Err(error) if error.kind() == io::ErrorKind::NotFound) {
            return;
        }
        // Whoever had the user next would have the files, too. So the directory becomes its own, and it is kept for as
        // long as that is there: a daemon that begins removes what others left.
        let Some(taken) = &mut self.taken else { return };
        let uid = taken.identity().uid;
        if let Err(error) = lchown(&self.directory, Some(uid), None).and_then(|()| taken.keep_for(&self.directory)) {
            tracing::error!(uid, %error, "a user whose files are left is withheld until the daemon ends");
            std::mem::forget(self.taken.take());
        }
    }
}

impl Drop for RemovedCgroup {
    fn drop(&mut self) {
        self.0.remove();
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::identity::{Identities, IdentityError};

    #[test]
    fn as_root_a_user_whose_files_could_not_be_removed_goes_to_nobody_until_they_are() {
        assert!(rustix::process::geteuid().is_root(), "a directory is given away here; run the tests as root");
        let base = tempfile::tempdir().expect("a directory");
        let directory = base.path().join("worker-1");
        let open = || Identities::open_at(&base.path().join("uids"), 2_100_060_010..=2_100_060_010);
        let identities = open().expect("it can be made");
        let lend = || LentIdentity { taken: identities.take().ok(), directory: directory.clone() };

        drop(lend());
        fs::create_dir_all(directory.join("workspace")).expect("directories");
        let lent = lend();
        assert!(lent.taken.is_some(), "nothing was left");
        drop(lent);
        // For a later daemon it is the same.
        for identities in [&identities, &open().expect("it can be made")] {
            assert!(matches!(identities.take(), Err(IdentityError::Exhausted(_))), "its files are left");
        }
        fs::remove_dir_all(&directory).expect("they are ours");
        identities.take().expect("nothing is left");
    }
}
