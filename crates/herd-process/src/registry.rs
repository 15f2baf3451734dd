//! The directory in which all daemons of a host tell each other which users are taken.

use std::{
    fs::{self, DirBuilder},
    io,
    os::{fd::OwnedFd, unix::fs::DirBuilderExt as _},
    path::{Path, PathBuf},
};

use rustix::{
    fs::{
        Access, AtFlags, CWD, Dir, FileType, Mode, OFlags, Stat, accessat, fstat, mkdirat, openat, stat, statat,
        unlinkat,
    },
    io::Errno,
    process::geteuid,
};

use crate::lock::{Locked, lock_or_create_in};

/// A directory of locks that nobody but this user can change. What is done in it goes by its descriptor, so that no name
/// leads elsewhere.
#[derive(Debug)]
pub(crate) struct Registry {
    path: PathBuf,
    directory: OwnedFd,
}

/// What a directory says cannot be relied on, or cannot be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RegistryError {
    #[error("which users are taken cannot be told: {} {fault}; {remedy}", .path.display())]
    Unsafe { path: PathBuf, fault: String, remedy: String },
    #[error(
        "which users are taken cannot be told: {} was removed or replaced while herd runs; restart every herd of this \
         host, which makes it anew",
        .0.display()
    )]
    Vanished(PathBuf),
    #[error("which users are taken cannot be told: {}", .path.display())]
    Io { path: PathBuf, source: io::Error },
}

impl Registry {
    /// Whether [`open`](Self::open) would succeed, as far as that can be told without changing anything.
    pub(crate) fn examine(path: &Path) -> Result<(), RegistryError> {
        let unusable = |errno: Errno| RegistryError::Io { path: path.to_owned(), source: errno.into() };
        examine_above(path)?;
        match Self::open_existing(path) {
            Err(RegistryError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                accessat(CWD, nearest_above(path), Access::WRITE_OK | Access::EXEC_OK, AtFlags::EACCESS)
                    .map_err(unusable)
            }
            opened => opened.map(drop),
        }
    }

    /// Opens it, and makes it and what is missing above if it is not there.
    pub(crate) fn open(path: &Path) -> Result<Self, RegistryError> {
        examine_above(path)?;
        if let Some(above) = path.parent().filter(|above| !above.exists()) {
            let made = DirBuilder::new().recursive(true).mode(0o755).create(above);
            made.map_err(|source| RegistryError::Io { path: above.to_owned(), source })?;
            // Somebody else may have been faster.
            examine_above(path)?;
        }
        match mkdirat(CWD, path, Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => Self::open_existing(path),
            Err(errno) => Err(RegistryError::Io { path: path.to_owned(), source: errno.into() }),
        }
    }

    fn open_existing(path: &Path) -> Result<Self, RegistryError> {
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::RDONLY | OFlags::CLOEXEC;
        let remedy = || "remove it, and herd makes it anew".to_owned();
        let directory = match openat(CWD, path, flags, Mode::empty()) {
            Err(Errno::LOOP | Errno::NOTDIR) => {
                let fault = "is no directory".to_owned();
                return Err(RegistryError::Unsafe { path: path.to_owned(), fault, remedy: remedy() });
            }
            opened => opened.map_err(|errno| RegistryError::Io { path: path.to_owned(), source: errno.into() })?,
        };
        let registry = Self { path: path.to_owned(), directory };
        let status = fstat(&registry.directory).map_err(|errno| registry.unusable(errno.into()))?;
        match fault(&status, &[geteuid().as_raw()], false) {
            Some(fault) => Err(RegistryError::Unsafe { path: registry.path, fault, remedy: remedy() }),
            None => Ok(registry),
        }
    }

    /// Locks a file in it, which is made if it is not there.
    ///
    /// # Errors
    /// If this is no more the directory that others find by its path: what is locked in it would be locked for nobody
    /// else, and what others have locked is not known here.
    pub(crate) fn lock(&self, name: &str) -> Result<Locked, RegistryError> {
        self.ensure_current()?;
        match lock_or_create_in(&self.directory, Path::new(name)) {
            // Only in a directory that is gone there can be no file.
            Ok(Locked::Missing) => Err(RegistryError::Vanished(self.path.clone())),
            locked => locked.map_err(|errno| self.unusable(errno.into())),
        }
    }

    pub(crate) fn remove(&self, name: &str) -> io::Result<()> {
        Ok(unlinkat(&self.directory, name, AtFlags::empty())?)
    }

    /// The names in it that are text.
    pub(crate) fn names(&self) -> Result<Vec<String>, RegistryError> {
        let entries = Dir::read_from(&self.directory).map_err(|errno| self.unusable(errno.into()))?;
        let named = entries.flatten().filter_map(|entry| entry.file_name().to_str().ok().map(str::to_owned));
        Ok(named.collect())
    }

    pub(crate) fn unusable(&self, source: io::Error) -> RegistryError {
        RegistryError::Io { path: self.path.clone(), source }
    }

    fn ensure_current(&self) -> Result<(), RegistryError> {
        let own = fstat(&self.directory).map_err(|errno| self.unusable(errno.into()))?;
        let named = statat(CWD, &self.path, AtFlags::SYMLINK_NOFOLLOW);
        let is_current = named.is_ok_and(|named| (named.st_dev, named.st_ino) == (own.st_dev, own.st_ino));
        if is_current { Ok(()) } else { Err(RegistryError::Vanished(self.path.clone())) }
    }
}

/// Whoever may change a directory above it may put another in its place. The root is not looked at: whoever has that has
/// everything.
fn examine_above(path: &Path) -> Result<(), RegistryError> {
    let above = nearest_above(path);
    let failed = |path: &Path, source| RegistryError::Io { path: path.to_owned(), source };
    let above = fs::canonicalize(above).map_err(|source| failed(above, source))?;
    for directory in above.ancestors().filter(|directory| directory.parent().is_some()) {
        let status = stat(directory).map_err(|errno| failed(directory, errno.into()))?;
        if let Some(fault) = fault(&status, &[0, geteuid().as_raw()], true) {
            let remedy =
                format!("make it root's alone to write to: `chown root {0} && chmod go-w {0}`", directory.display());
            return Err(RegistryError::Unsafe { path: directory.to_owned(), fault, remedy });
        }
    }
    Ok(())
}

/// The directory above that is there: in a root that holds nothing else, it is the root.
fn nearest_above(path: &Path) -> &Path {
    path.ancestors().skip(1).find(|above| above.symlink_metadata().is_ok()).unwrap_or(Path::new("/"))
}

/// Why others than these users can change what is in a directory. In one that is sticky they can change only their own.
fn fault(status: &Stat, owners: &[u32], sticky_will_do: bool) -> Option<String> {
    let mode = Mode::from_raw_mode(status.st_mode);
    if FileType::from_raw_mode(status.st_mode) != FileType::Directory {
        return Some("is no directory".to_owned());
    }
    if !owners.contains(&status.st_uid) {
        return Some(format!("belongs to user {}, who could change what is in it", status.st_uid));
    }
    let is_open = mode.intersects(Mode::WGRP | Mode::WOTH) && !(sticky_will_do && mode.contains(Mode::SVTX));
    is_open.then(|| format!("may be written to by others (mode {:o})", mode.as_raw_mode()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, symlink};

    use super::*;

    fn refusal(path: &Path) -> String {
        let [examined, opened] = [Registry::examine(path), Registry::open(path).map(drop)];
        let examined = examined.expect_err("it is unsafe").to_string();
        assert_eq!(examined, opened.expect_err("it is unsafe").to_string());
        examined
    }

    fn set_mode(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("it is ours");
    }

    #[test]
    fn to_examine_it_makes_nothing() {
        let base = tempfile::tempdir().expect("a directory");
        let path = base.path().join("uids");
        Registry::examine(&path).expect("it could be made");
        assert!(!path.exists());
        Registry::open(&path).expect("it can be made");
        assert_eq!(fs::metadata(&path).expect("it is there").mode() & 0o7777, 0o700);
    }

    #[test]
    fn in_a_root_that_holds_nothing_else_it_is_made_with_what_is_above() {
        let base = tempfile::tempdir().expect("a directory");
        let path = base.path().join("run/uids");
        Registry::examine(&path).expect("it could be made");
        assert!(!base.path().join("run").exists());
        Registry::open(&path).expect("it can be made");
        Registry::examine(&path).expect("nobody else can change it");
    }

    #[test]
    fn a_link_is_not_followed_to_what_somebody_else_chose() {
        let base = tempfile::tempdir().expect("a directory");
        let path = base.path().join("uids");
        fs::create_dir(base.path().join("victim")).expect("a directory");
        symlink("victim", &path).expect("a link");
        assert!(refusal(&path).ends_with("uids is no directory; remove it, and herd makes it anew"));
        fs::remove_file(&path).expect("it is ours");
        fs::write(&path, "").expect("a file");
        assert!(refusal(&path).contains("is no directory"));
    }

    #[test]
    fn a_directory_that_others_may_change_is_refused() {
        let base = tempfile::tempdir().expect("a directory");
        let path = base.path().join("uids");
        fs::create_dir(&path).expect("a directory");
        for mode in [0o720, 0o702, 0o1777] {
            set_mode(&path, mode);
            assert!(refusal(&path).contains(&format!("uids may be written to by others (mode {mode:o}); remove it")));
        }
        set_mode(&path, 0o755);
        Registry::open(&path).expect("others may look");
        // Nor one that others may put another in the place of.
        set_mode(base.path(), 0o777);
        assert!(refusal(&path).contains("may be written to by others (mode 777); make it root's alone"));
        set_mode(base.path(), 0o1777);
        Registry::open(&path).expect("others may only change their own");
    }

    #[test]
    fn as_root_a_directory_of_somebody_else_is_refused() {
        assert!(geteuid().is_root(), "a directory is given away here; run the tests as root");
        let base = tempfile::tempdir().expect("a directory");
        let path = base.path().join("uids");
        fs::create_dir(&path).expect("a directory");
        chown(&path, Some(1), None).expect("it can be given");
        assert!(refusal(&path).contains("uids belongs to user 1, who could change what is in it; remove it"));
        chown(&path, Some(0), None).expect("it can be taken");
        chown(base.path(), Some(1), None).expect("it can be given");
        assert!(refusal(&path).contains("belongs to user 1, who could change what is in it; make it root's alone"));
    }

    #[test]
    fn a_directory_that_is_gone_or_replaced_locks_nothing() {
        let base = tempfile::tempdir().expect("a directory");
        let path = base.path().join("uids");
        let registry = Registry::open(&path).expect("it can be made");
        let _held = registry.lock("1").expect("it can be locked");
        for replaced in [false, true] {
            fs::remove_dir_all(&path).expect("it is ours");
            if replaced {
                Registry::open(&path).expect("another daemon makes it anew");
            }
            let error = registry.lock("2").expect_err("nobody else would know").to_string();
            assert!(error.contains("was removed or replaced while herd runs; restart every herd"), "{error}");
            fs::create_dir_all(&path).expect("a directory");
        }
        assert_eq!(fs::read_dir(&path).expect("it is there").count(), 0, "nothing was made in the other one");
    }
}
