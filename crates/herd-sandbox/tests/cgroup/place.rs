use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, id},
};

use herd_sandbox::cgroup::{CgroupError, CgroupRoot, Delegation, Limits};
use rustix::fs::{XattrFlags, setxattr};

use crate::{
    role::spawn,
    stage::{
        self, Actor, CONTROLLERS, HIERARCHY, empties, give_to_user, own_cgroup, place, read, role, say, user_role,
        write,
    },
};

/// Looks for a place to work, and says what came of it.
pub(crate) fn play(scene: &[&str]) {
    match scene {
        ["open"] => work(CgroupRoot::open()),
        ["open-at", path] => work(CgroupRoot::open_at(path)),
        ["stay-after-refusal"] => {
            let before = own_cgroup();
            work(CgroupRoot::open());
            assert_eq!(own_cgroup(), before, "it is back where it was");
        }
        ["in-a-container"] => {
            mount_own_hierarchy();
            // Something like an init that was there first.
            spawn(&["role:idle"]);
            work(CgroupRoot::open());
            say(&read(Path::new(HIERARCHY), "cgroup.procs"));
            say(&read(&Path::new(HIERARCHY).join("herd-daemon"), "cgroup.procs").lines().count().to_string());
        }
        ["read-only"] => {
            mount_own_hierarchy();
            run("mount", &["-o", "remount,bind,ro", HIERARCHY]);
            work(CgroupRoot::open());
        }
        other => panic!("no scene: {other:?}"),
    }
}

/// What a container's runtime does: its cgroup namespace's part of the hierarchy takes the place of the host's.
fn mount_own_hierarchy() {
    run("umount", &["--lazy", HIERARCHY]);
    run("mount", &["-t", "cgroup2", "cgroup2", HIERARCHY]);
}

/// What a daemon does, from the first to the last.
fn work(root: Result<CgroupRoot, CgroupError>) {
    let root = match root {
        Ok(root) => root,
        Err(error) => {
            let errno = error.errno().unwrap_or_default();
            return say(&format!("{} | {errno} | {error} | {}", error.step(), error.remedy()));
        }
    };
    assert_eq!(root.sweep().expect("nothing is in the way"), 0);
    let limits = Limits { memory: Some(64 << 20), cpu: Some(2.0), pids: Some(4) };
    let cgroup = root.create("worker-1", &limits).expect("limits");
    let mut worker = role(cgroup.path(), &["role:multiply", "10"]);
    worker.expect("3 then WouldBlock");
    assert_eq!(cgroup.usage().expect("usage").pids, 4);
    cgroup.kill().expect("it can be killed");
    empties(&cgroup);
    cgroup.remove().expect("it is empty");
    say("works");
}

/// The step, the error number, the reason and the remedy of a refusal.
#[track_caller]
fn refusal(mut actor: Actor) -> [String; 4] {
    let said = actor.says();
    actor.succeeds();
    let parts: Vec<_> = said.split(" | ").map(str::to_owned).collect();
    parts.try_into().unwrap_or_else(|_| panic!("{said}"))
}

#[track_caller]
fn works(mut actor: Actor) {
    actor.expect("works");
    actor.succeeds();
}

fn run(program: &str, arguments: &[&str]) {
    let status = Command::new(program).args(arguments).status().expect("it is in the package util-linux");
    assert!(status.success(), "{program}: {status}");
}

pub(crate) fn a_delegated_cgroup_is_divided_and_its_process_moved_to_a_leaf() {
    let base = own_cgroup();
    let root = stage::root();
    assert_eq!(own_cgroup(), base.join("herd-daemon"));
    assert_eq!(root.path(), base.join(format!("herd-workers-{}", id())));
    assert_eq!(read(&base, "cgroup.procs"), "");
    for divided in [&base, root.path()] {
        assert_eq!(read(divided, "cgroup.subtree_control"), "cpu memory pids");
    }
    assert_eq!(read(Path::new(HIERARCHY), "cgroup.subtree_control"), "cpu memory pids", "nothing changed above");
}

pub(crate) fn a_second_look_finds_the_same_cgroup() {
    let base = own_cgroup();
    let first = stage::root();
    assert_eq!(Delegation::find().expect("it is still delegated").path(), base);
    let second = stage::root();
    assert_eq!(second.path(), base.join(format!("herd-workers-{}-2", id())));
    assert_eq!(first.sweep().expect("nothing is in the way"), 0, "the second is alive");
    drop(second);
    works(role(&own_cgroup(), &["role:place", "open"]));
}

pub(crate) fn a_cgroup_without_the_right_to_write_is_refused() {
    let place = place("place", CONTROLLERS);
    let [step, errno, reason, remedy] = refusal(user_role(&place, &["role:place", "open"]));
    assert_eq!(step, "find a delegated cgroup");
    assert_eq!(errno, "13");
    assert_eq!(reason, format!("the cgroup {:?} is not delegated to this process", place));
    assert_eq!(remedy, "start herd with systemd-run --user --scope -p Delegate=yes herd …");
    assert_eq!(below(&place), Vec::<PathBuf>::new());
}

pub(crate) fn a_cgroup_that_was_delegated_to_a_user_works_without_root() {
    let place = place("place", CONTROLLERS);
    give_to_user(&place);
    works(user_role(&place, &["role:place", "open"]));
    assert_eq!(below(&place), [place.join("herd-daemon")], "everything else was removed");
}

pub(crate) fn a_named_cgroup_out_of_a_users_reach_is_refused() {
    let place = place("place", CONTROLLERS);
    let session = place.with_file_name("session");
    fs::create_dir(&session).expect("a cgroup");
    give_to_user(&place);
    let path = place.to_str().expect("a plain path");
    let [_, errno, reason, _] = refusal(user_role(&session, &["role:place", "open-at", path]));
    assert_eq!(errno, "13");
    let above = place.parent().expect("it is below another");
    assert_eq!(reason, format!("the cgroup {above:?} is not delegated to this process"));
    // The same from inside.
    works(user_role(&place, &["role:place", "open-at", path]));
}

pub(crate) fn a_unit_of_systemd_needs_its_mark() {
    let service = place("herd.service", CONTROLLERS);
    let [_, errno, reason, remedy] = refusal(role(&service, &["role:place", "open"]));
    assert_eq!((errno.as_str(), reason.ends_with("is not delegated to this process")), ("0", true), "{reason}");
    assert!(remedy.starts_with("start herd as a systemd unit with Delegate=yes"), "{remedy}");
    mark(&service, "trusted.delegate");
    works(role(&service, &["role:place", "open"]));

    let scope = service.with_file_name("run-r5.scope");
    fs::create_dir(&scope).expect("a cgroup");
    give_to_user(&scope);
    mark(own_cgroup().parent().expect("it is below another"), "user.delegate");
    let [_, _, reason, remedy] = refusal(user_role(&scope, &["role:place", "open"]));
    assert!(reason.ends_with("is not delegated to this process"), "{reason}");
    assert!(remedy.starts_with("start herd with systemd-run --user --scope"), "{remedy}");
    mark(&scope, "user.delegate");
    works(user_role(&scope, &["role:place", "open"]));
}

fn mark(cgroup: &Path, name: &str) {
    setxattr(cgroup, name, b"1", XattrFlags::empty()).expect("this kernel has extended attributes of cgroups");
}

pub(crate) fn the_top_of_the_hierarchy_is_refused_to_root() {
    let top = Path::new(HIERARCHY);
    let before = below(top);
    let [step, _, reason, remedy] = refusal(role(top, &["role:place", "open"]));
    assert_eq!(step, "find a delegated cgroup");
    assert!(reason.starts_with("the top of the host's cgroup hierarchy"), "{reason}");
    assert!(remedy.contains("Delegate=yes") && remedy.contains("mkdir /sys/fs/cgroup/herd"), "{remedy}");
    let [_, _, named, _] = refusal(role(top, &["role:place", "open-at", HIERARCHY]));
    assert_eq!(named, reason);
    assert_eq!(below(top), before);
}

pub(crate) fn missing_controllers_are_named() {
    let place = place("place", "+pids");
    let [step, _, reason, remedy] = refusal(role(&place, &["role:place", "open"]));
    assert_eq!(step, "enable the cgroup controllers");
    assert_eq!(reason, format!("the cgroup {place:?} lacks the controllers cpu, memory"));
    assert!(remedy.contains("Delegate=cpu memory pids"), "{remedy}");
}

pub(crate) fn other_processes_are_named_and_nothing_is_changed() {
    let place = place("place", CONTROLLERS);
    let mut other = role(&place, &["role:idle"]);
    other.expect("here");
    let pid = read(&place, "cgroup.procs");
    let [_, errno, reason, remedy] = refusal(role(&place, &["role:place", "open"]));
    assert_eq!(errno, "16");
    assert_eq!(reason, format!("other processes are in the cgroup {place:?}: {pid}"));
    assert!(remedy.starts_with("give herd a cgroup of its own"), "{remedy}");
    assert_eq!(below(&place), Vec::<PathBuf>::new());
    assert_eq!(read(&place, "cgroup.procs"), pid);
}

pub(crate) fn what_was_begun_is_undone_if_it_cannot_be_finished() {
    let place = place("place", CONTROLLERS);
    // One for the daemon, and none for its workers.
    write(&place, "cgroup.max.descendants", "1");
    let [step, errno, reason, _] = refusal(role(&place, &["role:place", "stay-after-refusal"]));
    assert_eq!(step, "make a cgroup for the workers", "{reason}");
    assert_eq!(errno, "11");
    assert_eq!(below(&place), Vec::<PathBuf>::new());
    assert_eq!(read(&place, "cgroup.subtree_control"), "");
}

pub(crate) fn a_containers_processes_are_moved_along() {
    let place = place("place", CONTROLLERS);
    let mut container = role(&place, &["role:container", "in-a-container"]);
    let mut said = [(); 2].map(|()| container.says());
    said.sort();
    assert_eq!(said, ["here", "works"]);
    container.expect("");
    container.expect("2");
    assert!(container.end().success());
    assert_eq!(read(&place, "cgroup.subtree_control"), "cpu memory pids");
}

pub(crate) fn a_read_only_hierarchy_is_refused() {
    let place = place("place", CONTROLLERS);
    let [_, errno, reason, remedy] = refusal(role(&place, &["role:container", "read-only"]));
    assert_eq!(errno, "30");
    assert!(reason.ends_with("is mounted read-only"), "{reason}");
    assert!(remedy.contains("writable-cgroups=true"), "{remedy}");
}

pub(crate) fn a_named_cgroup_works_from_elsewhere() {
    let place = place("herd", CONTROLLERS);
    let before = own_cgroup();
    work(CgroupRoot::open_at(&place));
    assert_eq!(own_cgroup(), before, "this process need not move");
    assert_eq!(below(&place), Vec::<PathBuf>::new(), "everything was removed");
}

/// The cgroups below one.
fn below(cgroup: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(cgroup).expect("a directory").map(|entry| entry.expect("an entry").path());
    entries.filter(|path| path.is_dir()).collect()
}
