//! The worker's root: an empty file system in memory, and what is put onto it.
//!
//! Paths in it are resolved by the kernel as if it were the root already (openat2(2), `RESOLVE_IN_ROOT`), so that no
//! symbolic link in it leads to the host.

use std::{
    ffi::{CStr, CString, OsStr},
    fs::File,
    io::{self, Write},
    os::{fd::OwnedFd, unix::ffi::OsStrExt},
    path::Path,
};

use rustix::{
    fs::{
        AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, fstat, mkdirat, openat, openat2, readlink, statat,
        symlinkat,
    },
    io::Errno,
    mount::{
        FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags, fsconfig_create,
        fsconfig_set_string, fsmount, fsopen, move_mount, open_tree, unmount,
    },
    process::{chdir, fchdir, pivot_root},
};

use crate::{plan::Access, sys::mount::set_attributes};

/// What no mount of a sandbox allows: set-user-ID programs and device nodes.
const TAME: MountAttrFlags = MountAttrFlags::MOUNT_ATTR_NOSUID.union(MountAttrFlags::MOUNT_ATTR_NODEV);

/// How much it may hold itself, in bytes: names, links and a few small files.
const SIZE: &str = "1048576";

#[derive(Debug)]
pub(super) struct Root {
    top: OwnedFd,
}

impl Root {
    pub(super) fn new() -> io::Result<Self> {
        let top = memory_file_system(SIZE, "4096", "0755", TAME | MountAttrFlags::MOUNT_ATTR_NOEXEC)?;
        // On top of the host's root it covers nothing: paths go on to begin below it. See path_resolution(7), step 1.
        move_mount(&top, c"", CWD, c"/", MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?;
        Ok(Self { top })
    }

    /// Makes a directory and those above it, as far as they are not there.
    pub(super) fn make_directory(&self, path: &CStr) -> io::Result<OwnedFd> {
        if let Ok(directory) = self.open(path) {
            return Ok(directory);
        }
        let (parent, name) = split(path)?;
        let parent = self.make_directory(&parent)?;
        match mkdirat(&parent, name.as_c_str(), Mode::from_raw_mode(0o755)) {
            Err(Errno::EXIST) => {}
            made => made?,
        }
        Ok(self.open(path)?)
    }

    pub(super) fn link(&self, path: &CStr, target: &CStr) -> io::Result<()> {
        let (parent, name) = split(path)?;
        Ok(symlinkat(target, self.make_directory(&parent)?, name.as_c_str())?)
    }

    pub(super) fn write_file(&self, path: &CStr, text: &[u8]) -> io::Result<()> {
        let (parent, name) = split(path)?;
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
        let file = openat(self.make_directory(&parent)?, name.as_c_str(), flags, Mode::from_raw_mode(0o444))?;
        File::from(file).write_all(text)
    }

    /// Shows what the host has at this path: a symbolic link as one, anything else read-only; nothing if it has nothing.
    pub(super) fn mirror(&self, path: &CStr) -> io::Result<()> {
        match statat(CWD, path, AtFlags::SYMLINK_NOFOLLOW).map(|found| FileType::from_raw_mode(found.st_mode)) {
            Ok(FileType::Symlink) => self.link(path, &readlink(path, Vec::new())?),
            Ok(_) => self.bind(path, path, Access::ReadOnly),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::ACCESS) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Shows a file or a directory of the host, with all that is mounted below it.
    pub(super) fn bind(&self, source: &CStr, target: &CStr, access: Access) -> io::Result<()> {
        let tree = clone_tree(CWD, source)?;
        let attributes = match access {
            Access::ReadOnly => TAME | MountAttrFlags::MOUNT_ATTR_RDONLY,
            Access::Writable => TAME,
            // Its data can be written all the same; its times and its mode cannot.
            Access::Device => {
                MountAttrFlags::MOUNT_ATTR_RDONLY
                    | MountAttrFlags::MOUNT_ATTR_NOSUID
                    | MountAttrFlags::MOUNT_ATTR_NOEXEC
            }
        };
        set_attributes(&tree, attributes.bits().into(), true)?;
        let is_directory = FileType::from_raw_mode(fstat(&tree)?.st_mode) == FileType::Directory;
        let place = if is_directory { self.make_directory(target)? } else { self.make_file(target)? };
        attach(&tree, &place)
    }

    /// An empty file system in memory, in which everybody may create files, as in `/tmp`.
    pub(super) fn memory(&self, path: &CStr, size: u64, files: u64) -> io::Result<()> {
        let tree = memory_file_system(&size.to_string(), &files.to_string(), "1777", TAME)?;
        attach(&tree, &self.make_directory(path)?)
    }

    /// See pts(4) and the kernel's filesystems/devpts.rst: every such mount has terminals of its own.
    pub(super) fn terminals(&self) -> io::Result<()> {
        let options = [("ptmxmode", "0666"), ("mode", "0620")];
        let tree =
            file_system("devpts", &options, MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC)?;
        attach(&tree, &self.make_directory(c"/dev/pts")?)
    }

    pub(super) fn processes(&self) -> io::Result<()> {
        let tree = file_system("proc", &[], TAME | MountAttrFlags::MOUNT_ATTR_NOEXEC)?;
        attach(&tree, &self.make_directory(c"/proc")?)
    }

    /// Makes what is at this path read-only, if something is.
    pub(super) fn freeze(&self, path: &CStr) -> io::Result<()> {
        let Some(place) = self.find(path)? else { return Ok(()) };
        let tree = clone_tree(&place, c"")?;
        set_attributes(&tree, MountAttrFlags::MOUNT_ATTR_RDONLY.bits().into(), true)?;
        attach(&tree, &place)
    }

    /// Covers what is at this path, if something is: a directory by an empty one, anything else by what cannot be opened.
    pub(super) fn hide(&self, path: &CStr) -> io::Result<()> {
        let Some(place) = self.find(path)? else { return Ok(()) };
        let read_only = TAME | MountAttrFlags::MOUNT_ATTR_RDONLY | MountAttrFlags::MOUNT_ATTR_NOEXEC;
        if FileType::from_raw_mode(fstat(&place)?.st_mode) == FileType::Directory {
            return attach(&memory_file_system("4096", "2", "0555", read_only)?, &place);
        }
        // The null device where devices do nothing: nobody can open it.
        let tree = clone_tree(CWD, c"/dev/null")?;
        set_attributes(&tree, read_only.bits().into(), false)?;
        attach(&tree, &place)
    }

    /// See pivot_root(2), "pivot_root(".", ".")": the old root ends up on top of the new one and is taken off.
    pub(super) fn pivot(&self) -> io::Result<()> {
        fchdir(&self.top)?;
        pivot_root(c".", c".")?;
        unmount(c".", UnmountFlags::DETACH)?;
        Ok(chdir(c"/")?)
    }

    pub(super) fn freeze_top(&self) -> io::Result<()> {
        set_attributes(&self.top, MountAttrFlags::MOUNT_ATTR_RDONLY.bits().into(), false)
    }

    /// Makes an empty file to mount something on, if nothing is there.
    fn make_file(&self, path: &CStr) -> io::Result<OwnedFd> {
        if let Ok(file) = self.open(path) {
            return Ok(file);
        }
        self.write_file(path, b"")?;
        Ok(self.open(path)?)
    }

    fn find(&self, path: &CStr) -> io::Result<Option<OwnedFd>> {
        match self.open(path) {
            Ok(found) => Ok(Some(found)),
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn open(&self, path: &CStr) -> Result<OwnedFd, Errno> {
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        openat2(&self.top, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), resolve)
    }
}

fn memory_file_system(size: &str, files: &str, mode: &str, attributes: MountAttrFlags) -> io::Result<OwnedFd> {
    file_system("tmpfs", &[("size", size), ("nr_inodes", files), ("mode", mode)], attributes)
}

/// A new file system that is mounted nowhere yet; see fsopen(2).
fn file_system(kind: &str, options: &[(&str, &str)], attributes: MountAttrFlags) -> io::Result<OwnedFd> {
    let context = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
    for (key, value) in options {
        fsconfig_set_string(&context, *key, *value)?;
    }
    fsconfig_create(&context)?;
    Ok(fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)?)
}

/// A copy of what is mounted at a path and below it, mounted nowhere yet; see open_tree(2).
fn clone_tree(at: impl std::os::fd::AsFd, path: &CStr) -> io::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_RECURSIVE
        | OpenTreeFlags::AT_EMPTY_PATH;
    Ok(open_tree(at, path, flags)?)
}

fn attach(tree: &OwnedFd, place: &OwnedFd) -> io::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    Ok(move_mount(tree, c"", place, c"", flags)?)
}

/// The directory that a path is in, and its name there.
fn split(path: &CStr) -> io::Result<(CString, CString)> {
    let path = Path::new(OsStr::from_bytes(path.to_bytes()));
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    Ok((CString::new(parent.as_os_str().as_bytes())?, CString::new(name.as_bytes())?))
}
