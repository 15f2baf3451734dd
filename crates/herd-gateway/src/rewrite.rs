//! Turns a client's request into the worker's, and a worker's response into the client's.

use std::time::Duration;

use herd_pool::{Protocol, SessionId};
use hyper::{
    HeaderMap, Request, Response, Uri, Version,
    body::Body,
    header::{
        AUTHORIZATION, CONNECTION, CONTENT_LENGTH, COOKIE, Entry, HOST, HeaderName, HeaderValue, SET_COOKIE, TE,
        TRAILER, TRANSFER_ENCODING, UPGRADE,
    },
    http::uri::{Authority, PathAndQuery, Scheme},
};

use crate::{
    admit::{Survey, has_token, tokens},
    options::Forwarded,
    session_key::{Named, WORKER_HEADER},
    wish::HERD_SESSION,
};

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const HTTP2_SETTINGS: HeaderName = HeaderName::from_static("http2-settings");
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const HERD_WORKER: HeaderName = HeaderName::from_static("herd-worker");

/// What a rewrite needs to know beyond the request.
pub(crate) struct Rewrite<'a> {
    /// What the worker speaks.
    pub(crate) protocol: Protocol,
    /// The session, and the path that the worker gets.
    pub(crate) named: &'a mut Named,
    /// The client's address as `x-forwarded-for` tells it.
    pub(crate) client: Option<&'a HeaderValue>,
    pub(crate) forwarded: Forwarded,
    /// What the client speaks, as `x-forwarded-proto` tells it.
    pub(crate) scheme: &'static str,
    /// The protocol to which the connection may change.
    pub(crate) upgrade: Option<&'a HeaderValue>,
}

/// Makes the head of a client's request that of a request to the worker.
pub(crate) fn request<B: Body>(request: &mut Request<B>, survey: &Survey, to: &mut Rewrite<'_>) {
    let has_body = !request.body().is_end_stream();
    let wants_trailers = survey.te && request.headers().get_all(TE).iter().any(|value| has_token(value, "trailers"));
    if survey.cookie && request.version() == Version::HTTP_2 {
        join_cookies(request.headers_mut());
    }
    set_host(request, survey);
    let headers = request.headers_mut();
    remove_hop_by_hop(headers, survey);
    set_forwarded(headers, to);
    // A client may have listed the field in `connection`, so look after that has taken effect.
    if !to.named.in_worker_header || (survey.connection && !headers.contains_key(WORKER_HEADER)) {
        headers.insert(WORKER_HEADER, session_value(&to.named.session));
    }
    if wants_trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
    match to.protocol {
        Protocol::Http1 => {
            if let Some(protocol) = to.upgrade {
                headers.insert(UPGRADE, protocol.clone());
                headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
            } else if wants_trailers {
                headers.insert(CONNECTION, HeaderValue::from_static("te"));
            }
            if has_body && !headers.contains_key(CONTENT_LENGTH) {
                headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
            }
            *request.version_mut() = Version::HTTP_11;
            set_origin_form(request, to.named.path.take());
        }
        Protocol::Http2 => {
            *request.version_mut() = Version::HTTP_2;
            set_absolute_form(request, to.named.path.take());
        }
    }
}

fn session_value(session: &SessionId) -> HeaderValue {
    HeaderValue::from_str(session.as_str()).expect("visible ASCII makes a field value")
}

/// HTTP/2 may send a cookie's parts in fields of their own, HTTP/1.1 may not (RFC 9113 §8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    if let Entry::Occupied(entry) = headers.entry(COOKIE)
        && entry.iter().nth(1).is_some()
    {
        let joined = entry.iter().map(HeaderValue::as_bytes).collect::<Vec<_>>().join(&b"; "[..]);
        entry.remove_entry_mult();
        headers.insert(COOKIE, HeaderValue::from_bytes(&joined).expect("joined field values make a field value"));
    }
}

/// Sees to it that the host field names the target: where the request line has an authority, that one counts
/// (RFC 9112 §3.2.2), and a worker that speaks HTTP/1.1 must get one even from an HTTP/1.0 client.
fn set_host<B>(request: &mut Request<B>, survey: &Survey) {
    let host = match request.uri().authority() {
        Some(authority) => HeaderValue::from_str(authority.as_str()).expect("an authority makes a field value"),
        None if survey.host => return,
        None => HeaderValue::from_static("localhost"),
    };
    request.headers_mut().insert(HOST, host);
}

fn set_origin_form<B>(request: &mut Request<B>, path: Option<PathAndQuery>) {
    if let Some(path) = path {
        *request.uri_mut() = path.into();
    } else if request.uri().authority().is_some() {
        let path = request.uri().path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
        *request.uri_mut() = path.into();
    }
}

/// HTTP/2 carries scheme and authority in the request line, as it were, and no host field.
fn set_absolute_form<B>(request: &mut Request<B>, path: Option<PathAndQuery>) {
    let host = request.headers_mut().remove(HOST);
    let authority = host.and_then(|host| Authority::try_from(host.as_bytes()).ok());
    let mut parts = std::mem::take(request.uri_mut()).into_parts();
    parts.scheme = Some(Scheme::HTTP);
    parts.authority = Some(authority.unwrap_or_else(|| Authority::from_static("localhost")));
    parts.path_and_query = path.or(parts.path_and_query).or_else(|| Some(PathAndQuery::from_static("/")));
    *request.uri_mut() = Uri::from_parts(parts).expect("all three parts are there");
}

/// Removes the fields that concern one connection only (RFC 9110 §7.6.1).
fn remove_hop_by_hop(headers: &mut HeaderMap, survey: &Survey) {
    if survey.connection
        && let Entry::Occupied(connection) = headers.entry(CONNECTION)
    {
        let mut listed = Vec::new();
        for value in connection.remove_entry_mult().1 {
            // Nearly all say one of these, which name no field that would not go anyway.
            let others = tokens(&value)
                .filter(|token| !token.eq_ignore_ascii_case(b"keep-alive") && !token.eq_ignore_ascii_case(b"close"));
            listed.extend(others.filter_map(|token| HeaderName::from_bytes(token).ok()));
        }
        for name in listed {
            // These belong to the message: who lists them wants to have the next hop read another one.
            if name != HOST && name != CONTENT_LENGTH {
                headers.remove(name);
            }
        }
    }
    if survey.keep_alive {
        headers.remove(KEEP_ALIVE);
    }
    if survey.obsolete {
        headers.remove(PROXY_CONNECTION);
        headers.remove(HTTP2_SETTINGS);
    }
    if survey.te {
        headers.remove(TE);
    }
    if survey.transfer_encoding {
        headers.remove(TRANSFER_ENCODING);
    }
    if survey.upgrade {
        headers.remove(UPGRADE);
    }
}

fn set_forwarded(headers: &mut HeaderMap, to: &Rewrite<'_>) {
    let client = to.client;
    let host = headers.get(HOST).cloned();
    let proto = HeaderValue::from_static(to.scheme);
    match to.forwarded {
        Forwarded::Replace => {
            match client {
                Some(client) => headers.insert(FORWARDED_FOR, client.clone()),
                None => headers.remove(FORWARDED_FOR),
            };
            match host {
                Some(host) => headers.insert(FORWARDED_HOST, host),
                None => headers.remove(FORWARDED_HOST),
            };
            headers.insert(FORWARDED_PROTO, proto);
        }
        Forwarded::Append => {
            if let Some(client) = client {
                let earlier = headers.get_all(FORWARDED_FOR).iter().chain([client]).map(HeaderValue::as_bytes);
                let chain = earlier.collect::<Vec<_>>().join(&b", "[..]);
                let chain = HeaderValue::from_bytes(&chain).expect("joined field values make a field value");
                headers.insert(FORWARDED_FOR, chain);
            }
            if let Some(host) = host {
                headers.entry(FORWARDED_HOST).or_insert(host);
            }
            headers.entry(FORWARDED_PROTO).or_insert(proto);
        }
    }
}

/// Makes the head of a worker's response that of a response to the client.
///
/// Returns how long the worker says it will keep the connection, if it says so.
pub(crate) fn response<B>(
    response: &mut Response<B>,
    worker: HeaderValue,
    is_new: bool,
    named: &Named,
) -> Option<Duration> {
    // What `version` the worker speaks is between it and the gateway.
    *response.version_mut() = Version::HTTP_11;
    let headers = response.headers_mut();
    let survey = Survey::of(headers);
    let keep_alive = if survey.keep_alive { headers.get(KEEP_ALIVE).and_then(keep_alive_timeout) } else { None };
    // With a transfer-encoding, a content-length says nothing (RFC 9112 §6.3), so nobody must be told it.
    if survey.transfer_encoding {
        headers.remove(CONTENT_LENGTH);
    }
    remove_hop_by_hop(headers, &survey);
    if survey.own {
        remove_own(headers);
    }
    headers.insert(HERD_WORKER, worker);
    headers.insert(HERD_SESSION, HeaderValue::from_static(if is_new { "new" } else { "resumed" }));
    if let Some(cookie) = &named.new_cookie {
        headers.append(SET_COOKIE, HeaderValue::from_str(cookie).expect("a token and an ID make a field value"));
    }
    keep_alive
}

/// Marks the response as one that changes the protocol. The worker has answered so, and it was asked to.
pub(crate) fn switching<B>(response: &mut Response<B>, protocol: HeaderValue) {
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("upgrade"));
    response.headers_mut().insert(UPGRADE, protocol);
}

/// Removes what only the gateway says: a worker must not pass for it.
pub(crate) fn remove_own(headers: &mut HeaderMap) {
    while let Some(name) = headers.keys().find(|name| name.as_str().starts_with("herd-")).cloned() {
        headers.remove(name);
    }
}

/// Removes from a request's trailers what would mean something else to a worker that takes trailers for fields of the
/// head (RFC 9110 §6.5.1).
pub(crate) fn request_trailers(trailers: &mut HeaderMap) {
    for name in [HOST, CONTENT_LENGTH, TRANSFER_ENCODING, CONNECTION, TE, UPGRADE, COOKIE, AUTHORIZATION, TRAILER] {
        trailers.remove(name);
    }
    for name in [WORKER_HEADER, FORWARDED_FOR, FORWARDED_HOST, FORWARDED_PROTO, HERD_SESSION] {
        trailers.remove(name);
    }
}

/// Reads `timeout=N` from a keep-alive field, in which servers announce when they close an idle connection.
fn keep_alive_timeout(value: &HeaderValue) -> Option<Duration> {
    let text = value.to_str().ok()?;
    let seconds = text.split(',').find_map(|part| part.trim().strip_prefix("timeout="))?;
    seconds.parse().ok().map(Duration::from_secs)
}

#[cfg(test)]
#[path = "rewrite_tests.rs"]
mod tests;
