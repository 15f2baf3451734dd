//! Processes of the host and of other workers.

use std::{fs, path::Path};

use crate::{
    attempt::{Attempt, absent, any},
    deed::files::read,
    raw::{Arg, call},
    target::Target,
};

pub(crate) fn see_processes_of_others(target: &Target) -> Attempt {
    let seen = |pid: &str| read(&Path::new("/proc").join(pid).join("comm"));
    let mut attempts = vec![
        ("host".to_owned(), seen(target.text("host_pid"))),
        ("another worker".to_owned(), seen(target.text("neighbour_pid"))),
    ];
    // Whatever else is there has to belong to this worker.
    let own = std::process::id();
    for entry in fs::read_dir("/proc").expect("/proc is there").flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        if pid != 1 && pid != own && parent(pid).is_some_and(|parent| parent != own) && parent(own) != Some(pid) {
            attempts.push((format!("process {pid}"), seen(&pid.to_string())));
        }
    }
    any(attempts)
}

fn parent(pid: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(1)?.parse().ok()
}

/// Signal 0: it is checked and not sent.
pub(crate) fn signal_processes_of_others(target: &Target) -> Attempt {
    let signal = |pid: i64| Ok(format!("{:?}", call(libc::SYS_kill, &[Arg::Int(pid), Arg::Int(0)])?));
    any([
        ("host", signal(target.number("host_pid"))),
        ("another worker", signal(target.number("neighbour_pid"))),
        ("group of the host", signal(-target.number("host_pid"))),
    ])
}

pub(crate) fn read_memory_of_another_worker(target: &Target) -> Attempt {
    read_memory(target.number("neighbour_pid"), target.number("neighbour_memory"))
}

pub(crate) fn read_memory_of_the_host(target: &Target) -> Attempt {
    read_memory(target.number("host_pid"), target.number("host_memory"))
}

fn read_memory(pid: i64, address: i64) -> Attempt {
    const LENGTH: usize = 16;
    let remote = [address.to_ne_bytes(), LENGTH.to_ne_bytes()].concat();
    let args = [Arg::Int(pid), Arg::Vector(LENGTH), Arg::Int(1), Arg::Bytes(&remote), Arg::Int(1), Arg::Int(0)];
    let vm_readv = call(libc::SYS_process_vm_readv, &args).map(|got| format!("{got:?}")).map_err(Into::into);
    let file = |name: &str| {
        let path = format!("/proc/{pid}/{name}");
        Ok(format!("{:?}", fs::File::open(path)?))
    };
    any([("process_vm_readv", vm_readv), ("mem", file("mem")), ("maps", file("maps")), ("environ", file("environ"))])
}

pub(crate) fn trace_processes_of_others(target: &Target) -> Attempt {
    any([("host", trace(target.number("host_pid"))), ("another worker", trace(target.number("neighbour_pid")))])
}

/// Without stopping it: PTRACE_SEIZE ends with the process that has made the call.
pub(crate) fn trace(pid: i64) -> Attempt {
    let args = [Arg::Int(libc::PTRACE_SEIZE.into()), Arg::Int(pid), Arg::Int(0), Arg::Int(0)];
    Ok(format!("{:?}", call(libc::SYS_ptrace, &args)?))
}

pub(crate) fn take_a_descriptor_of_another_process(target: &Target) -> Attempt {
    let take = |pid: i64| {
        let calls = [
            crate::raw::Call { number: libc::SYS_pidfd_open, args: &[Arg::Int(pid), Arg::Int(0)] },
            crate::raw::Call { number: libc::SYS_pidfd_getfd, args: &[Arg::Last, Arg::Int(0), Arg::Int(0)] },
        ];
        Ok(format!("{:?}", crate::raw::calls(&calls)?))
    };
    any([("host", take(target.number("host_pid"))), ("init", take(1))])
}

/// Of the environment of the launching process and of its open files.
pub(crate) fn inherit_the_environment(_: &Target) -> Attempt {
    let secret = std::env::vars_os().find(|(name, _)| name == crate::stage::SECRET_VARIABLE);
    let (name, value) = secret.ok_or_else(|| absent("no such variable"))?;
    Ok(format!("{name:?}={value:?}"))
}

pub(crate) fn inherit_a_descriptor(_: &Target) -> Attempt {
    let listing = fs::read_dir("/proc/self/fd").expect("/proc is there");
    let mut strange = Vec::new();
    for entry in listing.flatten() {
        let link = fs::read_link(entry.path()).unwrap_or_default();
        let number: u32 = entry.file_name().to_str().and_then(|name| name.parse().ok()).expect("a number");
        // The listing is one itself.
        if number > 2 && !link.starts_with(format!("/proc/{}/fd", std::process::id())) {
            strange.push(format!("{number} is {}", link.display()));
        }
    }
    if strange.is_empty() { Err(absent("none but 0, 1 and 2")) } else { Ok(strange.join(", ")) }
}
