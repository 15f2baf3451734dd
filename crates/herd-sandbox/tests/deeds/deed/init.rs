//! The init of the sandbox.

use std::{fs, path::Path};

use crate::{
    attempt::{Attempt, absent, any},
    deed::{
        files::{list, read},
        processes,
    },
    raw::{Arg, Call, call, calls},
    target::Target,
};

pub(crate) fn trace_init(_: &Target) -> Attempt {
    // To attach stops init, of which there is no need where it may be seized.
    let seized = processes::trace(1);
    if seized.is_ok() {
        return seized;
    }
    let attach = [Arg::Int(libc::PTRACE_ATTACH.into()), Arg::Int(1), Arg::Int(0), Arg::Int(0)];
    let attached = call(libc::SYS_ptrace, &attach).map(|got| format!("{got:?}")).map_err(Into::into);
    any([("seize", seized), ("attach", attached)])
}

pub(crate) fn read_memory_of_init(_: &Target) -> Attempt {
    let files = ["mem", "maps", "smaps", "pagemap", "auxv", "environ", "stack", "syscall", "io"];
    any(files.map(|name| (name, read(&Path::new("/proc/1").join(name)))))
}

pub(crate) fn follow_links_of_init(_: &Target) -> Attempt {
    let links = ["cwd", "root", "exe", "ns/mnt", "ns/pid", "ns/net", "ns/user"];
    let followed = links.map(|name| {
        let path = Path::new("/proc/1").join(name);
        (name, fs::read_link(&path).map(|to| format!("{to:?}")).map_err(Into::into))
    });
    any(followed.into_iter().chain([("fd", list(Path::new("/proc/1/fd"))), ("map_files", map_files())]))
}

fn map_files() -> Attempt {
    list(Path::new("/proc/1/map_files"))
}

pub(crate) fn enter_the_namespaces_of_init(_: &Target) -> Attempt {
    let enter = |name: &str| {
        let path = format!("/proc/1/ns/{name}");
        let calls_ = [
            Call { number: libc::SYS_openat, args: &[Arg::Int(libc::AT_FDCWD.into()), Arg::Text(&path), Arg::Int(0)] },
            Call { number: libc::SYS_setns, args: &[Arg::Last, Arg::Int(0)] },
        ];
        Ok(format!("{:?}", calls(&calls_)?))
    };
    let by_pidfd = [
        Call { number: libc::SYS_pidfd_open, args: &[Arg::Int(1), Arg::Int(0)] },
        Call { number: libc::SYS_setns, args: &[Arg::Last, Arg::Int(libc::CLONE_NEWNET.into())] },
    ];
    let by_pidfd = calls(&by_pidfd).map(|got| format!("{got:?}")).map_err(Into::into);
    any(["net", "uts", "ipc", "mnt", "pid", "user"]
        .map(|name| (name, enter(name)))
        .into_iter()
        .chain([("pidfd", by_pidfd)]))
}

/// The arguments of a process can be read by all that see it.
pub(crate) fn learn_from_the_arguments_of_init(target: &Target) -> Attempt {
    let arguments = read(Path::new("/proc/1/cmdline"))?;
    let told = ["/", "=", target.text("mark")].iter().any(|part| arguments.contains(part));
    if told { Ok(arguments) } else { Err(absent(format!("it says only {arguments:?}"))) }
}

pub(crate) fn stop_or_kill_init(_: &Target) -> Attempt {
    for signal in [libc::SIGSTOP, libc::SIGTERM, libc::SIGINT, libc::SIGKILL] {
        // Whether it is denied or ignored, init has to run on.
        let _ = call(libc::SYS_kill, &[Arg::Int(1), Arg::Int(signal.into())]);
        let stat = read(Path::new("/proc/1/stat"))?;
        let state = stat.rsplit_once(") ").map(|(_, state)| state.chars().next());
        if !matches!(state, Some(Some('S' | 'R'))) {
            return Ok(format!("after signal {signal}: {stat}"));
        }
    }
    Err(absent("it runs on"))
}

/// So that it does not get to end the worker: the idle class, the lowest priorities, one core, no CPU time.
pub(crate) fn slow_init_down(_: &Target) -> Attempt {
    const SCHED_IDLE: i64 = 5;
    const IDLE_INPUT_AND_OUTPUT: i64 = 3 << 13;
    let [nothing, one] = [0_u64, 1].map(u64::to_ne_bytes);
    // struct sched_attr, of which the first field is its size and the second the policy; struct rlimit64.
    let attributes = [48_u32, 5, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0].map(u32::to_ne_bytes).concat();
    let limit = [u64::MAX; 2].map(u64::to_ne_bytes).concat();
    let [init, zero] = [Arg::Int(1), Arg::Int(0)];
    let attempt = |number, args: &[Arg<'_>]| call(number, args).map(|got| format!("{got:?}")).map_err(Into::into);
    any([
        ("class", attempt(libc::SYS_sched_setscheduler, &[init, Arg::Int(SCHED_IDLE), Arg::Bytes(&nothing)])),
        ("parameter", attempt(libc::SYS_sched_setparam, &[init, Arg::Bytes(&nothing)])),
        ("attributes", attempt(libc::SYS_sched_setattr, &[init, Arg::Bytes(&attributes), zero])),
        ("core", attempt(libc::SYS_sched_setaffinity, &[init, Arg::Int(8), Arg::Bytes(&one)])),
        ("priority", attempt(libc::SYS_setpriority, &[zero, init, Arg::Int(19)])),
        ("priority of its group", attempt(libc::SYS_setpriority, &[init, init, Arg::Int(19)])),
        ("input and output", attempt(libc::SYS_ioprio_set, &[init, init, Arg::Int(IDLE_INPUT_AND_OUTPUT)])),
        ("limit", attempt(libc::SYS_prlimit64, &[init, zero, Arg::Bytes(&limit), zero])),
    ])
}

pub(crate) fn change_the_program_of_init(_: &Target) -> Attempt {
    change("/proc/1/exe")
}

/// Run by a script whose interpreter is `/proc/self/exe`: the program that starts it, which is then this process's own.
pub(crate) fn change_the_program_that_starts_workers(_: &Target) -> Attempt {
    // By its own number: it is other processes that make the calls.
    change(&format!("/proc/{}/exe", std::process::id()))
}

/// All that changes a file or what it may be used for.
fn change(text: &str) -> Attempt {
    let here = Arg::Int(libc::AT_FDCWD.into());
    let open = |flags: i32| {
        let args = [here, Arg::Text(text), Arg::Int(flags.into())];
        Ok(format!("{:?}", call(libc::SYS_openat, &args)?))
    };
    let mode = call(libc::SYS_fchmodat, &[here, Arg::Text(text), Arg::Int(0)]);
    let times = call(libc::SYS_utimensat, &[here, Arg::Text(text), Arg::Int(0), Arg::Int(0)]);
    let value = [Arg::Text(text), Arg::Text("user.herd"), Arg::Text("x"), Arg::Int(1), Arg::Int(0)];
    let attribute = call(libc::SYS_setxattr, &value);
    let truncated = call(libc::SYS_truncate, &[Arg::Text(text), Arg::Int(0)]);
    let follow = Arg::Int(libc::AT_SYMLINK_FOLLOW.into());
    let linked = call(libc::SYS_linkat, &[here, Arg::Text(text), here, Arg::Text("linked"), follow]);
    let shown = |result: Result<crate::raw::Returned, rustix::io::Errno>| {
        result.map(|got| format!("{got:?}")).map_err(Into::into)
    };
    any([
        ("open to write", open(libc::O_WRONLY)),
        ("open to append", open(libc::O_RDWR | libc::O_APPEND)),
        ("chmod", shown(mode)),
        ("times", shown(times)),
        ("attribute", shown(attribute)),
        ("truncate", shown(truncated)),
        ("link", shown(linked)),
    ])
}
