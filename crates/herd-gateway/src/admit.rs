//! Refuses requests that a worker might read in another way than the gateway did.

use hyper::{
    Method, Request, Version,
    body::Body,
    header::{CONNECTION, CONTENT_LENGTH, HOST, HeaderMap, HeaderValue, TRANSFER_ENCODING, UPGRADE},
    http::uri::Scheme,
};

use crate::failure::Failure;

/// Which of the fields that concern the gateway a head has.
///
/// It is found in one pass over the names: most heads have hardly any of them, and looking for each costs far more.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Survey {
    pub(crate) connection: bool,
    pub(crate) cookie: bool,
    pub(crate) expect: bool,
    pub(crate) host: bool,
    pub(crate) keep_alive: bool,
    /// Other fields that concern one connection and go without being looked at.
    pub(crate) obsolete: bool,
    pub(crate) te: bool,
    pub(crate) transfer_encoding: bool,
    pub(crate) upgrade: bool,
    /// A field that only the gateway itself sends.
    pub(crate) own: bool,
    /// Some field comes more than once.
    pub(crate) repeats: bool,
}

impl Survey {
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        let mut survey = Self { repeats: headers.len() != headers.keys_len(), ..Self::default() };
        for name in headers.keys() {
            match name.as_str() {
                "connection" => survey.connection = true,
                "cookie" => survey.cookie = true,
                "expect" => survey.expect = true,
                "host" => survey.host = true,
                "keep-alive" => survey.keep_alive = true,
                "http2-settings" | "proxy-connection" => survey.obsolete = true,
                "te" => survey.te = true,
                "transfer-encoding" => survey.transfer_encoding = true,
                "upgrade" => survey.upgrade = true,
                name => survey.own |= name.starts_with("herd-"),
            }
        }
        survey
    }
}

/// Checks what the HTTP parser leaves open: the request's framing, its target and its host.
///
/// `sent_length` tells whether the raw head of the request had a `content-length`, which the parser drops without a
/// word beside a `transfer-encoding`.
pub(crate) fn check<B>(
    request: &Request<B>,
    survey: &Survey,
    sent_length: impl FnOnce() -> bool,
) -> Result<(), Failure> {
    if request.method() == Method::CONNECT {
        return Err(Failure::Unsupported("the gateway opens no tunnels: CONNECT is not supported"));
    }
    if survey.transfer_encoding {
        check_framing(request.headers(), sent_length)?;
    }
    check_target(request)?;
    check_host(request, survey)
}

fn check_framing(headers: &HeaderMap, sent_length: impl FnOnce() -> bool) -> Result<(), Failure> {
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    let Some(coding) = codings.next() else { return Ok(()) };
    if headers.contains_key(CONTENT_LENGTH) || sent_length() {
        return Err(Failure::Malformed("the request has both a content-length and a transfer-encoding"));
    }
    if codings.next().is_some() || !coding.as_bytes().eq_ignore_ascii_case(b"chunked") {
        return Err(Failure::Malformed("the only transfer-encoding that is understood is chunked, once"));
    }
    Ok(())
}

/// A target has one of three forms (RFC 9112 §3.2): a path, a URI, or, to ask about the server as such, an asterisk.
fn check_target<B>(request: &Request<B>) -> Result<(), Failure> {
    let uri = request.uri();
    let is_fit = match uri.scheme() {
        Some(scheme) => *scheme == Scheme::HTTP || *scheme == Scheme::HTTPS,
        None if uri.authority().is_some() => false,
        None => uri.path().starts_with('/') || (uri.path() == "*" && request.method() == Method::OPTIONS),
    };
    if is_fit { Ok(()) } else { Err(Failure::Malformed("the request's target is neither a path nor an HTTP URI")) }
}

fn check_host<B>(request: &Request<B>, survey: &Survey) -> Result<(), Failure> {
    let host = request.headers().get(HOST);
    if survey.repeats && request.headers().get_all(HOST).iter().nth(1).is_some() {
        return Err(Failure::Malformed("the request has more than one host field"));
    }
    if host.is_some_and(|host| !host.as_bytes().iter().all(|byte| is_host_byte(*byte))) {
        return Err(Failure::Malformed("the host field is not a host and port"));
    }
    let authority = request.uri().authority();
    if authority.is_some_and(|authority| !authority.as_str().bytes().all(is_host_byte)) {
        return Err(Failure::Malformed("the authority of the request's target is not a host and port"));
    }
    match request.version() {
        Version::HTTP_11 if host.is_none() => Err(Failure::Malformed("the request has no host field")),
        Version::HTTP_2 => match (host, authority) {
            (None, None) => Err(Failure::Malformed("the request has no authority")),
            (Some(host), Some(authority)) if !host.as_bytes().eq_ignore_ascii_case(authority.as_str().as_bytes()) => {
                Err(Failure::Malformed("the host field contradicts the request's authority"))
            }
            _ => Ok(()),
        },
        _ => Ok(()),
    }
}

/// Whether the byte may stand in a host and port; user information, lists and paths may not.
fn is_host_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~' | b':' | b'[' | b']' | b'%')
}

/// The protocol that the request asks to change to, if the gateway passes that on.
///
/// A change to HTTP/2 is not: what a client then says on the connection would not be looked at by the gateway.
pub(crate) fn wanted_upgrade<'a, B: Body>(request: &'a Request<B>, survey: &Survey) -> Option<&'a HeaderValue> {
    if !survey.upgrade {
        return None;
    }
    let wanted = request.headers().get(UPGRADE)?;
    let asked = request.version() == Version::HTTP_11
        && request.body().is_end_stream()
        && request.headers().get_all(CONNECTION).iter().any(|value| has_token(value, "upgrade"));
    (asked && !has_token(wanted, "h2c")).then_some(wanted)
}

/// Whether the list has the token, in any case.
pub(crate) fn has_token(list: &HeaderValue, token: &str) -> bool {
    tokens(list).any(|found| found.eq_ignore_ascii_case(token.as_bytes()))
}

/// The elements of a comma-separated list (RFC 9110 §5.6.1).
pub(crate) fn tokens(list: &HeaderValue) -> impl Iterator<Item = &[u8]> {
    list.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii).filter(|token| !token.is_empty())
}
