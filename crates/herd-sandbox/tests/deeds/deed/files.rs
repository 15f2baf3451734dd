//! Files of the host and of other workers.

use std::{
    collections::BTreeSet,
    ffi::OsStr,
    fs::{self, File, OpenOptions},
    io::Read,
    os::unix::fs::{MetadataExt, symlink},
    path::{Path, PathBuf},
    process::Command,
};

use rustix::fs::Access;

use crate::{
    attempt::{Attempt, absent, any},
    raw::{Arg, call},
    target::{ACCOUNTS, Target, fingerprint},
};

pub(crate) fn read_another_workspace(target: &Target) -> Attempt {
    read(&target.path("neighbour_workspace").join("secret"))
}

pub(crate) fn write_another_workspace(target: &Target) -> Attempt {
    let path = target.path("neighbour_workspace");
    any([("change", write(&path.join("secret"))), ("add", create(&path.join("planted")))])
}

pub(crate) fn list_another_workspace(target: &Target) -> Attempt {
    list(target.path("neighbour_workspace"))
}

pub(crate) fn climb_out_of_the_workspace(target: &Target) -> Attempt {
    let secret = target.path("neighbour_workspace").join("secret");
    let mut path = PathBuf::from(".");
    path.extend(std::iter::repeat_n("..", 64));
    path.push(secret.strip_prefix("/").expect("an absolute path"));
    let sibling = Path::new("..").join("neighbour").join("secret");
    any([("from the top", read(&path)), ("beside", read(&sibling))])
}

pub(crate) fn follow_a_symbolic_link_out(target: &Target) -> Attempt {
    symlink(target.path("neighbour_workspace"), "link").expect("the workspace is writable");
    symlink("/proc/1/root", "init").expect("the workspace is writable");
    let path = target.path("neighbour_workspace").strip_prefix("/").expect("an absolute path");
    any([
        ("link", read(Path::new("link/secret"))),
        ("link through init", read(&Path::new("init").join(path).join("secret"))),
    ])
}

pub(crate) fn link_a_file_into_the_workspace(target: &Target) -> Attempt {
    let secret = target.path("neighbour_workspace").join("secret");
    let link = |from: &Path, name| Ok(format!("{:?}", fs::hard_link(from, name)?));
    any([("a secret", link(&secret, "a")), ("a program", link(Path::new("/usr/bin/perl"), "b"))])
}

pub(crate) fn read_temporary_files_of_the_host(target: &Target) -> Attempt {
    any(["host_tmp", "host_shm", "host_var_tmp"].map(|name| (name, read(target.path(name)))))
}

pub(crate) fn read_temporary_files_of_another_worker(target: &Target) -> Attempt {
    any(["neighbour_tmp", "neighbour_shm"].map(|name| (name, read(target.path(name)))))
}

pub(crate) fn see_files_of_the_daemon(target: &Target) -> Attempt {
    let seen = |name| Ok(format!("{:?}", fs::symlink_metadata(target.path(name))?.file_type()));
    any(["configuration", "control_socket", "scene"].map(|name| (name, seen(name))))
}

pub(crate) fn read_accounts_and_logs_of_the_host(target: &Target) -> Attempt {
    let files = ["/etc/shadow", "/etc/gshadow", "/etc/sudoers", "/etc/machine-id", "/var/log/dpkg.log"];
    let directories = ["/root", "/home", "/var/lib/dpkg", "/var/log", "/boot", "/lost+found"];
    let accounts = ACCOUNTS.iter().map(|path| {
        let same = fingerprint(path).is_some_and(|own| own == target.text(path));
        (*path, if same { Ok("that of the host".to_owned()) } else { Err(absent("another")) })
    });
    let files = files.iter().map(|path| (*path, read(Path::new(path))));
    // An empty directory in its place is nothing to see.
    let directories = directories.iter().map(|path| {
        let entries = list(Path::new(path));
        (*path, entries.and_then(|entries| if entries == "{}" { Err(absent("empty")) } else { Ok(entries) }))
    });
    any(accounts.chain(files).chain(directories))
}

pub(crate) fn read_what_is_hidden(target: &Target) -> Attempt {
    let assets = target.path("assets");
    any([
        ("in a directory", read(&assets.join("hidden/file"))),
        ("a file", read(&assets.join("hidden-file"))),
        ("by way of another directory", read(&assets.join("hidden/../hidden-file"))),
    ])
}

/// Tries to create a file in each directory and to open each file for writing, all over the file system, up to the first
/// where it succeeds.
pub(crate) fn write_outside_the_workspace(_: &Target) -> Attempt {
    // Links are no directories here. Of `/proc`, other deeds tell.
    const ALLOWED: &[&str] = &["/workspace", "/tmp", "/dev/shm", "/dev/pts", "/proc"];
    // The others are below the first, which may not be readable itself.
    let mut directories = ["/", "/etc", "/opt", "/usr", "/var"].map(PathBuf::from).to_vec();
    let mut visited = 0;
    while let Some(directory) = directories.pop() {
        if ALLOWED.iter().any(|allowed| Path::new(allowed) == directory) {
            continue;
        }
        let planted = directory.join(".planted");
        if create(&planted).is_ok() {
            fs::remove_file(&planted)?;
            return Ok(format!("a file in {}", directory.display()));
        }
        for entry in fs::read_dir(&directory).into_iter().flatten().flatten() {
            visited += 1;
            let path = entry.path();
            let kind = entry.file_type().expect("the entry has a type");
            if kind.is_dir() {
                directories.push(path);
            } else if !kind.is_symlink() && !is_usual_device(&path) {
                // What access(2) denies, open(2) denies.
                if rustix::fs::access(&path, Access::WRITE_OK).is_ok() && write(&path).is_ok() {
                    return Ok(path.display().to_string());
                }
            }
        }
    }
    Err(absent(format!("{visited} entries and none to write to")))
}

/// To which everybody may write, to no effect.
fn is_usual_device(path: &Path) -> bool {
    const NAMES: &[&str] = &["full", "null", "ptmx", "random", "tty", "urandom", "zero"];
    NAMES.iter().any(|name| Path::new("/dev").join(name) == path)
}

pub(crate) fn open_a_device_of_the_host(_: &Target) -> Attempt {
    let named = ["mem", "kmsg", "port", "kvm", "fuse", "net/tun", "loop-control", "vda", "sda", "nvme0n1"];
    let opened = |name: &str| Ok(format!("{:?}", File::open(Path::new("/dev").join(name))?));
    any(named.map(|name| (name, opened(name))).into_iter().chain([("listed", strange_devices())]))
}

fn strange_devices() -> Attempt {
    const KNOWN: &[&str] = &[
        "console", "core", "fd", "full", "mqueue", "null", "ptmx", "pts", "random", "shm", "stderr", "stdin", "stdout",
        "tty", "urandom", "zero",
    ];
    let entries = fs::read_dir("/dev")?.map(|entry| entry.expect("an entry").file_name());
    let unknown: BTreeSet<_> = entries.filter(|name| !KNOWN.iter().any(|known| OsStr::new(known) == name)).collect();
    if unknown.is_empty() { Err(absent("none but the usual ones")) } else { Ok(format!("{unknown:?}")) }
}

pub(crate) fn make_a_device_node(_: &Target) -> Attempt {
    let make = |kind: u32, path: &str| {
        // The first disk's number, and that of /dev/mem.
        let device = if kind == libc::S_IFBLK { libc::makedev(8, 0) } else { libc::makedev(1, 1) };
        let args = [
            Arg::Int(libc::AT_FDCWD.into()),
            Arg::Text(path),
            Arg::Int((kind | 0o666).into()),
            Arg::Int(device.cast_signed()),
        ];
        let made = call(libc::SYS_mknodat, &args)?;
        let rdev = fs::metadata(path)?.rdev();
        Ok(format!("{} is device {rdev:#x}", made.value))
    };
    any([
        ("character device in the workspace", make(libc::S_IFCHR, "node")),
        ("block device in the workspace", make(libc::S_IFBLK, "disk")),
        ("character device in /tmp", make(libc::S_IFCHR, "/tmp/node")),
    ])
}

/// Runs a setuid-root program and one with file capabilities: each shows what it has become.
pub(crate) fn gain_by_the_mode_of_a_program(target: &Target) -> Attempt {
    let run = |program: &Path| {
        let output = match Command::new(program).arg("/proc/self/status").output() {
            Ok(output) => output,
            Err(error) => return Err(error.into()),
        };
        let status = String::from_utf8(output.stdout).expect("text");
        assert!(output.status.success(), "{output:?}", output = output.status);
        let own = fs::read_to_string("/proc/self/status").expect("/proc is there");
        let mut gained = Vec::new();
        for field in ["Uid", "Gid", "CapPrm", "CapEff"] {
            let (now, before) = (line(&status, field), line(&own, field));
            if now != before {
                gained.push(format!("{before} became {now}"));
            }
        }
        if gained.is_empty() { Err(absent("runs as before")) } else { Ok(gained.join(", ")) }
    };
    any([("setuid", run(target.path("setuid"))), ("file capabilities", run(target.path("capable")))])
}

fn line<'a>(status: &'a str, field: &str) -> &'a str {
    status.lines().find(|line| line.starts_with(field)).expect("the field")
}

pub(crate) fn read(path: &Path) -> Attempt {
    // A secret, or its beginning: some files of /proc have no end.
    let mut content = [0; 64];
    let length = File::open(path)?.read(&mut content)?;
    Ok(String::from_utf8_lossy(&content[..length]).into_owned())
}

pub(crate) fn write(path: &Path) -> Attempt {
    Ok(format!("{:?}", OpenOptions::new().write(true).open(path)?))
}

fn create(path: &Path) -> Attempt {
    Ok(format!("{:?}", File::create_new(path)?))
}

pub(crate) fn list(path: &Path) -> Attempt {
    let entries: Result<BTreeSet<_>, _> =
        fs::read_dir(path)?.map(|entry| entry.map(|entry| entry.file_name())).collect();
    Ok(format!("{:?}", entries?))
}
