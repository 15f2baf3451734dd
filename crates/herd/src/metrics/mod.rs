//! Prometheus metrics, made from the numbers that pools, gateway and webhooks keep anyway. No label holds a session ID.
//!
//! The names of the original are kept as they were; everything else follows Prometheus' naming rules.

mod front_door;
mod page;
mod pools;
mod process;

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use herd_gateway::{Gateway, GatewayStats};

use self::page::{Kind, Page};
use crate::{
    access::Tenants,
    certificates::Certificates,
    journal::Journal,
    pools::Pools,
    traces::Traces,
    usage::Samples,
    webhooks::{Counts, Webhooks},
    workers::Factory,
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
    reloads: Reloads,
    others: Mutex<Option<Others>>,
}

/// What there are numbers of besides pools.
#[derive(Debug)]
pub(crate) struct Others {
    pub(crate) gateway: Gateway<Factory>,
    pub(crate) tenants: Tenants,
    pub(crate) certificates: Certificates,
    pub(crate) webhooks: Webhooks,
    pub(crate) traces: Traces,
}

/// How attempts to apply a changed configuration ended.
#[derive(Debug, Default)]
struct Reloads {
    succeeded: AtomicU64,
    failed: AtomicU64,
    /// Whether the last one failed, as a number.
    last_failed: AtomicU64,
}

impl Metrics {
    pub(crate) fn new(pools: Pools, journal: Journal) -> Self {
        let usage = Samples::new(pools.clone());
        let (reloads, others) = Default::default();
        Self(Arc::new(Sources { pools, journal, usage, started: SystemTime::now(), reloads, others }))
    }

    /// Tells where the other numbers are, once there are any: the gateway itself serves these metrics, so it comes later.
    pub(crate) fn watch(&self, others: Others) {
        *self.0.others() = Some(others);
    }

    /// Lets go of the gateway, which holds these metrics and with them the pools.
    pub(crate) fn forget(&self) {
        *self.0.others() = None;
    }

    pub(crate) fn gateway(&self) -> GatewayStats {
        self.0.others().as_ref().map_or_else(GatewayStats::default, |others| others.gateway.stats())
    }

    /// When the daemon was started.
    pub(crate) fn started(&self) -> SystemTime {
        self.0.started
    }

    pub(crate) fn uptime(&self) -> Duration {
        self.0.started.elapsed().unwrap_or_default()
    }

    /// Counts an attempt to apply a changed configuration.
    pub(crate) fn reloaded(&self, succeeded: bool) {
        let Reloads { succeeded: successes, failed, last_failed } = &self.0.reloads;
        if succeeded { successes } else { failed }.fetch_add(1, Relaxed);
        last_failed.store(u64::from(!succeeded), Relaxed);
    }

    /// What workers use, as it was seen last.
    pub(crate) fn usage(&self) -> &Samples {
        &self.0.usage
    }

    /// All metrics in the text format, with what workers use at this moment if they are few.
    pub(crate) async fn render_fresh(&self) -> String {
        self.0.usage.refresh().await;
        self.page()
    }

    /// All metrics in the text format, with what workers used when somebody asked before. Never waits.
    pub(crate) fn render(&self) -> String {
        drop(self.0.usage.refresh());
        self.page()
    }

    fn page(&self) -> String {
        let sources = &*self.0;
        let mut page = Page::default();
        pools::sums(sources, &mut page);
        pools::by_pool(sources, &mut page);
        pools::tenants(sources, &mut page);
        if let Some(others) = &*sources.others() {
            front_door::connections(&others.gateway, &mut page);
            front_door::latencies(&others.gateway, &mut page);
            certificates(&others.certificates, &mut page);
            webhooks(&others.webhooks, &mut page);
            traces(&others.traces, &mut page);
        }
        sources.reloads.tell(&mut page);
        let version = [("version", env!("CARGO_PKG_VERSION"))];
        page.family("herd_build_info", Kind::Gauge, "The version of the daemon, as a label.").one(&version, 1);
        process::process(sources.started, &mut page);
        page.into_text()
    }
}

impl Sources {
    fn others(&self) -> MutexGuard<'_, Option<Others>> {
        self.others.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Reloads {
    fn tell(&self, page: &mut Page) {
        let help = "Attempts to apply a changed configuration, by outcome.";
        let mut attempts = page.family("herd_reloads_total", Kind::Counter, help);
        attempts.one(&[("outcome", "succeeded")], self.succeeded.load(Relaxed));
        attempts.one(&[("outcome", "failed")], self.failed.load(Relaxed));
        let help = "1 unless the last attempt to apply a changed configuration failed.";
        page.gauge("herd_last_reload_successful", help, 1 - self.last_failed.load(Relaxed));
    }
}

fn certificates(certificates: &Certificates, page: &mut Page) {
    let help = "When a certificate in use expires, in seconds since 1970.";
    let mut family = page.family("herd_certificate_expiry_timestamp_seconds", Kind::Gauge, help);
    for (user, expires) in certificates.expiries() {
        let seconds = expires.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        family.one(&[("use", user)], seconds);
    }
}

/// Receivers by their place in the configuration, from 1: an address may tell more than everybody should know.
fn webhooks(webhooks: &Webhooks, page: &mut Page) {
    let counts = webhooks.counts();
    let mut each = |name, kind, help, value: &dyn Fn(&Counts) -> u64| {
        let mut family = page.family(name, kind, help);
        for (place, counts) in (1..).zip(&counts) {
            family.one(&[("webhook", &place.to_string())], value(counts));
        }
    };
    let help = "Events that wait for a webhook's receiver.";
    each("herd_webhook_queue", Kind::Gauge, help, &|counts| counts.waiting as u64);
    let help = "Events that a webhook's receiver took.";
    each("herd_webhook_events_delivered_total", Kind::Counter, help, &|counts| counts.delivered);
    let help = "Events that a webhook's receiver will never get, because too many waited or for too long.";
    each("herd_webhook_events_dropped_total", Kind::Counter, help, &|counts| counts.dropped);
    let help = "Attempts to post to a webhook's receiver that failed.";
    each("herd_webhook_failures_total", Kind::Counter, help, &|counts| counts.failures);
}

/// Only of a daemon that sends traces.
fn traces(traces: &Traces, page: &mut Page) {
    let Some(counts) = traces.counts() else { return };
    page.counter("herd_trace_spans_exported_total", "Spans that the collector of traces took.", counts.exported);
    let help = "Spans that the collector of traces will never get, because it could not take them or too many waited.";
    page.counter("herd_trace_spans_dropped_total", help, counts.dropped);
}
