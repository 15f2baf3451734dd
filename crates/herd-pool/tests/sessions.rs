//! What sessions are promised, over fake workers and a paused clock.

mod fake;

use std::time::Duration;

use fake::{Behaviour, Fake, id, session_ended};
use herd_pool::{AcquireError, EndReason, ExitStatus, NoSuchSession};
use tokio::time::{Instant, sleep};

const MS: Duration = Duration::from_millis(1);

#[tokio::test(start_paused = true)]
async fn five_hundred_acquires_of_one_new_session_spawn_one_worker() {
    let fake = Fake::new();
    fake.spawn_gate().set(Behaviour::Slow(5 * MS));
    let pool = fake.pool().build().unwrap();
    let callers: Vec<_> = (0..500)
        .map(|_| {
            let pool = pool.clone();
            tokio::spawn(async move { pool.acquire(&id("alice")).await.unwrap() })
        })
        .collect();
    let mut new = 0;
    let mut leases = Vec::new();
    for caller in callers {
        let lease = caller.await.unwrap();
        new += usize::from(lease.is_new());
        leases.push(lease);
    }
    assert_eq!(fake.spawns(), 1);
    assert_eq!(new, 1);
    assert!(leases.iter().all(|lease| lease.worker_id() == leases[0].worker_id()));
    assert_eq!(pool.session(&id("alice")).unwrap().leases, 500);
}

#[tokio::test(start_paused = true)]
async fn a_session_keeps_its_worker_until_it_ends() {
    let fake = Fake::new();
    let pool = fake.pool().build().unwrap();
    let first = pool.acquire(&id("alice")).await.unwrap();
    let other = pool.acquire(&id("bob")).await.unwrap();
    assert!(first.is_new() && other.is_new());
    assert_ne!(first.worker_id(), other.worker_id());
    let again = pool.acquire(&id("alice")).await.unwrap();
    assert!(!again.is_new());
    assert_eq!(first.worker_id(), again.worker_id());
    assert_eq!(pool.get(&id("alice")).unwrap().worker_id(), first.worker_id());
    assert!(pool.get(&id("carol")).is_none());

    let ended = first.ended();
    assert_eq!(first.end_reason(), None);
    assert_eq!(pool.end(&id("alice")).await, Ok(EndReason::Released));
    assert_eq!(ended.await, EndReason::Released);
    assert_eq!(first.end_reason(), Some(EndReason::Released));
    assert_eq!(pool.end(&id("alice")).await, Err(NoSuchSession));
    let next = pool.acquire(&id("alice")).await.unwrap();
    assert!(next.is_new());
    assert_ne!(first.worker_id(), next.worker_id());
}

#[tokio::test(start_paused = true)]
async fn crash_while_leased_ends_the_session() {
    let fake = Fake::new();
    let (report, crashes) = std::sync::mpsc::channel();
    let pool = fake.pool().on_crash(move |crash| report.send(crash.clone()).unwrap()).build().unwrap();
    let lease = pool.acquire(&id("alice")).await.unwrap();
    fake.control(lease.worker_id()).exit(ExitStatus::Signal(9));
    assert_eq!(lease.ended().await, EndReason::Crashed(ExitStatus::Signal(9)));
    let next = pool.acquire(&id("alice")).await.unwrap();
    assert!(next.is_new());
    assert_ne!(next.worker_id(), lease.worker_id());
    let crash = crashes.try_recv().unwrap();
    assert_eq!((crash.session, crash.worker), (Some(id("alice")), lease.worker_id()));
    assert_eq!(crash.exit.status, ExitStatus::Signal(9));
    assert_eq!(pool.stats().worker_exits, 1);
}

#[tokio::test(start_paused = true)]
async fn an_idle_session_ends_on_time_and_a_leased_one_does_not() {
    let fake = Fake::new();
    let pool = fake.pool().ttl(Duration::from_secs(60)).build().unwrap();
    let mut events = pool.subscribe();
    let lease = pool.acquire(&id("alice")).await.unwrap();
    sleep(Duration::from_secs(300)).await;
    assert_eq!(lease.end_reason(), None);
    drop(lease);
    let dropped = Instant::now();
    assert_eq!(session_ended(&mut events).await, (id("alice"), EndReason::Idle));
    let lived = dropped.elapsed();
    assert!(lived >= Duration::from_secs(60) && lived < Duration::from_millis(60_600), "{lived:?}");
}

#[tokio::test(start_paused = true)]
async fn shutdown_ends_everything() {
    let fake = Fake::new();
    let pool = fake.pool().spare(3).build().unwrap();
    let lease = pool.acquire(&id("alice")).await.unwrap();
    pool.shutdown().await;
    assert_eq!(lease.end_reason(), Some(EndReason::Shutdown));
    assert!(fake.running().is_empty());
    assert!(matches!(pool.acquire(&id("alice")).await, Err(AcquireError::ShutDown)));
}
