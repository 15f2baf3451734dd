//! Reads a worker's HTTP/1.1 responses (RFC 9112) out of a buffer. It does no I/O, and trusts nothing.

use std::mem::MaybeUninit;

use bytes::{Buf, Bytes, BytesMut};
use hyper::{
    HeaderMap, Method, StatusCode,
    header::{CONNECTION, CONTENT_LENGTH, HeaderName, HeaderValue, TRANSFER_ENCODING},
};

use crate::admit::has_token;

/// The longest head of a response, and the longest trailers.
const MAX_HEAD: usize = 64 * 1024;

/// The most fields in one of them.
const MAX_FIELDS: usize = 128;

/// The longest line that begins a chunk; it may carry extensions, which nobody uses.
const MAX_SIZE_LINE: usize = 4096;

/// What a worker sent cannot be read, or can be read in more than one way.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct NotHttp;

/// The head of a response.
#[derive(Debug)]
pub(crate) struct Head {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    /// Whether the worker keeps the connection after the response.
    pub(crate) keeps_alive: bool,
    pub(crate) body: Decoder,
}

/// Finds the end of a head, or of trailers, in bytes that may grow from call to call.
#[derive(Debug, Default)]
pub(crate) struct EndOfHead {
    scanned: usize,
}

impl EndOfHead {
    /// The length of the head with the empty line that ends it, once that line is there.
    fn find(&mut self, bytes: &[u8]) -> Result<Option<usize>, NotHttp> {
        loop {
            let Some(line) = line_len(&bytes[self.scanned..]) else {
                self.scanned = bytes.len();
                break;
            };
            let end = self.scanned + line;
            match bytes[end..] {
                [b'\n', ..] => return Ok(Some(end + 1)),
                [b'\r', b'\n', ..] => return Ok(Some(end + 2)),
                [] | [b'\r'] => {
                    self.scanned = end - 1;
                    break;
                }
                _ => self.scanned = end,
            }
        }
        if bytes.len() > MAX_HEAD { Err(NotHttp) } else { Ok(None) }
    }
}

/// The length of the first line with the line feed that ends it.
fn line_len(bytes: &[u8]) -> Option<usize> {
    bytes.iter().position(|byte| *byte == b'\n').map(|at| at + 1)
}

/// Takes the head of a response from the buffer, once it is complete.
pub(crate) fn head(buffer: &mut BytesMut, end: &mut EndOfHead, asked: &Method) -> Result<Option<Head>, NotHttp> {
    let Some(len) = end.find(buffer)? else { return Ok(None) };
    *end = EndOfHead::default();
    if len > MAX_HEAD {
        return Err(NotHttp);
    }
    let bytes = buffer.split_to(len).freeze();
    let mut fields = [const { MaybeUninit::uninit() }; MAX_FIELDS];
    let mut response = httparse::Response::new(&mut []);
    let parsed = httparse::ParserConfig::default()
        .parse_response_with_uninit_headers(&mut response, &bytes, &mut fields)
        .map_err(|_| NotHttp)?;
    if parsed != httparse::Status::Complete(len) {
        return Err(NotHttp);
    }
    let status = response.code.and_then(|code| StatusCode::from_u16(code).ok()).ok_or(NotHttp)?;
    let is_1_1 = response.version == Some(1);
    let headers = owned(&bytes, response.headers)?;
    let mut connection = headers.get_all(CONNECTION).iter();
    let mut keeps_alive = if is_1_1 {
        !connection.any(|value| has_token(value, "close"))
    } else {
        connection.any(|value| has_token(value, "keep-alive"))
    };
    let body = framing(&headers, status, is_1_1, asked)?;
    if matches!(body, Decoder::UntilEnd) || (matches!(body, Decoder::Chunk(_)) && headers.contains_key(CONTENT_LENGTH))
    {
        keeps_alive = false;
    }
    Ok(Some(Head { status, headers, keeps_alive, body }))
}

/// The parsed fields as slices of the bytes they were parsed from.
fn owned(bytes: &Bytes, fields: &[httparse::Header<'_>]) -> Result<HeaderMap, NotHttp> {
    // There is room for what the gateway adds.
    let mut headers = HeaderMap::with_capacity(fields.len() + 4);
    for field in fields {
        let name = HeaderName::from_bytes(field.name.as_bytes()).map_err(|_| NotHttp)?;
        let value = HeaderValue::from_maybe_shared(bytes.slice_ref(field.value)).map_err(|_| NotHttp)?;
        headers.append(name, value);
    }
    Ok(headers)
}

/// How the body of a response ends (RFC 9112 §6.3).
fn framing(headers: &HeaderMap, status: StatusCode, is_1_1: bool, asked: &Method) -> Result<Decoder, NotHttp> {
    let is_bodiless = *asked == Method::HEAD
        || status.is_informational()
        || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    let length = content_length(headers)?;
    if let Some(coding) = codings.next() {
        if !is_1_1 || codings.next().is_some() || !coding.as_bytes().eq_ignore_ascii_case(b"chunked") {
            return Err(NotHttp);
        }
        return Ok(if is_bodiless { Decoder::Done } else { Decoder::Chunk(Chunk::Size) });
    }
    Ok(match length {
        _ if is_bodiless => Decoder::Done,
        Some(0) => Decoder::Done,
        Some(length) => Decoder::Length(length),
        None => Decoder::UntilEnd,
    })
}

/// The length that all `content-length` fields agree on.
fn content_length(headers: &HeaderMap) -> Result<Option<u64>, NotHttp> {
    let mut length = None;
    for value in headers.get_all(CONTENT_LENGTH) {
        let digits =
            value.to_str().ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit())).ok_or(NotHttp)?;
        let found: u64 = digits.parse().map_err(|_| NotHttp)?;
        if length.is_some_and(|earlier| earlier != found) {
            return Err(NotHttp);
        }
        length = Some(found);
    }
    Ok(length)
}

/// Takes a body from a buffer, piece by piece.
#[derive(Debug)]
pub(crate) enum Decoder {
    /// So many bytes are to come.
    Length(u64),
    /// Chunks are to come.
    Chunk(Chunk),
    /// Whatever comes until the connection ends.
    UntilEnd,
    /// Nothing more.
    Done,
}

/// Where in a chunked body (RFC 9112 §7.1) the next byte stands.
#[derive(Debug)]
pub(crate) enum Chunk {
    /// At the start of a line with a size.
    Size,
    /// In a chunk of which so many bytes are to come.
    Data(u64),
    /// After a chunk's data.
    DataEnd,
    /// After the last chunk.
    Trailers(EndOfHead),
}

/// A part of a body.
#[derive(Debug)]
pub(crate) enum Piece {
    Data(Bytes),
    Trailers(HeaderMap),
}

impl Decoder {
    pub(crate) fn is_done(&self) -> bool {
        matches!(self, Self::Done)
    }

    /// Takes what the buffer holds of the next piece. `None` means that the buffer holds nothing of it, or that there
    /// is none because the body is [done](Self::is_done).
    pub(crate) fn decode(&mut self, buffer: &mut BytesMut) -> Result<Option<Piece>, NotHttp> {
        loop {
            match self {
                Self::Done => return Ok(None),
                Self::UntilEnd => return Ok((!buffer.is_empty()).then(|| Piece::Data(buffer.split().freeze()))),
                Self::Length(left) => {
                    let data = up_to(buffer, left);
                    if *left == 0 {
                        *self = Self::Done;
                    }
                    return Ok(data.map(Piece::Data));
                }
                Self::Chunk(Chunk::Data(left)) => {
                    let data = up_to(buffer, left);
                    if *left == 0 {
                        *self = Self::Chunk(Chunk::DataEnd);
                    }
                    return Ok(data.map(Piece::Data));
                }
                Self::Chunk(Chunk::DataEnd) => {
                    match buffer[..] {
                        [b'\r', b'\n', ..] => buffer.advance(2),
                        [] | [b'\r'] => return Ok(None),
                        _ => return Err(NotHttp),
                    }
                    *self = Self::Chunk(Chunk::Size);
                }
                Self::Chunk(Chunk::Size) => {
                    let Some(size) = chunk_size(buffer)? else { return Ok(None) };
                    *self =
                        Self::Chunk(if size == 0 { Chunk::Trailers(EndOfHead::default()) } else { Chunk::Data(size) });
                }
                Self::Chunk(Chunk::Trailers(end)) => {
                    match buffer[..] {
                        [] | [b'\r'] => return Ok(None),
                        [b'\r', b'\n', ..] => {
                            buffer.advance(2);
                            *self = Self::Done;
                            return Ok(None);
                        }
                        _ => {}
                    }
                    let Some(len) = end.find(buffer)? else { return Ok(None) };
                    let bytes = buffer.split_to(len).freeze();
                    *self = Self::Done;
                    return trailers(&bytes).map(Piece::Trailers).map(Some);
                }
            }
        }
    }

    /// Whether the body may end here because the connection does.
    pub(crate) fn may_end(&self) -> bool {
        matches!(self, Self::UntilEnd | Self::Done)
    }
}

/// Takes at most `left` bytes and counts them down.
fn up_to(buffer: &mut BytesMut, left: &mut u64) -> Option<Bytes> {
    let len = usize::try_from(*left).unwrap_or(usize::MAX).min(buffer.len());
    *left -= len as u64;
    (len > 0).then(|| buffer.split_to(len).freeze())
}

/// Takes the line that begins a chunk.
fn chunk_size(buffer: &mut BytesMut) -> Result<Option<u64>, NotHttp> {
    let Some(end) = line_len(buffer).map(|len| len - 1) else {
        return if buffer.len() > MAX_SIZE_LINE { Err(NotHttp) } else { Ok(None) };
    };
    let line = buffer[..end].strip_suffix(b"\r").ok_or(NotHttp)?;
    if line.len() > MAX_SIZE_LINE || line.contains(&b'\r') {
        return Err(NotHttp);
    }
    let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
    let rest = line[digits..].trim_ascii_start();
    if !(1..=16).contains(&digits) || !(rest.is_empty() || rest[0] == b';') {
        return Err(NotHttp);
    }
    let text = std::str::from_utf8(&line[..digits]).map_err(|_| NotHttp)?;
    let size = u64::from_str_radix(text, 16).map_err(|_| NotHttp)?;
    buffer.advance(end + 1);
    Ok(Some(size))
}

fn trailers(bytes: &Bytes) -> Result<HeaderMap, NotHttp> {
    let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
    match httparse::parse_headers(bytes, &mut fields) {
        Ok(httparse::Status::Complete((len, fields))) if len == bytes.len() => owned(bytes, fields),
        _ => Err(NotHttp),
    }
}

#[cfg(test)]
#[path = "decode_tests.rs"]
mod tests;
