use std::{
    error::Error,
    fmt,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use herd_pool::{Lease, WorkerFactory};
use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};
use tokio::time::Sleep;

use crate::{client::Client, counters::Counters, rewrite};

/// How long a client that waits for permission to send its body is kept waiting by a worker that says nothing. Servers
/// may ignore the expectation (RFC 9110 §10.1.1), so nobody waits for ever.
const CONTINUE_AFTER: Duration = Duration::from_secs(1);

/// A request's body on its way to the worker. It holds the lease, since the worker may read on after its response.
pub(crate) struct RequestBody<F: WorkerFactory> {
    stream: Option<Box<Upload<F>>>,
}

struct Upload<F: WorkerFactory> {
    incoming: Incoming,
    lease: Arc<Lease<F>>,
    client: Option<Arc<Client>>,
    counters: Arc<Counters>,
    gate: Option<Gate>,
}

impl<F: WorkerFactory> RequestBody<F> {
    pub(crate) fn empty() -> Self {
        Self { stream: None }
    }

    pub(crate) fn new(
        incoming: Incoming,
        lease: &Arc<Lease<F>>,
        client: Option<Arc<Client>>,
        counters: &Arc<Counters>,
    ) -> Self {
        if incoming.is_end_stream() {
            return Self::empty();
        }
        let upload = Upload { incoming, lease: lease.clone(), client, counters: counters.clone(), gate: None };
        Self { stream: Some(Box::new(upload)) }
    }

    /// Keeps the body back until what this returns is called, or until some time has passed.
    pub(crate) fn hold_back(&mut self) -> Option<Permission> {
        let upload = self.stream.as_mut()?;
        let permission = Permission::default();
        upload.gate =
            Some(Gate { permission: permission.clone(), timer: Box::pin(tokio::time::sleep(CONTINUE_AFTER)) });
        Some(permission)
    }
}

impl<F: WorkerFactory> Body for RequestBody<F> {
    type Data = Bytes;
    type Error = ClientBodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let Some(upload) = &mut self.get_mut().stream else { return Poll::Ready(None) };
        if let Some(gate) = &mut upload.gate {
            ready!(gate.poll(cx));
            upload.gate = None;
        }
        let polled = Pin::new(&mut upload.incoming).poll_frame(cx);
        if let Some(client) = &upload.client {
            client.note_body(polled.is_pending());
        }
        Poll::Ready(match ready!(polled) {
            Some(Ok(mut frame)) => {
                if let Some(trailers) = frame.trailers_mut() {
                    rewrite::request_trailers(trailers);
                }
                if let Some(data) = frame.data_ref() {
                    upload.lease.record_bytes(data.len() as u64, 0);
                    upload.counters.received(data.len());
                }
                Some(Ok(frame))
            }
            Some(Err(error)) => Some(Err(ClientBodyError(Some(error)))),
            None => None,
        })
    }

    fn is_end_stream(&self) -> bool {
        self.stream.as_ref().is_none_or(|upload| upload.incoming.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        self.stream.as_ref().map_or_else(|| SizeHint::with_exact(0), |upload| upload.incoming.size_hint())
    }
}

impl<F: WorkerFactory> fmt::Debug for RequestBody<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestBody").field("size", &self.size_hint()).finish_non_exhaustive()
    }
}

/// The client broke off in the middle of its request, or sent what is no HTTP.
#[derive(Debug)]
pub(crate) struct ClientBodyError(Option<hyper::Error>);

impl fmt::Display for ClientBodyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the client's request body broke off")
    }
}

impl Error for ClientBodyError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.0.as_ref().map(|cause| cause as &(dyn Error + 'static))
    }
}

impl ClientBodyError {
    /// The body is not as long as was announced.
    pub(crate) fn wrong_length() -> Self {
        Self(None)
    }

    /// Whether the client's body is what made an exchange with the worker fail.
    pub(crate) fn caused(error: &hyper::Error) -> bool {
        let mut cause = error.source();
        while let Some(error) = cause {
            if error.is::<Self>() {
                return true;
            }
            cause = error.source();
        }
        false
    }
}

/// Lets a body go that was held back.
#[derive(Clone, Default)]
pub(crate) struct Permission(Arc<PermissionState>);

#[derive(Default)]
struct PermissionState {
    given: AtomicBool,
    waker: Mutex<Option<Waker>>,
}

impl Permission {
    pub(crate) fn give(&self) {
        self.0.given.store(true, Ordering::Release);
        if let Some(waker) = self.0.waker.lock().unwrap_or_else(PoisonError::into_inner).take() {
            waker.wake();
        }
    }
}

struct Gate {
    permission: Permission,
    timer: Pin<Box<Sleep>>,
}

impl Gate {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let state = &self.permission.0;
        *state.waker.lock().unwrap_or_else(PoisonError::into_inner) = Some(cx.waker().clone());
        if state.given.load(Ordering::Acquire) {
            return Poll::Ready(());
        }
        self.timer.as_mut().poll(cx)
    }
}
