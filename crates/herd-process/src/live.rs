//! How many processes a factory has, and whether it may start more.

use std::sync::Arc;

use tokio::sync::watch;

/// Counts the processes that a factory has started, or is about to, and of which something is left.
#[derive(Clone, Debug)]
pub(crate) struct Live(Arc<watch::Sender<Count>>);

#[derive(Clone, Copy, Debug, Default)]
struct Count {
    processes: usize,
    closed: bool,
}

impl Live {
    pub(crate) fn new() -> Self {
        Self(Arc::new(watch::Sender::new(Count::default())))
    }

    /// Counts one more until the guard is dropped; `None` once it is closed.
    pub(crate) fn enter(&self) -> Option<LiveGuard> {
        let mut guard = None;
        self.0.send_if_modified(|count| {
            if !count.closed {
                count.processes += 1;
                guard = Some(LiveGuard(self.clone()));
            }
            !count.closed
        });
        guard
    }

    /// Lets nobody enter any more.
    pub(crate) fn close(&self) {
        self.0.send_modify(|count| count.closed = true);
    }

    pub(crate) async fn none_left(&self) {
        // The sender is alive as long as `self` is.
        let _ = self.0.subscribe().wait_for(|count| count.processes == 0).await;
    }
}

#[derive(Debug)]
pub(crate) struct LiveGuard(Live);

impl Drop for LiveGuard {
    fn drop(&mut self) {
        self.0.0.send_modify(|count| count.processes -= 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn nobody_enters_once_it_is_closed_and_none_is_left_when_the_last_is_gone() {
        let live = Live::new();
        let first = live.enter().expect("it is open");
        live.close();
        assert!(live.enter().is_none());
        let mut waiting = Box::pin(live.none_left());
        assert!(tokio::time::timeout(std::time::Duration::ZERO, &mut waiting).await.is_err());
        drop(first);
        waiting.await;
    }
}
