//! Events of sessions and workers as server-sent events.

use std::time::SystemTime;

use axum::{
    Json,
    extract::State,
    http::HeaderMap,
    response::{IntoResponse as _, Response},
};
use herd_pool::{EventKind, SessionId, Tenant, WorkerId};
use serde::Deserialize;
use utoipa::IntoParams;

use super::{
    Admin,
    extract::Params,
    model,
    page::Page,
    problem::{Document, Kind, Problem},
    sessions::worker_id,
    sse::{self, Source, Told, dropped, frame, missed},
};
use crate::journal::{Entry, Event, Follower};

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct EventsQuery {
    /// Kinds of events, separated by commas.
    #[param(example = "session-started,session-ended")]
    kind: Option<String>,
    /// The pool's name.
    pool: Option<String>,
    /// The session's ID. Events of workers alone name no session.
    session: Option<String>,
    /// The session's tenant; empty: sessions that belong to nobody.
    tenant: Option<String>,
    /// The worker's ID.
    #[param(pattern = "^worker-[1-9][0-9]{0,17}$")]
    worker: Option<String>,
    /// Begins with what is kept of the events since this time, RFC 3339.
    #[param(format = DateTime, example = "2026-01-31T12:00:00Z")]
    since: Option<String>,
    /// Begins behind the event with this number, as with the field `last-event-id`, which counts before it.
    #[param(value_type = Option<u64>)]
    last_event_id: Option<String>,
    /// Whether events are streamed as they happen. With `false` the answer is a list of those that are kept.
    #[param(default = true)]
    follow: Option<bool>,
}

/// What happens to sessions and workers, as it happens.
///
/// A stream of server-sent events. Each has its number as the ID, its kind as the name, and an Event as the data. An
/// event `missed` at the beginning tells how many of those that were asked for are not kept any more. The last event is
/// `dropped`, if events were not read fast enough, or `end`, if the daemon stops.
///
/// With `follow=false` the answer is a list of the events that are kept, which are the last 1,024 of the daemon.
#[utoipa::path(
    get, path = "/v1/events", tag = "events", operation_id = "streamEvents",
    params(
        EventsQuery,
        ("last-event-id" = Option<u64>, Header, description = "The number of the last event that was read: the stream goes on behind it"),
    ),
    responses(
        (status = 200, description = "The stream, which has no end while the daemon runs", content(
            (String = "text/event-stream"),
            (Page<model::Event> = "application/json"),
        )),
        (status = 400, description = "A parameter is not understood", body = Document, content_type = "application/problem+json"),
    )
)]
pub(super) async fn stream(
    State(admin): State<Admin>,
    Params(query): Params<EventsQuery>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let after = sse::resume_after(&headers, query.last_event_id.as_deref())?;
    let follow = query.follow.unwrap_or(true);
    let filter = Filter::of(query)?;
    if !follow {
        let kept = admin.journal.follow(Some(after.unwrap_or(0))).kept();
        let items = kept.iter().filter(|event| filter.fits(event)).map(|event| model::Event::new(event)).collect();
        return Ok(Json(Page { items, next: None }).into_response());
    }
    // Whoever says when they stopped reading begins with all that is kept.
    let from = after.or(filter.since.map(|_| 0));
    let follower = admin.journal.follow(from);
    let following = Following { follower, filter, may_miss: from.is_some(), tells: after.is_some(), last: after };
    Ok(sse::respond(following, &admin.streams))
}

/// Which events are wanted.
#[derive(Debug)]
struct Filter {
    kinds: Option<Vec<&'static str>>,
    pool: Option<String>,
    session: Option<String>,
    tenant: Option<String>,
    worker: Option<WorkerId>,
    since: Option<SystemTime>,
}

impl Filter {
    fn of(query: EventsQuery) -> Result<Self, Problem> {
        let EventsQuery { kind, pool, session, tenant, worker, since, last_event_id: _, follow: _ } = query;
        let known = |name: &str| {
            let found = EventKind::NAMES.into_iter().find(|known| *known == name.trim());
            found.ok_or_else(|| {
                let detail = format!("kind is none or a list of these: {}", EventKind::NAMES.join(", "));
                Problem::new(Kind::BadQuery).detail(detail)
            })
        };
        let kinds = kind.map(|kinds| kinds.split(',').map(known).collect::<Result<_, _>>()).transpose()?;
        let worker = worker.as_deref().map(worker_id).transpose()?;
        let since = since.map(|since| humantime::parse_rfc3339_weak(&since)).transpose().map_err(|error| {
            Problem::new(Kind::BadQuery).detail(format!("since: {error}; write a time such as 2026-01-31T12:00:00Z"))
        })?;
        Ok(Self { kinds, pool, session, tenant, worker, since })
    }

    fn fits(&self, event: &Event) -> bool {
        let Self { kinds, pool, session, tenant, worker, since } = self;
        let (of_session, of_worker) = concerned(&event.kind);
        kinds.as_ref().is_none_or(|kinds| kinds.contains(&event.kind.name()))
            && pool.as_deref().is_none_or(|pool| *event.pool == *pool)
            && session.as_deref().is_none_or(|id| of_session.is_some_and(|session| session.as_str() == id))
            && tenant
                .as_deref()
                .is_none_or(|name| of_session.is_some_and(|session| session.tenant().map_or("", Tenant::name) == name))
            && worker.is_none_or(|worker| of_worker == Some(worker))
            && since.is_none_or(|since| event.at >= since)
    }
}

/// Whom an event is about.
fn concerned(kind: &EventKind) -> (Option<&SessionId>, Option<WorkerId>) {
    match kind {
        EventKind::WorkerStarting { worker }
        | EventKind::WorkerReady { worker, .. }
        | EventKind::SpawnFailed { worker, .. }
        | EventKind::WorkerCrashed { worker, .. }
        | EventKind::WorkerUnhealthy { worker, .. }
        | EventKind::WorkerGone { worker } => (None, Some(*worker)),
        EventKind::SessionStarted { session, worker } | EventKind::SessionEnded { session, worker, .. } => {
            (Some(session), Some(*worker))
        }
        _ => (None, None),
    }
}

#[derive(Debug)]
struct Following {
    follower: Follower,
    filter: Filter,
    /// Whether the position was chosen by somebody who comes back, so that what is next may be gone without their fault.
    may_miss: bool,
    /// Whether they are told.
    tells: bool,
    /// The number of the last event that was read, whether it was wanted or not.
    last: Option<u64>,
}

impl Source for Following {
    async fn next(&mut self) -> Told {
        loop {
            match self.follower.next().await {
                Some(Entry::Event(event)) => {
                    self.may_miss = false;
                    self.last = Some(event.sequence);
                    if self.filter.fits(&event) {
                        return Told::Frame(event.rendered(render));
                    }
                }
                Some(Entry::Missed(count)) if self.may_miss => {
                    self.may_miss = false;
                    if self.tells {
                        return Told::Frame(missed(count));
                    }
                }
                Some(Entry::Missed(_)) => return Told::Last(dropped(self.last)),
                // The journal is gone, and with it the daemon.
                None => return Told::Last(frame(None, "end", &sse::End { reason: "stopping" })),
            }
        }
    }
}

fn render(event: &Event) -> axum::body::Bytes {
    frame(Some(event.sequence), event.kind.name(), &model::Event::new(event))
}

#[cfg(test)]
mod tests {
    use axum::body::Bytes;
    use serde_json::Value;

    use super::*;
    use crate::journal::{BACKLOG, Journal};

    fn push(journal: &Journal, count: usize) {
        (0..count).for_each(|_| journal.push(SystemTime::now(), "default".into(), EventKind::Draining));
    }

    fn following(journal: &Journal, after: Option<u64>) -> Following {
        let filter = Filter { kinds: None, pool: None, session: None, tenant: None, worker: None, since: None };
        let (follower, resumes) = (journal.follow(after), after.is_some());
        Following { follower, filter, may_miss: resumes, tells: resumes, last: after }
    }

    /// The name and the data of a frame.
    fn parse(frame: &Bytes) -> (String, Value) {
        let text = std::str::from_utf8(frame).unwrap();
        let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        (field("event: ").to_owned(), serde_json::from_str(field("data: ")).unwrap())
    }

    #[tokio::test]
    async fn a_subscriber_who_falls_behind_is_dropped_and_told_what_it_got() {
        let journal = Journal::new();
        let mut slow = following(&journal, None);
        push(&journal, 3);
        for sequence in 1..=3 {
            let Told::Frame(frame) = slow.next().await else { panic!("an event is there") };
            assert_eq!(parse(&frame).1["sequence"], sequence);
        }
        push(&journal, BACKLOG + 1);
        let Told::Last(last) = slow.next().await else { panic!("what comes next is not kept any more") };
        let (name, data) = parse(&last);
        assert_eq!((name.as_str(), &data["last_sequence"]), ("dropped", &3.into()));
    }

    #[tokio::test]
    async fn who_comes_back_late_is_told_how_much_is_gone_and_goes_on() {
        let journal = Journal::new();
        push(&journal, BACKLOG + 10);
        let mut back = following(&journal, Some(4));
        let Told::Frame(frame) = back.next().await else { panic!("it is no reason to end") };
        let (name, data) = parse(&frame);
        assert_eq!((name.as_str(), &data["count"]), ("missed", &6.into()));
        let Told::Frame(frame) = back.next().await else { panic!("the rest is there") };
        assert_eq!(parse(&frame).1["sequence"], 11);
    }

    #[tokio::test]
    async fn an_event_is_written_once_for_all_who_read_it() {
        let journal = Journal::new();
        let mut all: Vec<_> = (0..100).map(|_| following(&journal, None)).collect();
        push(&journal, 1);
        let mut places = Vec::new();
        for one in &mut all {
            let Told::Frame(frame) = one.next().await else { panic!("an event is there") };
            places.push(frame.as_ptr());
        }
        places.dedup();
        assert_eq!((places.len(), all.len()), (1, 100), "they share its bytes");
    }

    #[tokio::test]
    async fn events_that_nobody_asked_for_are_passed_over() {
        let journal = Journal::new();
        let mut one = following(&journal, None);
        one.filter.kinds = Some(vec!["shutting-down"]);
        push(&journal, 500);
        journal.push(SystemTime::now(), "default".into(), EventKind::ShuttingDown);
        let Told::Frame(frame) = one.next().await else { panic!("an event is there") };
        assert_eq!(parse(&frame), ("shutting-down".to_owned(), parse(&frame).1));
        assert_eq!(parse(&frame).1["sequence"], 501);
    }
}
