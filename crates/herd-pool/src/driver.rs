//! The task that tells the state of the passing of time.

use std::sync::Arc;

use tokio::time::timeout_at;

use crate::{WorkerFactory, shared::Shared, state::Input};

/// Sleeps until something is due, lets the state know, and so on until the pool has shut down.
pub(crate) async fn drive<F: WorkerFactory>(shared: Arc<Shared<F>>) {
    while !shared.inspect(|state| state.is_finished()) {
        match shared.next_deadline() {
            Some(due) if due <= shared.clock.now() => {
                shared.feed(Input::Tick);
                // More may be due; others get their turn in between.
                tokio::task::yield_now().await;
            }
            Some(due) => match shared.clock.instant(due) {
                // Being woken means that something is due earlier, or that the pool is finished.
                Some(instant) => drop(timeout_at(instant, shared.alarm.notified()).await),
                None => shared.alarm.notified().await,
            },
            None => shared.alarm.notified().await,
        }
    }
}
