use std::{fs, process::Command, time::Duration};

use herd_sandbox::cgroup::{CgroupError, Limits};

use crate::stage::{NO_LIMITS, SOON, cgroup, empties, own_cgroup, read, role, root, write};

pub(crate) fn kill_ends_all_even_those_that_left_the_session() {
    let root = root();
    let cgroup = cgroup(&root, "worker-1", &NO_LIMITS);
    let mut family = role(cgroup.path(), &["role:family"]);
    // The one that was told to go, its child, and the one in another session whose parent has ended.
    (0..3).for_each(|_| family.expect("here"));
    assert!(cgroup.is_populated().expect("events"));
    cgroup.kill().expect("it can be killed");
    empties(&cgroup);
    assert!(!cgroup.is_populated().expect("events"));
    assert_eq!(family.says(), "", "nobody holds its output any more");
    cgroup.remove().expect("it is empty");
}

pub(crate) fn kill_ends_what_is_stopped_and_what_is_frozen() {
    let root = root();
    let cgroup = cgroup(&root, "worker-1", &NO_LIMITS);
    let mut stopped = role(cgroup.path(), &["role:stopped"]);
    stopped.expect("here");
    write(cgroup.path(), "cgroup.freeze", "1");
    cgroup.kill().expect("it can be killed");
    empties(&cgroup);
    stopped.was_killed();
}

pub(crate) fn without_cgroup_kill_each_process_is_killed() {
    let root = root();
    let cgroup = cgroup(&root, "worker-1", &Limits { pids: Some(50), ..NO_LIMITS });
    fs::create_dir(cgroup.path().join("below")).expect("a cgroup below");
    // A kernel before 5.14 has no such file; here it cannot be written.
    let kill = cgroup.path().join("cgroup.kill");
    let hidden = Command::new("mount").args(["--bind", "-o", "ro", "/proc/version"]).arg(&kill).status();
    assert!(hidden.expect("mount is there").success());
    assert!(fs::write(&kill, "1").is_err());

    let mut family = role(cgroup.path(), &["role:family"]);
    (0..3).for_each(|_| family.expect("here"));
    let mut forking = role(&cgroup.path().join("below"), &["role:keep-forking"]);
    forking.expect("here");
    cgroup.kill().expect("it can be killed");
    empties(&cgroup);
    forking.was_killed();
    assert!(Command::new("umount").arg(&kill).status().expect("umount is there").success());
    cgroup.remove().expect("it is empty");
}

pub(crate) fn an_empty_cgroup_is_removed_with_those_below() {
    let root = root();
    let cgroup = cgroup(&root, "worker-1", &NO_LIMITS);
    let path = cgroup.path().to_owned();
    let deep = (0..60).fold(path.clone(), |above, _| above.join("d"));
    fs::create_dir_all(deep).expect("cgroups in cgroups");
    for wide in 0..10 {
        fs::create_dir(path.join(format!("w{wide}"))).expect("a cgroup");
    }
    cgroup.remove().expect("nobody is in it");
    assert!(!path.exists());
}

pub(crate) fn a_populated_cgroup_is_removed_once_its_last_process_ends() {
    let root = root();
    let cgroup = cgroup(&root, "worker-1", &NO_LIMITS);
    let path = cgroup.path().to_owned();
    let mut process = role(&path, &["role:until-told"]);
    process.expect("here");
    let removal = std::thread::spawn(move || cgroup.remove());
    // It may or may not have begun by now; both must work.
    process.prompt();
    assert!(process.end().success(), "it was not killed");
    removal.join().expect("no panic").expect("it was removed");
    assert!(!path.exists());
}

pub(crate) fn waiting_for_processes_that_stay_ends_in_time() {
    let root = root();
    let cgroup = cgroup(&root, "worker-1", &NO_LIMITS);
    let mut process = role(cgroup.path(), &["role:idle"]);
    process.expect("here");
    assert!(!cgroup.wait_empty(Duration::from_millis(50)).expect("events"));
    assert!(!cgroup.wait_empty(Duration::ZERO).expect("events"));
    assert!(process.is_alive(), "waiting kills nobody");
}

pub(crate) fn a_dropped_cgroup_is_killed_and_removed() {
    let root = root();
    let cgroup = cgroup(&root, "worker-1", &NO_LIMITS);
    let path = cgroup.path().to_owned();
    let mut process = role(&path, &["role:idle"]);
    process.expect("here");
    drop(cgroup);
    process.was_killed();
    // At the latest when there is another one.
    let another = root.create("worker-2", &NO_LIMITS).expect("a cgroup");
    assert!(!path.exists());
    drop(another);
}

pub(crate) fn the_last_handle_removes_all() {
    let base = own_cgroup();
    let root = root();
    let path = root.path().to_owned();
    let cgroup = cgroup(&root, "worker-1", &NO_LIMITS);
    let mut process = role(cgroup.path(), &["role:idle"]);
    process.expect("here");
    drop(root);
    assert!(process.is_alive() && path.exists(), "a cgroup keeps what it is in");
    drop(cgroup);
    process.was_killed();
    assert!(!path.exists());
    assert_eq!(read(&base, "cgroup.procs"), "", "this process is in a leaf of its own");
}

pub(crate) fn names_are_checked_and_cannot_be_used_twice() {
    let root = root();
    for name in ["", ".", "..", "a/b", "../x", "a\0b", "memory.max", "w\n", &"x".repeat(129)] {
        let error = root.create(name, &NO_LIMITS).expect_err("no such name");
        assert!(matches!(error, CgroupError::Invalid { what: "the name of a cgroup", .. }), "{error:?}");
    }
    let cgroup = cgroup(&root, "worker-1", &NO_LIMITS);
    let mut process = role(cgroup.path(), &["role:idle"]);
    process.expect("here");
    let error = root.create("worker-1", &NO_LIMITS).expect_err("it is there");
    assert_eq!(error.errno(), Some(17), "{error:?}");
    assert!(process.is_alive(), "who asks for a name in use harms nobody");
    cgroup.kill().expect("it can be killed");
    assert!(cgroup.wait_empty(SOON).expect("events"));
    cgroup.remove().expect("it is empty");
    root.create("worker-1", &NO_LIMITS).expect("the name is free again").remove().expect("it is empty");
}
