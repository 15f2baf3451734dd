//! Workers that are launched into a cgroup.

use std::{
    collections::BTreeSet,
    os::{fd::AsFd as _, unix::process::ExitStatusExt as _},
};

use herd_sandbox::{
    Identity, Init, Isolation, Mode, Report, Spec,
    cgroup::{Cgroup, CgroupRoot, Limits},
};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::stage::{CONTROLLERS, NO_LIMITS, SOON, cgroup, empties, give_to_user, place, root, say, user_role};

/// A command in a sandbox that lacks nothing, and in this cgroup.
fn launch(cgroup: &Cgroup, command: &[&str]) -> Init {
    let mut spec = Spec::new(command[0]);
    spec.args = command[1..].iter().map(Into::into).collect();
    spec.env = vec![("PATH".into(), "/usr/bin:/bin".into())];
    spec.isolation = Isolation::new(Mode::Required);
    spec.isolation.identity = rustix::process::geteuid().is_root().then_some(Identity { uid: 70_000, gid: 70_000 });
    spec.isolation.cgroup = Some(cgroup.directory().try_clone_to_owned().expect("a duplicate"));
    Init::launch(spec).expect("this kernel has everything")
}

/// What it reports next; nothing once it is gone.
fn report(init: &Init) -> Option<Report> {
    let soon = Timespec::try_from(SOON).expect("it is short");
    loop {
        match init.recv() {
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                let ready = poll(&mut [PollFd::new(&init.as_fd(), PollFlags::IN)], Some(&soon)).expect("poll");
                assert_eq!(ready, 1, "nothing is reported");
            }
            // One that was killed may not have read all that was sent to it.
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return None,
            reported => return reported.expect("the protocol"),
        }
    }
}

#[track_caller]
fn ready(init: &Init) -> u32 {
    match report(init) {
        Some(Report::Ready { pid }) => pid,
        other => panic!("{other:?}"),
    }
}

/// Launches a worker and looks who is in its cgroup.
fn be_born(root: &CgroupRoot) {
    let limits = Limits { memory: Some(64 << 20), cpu: Some(2.0), pids: Some(10) };
    let cgroup = cgroup(root, "worker-1", &limits);
    let init = launch(&cgroup, &["sleep", "1000"]);
    let worker = ready(&init);
    let text = std::fs::read_to_string(cgroup.path().join("cgroup.procs")).expect("its processes");
    let inside: BTreeSet<u32> = text.lines().map(|pid| pid.parse().expect("a number")).collect();
    assert_eq!(inside, BTreeSet::from([init.pid(), worker]), "init and its worker, and nobody else");
    assert_eq!(cgroup.usage().expect("usage").pids, 2);
    init.kill();
    while report(&init).is_some() {}
    empties(&cgroup);
    cgroup.remove().expect("it is empty");
}

pub(crate) fn init_and_its_worker_are_born_into_the_cgroup() {
    be_born(&root());
}

pub(crate) fn without_root_they_are_born_into_a_delegated_one() {
    let place = place("place", CONTROLLERS);
    give_to_user(&place);
    let mut daemon = user_role(&place, &["role:birth"]);
    daemon.expect("born");
    daemon.succeeds();
}

/// The daemon of that test.
pub(crate) fn play() {
    be_born(&CgroupRoot::open().expect("the cgroup was given to this user"));
    say("born");
}

pub(crate) fn the_limit_of_processes_counts_from_init_on() {
    let root = root();
    let cgroup = cgroup(&root, "worker-1", &Limits { pids: Some(1), ..NO_LIMITS });
    let init = launch(&cgroup, &["sleep", "1000"]);
    let Some(Report::Failed(failure)) = report(&init) else { panic!("init itself was the one process") };
    assert_eq!(failure.errno, Some(11), "{failure:?}");
    while report(&init).is_some() {}
    empties(&cgroup);
}

pub(crate) fn a_worker_out_of_memory_is_killed_with_its_init_and_told_by_its_cgroup() {
    let root = root();
    let cgroup = cgroup(&root, "worker-1", &Limits { memory: Some(32 << 20), ..NO_LIMITS });
    // One line of 100 MB, all of which tail has to keep.
    let init = launch(&cgroup, &["sh", "-c", "head -c 100000000 /dev/zero | tail -n 1 | wc -c"]);
    ready(&init);
    while let Some(next) = report(&init) {
        assert!(!matches!(next, Report::Exited { status, .. } if status.success()), "{next:?}");
    }
    empties(&cgroup);
    assert_eq!(init.reap().expect("it is a child").signal(), Some(9));
    assert!(cgroup.usage().expect("usage").oom_kills >= 1);
}

pub(crate) fn what_a_worker_leaves_behind_dies_with_its_cgroup() {
    let root = root();
    let cgroup = cgroup(&root, "worker-1", &NO_LIMITS);
    let init = launch(&cgroup, &["sh", "-c", "setsid setsid sleep 1000 & exec sleep 1000"]);
    ready(&init);
    cgroup.kill().expect("it can be killed");
    empties(&cgroup);
    while report(&init).is_some() {}
    assert_eq!(init.reap().expect("it is a child").signal(), Some(9));
    cgroup.remove().expect("it is empty");
}
