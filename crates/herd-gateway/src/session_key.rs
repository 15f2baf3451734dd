use std::{fmt, str::FromStr};

use herd_pool::{InvalidSessionId, SessionId};
use hyper::{
    Method, Request,
    header::{self, HeaderName},
    http::uri::PathAndQuery,
};

use crate::{
    query::{self, percent_decoded},
    routes::host_of,
    wish::HERD_SESSION,
};

/// Where a request says which session it belongs to.
///
/// Written `header:NAME`, `cookie:NAME`, `query:NAME`, `path:N`, `host`, or several of them joined by commas, which are
/// tried in that order. The default is `header:X-Session-ID`.
///
/// - `header:NAME`: the value of that field. Sent twice with two values, the request is refused.
/// - `cookie:NAME`: the value of that cookie. If no source gives an ID, the gateway makes one and sets the cookie.
/// - `query:NAME`: the value of that query parameter, percent-decoded; a `+` stays a `+`. It stays in the query.
/// - `path:N`: the N-th segment of the path, counted from 1, percent-decoded, and taken out of the path that the worker
///   sees. The gateway's own pages (`/healthz` and the metrics path) are never read as a session.
/// - `host`: the first label of the host name in lower case (`alice` for `Alice.example.com:8080`). An address or a
///   name of only one label has none.
///
/// ```
/// let key: herd_gateway::SessionKey = "header:X-Session-ID,query:session".parse().unwrap();
/// assert_eq!(key.to_string(), "header:x-session-id,query:session");
/// ```
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SessionKey {
    sources: Vec<Source>,
}

#[derive(Clone, Debug, Eq, PartialEq)]
enum Source {
    Header(HeaderName),
    Cookie(String),
    Query(String),
    Path(usize),
    Host,
}

/// What a request says of its session.
#[derive(Debug)]
pub(crate) enum Found {
    /// It names this one.
    Session(Named),
    /// It names none, but may be given a new one in this cookie.
    Cookieless(String),
    /// It names none.
    Nothing,
}

/// A session that a request names, or that was made for it.
#[derive(Debug)]
pub(crate) struct Named {
    /// The session.
    pub(crate) session: SessionId,
    /// The path and query for the worker, if they differ from the request's own.
    pub(crate) path: Option<PathAndQuery>,
    /// Whether the ID came in the field that workers look for it in, so that it need not be written there.
    pub(crate) in_worker_header: bool,
    /// The cookie that tells the client its new session ID.
    pub(crate) new_cookie: Option<String>,
}

impl Named {
    /// A session of which nothing has to be told to the client or changed in the path.
    pub(crate) fn plain(session: SessionId) -> Self {
        Self { session, path: None, in_worker_header: false, new_cookie: None }
    }

    /// A new session whose ID the client is told in the cookie `name`.
    pub(crate) fn in_new_cookie(session: SessionId, name: &str) -> Self {
        let cookie = format!("{name}={session}; Path=/; HttpOnly; SameSite=Lax");
        Self { new_cookie: Some(cookie), ..Self::plain(session) }
    }

    /// The client came by TLS: it is not to show its session's ID in plain text later (RFC 6265 §4.1.2.5).
    pub(crate) fn keep_secure(&mut self) {
        if let Some(cookie) = &mut self.new_cookie {
            cookie.push_str("; Secure");
        }
    }
}

/// Why a request's session cannot be told.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub(crate) enum KeyError {
    #[error(transparent)]
    Invalid(#[from] InvalidSessionId),
    #[error("the request names two different sessions")]
    Conflicting,
    #[error("the session ID has a % that two hexadecimal digits do not follow")]
    Encoding,
}

/// The field in which every worker finds the session ID, wherever the client had put it.
pub(crate) const WORKER_HEADER: HeaderName = HeaderName::from_static("x-session-id");

impl SessionKey {
    /// Reads the session that `request` names. The path of a request for one of the gateway's own pages names none.
    pub(crate) fn find<B>(&self, request: &Request<B>, is_page: bool) -> Result<Found, KeyError> {
        let mut cookie_name = None;
        for source in &self.sources {
            let found = match source {
                Source::Header(name) => in_header(request, name)?,
                Source::Cookie(name) => {
                    cookie_name.get_or_insert(name);
                    in_cookie(request, name)?
                }
                Source::Query(name) => in_query(request, name)?,
                Source::Path(_) if is_page => None,
                Source::Path(number) => in_path(request, *number)?,
                Source::Host => in_host(request)?,
            };
            if let Some(named) = found {
                return Ok(Found::Session(named));
            }
        }
        Ok(match cookie_name {
            Some(name) => Found::Cookieless(name.clone()),
            None => Found::Nothing,
        })
    }
}

impl Default for SessionKey {
    fn default() -> Self {
        Self { sources: vec![Source::Header(WORKER_HEADER)] }
    }
}

fn in_header<B>(request: &Request<B>, name: &HeaderName) -> Result<Option<Named>, KeyError> {
    let mut values = request.headers().get_all(name).iter();
    let Some(first) = values.next() else { return Ok(None) };
    if values.any(|value| value != first) {
        return Err(KeyError::Conflicting);
    }
    let session = SessionId::new(first.as_bytes())?;
    Ok(Some(Named { in_worker_header: *name == WORKER_HEADER, ..Named::plain(session) }))
}

fn in_cookie<B>(request: &Request<B>, name: &str) -> Result<Option<Named>, KeyError> {
    let mut found: Option<&[u8]> = None;
    for field in request.headers().get_all(header::COOKIE) {
        for pair in field.as_bytes().split(|byte| *byte == b';') {
            let pair = pair.trim_ascii();
            let Some(value) = pair.strip_prefix(name.as_bytes()).and_then(|rest| rest.strip_prefix(b"=")) else {
                continue;
            };
            // RFC 6265 §4.1.1 lets a value stand in double quotes.
            let value = value.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\"")).unwrap_or(value);
            if found.is_some_and(|earlier| earlier != value) {
                return Err(KeyError::Conflicting);
            }
            found = Some(value);
        }
    }
    Ok(found.map(SessionId::new).transpose()?.map(Named::plain))
}

fn in_query<B>(request: &Request<B>, name: &str) -> Result<Option<Named>, KeyError> {
    let mut found = None;
    for (_, written, value) in query::parameters(request.uri().query().unwrap_or_default()) {
        if query::is_named(written, name) {
            let value = percent_decoded(value)?;
            if found.as_ref().is_some_and(|earlier| *earlier != value) {
                return Err(KeyError::Conflicting);
            }
            found = Some(value);
        }
    }
    Ok(found.map(SessionId::new).transpose()?.map(Named::plain))
}

fn in_path<B>(request: &Request<B>, number: usize) -> Result<Option<Named>, KeyError> {
    let Some(path_and_query) = request.uri().path_and_query() else { return Ok(None) };
    let (path, text) = (path_and_query.path(), path_and_query.as_str());
    let Some(inner) = path.strip_prefix('/') else { return Ok(None) };
    let Some(segment) = inner.split('/').nth(number - 1) else { return Ok(None) };
    let decoded = percent_decoded(segment)?;
    // Clients resolve dot segments before they send; one that arrives all the same names no session.
    if matches!(&*decoded, b"" | b"." | b"..") {
        return Ok(None);
    }
    let session = SessionId::new(decoded)?;
    let start = segment.as_ptr().addr() - text.as_ptr().addr();
    // What is left keeps its leading slash: `/alice/x` becomes `/x`, and `/alice` becomes `/`.
    let (before, after) = (&text[..start - 1], &text[start + segment.len()..]);
    let slash = if before.is_empty() && !after.starts_with('/') { "/" } else { "" };
    let left = PathAndQuery::try_from(format!("{before}{slash}{after}")).expect("a part of a valid path is one");
    Ok(Some(Named { path: Some(left), ..Named::plain(session) }))
}

fn in_host<B>(request: &Request<B>) -> Result<Option<Named>, KeyError> {
    let Some(host) = host_of(request) else { return Ok(None) };
    let Some((label, _)) = host.split_once('.') else { return Ok(None) };
    if host.starts_with('[') || host.parse::<std::net::Ipv4Addr>().is_ok() {
        return Ok(None);
    }
    Ok(Some(Named::plain(SessionId::new(label.to_ascii_lowercase())?)))
}

/// Whether `request` asks for the page at `path`, which only `GET` and `HEAD` can.
pub(crate) fn asks_for<B>(request: &Request<B>, path: &str) -> bool {
    matches!(*request.method(), Method::GET | Method::HEAD) && request.uri().path() == path
}

impl FromStr for SessionKey {
    type Err = InvalidSessionKey;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let sources = text.split(',').map(|part| Source::parse(part.trim())).collect::<Result<_, _>>()?;
        Ok(Self { sources })
    }
}

impl Source {
    fn parse(text: &str) -> Result<Self, InvalidSessionKey> {
        let unknown = || InvalidSessionKey::Unknown { text: text.into() };
        if text == "host" {
            return Ok(Self::Host);
        }
        let (kind, value) = text.split_once(':').ok_or_else(unknown)?;
        match kind {
            "header" => value
                .parse()
                .ok()
                .filter(|name| !UNFIT_HEADERS.contains(name))
                .map(Self::Header)
                .ok_or_else(|| InvalidSessionKey::Header { name: value.into() }),
            "cookie" if is_token(value) => Ok(Self::Cookie(value.into())),
            "cookie" => Err(InvalidSessionKey::Cookie { name: value.into() }),
            "query" if !value.is_empty() => Ok(Self::Query(value.into())),
            "query" => Err(InvalidSessionKey::Query),
            "path" => match value.parse() {
                Ok(number @ 1..) => Ok(Self::Path(number)),
                _ => Err(InvalidSessionKey::Path { number: value.into() }),
            },
            _ => Err(unknown()),
        }
    }
}

/// Fields that say something else already, or that never reach a worker.
const UNFIT_HEADERS: [HeaderName; 9] = [
    header::CONNECTION,
    header::CONTENT_LENGTH,
    header::COOKIE,
    header::HOST,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    HERD_SESSION,
];

/// A token of RFC 9110 §5.6.2, which is what a cookie's name must be.
fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}

impl fmt::Display for SessionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, source) in self.sources.iter().enumerate() {
            if number > 0 {
                f.write_str(",")?;
            }
            match source {
                Source::Header(name) => write!(f, "header:{name}")?,
                Source::Cookie(name) => write!(f, "cookie:{name}")?,
                Source::Query(name) => write!(f, "query:{name}")?,
                Source::Path(number) => write!(f, "path:{number}")?,
                Source::Host => f.write_str("host")?,
            }
        }
        Ok(())
    }
}

/// Why some text is no [`SessionKey`].
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidSessionKey {
    /// It is none of the known sources.
    #[error("{text:?} is no session key; allowed are header:NAME, cookie:NAME, query:NAME, path:N and host")]
    Unknown {
        /// What was written.
        text: String,
    },
    /// This is not the name of a field, or of one that cannot carry a session ID.
    #[error("{name:?} is no name of a header that could carry a session ID")]
    Header {
        /// What was written.
        name: String,
    },
    /// This is not the name of a cookie.
    #[error("{name:?} is no name of a cookie")]
    Cookie {
        /// What was written.
        name: String,
    },
    /// The query parameter has no name.
    #[error("query: needs the name of the parameter, for example query:session")]
    Query,
    /// This is not the number of a path segment.
    #[error("path:{number} names no segment; they are counted from 1")]
    Path {
        /// What was written.
        number: String,
    },
}

#[cfg(test)]
#[path = "session_key_tests.rs"]
mod tests;
