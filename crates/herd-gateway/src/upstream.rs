//! Connections to workers: kept by one serving thread, used by its requests.

use std::{
    collections::HashMap,
    fmt, io,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    time::Duration,
};

use herd_pool::{Connect, Lease, WorkerFactory, WorkerId};
use hyper::{client::conn::http2, header::HeaderValue};
use hyper_util::rt::TokioIo;

use crate::{
    client::Clock,
    counters::Counters,
    http1::Http1,
    request_body::RequestBody,
    setup::{Seat, Thread},
    tasks::{Streams, Tasks},
};

/// A byte stream to one of the factory's workers.
pub(crate) type StreamOf<F> = <<F as WorkerFactory>::Worker as Connect>::Stream;

/// How many bytes of a body may be held on the client's side of an HTTP/1.1 connection.
pub(crate) const BUFFER: usize = 128 * 1024;

/// How much of a body one HTTP/2 stream may have on its way, and all of a connection.
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 2 << 20;

/// How often connections that have been idle for too long are looked for.
pub(crate) const SWEEP_EVERY: Duration = Duration::from_millis(250);

/// An HTTP/1.1 connection to one of the factory's workers.
pub(crate) type Http1Of<F> = Http1<StreamOf<F>, RequestBody<F>>;

/// Where requests for HTTP/2 connections to a worker go.
pub(crate) type Http2<F> = http2::SendRequest<RequestBody<F>>;

/// Tells workers of all pools apart, also if pools have workers of the same IDs.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(crate) struct WorkerKey {
    pool: u64,
    worker: WorkerId,
}

impl WorkerKey {
    pub(crate) fn of<F: WorkerFactory>(seat: &Seat<F>, lease: &Lease<F>) -> Self {
        Self { pool: seat.number, worker: lease.worker_id() }
    }
}

/// The connections to workers that one serving thread keeps.
pub(crate) struct Upstreams<F: WorkerFactory>
where
    F::Worker: Connect,
{
    pub(crate) clock: Arc<Clock>,
    pub(crate) counters: Arc<Counters>,
    /// What the thread answers by.
    pub(crate) thread: Arc<Thread<F>>,
    pub(crate) tasks: Tasks,
    idle: Mutex<HashMap<WorkerKey, Vec<Box<Http1Of<F>>>>>,
    http2: Mutex<HashMap<WorkerKey, Http2<F>>>,
    swept_at: AtomicU32,
}

impl<F: WorkerFactory> Upstreams<F>
where
    F::Worker: Connect,
{
    pub(crate) fn new(thread: Arc<Thread<F>>) -> Self {
        Self {
            clock: Arc::new(Clock::start()),
            counters: thread.counters.clone(),
            thread,
            tasks: Tasks::default(),
            idle: Mutex::default(),
            http2: Mutex::default(),
            swept_at: AtomicU32::new(0),
        }
    }

    /// Takes the connection to the worker that was used last, if one is kept.
    pub(crate) fn take(&self, worker: WorkerKey) -> Option<Box<Http1Of<F>>> {
        lock(&self.idle).get_mut(&worker)?.pop()
    }

    /// Keeps the connection for further requests if it can serve any.
    pub(crate) fn park(&self, worker: WorkerKey, mut connection: Box<Http1Of<F>>) {
        if connection.was_used() && connection.is_complete() {
            connection.shrink();
            connection.parked_at = self.clock.now();
            lock(&self.idle).entry(worker).or_default().push(connection);
        }
    }

    pub(crate) async fn connect(&self, lease: &Lease<F>, limit: Duration) -> io::Result<Box<Http1Of<F>>> {
        let stream = self.open(lease, limit).await?;
        Ok(Box::new(Http1::new(stream, worker_name(lease.worker_id()))))
    }

    /// The HTTP/2 connection to the worker, which all requests share, if there is one.
    pub(crate) fn http2(&self, worker: WorkerKey) -> Option<Http2<F>> {
        lock(&self.http2).get(&worker).filter(|sender| !sender.is_closed()).cloned()
    }

    pub(crate) async fn connect_http2(
        &self,
        worker: WorkerKey,
        lease: &Lease<F>,
        limit: Duration,
    ) -> io::Result<Http2<F>> {
        let stream = self.open(lease, limit).await?;
        let streams = Streams::default();
        let (sender, connection) = http2::Builder::new(streams.clone())
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(io::Error::other)?;
        self.tasks.spawn(async move {
            // Its requests are told how it ended, so there is nobody else to tell.
            let _ = connection.await;
            drop(streams);
        });
        lock(&self.http2).insert(worker, sender.clone());
        Ok(sender)
    }

    async fn open(&self, lease: &Lease<F>, limit: Duration) -> io::Result<StreamOf<F>> {
        let stream = tokio::time::timeout(limit, lease.worker().connect()).await??;
        self.counters.upstream_connections.fetch_add(1, Relaxed);
        Ok(stream)
    }

    /// Closes connections that have been idle for too long, and forgets closed ones.
    pub(crate) fn sweep(&self) {
        lock(&self.idle).retain(|_, connections| {
            connections.retain(|connection| self.clock.age(connection.parked_at) < connection.keep_for);
            !connections.is_empty()
        });
        lock(&self.http2).retain(|_, sender| !sender.is_closed());
    }

    /// Sweeps if that was not done for a while, where nobody does it regularly.
    pub(crate) fn sweep_if_due(&self) {
        self.clock.refresh();
        if self.clock.age(self.swept_at.load(Relaxed)) >= SWEEP_EVERY {
            self.swept_at.store(self.clock.now(), Relaxed);
            self.sweep();
        }
    }

    /// Whether there is anything to sweep.
    pub(crate) fn is_empty(&self) -> bool {
        lock(&self.idle).is_empty() && lock(&self.http2).is_empty()
    }

    /// Closes what is idle.
    pub(crate) fn close_idle(&self) {
        lock(&self.idle).clear();
        lock(&self.http2).clear();
    }
}

/// The worker's ID as `herd-worker` tells it.
pub(crate) fn worker_name(worker: WorkerId) -> HeaderValue {
    HeaderValue::try_from(worker.to_string()).expect("a worker's ID makes a field value")
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<F: WorkerFactory> fmt::Debug for Upstreams<F>
where
    F::Worker: Connect,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upstreams").field("counters", &self.counters).finish_non_exhaustive()
    }
}
