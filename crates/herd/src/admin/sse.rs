//! Server-sent events: <https://html.spec.whatwg.org/multipage/server-sent-events.html>.
//!
//! A stream holds a position and at most one frame. What a subscriber does not take stays where it is kept anyway, in the
//! journal or in the worker's log, until it is kept no longer; then the subscriber is told so and dropped.

use std::{convert::Infallible, future::Future, sync::Arc, time::Duration};

use axum::{
    body::{Body, Bytes},
    http::{HeaderMap, HeaderName, HeaderValue, header},
    response::Response,
};
use futures_util::{StreamExt as _, stream};
use serde::Serialize;
use tokio::{
    select,
    sync::watch,
    time::{sleep, timeout},
};

use super::problem::{Kind, Problem};

/// How often something is sent when nothing happens, so that proxies do not take the stream for dead.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// After how long a browser connects again, in milliseconds.
const GREETING: &[u8] = b"retry: 1000\n\n";

const STREAM: &str = "text/event-stream";

/// How long subscribers have to take the last frame.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// All streams of the daemon, which end when it stops. Clones are the same.
#[derive(Clone, Debug, Default)]
pub(crate) struct Streams(Arc<watch::Sender<bool>>);

impl Streams {
    /// Tells all subscribers that the daemon stops, and gives them a moment to hear it.
    pub(crate) async fn end(&self) {
        self.0.send_replace(true);
        // Each stream holds a receiver until it is over. Who does not read is not waited for.
        let _ = timeout(LAST_WORDS, self.0.closed()).await;
    }
}

/// Where frames come from.
pub(super) trait Source: Send + 'static {
    /// The next frame; waits for one.
    ///
    /// Cancel safe.
    fn next(&mut self) -> impl Future<Output = Told> + Send;
}

/// What a source says.
#[derive(Debug)]
pub(super) enum Told {
    Frame(Bytes),
    /// After this nothing comes.
    Last(Bytes),
}

/// Why a stream ends.
#[derive(Debug, Serialize)]
pub(super) struct End {
    pub(super) reason: &'static str,
}

/// Why a subscriber is dropped.
#[derive(Debug, Serialize)]
pub(super) struct Dropped {
    reason: &'static str,
    /// The last one that it got; `null`: none.
    last_sequence: Option<u64>,
}

/// How many of those that were asked for are not kept any more.
#[derive(Debug, Serialize)]
pub(super) struct Missed {
    count: u64,
}

#[derive(Debug)]
struct Conversation<S> {
    source: S,
    stopping: watch::Receiver<bool>,
    greeted: bool,
    over: bool,
}

impl<S: Source> Conversation<S> {
    async fn next(&mut self) -> Option<Bytes> {
        if self.over {
            return None;
        }
        // At once: the response's head goes with it, and so the client knows that it is heard.
        if !self.greeted {
            self.greeted = true;
            return Some(Bytes::from_static(GREETING));
        }
        select! {
            // What is there comes before the end.
            biased;
            told = self.source.next() => match told {
                Told::Frame(frame) => Some(frame),
                Told::Last(frame) => {
                    self.over = true;
                    Some(frame)
                }
            },
            // An error means that the daemon is gone, and is as good a reason to end.
            _ = self.stopping.wait_for(|stopping| *stopping) => {
                self.over = true;
                Some(frame(None, "end", &End { reason: "stopping" }))
            }
            () = sleep(KEEP_ALIVE) => Some(Bytes::from_static(b":\n\n")),
        }
    }
}

/// Streams what `source` says until it is over, the client goes, or the daemon stops.
pub(super) fn respond(source: impl Source, streams: &Streams) -> Response {
    let conversation = Conversation { source, stopping: streams.0.subscribe(), greeted: false, over: false };
    let frames = stream::unfold(conversation, async |mut conversation| {
        let frame = conversation.next().await?;
        Some((Ok::<_, Infallible>(frame), conversation))
    });
    let mut response = Response::new(Body::from_stream(frames));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(STREAM));
    // nginx would collect frames before it passes them on.
    headers.insert(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
    response
}

/// Whether this is a stream.
pub(super) fn is_stream(response: &Response) -> bool {
    response.headers().get(header::CONTENT_TYPE).is_some_and(|kind| kind == STREAM)
}

/// Ends a stream between two of its frames once `ended` is, and says why.
pub(super) fn end_when(
    response: Response,
    ended: impl Future<Output = ()> + Send + 'static,
    reason: &'static str,
) -> Response {
    response.map(|body| {
        let conversation = Some((body.into_data_stream(), Box::pin(ended)));
        Body::from_stream(stream::unfold(conversation, move |conversation| async move {
            let (mut frames, mut ended) = conversation?;
            select! {
                biased;
                () = &mut ended => Some((Ok(frame(None, "end", &End { reason })), None)),
                next = frames.next() => Some((next?, Some((frames, ended)))),
            }
        }))
    })
}

/// One event as it is sent. `name` is a word of ours, and JSON has no line breaks.
pub(super) fn frame(id: Option<u64>, name: &str, data: &impl Serialize) -> Bytes {
    // What is serialized are structures of ours with keys that are text, which cannot fail.
    let data = serde_json::to_string(data).unwrap_or_default();
    let id = id.map_or_else(String::new, |id| format!("id: {id}\n"));
    format!("{id}event: {name}\ndata: {data}\n\n").into()
}

/// The last frame for a subscriber who is too slow.
pub(super) fn dropped(last_sequence: Option<u64>) -> Bytes {
    let reason = "it was not read fast enough, and what would come next is not kept any more";
    frame(None, "dropped", &Dropped { reason, last_sequence })
}

/// Tells a subscriber who comes back that some are gone.
pub(super) fn missed(count: u64) -> Bytes {
    frame(None, "missed", &Missed { count })
}

/// Behind which event the stream is to go on. The field counts before the query's parameter: a browser that connects
/// again sends the address that it was given first, with the field as it is by then.
pub(super) fn resume_after(headers: &HeaderMap, parameter: Option<&str>) -> Result<Option<u64>, Problem> {
    let field = headers.get("last-event-id").map(|value| value.to_str().unwrap_or("?"));
    let Some(text) = field.or(parameter) else { return Ok(None) };
    text.parse().map(Some).map_err(|_| {
        let name = if field.is_some() { "last-event-id" } else { "last_event_id" };
        let detail = format!("{name} is no number; send the ID of the last event that was read, or leave it out");
        Problem::new(if field.is_some() { Kind::BadField } else { Kind::BadQuery }).detail(detail)
    })
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;

    #[derive(Debug)]
    struct Script(VecDeque<Told>);

    impl Source for Script {
        async fn next(&mut self) -> Told {
            match self.0.pop_front() {
                Some(told) => told,
                None => std::future::pending().await,
            }
        }
    }

    fn streaming(script: Vec<Told>, streams: &Streams) -> axum::body::BodyDataStream {
        respond(Script(script.into()), streams).into_body().into_data_stream()
    }

    #[tokio::test]
    async fn the_end_of_the_daemon_comes_behind_what_there_is() {
        let streams = Streams::default();
        let mut stream = streaming(vec![Told::Frame("one".into())], &streams);
        streams.0.send_replace(true);
        let mut said = Vec::new();
        while let Some(frame) = stream.next().await {
            said.push(String::from_utf8(frame.unwrap().to_vec()).unwrap());
        }
        assert_eq!(said, ["retry: 1000\n\n", "one", "event: end\ndata: {\"reason\":\"stopping\"}\n\n"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_without_news_says_that_it_is_alive() {
        let streams = Streams::default();
        let mut stream = streaming(Vec::new(), &streams);
        assert_eq!(stream.next().await.unwrap().unwrap(), GREETING);
        let before = tokio::time::Instant::now();
        assert_eq!(stream.next().await.unwrap().unwrap(), ":\n\n");
        assert_eq!(before.elapsed().as_secs(), KEEP_ALIVE.as_secs());
    }

    #[tokio::test]
    async fn nothing_comes_behind_the_last_frame() {
        let script = vec![Told::Last("gone".into()), Told::Frame("more".into())];
        let streams = Streams::default();
        let mut stream = streaming(script, &streams);
        stream.next().await;
        assert_eq!(stream.next().await.unwrap().unwrap(), "gone");
        assert!(stream.next().await.is_none());
    }

    #[tokio::test]
    async fn a_stream_that_is_ended_says_why_behind_a_whole_frame() {
        let streams = Streams::default();
        let (revoke, revoked) = tokio::sync::oneshot::channel::<()>();
        let response = respond(Script(vec![Told::Frame("one".into())].into()), &streams);
        assert!(is_stream(&response));
        let ended = end_when(response, async { _ = revoked.await }, "token-changed");
        let mut stream = ended.into_body().into_data_stream();
        assert_eq!(stream.next().await.unwrap().unwrap(), GREETING);
        assert_eq!(stream.next().await.unwrap().unwrap(), "one");
        drop(revoke);
        assert_eq!(stream.next().await.unwrap().unwrap(), "event: end\ndata: {\"reason\":\"token-changed\"}\n\n");
        assert!(stream.next().await.is_none());
    }

    #[test]
    fn the_field_counts_before_the_parameter() {
        let mut headers = HeaderMap::new();
        assert_eq!(resume_after(&headers, Some("3")).unwrap(), Some(3));
        headers.insert("last-event-id", HeaderValue::from_static("7"));
        assert_eq!(resume_after(&headers, Some("3")).unwrap(), Some(7));
        assert_eq!(resume_after(&HeaderMap::new(), None).unwrap(), None);
        assert!(resume_after(&HeaderMap::new(), Some("x")).is_err());
    }
}
