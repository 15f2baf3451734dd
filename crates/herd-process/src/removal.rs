//! Removes a directory whose content a hostile worker made.
//!
//! The standard library's `remove_dir_all` descends: it holds one descriptor and one stack frame for each level, so a
//! worker that nests directories deep enough would exhaust the daemon's descriptors or its stack. Here no directory is
//! ever deeper than one level below the top: what is found further down is first moved up.

use std::{os::fd::OwnedFd, path::Path};

use rustix::{
    fs::{AtFlags, Dir, FileType, Mode, OFlags, RenameFlags, chmod, openat, renameat_with, rmdir, unlinkat},
    io::{Errno, Result},
};

/// Removes the directory and everything in it. Follows no symbolic links and leaves nothing locked away behind
/// permissions. Nothing may be using the directory any more.
pub(crate) fn remove_tree(path: &Path) -> Result<()> {
    let top = match open_dir(rustix::fs::CWD, path) {
        Err(Errno::NOENT) => return Ok(()),
        opened => opened?,
    };
    let mut names = MovedNames::default();
    while remove_entries(&top, &mut names)? {}
    rmdir(path)
}

/// Goes once over the directory's entries and removes them, or moves up what was in them. Whether there were any.
fn remove_entries(top: &OwnedFd, names: &mut MovedNames) -> Result<bool> {
    let mut progress = false;
    let mut first_error = None;
    for entry in Dir::read_from(top)? {
        let entry = entry?;
        let name = entry.file_name();
        if is_dot(name.to_bytes()) {
            continue;
        }
        let removed = match unlink_file(top, name, entry.file_type())? {
            Removed::Yes => Ok(()),
            Removed::IsDirectory => empty_directory(top, name, names),
        };
        match removed {
            Ok(()) => progress = true,
            Err(error) => first_error = first_error.or(Some(error)),
        }
    }
    // As long as something goes, what failed may succeed the next time; when nothing does, it never will.
    match first_error {
        Some(error) if !progress => Err(error),
        _ => Ok(progress),
    }
}

/// Removes a directory below the top, after moving its own directories up.
fn empty_directory(top: &OwnedFd, name: &std::ffi::CStr, names: &mut MovedNames) -> Result<()> {
    let directory = open_dir(top, name)?;
    for entry in Dir::read_from(&directory)? {
        let entry = entry?;
        let name = entry.file_name();
        if is_dot(name.to_bytes()) {
            continue;
        }
        if let Removed::IsDirectory = unlink_file(&directory, name, entry.file_type())? {
            // A directory can only be moved by one who may write to it.
            make_accessible(&directory, name)?;
            names.move_up(&directory, name, top)?;
        }
    }
    unlinkat(top, name, AtFlags::REMOVEDIR)
}

enum Removed {
    Yes,
    IsDirectory,
}

fn unlink_file(directory: &OwnedFd, name: &std::ffi::CStr, kind: FileType) -> Result<Removed> {
    if kind == FileType::Directory {
        return Ok(Removed::IsDirectory);
    }
    match unlinkat(directory, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(Removed::Yes),
        // Some file systems do not tell what an entry is; unlink(2) does.
        Err(Errno::ISDIR) => Ok(Removed::IsDirectory),
        Err(error) => Err(error),
    }
}

/// Opens a directory for reading its entries and changing them.
fn open_dir<P: rustix::path::Arg + Copy>(at: impl std::os::fd::AsFd + Copy, path: P) -> Result<OwnedFd> {
    make_accessible(at, path)?;
    openat(at, path, OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
}

/// Gives the directory's owner all rights to it, in a way that follows no symbolic link: chmod(2) acts on the very
/// directory that was opened.
fn make_accessible<P: rustix::path::Arg>(at: impl std::os::fd::AsFd, path: P) -> Result<()> {
    use std::os::fd::AsRawFd as _;

    let directory =
        openat(at, path, OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    let mode = Mode::from_raw_mode(rustix::fs::fstat(&directory)?.st_mode);
    if mode.contains(Mode::RWXU) {
        return Ok(());
    }
    chmod(format!("/proc/self/fd/{}", directory.as_raw_fd()), Mode::RWXU)
}

fn is_dot(name: &[u8]) -> bool {
    matches!(name, b"." | b"..")
}

/// Names for what is moved to the top. The worker may have used any of them.
#[derive(Debug, Default)]
struct MovedNames(u64);

impl MovedNames {
    fn move_up(&mut self, from: &OwnedFd, name: &std::ffi::CStr, top: &OwnedFd) -> Result<()> {
        loop {
            let moved = self.0.to_string();
            self.0 += 1;
            match renameat_with(from, name, top, moved.as_str(), RenameFlags::NOREPLACE) {
                Err(Errno::EXIST) => {}
                result => return result,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _};

    use rustix::fs::mkdirat;

    use super::*;

    #[test]
    fn everything_in_the_directory_goes_and_nothing_outside() {
        let parent = tempfile::tempdir().expect("a directory");
        let outside = parent.path().join("outside");
        fs::create_dir(&outside).expect("a directory");
        fs::write(outside.join("kept"), "").expect("a file");

        let top = parent.path().join("top");
        fs::create_dir_all(top.join("a/b/c")).expect("directories");
        fs::create_dir_all(top.join("0/1")).expect("directories with the names that moved ones get");
        fs::write(top.join("a/b/c/file"), "x").expect("a file");
        std::os::unix::fs::symlink(&outside, top.join("a/link")).expect("a link");
        fs::set_permissions(top.join("a/b"), fs::Permissions::from_mode(0o000)).expect("it is ours");

        remove_tree(&top).expect("all of it can be removed");
        assert!(!top.exists());
        assert!(outside.join("kept").exists());
        remove_tree(&top).expect("what is gone is removed");
    }

    #[test]
    fn directories_nested_deeper_than_there_are_descriptors_are_removed() {
        let parent = tempfile::tempdir().expect("a directory");
        let top = parent.path().join("top");
        fs::create_dir(&top).expect("a directory");
        let mut here = open_dir(rustix::fs::CWD, top.as_path()).expect("it is there");
        for _ in 0..5_000 {
            mkdirat(&here, "d", Mode::RWXU).expect("a directory");
            here = open_dir(&here, "d").expect("it is there");
        }
        drop(here);
        remove_tree(&top).expect("all of it can be removed");
        assert!(!top.exists());
    }
}
