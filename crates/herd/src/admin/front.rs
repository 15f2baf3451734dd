//! Where the gateway is, for those who get a session here and use it there.

use herd_pool::SessionId;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::model::{GatewayAddress, RouteTo, SessionName};
use crate::config::{
    Settings,
    settings::{DEFAULT_POOL, Route},
};

/// How a client reaches the session of this pool through the gateway at `url`.
pub(super) fn address(url: &str, settings: &Settings, pool: &str, session: &SessionId) -> GatewayAddress {
    let session_key = settings.network.session_key.to_string();
    let routes: Vec<_> = settings.routes.iter().filter(|route| route.pool == pool).map(route_to).collect();
    let is_default = pool == DEFAULT_POOL;
    let warning = (routes.is_empty() && !is_default).then(|| {
        format!("no route leads to the pool {pool}, so that no request reaches the session; add one to `routes`")
    });
    let name = name(&session_key, session.as_str());
    GatewayAddress { url: url.to_owned(), name, session_key, routes, is_default, warning }
}

pub(super) fn route_to(route: &Route) -> RouteTo {
    let header = route.header.as_ref().map(|(name, value)| match value {
        Some(value) => format!("{name}={value}"),
        None => name.clone(),
    });
    RouteTo { host: route.host.clone(), path_prefix: route.path_prefix.clone(), header }
}

/// How a request names the session, by the first place of the key's text.
fn name(key: &str, id: &str) -> SessionName {
    let first = key.split(',').next().unwrap_or_default();
    let (place, name) = first.split_once(':').map_or((first, None), |(place, name)| (place, Some(name)));
    let value = if matches!(place, "query" | "path") { escape(id) } else { id.to_owned() };
    SessionName { place: place.to_owned(), name: name.map(str::to_owned), value }
}

/// All but the unreserved characters of RFC 3986 §2.3.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Percent-encodes a part of a path or a query.
pub(crate) fn escape(text: &str) -> String {
    utf8_percent_encode(text, RESERVED).to_string()
}

#[cfg(test)]
mod tests {
    use herd_gateway::SessionKey;

    use super::*;

    #[test]
    fn callers_are_told_where_to_write_the_session() {
        let told = |key: &str, id: &str| {
            let SessionName { place, name, value } = name(&key.parse::<SessionKey>().unwrap().to_string(), id);
            (place, name.unwrap_or_default(), value)
        };
        let expected = |place: &str, name: &str, value: &str| (place.to_owned(), name.to_owned(), value.to_owned());
        assert_eq!(told("header:X-Session-ID", "a/b"), expected("header", "x-session-id", "a/b"));
        assert_eq!(told("query:session,host", "a/b"), expected("query", "session", "a%2Fb"));
        assert_eq!(told("path:2", "a?b"), expected("path", "2", "a%3Fb"));
        assert_eq!(told("host", "alice"), expected("host", "", "alice"));
    }
}
