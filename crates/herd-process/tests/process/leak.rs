//! Nothing is left behind.

use std::{collections::BTreeMap, fs, path::Path, sync::Arc, time::Instant};

use herd_pool::{Worker as _, WorkerFactory as _, WorkerId};
use tokio::{sync::Semaphore, task::JoinSet};

use crate::fixture::{get, patiently, sandboxed_role};

/// How many workers live and end, and how many at once.
const CYCLES: u64 = 2_000;
const AT_ONCE: usize = 24;

/// What there is of things that could be left behind.
#[derive(Debug, Eq, PartialEq)]
struct Census {
    descriptors: usize,
    mounts: usize,
    children: usize,
    locks: usize,
    workspaces: usize,
}

impl Census {
    fn take(base: &Path) -> Self {
        let count = |path: &Path| fs::read_dir(path).map_or(0, Iterator::count);
        let state = fs::read_dir(base).expect("it is there").flatten().next().expect("a state directory").path();
        Self {
            descriptors: count(Path::new("/proc/self/fd")),
            mounts: fs::read_to_string("/proc/self/mountinfo").expect("/proc is there").lines().count(),
            children: children(),
            locks: users_taken(),
            workspaces: count(&state),
        }
    }
}

/// The processes whose parent is this one, zombies as well.
fn children() -> usize {
    let me = std::process::id().to_string();
    let processes = fs::read_dir("/proc").expect("/proc is there").flatten();
    let parent = |process: &fs::DirEntry| {
        let stat = fs::read_to_string(process.path().join("stat")).ok()?;
        stat.rsplit_once(") ")?.1.split_whitespace().nth(1).map(str::to_owned)
    };
    processes.filter(|process| parent(process).as_deref() == Some(&me)).count()
}

/// The users of this test's range that are taken.
fn users_taken() -> usize {
    let entries = fs::read_dir("/run/herd-uids").into_iter().flatten().flatten();
    let numbers = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    numbers.filter(|number| USERS.contains(number)).count()
}

const USERS: std::ops::RangeInclusive<u32> = 2_100_080_000..=2_100_080_999;

/// How many namespaces of each kind the processes of this host are in.
fn namespaces() -> BTreeMap<String, usize> {
    let kinds = ["pid", "mnt", "net", "ipc", "uts", "user", "cgroup"];
    let processes: Vec<_> =
        fs::read_dir("/proc").expect("/proc is there").flatten().map(|entry| entry.path()).collect();
    let count = |kind: &&str| {
        let links = processes.iter().filter_map(|process| fs::read_link(process.join("ns").join(kind)).ok());
        ((*kind).to_owned(), links.collect::<std::collections::HashSet<_>>().len())
    };
    kinds.iter().map(count).collect()
}

fn resident() -> u64 {
    let status = fs::read_to_string("/proc/self/status").expect("/proc is there");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("the line is there");
    line.split_whitespace().nth(1).and_then(|number| number.parse::<u64>().ok()).expect("a number") * 1024
}

pub(crate) async fn two_thousand_workers_that_come_and_go_leave_nothing() {
    let base = tempfile::tempdir().expect("a directory");
    let options =
        sandboxed_role(&["serve"]).state_dir(base.path()).uid_range(USERS).ready(herd_process::Readiness::Tcp);
    let factory = Arc::new(options.build().expect("the sandbox can be had"));
    // What is made once and stays, and the memory that is used again and again.
    run(&factory, 0..100).await;
    let before = Census::take(base.path());
    let (memory, spaces) = (resident(), namespaces());
    let began = Instant::now();
    run(&factory, 100..100 + CYCLES).await;
    let per_second = CYCLES as f64 / began.elapsed().as_secs_f64();
    assert_eq!(Census::take(base.path()), before, "{per_second:.0} a second");
    let grown = resident().saturating_sub(memory);
    assert!(grown < 8 << 20, "the daemon grew by {} KiB", grown / 1024);
    // Other tests run meanwhile, in some of their own.
    for (kind, count) in namespaces() {
        assert!(count < spaces[&kind] + 500, "{count} {kind} namespaces, and {} before", spaces[&kind]);
    }
    patiently(factory.close()).await;
    assert_eq!(fs::read_dir(base.path()).expect("it is there").count(), 0);
}

/// Lets workers live and end: closed, killed, dropped, crashed, and given up while they start.
async fn run(factory: &Arc<herd_process::ProcessFactory>, numbers: std::ops::Range<u64>) {
    let room = Arc::new(Semaphore::new(AT_ONCE));
    let mut workers = JoinSet::new();
    for number in numbers {
        let permit = Arc::clone(&room).acquire_owned().await.expect("it is never closed");
        let factory = Arc::clone(factory);
        workers.spawn(async move {
            let _permit = permit;
            let spawn = factory.spawn(WorkerId::new(number));
            if number % 10 == 9 {
                let after = std::time::Duration::from_micros(number % 97 * 100);
                let _ = tokio::time::timeout(after, spawn).await;
                return;
            }
            let worker = patiently(spawn).await.expect("the worker starts");
            match number % 10 {
                0..4 => patiently(worker.close()).await,
                4..6 => patiently(worker.kill()).await,
                6 => drop(worker),
                7 => {
                    assert_eq!(get(&worker, "/pid").await, "2");
                    let exited = worker.exited();
                    let _ = patiently(worker.client().get("/abort")).await;
                    patiently(exited).await;
                }
                _ => {
                    let _ = crate::fixture::shell(
                        &worker,
                        "touch a b c; mkdir -p d/e; (setsid sleep 100 &) >/dev/null 2>&1",
                    )
                    .await;
                    patiently(worker.close()).await;
                }
            }
        });
        while let Some(ended) = workers.try_join_next() {
            ended.expect("no panic");
        }
    }
    while let Some(ended) = workers.join_next().await {
        ended.expect("no panic");
    }
    patiently(factory.none_left()).await;
}
