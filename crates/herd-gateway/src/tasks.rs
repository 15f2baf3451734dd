use std::{
    future::poll_fn,
    sync::{Mutex, MutexGuard, PoisonError},
    task::Poll,
};

use hyper::rt::Executor;
use tokio::task::JoinSet;

/// Owns tasks that outlive the request that started them. Dropping it cuts them.
#[derive(Debug, Default)]
pub(crate) struct Tasks(Mutex<JoinSet<()>>);

impl Tasks {
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut tasks = self.lock();
        // Whoever adds a task clears away some that are done, so that they do not pile up.
        while tasks.try_join_next().is_some() {}
        tasks.spawn(task);
    }

    /// Waits until all are done.
    pub(crate) async fn finished(&self) {
        poll_fn(|cx| {
            loop {
                match self.lock().poll_join_next(cx) {
                    Poll::Ready(Some(_)) => {}
                    Poll::Ready(None) => return Poll::Ready(()),
                    Poll::Pending => return Poll::Pending,
                }
            }
        })
        .await;
    }

    fn lock(&self) -> MutexGuard<'_, JoinSet<()>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Runs the parts of an HTTP/2 connection as tasks that are cut with it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Streams(std::sync::Arc<Tasks>);

impl<T: Future<Output = ()> + Send + 'static> Executor<T> for Streams {
    fn execute(&self, task: T) {
        self.0.spawn(task);
    }
}
