//! The steps that build the worker's file system.

use std::{
    ffi::{CString, OsStr},
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use super::step::{Access, Step, Text};
use crate::{Files, Identity, Isolation, Mount, Network, Spec, SpecError, egress::link};

/// What of the host's configuration programs need to run at all, and what holds nobody's secrets.
const SYSTEM_CONFIGURATION: &[&str] = &[
    "/etc/alternatives",
    "/etc/ca-certificates",
    "/etc/ca-certificates.conf",
    "/etc/chromium",
    "/etc/chromium.d",
    "/etc/crypto-policies",
    "/etc/debian_version",
    "/etc/fonts",
    "/etc/gai.conf",
    "/etc/host.conf",
    "/etc/inputrc",
    "/etc/ld.so.cache",
    "/etc/ld.so.conf",
    "/etc/ld.so.conf.d",
    "/etc/locale.alias",
    "/etc/localtime",
    "/etc/magic",
    "/etc/mime.types",
    "/etc/os-release",
    "/etc/perl",
    "/etc/pki",
    "/etc/protocols",
    "/etc/rpc",
    "/etc/services",
    "/etc/ssl",
    "/etc/terminfo",
    "/etc/timezone",
];

/// Device nodes that are the same for everybody and keep nothing.
const DEVICES: &[&str] = &["/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty"];

/// See proc(5) for the descriptors and pts(4) for the multiplexer.
const LINKS: &[(&str, &str)] = &[
    ("/dev/fd", "/proc/self/fd"),
    ("/dev/stdin", "/proc/self/fd/0"),
    ("/dev/stdout", "/proc/self/fd/1"),
    ("/dev/stderr", "/proc/self/fd/2"),
    ("/dev/ptmx", "pts/ptmx"),
    ("/var/run", "/run"),
    ("/var/tmp", "/tmp"),
];

/// Directories of `/proc` through which settings of the kernel could be changed, as far as permissions allow.
const FROZEN: &[&str] = &["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger", "/proc/tty"];

/// What tells of the host's hardware, memory, timers, keys and kernel, or is a way into them. How the kernel was booted
/// is such a thing: its command line can hold tokens.
const MASKED: &[&str] = &[
    "/etc/pki/CA/private",
    "/etc/pki/tls/private",
    "/etc/ssl/private",
    "/proc/acpi",
    "/proc/asound",
    "/proc/cmdline",
    "/proc/config.gz",
    "/proc/driver",
    "/proc/interrupts",
    "/proc/iomem",
    "/proc/ioports",
    "/proc/kallsyms",
    "/proc/kcore",
    "/proc/key-users",
    "/proc/keys",
    "/proc/kmsg",
    "/proc/kpagecgroup",
    "/proc/kpagecount",
    "/proc/kpageflags",
    "/proc/latency_stats",
    "/proc/modules",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/slabinfo",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/vmallocinfo",
];

/// How many bytes of a memory file system there are for each file that it may hold. Each costs about a kilobyte of
/// kernel memory, whatever its size.
const BYTES_PER_FILE: u64 = 4096;

/// From the host's root to the worker's own.
pub(super) fn steps(spec: &Spec, identity: Identity) -> Result<Vec<Step<'static>>, SpecError> {
    let Isolation { files, network, host_name, .. } = &spec.isolation;
    let mut steps = vec![Step::PrivateMounts {}, Step::NewRoot {}];
    for path in ["/dev", "/etc", "/proc", "/run", "/tmp", "/var"] {
        steps.push(Step::MakeDirectory { path: fixed(path) });
    }
    steps.extend(Files::SYSTEM.iter().chain(SYSTEM_CONFIGURATION).map(|path| Step::System { path: fixed(path) }));
    if *network == Network::Host {
        // The names that the host's network has.
        steps.push(Step::System { path: fixed("/etc/resolv.conf") });
    }
    for (path, text) in configuration(spec, identity, host_name) {
        steps.push(Step::WriteFile { path: fixed(path), text: text_of("the host name", OsStr::new(&text))? });
    }
    for device in DEVICES {
        steps.push(Step::Bind { source: fixed(device), target: fixed(device), access: Access::Device, follow: true });
    }
    steps.extend(LINKS.iter().map(|(path, target)| Step::Link { path: fixed(path), target: fixed(target) }));
    steps.push(Step::Terminals {});
    steps.push(Step::Processes {});
    for (path, size) in [("/tmp", files.tmp_limit), ("/dev/shm", files.shm_limit)] {
        // The kernel takes 0 for "no limit".
        let size = size.max(BYTES_PER_FILE);
        steps.push(Step::Memory { path: fixed(path), size, files: (size / BYTES_PER_FILE).max(64) });
    }
    steps.extend(mounts(files)?);
    steps.extend(FROZEN.iter().map(|path| Step::Freeze { path: fixed(path) }));
    steps.extend(MASKED.iter().map(|path| Step::Hide { path: fixed(path) }));
    for path in &files.hidden {
        steps.push(Step::Hide { path: path_of("a hidden path", path)? });
    }
    steps.extend([Step::Pivot {}, Step::FreezeRoot {}]);
    Ok(steps)
}

/// What a worker may read where it has no root of its own.
pub(super) fn readable() -> Vec<PathBuf> {
    let fixed = ["/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty", "/proc"];
    let configuration = ["/etc/passwd", "/etc/group", "/etc/hosts", "/etc/nsswitch.conf", "/etc/resolv.conf"];
    let all = Files::SYSTEM.iter().chain(SYSTEM_CONFIGURATION).copied().chain(fixed).chain(configuration);
    all.filter(|path| !MASKED.contains(path)).map(PathBuf::from).collect()
}

/// What was asked for, outer paths before inner ones, so that none covers another: `/data` is mounted before
/// `/data/cache`, whatever the access to each.
fn mounts(files: &Files) -> Result<Vec<Step<'static>>, SpecError> {
    let same = |path: &Path, writable| Mount { source: path.to_owned(), target: path.to_owned(), writable };
    let mut mounts: Vec<Mount> = files.mounts.clone();
    mounts.extend(files.read_only.iter().map(|path| same(path, false)));
    mounts.extend(files.writable.iter().map(|path| same(path, true)));
    mounts.sort_by(|one, other| one.target.cmp(&other.target));
    // A worker can make names below what it may write, so a link there would lead to whatever it likes of the host.
    let is_below_writable = |mount: &Mount| {
        let leads_to = |other: &&Mount| other.writable && other.source != mount.source;
        mounts.iter().filter(leads_to).any(|other| mount.source.starts_with(&other.source))
    };
    let bind = |mount: &Mount| {
        let access = if mount.writable { Access::Writable } else { Access::ReadOnly };
        let [source, target] = [&mount.source, &mount.target].map(|path| path_of("a mounted path", path));
        Ok(Step::Bind { source: source?, target: target?, access, follow: !is_below_writable(mount) })
    };
    mounts.iter().map(bind).collect()
}

/// The sandbox's own files in `/etc`.
fn configuration(spec: &Spec, identity: Identity, host_name: &str) -> Vec<(&'static str, String)> {
    let Identity { uid, gid } = identity;
    let home = spec.env.iter().find(|(name, _)| name == "HOME").map(|(_, home)| home.to_string_lossy().into_owned());
    // A colon or a new line would end the field; such a home is told by HOME alone.
    let home = home.filter(|home| !home.contains([':', '\n'])).unwrap_or_else(|| "/".to_owned());
    let mut files = vec![
        (
            "/etc/passwd",
            format!(
                "root:x:0:0:root:/:/usr/sbin/nologin\nherd:x:{uid}:{gid}:herd worker:{home}:/bin/sh\n\
                 nobody:x:65534:65534:nobody:/:/usr/sbin/nologin\n"
            ),
        ),
        ("/etc/group", format!("root:x:0:\nherd:x:{gid}:\nnogroup:x:65534:\n")),
        ("/etc/hosts", format!("127.0.0.1 localhost\n::1 localhost\n127.0.1.1 {host_name}\n")),
        ("/etc/hostname", format!("{host_name}\n")),
        ("/etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files dns\n".to_owned()),
    ];
    match spec.isolation.network {
        Network::Private => files.push(("/etc/resolv.conf", "# there is nobody to ask\n".to_owned())),
        Network::Egress => files.push(("/etc/resolv.conf", format!("nameserver {}\n", link::ROUTER))),
        Network::Host => {}
    }
    files
}

fn fixed(path: &'static str) -> Text<'static> {
    // The constants of this file hold no NUL byte, which the snapshots of plans would show.
    Text::Owned(CString::new(path).unwrap_or_default())
}

fn path_of(field: &str, path: &Path) -> Result<Text<'static>, SpecError> {
    if !path.is_absolute() {
        return Err(SpecError::RelativePath { field: field.to_owned(), path: path.to_owned() });
    }
    text_of(field, path.as_os_str())
}

fn text_of(field: &str, text: &OsStr) -> Result<Text<'static>, SpecError> {
    let nul = |_| SpecError::NulByte { field: field.to_owned() };
    CString::new(text.as_bytes()).map(Text::Owned).map_err(nul)
}
