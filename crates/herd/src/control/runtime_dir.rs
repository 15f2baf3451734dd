use std::{
    fs::{self, DirBuilder, Metadata},
    io,
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, anyhow};
use rustix::process::geteuid;

/// Where the system's daemon has its control socket, whichever user it runs as. Only root can make it.
const OF_THE_SYSTEM: &str = "/run/herd";
/// Where daemons of root have theirs beside a system's daemon that runs as another user.
const OF_ROOT: &str = "/run/herd-0";

/// The directory where a user's daemons have their control sockets.
#[derive(Clone, Debug)]
pub(crate) struct RuntimeDir(PathBuf);

/// Why a directory cannot be believed.
#[derive(Debug, Eq, PartialEq)]
pub(crate) struct Distrust {
    problem: String,
    remedy: Option<String>,
}

impl Distrust {
    /// One sentence with all that helps.
    pub(crate) fn with(&self, other_remedy: &str) -> String {
        match self {
            Self { problem, remedy: Some(remedy) } => format!("{problem}; {remedy}, or {other_remedy}"),
            Self { problem, remedy: None } => format!("{problem}; {other_remedy}"),
        }
    }
}

impl RuntimeDir {
    /// Where a daemon of this user takes it: the first place that was not given to another user.
    pub(crate) fn of_daemons() -> Self {
        first_own(Self::candidates())
    }

    /// Where it may be for the user of this process, at least one.
    pub(crate) fn candidates() -> Vec<Self> {
        let uid = geteuid();
        let xdg =
            std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|dir| dir.is_absolute() && dir.is_dir());
        let others = if uid.is_root() {
            [PathBuf::from(OF_THE_SYSTEM), PathBuf::from(OF_ROOT)]
        } else {
            // The system's is there for the system's daemon alone.
            [PathBuf::from(format!("/tmp/herd-{}", uid.as_raw())), PathBuf::from(OF_THE_SYSTEM)]
        };
        xdg.map(|dir| dir.join("herd")).into_iter().chain(others).map(Self).collect()
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Makes the directory if it is missing, and makes sure that nobody else could put a socket there.
    ///
    /// # Errors
    /// If it cannot be made, or belongs to or is open to others.
    pub(crate) fn prepare(&self) -> anyhow::Result<()> {
        let path = self.0.display();
        match DirBuilder::new().mode(0o700).create(&self.0) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => {
                return Err(error).with_context(|| {
                    format!("cannot make {path} for the control socket; name another place with --control-socket PATH")
                });
            }
        }
        let distrust = self.distrust_as_own().with_context(|| format!("cannot look at {path}"))?;
        distrust.map_or(Ok(()), |distrust| {
            let remedy = distrust.with("name another place with --control-socket PATH");
            Err(anyhow!("{path} is not fit for the control socket: {remedy}"))
        })
    }

    /// Why a command of this user must not believe what it finds in it; `None` if only this user, or the one to whom root
    /// gave the system's directory, can have put something there.
    pub(crate) fn distrust(&self) -> Option<Distrust> {
        let own = self.distrust_as_own().ok()??;
        if self.0 != Path::new(OF_THE_SYSTEM) {
            return Some(own);
        }
        let (metadata, parent) = (fs::symlink_metadata(&self.0).ok()?, fs::symlink_metadata("/run").ok()?);
        distrust_of_given(&metadata, &parent)
    }

    /// Why somebody else than this user can have put something there.
    fn distrust_as_own(&self) -> io::Result<Option<Distrust>> {
        // Not following a symbolic link: in /tmp anybody could have made one.
        let metadata = fs::symlink_metadata(&self.0)?;
        if metadata.is_dir() && metadata.uid() != geteuid().as_raw() {
            return Ok(Some(Distrust { problem: format!("it belongs to user {}", metadata.uid()), remedy: None }));
        }
        Ok(distrust_of(&metadata, &self.0))
    }

    /// The sockets in it, newest first.
    pub(crate) fn sockets(&self) -> Vec<PathBuf> {
        let Ok(entries) = fs::read_dir(&self.0) else { return Vec::new() };
        let mut found: Vec<_> = entries
            .filter_map(Result::ok)
            .map(|entry| entry.path())
            .filter(|path| path.extension().is_some_and(|extension| extension == "sock"))
            .filter_map(|path| Some((fs::symlink_metadata(&path).ok()?.modified().ok()?, path)))
            .collect();
        found.sort();
        found.into_iter().rev().map(|(_, path)| path).collect()
    }
}

/// The first directory that does not belong to another user, or the first of all: then that one's error is told.
fn first_own(mut candidates: Vec<RuntimeDir>) -> RuntimeDir {
    let is_others = |dir: &RuntimeDir| {
        fs::symlink_metadata(&dir.0).is_ok_and(|found| found.is_dir() && found.uid() != geteuid().as_raw())
    };
    let own = candidates.iter().position(|dir| !is_others(dir)).unwrap_or(0);
    candidates.swap_remove(own)
}

fn distrust_of(metadata: &Metadata, path: &Path) -> Option<Distrust> {
    if !metadata.is_dir() {
        return Some(Distrust { problem: "it is not a directory".to_owned(), remedy: None });
    }
    writable_by_others(metadata, "it", path)
}

/// The same of the system's directory, which root gave to a user: nobody else may have been able to put it there.
fn distrust_of_given(metadata: &Metadata, parent: &Metadata) -> Option<Distrust> {
    if parent.uid() != 0 {
        let problem = format!("/run belongs to user {}", parent.uid());
        return Some(Distrust { problem, remedy: Some("run `chown root /run`".to_owned()) });
    }
    writable_by_others(parent, "/run", Path::new("/run")).or_else(|| distrust_of(metadata, Path::new(OF_THE_SYSTEM)))
}

/// Group and others may at most look.
fn writable_by_others(metadata: &Metadata, name: &str, path: &Path) -> Option<Distrust> {
    let mode = metadata.mode() & 0o7777;
    (mode & 0o022 != 0).then(|| Distrust {
        problem: format!("{name} can be written by others (mode {mode:o})"),
        remedy: Some(format!("run `chmod 755 {}`", path.display())),
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn with_mode(mode: u32) -> (tempfile::TempDir, Metadata) {
        let directory = tempfile::tempdir().unwrap();
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(mode)).unwrap();
        let metadata = fs::symlink_metadata(directory.path()).unwrap();
        (directory, metadata)
    }

    #[test]
    fn a_directory_of_another_user_is_left_to_its_user() {
        assert!(geteuid().is_root(), "a directory is given away here; run the tests as root");
        let base = tempfile::tempdir().unwrap();
        let [others, own] = ["others", "own"].map(|name| RuntimeDir(base.path().join(name)));
        fs::create_dir(&others.0).unwrap();
        std::os::unix::fs::chown(&others.0, Some(997), None).unwrap();
        let error = format!("{:#}", others.prepare().unwrap_err());
        assert!(error.ends_with("it belongs to user 997; name another place with --control-socket PATH"), "{error}");
        let chosen = first_own(vec![others.clone(), own.clone()]);
        assert_eq!(chosen.0, own.0, "a place of its own");
        chosen.prepare().unwrap();
        assert_eq!(first_own(vec![others.clone()]).0, others.0, "whose error is told");
    }

    #[test]
    fn what_others_can_write_to_is_named_with_its_remedy() {
        let (_private, private) = with_mode(0o755);
        let (directory, open) = with_mode(0o1777);
        let dir = RuntimeDir(directory.path().to_owned());
        let said = dir.distrust().unwrap().with("name another");
        let path = directory.path().display();
        assert_eq!(said, format!("it can be written by others (mode 1777); run `chmod 755 {path}`, or name another"));
        if geteuid().is_root() {
            assert_eq!(distrust_of_given(&private, &private), None);
            let said = distrust_of_given(&private, &open).unwrap().with("name another");
            assert_eq!(said, "/run can be written by others (mode 1777); run `chmod 755 /run`, or name another");
            let said = distrust_of_given(&open, &private).unwrap().with("name another");
            assert!(said.contains("run `chmod 755 /run/herd`"), "{said}");
        }
    }
}
