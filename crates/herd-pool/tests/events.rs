//! What subscribers to a pool's events are told.

mod fake;

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use fake::{Fake, id};
use herd_pool::{EventKind, EventsError, WorkerId};

#[tokio::test(start_paused = true)]
async fn a_pool_that_is_built_with_events_tells_its_very_first_one() {
    let fake = Fake::new();
    let (pool, mut events) = fake.pool().min_workers(2).build_with_events().unwrap();
    let mut later = pool.subscribe();
    for number in 1..=2 {
        let event = events.next().await.unwrap();
        let EventKind::WorkerStarting { worker } = event.kind else { panic!("{event:?}") };
        assert_eq!((event.sequence, worker), (number, WorkerId::new(number)));
    }
    let after = events.next().await.unwrap();
    assert!(matches!(after.kind, EventKind::WorkerReady { .. }), "{after:?}");
    let first = later.next().await.unwrap();
    assert_eq!(first.sequence, after.sequence, "from now on");
}

#[tokio::test(start_paused = true)]
async fn the_event_callback_misses_nothing_of_a_burst_that_is_too_much_for_subscribers() {
    const SESSIONS: usize = 3000;
    let fake = Fake::new();
    let told: Arc<Mutex<Vec<(u64, &'static str)>>> = Arc::default();
    let writes = Arc::clone(&told);
    let builder = fake.pool().max_workers(SESSIONS).on_event(move |event| {
        writes.lock().unwrap().push((event.sequence, event.kind.name()));
        assert!(event.sequence % 1000 != 0, "what panics now and then is still told of the rest");
    });
    let pool = builder.build().unwrap();
    for number in 0..SESSIONS {
        drop(pool.acquire(&id(number.to_string())).await.unwrap());
    }
    let mut slow = pool.subscribe();
    pool.drain(Duration::from_secs(1)).await;
    let told = told.lock().unwrap().clone();
    // Each session: starting, ready, started, ended, gone; and the drain.
    assert!(told.iter().map(|(sequence, _)| *sequence).eq(1..=5 * SESSIONS as u64 + 1));
    assert_eq!(told.iter().filter(|(_, name)| *name == "session-ended").count(), SESSIONS);
    assert!(matches!(slow.next().await, Err(EventsError::Lagged { .. })), "it was no burst");
}
