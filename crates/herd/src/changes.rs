//! What differs between the settings of a daemon that runs and those of a changed file.

use crate::config::{
    Mistakes, Settings,
    mistake::{Mistake, Origin},
    raw::Maybe,
    settings::{Network, Telemetry},
};

/// What has another value and cannot change while the daemon runs, each told at its place.
pub(crate) fn needs_restart(before: &Settings, after: &Settings) -> Mistakes {
    let (old, new, written) = (&before.network, &after.network, &after.raw.network);
    let telemetry = (&before.telemetry, &after.telemetry, &after.raw.telemetry);
    let fixed = [
        (old.data_bind != new.data_bind, "network.data_bind", place(&written.data_bind)),
        (old.admin_bind != new.admin_bind, "network.admin_bind", place(&written.admin_bind)),
        (old.control_socket != new.control_socket, "network.control_socket", place(&written.control_socket)),
        (old.max_connections != new.max_connections, "network.max_connections", place(&written.max_connections)),
        (old.threads != new.threads, "network.threads", place(&written.threads)),
        (old.tls.is_some() != new.tls.is_some(), "network.tls", place(&written.tls)),
        (old.admin_tls.is_some() != new.admin_tls.is_some(), "network.admin_tls", place(&written.admin_tls)),
        (
            telemetry.0.otlp_endpoint != telemetry.1.otlp_endpoint,
            "telemetry.otlp_endpoint",
            place(&telemetry.2.otlp_endpoint),
        ),
        (telemetry.0.trace_ratio != telemetry.1.trace_ratio, "telemetry.trace_ratio", place(&telemetry.2.trace_ratio)),
    ];
    let mut mistakes = Mistakes { file: after.file.clone(), all: Vec::new() };
    for (_, name, origin) in fixed.into_iter().filter(|(differs, ..)| *differs) {
        let origin = origin.unwrap_or_else(|| Origin::flag(name));
        let problem = "needs a restart: it cannot change while the daemon runs";
        mistakes.push(Mistake::new(origin, problem, "restart the daemon, or set it to what it was").unavailable());
    }
    mistakes.sort();
    mistakes
}

fn place<T>(written: &Maybe<T>) -> Option<Origin> {
    written.as_ref().map(|written| written.origin.clone())
}

/// The sections and keys outside of pools that have another value.
pub(crate) fn changed(before: &Settings, after: &Settings) -> Vec<String> {
    // All fields are named, so that a new one is not forgotten here.
    let Settings {
        network: _,
        pools: _,
        routes,
        access,
        tenants,
        webhooks,
        telemetry: _,
        warnings: _,
        file: _,
        raw: _,
    } = before;
    let sections = [
        ("routes", *routes != after.routes),
        ("access", *access != after.access),
        ("tenants", *tenants != after.tenants),
        ("webhooks", *webhooks != after.webhooks),
    ];
    let keys = network(&before.network, &after.network).into_iter();
    let keys = keys.chain(telemetry(&before.telemetry, &after.telemetry)).chain(sections);
    keys.filter(|(_, differs)| *differs).map(|(name, _)| name.to_owned()).collect()
}

fn network(before: &Network, after: &Network) -> [(&'static str, bool); 13] {
    let Network {
        data_bind,
        admin_bind,
        tls,
        admin_tls,
        admin_token_file,
        admin_hosts,
        control_socket,
        session_key,
        lookup_only,
        drain_timeout,
        response_timeout,
        max_connections,
        threads,
    } = before;
    [
        ("network.data_bind", *data_bind != after.data_bind),
        ("network.admin_bind", *admin_bind != after.admin_bind),
        ("network.tls", *tls != after.tls),
        ("network.admin_tls", *admin_tls != after.admin_tls),
        ("network.admin_token_file", *admin_token_file != after.admin_token_file),
        ("network.admin_hosts", *admin_hosts != after.admin_hosts),
        ("network.control_socket", *control_socket != after.control_socket),
        ("network.session_key", *session_key != after.session_key),
        ("network.lookup_only", *lookup_only != after.lookup_only),
        ("network.drain_timeout", *drain_timeout != after.drain_timeout),
        ("network.response_timeout", *response_timeout != after.response_timeout),
        ("network.max_connections", *max_connections != after.max_connections),
        ("network.threads", *threads != after.threads),
    ]
}

fn telemetry(before: &Telemetry, after: &Telemetry) -> [(&'static str, bool); 5] {
    let Telemetry { log_format, log_level, metrics_path, otlp_endpoint, trace_ratio } = before;
    [
        ("telemetry.log_format", *log_format != after.log_format),
        ("telemetry.log_level", *log_level != after.log_level),
        ("telemetry.metrics_path", *metrics_path != after.metrics_path),
        ("telemetry.otlp_endpoint", *otlp_endpoint != after.otlp_endpoint),
        ("telemetry.trace_ratio", *trace_ratio != after.trace_ratio),
    ]
}
