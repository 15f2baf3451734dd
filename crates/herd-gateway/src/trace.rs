use std::fmt;

use hyper::{
    HeaderMap, Method, StatusCode,
    header::{HeaderName, HeaderValue},
};

pub(crate) const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// How many bytes of `tracestate` are passed on. Vendors must be able to rely on 512 (Trace Context §3.3.1.5).
const MOST_STATE: usize = 512;

/// Follows requests through the gateway, for example to export them as spans.
///
/// Without one, `traceparent` and `tracestate` ([W3C Trace Context](https://www.w3.org/TR/trace-context/)) pass like any
/// other fields. With one, they pass only if they are well-formed.
pub trait Tracer: Send + Sync {
    /// A request came that is for a worker. Its `traceparent` and `tracestate` are well-formed or not there. `None`: it
    /// is not followed.
    ///
    /// It runs on a serving thread, so it must not block.
    fn begin(&self, method: &Method, headers: &HeaderMap) -> Option<Box<dyn Trace>>;
}

impl fmt::Debug for dyn Tracer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tracer")
    }
}

/// One request that a [`Tracer`] follows. Dropping it without [`end`](Self::end) means that the client went away before
/// there was a response.
pub trait Trace: Send + Sync {
    /// The `traceparent` that the worker gets instead of the client's.
    fn traceparent(&self) -> HeaderValue;

    /// The path that the worker will see, without the query. A session that the gateway found in the path is no part of
    /// it. It is not told of a request whose session is not known.
    fn path(&mut self, path: &str);

    /// A phase begins, and with it the one before ends: `lease`, `connect`, `send`, `end` or `relay`.
    fn phase(&mut self, name: &'static str);

    /// The last byte of the response is there, or its client went away.
    fn end(self: Box<Self>, end: &TraceEnd<'_>);
}

impl fmt::Debug for dyn Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Trace")
    }
}

/// What became of a request.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct TraceEnd<'a> {
    /// The status of its response.
    pub status: StatusCode,
    /// The pool that it went to; `None` if it got none.
    pub pool: Option<&'a str>,
    /// Whether it started its session; `None` if no worker answered.
    pub session_is_new: Option<bool>,
}

/// Drops trace fields that are not well-formed, so that whoever reads them later need not be wary.
pub(crate) fn sift(headers: &mut HeaderMap) {
    let has_parent = match only(headers, &TRACEPARENT) {
        Some(parent) => is_parent(parent.as_bytes()),
        None => false,
    };
    if !has_parent {
        headers.remove(TRACEPARENT);
    }
    // A state without its parent means nothing (§4.3).
    if !has_parent || !is_state(headers) {
        headers.remove(TRACESTATE);
    }
}

fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a HeaderValue> {
    let mut values = headers.get_all(name).iter();
    values.next().filter(|_| values.next().is_none())
}

/// `version-trace-parent-flags` in lower-case hexadecimal digits (§3.2).
fn is_parent(text: &[u8]) -> bool {
    let Some((known, rest)) = text.split_at_checked(55) else { return false };
    let dashes = [2, 35, 52];
    let well_formed = known.iter().enumerate().all(|(at, byte)| match dashes.contains(&at) {
        true => *byte == b'-',
        false => matches!(byte, b'0'..=b'9' | b'a'..=b'f'),
    });
    let is_some = |id: &[u8]| id.iter().any(|digit| *digit != b'0');
    // Later versions may add fields; this one must not have any, and 255 is none.
    let fits_version = match &text[..2] {
        b"00" => rest.is_empty(),
        b"ff" => false,
        _ => rest.first().is_none_or(|byte| *byte == b'-'),
    };
    well_formed && fits_version && is_some(&text[3..35]) && is_some(&text[36..52])
}

/// Up to 32 members `key=value`, separated by commas, over all fields of the name (§3.3).
fn is_state(headers: &HeaderMap) -> bool {
    let (mut members, mut bytes) = (0, 0);
    for field in headers.get_all(TRACESTATE) {
        bytes += field.len();
        for member in field.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
            if member.is_empty() {
                continue;
            }
            members += 1;
            let Some(equals) = member.iter().position(|byte| *byte == b'=') else { return false };
            let (key, value) = (&member[..equals], &member[equals + 1..]);
            if !is_state_key(key) || value.is_empty() || value.len() > 256 || !value.iter().all(is_state_value_byte) {
                return false;
            }
        }
    }
    members <= 32 && bytes <= MOST_STATE
}

fn is_state_key(key: &[u8]) -> bool {
    let is_part = |byte: &u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-' | b'*' | b'/' | b'@');
    let begins_well = key.first().is_some_and(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    begins_well && key.len() <= 256 && key.iter().all(is_part) && key.iter().filter(|byte| **byte == b'@').count() <= 1
}

/// Visible ASCII and spaces, without the characters that part members and their keys.
fn is_state_value_byte(byte: &u8) -> bool {
    matches!(byte, b' '..=b'~') && !matches!(byte, b',' | b'=')
}

#[cfg(test)]
#[path = "trace_tests.rs"]
mod tests;
