//! Who the worker is, and what it may.

use std::{fs, os::unix::fs::chown};

use crate::{
    attempt::{Attempt, Refusal, absent, any},
    raw::{Arg, call},
    target::Target,
};

pub(crate) fn hold_a_capability(_: &Target) -> Attempt {
    let fields = ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"];
    let held = |name: &&str| {
        let set = field(name)?;
        if u64::from_str_radix(&set, 16).expect("a set") == 0 { Err(absent("empty")) } else { Ok(set) }
    };
    any(fields.iter().map(|name| (*name, held(name))))
}

/// What keeps a process from gaining anything: a lock that is open is a deed done.
pub(crate) fn find_a_lock_open(_: &Target) -> Attempt {
    // All of SECBIT_NOROOT, SECBIT_NO_SETUID_FIXUP and SECBIT_NO_CAP_AMBIENT_RAISE with their locks, and
    // SECBIT_KEEP_CAPS_LOCKED: see capabilities(7).
    const LOCKED: i64 = 0xef;
    let zero = Arg::Int(0);
    let prctl =
        |option: i32| call(libc::SYS_prctl, &[Arg::Int(option.into()), zero, zero, zero, zero]).map(|got| got.value);
    let securebits = prctl(libc::PR_GET_SECUREBITS)?;
    let locked = |held, what: String| if held { Err(absent(what)) } else { Ok(what) };
    let no_new_privs = field("NoNewPrivs")?;
    any([
        ("no_new_privs", locked(no_new_privs == "1", no_new_privs)),
        ("securebits", locked(securebits & LOCKED == LOCKED, format!("{securebits:#x}"))),
    ])
}

pub(crate) fn run_without_a_filter_of_system_calls(_: &Target) -> Attempt {
    let mode = field("Seccomp")?;
    if mode == "2" { Err(absent(mode)) } else { Ok(mode) }
}

pub(crate) fn belong_to_a_group_of_the_launcher(_: &Target) -> Attempt {
    let groups = field("Groups")?;
    let own = field("Gid")?;
    let own = own.split_ascii_whitespace().next().expect("a group");
    let others: Vec<_> = groups.split_ascii_whitespace().filter(|group| *group != own).collect();
    if others.is_empty() { Err(absent("none but its own")) } else { Ok(format!("{others:?}")) }
}

pub(crate) fn become_another_user(_: &Target) -> Attempt {
    fs::write("own", "").map_err(Refusal::from)?;
    let groups = [0_u32.to_ne_bytes()].concat();
    let same = Arg::Int(-1);
    let shown = |number, args: &[Arg<'_>]| match call(number, args) {
        Ok(got) => Ok(format!("{got:?}")),
        Err(errno) => Err(errno.into()),
    };
    // Where the namespace calls the worker's own user 0 it has become nobody else by this.
    let zero = Arg::Int(if rustix::process::getuid().is_root() { 1 } else { 0 });
    any([
        ("setuid", shown(libc::SYS_setuid, &[zero])),
        ("setresuid", shown(libc::SYS_setresuid, &[same, zero, same])),
        ("setgid", shown(libc::SYS_setgid, &[zero])),
        ("setgroups", shown(libc::SYS_setgroups, &[Arg::Int(1), Arg::Bytes(&groups)])),
        ("chown", chown("own", Some(12_345), None).map(|()| "given away".to_owned()).map_err(Into::into)),
    ])
}

pub(crate) fn take_a_higher_priority(_: &Target) -> Attempt {
    // struct sched_param: the priority. PRIO_PROCESS, this process.
    let first = 1_i32.to_ne_bytes();
    let nice = [Arg::Int(0), Arg::Int(0), Arg::Int(-20)];
    let scheduler = [Arg::Int(0), Arg::Int(libc::SCHED_FIFO.into()), Arg::Bytes(&first)];
    let shown = |number, args: &[Arg<'_>]| match call(number, args) {
        Ok(got) => Ok(format!("{got:?}")),
        Err(errno) => Err(errno.into()),
    };
    any([("nice", shown(libc::SYS_setpriority, &nice)), ("real time", shown(libc::SYS_sched_setscheduler, &scheduler))])
}

fn field(name: &str) -> Result<String, Refusal> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    Ok(line.unwrap_or_else(|| panic!("no {name} in {status}")).trim().to_owned())
}
