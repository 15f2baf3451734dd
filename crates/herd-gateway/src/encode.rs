//! Writes requests to workers in HTTP/1.1 (RFC 9112). It does no I/O.

use std::io::{IoSlice, Write};

use bytes::{Buf, Bytes};
use hyper::{HeaderMap, Request};

/// What follows the data of a chunk, and what ends the last one.
const END_OF_CHUNK: &[u8] = b"\r\n";
const END_OF_CHUNKS: &[u8] = b"0\r\n\r\n";

/// How a request's body is framed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Framing {
    /// So many bytes are to come.
    Length(u64),
    Chunked,
}

/// Bytes on their way to a worker: text, then the data of a body, then some more text.
#[derive(Debug, Default)]
pub(crate) struct Outgoing {
    text: Vec<u8>,
    text_sent: usize,
    data: Bytes,
    tail: &'static [u8],
}

impl Outgoing {
    /// Begins with a request's head. What was written of an earlier one is forgotten.
    pub(crate) fn start<B>(&mut self, request: &Request<B>) {
        self.text.clear();
        self.text_sent = 0;
        let target = request.uri().path_and_query().map_or("/", |target| target.as_str());
        for part in [request.method().as_str().as_bytes(), b" ", target.as_bytes(), b" HTTP/1.1\r\n"] {
            self.text.extend_from_slice(part);
        }
        self.fields(request.headers());
    }

    /// Begins with a head that was sent on another connection.
    pub(crate) fn start_again(&mut self, head: Vec<u8>) {
        (self.text, self.text_sent) = (head, 0);
    }

    /// Gives the head back that it began with.
    pub(crate) fn into_head(self) -> Vec<u8> {
        self.text
    }

    fn fields(&mut self, fields: &HeaderMap) {
        for (name, value) in fields {
            for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
                self.text.extend_from_slice(part);
            }
        }
        self.text.extend_from_slice(b"\r\n");
    }

    /// Adds a piece of the body. False if it exceeds the announced length.
    #[must_use]
    pub(crate) fn data(&mut self, data: Bytes, framing: &mut Framing) -> bool {
        if data.is_empty() {
            // An empty chunk would end the body.
            return true;
        }
        match framing {
            Framing::Chunked => {
                write!(self.text, "{:x}\r\n", data.len()).expect("a vector takes all");
                self.tail = END_OF_CHUNK;
            }
            Framing::Length(left) => match left.checked_sub(data.len() as u64) {
                Some(rest) => *left = rest,
                None => return false,
            },
        }
        self.data = data;
        true
    }

    /// Ends the body. False if that is too early for the announced length.
    #[must_use]
    pub(crate) fn end(&mut self, framing: Framing, trailers: Option<&HeaderMap>) -> bool {
        match (framing, trailers) {
            (Framing::Length(left), _) => return left == 0,
            (Framing::Chunked, None) => self.text.extend_from_slice(END_OF_CHUNKS),
            (Framing::Chunked, Some(trailers)) => {
                self.text.extend_from_slice(b"0\r\n");
                self.fields(trailers);
            }
        }
        true
    }

    /// Whether nothing is left to be sent.
    pub(crate) fn is_sent(&self) -> bool {
        self.text_sent == self.text.len() && self.data.is_empty() && self.tail.is_empty()
    }

    /// Whether nothing of it was sent.
    pub(crate) fn is_unsent(&self) -> bool {
        self.text_sent == 0
    }

    /// Whether a piece of the body can be added.
    pub(crate) fn has_room(&self) -> bool {
        self.data.is_empty() && self.tail.is_empty()
    }

    /// What is to be sent, in order.
    pub(crate) fn slices(&self) -> [IoSlice<'_>; 3] {
        [IoSlice::new(&self.text[self.text_sent..]), IoSlice::new(&self.data), IoSlice::new(self.tail)]
    }

    /// So many bytes were sent.
    pub(crate) fn advance(&mut self, sent: usize) {
        let of_text = sent.min(self.text.len() - self.text_sent);
        self.text_sent += of_text;
        let of_data = (sent - of_text).min(self.data.len());
        self.data.advance(of_data);
        self.tail = &self.tail[sent - of_text - of_data..];
    }

    /// Forgets text that was sent, to make room for more. A head without a body is kept: it may have to be sent again.
    pub(crate) fn forget_sent(&mut self) {
        self.text.clear();
        self.text_sent = 0;
    }
}
