//! Connections to workers: kept by one serving thread, used by its requests.

use std::{
    collections::HashMap,
    fmt,
    future::poll_fn,
    io,
    pin::{Pin, pin},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU32, Ordering::Relaxed},
    },
    task::{Context, Poll, Wake, Waker},
    time::Duration,
};

use herd_pool::{Connect, Lease, WorkerFactory, WorkerId};
use hyper::{
    Request, Response,
    body::{Body, Bytes, Frame, Incoming},
    client::conn::{TrySendError, http1, http2},
    header::HeaderValue,
};
use hyper_util::rt::TokioIo;

use crate::{
    client::Clock,
    counters::Counters,
    request_body::RequestBody,
    tasks::{Streams, Tasks},
};

/// A byte stream to one of the factory's workers.
pub(crate) type StreamOf<F> = <<F as WorkerFactory>::Worker as Connect>::Stream;

/// How the worker answered, or why it did not. The request comes back if the worker saw nothing of it.
type Sent<F> = Result<Response<Incoming>, TrySendError<Request<RequestBody<F>>>>;

/// How many bytes of a body may be held on either side of an HTTP/1.1 connection.
pub(crate) const BUFFER: usize = 128 * 1024;

/// How much of a body one HTTP/2 stream may have on its way, and all of a connection.
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 2 << 20;

/// How often connections that have been idle for too long are looked for.
pub(crate) const SWEEP_EVERY: Duration = Duration::from_millis(250);

/// An HTTP/1.1 connection to a worker, driven by whoever uses it: a request costs no task of its own and no wake-ups
/// between tasks.
pub(crate) struct Http1<F: WorkerFactory>
where
    F::Worker: Connect,
{
    sender: http1::SendRequest<RequestBody<F>>,
    /// `None` once it ended with an error.
    connection: Option<http1::Connection<TokioIo<StreamOf<F>>, RequestBody<F>>>,
    ended: bool,
    /// Who is woken when the connection can be driven on.
    wakes: Arc<Wakes>,
    waker: Waker,
    /// The worker's ID as `herd-worker` tells it.
    pub(crate) name: HeaderValue,
    /// How long it may be kept for another request.
    pub(crate) keep_for: Duration,
    parked_at: u32,
}

impl<F: WorkerFactory> Http1<F>
where
    F::Worker: Connect,
{
    async fn start(stream: StreamOf<F>, name: HeaderValue) -> hyper::Result<Box<Self>> {
        let (sender, connection) = http1::Builder::new().max_buf_size(BUFFER).handshake(TokioIo::new(stream)).await?;
        let wakes = Arc::new(Wakes::default());
        let waker = wakes.clone().into();
        let keep_for = Duration::ZERO;
        let connection = Some(connection);
        Ok(Box::new(Self { sender, connection, ended: false, wakes, waker, name, keep_for, parked_at: 0 }))
    }

    /// Sends the request and waits for the head of the response.
    ///
    /// Before anything is sent, a connection that the worker closed meanwhile shows that it is closed.
    pub(crate) async fn send(&mut self, request: Request<RequestBody<F>>) -> Sent<F> {
        let mut response = pin!(self.sender.try_send_request(request));
        poll_fn(|cx| {
            self.drive(cx);
            // Only `drive` moves the response on, so there is no one to wake this task for it.
            let mut response_cx = Context::from_waker(Waker::noop());
            match response.as_mut().poll(&mut response_cx) {
                Poll::Pending if self.ended => {
                    // What the connection has not answered by its end, it answers when dropped.
                    self.connection = None;
                    response.as_mut().poll(&mut response_cx)
                }
                polled => polled,
            }
        })
        .await
    }

    /// Reads and writes what can be.
    pub(crate) fn drive(&mut self, cx: &mut Context<'_>) {
        if !self.ended
            && let Some(connection) = &mut self.connection
        {
            self.wakes.aim(cx.waker());
            self.ended = connection.poll_without_shutdown(&mut Context::from_waker(&self.waker)).is_ready();
        }
    }

    /// Asks for the next frame of a response's body without driving the connection.
    pub(crate) fn poll_body(&self, incoming: &mut Incoming) -> Polled {
        // The body tells the connection that it has room, which would wake this very task. Whoever gets nothing here
        // drives the connection next, so nothing is missed.
        self.wakes.mute(|| poll_driven(incoming))
    }

    /// Whether an earlier request was answered on it.
    pub(crate) fn was_used(&self) -> bool {
        !self.keep_for.is_zero()
    }

    /// Whether nothing more can come from it.
    pub(crate) fn is_ended(&self) -> bool {
        self.ended
    }

    /// Whether the exchange is complete in both directions and the connection stays open.
    pub(crate) fn is_reusable(&mut self) -> bool {
        self.drive(&mut Context::from_waker(Waker::noop()));
        !self.ended && self.sender.is_ready()
    }

    /// Takes the stream, and what was read beyond the response's head, after the worker changed the protocol.
    pub(crate) fn into_stream(mut self) -> Option<(StreamOf<F>, Bytes)> {
        self.drive(&mut Context::from_waker(Waker::noop()));
        let parts = self.connection.take().filter(|_| self.ended)?.into_parts();
        Some((parts.io.into_inner(), parts.read_buf))
    }
}

/// Wakes the task that drives a connection, except for what that task has done itself.
#[derive(Debug, Default)]
struct Wakes {
    task: Mutex<Option<Waker>>,
    muted: AtomicBool,
}

impl Wakes {
    fn aim(&self, task: &Waker) {
        let mut aimed = lock(&self.task);
        if !aimed.as_ref().is_some_and(|aimed| aimed.will_wake(task)) {
            *aimed = Some(task.clone());
        }
    }

    fn mute<T>(&self, work: impl FnOnce() -> T) -> T {
        self.muted.store(true, Relaxed);
        let done = work();
        self.muted.store(false, Relaxed);
        done
    }
}

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.muted.load(Relaxed)
            && let Some(task) = &*lock(&self.task)
        {
            task.wake_by_ref();
        }
    }
}

/// Where requests for HTTP/2 connections to a worker go.
pub(crate) type Http2<F> = http2::SendRequest<RequestBody<F>>;

/// The connections to workers that one serving thread keeps.
pub(crate) struct Upstreams<F: WorkerFactory>
where
    F::Worker: Connect,
{
    pub(crate) clock: Arc<Clock>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) tasks: Tasks,
    idle: Mutex<HashMap<WorkerId, Vec<Box<Http1<F>>>>>,
    http2: Mutex<HashMap<WorkerId, Http2<F>>>,
    swept_at: AtomicU32,
}

impl<F: WorkerFactory> Upstreams<F>
where
    F::Worker: Connect,
{
    pub(crate) fn new(counters: Arc<Counters>) -> Self {
        Self {
            clock: Arc::new(Clock::start()),
            counters,
            tasks: Tasks::default(),
            idle: Mutex::default(),
            http2: Mutex::default(),
            swept_at: AtomicU32::new(0),
        }
    }

    /// Takes the connection to the worker that was used last, if one is kept.
    pub(crate) fn take(&self, worker: WorkerId) -> Option<Box<Http1<F>>> {
        lock(&self.idle).get_mut(&worker)?.pop()
    }

    /// Keeps the connection for further requests if it can serve any.
    pub(crate) fn park(&self, worker: WorkerId, mut connection: Box<Http1<F>>) {
        if !connection.keep_for.is_zero() && connection.is_reusable() {
            connection.parked_at = self.clock.now();
            lock(&self.idle).entry(worker).or_default().push(connection);
        }
    }

    pub(crate) async fn connect(&self, lease: &Lease<F>, limit: Duration) -> io::Result<Box<Http1<F>>> {
        let stream = self.open(lease, limit).await?;
        Http1::start(stream, worker_name(lease.worker_id())).await.map_err(io::Error::other)
    }

    /// The HTTP/2 connection to the worker, which all requests share.
    pub(crate) async fn connect_http2(&self, lease: &Lease<F>, limit: Duration) -> io::Result<Http2<F>> {
        let worker = lease.worker_id();
        if let Some(sender) = lock(&self.http2).get(&worker).filter(|sender| !sender.is_closed()) {
            return Ok(sender.clone());
        }
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

impl<F: WorkerFactory> fmt::Debug for Http1<F>
where
    F::Worker: Connect,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Http1").field("name", &self.name).field("ended", &self.ended).finish_non_exhaustive()
    }
}

/// What the next frame of a worker's response is.
pub(crate) type Polled = Poll<Option<hyper::Result<Frame<Bytes>>>>;

/// Polls `body` without a waker of its own: it moves on only when its connection is driven.
pub(crate) fn poll_driven(body: &mut Incoming) -> Polled {
    Pin::new(body).poll_frame(&mut Context::from_waker(Waker::noop()))
}
