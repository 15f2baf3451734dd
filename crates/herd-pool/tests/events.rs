//! What subscribers to a pool's events are told.

mod fake;

use fake::Fake;
use herd_pool::{EventKind, WorkerId};

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
