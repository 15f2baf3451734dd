//! Reads the pictures for one subscriber, who may be slow.

use std::{sync::Arc, time::Duration};

use axum::body::Bytes;
use herd_pool::{Tenant, WorkerId};
use serde::Serialize;
use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};
use utoipa::ToSchema;

use super::{
    super::sse::{End, Source, Told, frame},
    LEAST_INTERVAL,
    board::Seat,
    picture::{Gone, Picture, Row, SessionKey},
};

/// The most rows in one frame.
const MOST_ROWS: usize = 500;
/// A frame with so many bytes takes no more rows.
const ENOUGH_BYTES: usize = 64 * 1024;

/// Sends the differences between what there is and what it has sent.
///
/// It goes along the rows of whatever picture is the latest, and holds none of them. In one round it goes along all
/// rows once, and the next round tells of whatever changed behind it in the meantime.
#[derive(Debug)]
pub(super) struct Reader {
    seat: Seat,
    pictures: watch::Receiver<Option<Arc<Picture>>>,
    interval: Duration,
    joined: Instant,
    /// When the next round begins.
    due: Instant,
    /// The picture that was the latest when the last round that is over began; 0: none is over.
    seen: u64,
    /// Which entry of the log of those who are gone comes next.
    farewell: u64,
    stage: Stage,
}

#[derive(Clone, Debug)]
enum Stage {
    Hello(Bytes),
    Waiting,
    /// What is told in a round, with the number of the picture that it began with.
    Farewells(u64),
    Sessions(u64, Option<SessionKey>),
    Workers(u64, Option<WorkerId>),
    Last(u64),
    Stats,
}

/// Who is gone.
#[derive(Debug, Default, Serialize, ToSchema)]
pub(in super::super) struct Departures {
    sessions: Vec<SessionName>,
    /// Their IDs.
    #[schema(example = json!(["worker-3"]))]
    workers: Vec<String>,
}

/// What names a session among all of the daemon.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = SessionReference)]
struct SessionName {
    #[schema(example = "default")]
    pool: String,
    /// To whom it belongs; `null`: to nobody.
    #[schema(required = true, example = "acme")]
    tenant: Option<String>,
    #[schema(example = "alice")]
    id: String,
}

#[derive(Debug, Serialize)]
struct Nothing {}

impl Reader {
    /// `hello` is sent first.
    pub(super) fn new(seat: Seat, interval: Duration, hello: Bytes) -> Self {
        let (pictures, joined) = (seat.pictures(), Instant::now());
        let stage = Stage::Hello(hello);
        Self { seat, pictures, interval, joined, due: joined, seen: 0, farewell: 0, stage }
    }

    /// Waits until a round begins.
    ///
    /// Cancel safe.
    async fn picture(&mut self) -> Option<Arc<Picture>> {
        sleep_until(self.due).await;
        let (seen, joined) = (self.seen, self.joined);
        // Who comes gets no picture that was taken long before.
        let is_news = |picture: &Picture| match seen {
            0 => picture.taken + LEAST_INTERVAL >= joined,
            _ => picture.number > seen,
        };
        let mut was_there = false;
        let found = self.pictures.wait_for(|picture| {
            // One that was there and is no more does not come back.
            let over = picture.is_none() && (was_there || seen > 0);
            was_there |= picture.is_some();
            over || picture.as_deref().is_some_and(is_news)
        });
        found.await.ok()?.clone()
    }

    fn latest(&self) -> Option<Arc<Picture>> {
        self.pictures.borrow().clone()
    }

    /// Who is gone; `None`: too many are gone since the last round.
    fn farewells(&mut self, picture: &Picture) -> Option<Departures> {
        let told = self.seat.farewells(picture, self.farewell, MOST_ROWS)?;
        self.farewell = told.next;
        let mut departures = Departures::default();
        for gone in told.gone {
            match gone {
                Gone::Session(SessionKey { pool, id }) => departures.sessions.push(SessionName {
                    pool: pool.to_string(),
                    tenant: id.tenant().map(Tenant::to_string),
                    id: id.to_string(),
                }),
                Gone::Worker(id) => departures.workers.push(id.to_string()),
            }
        }
        Some(departures)
    }
}

impl Source for Reader {
    async fn next(&mut self) -> Told {
        loop {
            let stage = self.stage.clone();
            if let Stage::Hello(hello) = stage {
                self.stage = Stage::Waiting;
                return Told::Frame(hello);
            }
            let picture = if let Stage::Waiting = stage { self.picture().await } else { self.latest() };
            let Some(picture) = picture else {
                return last("what there is cannot be looked at any more; the daemon's log may say why");
            };
            match stage {
                Stage::Hello(_) => {}
                Stage::Waiting => {
                    self.due = Instant::now() + self.interval;
                    self.stage = if self.seen == 0 {
                        // Those who went before were never told of.
                        self.farewell = self.seat.end_of(&picture);
                        Stage::Sessions(picture.number, None)
                    } else {
                        Stage::Farewells(picture.number)
                    };
                }
                // First: of a session that ended and began again there is a row as well.
                Stage::Farewells(round) => {
                    let Some(departures) = self.farewells(&picture) else {
                        return last("it was not read fast enough, and who is gone is not known any more");
                    };
                    if !departures.is_empty() {
                        return Told::Frame(frame(None, "gone", &departures));
                    }
                    self.stage = Stage::Sessions(round, None);
                }
                Stage::Sessions(round, after) => match rows("sessions", &picture.sessions, after, self.seen) {
                    Some((key, frame)) => {
                        self.stage = Stage::Sessions(round, Some(key));
                        return Told::Frame(frame);
                    }
                    None => self.stage = Stage::Workers(round, None),
                },
                Stage::Workers(round, after) => match rows("workers", &picture.workers, after, self.seen) {
                    Some((key, frame)) => {
                        self.stage = Stage::Workers(round, Some(key));
                        return Told::Frame(frame);
                    }
                    None => self.stage = Stage::Last(round),
                },
                Stage::Last(round) => {
                    self.stage = Stage::Stats;
                    if std::mem::replace(&mut self.seen, round) == 0 {
                        return Told::Frame(frame(None, "ready", &Nothing {}));
                    }
                }
                Stage::Stats => {
                    self.stage = Stage::Waiting;
                    return Told::Frame(picture.stats.clone());
                }
            }
        }
    }
}

impl Departures {
    fn is_empty(&self) -> bool {
        let Self { sessions, workers } = self;
        sessions.is_empty() && workers.is_empty()
    }
}

fn last(reason: &'static str) -> Told {
    Told::Last(frame(None, "end", &End { reason }))
}

/// A frame with the next rows behind the key `after` that were others before the picture `seen` or are new, and the key
/// of the last one; `None`: there are none.
fn rows<K: Clone + Ord>(name: &str, all: &[Arc<Row<K>>], after: Option<K>, seen: u64) -> Option<(K, Bytes)> {
    let begin = after.map_or(0, |after| all.partition_point(|row| row.key <= after));
    let mut text = format!("event: {name}\ndata: {{\"items\":[");
    let mut key = None;
    for row in all[begin..].iter().filter(|row| row.changed > seen).take(MOST_ROWS) {
        if key.is_some() {
            text.push(',');
        }
        text.push_str(&row.text);
        key = Some(row.key.clone());
        if text.len() >= ENOUGH_BYTES {
            break;
        }
    }
    text.push_str("]}\n\n");
    Some((key?, text.into()))
}
