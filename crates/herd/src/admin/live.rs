//! What there is and how it changes, for those who look on: the dashboard and `herd top`.
//!
//! One `sampler` takes pictures of all sessions and workers while somebody reads, and the `board` shows the latest one. A
//! `reader` sends what differs from what it sent before. How much is held grows with what there is, and not with how
//! many read, how slowly they do, or what they have missed.

mod board;
mod picture;
mod reader;
mod sampler;
#[cfg(test)]
mod tests;

use std::time::Duration;

use axum::{extract::State, response::Response};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

pub(super) use self::reader::Departures;
use self::{board::Board, reader::Reader};
use super::{
    Admin,
    extract::Params,
    model::Stats,
    problem::{Document, Kind, Problem},
    sse,
};

/// The shortest time between two pictures.
const LEAST_INTERVAL: Duration = Duration::from_millis(250);
const DEFAULT_INTERVAL: Duration = Duration::from_secs(1);
/// The longest interval that a reader may have.
const MOST_INTERVAL: Duration = Duration::from_secs(60);

/// What all readers share. Clones are the same.
#[derive(Clone, Debug, Default)]
pub(crate) struct Live(Board);

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct LiveQuery {
    /// How long to wait between two differences, in milliseconds.
    #[param(value_type = Option<u32>, minimum = 250, maximum = 60000, default = 1000)]
    interval_ms: Option<String>,
}

/// What the stream begins with.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Hello {
    /// The daemon's version.
    #[schema(value_type = String, example = "0.5.0")]
    version: &'static str,
    /// When the daemon was started. Another value than before means another daemon.
    #[schema(format = DateTime, example = "2026-01-31T12:00:00.000Z")]
    started: String,
    interval_ms: u64,
    stats: Stats,
}

/// All sessions and workers, and then what changes of them.
///
/// A stream of server-sent events, whose data is JSON:
///
/// - `hello` comes first, with a Hello.
/// - `sessions` and `workers` have rows as the lists have them in `items`, at most 500 each: first all, then those that
///   are new or others than they were when they were sent last.
/// - `gone` tells who is not there any more, with a Departures. It comes before the rows of the same moment.
/// - `ready` comes once, when all that there was has been sent. Whoever connects again drops then what it was not told
///   again.
/// - `stats` has the Stats, once in each interval.
/// - `end` with a `reason` is the last one, if the daemon stops, the token that was sent is none any more, or who is gone could not be told any more because it was
///   not read fast enough.
///
/// Who reads slowly gets differences less often, and never late ones. What workers use is looked at once a second at
/// most, and less often where there are thousands. Of a session that is in use, `last_used` alone makes no other row.
#[utoipa::path(
    get, path = "/v1/live", tag = "events", operation_id = "streamLive", params(LiveQuery),
    responses(
        (status = 200, description = "The stream, which has no end while the daemon runs", body = String, content_type = "text/event-stream"),
        (status = 400, description = "A parameter is not understood", body = Document, content_type = "application/problem+json"),
        (status = 503, description = "Too many read already", body = Document, content_type = "application/problem+json", headers(("retry-after" = u64, description = "In seconds"))),
    )
)]
pub(super) async fn stream(
    State(admin): State<Admin>,
    Params(LiveQuery { interval_ms }): Params<LiveQuery>,
) -> Result<Response, Problem> {
    let interval = interval(interval_ms.as_deref())?;
    let board = &admin.live.0;
    let (seat, begins) = board.join(interval).map_err(|_| {
        let detail = "close a dashboard or a `herd top` that nobody looks at";
        Problem::new(Kind::TooManyReaders).detail(detail).retry_after(DEFAULT_INTERVAL)
    })?;
    if begins {
        tokio::spawn(sampler::run(admin.clone(), board.clone()));
    }
    let stats = Stats::new(&admin.pools, &admin.metrics, &admin.journal, admin.draining.has_begun());
    let started = stats.started().to_owned();
    let interval_ms = interval.as_millis().try_into().unwrap_or(u64::MAX);
    let hello = Hello { version: env!("CARGO_PKG_VERSION"), started, interval_ms, stats };
    let reader = Reader::new(seat, interval, sse::frame(None, "hello", &hello));
    Ok(sse::respond(reader, &admin.streams))
}

fn interval(asked: Option<&str>) -> Result<Duration, Problem> {
    let Some(asked) = asked else { return Ok(DEFAULT_INTERVAL) };
    let millis = asked.parse().ok().map(Duration::from_millis);
    millis.filter(|interval| (LEAST_INTERVAL..=MOST_INTERVAL).contains(interval)).ok_or_else(|| {
        let (least, most) = (LEAST_INTERVAL.as_millis(), MOST_INTERVAL.as_millis());
        Problem::new(Kind::BadQuery).detail(format!("interval_ms is no number from {least} to {most}; write one"))
    })
}
