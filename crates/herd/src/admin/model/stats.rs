use std::{collections::BTreeMap, sync::Arc};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Sandbox, millis, time};
use crate::{
    journal::{Exits, Journal},
    metrics::Metrics,
    pools::{NamedPool, Pools},
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
    /// Requests that are being answered.
    requests: u64,
    /// Upgraded connections that are open.
    upgrades: u64,
    received_bytes: u64,
    sent_bytes: u64,
}

impl Stats {
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
                requests: gateway.requests,
                upgrades: gateway.upgrades,
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
            Self {
                pool: pool.name.to_string(),
                serial: pool.serial,
                leaving: pool.is_leaving(),
                counts: Counts::new(&pool.pool.stats(), &exits),
                last_start_failure: failure.map(|(_, at, error)| StartFailure { at: time(*at), error: error.clone() }),
                sandbox: Sandbox::new(&pool.setup().isolation),
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
