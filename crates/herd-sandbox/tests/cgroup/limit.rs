use std::{fs, process::Command, time::Instant};

use herd_sandbox::cgroup::{CgroupError, Limits};

use crate::stage::{NO_LIMITS, SOON, cgroup, empties, read, role, root, write};

const MIB: u64 = 1 << 20;

pub(crate) fn memory_over_the_limit_kills_the_whole_worker_and_is_counted() {
    let root = root();
    let cgroup = cgroup(&root, "worker-1", &Limits { memory: Some(48 * MIB), ..NO_LIMITS });
    let mut bystander = role(cgroup.path(), &["role:idle"]);
    bystander.expect("here");
    assert_eq!(cgroup.usage().expect("usage").oom_kills, 0);
    let mut eater = role(cgroup.path(), &["role:eat", &(96 * MIB).to_string()]);
    empties(&cgroup);
    eater.was_killed();
    bystander.was_killed();
    let usage = cgroup.usage().expect("usage is told after the end");
    assert!(usage.oom_kills >= 2, "{usage:?}");
    let peak = usage.memory_peak.expect("this kernel keeps it");
    assert!((24 * MIB..=48 * MIB).contains(&peak), "{usage:?}");
    cgroup.remove().expect("it is empty");
}

pub(crate) fn memory_below_the_limit_kills_nobody() {
    let root = root();
    let cgroup = cgroup(&root, "worker-1", &Limits { memory: Some(96 * MIB), ..NO_LIMITS });
    let mut eater = role(cgroup.path(), &["role:eat", &(32 * MIB).to_string()]);
    eater.expect("eaten");
    let usage = cgroup.usage().expect("usage");
    assert_eq!(usage.oom_kills, 0, "{usage:?}");
    assert!((32 * MIB..96 * MIB).contains(&usage.memory), "{usage:?}");
    assert!(usage.memory_peak.is_some_and(|peak| peak >= usage.memory), "{usage:?}");
}

pub(crate) fn memory_over_the_limit_is_not_swapped_out() {
    let swap = Swap::on();
    let root = root();
    // Without a limit of swap the same is swapped out, so there is a way for it to escape.
    let escape = cgroup(&root, "worker-1", &Limits { memory: Some(48 * MIB), ..NO_LIMITS });
    write(escape.path(), "memory.swap.max", "max");
    let mut eater = role(escape.path(), &["role:eat", &(96 * MIB).to_string()]);
    eater.expect("eaten");
    drop(escape);
    eater.was_killed();

    let cgroup = cgroup(&root, "worker-2", &Limits { memory: Some(48 * MIB), ..NO_LIMITS });
    let mut eater = role(cgroup.path(), &["role:eat", &(96 * MIB).to_string()]);
    empties(&cgroup);
    eater.was_killed();
    assert_eq!(read(cgroup.path(), "memory.swap.current"), "0");
    assert!(cgroup.usage().expect("usage").oom_kills > 0);
    drop(swap);
}

/// Compressed memory to swap to, for as long as it lives.
struct Swap;

impl Swap {
    const DEVICE: &str = "/dev/zram0";

    fn on() -> Self {
        run("modprobe", &["zram", "num_devices=1"]);
        fs::write("/sys/block/zram0/disksize", "256M").expect("a device for swap");
        run("mkswap", &[Self::DEVICE]);
        run("swapon", &[Self::DEVICE]);
        Self
    }
}

impl Drop for Swap {
    fn drop(&mut self) {
        run("swapoff", &[Self::DEVICE]);
    }
}

fn run(program: &str, arguments: &[&str]) {
    let status = Command::new(program).args(arguments).status().expect("it is in the package util-linux or kmod");
    assert!(status.success(), "{program}: {status}");
}

pub(crate) fn cpu_time_over_the_limit_is_waited_for() {
    let root = root();
    let cgroup = cgroup(&root, "worker-1", &Limits { cpu: Some(0.25), ..NO_LIMITS });
    let mut burners = [(); 2].map(|()| role(cgroup.path(), &["role:burn", "200"]));
    let started = Instant::now();
    let before = cgroup.usage().expect("usage").cpu;
    for burner in &mut burners {
        assert!(burner.end().success());
    }
    let (took, usage) = (started.elapsed(), cgroup.usage().expect("usage"));
    assert!(usage.throttled > 0, "{usage:?}");
    // A quarter of a core; the first period's part may be had at once.
    let used = usage.cpu.saturating_sub(before);
    assert!(took >= used * 3, "{used:?} in {took:?}");
    assert!(usage.cpu_user + usage.cpu_system >= usage.cpu.mul_f64(0.9), "{usage:?}");
}

pub(crate) fn a_fork_bomb_stops_at_the_limit_of_processes() {
    let root = root();
    let cgroup = cgroup(&root, "worker-1", &Limits { pids: Some(8), ..NO_LIMITS });
    let mut bomb = role(cgroup.path(), &["role:multiply", "20"]);
    bomb.expect("7 then WouldBlock");
    let usage = cgroup.usage().expect("usage");
    assert_eq!(usage.pids, 8, "{usage:?}");
    assert!(usage.pids_refused > 0, "{usage:?}");
    cgroup.kill().expect("it can be killed");
    empties(&cgroup);
}

pub(crate) fn all_limits_are_in_force_before_the_first_process() {
    let root = root();
    let limits = Limits { memory: Some(64 * MIB), cpu: Some(1.5), pids: Some(100) };
    let cgroup = cgroup(&root, "worker-1", &limits);
    let set = |file| read(cgroup.path(), file);
    assert_eq!(set("memory.max"), (64 * MIB).to_string());
    assert_eq!(set("memory.swap.max"), "0");
    assert_eq!(set("memory.oom.group"), "1");
    assert_eq!(set("cpu.max"), "150000 100000");
    assert_eq!(set("pids.max"), "100");
    assert_eq!(set("cgroup.procs"), "");
}

pub(crate) fn a_limit_that_cannot_be_set_is_an_error_and_leaves_nothing() {
    let root = root();
    // As a manager does that takes back what it did not delegate.
    write(root.path(), "cgroup.subtree_control", "-memory");
    let limits = Limits { memory: Some(64 * MIB), ..NO_LIMITS };
    let error = root.create("worker-1", &limits).expect_err("there is no such limit");
    assert!(matches!(error, CgroupError::Io { step: "set the memory limit", .. }), "{error:?}");
    assert_eq!(error.errno(), Some(2), "{error:?}");
    assert!(!root.path().join("worker-1").exists());
}

pub(crate) fn what_workers_use_is_told_one_by_one() {
    let root = root();
    let (busy, idle) = (cgroup(&root, "worker-1", &NO_LIMITS), cgroup(&root, "worker-2", &NO_LIMITS));
    let mut burner = role(busy.path(), &["role:burn", "300"]);
    let mut idler = role(idle.path(), &["role:idle"]);
    idler.expect("here");
    assert!(burner.end().success());
    assert!(busy.wait_empty(SOON).expect("events"));
    let (busy, idle) = (busy.usage().expect("usage"), idle.usage().expect("usage"));
    assert!(busy.cpu.as_millis() >= 250 && idle.cpu < busy.cpu, "{busy:?} {idle:?}");
    assert_eq!((busy.pids, idle.pids), (0, 1));
    assert!(idle.memory > 0, "{idle:?}");
}
