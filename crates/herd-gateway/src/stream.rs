//! The client's byte stream, which keeps an eye on what the HTTP parser reads and says.

use std::{
    future::poll_fn,
    io::{self, IoSlice},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use hyper::StatusCode;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::{
    client::{Client, Order, Phase},
    counters::Counters,
    failure,
    failure_kind::FailureKind,
};

/// How an HTTP/2 connection begins (RFC 9113 §3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A client's stream. It returns what was read to tell the protocol, then goes on with the socket.
///
/// - It notes for the sweep when bytes come and go.
/// - It remembers the raw head of a request, from which the parser drops what it does not need.
/// - Where the parser refuses a request with a bare status, it says so with a problem document.
#[derive(Debug)]
pub(crate) struct ClientStream {
    client: Arc<Client>,
    counters: Arc<Counters>,
    read_ahead: Vec<u8>,
    read_ahead_used: usize,
    max_header_bytes: usize,
    /// What is written stays in a buffer of TLS until it is flushed.
    is_buffered: bool,
    refused: bool,
    ended: bool,
}

/// What a client speaks.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Spoken {
    Http1,
    Http2,
}

impl ClientStream {
    pub(crate) fn new(client: Arc<Client>, counters: Arc<Counters>, max_header_bytes: usize) -> Self {
        let is_buffered = client.is_tls();
        Self {
            client,
            counters,
            read_ahead: Vec::new(),
            read_ahead_used: 0,
            max_header_bytes,
            is_buffered,
            refused: false,
            ended: false,
        }
    }

    /// Reads until it is clear which protocol the client speaks. A client that goes away before that is not told from
    /// one that speaks HTTP/1.1.
    pub(crate) async fn detect(&mut self) -> io::Result<Spoken> {
        let mut first = Vec::with_capacity(1024);
        loop {
            let common = first.len().min(PREFACE.len());
            if first[..common] != PREFACE[..common] {
                break;
            }
            if common == PREFACE.len() {
                self.client.set_http2();
                self.read_ahead = first;
                return Ok(Spoken::Http2);
            }
            let mut bytes = [0; 1024];
            let mut read = ReadBuf::new(&mut bytes);
            poll_fn(|cx| self.client.with_socket(|socket| socket.poll_read(cx, &mut read))).await?;
            if read.filled().is_empty() {
                break;
            }
            first.extend_from_slice(read.filled());
            self.client.note_read(&[], 0);
        }
        self.client.note_read(&first, self.max_header_bytes);
        self.read_ahead = first;
        Ok(Spoken::Http1)
    }

    /// If the bytes are the parser's own refusal of a request, says it better and takes them as written.
    fn refuse_instead(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> bool {
        if self.refused {
            return true;
        }
        if self.client.is_http2() || !matches!(self.client.phase(), Phase::Idle | Phase::Head) {
            return false;
        }
        let status = bytes.strip_prefix(b"HTTP/1.1 ").and_then(|rest| StatusCode::from_bytes(rest.get(..3)?).ok());
        let Some(status) = status.filter(|status| status.is_client_error()) else { return false };
        let detail = match status {
            StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE => "the request's head is too large",
            StatusCode::URI_TOO_LONG => "the request's target is too long",
            _ => "the request is malformed",
        };
        self.say(cx, status, detail);
        true
    }

    /// Writes a refusal. All before it was written and it is short, so a socket that does not take it at once belongs
    /// to a client that reads nothing.
    fn say(&mut self, cx: &mut Context<'_>, status: StatusCode, detail: &str) {
        self.refused = true;
        let kind = match status {
            StatusCode::REQUEST_TIMEOUT => FailureKind::RequestTimeout,
            StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE => FailureKind::HeaderTooLarge,
            StatusCode::URI_TOO_LONG => FailureKind::TargetTooLong,
            _ => FailureKind::BadRequest,
        };
        self.counters.failed(kind);
        let text = refusal(status, kind, detail);
        let _ = self.client.with_socket(|socket| socket.poll_write(cx, text.as_bytes()));
    }
}

/// A problem document as HTTP/1.1, where no parser is there to write it.
pub(crate) fn refusal(status: StatusCode, kind: FailureKind, detail: &str) -> String {
    let body = failure::problem(status, kind, detail, None).into_body();
    format!(
        "HTTP/1.1 {} {}\r\ncontent-type: application/problem+json\r\n{}: {}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        status.as_str(),
        status.canonical_reason().unwrap_or("Error"),
        failure::HERD_ERROR,
        kind.name(),
        body.len(),
    )
}

impl AsyncRead for ClientStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.read_ahead_used < this.read_ahead.len() {
            let left = &this.read_ahead[this.read_ahead_used..];
            let taken = left.len().min(buf.remaining());
            buf.put_slice(&left[..taken]);
            this.read_ahead_used += taken;
            if this.read_ahead_used == this.read_ahead.len() {
                (this.read_ahead, this.read_ahead_used) = (Vec::new(), 0);
            }
            return Poll::Ready(Ok(()));
        }
        if this.client.order() == Order::HeadTimedOut && this.client.phase() == Phase::Head {
            if !this.refused {
                this.say(cx, StatusCode::REQUEST_TIMEOUT, "the request's head did not come in time");
            }
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        ready!(this.client.with_socket(|socket| socket.poll_read(cx, buf)))?;
        let read = &buf.filled()[before..];
        this.ended = read.is_empty();
        if !this.ended {
            this.client.note_read(read, this.max_header_bytes);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for ClientStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.refuse_instead(cx, buf) {
            return Poll::Ready(Ok(buf.len()));
        }
        let written = this.client.with_socket(|socket| socket.poll_write(cx, buf));
        this.client.note_write(written.is_pending());
        written
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.refuse_instead(cx, bufs.first().map_or(&[], |first| first)) {
            return Poll::Ready(Ok(bufs.iter().map(|buf| buf.len()).sum()));
        }
        let written = this.client.with_socket(|socket| socket.poll_write_vectored(cx, bufs));
        this.client.note_write(written.is_pending());
        written
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // A TCP socket has no buffer of ours. Who flushes has written everything.
        if self.is_buffered {
            let flushed = self.client.with_socket(|socket| socket.poll_flush(cx));
            self.client.note_flush(flushed.is_pending());
            ready!(flushed)?;
        }
        self.client.note_flushed();
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.client.with_socket(|socket| socket.poll_shutdown(cx))
    }
}

impl Drop for ClientStream {
    fn drop(&mut self) {
        if self.ended {
            self.client.close();
        } else {
            self.client.give_back();
        }
    }
}
