//! More events at once than anybody reads in time, from a pool over workers that are nothing.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use herd_pool::{HealthError, Pool, SessionId, Worker, WorkerFactory};

use super::*;
use crate::{
    config::settings::Webhook,
    webhooks::{Prepared, Webhooks},
};

const SESSIONS: usize = 3000;

struct Nothing(WorkerId);

struct MakesNothing;

impl WorkerFactory for MakesNothing {
    type Worker = Nothing;

    async fn spawn(&self, id: WorkerId) -> Result<Nothing, SpawnError> {
        Ok(Nothing(id))
    }
}

impl Worker for Nothing {
    type Client = ();

    fn id(&self) -> WorkerId {
        self.0
    }

    fn address(&self) -> &str {
        "nowhere"
    }

    fn client(&self) -> &() {
        &()
    }

    async fn healthy(&self) -> Result<(), HealthError> {
        Ok(())
    }

    fn exited(&self) -> impl Future<Output = Exit> + Send + 'static {
        std::future::pending()
    }

    async fn close(&self) {}

    async fn kill(&self) {}
}

#[tokio::test]
async fn of_a_burst_webhooks_get_everything_and_followers_are_told_what_they_missed() {
    let journal = Journal::new();
    let hour = Duration::from_secs(3600);
    let webhook = Webhook {
        url: "http://127.0.0.1:9/nobody-listens".to_owned(),
        secret_file: None,
        events: Vec::new(),
        timeout: hour,
        max_queue: 100_000,
        give_up_after: hour,
    };
    let webhooks = Webhooks::start(&journal, Prepared::new(&[webhook]).unwrap());
    let heard = Arc::new(AtomicU64::new(0));
    let hears = Arc::clone(&heard);
    journal.listen(move |event| {
        // As long as each is the one after the last.
        let _ = hears.compare_exchange(event.sequence - 1, event.sequence, Ordering::SeqCst, Ordering::SeqCst);
    });
    let mut slow = journal.follow(None);

    let (records, name) = (journal.clone(), Arc::<str>::from("default"));
    let builder = Pool::builder(MakesNothing).min_workers(0).spare(0).max_workers(SESSIONS);
    let pool = builder.on_event(move |event| records.record(&name, event)).build().unwrap();
    for number in 0..SESSIONS {
        drop(pool.acquire(&SessionId::new(number.to_string()).unwrap()).await.unwrap());
    }
    pool.drain(Duration::from_secs(10)).await;

    // Each session: starting, ready, started, ended, gone; and the drain.
    let all = 5 * SESSIONS as u64 + 1;
    assert_eq!(heard.load(Ordering::SeqCst), all);
    let counts = webhooks.counts()[0];
    assert_eq!((counts.waiting as u64, counts.dropped), (all, 0), "{counts:?}");
    let Some(Entry::Missed(missed)) = slow.next().await else { panic!("it was no burst") };
    let mut read = 0;
    while missed + read < all {
        let Some(Entry::Event(event)) = slow.next().await else { panic!("more is missed") };
        read += 1;
        assert_eq!(event.sequence, missed + read);
    }
    assert_eq!(read, BACKLOG as u64);
    assert_eq!(journal.exits().closed, SESSIONS as u64);
    let record = journal.lock();
    assert!(record.ready.is_empty() && record.crashed.is_empty());
}
