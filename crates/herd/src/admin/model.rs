//! The shapes of the admin API's answers. `herd ps` reads what the daemon writes.

use std::time::{Duration, SystemTime};

use herd_pool::{EventKind, SessionId, SessionInfo, Worker as _, WorkerInfo};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

pub(crate) use super::page::Page;
use crate::{
    isolation::{Isolation, Missing},
    journal::Journal,
    metrics::Metrics,
    pools::{NamedPool, Pools},
    usage,
    workers::PoolWorker,
};

#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Session {
    pub(crate) pool: String,
    /// To whom it belongs, if there are tenants.
    pub(crate) tenant: Option<String>,
    pub(crate) id: String,
    /// `starting`, `live` or `ending`.
    pub(crate) state: String,
    pub(crate) worker: Option<String>,
    pub(crate) address: Option<String>,
    pub(crate) created: String,
    pub(crate) last_used: String,
    pub(crate) leases: u32,
    pub(crate) requests: u64,
    pub(crate) bytes_in: u64,
    pub(crate) bytes_out: u64,
}

#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Worker {
    pub(crate) pool: String,
    pub(crate) id: String,
    /// Of its main process; `null` while it starts.
    pub(crate) pid: Option<u32>,
    /// `starting`, `spare`, `in-session` or `ending`.
    pub(crate) state: String,
    pub(crate) session: Option<String>,
    pub(crate) address: Option<String>,
    pub(crate) started: String,
    pub(crate) ready_after_ms: Option<f64>,
    /// Always 0: an ID names one process, and one that ended is replaced under another ID.
    pub(crate) restarts: u32,
    pub(crate) cpu_time_ms: Option<u64>,
    pub(crate) memory_bytes: Option<u64>,
    /// The most that it has used at once; `null` where no cgroup counts it.
    pub(crate) memory_peak_bytes: Option<u64>,
    /// Processes and threads.
    pub(crate) pids: Option<u64>,
    /// How many of its processes its memory limit has killed; `null` where no cgroup counts them.
    pub(crate) oom_kills: Option<u64>,
    pub(crate) limits: Option<Limits>,
    /// The layers of the sandbox that are on.
    pub(crate) layers: Vec<String>,
    /// Those that are wanted and cannot be had on this host.
    pub(crate) missing: Vec<Missing>,
}

/// One pool.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct PoolStats {
    pub(crate) pool: String,
    /// Whether it has been removed from the configuration, and ends when its sessions do.
    pub(crate) leaving: bool,
    pub(crate) max_workers: usize,
    pub(crate) workers: WorkerCounts,
    pub(crate) sessions: usize,
    pub(crate) waiting: usize,
    /// The last start of a worker, if it failed and none has become ready since.
    pub(crate) last_start_failure: Option<StartFailure>,
    pub(crate) sandbox: Sandbox,
}

/// What is on of the sandbox of every worker of a pool.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Sandbox {
    /// `required`, `best-effort` or `off`.
    pub(crate) mode: String,
    pub(crate) layers: Vec<String>,
    pub(crate) missing: Vec<Missing>,
    pub(crate) limits: Limits,
}

/// What is enforced; `null` is no limit.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Limits {
    pub(crate) memory_bytes: Option<u64>,
    pub(crate) cpu_cores: Option<f64>,
    pub(crate) pids: Option<u64>,
    pub(crate) open_files: u64,
}

#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Ended {
    pub(crate) id: String,
    pub(crate) reason: String,
}

#[derive(Debug, Serialize)]
pub(super) struct LogLine<'a> {
    sequence: u64,
    at: String,
    stream: &'static str,
    text: &'a str,
}

/// Something that happened, with the fields that its kind has.
#[derive(Debug, Serialize)]
pub(crate) struct Event {
    sequence: u64,
    at: String,
    pool: String,
    kind: &'static str,
    #[serde(flatten)]
    details: Map<String, Value>,
}

#[derive(Debug, Serialize)]
pub(super) struct Stats {
    version: &'static str,
    pid: u32,
    uptime_ms: u64,
    max_workers: usize,
    workers: WorkerCounts,
    sessions: usize,
    waiting: usize,
    acquire_requests: u64,
    acquire_failures: u64,
    sessions_started: u64,
    sessions_ended: Map<String, Value>,
    spawn_failures: u64,
    worker_exits: Map<String, Value>,
    gateway: GatewayCounts,
    pools: Vec<PoolStats>,
}

/// Why the last start of a worker failed.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct StartFailure {
    pub(crate) at: String,
    pub(crate) error: String,
}

/// The part of the stats that `herd ps` shows.
#[derive(Debug, Deserialize)]
pub(crate) struct Troubles {
    pub(crate) pools: Vec<PoolStats>,
}

#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct WorkerCounts {
    pub(crate) total: usize,
    pub(crate) starting: usize,
    pub(crate) spare: usize,
    pub(crate) in_session: usize,
    pub(crate) ending: usize,
}

#[derive(Debug, Serialize)]
struct GatewayCounts {
    connections: u64,
    requests: u64,
    upgrades: u64,
    received_bytes: u64,
    sent_bytes: u64,
}

impl Session {
    pub(super) fn new(pool: &NamedPool, info: &SessionInfo) -> Self {
        Self {
            pool: pool.name.to_string(),
            tenant: info.id.tenant().map(ToString::to_string),
            id: info.id.to_string(),
            state: info.state.name().to_owned(),
            worker: info.worker.map(|id| id.to_string()),
            address: info.address.clone(),
            created: time(info.created),
            last_used: time(info.last_used),
            leases: info.leases,
            requests: info.requests,
            bytes_in: info.bytes_in,
            bytes_out: info.bytes_out,
        }
    }
}

impl Worker {
    /// Looks at what it uses, so it blocks for a moment.
    pub(super) fn new(pool: &NamedPool, info: &WorkerInfo<PoolWorker>) -> Self {
        let worker = info.worker.as_deref();
        let usage = worker.and_then(usage::of);
        let limits = worker.map(|worker| worker.limits());
        Self {
            pool: pool.name.to_string(),
            id: info.id.to_string(),
            pid: worker.map(|worker| worker.pid()),
            state: info.state.name().to_owned(),
            session: info.session.as_ref().map(ToString::to_string),
            address: worker.map(|worker| worker.address().to_owned()),
            started: time(info.started),
            ready_after_ms: info.ready_after.map(|after| (after.as_secs_f64() * 1e6).round() / 1e3),
            restarts: 0,
            cpu_time_ms: usage.map(|usage| millis(usage.cpu_time)),
            memory_bytes: usage.map(|usage| usage.memory),
            memory_peak_bytes: usage.and_then(|usage| usage.memory_peak),
            pids: usage.map(|usage| usage.pids),
            oom_kills: usage.and_then(|usage| usage.oom_kills),
            limits: limits.map(Limits::from),
            layers: worker.map_or_else(Vec::new, |worker| worker.layers().iter().map(ToString::to_string).collect()),
            missing: pool.setup().isolation.missing.clone(),
        }
    }
}

impl Sandbox {
    fn new(isolation: &Isolation) -> Self {
        Self {
            mode: isolation.mode().to_owned(),
            layers: isolation.layers.iter().map(|layer| layer.name().to_owned()).collect(),
            missing: isolation.missing.clone(),
            limits: Limits::from(isolation.limits),
        }
    }
}

impl From<herd_process::Limits> for Limits {
    fn from(limits: herd_process::Limits) -> Self {
        Self { memory_bytes: limits.memory, cpu_cores: limits.cpu, pids: limits.pids, open_files: limits.open_files }
    }
}

impl<'a> LogLine<'a> {
    pub(super) fn new(line: &'a herd_process::LogLine) -> Self {
        Self { sequence: line.sequence, at: time(line.at), stream: line.stream.name(), text: &line.text }
    }

    pub(super) fn to_json(&self) -> String {
        json!(self).to_string()
    }
}

impl Event {
    pub(crate) fn new(event: &crate::journal::Event) -> Self {
        let details = match &event.kind {
            EventKind::WorkerStarting { worker } | EventKind::WorkerGone { worker } => {
                json!({ "worker": worker.to_string() })
            }
            EventKind::WorkerReady { worker, after } => {
                json!({ "worker": worker.to_string(), "ready_after_ms": (after.as_secs_f64() * 1e6).round() / 1e3 })
            }
            EventKind::SpawnFailed { worker, error } => {
                json!({ "worker": worker.to_string(), "error": error.to_string() })
            }
            EventKind::WorkerCrashed { worker, exit } => json!({
                "worker": worker.to_string(),
                "exit": exit.to_string(),
                "out_of_memory": exit.out_of_memory,
                "stderr_tail": exit.stderr_tail.as_ref(),
            }),
            EventKind::SessionStarted { session, worker } => {
                json!({ "session": session.as_str(), "tenant": tenant(session), "worker": worker.to_string() })
            }
            EventKind::SessionEnded { session, worker, reason } => json!({
                "session": session.as_str(),
                "tenant": tenant(session),
                "worker": worker.to_string(),
                "reason": reason.name(),
                "detail": reason.to_string(),
            }),
            // Kinds without details, and those that a later pool may have.
            _ => Value::Null,
        };
        let details = match details {
            Value::Object(details) => details,
            _ => Map::new(),
        };
        let pool = event.pool.to_string();
        Self { sequence: event.sequence, at: time(event.at), pool, kind: event.kind.name(), details }
    }

    pub(crate) fn to_json(&self) -> String {
        json!(self).to_string()
    }
}

impl Stats {
    pub(super) fn new(pools: &Pools, metrics: &Metrics, journal: &Journal) -> Self {
        let (stats, gateway) = (pools.stats(), metrics.gateway());
        Self {
            version: env!("CARGO_PKG_VERSION"),
            pid: std::process::id(),
            uptime_ms: millis(metrics.uptime()),
            max_workers: stats.max_workers,
            workers: WorkerCounts::new(&stats),
            sessions: stats.sessions,
            waiting: stats.waiting,
            acquire_requests: stats.acquire_requests,
            acquire_failures: stats.acquire_failures,
            sessions_started: stats.sessions_started,
            sessions_ended: stats
                .sessions_ended
                .iter()
                .map(|(reason, count)| (reason.to_owned(), count.into()))
                .collect(),
            spawn_failures: stats.spawn_failures,
            worker_exits: journal
                .exits()
                .by_reason()
                .into_iter()
                .map(|(reason, count)| (reason.to_owned(), count.into()))
                .collect(),
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
    fn all(pools: &Pools, journal: &Journal) -> Vec<Self> {
        let failures = journal.start_failures();
        let one = |pool: std::sync::Arc<NamedPool>| {
            let stats = pool.pool.stats();
            let failure = failures.iter().find(|(name, ..)| *name == pool.name && !pool.is_leaving());
            Self {
                pool: pool.name.to_string(),
                leaving: pool.is_leaving(),
                max_workers: stats.max_workers,
                workers: WorkerCounts::new(&stats),
                sessions: stats.sessions,
                waiting: stats.waiting,
                last_start_failure: failure.map(|(_, at, error)| StartFailure { at: time(*at), error: error.clone() }),
                sandbox: Sandbox::new(&pool.setup().isolation),
            }
        };
        pools.iter().map(one).collect()
    }
}

impl WorkerCounts {
    fn new(stats: &herd_pool::Stats) -> Self {
        Self {
            total: stats.workers,
            starting: stats.workers_starting,
            spare: stats.workers_spare,
            in_session: stats.workers_in_session,
            ending: stats.workers_ending,
        }
    }
}

fn tenant(session: &SessionId) -> Option<&str> {
    session.tenant().map(herd_pool::Tenant::name)
}

/// RFC 3339, in UTC, with milliseconds.
fn time(at: SystemTime) -> String {
    humantime::format_rfc3339_millis(at).to_string()
}

fn millis(duration: Duration) -> u64 {
    duration.as_millis().try_into().unwrap_or(u64::MAX)
}
