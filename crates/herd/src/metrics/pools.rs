//! Metrics of pools, their workers and their sessions.

use std::sync::Arc;

use herd_pool::{EndReason, Histogram, Stats};

use super::{
    Sources,
    page::{Family, Kind, Page},
};
use crate::usage::PoolUsage;

/// The names of the original, over all pools. What is counted includes pools that are gone.
pub(super) fn sums(sources: &Sources, page: &mut Page) {
    let stats = sources.pools.stats();
    let killed = stats.sessions_ended.by(EndReason::Killed) + stats.sessions_ended.by(EndReason::ClientStreamClosed);
    page.gauge("herd_total_workers", "Workers, in whatever state.", stats.workers);
    page.gauge("herd_available_workers", "Healthy workers that wait for a session.", stats.workers_spare);
    page.gauge("herd_active_sessions", "Live sessions.", stats.sessions);
    page.gauge("herd_inflight_acquires", "Callers that wait for a worker.", stats.waiting);
    page.counter("herd_acquire_requests_total", "Times a session's worker was asked for.", stats.acquire_requests);
    page.counter("herd_acquire_failures_total", "Times none could be had.", stats.acquire_failures);
    page.counter("herd_sessions_started_total", "Sessions that got a worker.", stats.sessions_started);
    page.counter("herd_sessions_killed_total", "Sessions that somebody killed.", killed);
}

/// The same and more by pool.
pub(super) fn by_pool(sources: &Sources, page: &mut Page) {
    // One that leaves may share its name with its successor, and a metric has each of its samples once.
    let mut pools: Vec<(Arc<str>, Stats)> = Vec::new();
    for pool in sources.pools.iter() {
        match pools.iter_mut().find(|(name, _)| *name == pool.name) {
            Some((_, stats)) => *stats += pool.pool.stats(),
            None => pools.push((Arc::clone(&pool.name), pool.pool.stats())),
        }
    }
    let mut each = |name, kind, help: &str, samples: &dyn Fn(&mut Family<'_>, &str, &Stats)| {
        let mut family = page.family(name, kind, help);
        for (pool, stats) in &pools {
            samples(&mut family, pool, stats);
        }
    };
    each("herd_max_workers", Kind::Gauge, "The most workers there may be.", &|family, pool, stats| {
        family.one(&[("pool", pool)], stats.max_workers);
    });
    each("herd_workers", Kind::Gauge, "Workers by state.", &|family, pool, stats| {
        for (state, count) in [
            ("starting", stats.workers_starting),
            ("spare", stats.workers_spare),
            ("in-session", stats.workers_in_session),
            ("ending", stats.workers_ending),
        ] {
            family.one(&[("pool", pool), ("state", state)], count);
        }
    });
    each("herd_sessions", Kind::Gauge, "Live sessions.", &|family, pool, stats| {
        family.one(&[("pool", pool)], stats.sessions);
    });
    each("herd_spares", Kind::Gauge, "Healthy workers that wait for a session.", &|family, pool, stats| {
        family.one(&[("pool", pool)], stats.workers_spare);
    });
    each("herd_queue_depth", Kind::Gauge, "Callers that wait for a worker.", &|family, pool, stats| {
        family.one(&[("pool", pool)], stats.waiting);
    });
    let help = "How long callers waited for a worker that they then had; sessions that were live made nobody wait.";
    each("herd_acquire_wait_seconds", Kind::Histogram, help, &|family, pool, stats| {
        histogram(family, pool, &stats.acquire_wait);
    });
    let help = "How long workers took from their spawn until they were ready.";
    each("herd_spawn_seconds", Kind::Histogram, help, &|family, pool, stats| {
        histogram(family, pool, &stats.spawn_to_ready);
    });
    each("herd_sessions_ended_total", Kind::Counter, "Sessions that ended, by reason.", &|family, pool, stats| {
        for (reason, count) in stats.sessions_ended.iter() {
            family.one(&[("pool", pool), ("reason", reason)], count);
        }
    });
    each("herd_spawn_failures_total", Kind::Counter, "Workers that could not be started.", &|family, pool, stats| {
        family.one(&[("pool", pool)], stats.spawn_failures);
    });
    let exits = sources.journal.exits_by_pool();
    let mut family = page.family("herd_worker_exits_total", Kind::Counter, "Workers that ended, by how.");
    for (pool, exits) in &exits {
        for (reason, count) in exits.by_reason() {
            family.one(&[("pool", pool), ("reason", reason)], count);
        }
    }
    let mut family = page.family("herd_oom_kills_total", Kind::Counter, "Workers that their memory limit killed.");
    for (pool, exits) in &exits {
        family.one(&[("pool", pool)], exits.out_of_memory);
    }
    usage(sources, page);
}

fn histogram(family: &mut Family<'_>, pool: &str, histogram: &Histogram) {
    family.histogram(&[("pool", pool)], histogram.cumulative(), histogram.count(), histogram.sum());
}

/// What the workers of each pool use together, as it was seen last.
fn usage(sources: &Sources, page: &mut Page) {
    let seen = sources.usage.seen();
    let mut each = |name, kind, help, value: &dyn Fn(&PoolUsage) -> String| {
        let mut family = page.family(name, kind, help);
        for (pool, usage) in &seen.pools {
            family.one(&[("pool", pool)], value(usage));
        }
    };
    let help = "CPU time of all workers of a pool, those that ended included.";
    each("herd_pool_cpu_seconds_total", Kind::Counter, help, &|usage| usage.cpu_time.as_secs_f64().to_string());
    let help = "Memory of all workers of a pool.";
    each("herd_pool_memory_bytes", Kind::Gauge, help, &|usage| usage.memory.to_string());
    let help = "Processes and threads of all workers of a pool.";
    each("herd_pool_pids", Kind::Gauge, help, &|usage| usage.pids.to_string());
}

/// What the tenants that the configuration names have. Others come and go with the tokens that name them, without end.
pub(super) fn tenants(sources: &Sources, page: &mut Page) {
    let Some(others) = &*sources.others() else { return };
    let tenants = others.tenants.named();
    let mut sessions = page.family("herd_tenant_sessions", Kind::Gauge, "Sessions of a tenant, in whatever state.");
    for tenant in &tenants {
        sessions.one(&[("tenant", tenant.name())], tenant.sessions());
    }
    let mut waiting = page.family("herd_tenant_waiting", Kind::Gauge, "Callers of a tenant that wait for a worker.");
    for tenant in &tenants {
        waiting.one(&[("tenant", tenant.name())], tenant.waiting());
    }
}
