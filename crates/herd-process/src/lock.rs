//! Files whose lock says that something is in use.
//!
//! The lock is one of flock(2): it belongs to the open file, so that it goes when the last process that holds a copy of
//! the descriptor is gone, however that process ended. A file that is removed while somebody else is about to lock it
//! is a different file from then on, which is looked for.

use std::{
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
};

use rustix::{
    fs::{AtFlags, CWD, FlockOperation, Mode, OFlags, flock, fstat, openat, statat},
    io::{Errno, Result},
};

/// What an attempt to lock a file found.
#[derive(Debug)]
pub(crate) enum Locked {
    /// It is ours until the descriptor and all of its copies are closed.
    Ours(OwnedFd),
    /// Somebody else holds it, or removed it meanwhile.
    Held,
    /// There is no such file, and none was to be made.
    Missing,
}

/// Locks a file that is there.
pub(crate) fn lock(path: &Path) -> Result<Locked> {
    take(CWD, path, OFlags::empty())
}

/// Locks a file, and makes it if it is not there, for this user alone.
pub(crate) fn lock_or_create(path: &Path) -> Result<Locked> {
    take(CWD, path, OFlags::CREATE)
}

/// The same in a directory that is open, whatever has become of its path.
pub(crate) fn lock_or_create_in(directory: impl AsFd, name: &Path) -> Result<Locked> {
    take(directory.as_fd(), name, OFlags::CREATE)
}

fn take(directory: BorrowedFd<'_>, path: &Path, flags: OFlags) -> Result<Locked> {
    let flags = flags | OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = match openat(directory, path, flags, Mode::RUSR | Mode::WUSR) {
        Err(Errno::NOENT) => return Ok(Locked::Missing),
        opened => opened?,
    };
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Err(Errno::WOULDBLOCK) => return Ok(Locked::Held),
        locked => locked?,
    }
    let locked = fstat(&file)?;
    let named = statat(directory, path, AtFlags::SYMLINK_NOFOLLOW);
    let is_named = named.is_ok_and(|named| (named.st_dev, named.st_ino) == (locked.st_dev, locked.st_ino));
    Ok(if is_named { Locked::Ours(file) } else { Locked::Held })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_lock_is_held_by_one_until_all_copies_of_its_descriptor_are_closed() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("lock");
        assert!(matches!(lock(&path), Ok(Locked::Missing)));
        let Ok(Locked::Ours(first)) = lock_or_create(&path) else { panic!("nobody has it") };
        let copy = first.try_clone().expect("a descriptor");
        drop(first);
        assert!(matches!(lock(&path), Ok(Locked::Held)));
        drop(copy);
        assert!(matches!(lock(&path), Ok(Locked::Ours(_))));
    }

    #[test]
    fn a_symbolic_link_is_not_followed() {
        let directory = tempfile::tempdir().expect("a directory");
        fs::write(directory.path().join("other"), "").expect("a file");
        std::os::unix::fs::symlink("other", directory.path().join("lock")).expect("a link");
        assert_eq!(lock_or_create(&directory.path().join("lock")).expect_err("it is a link"), Errno::LOOP);
    }
}
