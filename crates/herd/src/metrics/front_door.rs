//! Metrics of the gateway.

use herd_gateway::{Gateway, PoolLatencies};
use herd_pool::Histogram;

use super::page::{Family, Kind, Page};
use crate::workers::Factory;

pub(super) fn connections(gateway: &Gateway<Factory>, page: &mut Page) {
    let stats = gateway.stats();
    page.gauge("herd_gateway_connections", "Client connections that are open.", stats.connections);
    page.counter("herd_gateway_connections_total", "Client connections accepted.", stats.connections_total);
    let help = "Connections that could not be accepted.";
    page.counter("herd_gateway_accept_failures_total", help, stats.accept_failures_total);
    let help = "TLS handshakes that came to nothing.";
    page.counter("herd_gateway_handshake_failures_total", help, stats.handshake_failures_total);
    page.gauge("herd_gateway_requests_in_flight", "Requests that are being answered.", stats.requests);
    let help = "All responses by status class, those without a pool included.";
    let mut responses = page.family("herd_gateway_responses_total", Kind::Counter, help);
    by_class(&mut responses, None, stats.responses_total);
    let help = "Requests that the gateway answered with a failure of its own, by the name in herd-error.";
    let mut failures = page.family("herd_gateway_failures_total", Kind::Counter, help);
    for (error, count) in stats.failures_total() {
        failures.one(&[("error", error)], count);
    }
    page.gauge("herd_gateway_upgrades", "Upgraded connections that are open.", stats.upgrades);
    page.counter("herd_gateway_upgrades_total", "Upgraded connections.", stats.upgrades_total);
    let help = "Connections opened to workers.";
    page.counter("herd_gateway_upstream_connections_total", help, stats.upstream_connections_total);
    page.counter("herd_gateway_received_bytes_total", "Bytes of bodies from clients.", stats.received_bytes_total);
    page.counter("herd_gateway_sent_bytes_total", "Bytes of bodies to clients.", stats.sent_bytes_total);
}

pub(super) fn latencies(gateway: &Gateway<Factory>, page: &mut Page) {
    let pools = gateway.latencies();
    let mut each = |name, kind, help, samples: &dyn Fn(&mut Family<'_>, &PoolLatencies)| {
        let mut family = page.family(name, kind, help);
        for pool in &pools {
            samples(&mut family, pool);
        }
    };
    each("herd_responses_total", Kind::Counter, "Responses by pool and status class.", &|family, pool| {
        by_class(family, Some(&pool.pool), pool.responses_total);
    });
    let help = "From a request's head to the last byte of its response.";
    each("herd_request_seconds", Kind::Histogram, help, &|family, pool| {
        histogram(family, &pool.pool, None, &pool.request);
    });
    let help = "From a request's head to the head of the worker's response.";
    each("herd_time_to_first_byte_seconds", Kind::Histogram, help, &|family, pool| {
        histogram(family, &pool.pool, None, &pool.first_byte);
    });
    let help = "What requests took in each phase: admit, lease, connect, send, relay, and end instead where the session is ended.";
    each("herd_request_phase_seconds", Kind::Histogram, help, &|family, pool| {
        for (phase, latency) in &pool.phases {
            histogram(family, &pool.pool, Some(phase), latency);
        }
    });
}

fn by_class(family: &mut Family<'_>, pool: Option<&str>, counts: [u64; 5]) {
    for (class, count) in ["1xx", "2xx", "3xx", "4xx", "5xx"].into_iter().zip(counts) {
        match pool {
            Some(pool) => family.one(&[("pool", pool), ("class", class)], count),
            None => family.one(&[("class", class)], count),
        }
    }
}

fn histogram(family: &mut Family<'_>, pool: &str, phase: Option<&str>, latency: &Histogram) {
    let labels = [("pool", pool), ("phase", phase.unwrap_or_default())];
    let labels = if phase.is_some() { &labels[..] } else { &labels[..1] };
    family.histogram(labels, latency.cumulative(), latency.count(), latency.sum());
}
