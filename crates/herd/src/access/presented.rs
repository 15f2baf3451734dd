use std::{borrow::Cow, sync::Arc};

use herd_gateway::{Credential, Refusal};
use hyper::{
    HeaderMap, Uri,
    header::{AUTHORIZATION, HeaderValue},
};
use percent_encoding::percent_decode_str;

/// The token that a request carries, and where.
#[derive(Debug)]
pub(super) struct Presented<'a> {
    pub(super) token: Cow<'a, [u8]>,
    pub(super) credential: Credential,
}

impl<'a> Presented<'a> {
    /// Finds the token in the field `authorization` (RFC 6750 §2.1), or in the query parameter of this name where a
    /// client cannot send fields (§2.3).
    ///
    /// A request with two of them is refused: somebody behind herd might believe the other one.
    ///
    /// # Errors
    /// If there is none, or more than one, or what is there is no bearer token.
    pub(super) fn find(headers: &'a HeaderMap, uri: &'a Uri, parameter: Option<&Arc<str>>) -> Result<Self, Refusal> {
        let mut fields = headers.get_all(AUTHORIZATION).iter();
        let field = fields.next();
        if fields.next().is_some() {
            return Err(Refusal::Invalid("the field authorization comes more than once"));
        }
        let in_query = match (parameter, uri.query()) {
            (Some(name), Some(query)) => in_query(query, name)?.map(|token| (name, token)),
            _ => None,
        };
        let (token, credential) = match (field, in_query) {
            (Some(_), Some(_)) => {
                return Err(Refusal::Invalid("there is a token in the query beside the field authorization"));
            }
            (Some(field), None) => (Cow::Borrowed(bearer(field)?), Credential::Authorization),
            (None, Some((name, token))) => (token, Credential::Query(Arc::clone(name))),
            (None, None) => return Err(Refusal::NoCredentials),
        };
        if token.is_empty() || !token.iter().all(u8::is_ascii_graphic) {
            return Err(Refusal::Invalid("a token is visible ASCII without spaces"));
        }
        Ok(Self { token, credential })
    }
}

/// The token after the scheme, whose case does not matter (RFC 9110 §11.1).
fn bearer(field: &HeaderValue) -> Result<&[u8], Refusal> {
    const SCHEME: &[u8] = b"bearer";
    let bytes = field.as_bytes();
    match bytes.split_at_checked(SCHEME.len()) {
        Some((scheme, [b' ', rest @ ..])) if scheme.eq_ignore_ascii_case(SCHEME) => Ok(rest.trim_ascii()),
        _ => Err(Refusal::Invalid("the field authorization is not `Bearer TOKEN`")),
    }
}

/// The value of the parameter, percent-decoded. A `+` stays one: it may stand in a token.
fn in_query<'a>(query: &'a str, name: &str) -> Result<Option<Cow<'a, [u8]>>, Refusal> {
    let mut found = query.split('&').filter_map(|pair| {
        let (written, value) = pair.split_once('=').unwrap_or((pair, ""));
        let is_it = written == name || (written.contains('%') && percent_decode_str(written).eq(name.bytes()));
        is_it.then_some(value)
    });
    let value = found.next();
    if found.next().is_some() {
        return Err(Refusal::Invalid("the query has more than one token"));
    }
    Ok(value.map(|value| percent_decode_str(value).into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(fields: &[&[u8]], target: &str) -> Result<(String, Credential), Refusal> {
        let mut headers = HeaderMap::new();
        for field in fields {
            headers.append(AUTHORIZATION, HeaderValue::from_bytes(field).unwrap());
        }
        let uri = target.parse().unwrap();
        let presented = Presented::find(&headers, &uri, Some(&Arc::from("token")))?;
        Ok((String::from_utf8(presented.token.into_owned()).unwrap(), presented.credential))
    }

    #[test]
    fn a_token_comes_in_the_field_in_any_case_of_the_scheme() {
        for field in ["Bearer abc", "bearer abc", "BEARER   abc "] {
            assert_eq!(find(&[field.as_bytes()], "/"), Ok(("abc".to_owned(), Credential::Authorization)), "{field:?}");
        }
    }

    #[test]
    fn a_token_comes_in_the_query_where_that_is_allowed() {
        let query = Credential::Query("token".into());
        for target in ["/?token=a+b%2Bc", "/x?y=1&token=a+b%2bc&z", "/?%74oken=a%2Bb%2Bc", "/?tokens=1&token=a+b+c"] {
            assert_eq!(find(&[], target), Ok(("a+b+c".to_owned(), query.clone())), "{target}");
        }
        let (headers, uri) = (HeaderMap::new(), "/?token=abc".parse().unwrap());
        assert_eq!(
            Presented::find(&headers, &uri, None).unwrap_err(),
            Refusal::NoCredentials,
            "only where it is allowed"
        );
    }

    #[test]
    fn without_a_token_there_are_no_credentials() {
        for target in ["/", "/?x=token", "/?tokenx=1", "/?Token=1"] {
            assert_eq!(find(&[], target), Err(Refusal::NoCredentials), "{target}");
        }
    }

    #[test]
    fn what_is_no_single_bearer_token_is_refused() {
        let fields: [(&[&[u8]], &str); 13] = [
            (&[b"Bearer abc", b"Bearer abc"], "/"),
            (&[b"Bearer abc"], "/?token=abc"),
            (&[b"Basic abc"], "/?token=abc"),
            (&[b"Basic abc"], "/"),
            (&[b"Bearer"], "/"),
            (&[b"Bearer "], "/"),
            (&[b"Bearerabc"], "/"),
            (&[b"Bearer a b"], "/"),
            (&[b"Bearer \xffabc"], "/"),
            (&[b""], "/"),
            (&[], "/?token=abc&token=abc"),
            (&[], "/?token="),
            (&[], "/?token=a%20b"),
        ];
        for (fields, target) in fields {
            assert!(matches!(find(fields, target), Err(Refusal::Invalid(_))), "{fields:?} {target}");
        }
    }
}
