//! The whole: a pool over processes.

use std::{fs, time::Duration};

use herd_pool::{
    AcquireError, Crash, EndReason, ExitStatus, Lease, Pool, SessionId, Worker as _, WorkerFactory as _, WorkerId,
};
use herd_process::{ProcessFactory, ProcessWorker, StartError};
use tokio::sync::mpsc;

use crate::fixture::{NEVER, Roll, exists, files_of_workers, get, patiently, role};

fn session(name: &str) -> SessionId {
    SessionId::new(name).expect("it is an ID")
}

async fn acquire(pool: &Pool<ProcessFactory>, name: &str) -> Lease<ProcessFactory> {
    patiently(pool.acquire(&session(name))).await.expect("there is a worker")
}

/// The process that answers.
async fn process(worker: &ProcessWorker) -> String {
    get(worker, "/pid").await
}

pub(crate) async fn a_session_keeps_its_process_and_shares_it_with_nobody() {
    let factory = role(&["serve"]).build().expect("the options are valid");
    let pool = Pool::builder(factory).build().expect("the options are valid");
    let alice = acquire(&pool, "alice").await;
    let hers = process(alice.worker()).await;
    drop(alice);
    let bob = acquire(&pool, "bob").await;
    assert_ne!(process(bob.worker()).await, hers);
    let alice = acquire(&pool, "alice").await;
    assert_eq!(process(alice.worker()).await, hers);
    patiently(pool.shutdown()).await;
}

pub(crate) async fn a_crash_is_told_with_the_session_and_the_last_words_and_the_next_acquire_starts_anew() {
    let (crashes, mut crashed) = mpsc::unbounded_channel();
    let factory = role(&["serve"]).build().expect("the options are valid");
    let pool = Pool::builder(factory)
        .on_crash(move |crash: &Crash| crashes.send(crash.clone()).expect("the test reads"))
        .build()
        .expect("the options are valid");
    let lease = acquire(&pool, "alice").await;
    let (lost, id) = (process(lease.worker()).await, lease.worker_id());
    let _ = patiently(lease.worker().client().get("/abort")).await;

    let aborted = ExitStatus::Signal(rustix::process::Signal::ABORT.as_raw());
    assert_eq!(patiently(lease.ended()).await, EndReason::Crashed(aborted));
    let crash = patiently(crashed.recv()).await.expect("the callback is called");
    assert_eq!((crash.session, crash.worker), (Some(session("alice")), id));
    assert_eq!((crash.exit.status, &*crash.exit.stderr_tail), (aborted, &["about to abort".to_owned()][..]));

    let next = acquire(&pool, "alice").await;
    assert!(next.is_new());
    assert_ne!((process(next.worker()).await, next.worker_id()), (lost, id));
    patiently(pool.shutdown()).await;
}

pub(crate) async fn a_pool_that_shuts_down_leaves_no_process_and_no_file() {
    let roll = Roll::new();
    let base = tempfile::tempdir().expect("a directory");
    let options = role(&["serve"]).env("ROLL", roll.path()).state_dir(base.path());
    let factory = options.build().expect("the options are valid");
    let pool = Pool::builder(factory.clone()).min_workers(4).build().expect("the options are valid");
    let processes = [roll.next().await, roll.next().await, roll.next().await, roll.next().await];
    // While some of them may still be starting.
    let lease = acquire(&pool, "alice").await;
    patiently(pool.shutdown()).await;
    drop(lease);
    // Those that were still starting were dropped.
    patiently(factory.none_left()).await;
    for process in &processes {
        assert!(!exists(process.pid));
    }
    assert_eq!(files_of_workers(base.path()), [""; 0]);
}

pub(crate) async fn a_closed_factory_leaves_nothing_and_starts_nothing_whoever_holds_it() {
    let base = tempfile::tempdir().expect("a directory");
    let factory = role(&["serve"]).state_dir(base.path()).build().expect("the options are valid");
    let worker = patiently(factory.spawn(WorkerId::new(1))).await.expect("the worker starts");
    patiently(worker.kill()).await;
    patiently(factory.close()).await;
    assert_eq!(fs::read_dir(base.path()).expect("it is there").count(), 0);
    let error = patiently(factory.spawn(WorkerId::new(2))).await.expect_err("it is closed");
    assert!(matches!(error.reason().downcast_ref(), Some(StartError::Closed)), "{error}");
    patiently(factory.close()).await;
    drop(worker);
}

pub(crate) async fn an_acquire_that_fails_tells_what_the_worker_said() {
    let factory = role(&["exit", "3", "no licence"]).build().expect("the options are valid");
    let pool = Pool::builder(factory)
        .min_workers(0)
        .spare(0)
        .acquire_timeout(Duration::from_millis(500))
        .build()
        .expect("the options are valid");
    let error = patiently(pool.acquire(&session("alice"))).await.expect_err("there is no worker");
    let (AcquireError::Spawn(reason) | AcquireError::TimedOut { last_spawn_error: Some(reason), .. }) = error else {
        panic!("{error:?}")
    };
    assert!(reason.to_string().contains("exit code 3") && reason.to_string().contains("no licence"), "{reason}");
    patiently(pool.shutdown()).await;
}

pub(crate) async fn a_worker_that_dies_as_a_spare_is_replaced_unseen() {
    let (crashes, mut crashed) = mpsc::unbounded_channel();
    let roll = Roll::new();
    let factory = role(&["serve"]).env("ROLL", roll.path()).build().expect("the options are valid");
    let pool = Pool::builder(factory)
        .acquire_timeout(NEVER)
        .on_crash(move |crash: &Crash| crashes.send(crash.clone()).expect("the test reads"))
        .build()
        .expect("the options are valid");
    let spare = roll.next().await;
    // Only a worker that was ready can crash; until then its end is a failed spawn.
    while pool.stats().workers_spare == 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let pid = rustix::process::Pid::from_raw(spare.pid.cast_signed()).expect("not 0");
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("it runs");
    let crash = patiently(crashed.recv()).await.expect("the callback is called");
    assert_eq!(crash.session, None);
    let lease = acquire(&pool, "alice").await;
    assert_ne!(process(lease.worker()).await, spare.pid.to_string());
    patiently(pool.shutdown()).await;
}
