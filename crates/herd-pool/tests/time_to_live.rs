//! A session ends within 1 % of its time to live, measured from its last lease, under a paused clock.

mod fake;

use std::time::{Duration, SystemTime};

use fake::{Fake, id, session_ended};
use herd_pool::{EndReason, IdleBy};
use tokio::time::{Instant, sleep};

#[tokio::test(start_paused = true)]
async fn a_session_ends_within_one_percent_of_its_ttl() {
    for ttl in
        [Duration::from_millis(500), Duration::from_secs(5), Duration::from_secs(300), Duration::from_secs(86_400)]
    {
        let fake = Fake::new();
        let pool = fake.pool().ttl(ttl).build().unwrap();
        let mut events = pool.subscribe();
        // Touched never again, once, and again and again; by short leases, and by ones longer than the ttl.
        for (touches, held) in [(0, ttl / 3), (1, ttl / 7), (25, ttl / 3), (3, ttl * 5 / 2)] {
            let session = id("alice");
            let mut lease = pool.acquire(&session).await.unwrap();
            assert!(lease.is_new());
            for _ in 0..touches {
                sleep(held).await;
                drop(lease);
                sleep(ttl * 9 / 10).await;
                lease = pool.acquire(&session).await.unwrap();
                assert!(!lease.is_new(), "the session ended early");
            }
            drop(lease);
            let last = Instant::now();
            assert_eq!(session_ended(&mut events).await, (session, EndReason::Idle));
            let lived = last.elapsed();
            assert!(
                lived >= ttl && lived <= ttl + ttl / 100,
                "lived for {lived:?} of {ttl:?}, touched {touches} times"
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn thousands_of_sessions_end_each_on_its_own_time() {
    let ttl = Duration::from_secs(10);
    let fake = Fake::new();
    let pool = fake.pool().ttl(ttl).max_workers(3000).build().unwrap();
    let mut dropped = Vec::new();
    for number in 0..3000_usize {
        drop(pool.acquire(&id(number.to_string())).await.unwrap());
        dropped.push(Instant::now());
        if number % 3 == 0 {
            sleep(Duration::from_millis(1)).await;
        }
    }
    // The subscription begins after the sessions, whose events are more than it could hold.
    let mut events = pool.subscribe();
    for _ in 0..3000 {
        let (session, reason) = session_ended(&mut events).await;
        let lived = dropped[session.as_str().parse::<usize>().unwrap()].elapsed();
        assert_eq!(reason, EndReason::Idle);
        assert!(lived >= ttl && lived <= ttl + ttl / 100, "lived for {lived:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_session_tells_when_it_ends_unless_a_lease_keeps_it() {
    const TTL: Duration = Duration::from_secs(60);
    let around = |at: Option<SystemTime>, wanted: Duration| {
        let left = at.unwrap().duration_since(SystemTime::now()).unwrap();
        assert!(left <= wanted && wanted - left < Duration::from_secs(5), "{left:?}, not {wanted:?}");
    };
    for idle_by in [IdleBy::Lease, IdleBy::Bytes] {
        let fake = Fake::new();
        let pool = fake.pool().ttl(TTL).max_lifetime(TTL * 10).idle_by(idle_by).build().unwrap();
        let session = id("alice");
        let lease = pool.acquire(&session).await.unwrap();
        let info = pool.session(&session).unwrap();
        around(info.ends_by, TTL * 10);
        match idle_by {
            IdleBy::Lease => assert_eq!(info.idle_until, None),
            IdleBy::Bytes => around(info.idle_until, TTL),
        }
        drop(lease);
        sleep(TTL / 2).await;
        let info = pool.session(&session).unwrap();
        around(info.idle_until, TTL / 2);
        around(info.ends_by, TTL * 10 - TTL / 2);
    }
    // Nobody can say when a session ends that outlives all clocks.
    let fake = Fake::new();
    let pool = fake.pool().ttl(Duration::MAX).build().unwrap();
    drop(pool.acquire(&id("alice")).await.unwrap());
    let info = pool.session(&id("alice")).unwrap();
    assert_eq!((info.idle_until, info.ends_by), (None, None));
}
