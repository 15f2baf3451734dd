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
    let query = target.query()?;
    let is_other = |written: &str| !is_named(written, name);
    if parameters(query).all(|(_, written, _)| is_other(written)) {
        return None;
    }
    let left: Vec<_> = parameters(query).filter(|(_, written, _)| is_other(written)).map(|(pair, ..)| pair).collect();
    let question_mark = if left.is_empty() { "" } else { "?" };
    let left = format!("{}{question_mark}{}", target.path(), left.join("&"));
    Some(PathAndQuery::try_from(left).expect("a part of a valid target is one"))
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
