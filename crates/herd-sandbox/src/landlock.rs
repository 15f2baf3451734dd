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
    fs::{CWD, FileType, Mode, OFlags, ResolveFlags, fstat, open, openat2},
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
    /// Whether symbolic links among the paths are followed. If not, a path with one allows nothing.
    pub(crate) follow: bool,
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
    let version = usable(version(), rules.tcp.is_some())?;
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
            if let Some(rule) = beneath(path.as_ref(), rules.follow, access, abi)? {
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

/// The version to ask for where the kernel has the one that is given.
fn usable(version: u32, tcp: bool) -> io::Result<u32> {
    let needed = if tcp { TCP } else { OLDEST };
    if version < needed { Err(io::ErrorKind::Unsupported.into()) } else { Ok(version.min(NEWEST)) }
}

/// `None` if there is no such path.
fn beneath(
    path: &CStr,
    follow: bool,
    access: BitFlags<AccessFs>,
    abi: ABI,
) -> io::Result<Option<PathBeneath<OwnedFd>>> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let opened = if follow {
        open(path, flags, Mode::empty())
    } else {
        openat2(CWD, path, flags, Mode::empty(), ResolveFlags::NO_SYMLINKS)
    };
    let parent = match opened {
        Ok(parent) => parent,
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
        Err(Errno::LOOP) if !follow => return Ok(None),
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

#[cfg(test)]
mod tests {
    use std::{
        ffi::CString,
        fs::{self, File},
        io::ErrorKind,
        net::{Ipv4Addr, TcpListener, TcpStream},
        os::{
            linux::net::SocketAddrExt as _,
            unix::{
                ffi::OsStrExt as _,
                net::{SocketAddr, UnixListener, UnixStream},
            },
        },
        path::{Path, PathBuf},
        process::{Command, Stdio},
        thread,
    };

    use rustix::process::{Pid, Signal, kill_process};
    use tempfile::TempDir;

    use super::*;

    /// Runs something under rules: in a thread of its own, for good, with all that it starts.
    fn confined<T: Send + 'static>(
        read: &[&Path],
        write: &[&Path],
        tcp: Option<&[u16]>,
        body: impl FnOnce() -> T + Send + 'static,
    ) -> T {
        let texts = |paths: &[&Path]| -> Vec<CString> {
            paths.iter().map(|path| CString::new(path.as_os_str().as_bytes()).unwrap()).collect()
        };
        let (read, write, tcp) = (texts(read), texts(write), tcp.map(<[u16]>::to_vec));
        let confine = move || {
            assert!(version() >= SCOPES, "these tests need Linux 6.12 or newer with lsm=landlock");
            rustix::thread::set_no_new_privs(true).unwrap();
            restrict(&Rules { read: &read, write: &write, tcp: tcp.as_deref(), follow: true }).unwrap();
            body()
        };
        thread::spawn(confine).join().unwrap()
    }

    /// A directory with a file `file` in each of the directories `read`, `write` and `none`.
    struct Place(TempDir);

    impl Place {
        fn new() -> Self {
            let place = Self(tempfile::tempdir().unwrap());
            for name in ["read", "write", "none"] {
                fs::create_dir(place.path(name)).unwrap();
                fs::write(place.path(name).join("file"), name).unwrap();
            }
            place
        }

        fn path(&self, name: &str) -> PathBuf {
            self.0.path().join(name)
        }

        fn confined<T: Send + 'static>(&self, body: impl FnOnce(PathBuf) -> T + Send + 'static) -> T {
            let top = self.0.path().to_owned();
            let (read, write) = (self.path("read"), self.path("write"));
            confined(&[&read], &[&write], None, move || body(top))
        }
    }

    fn kind<T>(result: io::Result<T>) -> Option<ErrorKind> {
        result.err().map(|error| error.kind())
    }

    const DENIED: Option<ErrorKind> = Some(ErrorKind::PermissionDenied);

    #[test]
    fn what_may_be_read_cannot_be_changed() {
        Place::new().confined(|top| {
            let (directory, file) = (top.join("read"), top.join("read/file"));
            assert_eq!(fs::read_to_string(&file).unwrap(), "read");
            assert_eq!(fs::read_dir(&directory).unwrap().count(), 1);
            assert_eq!(kind(fs::write(&file, "")), DENIED);
            assert_eq!(kind(File::options().append(true).open(&file)), DENIED);
            assert_eq!(kind(fs::write(directory.join("new"), "")), DENIED);
            assert_eq!(kind(fs::create_dir(directory.join("new"))), DENIED);
            assert_eq!(kind(fs::remove_file(&file)), DENIED);
            assert_eq!(kind(fs::rename(&file, directory.join("new"))), DENIED);
            assert_eq!(kind(File::create(&file)), DENIED);
            assert_eq!(kind(std::os::unix::fs::symlink("anywhere", directory.join("new"))), DENIED);
            assert_eq!(kind(UnixListener::bind(directory.join("new"))), DENIED);
        });
    }

    #[test]
    fn what_is_not_listed_does_not_open() {
        Place::new().confined(|top| {
            assert_eq!(kind(fs::read(top.join("none/file"))), DENIED);
            assert_eq!(kind(fs::read_dir(top.join("none"))), DENIED);
            assert_eq!(kind(fs::read_dir(&top)), DENIED);
            assert_eq!(kind(fs::read("/etc/passwd")), DENIED);
            assert_eq!(kind(fs::rename(top.join("none/file"), top.join("write/stolen"))), DENIED);
            assert!(kind(fs::hard_link(top.join("none/file"), top.join("write/stolen"))).is_some());
            // A link shows no more than its target may show.
            std::os::unix::fs::symlink(top.join("none/file"), top.join("write/link")).unwrap();
            assert_eq!(kind(fs::read(top.join("write/link"))), DENIED);
        });
    }

    #[test]
    fn everything_can_be_done_where_writing_is_allowed() {
        Place::new().confined(|top| {
            let path = |name: &str| top.join("write").join(name);
            fs::write(path("file"), "longer").unwrap();
            File::options().write(true).open(path("file")).unwrap().set_len(1).unwrap();
            fs::create_dir(path("one")).unwrap();
            fs::create_dir(path("two")).unwrap();
            fs::rename(path("file"), path("one/file")).unwrap();
            // From one directory to another: the right that the first version of Landlock lacks.
            fs::rename(path("one/file"), path("two/file")).unwrap();
            fs::hard_link(path("two/file"), path("one/link")).unwrap();
            std::os::unix::fs::symlink("file", path("two/symlink")).unwrap();
            let fifo = rustix::fs::FileType::Fifo;
            rustix::fs::mknodat(rustix::fs::CWD, path("fifo"), fifo, Mode::RUSR, 0).unwrap();
            let _listener = UnixListener::bind(path("socket")).unwrap();
            UnixStream::connect(path("socket")).unwrap();
            assert_eq!(fs::read_to_string(path("two/symlink")).unwrap(), "l");
            fs::remove_dir_all(path("one")).unwrap();
            fs::remove_dir_all(path("two")).unwrap();
        });
    }

    #[test]
    fn one_file_can_be_listed_alone() {
        let place = Place::new();
        fs::write(place.path("none/other"), "").unwrap();
        let (one, other) = (place.path("none/file"), place.path("none/other"));
        confined(&[], &[&one.clone(), Path::new("/dev/null")], None, move || {
            fs::write(&one, "changed").unwrap();
            assert_eq!(fs::read_to_string(&one).unwrap(), "changed");
            fs::write("/dev/null", "gone").unwrap();
            assert_eq!(kind(fs::read(&other)), DENIED);
            assert_eq!(kind(fs::remove_file(&one)), DENIED);
        });
    }

    #[test]
    fn a_path_that_does_not_exist_allows_nothing() {
        let place = Place::new();
        let missing = [place.path("missing"), place.path("none/file/beyond")];
        let missing = missing.each_ref().map(PathBuf::as_path);
        let file = place.path("none/file");
        assert_eq!(confined(&missing, &missing, None, move || kind(fs::read(&file))), DENIED);
    }

    #[test]
    fn programs_run_from_where_reading_is_allowed_and_are_confined_too() {
        let place = Place::new();
        let program = fs::canonicalize("/bin/cat").unwrap();
        fs::copy(&program, place.path("none/cat")).unwrap();
        let copy = place.path("none/cat");
        let system: Vec<PathBuf> = ["/usr", "/lib", "/lib64", "/etc/ld.so.cache"].iter().map(PathBuf::from).collect();
        let mut read: Vec<&Path> = system.iter().map(PathBuf::as_path).collect();
        let (readable, secret) = (place.path("read"), place.path("none/file"));
        read.push(&readable);
        let file = readable.join("file");
        confined(&read, &[Path::new("/dev/null")], None, move || {
            let cat = |program: &Path, file: &Path| Command::new(program).arg(file).stdin(Stdio::null()).output();
            assert_eq!(cat(&program, &file).unwrap().stdout, b"read");
            let output = cat(&program, &secret).unwrap();
            assert!(!output.status.success() && output.stdout.is_empty(), "{output:?}");
            assert_eq!(kind(cat(&copy, &file)), DENIED);
        });
    }

    #[test]
    fn ports_that_are_not_listed_are_neither_served_nor_reached() {
        let listen = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let (listed, other) = (listen(), listen());
        let port = |listener: &TcpListener| listener.local_addr().unwrap().port();
        let (listed_port, other_port) = (port(&listed), port(&other));
        confined(&[], &[], Some(&[listed_port]), move || {
            TcpStream::connect((Ipv4Addr::LOCALHOST, listed_port)).unwrap();
            assert_eq!(kind(TcpStream::connect((Ipv4Addr::LOCALHOST, other_port))), DENIED);
            // The listed one is taken, so the kernel says no more than that.
            assert_eq!(kind(TcpListener::bind((Ipv4Addr::LOCALHOST, listed_port))), Some(ErrorKind::AddrInUse));
            assert_eq!(kind(TcpListener::bind((Ipv4Addr::LOCALHOST, other_port))), DENIED);
            assert_eq!(kind(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))), DENIED);
        });
        confined(&[], &[], None, move || {
            TcpStream::connect((Ipv4Addr::LOCALHOST, other_port)).unwrap();
            listen();
        });
    }

    #[test]
    fn abstract_sockets_of_others_are_not_reached() {
        let name = format!("herd-sandbox-test-{}", std::process::id());
        let address = move || SocketAddr::from_abstract_name(&name).unwrap();
        let listener = UnixListener::bind_addr(&address()).unwrap();
        UnixStream::connect_addr(&address()).unwrap();
        confined(&[], &[], None, move || {
            let refused = UnixStream::connect_addr(&address());
            assert_eq!(refused.err().and_then(|error| error.raw_os_error()), Some(libc::EPERM));
        });
        drop(listener);
    }

    #[test]
    fn others_are_not_signalled() {
        let mut other = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let pid = Pid::from_child(&other);
        let refused = confined(&[], &[], None, move || kill_process(pid, Signal::TERM));
        assert_eq!(refused, Err(Errno::PERM));
        // It ends by the end of its input, and by nothing else.
        drop(other.stdin.take());
        assert!(other.wait().unwrap().success());
    }

    #[test]
    fn the_kernels_error_is_told() {
        // The kernel keeps at most 16 rulesets of one process.
        let errors = thread::spawn(|| {
            let rules = Rules::<CString> { read: &[], write: &[], tcp: None, follow: true };
            (0..17).filter_map(|_| restrict(&rules).err()?.raw_os_error()).collect::<Vec<_>>()
        });
        assert_eq!(errors.join().unwrap(), [libc::E2BIG]);
    }

    #[test]
    fn a_kernel_with_too_little_is_refused_and_one_with_more_is_asked_for_what_is_known() {
        for (version, tcp) in [(0, false), (1, false), (0, true), (3, true)] {
            assert_eq!(kind(usable(version, tcp)), Some(ErrorKind::Unsupported), "{version} {tcp}");
        }
        assert_eq!(usable(OLDEST, false).unwrap(), 2);
        assert_eq!(usable(TCP, true).unwrap(), 4);
        assert_eq!(usable(99, true).unwrap(), NEWEST);
    }
}
