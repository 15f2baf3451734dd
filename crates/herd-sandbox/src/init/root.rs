//! The worker's root: an empty file system in memory, and what is put onto it.
//!
//! Paths in it are resolved by the kernel as if it were the root already (openat2(2), `RESOLVE_IN_ROOT`), so that no
//! symbolic link in it leads to the host.

use std::{
    cell::{OnceCell, RefCell},
    collections::HashSet,
    ffi::{CStr, CString, OsStr},
    fs::File,
    io::{self, Write},
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
};

use rustix::{
    fs::{
        AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, fstat, mkdirat, mknodat, openat, openat2, readlink, statat,
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

/// How many pseudo-terminals a worker may have open at once.
const TERMINALS: &str = "64";

#[derive(Debug)]
pub(super) struct Root {
    top: OwnedFd,
    /// Directories in which this process alone makes names, as in all that lead to them: none is a symbolic link. What
    /// is in them is found without opening them first, which half of the time would go into.
    own: RefCell<HashSet<CString>>,
    /// What covers hidden directories, and what covers hidden files, once there is one.
    covers: [OnceCell<OwnedFd>; 2],
}

/// Where something is, or shall be.
#[derive(Debug)]
struct Place {
    /// The top, if none is named.
    directory: Option<OwnedFd>,
    /// From there; nothing on the way is a symbolic link, and the last name is not followed if it is one.
    path: CString,
}

impl Root {
    pub(super) fn new() -> io::Result<Self> {
        let top = memory_file_system(SIZE, "4096", "0755", TAME | MountAttrFlags::MOUNT_ATTR_NOEXEC)?;
        // On top of the host's root it covers nothing: paths go on to begin below it. See path_resolution(7), step 1.
        move_mount(&top, c"", CWD, c"/", MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?;
        Ok(Self {
            top,
            own: RefCell::new(HashSet::from([c"/".to_owned()])),
            covers: [OnceCell::new(), OnceCell::new()],
        })
    }

    /// Makes a directory and those above it, as far as they are not there.
    pub(super) fn make_directory(&self, path: &CStr) -> io::Result<()> {
        let place = self.place(path)?;
        match mkdirat(self.directory(&place), place.path.as_c_str(), Mode::from_raw_mode(0o755)) {
            Ok(()) if place.directory.is_none() => {
                self.own.borrow_mut().insert(path.to_owned());
                Ok(())
            }
            // It may be a symbolic link to one.
            Err(Errno::EXIST) => Ok(self.open(path, OFlags::DIRECTORY).map(drop)?),
            made => Ok(made?),
        }
    }

    pub(super) fn link(&self, path: &CStr, target: &CStr) -> io::Result<()> {
        let place = self.place(path)?;
        Ok(symlinkat(target, self.directory(&place), place.path.as_c_str())?)
    }

    pub(super) fn write_file(&self, path: &CStr, text: &[u8]) -> io::Result<()> {
        let place = self.place(path)?;
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
        let file = openat(self.directory(&place), place.path.as_c_str(), flags, Mode::from_raw_mode(0o444))?;
        File::from(file).write_all(text)
    }

    /// Shows what the host has at this path: a symbolic link as one, anything else read-only; nothing if it has nothing.
    pub(super) fn mirror(&self, path: &CStr) -> io::Result<()> {
        match statat(CWD, path, AtFlags::SYMLINK_NOFOLLOW).map(|found| FileType::from_raw_mode(found.st_mode)) {
            Ok(FileType::Symlink) => self.link(path, &readlink(path, Vec::new())?),
            Ok(_) => self.bind(path, path, Access::ReadOnly, true),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::ACCESS) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Shows a file or a directory of the host, with all that is mounted below it; through symbolic links only if they are
    /// to be followed.
    pub(super) fn bind(&self, source: &CStr, target: &CStr, access: Access, follow: bool) -> io::Result<()> {
        let tree = if follow {
            clone_tree(CWD, source)?
        } else {
            let flags = OFlags::PATH | OFlags::CLOEXEC;
            clone_tree(openat2(CWD, source, flags, Mode::empty(), ResolveFlags::NO_SYMLINKS)?, c"")?
        };
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
        let kind = FileType::from_raw_mode(fstat(&tree)?.st_mode);
        self.attach(&tree, target, kind)?;
        // Names in it, and in what it covers, are the host's from here on.
        let covered = Path::new(OsStr::from_bytes(target.to_bytes()));
        self.own.borrow_mut().retain(|path| !Path::new(OsStr::from_bytes(path.to_bytes())).starts_with(covered));
        Ok(())
    }

    /// An empty file system in memory, in which everybody may create files, as in `/tmp`.
    pub(super) fn memory(&self, path: &CStr, size: u64, files: u64) -> io::Result<()> {
        let tree = memory_file_system(&size.to_string(), &files.to_string(), "1777", TAME)?;
        self.attach(&tree, path, FileType::Directory)
    }

    /// See pts(4) and the kernel's filesystems/devpts.rst: every such mount has terminals of its own.
    pub(super) fn terminals(&self) -> io::Result<()> {
        // A mount has as many as the whole host if nothing else is said: one worker could take them all.
        let options = [("ptmxmode", "0666"), ("mode", "0620"), ("max", TERMINALS)];
        let tree =
            file_system("devpts", &options, MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC)?;
        self.attach(&tree, c"/dev/pts", FileType::Directory)
    }

    /// The kernel's: nobody else makes names in it, and what it lists beside processes is no symbolic link.
    pub(super) fn processes(&self) -> io::Result<()> {
        let tree = file_system("proc", &[], TAME | MountAttrFlags::MOUNT_ATTR_NOEXEC)?;
        self.attach(&tree, c"/proc", FileType::Directory)
    }

    /// Makes what is at this path read-only, if something is.
    pub(super) fn freeze(&self, path: &CStr) -> io::Result<()> {
        let Some((place, _)) = self.find(path)? else { return Ok(()) };
        let tree = clone_tree(self.directory(&place), &place.path)?;
        set_attributes(&tree, MountAttrFlags::MOUNT_ATTR_RDONLY.bits().into(), true)?;
        self.put(&tree, &place)
    }

    /// Covers what is at this path, if something is: a directory by an empty one, anything else by what cannot be opened.
    pub(super) fn hide(&self, path: &CStr) -> io::Result<()> {
        let Some((place, kind)) = self.find(path)? else { return Ok(()) };
        let read_only = TAME | MountAttrFlags::MOUNT_ATTR_RDONLY | MountAttrFlags::MOUNT_ATTR_NOEXEC;
        let [directory, file] = &self.covers;
        let cover = if kind == FileType::Directory { directory } else { file };
        if let Some(cover) = cover.get() {
            return self.put(&clone_tree(cover, c"")?, &place);
        }
        let tree = if kind == FileType::Directory {
            memory_file_system("4096", "2", "0555", read_only)?
        } else {
            // The null device where devices do nothing: nobody can open it.
            let tree = clone_tree(CWD, c"/dev/null")?;
            set_attributes(&tree, read_only.bits().into(), false)?;
            tree
        };
        self.put(&tree, &place)?;
        // Covers that follow are copies of it.
        let _ = cover.set(tree);
        Ok(())
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

    /// Mounts a directory or a file at this path, on a place that is made for it if nothing is there.
    fn attach(&self, tree: &OwnedFd, path: &CStr, kind: FileType) -> io::Result<()> {
        let place = self.place(path)?;
        let made = if kind == FileType::Directory {
            mkdirat(self.directory(&place), place.path.as_c_str(), Mode::from_raw_mode(0o755))
        } else {
            mknodat(self.directory(&place), place.path.as_c_str(), FileType::RegularFile, Mode::from_raw_mode(0o444), 0)
        };
        match made {
            // It may be a symbolic link.
            Err(Errno::EXIST) => self.put(tree, &Place::opened(self.open(path, OFlags::empty())?)),
            made => made.map_err(Into::into).and_then(|()| self.put(tree, &place)),
        }
    }

    fn put(&self, tree: &OwnedFd, place: &Place) -> io::Result<()> {
        let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
        Ok(move_mount(tree, c"", self.directory(place), place.path.as_c_str(), flags)?)
    }

    /// Where something new is to be put. Makes the directory for it.
    fn place(&self, path: &CStr) -> io::Result<Place> {
        let (parent, name) = split(path)?;
        if !self.own.borrow().contains(&parent) {
            self.make_directory(&parent)?;
        }
        if self.own.borrow().contains(&parent) {
            return Ok(Place { directory: None, path: from_top(path)? });
        }
        Ok(Place { directory: Some(self.open(&parent, OFlags::DIRECTORY)?), path: name })
    }

    /// Where something is, and what it is; `None` if there is nothing.
    fn find(&self, path: &CStr) -> io::Result<Option<(Place, FileType)>> {
        let nothing = |errno| matches!(errno, Errno::NOENT | Errno::NOTDIR);
        if split(path).is_ok_and(|(parent, _)| self.own.borrow().contains(&parent)) {
            let place = Place { directory: None, path: from_top(path)? };
            match statat(&self.top, place.path.as_c_str(), AtFlags::SYMLINK_NOFOLLOW) {
                Ok(found) => match FileType::from_raw_mode(found.st_mode) {
                    FileType::Symlink => {}
                    kind => return Ok(Some((place, kind))),
                },
                Err(errno) if nothing(errno) => return Ok(None),
                Err(errno) => return Err(errno.into()),
            }
        }
        match self.open(path, OFlags::empty()) {
            Ok(found) => {
                let kind = FileType::from_raw_mode(fstat(&found)?.st_mode);
                Ok(Some((Place::opened(found), kind)))
            }
            Err(errno) if nothing(errno) => Ok(None),
            Err(errno) => Err(errno.into()),
        }
    }

    fn directory<'a>(&'a self, place: &'a Place) -> BorrowedFd<'a> {
        place.directory.as_ref().unwrap_or(&self.top).as_fd()
    }

    /// Follows symbolic links as if this were the root.
    fn open(&self, path: &CStr, flags: OFlags) -> Result<OwnedFd, Errno> {
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        openat2(&self.top, path, OFlags::PATH | OFlags::CLOEXEC | flags, Mode::empty(), resolve)
    }
}

impl Place {
    /// What this descriptor is of.
    fn opened(descriptor: OwnedFd) -> Self {
        Self { directory: Some(descriptor), path: CString::default() }
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
fn clone_tree(at: impl AsFd, path: &CStr) -> io::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_RECURSIVE
        | OpenTreeFlags::AT_EMPTY_PATH;
    Ok(open_tree(at, path, flags)?)
}

/// The directory that a path is in, and its name there.
fn split(path: &CStr) -> io::Result<(CString, CString)> {
    let path = Path::new(OsStr::from_bytes(path.to_bytes()));
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    Ok((CString::new(parent.as_os_str().as_bytes())?, CString::new(name.as_bytes())?))
}

fn from_top(path: &CStr) -> io::Result<CString> {
    let bytes = path.to_bytes();
    Ok(CString::new(bytes.strip_prefix(b"/").unwrap_or(bytes))?)
}
