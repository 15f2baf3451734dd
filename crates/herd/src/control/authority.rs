//! Makes clients of gRPC understood that name the socket's path as the authority.
//!
//! The clients that are built on gRPC's C library, Python's among them, send `:authority: run%2Fherd%2Fherd.sock` on a Unix
//! socket. That is no authority of a URI (RFC 3986 §3.2), and the HTTP/2 library answers it with a reset before anybody
//! can look at it (<https://github.com/hyperium/h2/pull/487>). Nothing on this socket depends on the authority. So what is
//! none is made one on the way in, byte by byte: its length stays, and with it what both sides take the size of the
//! header compression's table for (RFC 7541 §4.1).
//!
//! Values that are compressed by Huffman's code are left alone: clients that compress them send `localhost`, or can be told
//! to.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
};

use axum::http::uri::Authority;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::UnixStream,
};

use crate::admin::server::PREFACE;

/// The length of a frame's own head.
const FRAME_HEAD: usize = 9;
/// The type of a frame that begins a request, and its flags that put something in front of the fields.
const HEADERS: u8 = 1;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;
/// The longest frame that the server takes; it refuses a longer one without reading it.
const MOST_FRAME: usize = 16 * 1024;
/// How much is read at once.
const READ: usize = 8 * 1024;

/// A client's connection.
#[derive(Debug)]
pub(crate) struct MendedStream {
    stream: UnixStream,
    place: Place,
    /// What was read, and how much of it may be given out.
    read: Vec<u8>,
    ready: usize,
    ended: bool,
}

/// Where in the client's bytes the first is that was not looked at.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Place {
    Preface,
    Frame,
    /// In a frame that is none of the request's fields.
    Rest(usize),
    /// In something that is not HTTP/2.
    Other,
}

impl MendedStream {
    pub(super) fn new(stream: UnixStream) -> Self {
        Self { stream, place: Place::Preface, read: Vec::new(), ready: 0, ended: false }
    }

    /// Looks at what was read, as far as it is whole.
    fn look(&mut self) {
        loop {
            let (place, unread) = (self.place, &mut self.read[self.ready..]);
            if unread.is_empty() {
                return;
            }
            let (taken, next) = match place {
                Place::Other => (unread.len(), Place::Other),
                Place::Preface if !PREFACE.starts_with(&unread[..unread.len().min(PREFACE.len())]) => (0, Place::Other),
                Place::Preface if unread.len() < PREFACE.len() => return,
                Place::Preface => (PREFACE.len(), Place::Frame),
                Place::Rest(left) => {
                    let taken = left.min(unread.len());
                    (taken, if taken == left { Place::Frame } else { Place::Rest(left - taken) })
                }
                Place::Frame => {
                    let Some((head, payload)) = unread.split_at_mut_checked(FRAME_HEAD) else { return };
                    let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
                    if head[3] != HEADERS || length > MOST_FRAME {
                        (FRAME_HEAD, if length == 0 { Place::Frame } else { Place::Rest(length) })
                    } else {
                        let Some(payload) = payload.get_mut(..length) else { return };
                        mend(head[4], payload);
                        (FRAME_HEAD + length, Place::Frame)
                    }
                }
            };
            (self.ready, self.place) = (self.ready + taken, next);
        }
    }
}

impl AsyncRead for MendedStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        while this.ready == 0 && !this.ended {
            let mut bytes = [0; READ];
            let mut read = ReadBuf::new(&mut bytes);
            ready!(Pin::new(&mut this.stream).poll_read(cx, &mut read))?;
            this.ended = read.filled().is_empty();
            this.read.extend_from_slice(read.filled());
            this.look();
        }
        // What is cut at the end is not mended.
        let given = if this.ready == 0 { this.read.len() } else { this.ready }.min(buf.remaining());
        buf.put_slice(&this.read[..given]);
        this.read.drain(..given);
        this.ready = this.ready.saturating_sub(given);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for MendedStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// Mends the authority in the payload of a HEADERS frame, if it is there as plain text. What is not understood stays as it
/// is, for the server to refuse.
fn mend(flags: u8, payload: &mut [u8]) {
    let before = usize::from(flags & PADDED != 0) + if flags & PRIORITY != 0 { 5 } else { 0 };
    let Some(fields) = payload.get_mut(before..) else { return };
    let mut at = 0;
    // In a whole block of fields `find` ends with what it found, or with nothing more to look at.
    if let Some(value) = find(fields, &mut at)
        && Authority::try_from(&*value).is_err()
    {
        for byte in value.iter_mut().filter(|byte| !byte.is_ascii_alphanumeric() && **byte != b'.') {
            *byte = b'-';
        }
    }
}

/// The value of the first field `:authority` (RFC 7541 §6).
fn find<'a>(fields: &'a mut [u8], at: &mut usize) -> Option<&'a mut [u8]> {
    loop {
        let first = *fields.get(*at)?;
        let index = match first {
            // A field that both sides know, or the size of what they know.
            0x80.. => {
                integer(fields, at, 7)?;
                continue;
            }
            0x20..0x40 => {
                integer(fields, at, 5)?;
                continue;
            }
            0x40.. => integer(fields, at, 6)?,
            _ => integer(fields, at, 4)?,
        };
        let is_authority = match index {
            0 => text(fields, at)?.is_some_and(|range| &fields[range] == b":authority"),
            index => index == 1,
        };
        let value = text(fields, at)?;
        if is_authority {
            return value.map(|range| &mut fields[range]);
        }
    }
}

/// A number whose first byte has this many bits of it (RFC 7541 §5.1).
fn integer(fields: &[u8], at: &mut usize, bits: u8) -> Option<usize> {
    let most = (1 << bits) - 1;
    let mut value = usize::from(*fields.get(*at)? & most);
    *at += 1;
    if value < usize::from(most) {
        return Some(value);
    }
    for shift in [0, 7, 14] {
        let next = *fields.get(*at)?;
        *at += 1;
        value += usize::from(next & 0x7f) << shift;
        if next & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

/// Where a text is (RFC 7541 §5.2); `Some(None)` if it is compressed.
#[expect(clippy::option_option, reason = "the outer one is for the end of the fields")]
fn text(fields: &[u8], at: &mut usize) -> Option<Option<std::ops::Range<usize>>> {
    let is_compressed = *fields.get(*at)? & 0x80 != 0;
    let length = integer(fields, at, 7)?;
    let range = *at..at.checked_add(length).filter(|end| *end <= fields.len())?;
    *at = range.end;
    Some((!is_compressed).then_some(range))
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    fn headers(flags: u8, block: &[u8]) -> Vec<u8> {
        let length = u32::try_from(block.len()).unwrap().to_be_bytes();
        [&length[1..], &[HEADERS, flags, 0, 0, 0, 1], block].concat()
    }

    fn literal(name: &str, value: &str) -> Vec<u8> {
        let text = |text: &str| [&[u8::try_from(text.len()).unwrap()], text.as_bytes()].concat();
        [&[0x40][..], &text(name), &text(value)].concat()
    }

    /// What the server reads of what a client sends in pieces.
    async fn mended(sent: &[u8], piece: usize) -> Vec<u8> {
        let (mut client, server) = UnixStream::pair().unwrap();
        let mut server = MendedStream::new(server);
        let mut read = Vec::new();
        let send = async {
            for piece in sent.chunks(piece) {
                client.write_all(piece).await.unwrap();
                tokio::task::yield_now().await;
            }
            drop(client);
        };
        tokio::join!(send, async { server.read_to_end(&mut read).await.unwrap() });
        read
    }

    #[tokio::test]
    async fn a_path_as_the_authority_becomes_a_name_of_the_same_length_and_nothing_else_changes() {
        let with = |authority: &str| {
            let block = [literal(":path", "/a/b%2F"), literal(":authority", authority), literal("x", "%2F")].concat();
            let by_index = [&[0x01, 3][..], b"a/b"].concat();
            let mended_index = if authority.contains('-') { [&[0x01, 3][..], b"a-b"].concat() } else { by_index };
            let padded = [&[2, 0, 0, 0, 0, 1][..], &block, &[0, 0]].concat();
            let settings = b"\0\0\0\x04\0\0\0\0\0";
            let data = b"\0\0\x09\0\0\0\0\0\x01:autho%2F";
            let frames =
                [headers(0x4, &block), headers(PADDED | PRIORITY, &padded), headers(0, &mended_index)].concat();
            [PREFACE, settings, &frames, data].concat()
        };
        let expected = with("run-2Fherd.sock");
        for piece in [1, 2, 7, 1000] {
            assert_eq!(mended(&with("run%2Fherd.sock"), piece).await, expected, "{piece}");
        }
        let good = with("localhost");
        let good = &good[..PREFACE.len() + 40];
        assert_eq!(mended(good, 3).await, good, "also when it is cut");
    }

    #[tokio::test]
    async fn what_is_not_understood_is_passed_on_as_it_came() {
        for block in
            [&[0xff; 9][..], &[0x40], &[0x40, 10, b':'], &[0x01, 0x83, 1, 2, 3], &[0x01, 0x7f, 0xff, 0xff, 0xff]]
        {
            let sent = [PREFACE, &headers(4, block)].concat();
            assert_eq!(mended(&sent, 5).await, sent);
        }
        for sent in [&b"GET /run%2Fherd HTTP/1.1\r\n\r\n"[..], b"PRI * HTTP/1.0", b"", b"P"] {
            assert_eq!(mended(sent, 4).await, sent);
        }
    }
}
