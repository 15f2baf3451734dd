use std::{
    fs::{self, DirBuilder, Metadata},
    io,
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use rustix::process::geteuid;

/// Where the system's daemon has its control socket, whichever user it runs as. Only root can make it.
const OF_THE_SYSTEM: &str = "/run/herd";

/// The directory where a user's daemons have their control sockets.
#[derive(Clone, Debug)]
pub(crate) struct RuntimeDir(PathBuf);

impl RuntimeDir {
    /// Where a daemon of this user takes it.
    pub(crate) fn of_daemons() -> Self {
        Self::candidates().swap_remove(0)
    }

    /// Where it may be for the user of this process, at least one.
    pub(crate) fn candidates() -> Vec<Self> {
        let uid = geteuid();
        let xdg =
            std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|dir| dir.is_absolute() && dir.is_dir());
        let mut others = [PathBuf::from(OF_THE_SYSTEM), PathBuf::from(format!("/tmp/herd-{}", uid.as_raw()))];
        if !uid.is_root() {
            // It is there for the system's daemon alone.
            others.reverse();
        }
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
        self.verify().with_context(|| format!("{path} is not fit for the control socket"))
    }

    /// Whether only somebody whom a command of this user may believe can have put something there: this user, or the one
    /// to whom root gave the system's directory.
    pub(crate) fn is_trusted(&self) -> bool {
        let given = || {
            let (metadata, parent) = (fs::symlink_metadata(&self.0)?, fs::symlink_metadata("/run")?);
            let only_root_could_make_it = parent.uid() == 0 && parent.mode() & 0o022 == 0;
            io::Result::Ok(only_root_could_make_it && metadata.is_dir() && metadata.mode() & 0o022 == 0)
        };
        self.verify().is_ok() || (self.0 == Path::new(OF_THE_SYSTEM) && given().unwrap_or(false))
    }

    /// Whether only this user can have put something there.
    pub(crate) fn verify(&self) -> anyhow::Result<()> {
        // Not following a symbolic link: in /tmp anybody could have made one.
        let metadata = fs::symlink_metadata(&self.0)?;
        if let Some(problem) = distrust(&metadata) {
            bail!("it {problem}; remove it, or name another place with --control-socket PATH");
        }
        Ok(())
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

fn distrust(metadata: &Metadata) -> Option<String> {
    if !metadata.is_dir() {
        return Some("is not a directory".to_owned());
    }
    if metadata.uid() != geteuid().as_raw() {
        return Some(format!("belongs to user {}", metadata.uid()));
    }
    // Group and others may at most look.
    let mode = metadata.mode() & 0o777;
    (mode & 0o022 != 0).then(|| format!("can be written by others (mode {mode:o})"))
}
