//! What the kernel keeps for all: its settings, its keys, its clocks, and new namespaces.

use std::{
    fs::{self, File, OpenOptions},
    path::{Path, PathBuf},
    process::Command,
    time::{SystemTime, UNIX_EPOCH},
};

use crate::{
    attempt::{Attempt, Refusal, absent, any},
    deed::files::{read, write},
    raw::{Arg, Call, call, calls},
    target::{NAMES, Target, fingerprint},
};

fn shown(number: i64, args: &[Arg<'_>]) -> Attempt {
    Ok(format!("{:?}", call(number, args)?))
}

pub(crate) fn make_a_user_namespace(_: &Target) -> Attempt {
    // struct clone_args: its first two fields are the flags and the place of the pidfd; the fifth is the exit signal.
    let mut clone_args = [0_u64; 11];
    clone_args[0] = libc::CLONE_NEWUSER.cast_unsigned().into();
    clone_args[4] = libc::SIGCHLD.cast_unsigned().into();
    let clone_args = clone_args.map(u64::to_ne_bytes).concat();
    let flags = Arg::Int((libc::CLONE_NEWUSER | libc::SIGCHLD).into());
    any([
        ("unshare", shown(libc::SYS_unshare, &[Arg::Int(libc::CLONE_NEWUSER.into())])),
        ("clone", shown(libc::SYS_clone, &[flags, Arg::Int(0), Arg::Int(0), Arg::Int(0), Arg::Int(0)])),
        ("clone3", shown(libc::SYS_clone3, &[Arg::Bytes(&clone_args), Arg::Int(88)])),
    ])
}

pub(crate) fn make_other_namespaces(_: &Target) -> Attempt {
    let kinds = [
        ("mount", libc::CLONE_NEWNS),
        ("PID", libc::CLONE_NEWPID),
        ("network", libc::CLONE_NEWNET),
        ("IPC", libc::CLONE_NEWIPC),
        ("UTS", libc::CLONE_NEWUTS),
        ("cgroup", libc::CLONE_NEWCGROUP),
    ];
    any(kinds.map(|(name, flag)| (name, shown(libc::SYS_unshare, &[Arg::Int(flag.into())]))))
}

/// `KEY_SPEC_PROCESS_KEYRING`, which ends with the process, and those that others share.
pub(crate) fn use_the_keyring(_: &Target) -> Attempt {
    let add = |keyring: i64| {
        let args = [Arg::Text("user"), Arg::Text("herd"), Arg::Text("x"), Arg::Int(1), Arg::Int(keyring)];
        shown(libc::SYS_add_key, &args)
    };
    // KEYCTL_GET_KEYRING_ID of KEY_SPEC_USER_KEYRING.
    let keyctl = shown(libc::SYS_keyctl, &[Arg::Int(0), Arg::Int(-4), Arg::Int(0)]);
    let request = [Arg::Text("user"), Arg::Text("herd"), Arg::Int(0), Arg::Int(0)];
    any([
        ("add to the process's", add(-2)),
        ("add to the user's", add(-4)),
        ("find the user's", keyctl),
        ("request", shown(libc::SYS_request_key, &request)),
    ])
}

pub(crate) fn write_settings_of_the_kernel(_: &Target) -> Attempt {
    let mut files = Vec::new();
    let mut directories = vec![PathBuf::from("/proc/sys")];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory).into_iter().flatten().flatten() {
            let kind = entry.file_type().expect("the entry has a type");
            if kind.is_dir() { directories.push(entry.path()) } else { files.push(entry.path()) }
        }
    }
    if files.is_empty() {
        return Err(absent("/proc/sys is empty"));
    }
    any(files.into_iter().map(|path| (path.display().to_string(), write(&path))))
}

pub(crate) fn trigger_system_requests(_: &Target) -> Attempt {
    write(Path::new("/proc/sysrq-trigger"))
}

/// What `/proc` tells or does for the whole machine. Opened, and read where opening is not denied.
pub(crate) fn read_secrets_of_the_kernel(_: &Target) -> Attempt {
    let open = |name: &str| {
        let path = Path::new("/proc").join(name);
        let mut byte = [0];
        let length = std::io::Read::read(&mut File::open(&path)?, &mut byte)?;
        if length == 0 { Err(absent("empty")) } else { Ok("readable".to_owned()) }
    };
    let names =
        ["kcore", "keys", "timer_list", "sched_debug", "kpageflags", "kpagecount", "kmsg", "vmallocinfo", "cmdline"];
    any(names.map(|name| (name, open(name))))
}

pub(crate) fn write_to_the_rest_of_proc(_: &Target) -> Attempt {
    let mut attempts = vec![("mtrr".to_owned(), write(Path::new("/proc/mtrr")))];
    for top in ["acpi", "asound", "bus", "driver", "fs", "irq", "scsi", "tty"] {
        let mut directories = vec![Path::new("/proc").join(top)];
        while let Some(directory) = directories.pop() {
            for entry in fs::read_dir(&directory).into_iter().flatten().flatten() {
                let path = entry.path();
                if entry.file_type().expect("the entry has a type").is_dir() {
                    directories.push(path);
                } else {
                    attempts.push((path.display().to_string(), write(&path)));
                }
            }
        }
    }
    any(attempts)
}

pub(crate) fn look_into_sys(_: &Target) -> Attempt {
    let names = ["kernel", "class", "block", "devices", "firmware", "fs", "module", "power"];
    let list = |name: &&str| crate::deed::files::list(&Path::new("/sys").join(name));
    any(names.iter().map(|name| (*name, list(name))))
}

pub(crate) fn write_files_of_a_cgroup(_: &Target) -> Attempt {
    let top = Path::new("/sys/fs/cgroup");
    let names = ["cgroup.procs", "cgroup.subtree_control", "memory.max", "pids.max"];
    let files = names.iter().map(|name| (format!("{name} at the top"), write(&top.join(name))));
    // Version 1, and hybrids.
    let hybrid = ["unified", "memory", "pids", "systemd"].map(|name| {
        let path = top.join(name).join("cgroup.procs");
        (format!("cgroup.procs of {name}"), write(&path))
    });
    let made = std::iter::once_with(|| {
        ("a directory".to_owned(), make_directory(&top.join(format!("herd-deed-{}", std::process::id()))))
    });
    any(files.chain(hybrid).chain(made))
}

fn make_directory(path: &Path) -> Attempt {
    fs::create_dir(path)?;
    fs::remove_dir(path)?;
    Ok("made".to_owned())
}

pub(crate) fn learn_the_name_of_its_cgroup(_: &Target) -> Attempt {
    let cgroups = read_text("/proc/self/cgroup")?;
    let named: Vec<_> = cgroups.lines().filter(|line| !line.ends_with(":/")).collect();
    if named.is_empty() { Err(absent("it is / everywhere")) } else { Ok(named.join(", ")) }
}

pub(crate) fn set_the_clock(_: &Target) -> Attempt {
    // To what it is, for the case that it is not refused.
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a time after 1970");
    let time = [now.as_secs(), now.subsec_micros().into()].map(u64::to_ne_bytes).concat();
    let mut timex = [0_u8; 208];
    // ADJ_TICK, and no tick: modes is the first field.
    timex[..4].copy_from_slice(&0x4000_u32.to_ne_bytes());
    any([
        ("clock_settime", shown(libc::SYS_clock_settime, &[Arg::Int(0), Arg::Bytes(&time)])),
        ("settimeofday", shown(libc::SYS_settimeofday, &[Arg::Bytes(&time), Arg::Int(0)])),
        ("adjtimex", shown(libc::SYS_adjtimex, &[Arg::Bytes(&timex)])),
    ])
}

pub(crate) fn set_the_name_of_the_host(_: &Target) -> Attempt {
    any([
        ("host name", shown(libc::SYS_sethostname, &[Arg::Text("taken"), Arg::Int(5)])),
        ("domain name", shown(libc::SYS_setdomainname, &[Arg::Text("taken"), Arg::Int(5)])),
    ])
}

pub(crate) fn learn_names_of_the_host(target: &Target) -> Attempt {
    let same = |path: &str| match fingerprint(path) {
        Some(own) if own == target.text(path) => Ok("that of the host".to_owned()),
        _ => Err(absent("another or none")),
    };
    let name = read_text("/proc/sys/kernel/hostname")?;
    let own_name = if name.trim() == target.text("host_name") { Ok(name) } else { Err(absent(name)) };
    any(NAMES.iter().map(|path| (*path, same(path))).chain([("host name", own_name)]))
}

/// The calls for privileged programs that no other deed is about.
pub(crate) fn make_privileged_calls(_: &Target) -> Attempt {
    let zero = Arg::Int(0);
    let attributes = [0; 128];
    any([
        ("init_module", shown(libc::SYS_init_module, &[Arg::Bytes(&attributes), Arg::Int(128), Arg::Text("")])),
        ("finit_module", shown(libc::SYS_finit_module, &[zero, Arg::Text(""), zero])),
        ("delete_module", shown(libc::SYS_delete_module, &[Arg::Text("herd"), zero])),
        ("kexec_load", shown(libc::SYS_kexec_load, &[zero, zero, zero, zero])),
        ("swapon", shown(libc::SYS_swapon, &[Arg::Text("/dev/null"), zero])),
        ("acct", shown(libc::SYS_acct, &[zero])),
        ("syslog", shown(libc::SYS_syslog, &[Arg::Int(3), Arg::Buffer(64), Arg::Int(64)])),
        // LINUX_REBOOT_CMD_CAD_OFF with the two magic numbers: harmless where it succeeds in a namespace.
        ("reboot", shown(libc::SYS_reboot, &[Arg::Int(0xfee1_dead), Arg::Int(672_274_793), zero, zero])),
        ("vhangup", shown(libc::SYS_vhangup, &[])),
    ])
}

/// The calls with a history of flaws, which programs of workers do not need.
pub(crate) fn make_calls_with_a_history(_: &Target) -> Attempt {
    let zero = Arg::Int(0);
    // struct perf_event_attr: its size is the second field; the type PERF_TYPE_SOFTWARE is the first.
    let mut event = [0_u8; 128];
    event[..8].copy_from_slice(&[1_u32.to_ne_bytes(), 128_u32.to_ne_bytes()].concat());
    // ADDR_NO_RANDOMIZE.
    let personality = shown(libc::SYS_personality, &[Arg::Int(0x004_0000)]);
    let bpf = shown(libc::SYS_bpf, &[zero, Arg::Bytes(&[0; 128]), Arg::Int(128)]);
    any([
        (
            "perf_event_open",
            shown(libc::SYS_perf_event_open, &[Arg::Bytes(&event), zero, Arg::Int(-1), Arg::Int(-1), zero]),
        ),
        ("userfaultfd", shown(libc::SYS_userfaultfd, &[Arg::Int(1)])),
        ("io_uring_setup", shown(libc::SYS_io_uring_setup, &[Arg::Int(1), Arg::Buffer(120)])),
        ("personality", personality),
        ("bpf", bpf),
    ])
}

/// Finds a file by a handle, past all mounts.
pub(crate) fn open_a_file_by_its_handle(_: &Target) -> Attempt {
    let root = Call {
        number: libc::SYS_openat,
        args: &[Arg::Int(libc::AT_FDCWD.into()), Arg::Text("/usr"), Arg::Int(libc::O_DIRECTORY.into())],
    };
    // struct file_handle: 8 bytes of type 1 (FILEID_INO32_GEN): inode 2, the root of most file systems; any generation.
    let handle = [8_u32, 1, 2, 0].map(u32::to_ne_bytes).concat();
    let open = Call { number: libc::SYS_open_by_handle_at, args: &[Arg::Last, Arg::Bytes(&handle), Arg::Int(0)] };
    Ok(format!("{:?}", calls(&[root, open])?))
}

/// Puts a key stroke into a terminal that it shares with somebody outside: standard error.
pub(crate) fn type_into_the_terminal(_: &Target) -> Attempt {
    let request = |request: i64, value: &[u8]| {
        let args = [Arg::Int(2), Arg::Int(request), Arg::Bytes(value)];
        shown(libc::SYS_ioctl, &args)
    };
    let tiocsti = libc::TIOCSTI.cast_signed();
    // The kernel looks at the lower 32 bits only.
    let disguised = tiocsti | 1 << 32;
    let own = [
        Call { number: libc::SYS_ioctl, args: &[Arg::Int(2), Arg::Int(libc::TIOCSCTTY.cast_signed()), Arg::Int(0)] },
        Call { number: libc::SYS_ioctl, args: &[Arg::Int(2), Arg::Int(tiocsti), Arg::Bytes(b"x")] },
    ];
    any([
        ("TIOCSTI", request(tiocsti, b"x")),
        ("TIOCSTI with a higher bit", request(disguised, b"x")),
        ("TIOCSTI on a terminal made its own", calls(&own).map(|got| format!("{got:?}")).map_err(Into::into)),
        // TIOCL_PASTE.
        ("TIOCLINUX", request(0x541c, &[3])),
    ])
}

pub(crate) fn write_a_core_dump(_: &Target) -> Attempt {
    let status = Command::new("sh").args(["-c", "ulimit -c unlimited; kill -SEGV $$"]).status()?;
    let dumped = std::os::unix::process::ExitStatusExt::core_dumped(&status);
    if dumped { Ok(format!("{status:?}")) } else { Err(absent(format!("{status:?}"))) }
}

fn read_text(path: &str) -> Result<String, Refusal> {
    Ok(fs::read_to_string(path)?)
}

/// Whether it can be killed less easily than others.
pub(crate) fn escape_the_killer_of_processes(_: &Target) -> Attempt {
    use std::io::Write as _;

    let before: i32 = read(Path::new("/proc/self/oom_score_adj"))?.trim().parse().expect("a number");
    let mut file = OpenOptions::new().write(true).open("/proc/self/oom_score_adj")?;
    file.write_all((before - 1).to_string().as_bytes())?;
    Ok(format!("less than {before}"))
}
