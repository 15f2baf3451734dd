//! What another factory and other options change, and what they leave alone, over fake workers and a paused clock.

mod fake;

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use fake::{Behaviour, Fake, FakeWorker, id, session_ended, spares};
use herd_pool::{
    AcquireError, EndReason, ExitStatus, OptionsError, Pool, SessionId, SpawnError, WhenFull, WorkerFactory, WorkerId,
    WorkerState,
};
use tokio::{
    task::yield_now,
    time::{Instant, sleep, timeout},
};

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

/// Waits until a factory has the given workers and no others.
async fn runs(factory: &Fake, workers: usize) {
    let settled = async {
        while factory.running().len() != workers {
            sleep(MS).await;
        }
    };
    timeout(60 * SECOND, settled).await.unwrap_or_else(|_| panic!("{:?} run", factory.running()));
}

#[tokio::test(start_paused = true)]
async fn sessions_stay_on_their_worker_and_new_ones_get_one_of_the_new_factory() {
    let (old, new) = (Fake::new(), Fake::new());
    let pool = old.pool().spare(2).build().unwrap();
    let mut events = pool.subscribe();
    let alice = pool.acquire(&id("alice")).await.unwrap();
    spares(&pool, &mut events, 2).await;
    pool.reconfigure(new.pool().spare(1)).unwrap();
    runs(&old, 1).await;
    runs(&new, 1).await;
    assert_eq!(old.running(), [alice.worker_id()]);
    assert_eq!(pool.acquire(&id("alice")).await.unwrap().worker_id(), alice.worker_id());
    assert_eq!(alice.end_reason(), None);
    let bob = pool.acquire(&id("bob")).await.unwrap();
    assert!(new.running().contains(&bob.worker_id()));

    // The session's next worker is a new one as well, and IDs go on where they were.
    pool.end(&id("alice")).await.unwrap();
    let again = pool.acquire(&id("alice")).await.unwrap();
    assert!(again.worker_id() > alice.worker_id() && new.running().contains(&again.worker_id()));
    runs(&old, 0).await;
}

#[tokio::test(start_paused = true)]
async fn starts_that_hang_are_given_up_and_do_not_hold_up_the_new_ones() {
    let (old, new) = (Fake::new(), Fake::new());
    old.spawn_gate().set(Behaviour::Never);
    let pool = old.pool().max_workers(2).build().unwrap();
    let waiting = ["alice", "bob", "carol"].map(|name| {
        let pool = pool.clone();
        tokio::spawn(async move {
            let lease = pool.acquire(&id(name)).await.unwrap();
            let worker = lease.worker_id();
            drop(lease);
            pool.end(&id(name)).await.unwrap();
            worker
        })
    });
    runs(&old, 2).await;
    let began = Instant::now();
    pool.reconfigure(new.pool().max_workers(2)).unwrap();
    for caller in waiting {
        caller.await.unwrap();
    }
    assert!(began.elapsed() <= 10 * MS, "{:?}", began.elapsed());
    assert!(old.running().is_empty());
    assert_eq!((pool.stats().spawn_failures, pool.stats().acquire_failures), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_pause_between_failed_starts_ends_with_the_command_that_failed() {
    let (old, new) = (Fake::new(), Fake::new());
    old.spawn_gate().set(Behaviour::Error);
    let pool = old.pool().spare(1).build().unwrap();
    sleep(60 * SECOND).await;
    let failures = pool.stats().spawn_failures;
    assert!(failures > 3);
    pool.reconfigure(new.pool().spare(1)).unwrap();
    let began = Instant::now();
    runs(&new, 1).await;
    assert!(began.elapsed() <= 10 * MS, "{:?}", began.elapsed());
    assert_eq!(pool.stats().spawn_failures, failures);
}

#[tokio::test(start_paused = true)]
async fn a_new_command_that_fails_hurts_new_sessions_only_and_can_be_replaced_again() {
    let (old, broken, fixed) = (Fake::new(), Fake::new(), Fake::new());
    broken.spawn_gate().set(Behaviour::Error);
    let pool = old.pool().spare(1).build().unwrap();
    let alice = pool.acquire(&id("alice")).await.unwrap();
    pool.reconfigure(broken.pool().spare(1)).unwrap();
    assert!(matches!(pool.acquire(&id("bob")).await, Err(AcquireError::Spawn(_))));
    assert_eq!(pool.acquire(&id("alice")).await.unwrap().worker_id(), alice.worker_id());
    pool.reconfigure(fixed.pool().spare(1)).unwrap();
    let bob = pool.acquire(&id("bob")).await.unwrap();
    assert!(fixed.running().contains(&bob.worker_id()));
    assert_eq!(alice.end_reason(), None);
}

#[tokio::test(start_paused = true)]
async fn options_that_contradict_each_other_change_nothing() {
    let (old, new) = (Fake::new(), Fake::new());
    let pool = old.pool().spare(1).build().unwrap();
    let mut events = pool.subscribe();
    spares(&pool, &mut events, 1).await;
    let spare = old.running();
    let refused = pool.reconfigure(new.pool().min_workers(3).max_workers(2));
    assert_eq!(refused, Err(OptionsError::MinAboveMax { min_workers: 3, max_workers: 2 }));
    assert_eq!(pool.reconfigure(new.pool().ttl(Duration::ZERO)), Err(OptionsError::Zero { option: "ttl" }));
    for _ in 0..100 {
        yield_now().await;
    }
    assert_eq!((old.running(), new.spawns()), (spare.clone(), 0));
    assert_eq!(pool.acquire(&id("alice")).await.unwrap().worker_id(), spare[0]);
}

#[tokio::test(start_paused = true)]
async fn a_worker_of_the_former_factory_is_not_reused() {
    let (old, new) = (Fake::new(), Fake::new());
    let pool = old.pool().worker_reuse(true).build().unwrap();
    let alice = pool.acquire(&id("alice")).await.unwrap();
    let bob = pool.acquire(&id("bob")).await.unwrap();
    // This one's session has ended already, but a lease keeps its worker from being reused.
    let ended = tokio::spawn({
        let pool = pool.clone();
        async move { pool.end(&id("bob")).await }
    });
    assert_eq!(bob.ended().await, EndReason::Released);
    pool.reconfigure(new.pool().worker_reuse(true)).unwrap();
    ended.await.unwrap().unwrap();
    runs(&old, 1).await;
    let worker = alice.worker_id();
    drop(alice);
    pool.end(&id("alice")).await.unwrap();
    runs(&old, 0).await;
    let next = pool.acquire(&id("alice")).await.unwrap();
    assert_ne!(next.worker_id(), worker);
    // And those of the new one are.
    let reused = next.worker_id();
    drop(next);
    pool.end(&id("alice")).await.unwrap();
    assert_eq!(pool.acquire(&id("bob")).await.unwrap().worker_id(), reused);
}

#[tokio::test(start_paused = true)]
async fn a_session_keeps_the_times_it_started_with_and_the_next_one_gets_the_new_ones() {
    let fake = Fake::new();
    let terms = |ttl, lifetime| fake.pool().ttl(ttl).max_lifetime(lifetime);
    let pool = terms(10 * SECOND, Some(60 * SECOND)).build().unwrap();
    let mut events = pool.subscribe();
    let began = Instant::now();
    let kept = pool.acquire(&id("kept")).await.unwrap();
    drop(pool.acquire(&id("idle")).await.unwrap());
    pool.reconfigure(terms(SECOND, None)).unwrap();
    drop(pool.acquire(&id("new")).await.unwrap());
    let mut ends = Vec::new();
    for _ in 0..3 {
        let (session, reason) = session_ended(&mut events).await;
        ends.push((session.to_string(), reason, began.elapsed().as_secs()));
    }
    assert_eq!(
        ends,
        [
            ("new".to_owned(), EndReason::Idle, 1),
            ("idle".to_owned(), EndReason::Idle, 10),
            ("kept".to_owned(), EndReason::MaxLifetime, 60)
        ]
    );
    drop(kept);
    let unbounded = pool.acquire(&id("kept")).await.unwrap();
    sleep(3600 * SECOND).await;
    assert_eq!(unbounded.end_reason(), None);
}

#[tokio::test(start_paused = true)]
async fn bounds_count_at_once() {
    let fake = Fake::new();
    let pool = fake.pool().max_workers(3).build().unwrap();
    let mut leases = Vec::new();
    for name in ["a", "b", "c"] {
        leases.push(pool.acquire(&id(name)).await.unwrap());
    }
    // Fewer than there are: nobody loses anything, and nobody gets anything until there is room.
    pool.reconfigure(fake.pool().max_workers(1)).unwrap();
    assert_eq!((pool.stats().max_workers, pool.stats().sessions), (1, 3));
    let waiting = tokio::spawn({
        let pool = pool.clone();
        async move { pool.acquire(&id("d")).await.map(|lease| lease.worker_id()) }
    });
    for name in ["a", "b"] {
        pool.end(&id(name)).await.unwrap();
        sleep(SECOND).await;
        assert!(!waiting.is_finished());
    }
    assert_eq!(leases[2].end_reason(), None);
    // More than there were: whoever waits gets a worker, and spares appear.
    pool.reconfigure(fake.pool().max_workers(4).spare(2)).unwrap();
    waiting.await.unwrap().unwrap();
    runs(&fake, 4).await;
    assert_eq!(pool.stats().workers_spare, 2);
    // And they go again.
    pool.reconfigure(fake.pool().max_workers(4)).unwrap();
    runs(&fake, 2).await;
}

#[tokio::test(start_paused = true)]
async fn callers_that_wait_make_room_by_idle_sessions_once_that_is_configured() {
    let fake = Fake::new();
    let pool = fake.pool().max_workers(1).build().unwrap();
    drop(pool.acquire(&id("idle")).await.unwrap());
    let waiting = tokio::spawn({
        let pool = pool.clone();
        async move { pool.acquire(&id("late")).await.map(drop) }
    });
    sleep(SECOND).await;
    assert!(!waiting.is_finished());
    pool.reconfigure(fake.pool().max_workers(1).when_full(WhenFull::EvictIdle)).unwrap();
    waiting.await.unwrap().unwrap();
    assert!(pool.session(&id("idle")).is_none());
}

#[tokio::test(start_paused = true)]
async fn a_shorter_health_interval_counts_for_workers_that_run() {
    let fake = Fake::new();
    let pool = fake.pool().build().unwrap();
    let lease = pool.acquire(&id("alice")).await.unwrap();
    let control = fake.control(lease.worker_id());
    pool.reconfigure(fake.pool().health_interval(SECOND)).unwrap();
    sleep(5 * SECOND).await;
    let checks = control.checks();
    assert!((4..=5).contains(&checks), "{checks}");
    pool.reconfigure(fake.pool().health_interval(3600 * SECOND)).unwrap();
    sleep(60 * SECOND).await;
    assert!(control.checks() <= checks + 1);
}

#[tokio::test(start_paused = true)]
async fn crashes_are_reported_to_the_callback_that_counts() {
    let fake = Fake::new();
    let counts = [0, 1].map(|_| Arc::new(AtomicUsize::new(0)));
    let builder = |count: &Arc<AtomicUsize>| {
        let count = Arc::clone(count);
        fake.pool().on_crash(move |_| _ = count.fetch_add(1, Ordering::SeqCst))
    };
    let pool = builder(&counts[0]).build().unwrap();
    let lease = pool.acquire(&id("alice")).await.unwrap();
    pool.reconfigure(builder(&counts[1])).unwrap();
    fake.control(lease.worker_id()).exit(ExitStatus::Code(1));
    lease.ended().await;
    while counts[1].load(Ordering::SeqCst) == 0 {
        sleep(MS).await;
    }
    assert_eq!(counts.map(|count| count.load(Ordering::SeqCst)), [0, 1]);
}

#[tokio::test(start_paused = true)]
async fn a_pool_that_drains_goes_on_draining() {
    let (old, new) = (Fake::new(), Fake::new());
    let pool = old.pool().spare(1).build().unwrap();
    let lease = pool.acquire(&id("alice")).await.unwrap();
    let drained = tokio::spawn({
        let pool = pool.clone();
        async move { pool.drain(60 * SECOND).await }
    });
    while pool.is_accepting() {
        yield_now().await;
    }
    pool.reconfigure(new.pool().min_workers(2)).unwrap();
    drop(lease);
    drained.await.unwrap();
    assert_eq!((old.running().len(), new.spawns()), (0, 0));
}

/// A factory of either kind, of which a pool's factories are.
#[derive(Clone, Debug)]
struct Kind {
    fake: Fake,
    per_session: bool,
}

impl WorkerFactory for Kind {
    type Worker = FakeWorker;

    async fn spawn(&self, id: WorkerId) -> Result<FakeWorker, SpawnError> {
        assert!(!self.per_session, "{id} would be for nobody");
        self.fake.spawn(id).await
    }

    fn is_per_session(&self) -> bool {
        self.per_session
    }

    async fn spawn_for(&self, id: WorkerId, _: &SessionId) -> Result<FakeWorker, SpawnError> {
        assert!(self.per_session, "{id} is for anybody");
        self.fake.spawn(id).await
    }
}

#[tokio::test(start_paused = true)]
async fn workers_become_those_of_one_session_and_of_any_while_callers_wait() {
    let [shared, own, shared_again] = [false, true, false].map(|per_session| Kind { fake: Fake::new(), per_session });
    let builder = |kind: &Kind| Pool::builder(kind.clone()).max_workers(2).spare(1).min_workers(0);
    let pool = builder(&shared).build().unwrap();
    let mut events = pool.subscribe();
    let _alice = pool.acquire(&id("alice")).await.unwrap();
    own.fake.spawn_gate().set(Behaviour::Never);
    pool.reconfigure(builder(&own)).unwrap();
    let waiting = ["bob", "carol"].map(|name| {
        let pool = pool.clone();
        tokio::spawn(async move {
            let worker = pool.acquire(&id(name)).await.unwrap().worker_id();
            pool.end(&id(name)).await.unwrap();
            worker
        })
    });
    runs(&own.fake, 1).await;
    assert_eq!(pool.stats().waiting, 2);
    pool.reconfigure(builder(&shared_again)).unwrap();
    for caller in waiting {
        caller.await.unwrap();
    }
    assert!(own.fake.running().is_empty());
    spares(&pool, &mut events, 1).await;
    assert_eq!(pool.workers().iter().filter(|worker| worker.state == WorkerState::InSession).count(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_start_for_one_session_that_hangs_is_given_up_and_tried_with_the_new_factory() {
    let [old, new] = [Fake::new(), Fake::new()].map(|fake| Kind { fake, per_session: true });
    old.fake.spawn_gate().set(Behaviour::Never);
    let pool = Pool::builder(old.clone()).max_workers(1).build().unwrap();
    let waiting = tokio::spawn({
        let pool = pool.clone();
        async move { pool.acquire(&id("alice")).await.map(|lease| lease.worker_id()) }
    });
    runs(&old.fake, 1).await;
    pool.reconfigure(Pool::builder(new.clone()).max_workers(1)).unwrap();
    let worker = waiting.await.unwrap().unwrap();
    assert_eq!((new.fake.running(), old.fake.running()), (vec![worker], vec![]));
    // All of the room was used, so the former start was over before the next one began.
    assert_eq!(pool.stats().workers, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn reconfiguring_in_a_storm_loses_nobody() {
    let ids = herd_pool::WorkerIds::new();
    let factories: Vec<_> = (0..3).map(|_| Fake::new()).collect();
    for (number, factory) in factories.iter().enumerate() {
        factory.spawn_gate().set(Behaviour::Slow(Duration::from_micros(100 * (1 + number as u64))));
    }
    let builder = |factory: &Fake, round: usize| {
        factory
            .pool()
            .max_workers(3 + round % 3)
            .spare(round % 2)
            .worker_reuse(round.is_multiple_of(4))
            .worker_ids(ids.clone())
    };
    let pool = builder(&factories[0], 0).build().unwrap();
    let callers: Vec<_> = (0..8)
        .map(|caller| {
            let pool = pool.clone();
            tokio::spawn(async move {
                for round in 0..100 {
                    let session = id(format!("session-{}", (caller * 7 + round) % 9));
                    match pool.acquire(&session).await {
                        Ok(_) => {}
                        Err(AcquireError::Ended(_)) => {}
                        Err(error) => panic!("{error}"),
                    }
                    let _ = pool.end(&session).await;
                }
            })
        })
        .collect();
    let mut round = 0;
    while callers.iter().any(|caller| !caller.is_finished()) {
        round += 1;
        pool.reconfigure(builder(&factories[round % 3], round)).unwrap();
        // Longer than a start takes: one that is given up again and again never ends.
        sleep(7 * MS).await;
    }
    for caller in callers {
        caller.await.unwrap();
    }
    pool.shutdown().await;
    let stats = pool.stats();
    assert_eq!((stats.sessions_started, stats.workers), (stats.sessions_ended.total(), 0));
    assert!(factories.iter().all(|factory| factory.running().is_empty()), "a worker was left behind");
}
