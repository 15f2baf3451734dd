//! Workers that serve the one session alone that they were started for, over fake workers and a paused clock.

mod fake;

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use fake::{Behaviour, Fake, FakeWorker, id};
use herd_pool::{
    AcquireError, OptionsError, Pool, PoolBuilder, SessionId, SpawnError, Tenant, TenantLimits, WorkerFactory, WorkerId,
};
use tokio::time::{Instant, sleep, timeout};

const MS: Duration = Duration::from_millis(1);

/// A factory that notes for whom it starts workers.
#[derive(Clone, Debug)]
struct ForSessions {
    fake: Fake,
    started_for: Arc<Mutex<Vec<(WorkerId, SessionId)>>>,
    /// Whose workers refuse to start, and quote what the session keeps.
    broken: Arc<Mutex<Vec<SessionId>>>,
}

impl ForSessions {
    fn new() -> Self {
        Self { fake: Fake::new(), started_for: Arc::default(), broken: Arc::default() }
    }

    fn pool(&self) -> PoolBuilder<Self> {
        Pool::builder(self.clone()).health_interval(Duration::from_secs(3600))
    }

    fn spoil(&self, sessions: impl IntoIterator<Item = SessionId>) {
        self.broken.lock().unwrap().extend(sessions);
    }

    fn starts_of(&self, session: &SessionId) -> usize {
        self.started_for().iter().filter(|(_, other)| other == session).count()
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
        if self.broken.lock().unwrap().contains(session) {
            return Err(SpawnError::new(format!("the secret of {session}")));
        }
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

fn of(tenant: &str, session: impl AsRef<[u8]>) -> SessionId {
    id(session).of(&Tenant::new(tenant, TenantLimits::default()).unwrap())
}

/// All that an error says, as somebody who is told of it can read it.
fn all_of(error: &AcquireError) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

#[tokio::test(start_paused = true)]
async fn what_a_worker_says_as_it_refuses_to_start_is_told_to_its_own_session_alone() {
    let factory = ForSessions::new();
    let pool = factory.pool().max_workers(2).acquire_timeout(3000 * MS).build().unwrap();
    let spoilt = of("attacker", "spoilt");
    factory.spoil([spoilt.clone()]);
    // It is tried now and after 100 ms, 200 ms and so on, and somebody waits for it all the time.
    let others = ["bob", "carol", "dave"].map(|name| of("victim", name)).into_iter().chain([of("attacker", "other")]);
    let first = pool.acquire(&spoilt).await.unwrap_err();
    assert!(all_of(&first).contains("the secret of spoilt"), "{first:?}");
    factory.fake.spawn_gate().set(Behaviour::Never);
    for other in others {
        let (own, other) = tokio::join!(pool.acquire(&spoilt), pool.acquire(&other));
        assert!(all_of(&own.unwrap_err()).contains("the secret of spoilt"));
        let other = other.unwrap_err();
        assert!(matches!(other, AcquireError::TimedOut { .. }), "{other:?}");
        assert!(!format!("{other:?} {}", all_of(&other)).contains("secret"), "{other:?}");
    }
    // Who waits for the session itself, while it is not tried again, is told why.
    let pool = factory.pool().acquire_timeout(50 * MS).build().unwrap();
    pool.acquire(&spoilt).await.unwrap_err();
    let waited = pool.acquire(&spoilt).await.unwrap_err();
    assert!(matches!(waited, AcquireError::TimedOut { .. }) && all_of(&waited).contains("the secret of spoilt"));
}

#[tokio::test(start_paused = true)]
async fn a_session_whose_worker_always_fails_is_tried_ever_more_rarely_and_delays_nobody() {
    let factory = ForSessions::new();
    let pool = factory.pool().build().unwrap();
    let spoilt = id("spoilt");
    factory.spoil([spoilt.clone()]);
    let trying = {
        let (pool, spoilt) = (pool.clone(), spoilt.clone());
        tokio::spawn(async move { while pool.acquire(&spoilt).await.is_err() {} })
    };
    for number in 0..60 {
        sleep(1000 * MS).await;
        let began = Instant::now();
        let healthy = id(format!("healthy-{number}"));
        drop(pool.acquire(&healthy).await.unwrap());
        assert!(began.elapsed() <= MS, "{:?}", began.elapsed());
        pool.end(&healthy).await.unwrap();
    }
    // At once, after 100 ms, 200 ms, ... 6.4 s (12.7 s in all), and then every 10 s.
    assert_eq!(factory.starts_of(&spoilt), 1 + 7 + 4);
    factory.broken.lock().unwrap().clear();
    trying.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_tenant_whose_sessions_all_fail_is_tried_ever_more_rarely_and_delays_no_other() {
    let factory = ForSessions::new();
    let pool = factory.pool().max_workers(3).max_waiting(5000).acquire_timeout(3_600_000 * MS).build().unwrap();
    let spoilt: Vec<_> = (0..1000).map(|number| of("attacker", number.to_string())).collect();
    factory.spoil(spoilt.iter().cloned());
    let attacks: Vec<_> = spoilt
        .into_iter()
        .map(|session| {
            let pool = pool.clone();
            tokio::spawn(async move { while pool.acquire(&session).await.is_err() {} })
        })
        .collect();
    for number in 0..60 {
        sleep(1000 * MS).await;
        let before = pool.stats().waiting;
        assert!(before > 900, "{before} wait");
        let began = Instant::now();
        let healthy = if number % 2 == 0 { of("victim", "me") } else { id("nobody's") };
        drop(pool.acquire(&healthy).await.unwrap());
        assert!(began.elapsed() <= MS, "{:?}", began.elapsed());
        pool.end(&healthy).await.unwrap();
    }
    let failed = pool.stats().spawn_failures;
    // A few at once, until five have failed in a row, and then as for one that always fails.
    assert!((12..=20).contains(&failed), "{failed}");
    for attack in attacks {
        attack.abort();
    }
}

#[tokio::test(start_paused = true)]
async fn a_new_configuration_tries_at_once_what_failed_before() {
    let factory = ForSessions::new();
    let pool = factory.pool().build().unwrap();
    let spoilt = id("spoilt");
    factory.spoil([spoilt.clone()]);
    for _ in 0..8 {
        pool.acquire(&spoilt).await.unwrap_err();
    }
    let waiting = {
        let (pool, spoilt) = (pool.clone(), spoilt.clone());
        tokio::spawn(async move { pool.acquire(&spoilt).await.map(drop) })
    };
    sleep(MS).await;
    factory.broken.lock().unwrap().clear();
    let began = Instant::now();
    pool.reconfigure(factory.pool()).unwrap();
    waiting.await.unwrap().unwrap();
    assert!(began.elapsed() <= MS, "{:?}", began.elapsed());
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
