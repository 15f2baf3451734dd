use std::{
    future::{Future as _, poll_fn},
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Sleep, sleep},
};

/// How an HTTP/2 connection begins (RFC 9113 §3.4).
pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// How long a peer may take nothing of what is written to it.
const STALL_TIMEOUT: Duration = Duration::from_secs(30);

/// What a peer speaks.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Protocol {
    Http1,
    Http2,
}

/// A peer's byte stream. It gives out again what was read to tell the protocol, and fails when the peer stops reading:
/// so a follower of events or logs that went to sleep costs nothing for ever.
#[derive(Debug)]
pub(super) struct ServedStream<S> {
    stream: S,
    read_ahead: Vec<u8>,
    /// Runs while something waits to be written.
    stalled: Option<Pin<Box<Sleep>>>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> ServedStream<S> {
    /// Reads until it is clear what the peer speaks. One that goes away before is not told from one that speaks HTTP/1.1.
    pub(super) async fn detect(mut stream: S) -> io::Result<(Self, Protocol)> {
        let mut first = Vec::with_capacity(PREFACE.len());
        let protocol = loop {
            if !PREFACE.starts_with(&first) {
                break Protocol::Http1;
            }
            if first.len() == PREFACE.len() {
                break Protocol::Http2;
            }
            // No more than the preface, so that nothing is copied that need not be.
            let mut bytes = [0; PREFACE.len()];
            let mut read = ReadBuf::new(&mut bytes[..PREFACE.len() - first.len()]);
            poll_fn(|cx| Pin::new(&mut stream).poll_read(cx, &mut read)).await?;
            if read.filled().is_empty() {
                break Protocol::Http1;
            }
            first.extend_from_slice(read.filled());
        };
        Ok((Self { stream, read_ahead: first, stalled: None }, protocol))
    }

    /// Passes on what became of a write, unless the peer has taken nothing for too long.
    fn watch<T>(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.stalled = None;
            return written;
        }
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(sleep(STALL_TIMEOUT)));
        ready!(stalled.as_mut().poll(cx));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the peer takes nothing")))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for ServedStream<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.read_ahead.is_empty() {
            return Pin::new(&mut this.stream).poll_read(cx, buf);
        }
        let taken = this.read_ahead.len().min(buf.remaining());
        buf.put_slice(&this.read_ahead[..taken]);
        this.read_ahead.drain(..taken);
        if this.read_ahead.is_empty() {
            this.read_ahead = Vec::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for ServedStream<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.stream).poll_write(cx, buf);
        this.watch(cx, written)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.stream).poll_write_vectored(cx, bufs);
        this.watch(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let flushed = Pin::new(&mut this.stream).poll_flush(cx);
        // Nothing to flush is no sign that anything was taken.
        if flushed.is_ready() { flushed } else { this.watch(cx, flushed) }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let shut = Pin::new(&mut this.stream).poll_shutdown(cx);
        this.watch(cx, shut)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

    use super::*;

    async fn detected(sent: &[u8]) -> (Protocol, Vec<u8>) {
        let (mut peer, ours) = duplex(1024);
        peer.write_all(sent).await.unwrap();
        drop(peer);
        let (mut stream, protocol) = ServedStream::detect(ours).await.unwrap();
        let mut read = Vec::new();
        stream.read_to_end(&mut read).await.unwrap();
        (protocol, read)
    }

    #[tokio::test]
    async fn the_protocol_is_told_by_the_first_bytes_and_none_is_lost() {
        for sent in [&b"GET / HTTP/1.1\r\n\r\n"[..], b"P", b"", b"PRI * HTTP/2.0\r\n\r\nSX", b"PRI * HTTP/2.0\r\n\r\n"]
        {
            assert_eq!(detected(sent).await, (Protocol::Http1, sent.to_vec()));
        }
        let http2 = [PREFACE, b"\0\0\0\x04\0\0\0\0\0"].concat();
        assert_eq!(detected(&http2).await, (Protocol::Http2, http2));
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_takes_nothing_is_cut_and_a_slow_one_is_not() {
        let (mut peer, ours) = duplex(8);
        peer.write_all(b"GET ").await.unwrap();
        let (mut stream, _) = ServedStream::detect(ours).await.unwrap();
        let slow = async {
            for _ in 0..4 {
                sleep(STALL_TIMEOUT - Duration::from_secs(1)).await;
                peer.read_exact(&mut [0; 8]).await.unwrap();
            }
        };
        let (written, ()) = tokio::join!(stream.write_all(&[0; 40]), slow);
        written.unwrap();
        let error = stream.write_all(&[0; 40]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }
}
