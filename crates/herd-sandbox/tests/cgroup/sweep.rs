use std::path::{Path, PathBuf};

use crate::stage::{Actor, CONTROLLERS, place, role};

/// A daemon with a worker, and where its workers' cgroups are.
fn daemon(place: &Path) -> (Actor, PathBuf) {
    let mut daemon = role(place, &["role:daemon"]);
    let workers = PathBuf::from(daemon.says());
    assert!(workers.starts_with(place), "{}", workers.display());
    (daemon, workers)
}

/// Where a daemon goes that comes after one that has divided the place: systemd does that with `DelegateSubgroup=`.
fn next_to(place: &Path) -> PathBuf {
    place.join("herd-daemon")
}

pub(crate) fn leftovers_of_a_killed_daemon_are_swept() {
    let place = place("place", CONTROLLERS);
    let (mut daemon, workers) = daemon(&place);
    daemon.kill();
    daemon.was_killed();
    assert!(workers.join("worker-1").exists(), "a killed daemon leaves its cgroups");
    let mut sweeper = role(&next_to(&place), &["role:sweep"]);
    sweeper.expect("here");
    sweeper.prompt();
    sweeper.expect("1");
    sweeper.succeeds();
    assert!(!workers.exists());
}

pub(crate) fn a_living_daemons_workers_are_spared() {
    let place = place("place", CONTROLLERS);
    let (mut daemon, workers) = daemon(&place);
    let mut sweeper = role(&next_to(&place), &["role:sweep"]);
    sweeper.expect("here");
    sweeper.prompt();
    sweeper.expect("0");
    sweeper.succeeds();
    let worker = std::fs::read_to_string(workers.join("worker-1/cgroup.procs")).expect("the cgroup is there");
    assert_eq!(worker.lines().count(), 1, "the worker is there");
    // It takes along what it made.
    daemon.prompt();
    assert!(daemon.end().success());
    assert!(!workers.exists());
}

pub(crate) fn of_two_that_sweep_at_once_one_removes_and_both_succeed() {
    let place = place("place", CONTROLLERS);
    let (mut daemon, workers) = daemon(&place);
    let mut sweepers = [(); 2].map(|()| role(&next_to(&place), &["role:sweep"]));
    sweepers.iter_mut().for_each(|sweeper| sweeper.expect("here"));
    daemon.kill();
    daemon.was_killed();
    sweepers.iter_mut().for_each(Actor::prompt);
    let swept: u32 = sweepers.iter_mut().map(|sweeper| sweeper.says().parse::<u32>().expect("a number")).sum();
    assert_eq!(swept, 1);
    sweepers.into_iter().for_each(Actor::succeeds);
    assert!(!workers.exists());
}
