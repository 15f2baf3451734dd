use std::{
    error::Error,
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use herd_pool::{Connect, Lease, WorkerFactory};
use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};

use crate::{
    account::Account,
    client::OpenRequest,
    http1::Broken,
    rewrite,
    upstream::{Http1Of, Upstreams, WorkerKey},
};

/// The body of a gateway's response.
///
/// It holds the session's lease until the worker's last byte, so a session is in use for as long as anything of its
/// response is under way. Dropping it before that closes the connection to the worker, which is how the worker learns
/// that nobody listens any more.
pub struct ResponseBody<F: WorkerFactory>
where
    F::Worker: Connect,
{
    content: Content<F>,
    open: InFlight<F>,
}

/// Where a response's bytes come from.
pub(crate) enum Content<F: WorkerFactory>
where
    F::Worker: Connect,
{
    Nothing,
    Text(Bytes),
    Http1 {
        connection: Box<Http1Of<F>>,
        lease: Arc<Lease<F>>,
        key: WorkerKey,
    },
    Http2 {
        incoming: Incoming,
        lease: Arc<Lease<F>>,
    },
    /// It broke off; the client is still to be told.
    Broken(BrokenCause),
}

impl<F: WorkerFactory> From<String> for Content<F>
where
    F::Worker: Connect,
{
    fn from(text: String) -> Self {
        Self::Text(text.into())
    }
}

impl<F: WorkerFactory> ResponseBody<F>
where
    F::Worker: Connect,
{
    pub(crate) fn new(content: Content<F>, open: InFlight<F>) -> Self {
        let mut body = Self { content, open };
        // The server does not ask for the frames of an empty body.
        if body.is_end_stream() {
            body.finish();
        }
        body
    }

    /// The worker's last byte is there: its connection can serve others, and the lease goes back.
    fn finish(&mut self) {
        if let Content::Http1 { connection, key, .. } = std::mem::replace(&mut self.content, Content::Nothing) {
            self.open.upstreams.park(key, connection);
        }
    }
}

impl<F: WorkerFactory> Body for ResponseBody<F>
where
    F::Worker: Connect,
{
    type Data = Bytes;
    type Error = BrokenResponse;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let this = self.get_mut();
        let (polled, lease) = match &mut this.content {
            Content::Nothing => return Poll::Ready(None),
            Content::Text(text) => {
                let text = std::mem::take(text);
                this.content = Content::Nothing;
                return Poll::Ready(Some(Ok(Frame::data(text))));
            }
            Content::Broken(_) => {
                let Content::Broken(error) = std::mem::replace(&mut this.content, Content::Nothing) else {
                    unreachable!("it was matched just now")
                };
                return Poll::Ready(Some(Err(BrokenResponse(error))));
            }
            Content::Http1 { connection, lease, .. } => (connection.poll_frame(cx).map_err(BrokenCause::Http1), lease),
            Content::Http2 { incoming, lease } => {
                (Pin::new(incoming).poll_frame(cx).map_err(BrokenCause::Http2), lease)
            }
        };
        if polled.is_pending() {
            this.open.account.linger();
        }
        match ready!(polled) {
            Some(Ok(mut frame)) => {
                if let Some(data) = frame.data_ref() {
                    lease.record_bytes(0, data.len() as u64);
                    this.open.upstreams.counters.sent(data.len());
                }
                // Nothing comes after trailers, and the server does not ask whether anything does.
                let is_last = frame.is_trailers() || this.is_end_stream();
                if let Some(trailers) = frame.trailers_mut() {
                    rewrite::remove_own(trailers);
                }
                if is_last {
                    this.finish();
                } else {
                    this.open.account.linger();
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Some(Err(error)) => {
                // The server cuts the connection the moment it hears of this, so let it first write what came before.
                this.content = Content::Broken(error);
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            None => {
                this.finish();
                Poll::Ready(None)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.content {
            Content::Nothing => true,
            Content::Text(_) | Content::Broken(_) => false,
            Content::Http1 { connection, .. } => connection.is_end_stream(),
            Content::Http2 { incoming, .. } => incoming.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Nothing => SizeHint::with_exact(0),
            Content::Text(text) => SizeHint::with_exact(text.len() as u64),
            Content::Broken(_) => SizeHint::default(),
            Content::Http1 { connection, .. } => connection.size_hint(),
            Content::Http2 { incoming, .. } => incoming.size_hint(),
        }
    }
}

impl<F: WorkerFactory> fmt::Debug for ResponseBody<F>
where
    F::Worker: Connect,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseBody").field("size", &self.size_hint()).finish_non_exhaustive()
    }
}

/// The worker's response broke off after its head had gone to the client. The client sees its connection (HTTP/1.1) or
/// its stream (HTTP/2) cut, never a clean end.
#[derive(Debug)]
pub struct BrokenResponse(BrokenCause);

#[derive(Debug)]
pub(crate) enum BrokenCause {
    Http1(Broken),
    Http2(hyper::Error),
}

impl fmt::Display for BrokenResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the worker's response broke off")
    }
}

impl Error for BrokenResponse {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match &self.0 {
            BrokenCause::Http1(cause) => Some(cause),
            BrokenCause::Http2(cause) => Some(cause),
        }
    }
}

/// A request that is being answered; it counts as such until this is dropped.
pub(crate) struct InFlight<F: WorkerFactory>
where
    F::Worker: Connect,
{
    upstreams: Arc<Upstreams<F>>,
    pub(crate) account: Account<F>,
    _request: Option<OpenRequest>,
}

impl<F: WorkerFactory> InFlight<F>
where
    F::Worker: Connect,
{
    pub(crate) fn begin(upstreams: Arc<Upstreams<F>>, request: Option<OpenRequest>) -> Self {
        upstreams.counters.requests.begin();
        Self { upstreams, account: Account::begin(), _request: request }
    }
}

impl<F: WorkerFactory> Drop for InFlight<F>
where
    F::Worker: Connect,
{
    fn drop(&mut self) {
        self.upstreams.counters.requests.end();
    }
}
