//! All processes below init: found through `/proc`, killed whatever they do.
//!
//! Every descendant of init is below it for good: a process whose parent dies becomes init's child, since init is a
//! child subreaper (prctl(2)). So the tree is gone exactly when init has no child left; what is here only has to make
//! progress towards that, and to harm nobody else.

use std::{
    collections::{HashMap, HashSet},
    fmt::Write,
    fs, io,
};

use rustix::process::{Pid, PidfdFlags, pidfd_open, pidfd_send_signal};

use crate::{Signal, sys::signal};

/// How often one call looks for processes that it has not stopped yet. It takes one pass per generation that was born
/// meanwhile; processes that continue each other could go on for ever.
const MAX_PASSES: usize = 32;

/// A process below init, and its parent when it was found.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
struct Member {
    pid: Pid,
    parent: Pid,
}

/// Sends `SIGKILL` to all processes below this one.
///
/// They are stopped first, pass after pass until none is new: otherwise one that forks as fast as others are killed
/// could win. Who was born in the gap is found by the next call.
pub(super) fn kill(init: Pid) {
    let mut stopped = HashSet::new();
    for _ in 0..MAX_PASSES {
        let mut found_new = false;
        for member in members(init) {
            if stopped.insert(member.pid) {
                found_new = true;
                send(init, member, Signal::STOP);
            }
        }
        if !found_new {
            break;
        }
    }
    for member in members(init) {
        send(init, member, Signal::KILL);
    }
}

/// Sends `SIGKILL` to all processes of the session of this leader, which is not reaped yet, so that the number is its own.
///
/// They are stopped first, as [`kill`] does it. A process that has made a session of its own is not among them.
pub(super) fn kill_session(leader: Pid) {
    // All of a group at once: the kernel lets no fork slip through.
    let _ = signal::send_to_group(leader, Signal::KILL);
    let mut stopped = HashSet::new();
    for _ in 0..MAX_PASSES {
        let mut found_new = false;
        for pid in session(leader) {
            if stopped.insert(pid) {
                found_new = true;
                send_in_session(leader, pid, rustix::process::Signal::STOP);
            }
        }
        if !found_new {
            break;
        }
    }
    for pid in session(leader) {
        send_in_session(leader, pid, rustix::process::Signal::KILL);
    }
}

/// A failure says that the process is gone, which is what is wanted.
fn send_in_session(leader: Pid, pid: Pid, signal: rustix::process::Signal) {
    // Its number may have a new owner by now. A descriptor holds on to one process.
    let Ok(descriptor) = pidfd_open(pid, PidfdFlags::empty()) else { return };
    if session_of(pid) == Some(leader) {
        let _ = pidfd_send_signal(descriptor, signal);
    }
}

/// All processes of a session but its leader.
fn session(leader: Pid) -> Vec<Pid> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str().and_then(parse_pid));
    pids.filter(|pid| *pid != leader && session_of(*pid) == Some(leader)).collect()
}

/// A failure says that the process is gone, which is what is wanted.
fn send(init: Pid, member: Member, signal: Signal) {
    if member.parent == init {
        // Only init can reap its children, so the number is still theirs.
        let _ = signal::send(member.pid, signal);
        return;
    }
    // Others are reaped by their own parents, and their number may have a new owner by now. A descriptor holds on to
    // one process; if that one is still where it was found, or init has inherited it, it is no stranger.
    let Ok(descriptor) = pidfd_open(member.pid, PidfdFlags::empty()) else { return };
    if parent(member.pid).is_some_and(|parent| parent == member.parent || parent == init) {
        let signal = if signal == Signal::KILL { rustix::process::Signal::KILL } else { rustix::process::Signal::STOP };
        let _ = pidfd_send_signal(descriptor, signal);
    }
}

/// All processes below this one, parents before their children.
fn members(init: Pid) -> Vec<Member> {
    let mut members = Vec::new();
    // The kernel keeps a list of each thread's children if it is built with CONFIG_PROC_CHILDREN, as most are. Without,
    // all processes of the system are looked through.
    match children(init) {
        Ok(direct) => {
            members.extend(direct.into_iter().map(|pid| Member { pid, parent: init }));
            let mut next = 0;
            while let Some(&Member { pid, .. }) = members.get(next) {
                // It may have vanished; its children are init's then.
                let found = children(pid).unwrap_or_default();
                members.extend(found.into_iter().map(|child| Member { pid: child, parent: pid }));
                next += 1;
            }
        }
        Err(_) => members = members_by_scan(init),
    }
    members
}

/// The children of all threads of this process; see proc_pid_task(5), `children`.
fn children(pid: Pid) -> io::Result<Vec<Pid>> {
    let mut children = Vec::new();
    let mut path = format!("/proc/{}/task", pid.as_raw_pid());
    let base = path.len();
    for thread in fs::read_dir(&path)? {
        let thread = thread?.file_name();
        path.truncate(base);
        // Writing into a string does not fail.
        let _ = write!(path, "/{}/children", thread.to_string_lossy());
        match fs::read_to_string(&path) {
            Ok(list) => children.extend(list.split_ascii_whitespace().filter_map(parse_pid)),
            // The thread has ended meanwhile: its children belong to another one. They are found by the next pass.
            Err(_) if fs::exists(&path[..path.len() - "/children".len()]).is_ok_and(|exists| !exists) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(children)
}

/// As [`members`], from the parents of all processes of the system.
fn members_by_scan(init: Pid) -> Vec<Member> {
    let mut children: HashMap<Pid, Vec<Pid>> = HashMap::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(parse_pid) else { continue };
        if let Some(parent) = parent(pid) {
            children.entry(parent).or_default().push(pid);
        }
    }
    let mut members: Vec<Member> = Vec::new();
    let mut parent = init;
    let mut next = 0;
    loop {
        // Each list is taken once, so that even a torn picture of the system has no cycle.
        let found = children.remove(&parent).unwrap_or_default();
        members.extend(found.into_iter().map(|pid| Member { pid, parent }));
        let Some(member) = members.get(next) else { return members };
        parent = member.pid;
        next += 1;
    }
}

/// The parent of a process.
fn parent(pid: Pid) -> Option<Pid> {
    stat_field(pid, PARENT)
}

/// The session of a process.
fn session_of(pid: Pid) -> Option<Pid> {
    stat_field(pid, SESSION)
}

/// Fields of proc_pid_stat(5), counted from the one after the program's name.
const PARENT: usize = 1;
const SESSION: usize = 3;

fn stat_field(pid: Pid, index: usize) -> Option<Pid> {
    let stat = fs::read(format!("/proc/{}/stat", pid.as_raw_pid())).ok()?;
    // The second field is the program's name in parentheses; the worker chooses it, parentheses included.
    let name_end = stat.iter().rposition(|byte| *byte == b')')?;
    let fields = str::from_utf8(&stat[name_end + 1..]).ok()?;
    fields.split_ascii_whitespace().nth(index).and_then(parse_pid)
}

fn parse_pid(text: &str) -> Option<Pid> {
    text.parse().ok().and_then(Pid::from_raw)
}

#[cfg(test)]
mod tests {
    use std::{
        io::{BufRead, BufReader},
        process::{Command, Stdio},
    };

    use super::*;

    /// Kernels without lists of children are rare, so what is done there is compared with what is done elsewhere.
    #[test]
    fn both_ways_to_look_find_the_same_processes() {
        let script = "sleep 1000 & (sleep 1000 & echo up; wait) & echo up; wait";
        let mut shell = Command::new("sh").args(["-c", script]).stdout(Stdio::piped()).spawn().unwrap();
        let up = BufReader::new(shell.stdout.take().unwrap()).lines().take(2).count();
        let root = Pid::from_child(&shell);
        let pids = |members: Vec<Member>| members.iter().map(|member| member.pid).collect::<HashSet<_>>();
        let (by_list, by_scan) = (pids(members(root)), pids(members_by_scan(root)));
        // Two sleeping, one waiting.
        let found = (up, by_list.len());
        for pid in by_list.iter().chain([&root]) {
            // The shells may have ended with what they waited for.
            let _ = signal::send(*pid, Signal::KILL);
        }
        shell.wait().unwrap();
        assert_eq!(found, (2, 3));
        assert_eq!(by_list, by_scan);
    }

    #[test]
    fn a_stranger_is_not_signalled() {
        // It ends well when its standard input does, if nothing happens to it before.
        let mut stranger = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let pid = Pid::from_child(&stranger);
        // As if the number had been that of a grandchild before.
        let init = Pid::from_raw(i32::MAX).unwrap();
        let parent = Pid::from_raw(i32::MAX - 1).unwrap();
        send(init, Member { pid, parent }, Signal::KILL);
        drop(stranger.stdin.take());
        assert!(stranger.wait().unwrap().success());
    }
}
