//! How sessions end and what becomes of their workers: eviction, reuse, end and kill, lifetimes, drain and shutdown.

mod fake;

use std::time::Duration;

use fake::{Behaviour, Fake, id, session_ended, spares};
use herd_pool::{AcquireError, EndReason, Tenant, TenantLimits};
use tokio::time::{Instant, sleep, timeout};

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

#[tokio::test(start_paused = true)]
async fn the_session_idle_for_longest_is_evicted_and_one_in_use_never() {
    let fake = Fake::new();
    let pool =
        fake.pool().max_workers(3).when_full(herd_pool::WhenFull::EvictIdle).acquire_timeout(SECOND).build().unwrap();
    let mut events = pool.subscribe();
    for name in ["alice", "bob", "carol"] {
        pool.acquire(&id(name)).await.unwrap();
        sleep(MS).await;
    }
    // Alice was first but is back again; Bob is the one now.
    drop(pool.acquire(&id("alice")).await.unwrap());
    let dave = pool.acquire(&id("dave")).await.unwrap();
    assert_eq!(session_ended(&mut events).await, (id("bob"), EndReason::Evicted));
    let carol = pool.acquire(&id("carol")).await.unwrap();
    let erin = pool.acquire(&id("erin")).await.unwrap();
    assert_eq!(session_ended(&mut events).await, (id("alice"), EndReason::Evicted));

    // All have leases now: the next one waits, and is served when the first lease is dropped.
    let waiting = {
        let pool = pool.clone();
        tokio::spawn(async move { pool.acquire(&id("frank")).await })
    };
    sleep(100 * MS).await;
    assert_eq!(pool.stats().waiting, 1);
    drop(carol);
    assert_eq!(session_ended(&mut events).await, (id("carol"), EndReason::Evicted));
    waiting.await.unwrap().unwrap();
    assert_eq!((dave.end_reason(), erin.end_reason()), (None, None));
    assert_eq!(fake.peak(), 3);
}

#[tokio::test(start_paused = true)]
async fn reuse_waits_for_the_last_lease_and_checks_the_worker() {
    let fake = Fake::new();
    let pool = fake.pool().max_workers(1).worker_reuse(true).build().unwrap();
    let lease = pool.acquire(&id("alice")).await.unwrap();
    let other = pool.acquire(&id("alice")).await.unwrap();
    let worker = lease.worker_id();
    let ending = {
        let pool = pool.clone();
        tokio::spawn(async move { pool.end(&id("alice")).await })
    };
    assert_eq!(lease.ended().await, EndReason::Released);
    drop(lease);
    let waiting = {
        let pool = pool.clone();
        tokio::spawn(async move { pool.acquire(&id("bob")).await })
    };
    sleep(SECOND).await;
    assert!(!ending.is_finished() && !waiting.is_finished(), "the worker changed hands while there was a lease");
    drop(other);
    assert_eq!(ending.await.unwrap(), Ok(EndReason::Released));
    let bob = waiting.await.unwrap().unwrap();
    assert!(bob.is_new());
    assert_eq!(bob.worker_id(), worker);
    assert_eq!(fake.control(worker).checks(), 1);

    // A sick worker is not handed on.
    drop(bob);
    fake.control(worker).health.set(Behaviour::Error);
    pool.end(&id("bob")).await.unwrap();
    assert_ne!(pool.acquire(&id("carol")).await.unwrap().worker_id(), worker);
}

#[tokio::test(start_paused = true)]
async fn the_worker_of_a_tenants_session_is_never_reused() {
    let fake = Fake::new();
    let pool = fake.pool().max_workers(1).worker_reuse(true).build().unwrap();
    let acme = Tenant::new("acme", TenantLimits::default()).unwrap();
    let lease = pool.acquire(&id("alice").of(&acme)).await.unwrap();
    let worker = lease.worker_id();
    drop(lease);
    pool.end(&id("alice").of(&acme)).await.unwrap();
    assert_ne!(pool.acquire(&id("alice")).await.unwrap().worker_id(), worker);
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_served_nobodys_session_never_serves_a_tenants_and_keeps_none_waiting() {
    let fake = Fake::new();
    let pool = fake.pool().spare(1).max_workers(1).worker_reuse(true).build().unwrap();
    let of_acme = |name| id(name).of(&Tenant::new("acme", TenantLimits::default()).unwrap());
    let worker = pool.acquire(&id("alice")).await.unwrap().worker_id();
    pool.end(&id("alice")).await.unwrap();
    // As long as there are no tenants it goes on as a spare.
    spares(&pool, &mut pool.subscribe(), 1).await;
    assert_eq!(pool.acquire(&id("bob")).await.unwrap().worker_id(), worker);
    pool.end(&id("bob")).await.unwrap();
    spares(&pool, &mut pool.subscribe(), 1).await;
    assert_eq!(fake.running(), [worker], "it is free");

    let began = Instant::now();
    let fresh = pool.acquire(&of_acme("alice")).await.unwrap().worker_id();
    assert_ne!(fresh, worker);
    assert!(began.elapsed() <= SECOND, "{:?}", began.elapsed());

    // With tenants about, others still hand a worker on to one another, but not past a tenant whose turn it is.
    pool.end(&of_acme("alice")).await.unwrap();
    let mut used = pool.acquire(&id("session-0")).await.unwrap().worker_id();
    let waiting: Vec<_> = [of_acme("carol"), id("session-1"), id("session-2")]
        .map(|session| {
            let pool = pool.clone();
            tokio::spawn(async move {
                let worker = pool.acquire(&session).await.unwrap().worker_id();
                pool.end(&session).await.unwrap();
                worker
            })
        })
        .into();
    while pool.stats().waiting < 3 {
        tokio::task::yield_now().await;
    }
    pool.end(&id("session-0")).await.unwrap();
    let mut served = Vec::new();
    for one in waiting {
        served.push(one.await.unwrap());
    }
    assert_ne!(served[0], used);
    used = served[1];
    assert_eq!(served[2], used, "nobody's sessions share one");
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_is_never_dropped_does_not_keep_a_worker_from_ending() {
    let fake = Fake::new();
    let pool = fake.pool().max_workers(1).worker_reuse(true).build().unwrap();
    let lease = pool.acquire(&id("alice")).await.unwrap();
    let began = Instant::now();
    assert_eq!(pool.end(&id("alice")).await, Ok(EndReason::Released));
    assert!(began.elapsed() >= 10 * SECOND && began.elapsed() < 11 * SECOND);
    assert!(fake.running().is_empty());
    drop(lease);
}

#[tokio::test(start_paused = true)]
async fn without_reuse_a_worker_serves_one_session_only() {
    let fake = Fake::new();
    let pool = fake.pool().max_workers(1).build().unwrap();
    let worker = pool.acquire(&id("alice")).await.unwrap().worker_id();
    pool.end(&id("alice")).await.unwrap();
    assert!(fake.running().is_empty());
    assert_ne!(pool.acquire(&id("alice")).await.unwrap().worker_id(), worker);
}

#[tokio::test(start_paused = true)]
async fn an_acquire_of_an_ending_session_waits_for_the_end_and_starts_anew() {
    let fake = Fake::new();
    fake.set_close_time(SECOND);
    let pool = fake.pool().build().unwrap();
    let old = pool.acquire(&id("alice")).await.unwrap();
    let ending = {
        let pool = pool.clone();
        tokio::spawn(async move { pool.end(&id("alice")).await })
    };
    old.ended().await;
    assert_eq!(pool.session(&id("alice")).unwrap().state, herd_pool::SessionState::Ending);
    assert!(pool.get(&id("alice")).is_none());
    let began = Instant::now();
    let new = pool.acquire(&id("alice")).await.unwrap();
    assert!(began.elapsed() >= SECOND - 10 * MS, "two workers of one session ran at once");
    assert!(new.is_new());
    assert_eq!(fake.peak(), 1);
    assert_eq!(ending.await.unwrap(), Ok(EndReason::Released));
}

#[tokio::test(start_paused = true)]
async fn kill_hurries_a_slow_close_and_both_learn_the_first_reason() {
    let fake = Fake::new();
    fake.set_close_time(3600 * SECOND);
    let pool = fake.pool().build().unwrap();
    let lease = pool.acquire(&id("alice")).await.unwrap();
    let ending = {
        let pool = pool.clone();
        tokio::spawn(async move { pool.end(&id("alice")).await })
    };
    lease.ended().await;
    let began = Instant::now();
    assert_eq!(pool.kill(&id("alice")).await, Ok(EndReason::Released));
    assert_eq!(ending.await.unwrap(), Ok(EndReason::Released));
    assert!(began.elapsed() < SECOND);
}

#[tokio::test(start_paused = true)]
async fn a_session_that_is_ended_while_it_starts_tells_those_who_wait() {
    let fake = Fake::new();
    fake.spawn_gate().set(Behaviour::Slow(SECOND));
    let pool = fake.pool().spare(1).max_workers(1).build().unwrap();
    let waiting = {
        let pool = pool.clone();
        tokio::spawn(async move { pool.acquire(&id("alice")).await })
    };
    tokio::task::yield_now().await;
    assert_eq!(pool.kill(&id("alice")).await, Ok(EndReason::Killed));
    let answer = waiting.await.unwrap();
    assert!(matches!(answer, Err(AcquireError::Ended(EndReason::Killed))), "{answer:?}");
    sleep(2 * SECOND).await;
    assert_eq!(pool.stats().workers_spare, 1, "the worker that was started for it is wasted");
}

#[tokio::test(start_paused = true)]
async fn a_session_ends_at_its_longest_lifetime_in_use_or_not() {
    let fake = Fake::new();
    let pool = fake.pool().max_lifetime(60 * SECOND).build().unwrap();
    let began = Instant::now();
    let lease = pool.acquire(&id("alice")).await.unwrap();
    assert_eq!(lease.ended().await, EndReason::MaxLifetime);
    assert!(began.elapsed() >= 60 * SECOND && began.elapsed() < 60 * SECOND + 100 * MS, "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_silent_session_is_idle_by_bytes_in_spite_of_its_lease() {
    let fake = Fake::new();
    let pool = fake.pool().ttl(60 * SECOND).idle_by(herd_pool::IdleBy::Bytes).build().unwrap();
    let lease = pool.acquire(&id("alice")).await.unwrap();
    for _ in 0..10 {
        sleep(50 * SECOND).await;
        lease.record_bytes(10, 1);
    }
    assert_eq!(lease.end_reason(), None);
    let last_byte = Instant::now();
    assert_eq!(lease.ended().await, EndReason::Idle);
    let lived = last_byte.elapsed();
    assert!(lived >= 60 * SECOND && lived <= 60 * SECOND + 600 * MS, "{lived:?}");
    drop(lease);
}

#[tokio::test(start_paused = true)]
async fn a_silent_session_with_a_lease_is_not_evicted_but_still_ends_as_idle() {
    let fake = Fake::new();
    let pool = fake
        .pool()
        .ttl(60 * SECOND)
        .idle_by(herd_pool::IdleBy::Bytes)
        .when_full(herd_pool::WhenFull::EvictIdle)
        .max_workers(1)
        .acquire_timeout(SECOND)
        .build()
        .unwrap();
    let lease = pool.acquire(&id("alice")).await.unwrap();
    assert!(matches!(pool.acquire(&id("bob")).await, Err(AcquireError::TimedOut { .. })));
    assert_eq!(lease.end_reason(), None);
    assert_eq!(timeout(61 * SECOND, lease.ended()).await, Ok(EndReason::Idle));
}

#[tokio::test(start_paused = true)]
async fn drain_ends_sessions_as_their_leases_go_and_the_rest_at_the_timeout() {
    let fake = Fake::new();
    let pool = fake.pool().spare(2).build().unwrap();
    let mut events = pool.subscribe();
    let idle = pool.acquire(&id("idle")).await.unwrap();
    let ended = idle.ended();
    drop(idle);
    let short = pool.acquire(&id("short")).await.unwrap();
    let long = pool.acquire(&id("long")).await.unwrap();
    let draining = {
        let pool = pool.clone();
        tokio::spawn(async move { pool.drain(30 * SECOND).await })
    };
    assert_eq!(ended.await, EndReason::Drained);
    assert!(matches!(pool.acquire(&id("new")).await, Err(AcquireError::Draining)));
    assert!(matches!(pool.acquire(&id("long")).await, Err(AcquireError::Draining)));
    assert!(pool.get(&id("long")).is_none());
    sleep(10 * SECOND).await;
    assert_eq!((short.end_reason(), long.end_reason()), (None, None));
    drop(short);
    while session_ended(&mut events).await != (id("short"), EndReason::Drained) {}
    let began = Instant::now();
    assert_eq!(long.ended().await, EndReason::Shutdown);
    assert!(began.elapsed() >= 19 * SECOND && began.elapsed() < 21 * SECOND, "{:?}", began.elapsed());
    draining.await.unwrap();
    assert!(fake.running().is_empty());
    assert_eq!(pool.stats().workers, 0);
}

#[tokio::test(start_paused = true)]
async fn shutdown_closes_all_workers_in_parallel_and_gives_up_starts() {
    let fake = Fake::new();
    fake.set_close_time(5 * SECOND);
    let pool = fake.pool().max_workers(20).build().unwrap();
    let mut leases = Vec::new();
    for number in 0..10 {
        leases.push(pool.acquire(&id(number.to_string())).await.unwrap());
    }
    fake.spawn_gate().set(Behaviour::Never);
    let waiting = {
        let pool = pool.clone();
        tokio::spawn(async move { pool.acquire(&id("late")).await })
    };
    tokio::task::yield_now().await;
    assert_eq!(pool.stats().workers_starting, 1);
    let began = Instant::now();
    pool.shutdown().await;
    assert!(began.elapsed() < 6 * SECOND, "{:?}", began.elapsed());
    assert!(matches!(waiting.await.unwrap(), Err(AcquireError::ShutDown)));
    assert!(leases.iter().all(|lease| lease.end_reason() == Some(EndReason::Shutdown)));
    assert!(fake.running().is_empty());
    // Once more is at once.
    pool.shutdown().await;
    pool.drain(SECOND).await;
}

#[tokio::test(start_paused = true)]
async fn dropping_the_last_handle_shuts_the_pool_down() {
    let fake = Fake::new();
    let pool = fake.pool().spare(2).build().unwrap();
    let mut events = pool.subscribe();
    let lease = pool.acquire(&id("alice")).await.unwrap();
    spares(&pool, &mut events, 2).await;
    drop(pool.clone());
    sleep(SECOND).await;
    assert_eq!(lease.end_reason(), None);
    drop(pool);
    assert_eq!(lease.ended().await, EndReason::Shutdown);
    while events.next().await.is_ok() {}
    assert!(fake.running().is_empty());
}
