use std::{
    fmt,
    future::poll_fn,
    io,
    pin::{Pin, pin},
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Body, Frame, SizeHint},
    header::{CONTENT_LENGTH, HeaderValue},
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};

use crate::{
    decode::{self, Decoder, EndOfHead, NotHttp, Piece},
    encode::{Framing, Outgoing},
    request_body::{ClientBodyError, Permission},
};

/// How much is read at once, at first and at most.
const LEAST_READ: usize = 4 * 1024;
const MOST_READ: usize = 64 * 1024;

/// How many interim responses a worker may send before the real one.
const MAX_INTERIM: u32 = 64;

/// An HTTP/1.1 connection to a worker.
///
/// It is driven by whoever uses it, within the task of the client's connection: a request costs no task of its own, no
/// channel and no wake-up between tasks, which is most of what a general client costs a proxy. The other reason to have
/// a client of its own is that a proxy must know things that a general one hides: whether the worker has seen anything
/// of a request that failed, and what the worker said about an expectation.
pub(crate) struct Http1<S, B> {
    stream: S,
    read: BytesMut,
    next_read: usize,
    outgoing: Outgoing,
    upload: Option<(B, Framing)>,
    /// The request has a body, so it cannot be sent once more.
    has_body: bool,
    /// Lets a body go that waits for the worker's consent.
    permission: Option<Permission>,
    asked: Method,
    end_of_head: EndOfHead,
    decoder: Decoder,
    /// It can serve another request once this one is complete.
    keeps_alive: bool,
    /// The worker's ID as `herd-worker` tells it.
    pub(crate) name: HeaderValue,
    /// How long it may be kept for another request. Zero before the first response.
    pub(crate) keep_for: Duration,
    pub(crate) parked_at: u32,
}

/// Why an exchange with a worker failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Broken {
    #[error("the worker closed the connection before it answered")]
    Unanswered,
    #[error("the worker closed the connection in the middle of its answer")]
    Incomplete,
    #[error("what the worker sent is not HTTP")]
    NotHttp,
    #[error(transparent)]
    Client(#[from] ClientBodyError),
}

impl From<NotHttp> for Broken {
    fn from(_: NotHttp) -> Self {
        Self::NotHttp
    }
}

/// The head of a request that another connection failed to get answered.
#[derive(Debug)]
pub(crate) struct SentHead {
    head: Vec<u8>,
    asked: Method,
    /// Nothing of it was sent.
    pub(crate) is_unseen: bool,
}

impl<S, B> Http1<S, B>
where
    S: AsyncRead + AsyncWrite + Unpin,
    B: Body<Data = Bytes, Error = ClientBodyError> + Unpin,
{
    pub(crate) fn new(stream: S, name: HeaderValue) -> Self {
        Self {
            stream,
            read: BytesMut::new(),
            next_read: LEAST_READ,
            outgoing: Outgoing::default(),
            upload: None,
            has_body: false,
            permission: None,
            asked: Method::GET,
            end_of_head: EndOfHead::default(),
            decoder: Decoder::Done,
            keeps_alive: true,
            name,
            keep_for: Duration::ZERO,
            parked_at: 0,
        }
    }

    /// Whether an earlier request was answered on it.
    pub(crate) fn was_used(&self) -> bool {
        !self.keep_for.is_zero()
    }

    /// Sends the request and waits for the head of the response. A body that waits for the worker's consent has given
    /// its `permission`.
    ///
    /// # Errors
    /// [`Broken`]; [`into_head`](Self::into_head) then tells whether the worker has seen anything.
    pub(crate) async fn send(
        &mut self,
        request: Request<B>,
        permission: Option<Permission>,
    ) -> Result<Response<()>, Broken> {
        self.outgoing.start(&request);
        self.asked = request.method().clone();
        self.permission = permission;
        let length = request.headers().get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
        let body = request.into_body();
        self.has_body = !body.is_end_stream();
        if self.has_body {
            self.upload = Some((body, length.map_or(Framing::Chunked, Framing::Length)));
        }
        self.head().await
    }

    /// Sends a request without a body that was sent before on another connection.
    pub(crate) async fn send_again(&mut self, sent: SentHead) -> Result<Response<()>, Broken> {
        self.outgoing.start_again(sent.head);
        self.has_body = false;
        self.asked = sent.asked;
        self.head().await
    }

    /// The head of the request that was not answered, if it has no body and so can be sent once more.
    pub(crate) fn into_head(self) -> Option<SentHead> {
        let is_unseen = self.outgoing.is_unsent();
        let head = self.outgoing.into_head();
        (!self.has_body).then_some(SentHead { head, asked: self.asked, is_unseen })
    }

    async fn head(&mut self) -> Result<Response<()>, Broken> {
        let mut interim = 0;
        poll_fn(|cx| {
            loop {
                self.drive_upload(cx)?;
                if let Some(head) = decode::head(&mut self.read, &mut self.end_of_head, &self.asked)? {
                    if head.status.is_informational() && head.status != StatusCode::SWITCHING_PROTOCOLS {
                        interim += 1;
                        if interim > MAX_INTERIM {
                            return Poll::Ready(Err(Broken::NotHttp));
                        }
                        if let Some(permission) = self.permission.take_if(|_| head.status == StatusCode::CONTINUE) {
                            permission.give();
                        }
                        continue;
                    }
                    self.keeps_alive &= head.keeps_alive;
                    self.decoder = head.body;
                    let mut response = Response::new(());
                    (*response.status_mut(), *response.headers_mut()) = (head.status, head.headers);
                    return Poll::Ready(Ok(response));
                }
                if !matches!(ready!(self.poll_fill(cx)), Ok(1..)) {
                    return Poll::Ready(Err(if self.read.is_empty() {
                        Broken::Unanswered
                    } else {
                        Broken::Incomplete
                    }));
                }
            }
        })
        .await
    }

    /// The next frame of the response's body.
    pub(crate) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        self.drive_upload(cx)?;
        loop {
            match self.decoder.decode(&mut self.read).map_err(Broken::from)? {
                Some(Piece::Data(data)) => return Poll::Ready(Some(Ok(Frame::data(data)))),
                Some(Piece::Trailers(trailers)) => return Poll::Ready(Some(Ok(Frame::trailers(trailers)))),
                None if self.decoder.is_done() => return Poll::Ready(None),
                None => {}
            }
            match ready!(self.poll_fill(cx)) {
                Ok(1..) => {}
                Ok(0) if self.decoder.may_end() => {
                    self.decoder = Decoder::Done;
                    return Poll::Ready(None);
                }
                _ => return Poll::Ready(Some(Err(Broken::Incomplete))),
            }
        }
    }

    /// Whether the response's body is complete.
    pub(crate) fn is_end_stream(&self) -> bool {
        self.decoder.is_done()
    }

    pub(crate) fn size_hint(&self) -> SizeHint {
        match self.decoder {
            Decoder::Done => SizeHint::with_exact(0),
            Decoder::Length(left) => SizeHint::with_exact(left),
            Decoder::Chunk(_) | Decoder::UntilEnd => SizeHint::default(),
        }
    }

    /// Whether the exchange is complete in both directions, and the worker keeps the connection.
    pub(crate) fn is_complete(&self) -> bool {
        self.keeps_alive
            && self.decoder.is_done()
            && self.upload.is_none()
            && self.outgoing.is_sent()
            && self.read.is_empty()
    }

    /// Whether it is still open, as far as one can see, and the worker has said nothing unasked.
    pub(crate) fn is_quiet(&mut self) -> bool {
        self.poll_fill(&mut Context::from_waker(Waker::noop())).is_pending()
    }

    /// Gives memory back that only large bodies need.
    pub(crate) fn shrink(&mut self) {
        if self.next_read > LEAST_READ {
            (self.read, self.next_read) = (BytesMut::new(), LEAST_READ);
        }
    }

    /// The stream, and what was read beyond the response's head, after the worker changed the protocol.
    pub(crate) fn into_stream(self) -> (S, Bytes) {
        (self.stream, self.read.freeze())
    }

    /// Sends what can be sent. A worker that reads no more may have answered all the same, so that is no error here:
    /// what it said is read, and the connection is not used again.
    fn drive_upload(&mut self, cx: &mut Context<'_>) -> Result<(), Broken> {
        match self.poll_upload(cx) {
            Poll::Ready(Err(Upload::Client(error))) => return Err(error.into()),
            Poll::Ready(Err(Upload::Worker)) => {
                self.upload = None;
                self.keeps_alive = false;
            }
            Poll::Ready(Ok(())) | Poll::Pending => {}
        }
        Ok(())
    }

    fn poll_upload(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Upload>> {
        loop {
            // A piece of the body that is there already goes with what is before it.
            let more = self.poll_body(cx)?;
            while !self.outgoing.is_sent() {
                let slices = self.outgoing.slices();
                let sent = ready!(Pin::new(&mut self.stream).poll_write_vectored(cx, &slices));
                let sent = sent.ok().filter(|sent| *sent > 0).ok_or(Upload::Worker)?;
                self.outgoing.advance(sent);
            }
            ready!(Pin::new(&mut self.stream).poll_flush(cx)).map_err(|_| Upload::Worker)?;
            if self.upload.is_none() {
                return Poll::Ready(Ok(()));
            }
            self.outgoing.forget_sent();
            ready!(more);
        }
    }

    /// Takes a piece of the body, if there is one and there is room for it.
    fn poll_body(&mut self, cx: &mut Context<'_>) -> Result<Poll<()>, Upload> {
        let Some((body, framing)) = &mut self.upload else { return Ok(Poll::Ready(())) };
        if !self.outgoing.has_room() {
            return Ok(Poll::Ready(()));
        }
        let frame = match Pin::new(&mut *body).poll_frame(cx) {
            Poll::Pending => return Ok(Poll::Pending),
            Poll::Ready(frame) => frame.transpose().map_err(Upload::Client)?,
        };
        let (is_fit, is_last) = match frame.map(Frame::into_data) {
            Some(Ok(data)) => {
                let is_fit = self.outgoing.data(data, framing);
                // A body of known length has no end beyond its last byte.
                (is_fit, matches!(framing, Framing::Length(0)))
            }
            Some(Err(frame)) => (self.outgoing.end(*framing, frame.trailers_ref()), true),
            None => (self.outgoing.end(*framing, None), true),
        };
        if is_last {
            self.upload = None;
        }
        if is_fit { Ok(Poll::Ready(())) } else { Err(Upload::Client(ClientBodyError::wrong_length())) }
    }

    /// Reads some more; 0 is the end.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.read.capacity() - self.read.len() < self.next_read / 2 {
            self.read.reserve(self.next_read);
        }
        let room = self.read.capacity() - self.read.len();
        let read = ready!(pin!(self.stream.read_buf(&mut self.read)).poll(cx))?;
        if read == room {
            self.next_read = (self.next_read * 2).min(MOST_READ);
        }
        Poll::Ready(Ok(read))
    }
}

/// Why a request could not be sent in full.
enum Upload {
    Client(ClientBodyError),
    Worker,
}

impl<S, B> fmt::Debug for Http1<S, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Http1")
            .field("name", &self.name)
            .field("decoder", &self.decoder)
            .field("keeps_alive", &self.keeps_alive)
            .finish_non_exhaustive()
    }
}
