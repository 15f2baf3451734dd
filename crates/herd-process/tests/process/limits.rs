//! Limits: kept where this host has cgroups of version 2 for it, and refused with the reason where it has not. The
//! virtual machine has them.

use std::{fs, path::Path};

use herd_pool::{ExitStatus, Worker as _, WorkerFactory as _, WorkerId};
use herd_process::{Layer, Mode, ProcessFactory, ProcessFactoryBuilder, StartError};
use herd_sandbox::cgroup::Delegation;

use crate::fixture::{NEVER, patiently, sandboxed_role, shell};

/// The factory, or none if this host cannot keep limits, which it then says.
fn limited(options: ProcessFactoryBuilder, asked_for: &[&str]) -> Option<ProcessFactory> {
    let obstacle = Delegation::find().err();
    let built = options.build();
    let Some(obstacle) = obstacle else { return Some(built.expect("they can be kept")) };
    let error = built.expect_err("they cannot be kept");
    let options: Vec<_> = error.mistakes().iter().map(|mistake| mistake.option.as_str()).collect();
    assert_eq!(options, asked_for);
    for mistake in error.mistakes() {
        assert!(mistake.problem.starts_with("it cannot be kept: step '"), "{mistake}");
        assert!(mistake.problem.contains(&obstacle.remedy()), "{mistake}");
    }
    None
}

pub(crate) async fn limits_are_kept_or_refused_in_every_sandbox() {
    for mode in [Mode::Required, Mode::BestEffort] {
        let options = sandboxed_role(&["serve"]).sandbox(mode).memory_limit(1 << 30).cpu_limit(0.5).pids_limit(50);
        let Some(factory) = limited(options, &["memory_limit", "cpu_limit", "pids_limit"]) else { continue };
        let limits = factory.limits();
        assert_eq!((limits.memory, limits.cpu, limits.pids), (Some(1 << 30), Some(0.5), Some(50)));
        let worker = patiently(factory.spawn(WorkerId::new(1))).await.expect("the worker starts");
        let usage = worker.usage().expect("there are cgroups").expect("they can be read");
        assert!(usage.memory > 0 && usage.pids >= 2 && usage.oom_kills == 0, "{usage:?}");
        patiently(worker.kill()).await;
        let in_the_end = worker.usage().expect("there are cgroups").expect("it is remembered");
        assert!(in_the_end.cpu >= usage.cpu);
    }
}

pub(crate) async fn a_worker_over_its_memory_limit_is_out_of_memory() {
    let options = sandboxed_role(&["serve"]).memory_limit(64 << 20).tmp_limit(1 << 30);
    let Some(factory) = limited(options, &["memory_limit"]) else { return };
    let worker = patiently(factory.spawn(WorkerId::new(1))).await.expect("the worker starts");
    let exited = worker.exited();
    let bomb: String = "head -c 200M /dev/zero > /tmp/bomb".bytes().map(|byte| format!("{byte:02x}")).collect();
    let _ = patiently(worker.client().get(&format!("/sh/{bomb}"))).await;
    let exit = patiently(exited).await;
    assert!(exit.out_of_memory, "{exit:?}");
    assert_eq!((exit.status, exit.to_string()), (ExitStatus::Signal(9), "out of memory".to_owned()));
    patiently(worker.close()).await;
    patiently(factory.close()).await;
}

pub(crate) async fn a_worker_that_is_out_of_memory_before_it_is_ready_is_told_so() {
    let bomb = ProcessFactory::new("/bin/sh").args(["-c", "head -c 200M /dev/zero > /tmp/bomb; exec sleep 1000"]);
    let bomb = bomb.memory_limit(32 << 20).tmp_limit(1 << 30).start_timeout(NEVER);
    let Some(factory) = limited(bomb, &["memory_limit"]) else { return };
    let error = patiently(factory.spawn(WorkerId::new(1))).await.expect_err("it never gets ready");
    assert!(matches!(error.reason().downcast_ref(), Some(StartError::OutOfMemory { .. })), "{error}");
    patiently(factory.close()).await;
}

pub(crate) async fn a_killed_worker_is_not_out_of_memory_and_its_cgroup_goes_with_it() {
    let options = sandboxed_role(&["serve"]).memory_limit(256 << 20);
    let Some(factory) = limited(options, &["memory_limit"]) else { return };
    let worker = patiently(factory.spawn(WorkerId::new(1))).await.expect("the worker starts");
    let cgroup = fs::read_to_string(format!("/proc/{}/cgroup", worker.pid())).expect("it runs");
    let path = cgroup.lines().find_map(|line| line.strip_prefix("0::")).expect("it has one");
    let directory = Path::new("/sys/fs/cgroup").join(path.trim_start_matches('/'));
    assert!(directory.is_dir(), "{directory:?}");
    assert_eq!(shell(&worker, "cat /proc/self/cgroup").await, "0::/", "it sees nothing above");
    let exited = worker.exited();
    patiently(worker.kill()).await;
    let exit = patiently(exited).await;
    assert!(!exit.out_of_memory, "{exit:?}");
    assert!(!directory.exists());
    patiently(factory.close()).await;
}

pub(crate) async fn the_default_limit_of_processes_is_kept_or_missing() {
    let factory = sandboxed_role(&["serve"]).build().expect("the sandbox can be had");
    let worker = patiently(factory.spawn(WorkerId::new(1))).await.expect("the worker starts");
    let has_cgroups = Delegation::find().is_ok() || worker.usage().is_some();
    let is_root = rustix::process::geteuid().is_root();
    let is_missing = worker.missing().iter().any(|missing| missing.layer == Layer::Cgroup);
    assert_eq!((is_missing, worker.usage().is_some()), (!has_cgroups, has_cgroups));
    if !has_cgroups && !is_root {
        assert_eq!(worker.limits().pids, None);
        return;
    }
    assert_eq!(worker.limits().pids, Some(100));
    let bomb = "i=0; while [ $i -lt 150 ]; do sleep 1000 >/dev/null 2>&1 & i=$((i+1)); done; echo $i";
    let said = shell(&worker, bomb).await;
    assert!(said.contains("annot fork"), "{said}");
    let processes = shell(&worker, "echo /proc/[0-9]*").await.split_whitespace().count();
    // Not every thread is a process, and init is not one of the worker's.
    assert!((90..=101).contains(&processes), "{processes}");
    patiently(worker.kill()).await;
    patiently(factory.close()).await;
}
