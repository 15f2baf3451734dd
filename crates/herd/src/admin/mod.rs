//! The admin API: what a running daemon says of itself, over HTTP on the admin address and on the control socket.
//!
//! Each page describes itself beside its handler, and a page without a description has no route: see [`description`].

mod description;
mod events;
mod extract;
mod front;
mod gateway;
mod guard;
mod live;
mod logs;
pub(crate) mod model;
mod page;
mod pages;
mod problem;
mod reload;
pub(crate) mod server;
mod sessions;
mod sse;
mod workers;

use std::sync::Arc;

use axum::{
    Router,
    http::{HeaderName, HeaderValue, header},
    middleware,
    response::Response,
    routing::get,
};
use utoipa_axum::{router::OpenApiRouter, routes};

use self::{
    extract::NoParams,
    problem::{Kind, Problem},
};
pub(crate) use self::{
    front::escape,
    guard::{Guard, Rules},
    live::Live,
    sse::Streams,
};
use crate::{
    access::Tenants, dashboard, draining::Draining, journal::Journal, metrics::Metrics, pools::Pools, reload::Reloader,
};

/// What the API answers from.
#[derive(Clone, Debug)]
pub(crate) struct Admin {
    pub(crate) pools: Pools,
    pub(crate) journal: Journal,
    pub(crate) metrics: Metrics,
    pub(crate) draining: Draining,
    pub(crate) tenants: Tenants,
    /// The gateway's URL.
    pub(crate) gateway: Arc<str>,
    pub(crate) streams: Streams,
    pub(crate) live: Live,
    pub(crate) reloader: Reloader,
}

/// The routes for the control socket, whose mode says who may use it.
pub(crate) fn routes(admin: Admin) -> Router {
    let described = OpenApiRouter::with_openapi(description::begin())
        .routes(routes!(sessions::list, sessions::acquire))
        .routes(routes!(sessions::one, sessions::end))
        .routes(routes!(workers::list))
        .routes(routes!(workers::one))
        .routes(routes!(workers::logs))
        .routes(routes!(events::stream))
        .routes(routes!(live::stream))
        .routes(routes!(pages::pools))
        .routes(routes!(pages::pool))
        .routes(routes!(pages::stats))
        .routes(routes!(gateway::one))
        .routes(routes!(reload::reload))
        .routes(routes!(pages::healthz))
        .routes(routes!(pages::readyz))
        .routes(routes!(pages::metrics));
    let (router, api) = described.split_for_parts();
    let description = description::render(api);
    router
        .route("/openapi.json", get(async move |_: NoParams| description))
        .merge(dashboard::routes(no_such_page))
        .fallback(async || no_such_page())
        .method_not_allowed_fallback(async || {
            Problem::new(Kind::MethodNotAllowed).detail("the field `allow` tells which ones it takes")
        })
        .layer(middleware::map_response(harden))
        .with_state(admin)
}

/// The routes for the admin address, which any page in a browser on this host could try to reach.
pub(crate) fn guarded_routes(admin: Admin, guard: Guard) -> Router {
    let routes = routes(admin).layer(middleware::from_fn_with_state(guard, guard::stand));
    // Refusals too.
    routes.layer(middleware::map_response(harden))
}

fn no_such_page() -> Problem {
    Problem::new(Kind::NoSuchPage).detail("/openapi.json tells which pages there are, and what they take")
}

/// Answers are of this moment, and hold text from workers and clients that no browser should take for a page. The
/// dashboard's own files are neither, and say so themselves.
async fn harden(mut response: Response) -> Response {
    let headers = response.headers_mut();
    let policy = "default-src 'none'; frame-ancestors 'none'";
    for (name, value) in [
        (header::CACHE_CONTROL, "no-store"),
        (header::CONTENT_SECURITY_POLICY, policy),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    ] {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    }
    response
}
