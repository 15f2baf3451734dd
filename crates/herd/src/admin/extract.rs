//! What handlers take from a request, with refusals that are problem documents.

use axum::{
    extract::{FromRequestParts, Path, Query},
    http::{StatusCode, request::Parts},
};
use serde::de::DeserializeOwned;

use super::problem::Problem;

/// The parameters of the query.
#[derive(Clone, Copy, Debug)]
pub(super) struct Params<T>(pub(super) T);

/// The ID in the path.
#[derive(Clone, Debug)]
pub(super) struct Id(pub(super) String);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Params<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let query = Query::try_from_uri(&parts.uri);
        let Query(params) = query.map_err(|error| bad_request("The query cannot be read", error.body_text()))?;
        Ok(Self(params))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Id {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let path = Path::from_request_parts(parts, state).await;
        let Path(id) = path.map_err(|error| bad_request("The path cannot be read", error.body_text()))?;
        Ok(Self(id))
    }
}

fn bad_request(title: &'static str, detail: String) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, title).detail(detail)
}
