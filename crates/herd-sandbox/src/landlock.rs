//! Which files, ports, signals and abstract sockets the worker may use, said once more by the worker's own process.
//!
//! It needs no privilege and no namespace, which makes it the wall that stands where namespaces are forbidden; see
//! landlock(7).

use std::{error::Error, ffi::CStr, io, os::fd::OwnedFd};

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, NetPort, PathBeneath, Ruleset, RulesetAttr,
    RulesetCreatedAttr, RulesetError, Scope,
};
use rustix::{
    fs::{FileType, Mode, OFlags, fstat, open},
    io::Errno,
};

use crate::sys;

/// The first version that lets a file be renamed from one directory to another. With an older one ordinary programs
/// would fail, so it counts as none.
pub(crate) const OLDEST: u32 = 2;

/// The first version that knows TCP ports.
pub(crate) const TCP: u32 = 4;

/// The first version that keeps signals and connections to abstract Unix sockets among the confined.
pub(crate) const SCOPES: u32 = 6;

/// The last version whose rights were tried here. What a later one adds is not asked for: it would be denied to programs
/// that were never tried with that.
const NEWEST: u32 = 7;

/// What is allowed. Everything else of the same kind is not.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules<'a, T> {
    /// Files and directories; beneath these, everything can be read, listed and executed.
    pub(crate) read: &'a [T],
    /// Files and directories; beneath these, everything that permissions allow.
    pub(crate) write: &'a [T],
    /// The TCP ports that may be bound and connected to; `None` for all.
    pub(crate) tcp: Option<&'a [u16]>,
}

/// The version of Landlock's interface, 0 where there is none.
pub(crate) fn version() -> u32 {
    sys::landlock::version()
}

/// Confines the calling thread and its descendants for good. From version [`SCOPES`] on they also can signal no process
/// and connect to no abstract Unix socket of others. `no_new_privs` must be set, and is set if it was not.
///
/// A path that does not exist allows nothing.
///
/// # Errors
/// `Unsupported` if the kernel has no Landlock, one older than [`OLDEST`], or, with `tcp`, one older than [`TCP`]. What
/// open(2) and landlock_restrict_self(2) say.
pub(crate) fn restrict<T: AsRef<CStr>>(rules: &Rules<'_, T>) -> io::Result<()> {
    let version = version().min(NEWEST);
    if version < OLDEST || (rules.tcp.is_some() && version < TCP) {
        return Err(io::ErrorKind::Unsupported.into());
    }
    let abi = ABI::from(version.cast_signed());
    // Nothing may be left out because the kernel does not have it: what is asked for is what this version has.
    let mut ruleset = Ruleset::default().set_compatibility(CompatLevel::HardRequirement);
    ruleset = ruleset.handle_access(AccessFs::from_all(abi)).map_err(unconfined)?;
    if rules.tcp.is_some() {
        ruleset = ruleset.handle_access(AccessNet::BindTcp | AccessNet::ConnectTcp).map_err(unconfined)?;
    }
    if version >= SCOPES {
        ruleset = ruleset.scope(Scope::from_all(abi)).map_err(unconfined)?;
    }
    let mut ruleset = ruleset.create().map_err(unconfined)?;
    for (paths, access) in [(rules.read, AccessFs::from_read(abi)), (rules.write, AccessFs::from_all(abi))] {
        for path in paths {
            if let Some(rule) = beneath(path.as_ref(), access, abi)? {
                ruleset = ruleset.add_rule(rule).map_err(unconfined)?;
            }
        }
    }
    for port in rules.tcp.unwrap_or_default() {
        let access = AccessNet::BindTcp | AccessNet::ConnectTcp;
        ruleset = ruleset.add_rule(NetPort::new(*port, access)).map_err(unconfined)?;
    }
    ruleset.restrict_self().map_err(unconfined)?;
    Ok(())
}

/// `None` if there is no such path.
fn beneath(path: &CStr, access: BitFlags<AccessFs>, abi: ABI) -> io::Result<Option<PathBeneath<OwnedFd>>> {
    let parent = match open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()) {
        Ok(parent) => parent,
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
        Err(errno) => return Err(errno.into()),
    };
    let directory = FileType::from_raw_mode(fstat(&parent)?.st_mode) == FileType::Directory;
    // The kernel refuses rights to a file that only a directory can give.
    let access = if directory { access } else { access & AccessFs::from_file(abi) };
    Ok(Some(PathBeneath::new(parent, access)))
}

/// The operating system's error below the crate's, which says at which call it happened.
fn unconfined(error: RulesetError) -> io::Error {
    let mut source: Option<&(dyn Error + 'static)> = Some(&error);
    while let Some(error) = source {
        if let Some(errno) = error.downcast_ref::<io::Error>().and_then(io::Error::raw_os_error) {
            return io::Error::from_raw_os_error(errno);
        }
        source = error.source();
    }
    io::Error::other(error)
}
