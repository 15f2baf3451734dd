//! From the process that was spawned to init in its namespaces.

use std::{
    fs, io,
    os::fd::{BorrowedFd, OwnedFd},
};

use rustix::{
    fs::{Mode, OFlags},
    pipe::{PipeFlags, pipe_with},
    process::{DumpableBehavior, Pid, set_dumpable_behavior},
};

use super::{DONE, FAILED, failed, failure, settle};
use crate::{
    Failure, Layer, Signal,
    channel::Channel,
    plan::{Place, Plan, Step},
    protocol::Reply,
    sys::{
        process::{Forked, exit_now, fork_into, unshare},
        signal,
    },
};

/// Does the outer steps. Returns in the process that goes on as init, which may be another one.
pub(super) fn perform(plan: &Plan<'_>, cgroup: Option<BorrowedFd<'_>>, channel: &Channel) -> Result<(), Failure> {
    for step in plan.steps_of(Place::Outer) {
        let name = step.name();
        match step {
            Step::UserNamespace { uid, gid } => enter_user_namespace(*uid, *gid)
                .map_err(|error| failed(name, &error, "this user cannot make a user namespace"))?,
            Step::Birth { namespaces, .. } => be_born(namespaces, cgroup, channel)
                .map_err(|error| failed(name, &error, "init cannot be born into its namespaces and its cgroup"))?,
            _ => return Err(failure(name, None, "it is no step of this process")),
        }
    }
    Ok(())
}

/// A user namespace with one user and one group, see user_namespaces(7).
pub(super) fn enter_user_namespace(uid: u32, gid: u32) -> io::Result<()> {
    unshare(libc::CLONE_NEWUSER)?;
    // The files below belong to root as long as this process is not dumpable, see proc(5). It holds nothing but the
    // worker's own plan.
    set_dumpable_behavior(DumpableBehavior::Dumpable)?;
    // Otherwise a process could leave a group by which it is denied something.
    let mapped = fs::write("/proc/self/setgroups", "deny").and_then(|()| write_maps("self", uid, gid));
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    mapped
}

/// Maps one user and one group of a process's user namespace onto the same numbers outside. Needs a `/proc` of the
/// PID namespace of this process.
pub(super) fn write_maps(process: &str, uid: u32, gid: u32) -> io::Result<()> {
    fs::write(format!("/proc/{process}/gid_map"), format!("{gid} {gid} 1"))?;
    fs::write(format!("/proc/{process}/uid_map"), format!("{uid} {uid} 1"))
}

/// The user namespace of a process, to be joined later; see namespaces(7).
pub(super) fn namespace_of(process: &str) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    Ok(rustix::fs::open(format!("/proc/{process}/ns/user"), flags, Mode::empty())?)
}

/// Goes on as a new process, a child of the launching process; this one ends.
fn be_born(namespaces: &[Layer], cgroup: Option<BorrowedFd<'_>>, channel: &Channel) -> io::Result<()> {
    let flags = namespaces.iter().fold(0, |flags, layer| flags | flag(*layer));
    let (told, tell) = pipe_with(PipeFlags::CLOEXEC)?;
    match fork_into(flags, cgroup, true)? {
        Forked::Parent { child } => tell_and_end(channel, child),
        Forked::Child => {
            drop(tell);
            // The launching process learns of init before it hears from it. This ends when the parent has.
            let _ = rustix::io::read(&told, &mut [0]);
            settle()
        }
    }
}

fn tell_and_end(channel: &Channel, child: Pid) -> ! {
    let moved = Reply::Moved { pid: child.as_raw_pid().cast_unsigned() };
    if channel.send(&moved.encode(), &[]).is_err() {
        // Nobody wants it any more.
        let _ = signal::send(child, Signal::KILL);
        exit_now(FAILED);
    }
    exit_now(DONE)
}

fn flag(layer: Layer) -> u64 {
    let flag = match layer {
        Layer::PidNamespace => libc::CLONE_NEWPID,
        Layer::Files => libc::CLONE_NEWNS,
        Layer::Ipc => libc::CLONE_NEWIPC,
        Layer::HostName => libc::CLONE_NEWUTS,
        Layer::Network => libc::CLONE_NEWNET,
        // The others are no namespaces, or are entered by other steps.
        _ => 0,
    };
    u64::from(flag.cast_unsigned())
}
