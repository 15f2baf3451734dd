//! What handlers take from a request, with refusals that are problem documents.

use std::time::Duration;

use axum::{
    body::Bytes,
    extract::{FromRequest, FromRequestParts, Path, Query, Request},
    http::{HeaderMap, header, request::Parts},
};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use serde::de::DeserializeOwned;
use tokio::time::timeout;

use super::problem::{Kind, Problem};

/// The largest body, in bytes. What the API takes is small.
const LARGEST_BODY: usize = 16 * 1024;
/// How long a body may take to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// The parameters of the query.
#[derive(Clone, Copy, Debug)]
pub(super) struct Params<T>(pub(super) T);

/// That there is no parameter in the query: one that a page does not know could be meant to limit what it does.
#[derive(Clone, Copy, Debug)]
pub(super) struct NoParams;

/// The ID in the path.
#[derive(Clone, Debug)]
pub(super) struct Id(pub(super) String);

/// A body that is a JSON object; none at all and `null` count as an empty object.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fields<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Params<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let query = Query::try_from_uri(&parts.uri);
        let Query(params) = query.map_err(|error| {
            let text = error.body_text();
            let cause = text.rsplit_once("query string: ").map_or(text.as_str(), |(_, cause)| cause);
            Problem::new(Kind::BadQuery).detail(format!("{cause}; correct the query, or leave the parameter out"))
        })?;
        Ok(Self(params))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for NoParams {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        if parts.uri.query().unwrap_or_default().is_empty() {
            return Ok(Self);
        }
        Err(Problem::new(Kind::BadQuery).detail("this page takes no parameters; leave the query out"))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Id {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let path = Path::from_request_parts(parts, state).await;
        let Path(id) = path.map_err(|error| {
            let detail = format!("{}; percent-encode the ID's bytes as one segment", error.body_text());
            Problem::new(Kind::BadPath).detail(detail)
        })?;
        Ok(Self(id))
    }
}

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Fields<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        let (parts, body) = request.into_parts();
        let body = timeout(BODY_TIMEOUT, Limited::new(body, LARGEST_BODY).collect()).await.map_err(|_| {
            Problem::new(Kind::BodyTooSlow).detail(format!("it has {} s to arrive in whole", BODY_TIMEOUT.as_secs()))
        })?;
        let body = body.map_err(|error| {
            if error.is::<LengthLimitError>() {
                Problem::new(Kind::BodyTooLarge).detail(format!("at most {LARGEST_BODY} bytes are read; send fewer"))
            } else {
                Problem::new(Kind::BadBody).detail("it broke off, or its framing is no HTTP; send it again")
            }
        })?;
        read(&parts.headers, &body.to_bytes())
    }
}

fn read<T: DeserializeOwned>(headers: &HeaderMap, body: &Bytes) -> Result<Fields<T>, Problem> {
    if body.is_empty() {
        return object(b"{}");
    }
    if !is_json(headers) {
        return Err(Problem::new(Kind::NotJson).detail("send it with content-type: application/json"));
    }
    if body.trim_ascii() == b"null" { object(b"{}") } else { object(body) }
}

fn object<T: DeserializeOwned>(text: &[u8]) -> Result<Fields<T>, Problem> {
    // An array would be taken for an object's values in their order.
    if text.trim_ascii_start().first() != Some(&b'{') {
        return Err(Problem::new(Kind::BadBody).detail("it is no JSON object; send one such as {\"id\": \"alice\"}"));
    }
    serde_json::from_slice(text).map(Fields).map_err(|error| {
        Problem::new(Kind::BadBody).detail(format!("{error}; /openapi.json tells which fields there are"))
    })
}

fn is_json(headers: &HeaderMap) -> bool {
    let mut kinds = headers.get_all(header::CONTENT_TYPE).iter();
    let kind = kinds.next().and_then(|kind| kind.to_str().ok());
    let essence = kind.map(|kind| kind.split(';').next().unwrap_or_default().trim());
    kinds.next().is_none() && essence.is_some_and(|essence| essence.eq_ignore_ascii_case("application/json"))
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Default, Deserialize, PartialEq)]
    #[serde(default, deny_unknown_fields)]
    struct Wish {
        id: Option<String>,
    }

    async fn send(kind: Option<&str>, body: impl Into<Body>) -> Result<Wish, serde_json::Value> {
        let mut request = Request::new(body.into());
        if let Some(kind) = kind {
            request.headers_mut().insert(header::CONTENT_TYPE, kind.parse().unwrap());
        }
        let read = Fields::from_request(request, &()).await;
        read.map(|Fields(wish)| wish).map_err(|problem| problem.to_json())
    }

    #[tokio::test]
    async fn no_body_is_an_empty_object() {
        assert_eq!(send(None, "").await, Ok(Wish::default()));
        assert_eq!(send(Some("application/json"), "null\n").await, Ok(Wish::default()));
        assert_eq!(send(Some("Application/JSON; charset=utf-8"), r#"{"id": "a"}"#).await.unwrap().id.unwrap(), "a");
    }

    #[tokio::test]
    async fn every_other_body_is_refused_with_what_is_wrong() {
        let large = format!(r#"{{"id": "{}"}}"#, "x".repeat(LARGEST_BODY));
        for (kind, body, status, said) in [
            (None, "{}", 415, "content-type: application/json"),
            (Some("text/plain"), "{}", 415, "content-type: application/json"),
            (Some("application/json"), "[null]", 400, "no JSON object"),
            (Some("application/json"), "{", 400, "EOF"),
            (Some("application/json"), r#"{"id": 3}"#, 400, "expected a string"),
            (Some("application/json"), r#"{"name": "a"}"#, 400, "unknown field `name`"),
            (Some("application/json"), r#"{"id": "a", "id": "b"}"#, 400, "duplicate field `id`"),
            (Some("application/json"), r#"{} {}"#, 400, "trailing characters"),
            (Some("application/json"), &large, 413, "16384 bytes"),
        ] {
            let problem = send(kind, body.to_owned()).await.unwrap_err();
            assert_eq!(problem["status"], status, "{problem}");
            assert!(problem["detail"].as_str().unwrap().contains(said), "{problem}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_does_not_come_is_not_waited_for() {
        let never = Body::from_stream(futures_util::stream::pending::<Result<Bytes, std::io::Error>>());
        assert_eq!(send(Some("application/json"), never).await.unwrap_err()["status"], 408);
    }
}
