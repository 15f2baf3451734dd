use rustix::process::Signal;

use crate::{
    client::eval,
    daemon::{eventually, is_gone},
    delegated::{cgroups_of_workers, daemon},
};

const CONFIGURATION: &str = "resources: {memory_limit_mb: 256, min_workers: 2, max_workers: 4}\n";

pub(crate) fn a_daemon_that_stops_leaves_no_cgroup() {
    let mut daemon = daemon(CONFIGURATION);
    assert_eq!(eval(daemon.gateway, "alice", "1").status, 200);
    let [workers] = &cgroups_of_workers()[..] else { panic!("there is one daemon") };
    let inside = || std::fs::read_dir(workers).unwrap().filter(|entry| entry.as_ref().unwrap().path().is_dir()).count();
    assert!(inside() >= 2, "each worker has one");
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.wait().code(), Some(0));
    assert_eq!(cgroups_of_workers(), [""; 0].map(std::path::PathBuf::from));
}

pub(crate) fn what_a_killed_daemon_left_is_removed_by_the_next_one() {
    let mut first = daemon(CONFIGURATION);
    assert_eq!(eval(first.gateway, "alice", "1").status, 200);
    let worker = first.worker_of("alice");
    let left = cgroups_of_workers();
    assert_eq!(left.len(), 1);
    first.signal(Signal::KILL);
    first.wait();
    eventually(|| is_gone(worker));
    assert_eq!(cgroups_of_workers(), left, "nobody was there to remove it");

    let second = daemon(CONFIGURATION);
    assert_eq!(eval(second.gateway, "alice", "1").status, 200);
    let now = cgroups_of_workers();
    assert!(now.len() == 1 && now != left, "{now:?}");
}
