//! Workers that serve the one session alone that they were started for, over fake workers and a paused clock.

mod fake;

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use fake::{Behaviour, Fake, FakeWorker, id};
use herd_pool::{AcquireError, OptionsError, Pool, PoolBuilder, SessionId, SpawnError, WorkerFactory, WorkerId};
use tokio::time::{sleep, timeout};

const MS: Duration = Duration::from_millis(1);

/// A factory that notes for whom it starts workers.
#[derive(Clone, Debug)]
struct ForSessions {
    fake: Fake,
    started_for: Arc<Mutex<Vec<(WorkerId, SessionId)>>>,
}

impl ForSessions {
    fn new() -> Self {
        Self { fake: Fake::new(), started_for: Arc::default() }
    }

    fn pool(&self) -> PoolBuilder<Self> {
        Pool::builder(self.clone()).health_interval(Duration::from_secs(3600))
    }

    fn started_for(&self) -> Vec<(WorkerId, SessionId)> {
        self.started_for.lock().unwrap().clone()
    }
}

impl WorkerFactory for ForSessions {
    type Worker = FakeWorker;

    async fn spawn(&self, id: WorkerId) -> Result<FakeWorker, SpawnError> {
        panic!("{id} would be for nobody");
    }

    fn is_per_session(&self) -> bool {
        true
    }

    async fn spawn_for(&self, id: WorkerId, session: &SessionId) -> Result<FakeWorker, SpawnError> {
        self.started_for.lock().unwrap().push((id, session.clone()));
        self.fake.spawn(id).await
    }
}

#[tokio::test(start_paused = true)]
async fn no_worker_is_started_before_its_session_is_there() {
    let factory = ForSessions::new();
    let pool = factory.pool().min_workers(3).spare(2).build().unwrap();
    sleep(60_000 * MS).await;
    assert_eq!(factory.started_for(), []);
    let alice = pool.acquire(&id("alice")).await.unwrap();
    sleep(60_000 * MS).await;
    assert_eq!(factory.started_for(), [(alice.worker_id(), id("alice"))]);
}

#[tokio::test(start_paused = true)]
async fn each_session_gets_the_worker_that_was_started_for_it_whichever_is_ready_first() {
    let factory = ForSessions::new();
    factory.fake.spawn_gate().set(Behaviour::Never);
    let pool = factory.pool().build().unwrap();
    let callers: Vec<_> = ["alice", "bob", "carol"]
        .map(|name| {
            let pool = pool.clone();
            tokio::spawn(async move { (id(name), pool.acquire(&id(name)).await.unwrap().worker_id()) })
        })
        .into();
    sleep(MS).await;
    factory.fake.spawn_gate().set(Behaviour::Ok);
    for caller in callers {
        let (session, worker) = caller.await.unwrap();
        assert!(factory.started_for().contains(&(worker, session)));
    }
}

#[tokio::test(start_paused = true)]
async fn a_worker_whose_caller_gave_up_is_closed_before_another_is_started_for_that_session() {
    let factory = ForSessions::new();
    factory.fake.spawn_gate().set(Behaviour::Slow(10 * MS));
    factory.fake.set_close_time(100 * MS);
    let pool = factory.pool().build().unwrap();
    timeout(5 * MS, pool.acquire(&id("alice"))).await.expect_err("it takes 10 ms");
    // The worker is ready after 10 ms, nobody wants it, and it takes until 110 ms to be gone.
    sleep(10 * MS).await;
    let alice = id("alice");
    let again = pool.acquire(&alice);
    tokio::pin!(again);
    timeout(80 * MS, &mut again).await.expect_err("the first one still runs");
    assert_eq!(factory.fake.spawns(), 1);
    assert!(pool.session(&id("alice")).is_some(), "it is starting");
    let lease = again.await.unwrap();
    assert_eq!(factory.started_for()[1], (lease.worker_id(), id("alice")));
    assert_eq!(factory.fake.peak(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_caller_who_comes_back_while_the_worker_starts_gets_that_one() {
    let factory = ForSessions::new();
    factory.fake.spawn_gate().set(Behaviour::Slow(10 * MS));
    let pool = factory.pool().build().unwrap();
    timeout(5 * MS, pool.acquire(&id("alice"))).await.expect_err("it takes 10 ms");
    pool.acquire(&id("alice")).await.unwrap();
    assert_eq!(factory.fake.spawns(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_failed_start_is_told_to_its_own_session() {
    let factory = ForSessions::new();
    factory.fake.spawn_gate().set(Behaviour::Error);
    let pool = factory.pool().max_workers(1).build().unwrap();
    let (alice, bob) = (id("alice"), id("bob"));
    let (alice, bob) = tokio::join!(pool.acquire(&alice), pool.acquire(&bob));
    assert!(matches!((alice, bob), (Err(AcquireError::Spawn(_)), Err(AcquireError::Spawn(_)))));
    let sessions: Vec<_> = factory.started_for().into_iter().map(|(_, session)| session).collect();
    assert_eq!(sessions, [id("alice"), id("bob")]);
}

#[tokio::test(start_paused = true)]
async fn a_session_that_ended_starts_anew_with_a_worker_of_its_own_after_the_first_is_gone() {
    let factory = ForSessions::new();
    factory.fake.set_close_time(50 * MS);
    let pool = factory.pool().build().unwrap();
    let alice = id("alice");
    let first = pool.acquire(&alice).await.unwrap().worker_id();
    let (_, second) = tokio::join!(pool.end(&alice), pool.acquire(&alice));
    assert_ne!(second.unwrap().worker_id(), first);
    assert_eq!(factory.fake.peak(), 1, "never two at once");
}

#[tokio::test]
async fn reuse_contradicts_workers_for_one_session() {
    let error = ForSessions::new().pool().worker_reuse(true).build().expect_err("it cannot be");
    assert_eq!(error, OptionsError::ReusePerSession);
}
