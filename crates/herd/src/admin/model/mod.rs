//! The shapes of the admin API's answers. `herd ps` reads what the daemon writes.

mod event;
mod log;
mod session;
mod stats;
mod worker;

use std::time::{Duration, SystemTime};

pub(crate) use self::{
    event::Event,
    session::{Ended, Session},
    stats::{PoolStats, StartFailure, Troubles},
    worker::{Sandbox, Worker},
};
pub(super) use self::{
    log::LogLine,
    session::{Acquired, GatewayAddress, RouteTo, SessionName, SessionState},
    stats::Stats,
    worker::WorkerState,
};
pub(crate) use super::page::Page;

/// In seconds of Unix time.
const END_OF_9999: u64 = 253_402_300_800;

/// RFC 3339, in UTC, with milliseconds.
fn time(at: SystemTime) -> String {
    humantime::format_rfc3339_millis(at).to_string()
}

/// The same of a time that may be as far away as somebody likes; `None` behind the year 9999, which RFC 3339 cannot say.
fn coming_time(at: SystemTime) -> Option<String> {
    let since = at.duration_since(SystemTime::UNIX_EPOCH).ok()?;
    (since.as_secs() < END_OF_9999).then(|| time(at))
}

fn millis(duration: Duration) -> u64 {
    duration.as_millis().try_into().unwrap_or(u64::MAX)
}

/// With microseconds behind the point.
fn exact_millis(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}
