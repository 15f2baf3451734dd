//! The section `telemetry`.

use super::{
    fields::{Fields, about},
    form::{COLLECTOR_URL, PAGE, RATIO, word},
    mistake::{Mistake, Mistakes},
    raw::RawTelemetry,
    resolve::or,
    settings::{LogLevel, Telemetry},
};

/// The page of the gateway that says whether it is there.
pub(super) const HEALTH_PAGE: &str = "/healthz";

pub(super) fn read(f: &mut Fields<'_>) -> RawTelemetry {
    RawTelemetry {
        log_format: f.value(
            "log_format",
            word(),
            about("How log lines are written, to standard error. Default: text on a terminal, else json."),
        ),
        log_level: f.value(
            "log_level",
            word(),
            about("The least important log lines that are written.").default(r#""info""#),
        ),
        metrics_path: f.value(
            "metrics_path",
            PAGE,
            about("Where the gateway serves Prometheus metrics to requests without a session key.")
                .default(r#""/metrics""#),
        ),
        otlp_endpoint: f.nullable(
            "otlp_endpoint",
            COLLECTOR_URL,
            about("Where traces are sent, OTLP over HTTP, in builds with the feature otlp; null for nowhere.")
                .default("null"),
        ),
        trace_ratio: f.value(
            "trace_ratio",
            RATIO,
            about("The share of requests that are traced, 0 to 1, whatever the client's traceparent says.")
                .default("1.0"),
        ),
    }
}

pub(super) fn resolve(raw: RawTelemetry, mistakes: &mut Mistakes) -> Telemetry {
    let RawTelemetry { log_format, log_level, metrics_path, otlp_endpoint, trace_ratio } = raw;
    if let Some(path) = metrics_path.as_ref().filter(|path| path.value == HEALTH_PAGE) {
        mistakes.push(
            Mistake::new(path.origin.clone(), "is the health page's path", "write another, such as /metrics")
                .found(HEALTH_PAGE),
        );
    }
    if let Some(endpoint) =
        otlp_endpoint.as_ref().filter(|endpoint| endpoint.value.is_some() && !cfg!(feature = "otlp"))
    {
        let problem = "wants traces, and this build has no feature otlp";
        let remedy = "leave it out, or build herd with `cargo build --release --features otlp`";
        mistakes.push(Mistake::new(endpoint.origin.clone(), problem, remedy).unavailable());
    }
    Telemetry {
        log_format: log_format.map(|written| written.value),
        log_level: or(log_level, LogLevel::Info),
        metrics_path: or(metrics_path, "/metrics".to_owned()),
        otlp_endpoint: or(otlp_endpoint, None),
        trace_ratio: or(trace_ratio, 1.0),
    }
}
