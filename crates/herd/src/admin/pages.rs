//! Pages about the daemon and its pools.

use axum::{
    Json,
    extract::State,
    http::header,
    response::{IntoResponse as _, Response},
};
use serde::Deserialize;
use utoipa::IntoParams;

use super::{
    Admin,
    extract::{Id, NoParams, Params},
    model::{Page, PoolStats, Stats},
    page::{Gathering, decode, encode, page_limit},
    problem::{Document, Kind, Problem},
};

/// Whether the daemon answers at all.
#[utoipa::path(
    get, path = "/healthz", tag = "daemon", operation_id = "getHealth",
    responses(
        (status = 200, description = "It does", body = String, content_type = "text/plain", example = "ok\n"),
        (status = 400, description = "A parameter is not understood", body = Document, content_type = "application/problem+json"),
    )
)]
pub(super) async fn healthz(_: NoParams) -> &'static str {
    "ok\n"
}

/// Whether the daemon takes on sessions.
#[utoipa::path(
    get, path = "/readyz", tag = "daemon", operation_id = "getReadiness",
    responses(
        (status = 200, description = "It does", body = String, content_type = "text/plain", example = "ok\n"),
        (status = 400, description = "A parameter is not understood", body = Document, content_type = "application/problem+json"),
        (status = 503, description = "It is draining, or no pool can start a worker", body = Document, content_type = "application/problem+json"),
    )
)]
pub(super) async fn readyz(State(admin): State<Admin>, _: NoParams) -> Result<&'static str, Problem> {
    if admin.draining.has_begun() {
        return Err(Problem::new(Kind::Draining).detail("the daemon is stopping; ask another one"));
    }
    let pools = PoolStats::all(&admin.pools, &admin.journal);
    if pools.iter().any(PoolStats::is_ready) {
        return Ok("ok\n");
    }
    // Everybody may ask this page. What a worker said before it died is not for everybody.
    Err(Problem::new(Kind::NotReady).detail("the last start of each failed; /v1/pools and the log say why"))
}

/// The daemon's numbers in Prometheus' text format.
#[utoipa::path(
    get, path = "/metrics", tag = "daemon", operation_id = "getMetrics",
    responses(
        (status = 200, description = "The numbers", body = String, content_type = "text/plain"),
        (status = 400, description = "A parameter is not understood", body = Document, content_type = "application/problem+json"),
    )
)]
pub(super) async fn metrics(State(admin): State<Admin>, _: NoParams) -> Response {
    let page = admin.metrics.render_fresh().await;
    ([(header::CONTENT_TYPE, crate::metrics::CONTENT_TYPE)], page).into_response()
}

/// The daemon's numbers, in sum and for each pool.
#[utoipa::path(
    get, path = "/v1/stats", tag = "daemon", operation_id = "getStats",
    responses(
        (status = 200, description = "The numbers", body = Stats),
        (status = 400, description = "A parameter is not understood", body = Document, content_type = "application/problem+json"),
    )
)]
pub(super) async fn stats(State(admin): State<Admin>, _: NoParams) -> Json<Stats> {
    Json(Stats::new(&admin.pools, &admin.metrics, &admin.journal, admin.draining.has_begun()))
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ListQuery {
    /// The most items that are answered.
    #[param(value_type = Option<u16>, minimum = 1, maximum = 1000, default = 100)]
    limit: Option<String>,
    /// The `next` of the page before.
    cursor: Option<String>,
}

/// Pools, in the order of the configuration, and then those that have been removed from it and still have sessions.
#[utoipa::path(
    get, path = "/v1/pools", tag = "daemon", operation_id = "listPools", params(ListQuery),
    responses(
        (status = 200, description = "A page of pools", body = Page<PoolStats>),
        (status = 400, description = "A parameter is not understood", body = Document, content_type = "application/problem+json"),
    )
)]
pub(super) async fn pools(
    State(admin): State<Admin>,
    Params(ListQuery { limit, cursor }): Params<ListQuery>,
) -> Result<Json<Page<PoolStats>>, Problem> {
    let limit = page_limit(limit.as_deref())?;
    let mut all = PoolStats::all(&admin.pools, &admin.journal);
    if let Some(cursor) = cursor {
        let [serial] = decode(&cursor)?;
        let read = all.iter().position(|pool| pool.serial.to_string() == serial);
        all.drain(..read.map_or(0, |read| read + 1));
    }
    let mut gathering = Gathering::new(limit);
    gathering.extend(all);
    let (items, next) = gathering.finish(|pool| encode(&[&pool.serial.to_string()]));
    Ok(Json(Page { items, next }))
}

/// One pool.
#[utoipa::path(
    get, path = "/v1/pools/{name}", tag = "daemon", operation_id = "getPool",
    params(("name" = String, Path, description = "The pool's name, percent-encoded", example = "default")),
    responses(
        (status = 200, description = "The pool", body = PoolStats),
        (status = 400, description = "The name or a parameter is not understood", body = Document, content_type = "application/problem+json"),
        (status = 404, description = "There is no such pool", body = Document, content_type = "application/problem+json"),
    )
)]
pub(super) async fn pool(State(admin): State<Admin>, Id(name): Id, _: NoParams) -> Result<Json<PoolStats>, Problem> {
    let mut all = PoolStats::all(&admin.pools, &admin.journal).into_iter();
    // The one of that name that takes sessions on comes first.
    let pool = all.find(|pool| pool.pool == name);
    pool.map(Json).ok_or_else(|| Problem::new(Kind::NoSuchPool).detail("/v1/pools lists those that there are"))
}
