//! Where the gateway is, for those who get a session here and use it there.

use herd_gateway::SessionKey;
use herd_pool::SessionId;

use super::model::{GatewayAddress, SessionName};

/// How a client reaches the session through the gateway at `url`, which looks for session IDs where `key` says.
pub(super) fn address(url: &str, key: &SessionKey, session: &SessionId) -> GatewayAddress {
    let session_key = key.to_string();
    GatewayAddress { url: url.to_owned(), name: name(&session_key, session.as_str()), session_key }
}

/// How a request names the session, by the first place of the key's text.
fn name(key: &str, id: &str) -> SessionName {
    let first = key.split(',').next().unwrap_or_default();
    let (place, name) = first.split_once(':').map_or((first, None), |(place, name)| (place, Some(name)));
    let value = if matches!(place, "query" | "path") { escape(id) } else { id.to_owned() };
    SessionName { place: place.to_owned(), name: name.map(str::to_owned), value }
}

/// Percent-encodes all but the unreserved characters of RFC 3986 §2.3.
pub(super) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            escaped.push_str(&format!("%{byte:02X}"));
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn callers_are_told_where_to_write_the_session() {
        let told = |key: &str, id: &str| {
            let id = SessionId::new(id).unwrap();
            let SessionName { place, name, value } = address("http://127.0.0.1:8080", &key.parse().unwrap(), &id).name;
            (place, name.unwrap_or_default(), value)
        };
        let expected = |place: &str, name: &str, value: &str| (place.to_owned(), name.to_owned(), value.to_owned());
        assert_eq!(told("header:X-Session-ID", "a/b"), expected("header", "x-session-id", "a/b"));
        assert_eq!(told("query:session,host", "a/b"), expected("query", "session", "a%2Fb"));
        assert_eq!(told("path:2", "a?b"), expected("path", "2", "a%3Fb"));
        assert_eq!(told("host", "alice"), expected("host", "", "alice"));
    }
}
