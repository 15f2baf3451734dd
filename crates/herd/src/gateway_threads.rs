//! The threads that serve the gateway. Each has a runtime of its own and accepts for itself, so that no request crosses
//! threads.

use std::{future::pending, net::TcpListener, num::NonZero, sync::Arc, thread, time::Duration};

use anyhow::Context as _;
use herd_gateway::{Gateway, Tls};
use tokio::{
    runtime, select,
    sync::{mpsc, oneshot, watch},
    time::timeout,
};

use crate::workers::Factory;

/// Enough for hyper's and the pool's deepest calls; the default of 2 MiB would be address space for nothing.
const STACK: usize = 1 << 20;

/// The threads that serve the gateway.
#[derive(Debug)]
pub(crate) struct GatewayThreads {
    stop: watch::Sender<bool>,
    /// Each thread holds a sender until it ends, and says nothing.
    ended: mpsc::Receiver<()>,
    count: usize,
    pulse: Pulse,
}

/// Asks the threads whether they still do anything.
#[derive(Clone, Debug)]
pub(crate) struct Pulse(Vec<mpsc::Sender<Question>>);

/// Answered by dropping it.
type Question = oneshot::Sender<()>;

impl GatewayThreads {
    /// Serves from now on, on `count` threads, or as many as the process may use cores.
    pub(crate) fn start(
        gateway: &Gateway<Factory>,
        listener: &TcpListener,
        tls: Option<&Arc<Tls>>,
        count: Option<usize>,
    ) -> anyhow::Result<Self> {
        let count = count.unwrap_or_else(|| thread::available_parallelism().map_or(1, NonZero::get));
        let (stop, stopped) = watch::channel(false);
        let (end, ended) = mpsc::channel(count);
        let mut pulse = Vec::new();
        for number in 0..count {
            let (gateway, tls) = (gateway.clone(), tls.cloned());
            let listener = listener.try_clone().context("cannot share the gateway's listener")?;
            let mut stopped = stopped.clone();
            let end = EndNotice(end.clone());
            let (ask, mut questions) = mpsc::channel::<Question>(1);
            pulse.push(ask);
            let serve = move || {
                let _end = end;
                let runtime = runtime::Builder::new_current_thread().enable_all().max_blocking_threads(1).build();
                let served = runtime.and_then(|runtime| {
                    runtime.block_on(async {
                        let listener = tokio::net::TcpListener::from_std(listener)?;
                        let stop = async {
                            // An error means that the daemon is gone, and is as good a reason to stop.
                            let _ = stopped.wait_for(|stop| *stop).await;
                        };
                        let serve = async {
                            match tls {
                                Some(tls) => gateway.serve_tls(listener, tls, stop).await,
                                None => gateway.serve(listener, stop).await,
                            }
                        };
                        let answer = async {
                            while questions.recv().await.is_some() {}
                            pending::<()>().await;
                        };
                        select! {
                            () = serve => {}
                            () = answer => {}
                        }
                        Ok(())
                    })
                });
                if let Err(error) = served {
                    tracing::error!(%error, "a gateway thread could not serve");
                }
            };
            let thread = thread::Builder::new().name(format!("gateway-{number}")).stack_size(STACK);
            thread.spawn(serve).context("cannot start a gateway thread")?;
        }
        Ok(Self { stop, ended, count, pulse: Pulse(pulse) })
    }

    /// What tells whether they answer.
    pub(crate) fn pulse(&self) -> Pulse {
        self.pulse.clone()
    }

    /// Resolves when a thread has ended though nobody stopped it.
    pub(crate) async fn one_ended(&mut self) {
        self.ended.recv().await;
        self.count = self.count.saturating_sub(1);
    }

    /// Stops them and waits until they have, within reason.
    pub(crate) async fn stop(mut self, patience: Duration) {
        self.stop.send_replace(true);
        let all = async {
            for _ in 0..self.count {
                self.ended.recv().await;
            }
        };
        if timeout(patience, all).await.is_err() {
            tracing::info!("clients kept connections open; they are cut");
        }
    }
}

impl Pulse {
    /// Whether each thread answers within `patience`. Those that have ended are not asked: who waits for
    /// [`GatewayThreads::one_ended`] knows of them.
    pub(crate) async fn is_felt(&self, patience: Duration) -> bool {
        let all = async {
            for thread in &self.0 {
                let (question, answer) = oneshot::channel();
                if thread.send(question).await.is_ok() {
                    // It is dropped when it is read, and also when the thread ends.
                    let _ = answer.await;
                }
            }
        };
        timeout(patience, all).await.is_ok()
    }
}

/// Says that a thread has ended, also if it panicked.
#[derive(Debug)]
struct EndNotice(mpsc::Sender<()>);

impl Drop for EndNotice {
    fn drop(&mut self) {
        // There is room for one notice of each thread.
        let _ = self.0.try_send(());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_thread_that_hangs_is_noticed_and_one_that_has_ended_is_not_asked() {
        let patience = Duration::from_secs(1);
        let (ask, mut questions) = mpsc::channel(1);
        let pulse = Pulse(vec![ask]);
        // Also again: what it was asked before waits for it.
        assert!(!pulse.is_felt(patience).await && !pulse.is_felt(patience).await);
        let answer = tokio::spawn(async move {
            questions.recv().await;
            questions.recv().await;
        });
        assert!(pulse.is_felt(patience).await);
        answer.await.unwrap();
        assert!(pulse.is_felt(patience).await);
    }
}
