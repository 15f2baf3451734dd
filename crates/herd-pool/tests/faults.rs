//! Workers, factories and callbacks that fail in every way, over fake workers and a paused clock.

mod fake;

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use fake::{Behaviour, Fake, id, next_event, session_ended, spares};
use herd_pool::{AcquireError, EndReason, EventKind, ExitStatus, OptionsError, Pool, WorkerIds, WorkerState};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

#[tokio::test(start_paused = true)]
async fn two_hundred_sessions_on_ten_workers_are_all_answered_and_never_share_one() {
    let fake = Fake::new();
    fake.spawn_gate().set(Behaviour::Slow(3 * MS));
    let pool = Pool::builder(fake.clone()).ttl(20 * MS).acquire_timeout(2 * SECOND).build().unwrap();
    let mut events = pool.subscribe();
    let mut callers = JoinSet::new();
    for number in 0..200 {
        let pool = pool.clone();
        callers.spawn(async move {
            let session = id(format!("session-{number}"));
            let lease = pool.acquire(&session).await?;
            assert_eq!(lease.session(), &session);
            sleep(10 * MS).await;
            assert_eq!(lease.end_reason(), None);
            Ok::<_, AcquireError>(lease.worker_id())
        });
    }
    let mut workers = Vec::new();
    while let Some(answer) = callers.join_next().await {
        workers.push(answer.unwrap().unwrap());
    }
    assert_eq!(workers.len(), 200);
    workers.sort();
    workers.dedup();
    assert_eq!(workers.len(), 200, "a worker served two sessions");
    assert!(fake.peak() <= 10, "{} workers ran at once", fake.peak());
    while session_ended(&mut events).await.0 != id("session-199") {}
}

#[tokio::test(start_paused = true)]
async fn callers_beyond_both_bounds_are_told_which_one() {
    let fake = Fake::new();
    let pool = fake.pool().max_workers(1).max_waiting(2).acquire_timeout(SECOND).build().unwrap();
    let _lease = pool.acquire(&id("alice")).await.unwrap();
    let waiting: Vec<_> = ["bob", "carol"]
        .map(|name| {
            let pool = pool.clone();
            tokio::spawn(async move {
                let began = Instant::now();
                (pool.acquire(&id(name)).await.map(drop), began.elapsed())
            })
        })
        .into();
    tokio::task::yield_now().await;
    assert_eq!(pool.stats().waiting, 2);
    assert!(matches!(pool.acquire(&id("dave")).await, Err(AcquireError::QueueFull { max_waiting: 2 })));
    for caller in waiting {
        let (answer, waited) = caller.await.unwrap();
        assert!(matches!(answer, Err(AcquireError::TimedOut { last_spawn_error: None, after }) if after == SECOND));
        assert!(waited >= SECOND && waited <= SECOND + 10 * MS, "{waited:?}");
    }
    assert_eq!(pool.stats().acquire_failures, 3);
    assert_eq!(pool.stats().acquire_requests, 4);
}

#[tokio::test(start_paused = true)]
async fn those_who_wait_are_served_in_order_of_arrival() {
    let fake = Fake::new();
    let pool = fake.pool().max_workers(1).build().unwrap();
    let first = pool.acquire(&id("first")).await.unwrap();
    let (served, mut order) = tokio::sync::mpsc::unbounded_channel();
    for number in 0..10 {
        let (pool, served) = (pool.clone(), served.clone());
        tokio::spawn(async move {
            let session = id(number.to_string());
            let lease = pool.acquire(&session).await.unwrap();
            served.send(number).unwrap();
            drop(lease);
            pool.end(&session).await.unwrap();
        });
        tokio::task::yield_now().await;
    }
    drop((first, served));
    pool.end(&id("first")).await.unwrap();
    for number in 0..10 {
        assert_eq!(order.recv().await, Some(number));
    }
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_dies_while_idle_ends_its_session_and_the_next_acquire_starts_anew() {
    let fake = Fake::new();
    let pool = fake.pool().build().unwrap();
    let mut events = pool.subscribe();
    let worker = pool.acquire(&id("alice")).await.unwrap().worker_id();
    fake.control(worker).exit_out_of_memory();
    assert_eq!(session_ended(&mut events).await, (id("alice"), EndReason::OutOfMemory));
    let lease = pool.acquire(&id("alice")).await.unwrap();
    assert!(lease.is_new());
    assert_ne!(lease.worker_id(), worker);
    assert_eq!(fake.running(), [lease.worker_id()], "something of the dead worker is left");
}

#[tokio::test(start_paused = true)]
async fn a_spare_that_dies_is_replaced_and_nobody_gets_an_error() {
    let fake = Fake::new();
    let crashes = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&crashes);
    let pool = fake
        .pool()
        .spare(1)
        .on_crash(move |crash| {
            assert_eq!(crash.session, None);
            count.fetch_add(1, Ordering::SeqCst);
        })
        .build()
        .unwrap();
    let mut events = pool.subscribe();
    spares(&pool, &mut events, 1).await;
    let dead = fake.running()[0];
    fake.control(dead).exit(ExitStatus::Signal(11));
    next_event(&mut events, |kind| matches!(kind, EventKind::WorkerGone { worker } if *worker == dead).then_some(()))
        .await;
    spares(&pool, &mut events, 1).await;
    assert_ne!(pool.acquire(&id("alice")).await.unwrap().worker_id(), dead);
    assert_eq!(crashes.load(Ordering::SeqCst), 1);
}

#[tokio::test(start_paused = true)]
async fn a_sick_spare_is_replaced_behind_the_callers_back() {
    for sickness in [Behaviour::Error, Behaviour::Never, Behaviour::Panic] {
        let fake = Fake::new();
        let pool = fake.pool().spare(1).build().unwrap();
        let mut events = pool.subscribe();
        spares(&pool, &mut events, 1).await;
        let sick = fake.running()[0];
        fake.control(sick).health.set(sickness);
        let began = Instant::now();
        let lease = pool.acquire(&id("alice")).await.unwrap();
        assert_ne!(lease.worker_id(), sick);
        assert!(began.elapsed() <= SECOND + 10 * MS, "{:?}", began.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn a_spare_that_fails_its_probe_is_replaced() {
    let fake = Fake::new();
    let pool = fake.pool().spare(1).health_interval(SECOND).build().unwrap();
    let mut events = pool.subscribe();
    spares(&pool, &mut events, 1).await;
    let sick = fake.running()[0];
    fake.control(sick).health.set(Behaviour::Error);
    next_event(&mut events, |kind| matches!(kind, EventKind::WorkerGone { worker } if *worker == sick).then_some(()))
        .await;
    spares(&pool, &mut events, 1).await;
    assert_eq!(pool.stats().spawn_failures, 0);
}

#[tokio::test(start_paused = true)]
async fn a_session_ends_as_unhealthy_at_the_third_failed_probe_in_a_row() {
    let fake = Fake::new();
    let pool = fake.pool().health_interval(SECOND).build().unwrap();
    let lease = pool.acquire(&id("alice")).await.unwrap();
    let control = fake.control(lease.worker_id());
    for _ in 0..5 {
        // Two failures, then a success: that is tolerated for ever.
        let checks = control.checks();
        control.health.set(Behaviour::Error);
        while control.checks() < checks + 2 {
            sleep(10 * MS).await;
        }
        control.health.set(Behaviour::Ok);
        while control.checks() < checks + 3 {
            sleep(10 * MS).await;
        }
    }
    assert_eq!(lease.end_reason(), None);
    let checks = control.checks();
    control.health.set(Behaviour::Error);
    assert_eq!(lease.ended().await, EndReason::Unhealthy);
    assert_eq!(control.checks(), checks + 3);
}

#[tokio::test(start_paused = true)]
async fn a_worker_whose_probe_hangs_is_unhealthy_too() {
    let fake = Fake::new();
    let pool = fake.pool().health_interval(SECOND).build().unwrap();
    let lease = pool.acquire(&id("alice")).await.unwrap();
    fake.control(lease.worker_id()).health.set(Behaviour::Never);
    assert_eq!(timeout(20 * SECOND, lease.ended()).await, Ok(EndReason::Unhealthy));
}

#[tokio::test(start_paused = true)]
async fn probes_of_many_workers_are_spread_over_the_interval() {
    let fake = Fake::new();
    let pool = fake.pool().min_workers(1000).max_workers(1000).health_interval(10 * SECOND).build().unwrap();
    while pool.stats().workers_spare < 1000 {
        sleep(MS).await;
    }
    let checks = || fake.running().into_iter().map(|worker| fake.control(worker).checks()).sum::<usize>();
    for second in 1..=10 {
        sleep(SECOND).await;
        let expected = second * 100;
        let made = checks();
        assert!(made.abs_diff(expected) < 50, "{made} probes after {second} seconds");
    }
}

#[tokio::test(start_paused = true)]
async fn a_spawn_that_fails_is_told_at_once() {
    for (failure, text) in
        [(Behaviour::Error, "told to fail"), (Behaviour::Panic, "the factory panicked: told to panic")]
    {
        let fake = Fake::new();
        fake.spawn_gate().set(failure);
        let pool = fake.pool().build().unwrap();
        let began = Instant::now();
        match pool.acquire(&id("alice")).await {
            Err(AcquireError::Spawn(error)) => assert_eq!(error.to_string(), text),
            other => panic!("{other:?}"),
        }
        assert!(began.elapsed() < 10 * MS);
        fake.spawn_gate().set(Behaviour::Ok);
        assert!(pool.acquire(&id("alice")).await.unwrap().is_new());
    }
}

#[tokio::test(start_paused = true)]
async fn a_spawn_that_hangs_is_given_up() {
    let fake = Fake::new();
    fake.spawn_gate().set(Behaviour::Never);
    let pool = fake.pool().max_workers(1).spawn_timeout(3 * SECOND).build().unwrap();
    let answer = pool.acquire(&id("alice")).await;
    assert!(matches!(answer, Err(AcquireError::Spawn(_))), "{answer:?}");
    assert!(fake.running().is_empty());
    fake.spawn_gate().set(Behaviour::Ok);
    assert!(pool.acquire(&id("alice")).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_factory_that_always_fails_is_tried_ever_more_rarely_and_recovers() {
    let fake = Fake::new();
    fake.spawn_gate().set(Behaviour::Error);
    let pool = Pool::builder(fake.clone()).min_workers(3).spare(2).build().unwrap();
    sleep(60 * SECOND).await;
    // Three at once, then 100 ms, 200 ms, ... 6.4 s after each other (12.7 s in all), then every 10 s.
    assert_eq!(fake.spawns(), 3 + 7 + 4);
    fake.spawn_gate().set(Behaviour::Ok);
    sleep(11 * SECOND).await;
    assert_eq!(pool.stats().workers_spare, 3);
    assert_eq!(pool.stats().spawn_failures, 14);
}

#[tokio::test(start_paused = true)]
async fn spares_that_die_as_soon_as_they_are_ready_are_started_ever_more_rarely() {
    let fake = Fake::new();
    let pool = Pool::builder(fake.clone()).min_workers(3).spare(2).build().unwrap();
    let mut events = pool.subscribe();
    let killer = async {
        loop {
            let ready = |kind: &EventKind| match kind {
                EventKind::WorkerReady { worker, .. } => Some(*worker),
                _ => None,
            };
            let worker = next_event(&mut events, ready).await;
            fake.control(worker).exit(ExitStatus::Code(0));
        }
    };
    assert!(timeout(60 * SECOND, killer).await.is_err());
    // At once, then after 100 ms, 200 ms, ... 6.4 s, then every 10 s, as for failing starts. Each time all three are
    // started, since each that becomes ready lets the next one be tried.
    assert_eq!(fake.spawns(), 3 * (1 + 7 + 4));
    // A session that gets a worker shows that workers work: the others come at once.
    let _lease = pool.acquire(&id("alice")).await.unwrap();
    spares(&pool, &mut pool.subscribe(), 2).await;
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_comes_during_the_back_off_waits_for_the_next_attempt() {
    let fake = Fake::new();
    fake.spawn_gate().set(Behaviour::Error);
    let pool = fake.pool().max_workers(2).acquire_timeout(SECOND).build().unwrap();
    assert!(matches!(pool.acquire(&id("alice")).await, Err(AcquireError::Spawn(_))));
    fake.spawn_gate().set(Behaviour::Ok);
    let began = Instant::now();
    pool.acquire(&id("alice")).await.unwrap();
    assert!(began.elapsed() >= 99 * MS && began.elapsed() <= 110 * MS, "{:?}", began.elapsed());

    // The first attempt after a failure hangs, and those who wait for others learn of the failure when time is up.
    pool.end(&id("alice")).await.unwrap();
    fake.spawn_gate().set(Behaviour::Error);
    assert!(matches!(pool.acquire(&id("alice")).await, Err(AcquireError::Spawn(_))));
    fake.spawn_gate().set(Behaviour::Never);
    match pool.acquire(&id("bob")).await {
        Err(AcquireError::TimedOut { last_spawn_error: Some(error), .. }) => {
            assert_eq!(error.to_string(), "told to fail");
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn first_workers_start_together() {
    let fake = Fake::new();
    fake.spawn_gate().set(Behaviour::Slow(SECOND));
    let pool = fake.pool().min_workers(8).build().unwrap();
    sleep(SECOND + 10 * MS).await;
    assert_eq!(pool.stats().workers_spare, 8);
}

#[tokio::test(start_paused = true)]
async fn spares_are_kept_beyond_those_with_sessions_up_to_the_maximum() {
    let fake = Fake::new();
    let pool = fake.pool().spare(2).max_workers(5).build().unwrap();
    let mut leases = Vec::new();
    for (sessions, expected) in [(0, 2), (1, 2), (2, 2), (3, 2), (4, 1), (5, 0)] {
        while leases.len() < sessions {
            leases.push(pool.acquire(&id(leases.len().to_string())).await.unwrap());
        }
        sleep(10 * MS).await;
        assert_eq!(pool.stats().workers_spare, expected, "with {sessions} sessions");
    }
    for number in 0..5 {
        pool.end(&id(number.to_string())).await.unwrap();
    }
    sleep(10 * MS).await;
    assert_eq!((pool.stats().workers_spare, pool.stats().workers), (2, 2));
}

#[tokio::test(start_paused = true)]
async fn a_worker_nobody_waits_for_any_more_becomes_a_spare_or_is_closed() {
    for (spare, left) in [(1, 1), (0, 0)] {
        let fake = Fake::new();
        let pool = fake.pool().spare(spare).max_workers(1).build().unwrap();
        fake.spawn_gate().set(Behaviour::Slow(SECOND));
        assert!(timeout(10 * MS, pool.acquire(&id("alice"))).await.is_err());
        assert_eq!(pool.stats().waiting, 0);
        sleep(2 * SECOND).await;
        assert_eq!(fake.running().len(), left);
        assert_eq!(pool.stats().workers_spare, left);
        assert_eq!(fake.spawns(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_crash_callback_that_panics_does_not_harm_the_pool() {
    let fake = Fake::new();
    let pool = fake.pool().on_crash(|_| panic!("told to panic")).build().unwrap();
    for _ in 0..3 {
        let lease = pool.acquire(&id("alice")).await.unwrap();
        fake.control(lease.worker_id()).exit(ExitStatus::Code(1));
        assert_eq!(lease.ended().await, EndReason::Crashed(ExitStatus::Code(1)));
    }
    assert_eq!(pool.stats().sessions_ended.by(EndReason::Crashed(ExitStatus::Unknown)), 3);
}

#[tokio::test(start_paused = true)]
async fn a_slow_subscriber_is_told_what_it_missed_and_holds_nobody_up() {
    let fake = Fake::new();
    let pool = fake.pool().build().unwrap();
    let mut slow = pool.subscribe();
    for number in 0..1000 {
        let session = id(number.to_string());
        drop(pool.acquire(&session).await.unwrap());
        pool.end(&session).await.unwrap();
    }
    let Err(herd_pool::EventsError::Lagged { missed }) = slow.next().await else { panic!("it did not lag") };
    // Each session: starting, ready, started, ended, gone.
    for sequence in missed + 1..=5 * 1000 {
        assert_eq!(slow.next().await.unwrap().sequence, sequence);
    }
    drop(pool);
    while slow.next().await.is_ok() {}
    assert_eq!(slow.next().await.err(), Some(herd_pool::EventsError::Closed));
}

#[tokio::test(start_paused = true)]
async fn what_is_shown_of_sessions_and_workers_is_true() {
    let fake = Fake::new();
    fake.spawn_gate().set(Behaviour::Slow(SECOND));
    let ids = WorkerIds::new();
    let other = fake.pool().worker_ids(ids.clone()).spare(1).build().unwrap();
    sleep(2 * SECOND).await;
    let pool = fake.pool().worker_ids(ids).spare(1).max_workers(3).build().unwrap();
    sleep(2 * SECOND).await;
    assert_eq!(other.workers()[0].id.to_string(), "worker-1");
    let spare = &pool.workers()[0];
    assert_eq!((spare.id.to_string().as_str(), spare.state), ("worker-2", WorkerState::Spare));
    assert_eq!(spare.ready_after.map(|after| after.as_millis()), Some(1000));

    let lease = pool.acquire(&id("alice")).await.unwrap();
    lease.record_bytes(100, 7);
    lease.record_bytes(1, 0);
    drop(pool.acquire(&id("alice")).await.unwrap());
    let info = pool.session(&id("alice")).unwrap();
    assert_eq!((info.leases, info.requests, info.bytes_in, info.bytes_out), (1, 2, 101, 7));
    assert_eq!((info.worker, info.address.as_deref()), (Some(lease.worker_id()), Some("fake://worker-2")));
    let worker = pool.worker(lease.worker_id()).unwrap();
    assert_eq!((worker.state, worker.session), (WorkerState::InSession, Some(id("alice"))));
    assert!(worker.worker.is_some());
    let starting = pool.workers();
    assert_eq!(
        starting.iter().map(|worker| worker.state).collect::<Vec<_>>(),
        [WorkerState::InSession, WorkerState::Starting]
    );
    assert_eq!(pool.sessions().len(), 1);
    let stats = pool.stats();
    assert_eq!((stats.workers, stats.workers_starting, stats.workers_in_session, stats.sessions), (2, 1, 1, 1));
    assert_eq!((stats.acquire_requests, stats.sessions_started, stats.max_workers), (2, 1, 3));
}

#[tokio::test]
async fn options_that_cannot_work_are_refused() {
    let pool = || Pool::builder(Fake::new());
    assert_eq!(pool().max_workers(0).build().err(), Some(OptionsError::NoWorkers));
    assert_eq!(
        pool().min_workers(3).max_workers(2).build().err(),
        Some(OptionsError::MinAboveMax { min_workers: 3, max_workers: 2 })
    );
    assert_eq!(pool().max_waiting(0).build().err(), Some(OptionsError::NoWaiting));
    assert_eq!(pool().ttl(Duration::ZERO).build().err(), Some(OptionsError::Zero { option: "ttl" }));
    let outside = std::thread::spawn(move || pool().build().err()).join().unwrap();
    assert_eq!(outside, Some(OptionsError::NoRuntime));
}
