//! What a daemon tells of itself, as far as it is shown. A daemon of another version may tell less.

use std::{collections::BTreeMap, time::SystemTime};

use serde::{Deserialize, Deserializer};

use crate::isolation::Missing;

/// The beginning of a stream.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Hello {
    pub(super) stats: Stats,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Items<T> {
    #[serde(bound(deserialize = "T: Deserialize<'de>"))]
    pub(super) items: Vec<T>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Gone {
    pub(super) sessions: Vec<SessionKey>,
    pub(super) workers: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct End {
    pub(super) reason: String,
}

/// What names a session.
#[derive(Clone, Debug, Default, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[serde(default)]
pub(super) struct SessionKey {
    pub(super) pool: String,
    pub(super) tenant: Option<String>,
    pub(super) id: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Session {
    #[serde(flatten)]
    pub(super) key: SessionKey,
    pub(super) state: String,
    pub(super) worker: Option<String>,
    pub(super) address: Option<String>,
    #[serde(deserialize_with = "time")]
    pub(super) created: Option<SystemTime>,
    #[serde(deserialize_with = "time")]
    pub(super) last_used: Option<SystemTime>,
    /// When it ends if nobody uses it.
    #[serde(deserialize_with = "time")]
    pub(super) idle_until: Option<SystemTime>,
    /// When it ends however it is used.
    #[serde(deserialize_with = "time")]
    pub(super) ends_by: Option<SystemTime>,
    pub(super) leases: u32,
    pub(super) requests: u64,
    pub(super) bytes_in: u64,
    pub(super) bytes_out: u64,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Worker {
    pub(super) pool: String,
    pub(super) id: String,
    pub(super) pid: Option<u32>,
    pub(super) state: String,
    pub(super) session: Option<String>,
    pub(super) tenant: Option<String>,
    pub(super) address: Option<String>,
    #[serde(deserialize_with = "time")]
    pub(super) started: Option<SystemTime>,
    pub(super) ready_after_ms: Option<f64>,
    pub(super) cpu_time_ms: Option<u64>,
    pub(super) memory_bytes: Option<u64>,
    pub(super) memory_peak_bytes: Option<u64>,
    pub(super) pids: Option<u64>,
    pub(super) oom_kills: Option<u64>,
    pub(super) limits: Option<Limits>,
    pub(super) layers: Vec<String>,
    pub(super) missing: Vec<Missing>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Limits {
    pub(super) memory_bytes: Option<u64>,
    pub(super) cpu_cores: Option<f64>,
    pub(super) pids: Option<u64>,
    pub(super) open_files: Option<u64>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Stats {
    pub(super) version: String,
    pub(super) uptime_ms: u64,
    pub(super) draining: bool,
    #[serde(flatten)]
    pub(super) sums: Counts,
    pub(super) pools: Vec<Pool>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Pool {
    pub(super) pool: String,
    pub(super) leaving: bool,
    #[serde(flatten)]
    pub(super) counts: Counts,
    pub(super) last_start_failure: Option<StartFailure>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Counts {
    pub(super) max_workers: u64,
    pub(super) workers: WorkerCounts,
    pub(super) sessions: u64,
    pub(super) waiting: u64,
    pub(super) acquire_requests: u64,
    pub(super) sessions_ended: BTreeMap<String, u64>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct WorkerCounts {
    pub(super) total: u64,
    pub(super) starting: u64,
    pub(super) spare: u64,
    pub(super) ending: u64,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct StartFailure {
    #[serde(deserialize_with = "time")]
    pub(super) at: Option<SystemTime>,
    pub(super) error: String,
}

/// RFC 3339; what is none is not known.
fn time<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<SystemTime>, D::Error> {
    let text = Option::<String>::deserialize(deserializer)?;
    Ok(text.and_then(|text| humantime::parse_rfc3339(&text).ok()))
}
