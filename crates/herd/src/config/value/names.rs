//! Names: of pools, hosts, headers, tenants, events, and what else is found by its name.

use std::{net::IpAddr, time::Duration};

use herd_pool::EventKind;
use hyper::{Uri, header::HeaderName};

use super::{Refusal, duration, http_path, nearest};

/// The kinds of events that can be asked for.
pub(crate) const EVENTS: [&str; EventKind::NAMES.len()] = EventKind::NAMES;

/// The longest that clocks may be believed to differ.
const LARGEST_LEEWAY: Duration = Duration::from_secs(10 * 60);
/// The longest name of a tenant, in bytes.
const LONGEST_TENANT: usize = 128;
/// The longest name of a host (RFC 1035 §2.3.4).
const LONGEST_HOST: usize = 253;

/// The name of a pool.
pub(crate) fn pool_name(text: &str) -> Result<String, Refusal> {
    let rest = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_' || byte == b'-';
    if text.starts_with(|c: char| c.is_ascii_lowercase()) && text.len() <= 64 && text.bytes().all(rest) {
        return Ok(text.to_owned());
    }
    let remedy = "write 1 to 64 lower-case letters, digits, `-` and `_`, the first of them a letter";
    Err(Refusal::new("is no name of a pool", remedy))
}

/// `a.example.com`, `*.example.com`, `192.0.2.7`, `[::1]`: in lower case.
pub(crate) fn host_pattern(text: &str) -> Result<String, Refusal> {
    match text.strip_prefix("*.") {
        Some(parent) if parent.parse::<IpAddr>().is_err() && is_name(parent) => Ok(text.to_ascii_lowercase()),
        None if !text.contains('*') => host_name(text),
        Some(parent) if !parent.contains('*') => {
            Err(Refusal::new("is no host name", "write a name such as a.example.com, or *.example.com for all below"))
        }
        _ => {
            let problem = "has a `*` elsewhere than as its first label";
            Err(Refusal::new(problem, "write *.example.com for all below"))
        }
    }
}

/// The same without a pattern.
pub(crate) fn host_name(text: &str) -> Result<String, Refusal> {
    let remedy = "write a name such as a.example.com";
    let in_brackets = text.strip_prefix('[').and_then(|text| text.strip_suffix(']'));
    if in_brackets.is_some_and(is_ipv6) || is_name(text) {
        return Ok(text.to_ascii_lowercase());
    }
    if is_ipv6(text) {
        return Err(Refusal::new("is an IPv6 address without brackets", "write it as [::1]"));
    }
    if let Some((host, port)) = text.rsplit_once(':')
        && is_name(host)
        && port.bytes().all(|byte| byte.is_ascii_digit())
    {
        return Err(Refusal::new("has a port", "write the name alone; it counts for every port"));
    }
    if text.contains('*') {
        return Err(Refusal::new("has a `*`, which stands for nothing here", "write each name"));
    }
    if !text.is_ascii() {
        return Err(Refusal::new("has letters beyond ASCII", "write it as clients send it, in Punycode (xn--…)"));
    }
    Err(Refusal::new("is no host name", remedy))
}

fn is_ipv6(text: &str) -> bool {
    matches!(text.parse(), Ok(IpAddr::V6(_)))
}

/// Labels of letters, digits, `-` and `_`, which some hosts have in spite of RFC 1123.
fn is_name(text: &str) -> bool {
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
    };
    text.len() <= LONGEST_HOST && text.split('.').all(is_label)
}

/// The beginning of paths, in whole segments.
pub(crate) fn path_prefix(text: &str) -> Result<String, Refusal> {
    let path = http_path(text)?;
    if path == "/" {
        return Err(Refusal::new("begins every path", "leave it out"));
    }
    if path.contains('?') {
        return Err(Refusal::new("has a query", "write the path alone"));
    }
    if path.ends_with('/') {
        return Err(Refusal::new("ends with a slash", "write it without; it fits whole segments"));
    }
    if path[1..].split('/').any(|segment| matches!(segment, "" | "." | "..")) {
        return Err(Refusal::new("has an empty segment, `.` or `..` in it", "write the path without"));
    }
    // Servers do not agree on what the others mean, so that the gateway takes none of them in a prefix.
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/-._~!$&'()*+,=:@".contains(&byte);
    if let Some(odd) = path.chars().find(|char| !char.is_ascii() || !is_plain(*char as u8)) {
        return Err(Refusal::new(
            "is a character that not every server reads alike",
            "write letters, digits and -._~!$&'()*+,=:@ alone; percent-encoded characters of requests fit those they \
             stand for",
        )
        .part(&odd.to_string()));
    }
    Ok(path)
}

/// `NAME` for a header with any value, `NAME=VALUE` for the one.
pub(crate) fn header_condition(text: &str) -> Result<(String, Option<String>), Refusal> {
    let (name, value) = match text.split_once('=') {
        Some((name, value)) => (name, Some(value)),
        None => (text, None),
    };
    let remedy = "write NAME for any value of the header, or NAME=VALUE";
    let name: HeaderName = name.parse().map_err(|_| Refusal::new("names no header", remedy).part(name))?;
    if value.is_some_and(|value| value.trim() != value || !value.bytes().all(|byte| matches!(byte, b' '..=b'~'))) {
        return Err(Refusal::new("has a value that no header can have", "write visible ASCII").part(name.as_str()));
    }
    match name.as_str() {
        "host" => Err(Refusal::new("is the header Host", "write `host: NAME` in the route instead").part("host")),
        // What is in them is nobody's business but the one whose it is, and it does not belong into a file.
        "authorization" | "proxy-authorization" | "cookie" => {
            Err(Refusal::new("is a header with secrets in it", "choose another header").part(name.as_str()))
        }
        "connection" | "keep-alive" | "proxy-connection" | "te" | "trailer" | "transfer-encoding" | "upgrade" => {
            let problem = "is a header that concerns one connection and not the request";
            Err(Refusal::new(problem, "choose another header").part(name.as_str()))
        }
        name => Ok((name.to_owned(), value.map(str::to_owned))),
    }
}

/// What logs call a token.
pub(crate) fn label(text: &str) -> Result<String, Refusal> {
    if (1..=64).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Ok(text.to_owned());
    }
    Err(Refusal::new("is no name that a log line could have", "write 1 to 64 visible ASCII characters without spaces"))
}

/// The name of a tenant.
pub(crate) fn tenant(text: &str) -> Result<String, Refusal> {
    if (1..=LONGEST_TENANT).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Ok(text.to_owned());
    }
    Err(Refusal::new("is no name of a tenant", "write 1 to 128 visible ASCII characters without spaces"))
}

/// A SHA-256 hash in hexadecimal.
pub(crate) fn sha256(text: &str) -> Result<[u8; 32], Refusal> {
    let refuse = || {
        let remedy = "write 64 hexadecimal digits; `printf %s TOKEN | sha256sum` prints them";
        Refusal::new("is no SHA-256 hash", remedy).unquoted()
    };
    let mut hash = [0; 32];
    if text.len() != 64 || !text.is_ascii() {
        return Err(refuse());
    }
    for (byte, digits) in hash.iter_mut().zip(text.as_bytes().chunks(2)) {
        let digit = |digit: u8| (digit as char).to_digit(16).ok_or_else(refuse);
        *byte = u8::try_from(digit(digits[0])? * 16 + digit(digits[1])?).map_err(|_| refuse())?;
    }
    Ok(hash)
}

/// The name of a claim of a JSON Web Token.
pub(crate) fn claim(text: &str) -> Result<String, Refusal> {
    if !text.is_empty() && text.len() <= 128 && text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Ok(text.to_owned());
    }
    Err(Refusal::new("is no name of a claim", "write a name such as sub"))
}

/// What a claim has to be, as it stands in the token.
pub(crate) fn claim_value(text: &str) -> Result<String, Refusal> {
    if !text.is_empty() && !text.chars().any(char::is_control) {
        return Ok(text.to_owned());
    }
    Err(Refusal::new("is empty or has control characters in it", "write what stands in the token"))
}

/// How far clocks may differ.
pub(crate) fn leeway(text: &str) -> Result<Duration, Refusal> {
    let leeway = duration(text)?;
    if leeway > LARGEST_LEEWAY {
        let problem = "is more than 10 minutes, for which expired tokens would be taken";
        return Err(Refusal::new(problem, "write a shorter time, and set the clocks"));
    }
    Ok(leeway)
}

/// The name of a query parameter.
pub(crate) fn parameter(text: &str) -> Result<String, Refusal> {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._~-".contains(&byte);
    if !text.is_empty() && text.len() <= 64 && text.bytes().all(is_allowed) {
        return Ok(text.to_owned());
    }
    Err(Refusal::new("is no name of a query parameter", "write letters, digits, `.`, `_`, `~` and `-`"))
}

/// `http://…` or `https://…`.
pub(crate) fn url(text: &str) -> Result<String, Refusal> {
    let remedy = "write an absolute URL, http://… or https://…";
    // Paths and queries hold secrets more often than not.
    let refuse = |problem: &str| Refusal::new(problem, remedy).unquoted();
    if text.contains('#') {
        return Err(refuse("has a fragment, which no server sees"));
    }
    let uri: Uri = text.parse().map_err(|_| refuse("is no URL"))?;
    let authority = uri.authority().ok_or_else(|| refuse("is no absolute URL"))?;
    if authority.as_str().contains('@') {
        let remedy = "take it out; herd signs what it sends instead";
        return Err(Refusal::new("has a user or a password in it", remedy).unquoted());
    }
    if !matches!(uri.scheme_str(), Some("http" | "https")) {
        return Err(refuse("is neither http nor https"));
    }
    if uri.host().is_none_or(str::is_empty) || authority.as_str().ends_with(':') || uri.port_u16() == Some(0) {
        return Err(refuse("names no server"));
    }
    if authority.port().is_none() && authority.as_str() != authority.host() {
        return Err(refuse("has a port that is none"));
    }
    Ok(text.to_owned())
}

/// A kind of event.
pub(crate) fn event(text: &str) -> Result<String, Refusal> {
    if EVENTS.contains(&text) {
        return Ok(text.to_owned());
    }
    let hint = nearest(text, &EVENTS).map_or(String::new(), |word| format!("did you mean {word}? "));
    Err(Refusal::new("is no kind of event", format!("{hint}allowed: {}", EVENTS.join(", "))))
}
