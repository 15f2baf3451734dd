use herd_pool::{Tenant, Worker as _, WorkerInfo};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{exact_millis, millis, time};
use crate::{
    isolation::{Isolation, Missing},
    pools::NamedPool,
    usage::{self, Usage},
    workers::PoolWorker,
};

/// A worker: one process tree.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
pub(crate) struct Worker {
    #[schema(example = "default")]
    pub(crate) pool: String,
    /// It is never used twice while the daemon runs, whatever the pool.
    #[schema(example = "worker-3")]
    pub(crate) id: String,
    /// Of its main process; `null` while it starts.
    #[schema(required = true)]
    pub(crate) pid: Option<u32>,
    #[schema(value_type = WorkerState)]
    pub(crate) state: String,
    /// The ID of the session that it serves, or served last if it is ending.
    #[schema(required = true, example = "alice")]
    pub(crate) session: Option<String>,
    /// To whom that session belongs.
    #[schema(required = true, example = "acme")]
    pub(crate) tenant: Option<String>,
    /// `null` while it starts.
    #[schema(required = true, example = "http://127.0.0.1:8080")]
    pub(crate) address: Option<String>,
    /// When its start began.
    #[schema(format = DateTime, example = "2026-01-31T12:00:00.000Z")]
    pub(crate) started: String,
    /// How long its start took; `null` while it starts.
    #[schema(required = true)]
    pub(crate) ready_after_ms: Option<f64>,
    /// Always 0: an ID names one process, and one that ended is replaced under another ID.
    pub(crate) restarts: u32,
    #[schema(required = true)]
    pub(crate) cpu_time_ms: Option<u64>,
    #[schema(required = true)]
    pub(crate) memory_bytes: Option<u64>,
    /// The most that it has used at once; `null` where no cgroup counts it.
    #[schema(required = true)]
    pub(crate) memory_peak_bytes: Option<u64>,
    /// Processes and threads.
    #[schema(required = true)]
    pub(crate) pids: Option<u64>,
    /// How many of its processes its memory limit has killed; `null` where no cgroup counts them.
    #[schema(required = true)]
    pub(crate) oom_kills: Option<u64>,
    /// `null` while it starts.
    #[schema(required = true)]
    pub(crate) limits: Option<Limits>,
    /// The layers of the sandbox that are on.
    pub(crate) layers: Vec<String>,
    /// Those that are wanted and cannot be had on this host.
    pub(crate) missing: Vec<Missing>,
}

/// Where a worker is in its life: it is being started, it waits for a session, it serves one, it is being closed.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum WorkerState {
    Starting,
    Spare,
    InSession,
    Ending,
}

/// What is on of the sandbox of every worker of a pool.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
pub(crate) struct Sandbox {
    /// `required`, `best-effort` or `off`.
    #[schema(example = "required")]
    pub(crate) mode: String,
    pub(crate) layers: Vec<String>,
    pub(crate) missing: Vec<Missing>,
    pub(crate) limits: Limits,
}

/// What is enforced; `null` is no limit.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
pub(crate) struct Limits {
    #[schema(required = true)]
    pub(crate) memory_bytes: Option<u64>,
    #[schema(required = true)]
    pub(crate) cpu_cores: Option<f64>,
    /// Processes and threads.
    #[schema(required = true)]
    pub(crate) pids: Option<u64>,
    pub(crate) open_files: u64,
}

impl WorkerState {
    pub(crate) fn fits(self, state: herd_pool::WorkerState) -> bool {
        match self {
            Self::Starting => state == herd_pool::WorkerState::Starting,
            Self::Spare => state == herd_pool::WorkerState::Spare,
            Self::InSession => state == herd_pool::WorkerState::InSession,
            Self::Ending => state == herd_pool::WorkerState::Ending,
        }
    }
}

impl Worker {
    /// Looks at what it uses, so it blocks for a moment.
    pub(crate) fn new(pool: &NamedPool, info: &WorkerInfo<PoolWorker>) -> Self {
        Self::with_usage(pool, info, info.worker.as_deref().and_then(usage::of))
    }

    /// What it uses has been looked at.
    pub(crate) fn with_usage(pool: &NamedPool, info: &WorkerInfo<PoolWorker>, usage: Option<Usage>) -> Self {
        let worker = info.worker.as_deref();
        let limits = worker.map(|worker| worker.limits());
        let session = info.session.as_ref();
        Self {
            pool: pool.name.to_string(),
            id: info.id.to_string(),
            pid: worker.map(|worker| worker.pid()),
            state: info.state.name().to_owned(),
            session: session.map(ToString::to_string),
            tenant: session.and_then(|session| session.tenant()).map(Tenant::to_string),
            address: worker.map(|worker| worker.address().to_owned()),
            started: time(info.started),
            ready_after_ms: info.ready_after.map(exact_millis),
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
    pub(super) fn new(isolation: &Isolation) -> Self {
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
