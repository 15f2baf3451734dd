//! Query parameters, as far as a gateway reads them.

use std::borrow::Cow;

use hyper::http::uri::PathAndQuery;

use crate::session_key::KeyError;

/// The query's parameters in order: each as it stands there, its name, and its value.
pub(crate) fn parameters(query: &str) -> impl Iterator<Item = (&str, &str, &str)> {
    query.split('&').map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        (pair, name, value)
    })
}

/// Whether this is how a query writes `name`. What cannot be decoded is some other parameter: it is not the gateway's to
/// judge.
pub(crate) fn is_named(written: &str, name: &str) -> bool {
    percent_decoded(written).is_ok_and(|decoded| *decoded == *name.as_bytes())
}

/// The target without the parameters of this name; `None` if it has none.
pub(crate) fn without(target: &PathAndQuery, name: &str) -> Option<PathAndQuery> {
    let left = left_of(target.path(), target.query()?, name)?;
    Some(PathAndQuery::try_from(left).expect("a part of a valid target is one"))
}

/// The address without the parameters of this name and without a fragment, which it may not have anyway (RFC 9110
/// §10.1.3) and which may say the same; `None` if it has neither.
pub(crate) fn without_in_address(address: &str, name: &str) -> Option<String> {
    let (address, fragment) = address.split_once('#').map_or((address, None), |(address, rest)| (address, Some(rest)));
    let left = address.split_once('?').and_then(|(before, query)| left_of(before, query, name));
    left.or_else(|| fragment.map(|_| address.to_owned()))
}

/// What is before the query, and what is left of the query without the parameters of this name; `None` if it has none.
fn left_of(before: &str, query: &str, name: &str) -> Option<String> {
    let is_other = |written: &str| !is_named(written, name);
    if parameters(query).all(|(_, written, _)| is_other(written)) {
        return None;
    }
    let left: Vec<_> = parameters(query).filter(|(_, written, _)| is_other(written)).map(|(pair, ..)| pair).collect();
    let question_mark = if left.is_empty() { "" } else { "?" };
    Some(format!("{before}{question_mark}{}", left.join("&")))
}

/// Undoes the percent-encoding; a `+` stays a `+`.
pub(crate) fn percent_decoded(text: &str) -> Result<Cow<'_, [u8]>, KeyError> {
    if !text.contains('%') {
        return Ok(Cow::Borrowed(text.as_bytes()));
    }
    let mut bytes = text.bytes();
    let mut decoded = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'%' => {
                let mut digit = || bytes.next().and_then(|byte| char::from(byte).to_digit(16));
                let (high, low) = (digit().ok_or(KeyError::Encoding)?, digit().ok_or(KeyError::Encoding)?);
                u8::try_from(high * 16 + low).expect("two hexadecimal digits make a byte")
            }
            other => other,
        });
    }
    Ok(decoded.into())
}
