//! The admin API: what a running daemon says of itself, over HTTP on the admin address and on the control socket.

mod events;
mod extract;
mod guard;
pub(crate) mod model;
mod page;
mod problem;
pub(crate) mod server;
mod sessions;
mod workers;

use axum::{
    Json, Router,
    extract::State,
    http::{HeaderValue, StatusCode, header},
    middleware,
    response::{IntoResponse, Response},
    routing::get,
};

pub(crate) use crate::draining::Draining;
use self::{model::Stats, problem::Problem};
use crate::{journal::Journal, metrics::Metrics, pools::Pools};

/// What the API answers from.
#[derive(Clone, Debug)]
pub(crate) struct Admin {
    pub(crate) pools: Pools,
    pub(crate) journal: Journal,
    pub(crate) metrics: Metrics,
    pub(crate) draining: Draining,
}

/// The routes for the control socket, whose mode says who may use it.
pub(crate) fn routes(admin: Admin) -> Router {
    Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .route("/v1/stats", get(stats))
        .route("/v1/sessions", get(sessions::list))
        .route("/v1/sessions/{id}", get(sessions::one).delete(sessions::end))
        .route("/v1/workers", get(workers::list))
        .route("/v1/workers/{id}", get(workers::one))
        .route("/v1/workers/{id}/logs", get(workers::logs))
        .route("/v1/events", get(events::stream))
        .fallback(async || Problem::new(StatusCode::NOT_FOUND, "There is no such page"))
        .method_not_allowed_fallback(async || {
            Problem::new(StatusCode::METHOD_NOT_ALLOWED, "This page does not take that method")
        })
        .layer(middleware::map_response(harden))
        .with_state(admin)
}

/// The routes for the admin address, which any page in a browser on this host could try to reach.
pub(crate) fn guarded_routes(admin: Admin) -> Router {
    routes(admin).layer(middleware::from_fn(guard::refuse_foreign))
}

/// Answers are of this moment, and hold text from workers and clients that no browser should take for a page.
async fn harden(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

async fn readyz(State(admin): State<Admin>) -> Response {
    if admin.draining.has_begun() {
        let problem = Problem::new(StatusCode::SERVICE_UNAVAILABLE, "The daemon is draining");
        return problem.into_response();
    }
    "ok\n".into_response()
}

async fn metrics(State(admin): State<Admin>) -> Response {
    ([(header::CONTENT_TYPE, crate::metrics::CONTENT_TYPE)], admin.metrics.render()).into_response()
}

async fn stats(State(admin): State<Admin>) -> Json<Stats> {
    Json(Stats::new(&admin.pools, &admin.metrics, &admin.journal))
}
