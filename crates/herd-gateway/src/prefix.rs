//! Prefixes of paths, compared so that no other reading of the path leads elsewhere.

use std::borrow::Cow;

use hyper::http::uri::PathAndQuery;

use crate::{failure::Failure, query::percent_decoded, routes::InvalidRoutes};

/// The first segments of a path. None: every path begins so.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Prefix {
    segments: Vec<String>,
}

impl Prefix {
    /// Reads `/api`, `/api/v1/` and the like.
    pub(crate) fn new(text: &str) -> Result<Self, InvalidRoutes> {
        let invalid = || InvalidRoutes::PathPrefix { prefix: text.to_owned() };
        let inner = text.strip_prefix('/').ok_or_else(invalid)?;
        let inner = inner.strip_suffix('/').unwrap_or(inner);
        if inner.is_empty() {
            return if text == "/" { Ok(Self { segments: Vec::new() }) } else { Err(invalid()) };
        }
        let segments: Vec<_> = inner.split('/').map(str::to_owned).collect();
        if segments.iter().all(|segment| is_plain(segment)) { Ok(Self { segments }) } else { Err(invalid()) }
    }

    /// What of the path follows the prefix, beginning with a slash or empty; `None` if the path begins otherwise.
    ///
    /// Servers do not agree on what a path means: whether `//` is `/`, `%2f` or `\` separates segments, and `;x` belongs
    /// to a segment's name. Here a segment ends with a slash as it stands, and is compared percent-decoded. A path that
    /// fits in this reading and in no other, or the other way round, is refused.
    pub(crate) fn fit<'a>(&self, path: &'a str) -> Result<Option<&'a str>, Failure> {
        let read = self.read(path);
        if path.bytes().all(is_unambiguous) && !path.contains("//") && !path.contains("/.") {
            return Ok(read);
        }
        let lenient = LenientSegments::of(path)?;
        let mut pairs = self.segments.iter().zip(&lenient.known);
        let begins = pairs.all(|(ours, theirs)| ours.as_bytes() == theirs.as_slice());
        let is_short = lenient.known.len() < self.segments.len();
        if begins && is_short && lenient.goes_on {
            return Err(AMBIGUOUS);
        }
        if (begins && !is_short) == read.is_some() { Ok(read) } else { Err(AMBIGUOUS) }
    }

    /// Reads the path as this gateway does.
    fn read<'a>(&self, path: &'a str) -> Option<&'a str> {
        let mut rest = path;
        for ours in &self.segments {
            let inner = rest.strip_prefix('/')?;
            let end = inner.find('/').unwrap_or(inner.len());
            if *decoded(&inner[..end]) != *ours.as_bytes() {
                return None;
            }
            rest = &inner[end..];
        }
        Some(rest)
    }

    /// The target with only this `rest` of its path.
    pub(crate) fn strip(&self, target: &PathAndQuery, rest: &str) -> PathAndQuery {
        let slash = if rest.is_empty() { "/" } else { "" };
        let (question_mark, query) = target.query().map_or(("", ""), |query| ("?", query));
        PathAndQuery::try_from(format!("{slash}{rest}{question_mark}{query}")).expect("a part of a valid target is one")
    }
}

const AMBIGUOUS: Failure =
    Failure::Malformed("the request's path can be read in two ways, and they do not lead to the same place");

/// A segment that every server reads as it stands.
fn is_plain(segment: &str) -> bool {
    !matches!(segment, "" | "." | "..")
        && segment.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,=:@".contains(&byte))
}

/// Whether the byte means the same to every server, wherever in a path it stands.
fn is_unambiguous(byte: u8) -> bool {
    !matches!(byte, b'%' | b'\\' | b';')
}

/// What cannot be decoded stays as it is.
fn decoded(segment: &str) -> Cow<'_, [u8]> {
    percent_decoded(segment).unwrap_or(Cow::Borrowed(segment.as_bytes()))
}

/// The path's segments as the server reads them that knows the most ways to part them. A path that begins with some
/// plain segments in any reading begins with them in this one.
struct LenientSegments {
    known: Vec<Vec<u8>>,
    /// There are more, but what they are depends on the order in which a server does things.
    goes_on: bool,
}

impl LenientSegments {
    fn of(path: &str) -> Result<Self, Failure> {
        let mut segments = Self { known: Vec::new(), goes_on: false };
        for written in path.split('/') {
            let Ok(decoded) = percent_decoded(written) else {
                return Err(Failure::Malformed("the request's path has a % that two hexadecimal digits do not follow"));
            };
            let is_separator = |byte: &u8| matches!(byte, b'/' | b'\\');
            // Whether the separator belongs to what the semicolon begins depends on which of them is looked for first.
            segments.goes_on |= decoded.contains(&b';') && decoded.iter().any(is_separator);
            for part in decoded.split(is_separator) {
                let name = part.split(|byte| *byte == b';').next().unwrap_or_default();
                if matches!(name, b"." | b"..") {
                    return Err(Failure::Malformed("the request's path has dot segments; resolve them before"));
                }
                if !name.is_empty() && !segments.goes_on {
                    segments.known.push(name.to_vec());
                }
            }
        }
        Ok(segments)
    }
}

#[cfg(test)]
#[path = "prefix_tests.rs"]
mod tests;
