use std::convert::Infallible;

use axum::{
    extract::State,
    http::{HeaderMap, StatusCode},
    response::{
        IntoResponse,
        sse::{self, Sse},
    },
};
use futures_util::{StreamExt as _, stream};

use super::{Admin, model::Event, problem::Problem};
use crate::journal::Entry;

/// Events as they happen, each with its sequence number as the ID. With `last-event-id` the stream goes on behind that
/// event; what is not kept any more is told as an event `missed`.
pub(super) async fn stream(State(admin): State<Admin>, headers: HeaderMap) -> Result<impl IntoResponse, Problem> {
    let follower = admin.journal.follow(last_event_id(&headers)?);
    let events = stream::unfold(follower, |mut follower| async move { Some((follower.next().await?, follower)) });
    let events = events.map(|entry| {
        Ok::<_, Infallible>(match entry {
            Entry::Event(event) => sse::Event::default()
                .id(event.sequence.to_string())
                .event(event.kind.name())
                .data(Event::new(&event).to_json()),
            Entry::Missed(count) => sse::Event::default().event("missed").data(format!("{{\"count\":{count}}}")),
        })
    });
    Ok(Sse::new(events).keep_alive(sse::KeepAlive::default()))
}

pub(super) fn last_event_id(headers: &HeaderMap) -> Result<Option<u64>, Problem> {
    let Some(value) = headers.get("last-event-id") else { return Ok(None) };
    let number = value.to_str().ok().and_then(|text| text.parse().ok());
    number.map(Some).ok_or_else(|| {
        Problem::new(StatusCode::BAD_REQUEST, "The last-event-id is no number")
            .detail("send the ID of the last event that was read, or leave the field out")
    })
}
