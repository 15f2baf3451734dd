//! Callers that give up at any moment, at gates that do anything: nothing may be lost.
//!
//! Over a thousand pools, each with a spawn gate and a health gate that succeed, fail, take time or hang, and callers
//! whose patience ranges from nanoseconds to milliseconds. Afterwards the gates open, and the pool must hand out as
//! many sessions as it has workers allowed, with exactly that many workers running.

mod fake;

use std::time::Duration;

use fake::{Behaviour, Fake, id};
use tokio::{
    task::JoinSet,
    time::{sleep, timeout},
};

const MAX_WORKERS: usize = 3;

/// Gates that hang do so until the callers have gone.
const GATES: [Behaviour; 5] = [
    Behaviour::Ok,
    Behaviour::Error,
    Behaviour::Slow(Duration::from_nanos(100)),
    Behaviour::Slow(Duration::from_millis(2)),
    Behaviour::Never,
];

const PATIENCE: [Duration; 6] = [
    Duration::from_nanos(0),
    Duration::from_nanos(10),
    Duration::from_nanos(1_000),
    Duration::from_micros(999),
    Duration::from_millis(2),
    Duration::from_millis(5),
];

#[derive(Clone, Copy, Debug)]
struct Case {
    spawn: Behaviour,
    health: Behaviour,
    patience: Duration,
    spare: usize,
    reuse: bool,
    polls: usize,
}

#[tokio::test(start_paused = true)]
async fn callers_that_give_up_at_any_moment_lose_nothing() {
    let mut pools = 0;
    for spawn in GATES {
        for health in GATES {
            for patience in PATIENCE {
                for (spare, reuse) in [(0, false), (0, true), (2, false), (2, true)] {
                    for polls in [0, 1, 2] {
                        nothing_is_lost(Case { spawn, health, patience, spare, reuse, polls }).await;
                        pools += 1;
                    }
                }
            }
        }
    }
    assert!(pools > 1000, "{pools}");
}

async fn nothing_is_lost(case: Case) {
    let fake = Fake::new();
    let pool = fake.pool().max_workers(MAX_WORKERS).spare(case.spare).worker_reuse(case.reuse).build().unwrap();
    // Let spares be ready, so that callers meet the health gate too.
    sleep(Duration::from_millis(1)).await;
    fake.spawn_gate().set(case.spawn);
    fake.set_health(case.health);

    let mut callers = JoinSet::new();
    for number in 0..12_u32 {
        let pool = pool.clone();
        callers.spawn(async move {
            let session = id(format!("session-{}", number % 5));
            // Some are patient only up to a number of polls, which is before or right after they are in line.
            if number % 2 == 0 {
                give_up_after(case.polls, pool.acquire(&session)).await;
            } else {
                let lease = timeout(case.patience * (number + 1), pool.acquire(&session)).await;
                if let Ok(Ok(lease)) = lease {
                    sleep(case.patience).await;
                    drop(lease);
                }
            }
            if number % 3 == 0 {
                let _ = timeout(case.patience, pool.end(&session)).await;
            }
        });
    }
    while let Some(outcome) = callers.join_next().await {
        outcome.unwrap();
    }
    assert_eq!(pool.stats().waiting, 0, "{case:?}: a caller that gave up still waits");

    fake.spawn_gate().set(Behaviour::Ok);
    fake.set_health(Behaviour::Ok);
    for number in 0..5 {
        let _ = pool.end(&id(format!("session-{number}"))).await;
    }
    let mut leases = Vec::new();
    for number in 0..MAX_WORKERS {
        let lease = pool.acquire(&id(format!("after-{number}"))).await;
        leases.push(lease.unwrap_or_else(|error| panic!("{case:?}: capacity was lost: {error}")));
    }
    let mut workers: Vec<_> = leases.iter().map(|lease| lease.worker_id()).collect();
    workers.sort();
    assert_eq!(fake.running(), workers, "{case:?}: workers were lost");
    assert!(fake.peak() <= MAX_WORKERS, "{case:?}: {} workers ran at once", fake.peak());
    let stats = pool.stats();
    assert_eq!((stats.workers, stats.workers_in_session, stats.sessions), (MAX_WORKERS, MAX_WORKERS, MAX_WORKERS));
    assert!(
        leases.iter().all(|lease| pool.session(lease.session()).unwrap().leases == 1),
        "{case:?}: a lease was lost"
    );
    pool.shutdown().await;
    assert!(fake.running().is_empty(), "{case:?}: a worker was left behind");
}

/// Polls a future the given number of times and drops it.
async fn give_up_after<T>(polls: usize, future: impl Future<Output = T>) {
    let mut future = Box::pin(future);
    for _ in 0..polls {
        let ready =
            std::future::poll_fn(|context| std::task::Poll::Ready(future.as_mut().poll(context).is_ready())).await;
        if ready {
            return;
        }
        tokio::task::yield_now().await;
    }
}
