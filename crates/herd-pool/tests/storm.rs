//! Real threads and real time: callers, ends, kills and crashes all at once, against the pool as it is shipped.

mod fake;

use std::time::Duration;

use fake::{Behaviour, Fake, id};
use herd_pool::{AcquireError, EndReason, ExitStatus, IdleBy, WhenFull};
use tokio::{task::JoinSet, time::sleep};

const MAX_WORKERS: usize = 4;
const CALLERS: u64 = 16;
const ROUNDS: u64 = 300;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_storm_from_many_threads_leaves_nothing_behind() {
    for (reuse, when_full, idle_by) in [
        (false, WhenFull::Wait, IdleBy::Lease),
        (true, WhenFull::Wait, IdleBy::Bytes),
        (false, WhenFull::EvictIdle, IdleBy::Lease),
        (true, WhenFull::EvictIdle, IdleBy::Bytes),
    ] {
        storm(reuse, when_full, idle_by).await;
    }
}

async fn storm(reuse: bool, when_full: WhenFull, idle_by: IdleBy) {
    let fake = Fake::new();
    fake.spawn_gate().set(Behaviour::Slow(Duration::from_micros(200)));
    let pool = fake
        .pool()
        .spare(1)
        .max_workers(MAX_WORKERS)
        .ttl(Duration::from_millis(3))
        .health_interval(Duration::from_millis(2))
        .worker_reuse(reuse)
        .when_full(when_full)
        .idle_by(idle_by)
        .build()
        .unwrap();
    let mut callers = JoinSet::new();
    for caller in 0..CALLERS {
        let (pool, fake) = (pool.clone(), fake.clone());
        callers.spawn(async move {
            let mut random = caller.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
            for _ in 0..ROUNDS {
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                let session = id(format!("session-{}", random % 7));
                match random >> 8 & 15 {
                    0 => drop(pool.end(&session).await),
                    1 => drop(pool.kill(&session).await),
                    2 => drop(
                        tokio::time::timeout(Duration::from_micros(random >> 16 & 511), pool.acquire(&session)).await,
                    ),
                    kind => match pool.acquire(&session).await {
                        Ok(lease) => {
                            assert_eq!(lease.session(), &session);
                            lease.record_bytes(1, 1);
                            if kind == 3 {
                                // It may have ended meanwhile, and its worker be gone.
                                if let Some(control) = fake.find(lease.worker_id()) {
                                    control.exit(ExitStatus::Code(1));
                                }
                            }
                            if kind == 4 {
                                sleep(Duration::from_millis(1)).await;
                            }
                        }
                        Err(AcquireError::Ended(EndReason::Released | EndReason::Killed)) => {}
                        Err(error) => panic!("{error}"),
                    },
                }
            }
        });
    }
    while let Some(outcome) = callers.join_next().await {
        outcome.unwrap();
    }
    assert!(fake.peak() <= MAX_WORKERS, "{} workers ran at once", fake.peak());
    assert_eq!(pool.stats().waiting, 0);

    // No capacity was lost.
    let mut leases = Vec::new();
    for number in 0..MAX_WORKERS {
        leases.push(pool.acquire(&id(format!("after-{number}"))).await.unwrap());
    }
    drop(leases);
    pool.shutdown().await;
    let stats = pool.stats();
    assert_eq!(stats.sessions_started, stats.sessions_ended.total());
    assert_eq!((stats.workers, stats.sessions), (0, 0));
    assert!(fake.running().is_empty(), "a worker was left behind");
}
