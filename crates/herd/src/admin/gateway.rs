//! Where the gateway is and what a request to it must have, for those who tell somebody how a session is reached.

use axum::{Json, extract::State};
use serde::Serialize;
use utoipa::ToSchema;

use super::{
    Admin,
    extract::NoParams,
    front,
    model::RouteTo,
    problem::{Document, Problem},
};
use crate::config::settings::DEFAULT_POOL;

/// The gateway, as requests find it.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Gateway {
    #[schema(example = "http://127.0.0.1:8080")]
    url: String,
    /// Where session IDs are looked for, as it was configured.
    #[schema(example = "header:x-session-id")]
    session_key: String,
    /// Whether requests reach only sessions that there are, and start none.
    lookup_only: bool,
    /// Whether requests must have credentials.
    asks_for_credentials: bool,
    /// Tried in this order.
    routes: Vec<GatewayRoute>,
    /// Where requests go that fit no route; `null`: nowhere.
    #[schema(required = true, example = "default")]
    default_pool: Option<String>,
}

/// A route, and the pool that it leads to.
#[derive(Debug, Serialize, ToSchema)]
struct GatewayRoute {
    #[schema(example = "default")]
    pool: String,
    #[serde(flatten)]
    to: RouteTo,
}

/// How sessions are reached.
#[utoipa::path(
    get, path = "/v1/gateway", tag = "daemon", operation_id = "getGateway",
    responses(
        (status = 200, description = "The gateway", body = Gateway),
        (status = 400, description = "A parameter is not understood", body = Document, content_type = "application/problem+json"),
    )
)]
pub(super) async fn one(State(admin): State<Admin>, _: NoParams) -> Result<Json<Gateway>, Problem> {
    let settings = admin.reloader.settings();
    let routes = settings.routes.iter();
    let default_pool = settings.pools.iter().find(|pool| &*pool.name == DEFAULT_POOL);
    Ok(Json(Gateway {
        url: admin.gateway.to_string(),
        session_key: settings.network.session_key.to_string(),
        lookup_only: settings.network.lookup_only,
        asks_for_credentials: settings.access.is_some(),
        routes: routes.map(|route| GatewayRoute { pool: route.pool.to_string(), to: front::route_to(route) }).collect(),
        default_pool: default_pool.map(|pool| pool.name.to_string()),
    }))
}
