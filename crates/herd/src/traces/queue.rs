//! Spans that wait for the collector, and the task that sends them in batches.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use opentelemetry::Context;
use opentelemetry_sdk::{
    error::OTelSdkResult,
    trace::{Span, SpanData, SpanExporter, SpanProcessor},
};
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, sleep, timeout, timeout_at},
};

use super::Counts;

/// How many spans may wait. A span takes less than 3 KiB, so these are at most 12 MiB.
const MOST_WAITING: usize = 4096;
/// How many spans are sent at once.
const MOST_AT_ONCE: usize = 512;
/// How long the first span of a batch waits for others.
const GATHERING: Duration = Duration::from_secs(1);
/// How long to wait after a failure; each further one doubles it.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Makes an empty queue, and what takes spans out of it.
pub(super) fn new() -> (Queue, Waiting) {
    let (sender, receiver) = mpsc::channel(MOST_WAITING);
    let counters = Arc::new(Counters::default());
    (Queue { sender, counters: Arc::clone(&counters) }, Waiting { receiver, counters })
}

/// Where spans that have ended are put. It never waits: what does not fit is dropped, and counted.
#[derive(Clone, Debug)]
pub(super) struct Queue {
    sender: mpsc::Sender<Item>,
    counters: Arc<Counters>,
}

/// What waits to be sent.
#[derive(Debug)]
pub(super) struct Waiting {
    receiver: mpsc::Receiver<Item>,
    counters: Arc<Counters>,
}

#[derive(Debug)]
enum Item {
    Span(Box<SpanData>),
    /// Everything before this is to be sent now.
    Flush(oneshot::Sender<()>),
}

#[derive(Debug, Default)]
struct Counters {
    exported: AtomicU64,
    dropped: AtomicU64,
}

impl Queue {
    pub(super) fn counts(&self) -> Counts {
        let Counters { exported, dropped } = &*self.counters;
        Counts { exported: exported.load(Relaxed), dropped: dropped.load(Relaxed) }
    }

    /// Resolves when everything that waits was tried to be sent, or `patience` is over.
    pub(super) async fn flush(&self, patience: Duration) {
        let sent = async {
            let (sender, done) = oneshot::channel();
            if self.sender.send(Item::Flush(sender)).await.is_ok() {
                // An error means that the sending has ended, and there is nothing to wait for.
                let _ = done.await;
            }
        };
        // What is late is lost; the daemon does not stay for its traces.
        let _ = timeout(patience, sent).await;
    }
}

impl SpanProcessor for Queue {
    fn on_start(&self, _: &mut Span, _: &Context) {}

    fn on_end(&self, span: SpanData) {
        if span.span_context.is_sampled() && self.sender.try_send(Item::Span(Box::new(span))).is_err() {
            self.counters.dropped.fetch_add(1, Relaxed);
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        Ok(())
    }
}

impl Waiting {
    /// Sends batches until nobody can put spans into the queue any more. `to` is told in the log.
    pub(super) async fn send(mut self, exporter: impl SpanExporter, to: String) {
        let mut pause = None;
        while let Some((batch, flushed)) = self.batch().await {
            let count = batch.len() as u64;
            let outcome = if batch.is_empty() { Ok(()) } else { exporter.export(batch).await };
            match outcome {
                Ok(()) => {
                    self.counters.exported.fetch_add(count, Relaxed);
                    if count > 0 && pause.take().is_some() {
                        tracing::info!(to, "the collector takes traces again");
                    }
                    drop(flushed);
                }
                Err(error) => {
                    self.counters.dropped.fetch_add(count, Relaxed);
                    let next = pause.map_or(FIRST_PAUSE, |pause: Duration| (pause * 2).min(LONGEST_PAUSE));
                    // The first of many is told; how many there are in all is in the metrics.
                    if pause.replace(next).is_none() {
                        tracing::warn!(to, %error, "traces cannot be sent; they are dropped until they can");
                    }
                    drop(flushed);
                    sleep(next).await;
                }
            }
        }
    }

    /// The next spans to send, and who waits until they are. `None` if there will be no more.
    async fn batch(&mut self) -> Option<(Vec<SpanData>, Option<oneshot::Sender<()>>)> {
        let mut batch = Vec::new();
        let first = self.receiver.recv().await?;
        let deadline = Instant::now() + GATHERING;
        let mut next = Some(first);
        while let Some(item) = next {
            match item {
                Item::Span(span) => batch.push(*span),
                Item::Flush(done) => return Some((batch, Some(done))),
            }
            if batch.len() == MOST_AT_ONCE {
                break;
            }
            next = timeout_at(deadline, self.receiver.recv()).await.unwrap_or_default();
        }
        Some((batch, None))
    }
}
