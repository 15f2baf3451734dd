use std::{collections::BTreeMap, sync::Arc, time::Duration};

use herd_pool::{Histogram, WorkerFactory as _};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Sandbox, exact_millis, millis, time};
use crate::{
    config::settings::{IdleBy, WhenFull},
    journal::{Exits, Journal},
    metrics::Metrics,
    pools::{NamedPool, Pools},
    setup::Setup,
};

/// The daemon's numbers: the sums over all pools, and each pool's.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Stats {
    /// The daemon's version.
    #[schema(value_type = String, example = "0.5.0")]
    version: &'static str,
    /// The daemon's process.
    pid: u32,
    /// When the daemon was started. Another value than before means another daemon, which counts its events anew.
    #[schema(format = DateTime, example = "2026-01-31T12:00:00.000Z")]
    started: String,
    uptime_ms: u64,
    /// Whether it has stopped taking on sessions.
    draining: bool,
    /// Sums over all pools; what is counted includes those that are gone.
    #[serde(flatten)]
    sums: Counts,
    gateway: GatewayCounts,
    pools: Vec<PoolStats>,
}

/// One pool.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
pub(crate) struct PoolStats {
    #[schema(example = "default")]
    pub(crate) pool: String,
    #[serde(skip)]
    pub(crate) serial: u64,
    /// Whether it has been removed from the configuration, and ends when its sessions do.
    pub(crate) leaving: bool,
    #[serde(flatten)]
    pub(crate) counts: Counts,
    #[serde(flatten)]
    pub(crate) settings: PoolSettings,
    /// How long workers took from the begin of their start until they were ready.
    pub(crate) spawn_ms: Durations,
    /// The last start of a worker, if it failed and none has become ready since.
    #[schema(required = true)]
    pub(crate) last_start_failure: Option<StartFailure>,
    pub(crate) sandbox: Sandbox,
}

/// Numbers of this moment, and counts from the daemon's start.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
pub(crate) struct Counts {
    /// The most workers there may be.
    pub(crate) max_workers: usize,
    pub(crate) workers: WorkerCounts,
    /// Live sessions.
    pub(crate) sessions: usize,
    /// Callers that wait for a worker.
    pub(crate) waiting: usize,
    /// How often a session's worker was asked for.
    pub(crate) acquire_requests: u64,
    /// How often none could be had.
    pub(crate) acquire_failures: u64,
    /// Sessions that got a worker.
    pub(crate) sessions_started: u64,
    /// Sessions that ended, by reason.
    pub(crate) sessions_ended: BTreeMap<String, u64>,
    /// Workers that could not be started.
    pub(crate) spawn_failures: u64,
    /// Workers that ended, by how.
    pub(crate) worker_exits: BTreeMap<String, u64>,
}

/// What the pool's next sessions and callers are treated by.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
pub(crate) struct PoolSettings {
    /// The fewest workers there are.
    pub(crate) min_workers: usize,
    /// How many workers wait for sessions, if there is room.
    pub(crate) spare: usize,
    /// How long a session may be idle.
    pub(crate) ttl_ms: u64,
    /// What that counts from: `lease`, the end of its last request, or `bytes`, the last byte to or from its worker.
    #[schema(example = "lease")]
    pub(crate) idle_by: String,
    /// How long a session may last; `null`: as long as it is used.
    #[schema(required = true)]
    pub(crate) max_lifetime_ms: Option<u64>,
    /// How many callers may wait for a worker.
    pub(crate) max_waiting: usize,
    /// How long each of them waits.
    pub(crate) acquire_timeout_ms: u64,
    /// What a new session does when all workers are taken: `wait`, or `evict-idle`.
    #[schema(example = "wait")]
    pub(crate) when_full: String,
}

/// How long something took, each time since the daemon's start.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
pub(crate) struct Durations {
    pub(crate) count: u64,
    /// `null`: nothing was counted.
    #[schema(required = true)]
    pub(crate) mean: Option<f64>,
    /// What half of them did not exceed. It is estimated, as all quantiles are: within the bucket that holds it.
    #[schema(required = true)]
    pub(crate) p50: Option<f64>,
    #[schema(required = true)]
    pub(crate) p90: Option<f64>,
    #[schema(required = true)]
    pub(crate) p99: Option<f64>,
    /// From the shortest to the longest. Those at both ends that hold nothing are left out.
    pub(crate) buckets: Vec<Bucket>,
}

/// How many took as long as that.
#[derive(Debug, Deserialize, PartialEq, Serialize, ToSchema)]
pub(crate) struct Bucket {
    /// More than this.
    pub(crate) above_ms: f64,
    /// At most this; `null`: there is no bound.
    #[schema(required = true)]
    pub(crate) up_to_ms: Option<f64>,
    pub(crate) count: u64,
}

/// Why the last start of a worker failed.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
pub(crate) struct StartFailure {
    #[schema(format = DateTime, example = "2026-01-31T12:00:00.000Z")]
    pub(crate) at: String,
    pub(crate) error: String,
}

/// The part of the stats that `herd ps` shows.
#[derive(Debug, Deserialize)]
pub(crate) struct Troubles {
    pub(crate) pools: Vec<PoolStats>,
}

/// Workers by state.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
pub(crate) struct WorkerCounts {
    pub(crate) total: usize,
    pub(crate) starting: usize,
    pub(crate) spare: usize,
    pub(crate) in_session: usize,
    pub(crate) ending: usize,
}

/// What the gateway does at this moment, and has done since the daemon's start.
#[derive(Debug, Serialize, ToSchema)]
struct GatewayCounts {
    /// Client connections that are open.
    connections: u64,
    /// Client connections since the daemon's start.
    connections_total: u64,
    /// Requests that are being answered.
    requests: u64,
    /// Requests that have been answered since the daemon's start.
    requests_total: u64,
    /// Upgraded connections that are open.
    upgrades: u64,
    /// Upgraded connections since the daemon's start.
    upgrades_total: u64,
    received_bytes: u64,
    sent_bytes: u64,
}

impl Stats {
    /// When the daemon was started.
    pub(crate) fn started(&self) -> &str {
        &self.started
    }

    pub(crate) fn new(pools: &Pools, metrics: &Metrics, journal: &Journal, draining: bool) -> Self {
        let gateway = metrics.gateway();
        Self {
            version: env!("CARGO_PKG_VERSION"),
            pid: std::process::id(),
            started: time(metrics.started()),
            uptime_ms: millis(metrics.uptime()),
            draining,
            sums: Counts::new(&pools.stats(), &journal.exits()),
            gateway: GatewayCounts {
                connections: gateway.connections,
                connections_total: gateway.connections_total,
                requests: gateway.requests,
                requests_total: gateway.responses_total.into_iter().sum(),
                upgrades: gateway.upgrades,
                upgrades_total: gateway.upgrades_total,
                received_bytes: gateway.received_bytes_total,
                sent_bytes: gateway.sent_bytes_total,
            },
            pools: PoolStats::all(pools, journal),
        }
    }
}

impl PoolStats {
    /// All pools in the order of the configuration, and then those that leave.
    pub(crate) fn all(pools: &Pools, journal: &Journal) -> Vec<Self> {
        let (failures, exits) = (journal.start_failures(), journal.exits_by_pool());
        let one = |pool: Arc<NamedPool>| {
            let failure = failures.iter().find(|(name, ..)| *name == pool.name && !pool.is_leaving());
            let exits =
                exits.iter().find(|(name, _)| *name == pool.name).map_or_else(Exits::default, |(_, exits)| *exits);
            let (stats, setup) = (pool.pool.stats(), pool.setup());
            Self {
                pool: pool.name.to_string(),
                serial: pool.serial,
                leaving: pool.is_leaving(),
                counts: Counts::new(&stats, &exits),
                settings: PoolSettings::new(&setup),
                spawn_ms: Durations::new(&stats.spawn_to_ready),
                last_start_failure: failure.map(|(_, at, error)| StartFailure { at: time(*at), error: error.clone() }),
                sandbox: Sandbox::new(&setup.isolation),
            }
        };
        pools.iter().map(one).collect()
    }

    /// Whether it can start workers, as far as anybody knows: its last start did not fail, or some worker is well.
    pub(crate) fn is_ready(&self) -> bool {
        let workers = &self.counts.workers;
        !self.leaving && (self.last_start_failure.is_none() || workers.spare + workers.in_session > 0)
    }
}

impl PoolSettings {
    fn new(setup: &Setup) -> Self {
        let resources = &setup.settings.resources;
        // Of workers that are for one session each none can be there before its session is.
        let (min_workers, spare) = match setup.factory.is_per_session() {
            true => (0, 0),
            false => (resources.min_workers, resources.spare),
        };
        Self {
            min_workers,
            spare,
            ttl_ms: millis(resources.ttl),
            idle_by: match resources.idle_by {
                IdleBy::Lease => "lease",
                IdleBy::Bytes => "bytes",
            }
            .to_owned(),
            max_lifetime_ms: resources.max_lifetime.map(millis),
            max_waiting: resources.max_waiting,
            acquire_timeout_ms: millis(resources.acquire_timeout),
            when_full: match resources.when_full {
                WhenFull::Wait => "wait",
                WhenFull::EvictIdle => "evict-idle",
            }
            .to_owned(),
        }
    }
}

impl Durations {
    fn new(histogram: &Histogram) -> Self {
        let count = histogram.count();
        let bounds = Histogram::bounds().iter().copied();
        let lower = std::iter::once(Duration::ZERO).chain(bounds.clone());
        let so_far = histogram.cumulative().map(|(_, so_far)| so_far).chain([count]);
        let mut before = 0;
        let mut buckets: Vec<_> = lower
            .zip(bounds.map(Some).chain([None]))
            .zip(so_far)
            .map(|((above, up_to), so_far)| {
                let count = so_far - std::mem::replace(&mut before, so_far);
                Bucket { above_ms: exact_millis(above), up_to_ms: up_to.map(exact_millis), count }
            })
            .skip_while(|bucket| bucket.count == 0)
            .collect();
        buckets.truncate(buckets.iter().rposition(|bucket| bucket.count > 0).map_or(0, |last| last + 1));
        let quantile = |share: f64| quantile(&buckets, share * count as f64);
        let mean = (count > 0).then(|| exact_millis(histogram.sum()) / count as f64);
        Self { count, mean: mean.map(rounded), p50: quantile(0.5), p90: quantile(0.9), p99: quantile(0.99), buckets }
    }
}

/// How long the one took that has `rank` others before it, as if those of a bucket lay evenly in it. Of what took longer
/// than any bound it says the bound.
fn quantile(buckets: &[Bucket], rank: f64) -> Option<f64> {
    let mut before = 0.0;
    for Bucket { above_ms, up_to_ms, count } in buckets {
        let count = *count as f64;
        if before + count >= rank {
            let width = up_to_ms.map_or(0.0, |up_to| up_to - above_ms);
            return Some(rounded(above_ms + width * (rank - before) / count));
        }
        before += count;
    }
    None
}

/// Microseconds are exact enough.
fn rounded(millis: f64) -> f64 {
    (millis * 1e3).round() / 1e3
}

impl Counts {
    fn new(stats: &herd_pool::Stats, exits: &Exits) -> Self {
        Self {
            max_workers: stats.max_workers,
            workers: WorkerCounts {
                total: stats.workers,
                starting: stats.workers_starting,
                spare: stats.workers_spare,
                in_session: stats.workers_in_session,
                ending: stats.workers_ending,
            },
            sessions: stats.sessions,
            waiting: stats.waiting,
            acquire_requests: stats.acquire_requests,
            acquire_failures: stats.acquire_failures,
            sessions_started: stats.sessions_started,
            sessions_ended: stats.sessions_ended.iter().map(|(reason, count)| (reason.to_owned(), count)).collect(),
            spawn_failures: stats.spawn_failures,
            worker_exits: exits.by_reason().into_iter().map(|(how, count)| (how.to_owned(), count)).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_lie_in_the_bucket_that_holds_them() {
        let mut histogram = Histogram::new();
        assert_eq!(Durations::new(&histogram).p50, None, "nothing was counted");
        (0..90).for_each(|_| histogram.record(Duration::from_millis(80)));
        (0..10).for_each(|_| histogram.record(Duration::from_secs(100)));
        let told = Durations::new(&histogram);
        assert_eq!((told.count, told.mean), (100, Some(10_072.0)));
        let (p50, p90) = (told.p50.unwrap(), told.p90.unwrap());
        assert!((50.0..100.0).contains(&p50) && p90 == 100.0, "{told:?}");
        assert_eq!(told.p99, Some(60_000.0), "it took longer than any bound");
        let first = Bucket { above_ms: 50.0, up_to_ms: Some(100.0), count: 90 };
        let last = Bucket { above_ms: 60_000.0, up_to_ms: None, count: 10 };
        assert_eq!((told.buckets.first(), told.buckets.last()), (Some(&first), Some(&last)));
    }
}
