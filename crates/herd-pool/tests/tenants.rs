//! What tenants may have, and how they share what there is, over fake workers and a paused clock.

mod fake;

use std::time::Duration;

use fake::{Behaviour, Fake, id, next_event, session_ended};
use herd_pool::{
    AcquireError, EndReason, EventKind, ExitStatus, Pool, SessionId, Tenant, TenantLimits, WhenFull, WorkerIds,
};
use tokio::{
    sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
    task::JoinHandle,
    time::{sleep, timeout},
};

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

fn tenant(name: &str) -> Tenant {
    Tenant::new(name, TenantLimits::default()).unwrap()
}

fn limited(name: &str, max_sessions: impl Into<Option<usize>>, max_waiting: impl Into<Option<usize>>) -> Tenant {
    let limits = TenantLimits { max_sessions: max_sessions.into(), max_waiting: max_waiting.into() };
    Tenant::new(name, limits).unwrap()
}

fn of(tenant: &Tenant, text: impl AsRef<[u8]>) -> SessionId {
    id(text).of(tenant)
}

type Answer = Result<(), AcquireError>;

/// Waits for a session, notes who got it, and ends it right away.
fn queue_up(pool: &Pool<Fake>, session: SessionId, served: &UnboundedSender<String>) -> JoinHandle<Answer> {
    let (pool, served) = (pool.clone(), served.clone());
    tokio::spawn(async move {
        let lease = pool.acquire(&session).await?;
        let whose = session.tenant().map_or("-", Tenant::name);
        served.send(format!("{whose}:{session}")).unwrap();
        drop(lease);
        pool.end(&session).await.unwrap();
        Ok(())
    })
}

/// Lets callers that were started take their places.
async fn all_wait(pool: &Pool<Fake>, callers: usize) {
    while pool.stats().waiting < callers {
        tokio::task::yield_now().await;
    }
}

async fn served(order: &mut UnboundedReceiver<String>, number: usize) -> Vec<String> {
    let mut names = Vec::new();
    while names.len() < number {
        names.push(order.recv().await.unwrap());
    }
    names
}

#[tokio::test(start_paused = true)]
async fn workers_go_round_the_tenants_that_wait_and_within_one_the_first_is_the_first() {
    let fake = Fake::new();
    let pool = fake.pool().max_workers(1).build().unwrap();
    let (many, few) = (tenant("many"), tenant("few"));
    let _first = pool.acquire(&id("first")).await.unwrap();
    let (sender, mut order) = unbounded_channel();
    for (callers, session) in
        [of(&many, "1"), of(&many, "2"), of(&many, "3"), of(&few, "1"), id("1"), of(&few, "2"), of(&many, "4"), id("2")]
            .into_iter()
            .enumerate()
    {
        queue_up(&pool, session, &sender);
        all_wait(&pool, callers + 1).await;
    }
    pool.end(&id("first")).await.unwrap();
    assert_eq!(served(&mut order, 8).await, ["many:1", "few:1", "-:1", "many:2", "few:2", "-:2", "many:3", "many:4"]);
}

#[tokio::test(start_paused = true)]
async fn a_thousand_waiting_callers_of_one_tenant_delay_the_first_of_another_by_one_worker() {
    let fake = Fake::new();
    let pool = fake.pool().max_workers(1).max_waiting(2000).acquire_timeout(3600 * SECOND).build().unwrap();
    let (crowd, lonely) = (tenant("crowd"), tenant("lonely"));
    let _first = pool.acquire(&id("first")).await.unwrap();
    let (sender, mut order) = unbounded_channel();
    for number in 0..1000 {
        queue_up(&pool, of(&crowd, number.to_string()), &sender);
    }
    all_wait(&pool, 1000).await;
    pool.end(&id("first")).await.unwrap();
    served(&mut order, 10).await;
    // It comes while the others are being served, one after the other.
    let waiting = pool.stats().waiting;
    queue_up(&pool, of(&lonely, "me"), &sender);
    let before = served(&mut order, 4).await;
    let place = before.iter().position(|name| name == "lonely:me").unwrap_or_else(|| panic!("{waiting}: {before:?}"));
    // One may have been under way to its worker already when it came; only one more is ahead.
    assert!(place <= 2, "{before:?}");
}

#[tokio::test(start_paused = true)]
async fn a_tenant_that_floods_a_full_queue_makes_room_for_others_until_shares_are_equal() {
    let fake = Fake::new();
    let pool = fake.pool().max_workers(1).max_waiting(4).build().unwrap();
    let (flood, late) = (tenant("flood"), tenant("late"));
    let _first = pool.acquire(&id("first")).await.unwrap();
    let (sender, _order) = unbounded_channel();
    let mut flooding = Vec::new();
    for number in 0..4 {
        flooding.push(queue_up(&pool, of(&flood, number.to_string()), &sender));
        all_wait(&pool, number + 1).await;
    }
    let refused = |answer: &Answer| matches!(answer, Err(AcquireError::QueueFull { max_waiting: 4 }));
    assert!(refused(&pool.acquire(&of(&flood, "one-more")).await.map(drop)), "it has most itself");

    for number in 0..2 {
        let waits = queue_up(&pool, of(&late, number.to_string()), &sender);
        let newest = flooding.pop().unwrap();
        assert!(refused(&newest.await.unwrap()));
        assert!(!waits.is_finished());
        assert_eq!((flood.waiting(), late.waiting(), pool.stats().waiting), (3 - number, number + 1, 4));
    }
    // Two and two: nobody has more than the other by more than would be unfair the other way.
    for session in [of(&late, "one-more"), of(&flood, "one-more")] {
        assert!(refused(&pool.acquire(&session).await.map(drop)));
    }
    assert!(flooding.iter().all(|caller| !caller.is_finished()), "those who came first stay");
    pool.shutdown().await;
    assert_eq!((flood.waiting(), late.waiting()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn who_waits_with_a_fair_share_of_a_full_queue_is_not_pushed_out_by_others() {
    let fake = Fake::new();
    let pool = fake.pool().max_workers(1).max_waiting(3).build().unwrap();
    let (one, two) = (tenant("one"), tenant("two"));
    let _first = pool.acquire(&id("first")).await.unwrap();
    let (sender, mut order) = unbounded_channel();
    for (callers, session) in [of(&one, "a"), of(&one, "b"), of(&two, "a")].into_iter().enumerate() {
        queue_up(&pool, session, &sender);
        all_wait(&pool, callers + 1).await;
    }
    // To let it in would only turn the shares round, and back with the next caller: nobody would ever be served.
    for session in [of(&two, "b"), of(&one, "c")] {
        let beyond = pool.acquire(&session).await;
        assert!(matches!(beyond, Err(AcquireError::QueueFull { max_waiting: 3 })), "{beyond:?}");
    }
    pool.end(&id("first")).await.unwrap();
    assert_eq!(served(&mut order, 3).await, ["one:a", "two:a", "one:b"]);
}

#[tokio::test(start_paused = true)]
async fn a_session_beyond_the_tenants_limit_is_refused_at_once_and_room_for_another_comes_with_the_workers_end() {
    let fake = Fake::new();
    let pool = fake.pool().build().unwrap();
    let acme = limited("acme", 2, None);
    let a = pool.acquire(&of(&acme, "a")).await.unwrap();
    pool.acquire(&of(&acme, "b")).await.unwrap();
    let beyond = pool.acquire(&of(&acme, "c")).await;
    assert!(matches!(beyond, Err(AcquireError::TenantSessions { max_sessions: 2 })), "{beyond:?}");
    assert_eq!(acme.sessions(), 2);
    // What exists can be had, and others have limits of their own.
    pool.acquire(&of(&acme, "a")).await.unwrap();
    pool.acquire(&of(&tenant("other"), "c")).await.unwrap();
    pool.acquire(&id("c")).await.unwrap();

    // Until its worker is gone, a session counts.
    fake.set_close_time(SECOND);
    let ending = tokio::spawn({
        let (pool, session) = (pool.clone(), of(&acme, "a"));
        async move { pool.end(&session).await }
    });
    assert_eq!(a.ended().await, EndReason::Released);
    assert_eq!(acme.sessions(), 2);
    assert!(matches!(pool.acquire(&of(&acme, "c")).await, Err(AcquireError::TenantSessions { .. })));
    // It may start anew meanwhile: it is the same session.
    let again = tokio::spawn({
        let (pool, session) = (pool.clone(), of(&acme, "a"));
        async move { pool.acquire(&session).await.map(drop) }
    });
    all_wait(&pool, 1).await;
    assert_eq!(acme.sessions(), 2);
    ending.await.unwrap().unwrap();
    again.await.unwrap().unwrap();
    assert_eq!(acme.sessions(), 2);
    pool.kill(&of(&acme, "a")).await.unwrap();
    assert_eq!(acme.sessions(), 1);
    pool.acquire(&of(&acme, "c")).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn limits_that_shrink_leave_what_there_is_and_count_for_what_comes() {
    let fake = Fake::new();
    let pool = fake.pool().build().unwrap();
    let acme = tenant("acme");
    for session in ["a", "b", "c"] {
        pool.acquire(&of(&acme, session)).await.unwrap();
    }
    acme.limit(TenantLimits { max_sessions: Some(1), max_waiting: None });
    pool.acquire(&of(&acme, "a")).await.unwrap();
    for (ended, left) in [("a", 2), ("b", 1)] {
        assert!(matches!(pool.acquire(&of(&acme, "d")).await, Err(AcquireError::TenantSessions { max_sessions: 1 })));
        pool.end(&of(&acme, ended)).await.unwrap();
        assert_eq!(acme.sessions(), left);
    }
    pool.end(&of(&acme, "c")).await.unwrap();
    pool.acquire(&of(&acme, "d")).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn callers_beyond_the_tenants_limit_are_refused_and_take_no_session_with_them() {
    let fake = Fake::new();
    let pool = fake.pool().max_workers(1).build().unwrap();
    let acme = limited("acme", None, 2);
    let _first = pool.acquire(&id("first")).await.unwrap();
    let (sender, mut order) = unbounded_channel();
    for (number, session) in ["a", "b"].into_iter().enumerate() {
        queue_up(&pool, of(&acme, session), &sender);
        all_wait(&pool, number + 1).await;
    }
    for session in ["a", "c"] {
        let beyond = pool.acquire(&of(&acme, session)).await;
        assert!(matches!(beyond, Err(AcquireError::TenantWaiting { max_waiting: 2 })), "{beyond:?}");
    }
    assert_eq!((acme.waiting(), acme.sessions()), (2, 2));
    queue_up(&pool, id("other"), &sender);
    pool.end(&id("first")).await.unwrap();
    served(&mut order, 3).await;
    assert_eq!((acme.waiting(), pool.stats().waiting), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn two_pools_with_one_tenant_share_its_limits() {
    let fake = Fake::new();
    let ids = WorkerIds::new();
    let pool = || fake.pool().worker_ids(ids.clone()).build().unwrap();
    let (one, two) = (pool(), pool());
    let acme = limited("acme", 3, None);
    one.acquire(&of(&acme, "a")).await.unwrap();
    two.acquire(&of(&acme, "a")).await.unwrap();
    one.acquire(&of(&acme, "b")).await.unwrap();
    for pool in [&one, &two] {
        let beyond = pool.acquire(&of(&acme, "c")).await;
        assert!(matches!(beyond, Err(AcquireError::TenantSessions { max_sessions: 3 })), "{beyond:?}");
    }
    one.end(&of(&acme, "b")).await.unwrap();
    two.acquire(&of(&acme, "c")).await.unwrap();
    assert_eq!(acme.sessions(), 3);
    // Of a pool that is gone nothing counts any more.
    two.shutdown().await;
    assert_eq!(acme.sessions(), 1);
    drop(one);
    while acme.sessions() > 0 {
        sleep(MS).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_pools_that_race_for_one_tenants_sessions_never_exceed_the_limit_and_use_it_up() {
    let fake = Fake::new();
    let ids = WorkerIds::new();
    let pools = [0, 1].map(|_| fake.pool().max_workers(64).worker_ids(ids.clone()).build().unwrap());
    let acme = limited("acme", 7, None);
    for round in 0..50 {
        let callers = (0..32).map(|number| {
            let (pool, session) = (pools[number % 2].clone(), of(&acme, format!("{round}-{number}")));
            tokio::spawn(async move { pool.acquire(&session).await.map(|_| session) })
        });
        let mut got = Vec::new();
        for caller in callers.collect::<Vec<_>>() {
            match caller.await.unwrap() {
                Ok(session) => got.push(session),
                Err(error) => assert!(matches!(error, AcquireError::TenantSessions { max_sessions: 7 }), "{error}"),
            }
        }
        assert_eq!((got.len(), acme.sessions()), (7, 7));
        for session in got {
            for pool in &pools {
                // It is in one of the two.
                let _ = pool.kill(&session).await;
            }
        }
        assert_eq!((acme.sessions(), acme.waiting()), (0, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn counts_come_back_to_zero_however_a_session_ends_or_never_begins() {
    let fake = Fake::new();
    let acme = limited("acme", 4, 4);
    let session = of(&acme, "a");
    let pool = fake.pool().acquire_timeout(SECOND).ttl(SECOND).build().unwrap();
    let mut events = pool.subscribe();
    // A start that fails.
    fake.spawn_gate().set(Behaviour::Error);
    assert!(matches!(pool.acquire(&session).await, Err(AcquireError::Spawn(_))));
    assert_eq!((acme.sessions(), acme.waiting()), (0, 0));
    // A caller that gives up, and one that waits for too long.
    fake.spawn_gate().set(Behaviour::Never);
    assert!(timeout(100 * MS, pool.acquire(&session)).await.is_err());
    assert_eq!((acme.sessions(), acme.waiting()), (0, 0));
    assert!(matches!(pool.acquire(&session).await, Err(AcquireError::TimedOut { .. })));
    assert_eq!((acme.sessions(), acme.waiting()), (0, 0));
    fake.spawn_gate().set(Behaviour::Ok);
    // A crash, being idle, being killed.
    let crashing = pool.acquire(&session).await.unwrap();
    fake.control(crashing.worker_id()).exit(ExitStatus::Code(1));
    next_event(&mut events, |kind| matches!(kind, EventKind::SessionEnded { .. }).then_some(())).await;
    next_event(&mut events, |kind| matches!(kind, EventKind::WorkerGone { .. }).then_some(())).await;
    assert_eq!((acme.sessions(), acme.waiting()), (0, 0));
    drop(pool.acquire(&session).await.unwrap());
    assert_eq!(session_ended(&mut events).await, (session.clone(), EndReason::Idle));
    next_event(&mut events, |kind| matches!(kind, EventKind::WorkerGone { .. }).then_some(())).await;
    assert_eq!((acme.sessions(), acme.waiting()), (0, 0));
    let killed = pool.acquire(&session).await.unwrap();
    assert_eq!((acme.sessions(), acme.waiting()), (1, 0));
    pool.kill(&session).await.unwrap();
    assert_eq!((acme.sessions(), acme.waiting()), (0, 0));
    // A pool that drains while one session is live and a caller waits for another.
    let lease = pool.acquire(&session).await.unwrap();
    fake.spawn_gate().set(Behaviour::Never);
    let waiting = tokio::spawn({
        let (pool, session) = (pool.clone(), of(&acme, "b"));
        async move { pool.acquire(&session).await.map(drop) }
    });
    all_wait(&pool, 1).await;
    assert_eq!((acme.sessions(), acme.waiting()), (2, 1));
    drop((killed, lease));
    pool.drain(SECOND).await;
    assert!(matches!(waiting.await.unwrap(), Err(AcquireError::Draining)));
    assert_eq!((acme.sessions(), acme.waiting()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn the_tenant_with_most_sessions_makes_room_and_never_one_with_as_few_as_the_newcomer() {
    let fake = Fake::new();
    let pool = fake.pool().max_workers(4).when_full(WhenFull::EvictIdle).acquire_timeout(SECOND).build().unwrap();
    let mut events = pool.subscribe();
    let (rich, poor, new) = (tenant("rich"), tenant("poor"), tenant("new"));
    // The session of the poor one is idle for longest.
    drop(pool.acquire(&of(&poor, "p")).await.unwrap());
    for session in ["1", "2", "3"] {
        sleep(MS).await;
        drop(pool.acquire(&of(&rich, session)).await.unwrap());
    }
    sleep(MS).await;
    drop(pool.acquire(&of(&new, "n")).await.unwrap());
    assert_eq!(session_ended(&mut events).await, (of(&rich, "1"), EndReason::Evicted));
    // The rich one gets nothing from others but makes room by a session of its own.
    sleep(MS).await;
    drop(pool.acquire(&of(&rich, "4")).await.unwrap());
    assert_eq!(session_ended(&mut events).await, (of(&rich, "2"), EndReason::Evicted));
    // Those who wait are content with what is theirs if all of the others' is in use.
    let leases = [pool.acquire(&of(&rich, "3")).await.unwrap(), pool.acquire(&of(&rich, "4")).await.unwrap()];
    drop(pool.acquire(&of(&poor, "q")).await.unwrap());
    assert_eq!(session_ended(&mut events).await, (of(&poor, "p"), EndReason::Evicted));
    drop(leases);
}

#[tokio::test(start_paused = true)]
async fn a_tenant_that_uses_all_of_its_sessions_pushes_out_nobody_elses() {
    let fake = Fake::new();
    let pool = fake.pool().max_workers(4).when_full(WhenFull::EvictIdle).acquire_timeout(SECOND).build().unwrap();
    let mut events = pool.subscribe();
    let (greedy, quiet, late) = (tenant("greedy"), tenant("quiet"), tenant("late"));
    drop(pool.acquire(&of(&quiet, "a")).await.unwrap());
    drop(pool.acquire(&of(&quiet, "b")).await.unwrap());
    let _one = pool.acquire(&of(&greedy, "1")).await.unwrap();
    let _two = pool.acquire(&of(&greedy, "2")).await.unwrap();
    assert!(matches!(pool.acquire(&of(&greedy, "3")).await, Err(AcquireError::TimedOut { .. })));
    assert_eq!(quiet.sessions(), 2, "they were as many as the other's");
    // While it waits, somebody with less gets what it cannot have.
    let greedy_waits = tokio::spawn({
        let (pool, session) = (pool.clone(), of(&greedy, "3"));
        async move { pool.acquire(&session).await.map(drop) }
    });
    all_wait(&pool, 1).await;
    drop(pool.acquire(&of(&late, "me")).await.unwrap());
    assert_eq!(session_ended(&mut events).await, (of(&quiet, "a"), EndReason::Evicted));
    assert!(matches!(greedy_waits.await.unwrap(), Err(AcquireError::TimedOut { .. })));
    assert_eq!((greedy.sessions(), quiet.sessions(), late.sessions()), (2, 1, 1));
}
