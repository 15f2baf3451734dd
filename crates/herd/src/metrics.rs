//! Prometheus metrics, made from the numbers that the pool and the gateway keep anyway. No label holds a session ID.
//!
//! The names of the original are kept as they were; everything else follows Prometheus' naming rules.

use std::{
    fmt::{Debug, Display, Write as _},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use herd_gateway::GatewayStats;
use herd_pool::EndReason;

use crate::{
    journal::Journal,
    pools::Pools,
    usage::{Samples, Usage},
};

/// The text format, version 0.0.4.
pub(crate) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Where the numbers come from.
#[derive(Clone, Debug)]
pub(crate) struct Metrics(Arc<Sources>);

#[derive(Debug)]
struct Sources {
    pools: Pools,
    journal: Journal,
    usage: Samples,
    started: SystemTime,
    gateway: Mutex<Option<GatewayNumbers>>,
}

/// Asks the gateway for its numbers.
struct GatewayNumbers(Box<dyn Fn() -> GatewayStats + Send + Sync>);

impl Debug for GatewayNumbers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("GatewayNumbers")
    }
}

impl Metrics {
    pub(crate) fn new(pools: Pools, journal: Journal) -> Self {
        let (usage, gateway) = Default::default();
        let sources = Sources { pools, journal, usage, started: SystemTime::now(), gateway };
        Self(Arc::new(sources))
    }

    /// Tells where the gateway's numbers are, once there is one: the gateway itself serves these metrics, so it comes
    /// later.
    pub(crate) fn watch_gateway(&self, numbers: impl Fn() -> GatewayStats + Send + Sync + 'static) {
        *self.gateway_numbers() = Some(GatewayNumbers(Box::new(numbers)));
    }

    /// Lets go of the gateway, which holds these metrics and with them the pools.
    pub(crate) fn forget_gateway(&self) {
        *self.gateway_numbers() = None;
    }

    pub(crate) fn gateway(&self) -> GatewayStats {
        self.gateway_numbers().as_ref().map_or_else(GatewayStats::default, |numbers| (numbers.0)())
    }

    fn gateway_numbers(&self) -> MutexGuard<'_, Option<GatewayNumbers>> {
        self.0.gateway.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn uptime(&self) -> Duration {
        self.0.started.elapsed().unwrap_or_default()
    }

    /// All metrics in the text format.
    pub(crate) fn render(&self) -> String {
        let mut page = Page::default();
        self.pool(&mut page);
        self.workers(&mut page);
        self.front_door(&mut page);
        let version = [("version", env!("CARGO_PKG_VERSION"))];
        page.family("herd_build_info", Kind::Gauge, "The version of the daemon, as a label.").one(&version, 1);
        let started = self.0.started.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        page.gauge("herd_start_time_seconds", "When the daemon started, in seconds since 1970.", started);
        page.0
    }

    fn pool(&self, page: &mut Page) {
        let stats = self.0.pools.stats();
        let killed =
            stats.sessions_ended.by(EndReason::Killed) + stats.sessions_ended.by(EndReason::ClientStreamClosed);
        page.gauge("herd_total_workers", "Workers, in whatever state.", stats.workers);
        page.gauge("herd_available_workers", "Healthy workers that wait for a session.", stats.workers_spare);
        page.gauge("herd_active_sessions", "Live sessions.", stats.sessions);
        page.gauge("herd_inflight_acquires", "Callers that wait for a worker.", stats.waiting);
        page.counter("herd_acquire_requests_total", "Times a session's worker was asked for.", stats.acquire_requests);
        page.counter("herd_acquire_failures_total", "Times none could be had.", stats.acquire_failures);
        page.counter("herd_sessions_started_total", "Sessions that got a worker.", stats.sessions_started);
        page.counter("herd_sessions_killed_total", "Sessions that somebody killed.", killed);
        page.gauge("herd_max_workers", "The most workers there may be.", stats.max_workers);
        let mut workers = page.family("herd_workers", Kind::Gauge, "Workers by state.");
        for (state, count) in [
            ("starting", stats.workers_starting),
            ("spare", stats.workers_spare),
            ("in-session", stats.workers_in_session),
            ("ending", stats.workers_ending),
        ] {
            workers.one(&[("state", state)], count);
        }
        let mut ended = page.family("herd_sessions_ended_total", Kind::Counter, "Sessions that ended, by reason.");
        for (reason, count) in stats.sessions_ended.iter() {
            ended.one(&[("reason", reason)], count);
        }
        let mut family = page.family("herd_worker_exits_total", Kind::Counter, "Workers that ended, by how.");
        for (reason, count) in self.0.journal.exits().by_reason() {
            family.one(&[("reason", reason)], count);
        }
        page.counter("herd_spawn_failures_total", "Workers that could not be started.", stats.spawn_failures);
    }

    /// What each worker uses. There are as many samples as workers, and an ended worker's ones are gone.
    fn workers(&self, page: &mut Page) {
        let usages: Vec<_> =
            self.0.usage.of(&self.0.pools).into_iter().map(|(worker, usage)| (worker.to_string(), usage)).collect();
        let mut family = |name, kind, help, value: &dyn Fn(&Usage) -> Option<String>| {
            let mut family = page.family(name, kind, help);
            for (worker, usage) in &usages {
                if let Some(value) = value(usage) {
                    family.one(&[("worker", worker)], value);
                }
            }
        };
        let help = "CPU time of each worker's processes.";
        family("herd_worker_cpu_seconds_total", Kind::Counter, help, &|usage| {
            Some(usage.cpu_time.as_secs_f64().to_string())
        });
        let help = "Memory of each worker's processes.";
        family("herd_worker_memory_bytes", Kind::Gauge, help, &|usage| Some(usage.memory.to_string()));
        let help = "The most memory that each worker has used at once, where cgroups tell.";
        family("herd_worker_memory_peak_bytes", Kind::Gauge, help, &|usage| {
            usage.memory_peak.map(|bytes| bytes.to_string())
        });
        let help = "Processes and threads of each worker.";
        family("herd_worker_pids", Kind::Gauge, help, &|usage| Some(usage.pids.to_string()));
        let help = "Processes of each worker that its memory limit has killed, where cgroups tell.";
        family("herd_worker_oom_kills_total", Kind::Counter, help, &|usage| {
            usage.oom_kills.map(|kills| kills.to_string())
        });
    }

    fn front_door(&self, page: &mut Page) {
        let gateway = self.gateway();
        page.gauge("herd_gateway_connections", "Client connections that are open.", gateway.connections);
        page.counter("herd_gateway_connections_total", "Client connections accepted.", gateway.connections_total);
        let help = "Connections that could not be accepted.";
        page.counter("herd_gateway_accept_failures_total", help, gateway.accept_failures_total);
        page.gauge("herd_gateway_requests_in_flight", "Requests that are being answered.", gateway.requests);
        let mut responses = page.family("herd_gateway_responses_total", Kind::Counter, "Responses by status class.");
        for (class, count) in ["1xx", "2xx", "3xx", "4xx", "5xx"].into_iter().zip(gateway.responses_total) {
            responses.one(&[("class", class)], count);
        }
        page.gauge("herd_gateway_upgrades", "Upgraded connections that are open.", gateway.upgrades);
        page.counter("herd_gateway_upgrades_total", "Upgraded connections.", gateway.upgrades_total);
        let help = "Connections opened to workers.";
        page.counter("herd_gateway_upstream_connections_total", help, gateway.upstream_connections_total);
        page.counter(
            "herd_gateway_received_bytes_total",
            "Bytes of bodies from clients.",
            gateway.received_bytes_total,
        );
        page.counter("herd_gateway_sent_bytes_total", "Bytes of bodies to clients.", gateway.sent_bytes_total);
    }
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Counter,
    Gauge,
}

/// The text that is made.
#[derive(Debug, Default)]
struct Page(String);

/// One metric with its samples.
#[derive(Debug)]
struct Family<'a> {
    page: &'a mut String,
    name: &'static str,
}

impl Page {
    fn counter(&mut self, name: &'static str, help: &str, value: u64) {
        self.family(name, Kind::Counter, help).one(&[], value);
    }

    fn gauge(&mut self, name: &'static str, help: &str, value: impl Display) {
        self.family(name, Kind::Gauge, help).one(&[], value);
    }

    fn family(&mut self, name: &'static str, kind: Kind, help: &str) -> Family<'_> {
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
        };
        // Writing to a string cannot fail.
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
        Family { page: &mut self.0, name }
    }
}

impl Family<'_> {
    /// Adds a sample. All labels' values are words of ours, so none needs an escape.
    fn one(&mut self, labels: &[(&str, &str)], value: impl Display) {
        self.page.push_str(self.name);
        for (index, (label, text)) in labels.iter().enumerate() {
            let open = if index == 0 { '{' } else { ',' };
            let _ = write!(self.page, "{open}{label}=\"{text}\"");
        }
        let close = if labels.is_empty() { "" } else { "}" };
        let _ = writeln!(self.page, "{close} {value}");
    }
}
