//! From settings to what the gateway is told: its routes, and how it behaves.

use std::sync::Arc;

use anyhow::Context as _;
use herd_gateway::{GatewayOptions, MetricsPage, Routes, Rule, Sessions};

use crate::{
    access::Access,
    config::settings::{DEFAULT_POOL, Route, Settings},
    metrics::Metrics,
    pools::NamedPool,
    traces::Traces,
    workers::Factory,
};

/// The routes to these pools.
///
/// # Errors
/// If the rules do not go with the pools.
pub(crate) fn routes(pools: &[Arc<NamedPool>], settings: &Settings) -> anyhow::Result<Routes<Factory>> {
    let rule = |route: &Route| {
        let Route { pool, host, path_prefix, strip_prefix, header } = route.clone();
        Rule { pool, host, path_prefix, strip_prefix, header }
    };
    let default = pools.iter().map(|pool| Arc::clone(&pool.name)).find(|name| **name == *DEFAULT_POOL);
    let pools = pools.iter().map(|pool| (Arc::clone(&pool.name), pool.pool.clone())).collect();
    Routes::new(pools, settings.routes.iter().map(rule).collect(), default).context("cannot route requests to pools")
}

/// How the gateway behaves.
pub(crate) fn options(
    settings: &Settings,
    access: Option<Access>,
    metrics: Metrics,
    traces: &Traces,
) -> GatewayOptions {
    let network = &settings.network;
    GatewayOptions {
        access: access.map(|access| Arc::new(access) as Arc<dyn herd_gateway::Access>),
        session_key: network.session_key.clone(),
        sessions: if network.lookup_only { Sessions::LookUpOnly } else { Sessions::Start },
        metrics: Some(MetricsPage {
            path: settings.telemetry.metrics_path.clone(),
            render: Arc::new(move || metrics.render()),
        }),
        max_connections: network.max_connections,
        response_timeout: network.response_timeout,
        tracer: traces.tracer(),
        ..GatewayOptions::default()
    }
}

/// Says what is hardly meant as it is configured.
pub(crate) fn warn(settings: &Settings) {
    for warning in settings.warnings().all {
        tracing::warn!("{warning}");
    }
}
