//! One receiver: what waits for it, and the task that posts it.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{
    Method, Request, Response, StatusCode, Uri,
    body::{Bytes, Incoming},
    header::{CONTENT_TYPE, RETRY_AFTER, USER_AGENT},
};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::{self, connect::HttpConnector};
use tokio::{
    sync::Notify,
    time::{Instant, sleep, timeout},
};

use super::{
    backlog::{Backlog, Batch, Waiting},
    signature::Key,
};
use crate::causes::with_causes;

/// How long to wait after the first failure; each further one doubles it.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The longest pause between two attempts, whatever the receiver asks for.
const LONGEST_PAUSE: Duration = Duration::from_secs(300);
/// How much of an answer is read, so that the connection can be kept: nobody looks at it.
const MOST_OF_ANSWER: usize = 64 * 1024;
/// How long that may take.
const REST: Duration = Duration::from_secs(1);

pub(crate) type Client = legacy::Client<HttpsConnector<HttpConnector>, Full<Bytes>>;

/// What the operator wrote of a receiver, with its key read.
#[derive(Clone, PartialEq)]
pub(super) struct Options {
    pub(super) url: Uri,
    pub(super) key: Option<Key>,
    /// Kinds of events; empty: all.
    pub(super) kinds: Vec<String>,
    pub(super) timeout: Duration,
    pub(super) bound: usize,
    pub(super) give_up_after: Duration,
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options").field("to", &origin(&self.url)).finish_non_exhaustive()
    }
}

/// What a receiver has got so far.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Counts {
    /// Events that wait.
    pub(crate) waiting: usize,
    /// Events that the receiver took.
    pub(crate) delivered: u64,
    /// Attempts to post that failed.
    pub(crate) failures: u64,
    /// Events that it will never get.
    pub(crate) dropped: u64,
}

#[derive(Debug)]
pub(super) struct Receiver {
    state: Mutex<State>,
    /// Something has come, or the settings have changed.
    changed: Notify,
    /// Nothing waits any more.
    emptied: Notify,
}

#[derive(Debug)]
struct State {
    options: Options,
    backlog: Backlog,
    counts: Counts,
}

impl Receiver {
    pub(super) fn new(options: Options) -> Self {
        let backlog = Backlog::new(options.bound);
        let state = Mutex::new(State { options, backlog, counts: Counts::default() });
        Self { state, changed: Notify::new(), emptied: Notify::new() }
    }

    /// Whether the settings mean the same receiver, which then goes on with what waits for it.
    pub(super) fn is(&self, options: &Options) -> bool {
        self.lock().options.url == options.url
    }

    pub(super) fn configure(&self, options: Options) {
        let mut state = self.lock();
        if state.options == options {
            return;
        }
        state.counts.dropped += state.backlog.bound(options.bound);
        state.options = options;
        drop(state);
        self.changed.notify_one();
    }

    /// Adds an event if the receiver wants its kind. Never waits.
    pub(super) fn offer(&self, kind: &str, event: impl FnOnce() -> Waiting) {
        let mut state = self.lock();
        if !state.options.kinds.is_empty() && !state.options.kinds.iter().any(|wanted| wanted == kind) {
            return;
        }
        let dropped = state.backlog.push(event());
        state.counts.dropped += dropped;
        // The first of many is told; how many there are in all is in the metrics.
        if dropped > 0 && state.counts.dropped == dropped {
            let to = origin(&state.options.url);
            let bound = state.options.bound;
            tracing::warn!(to, bound, "more events wait for a webhook than its max_queue; the oldest are dropped");
        }
        drop(state);
        self.changed.notify_one();
    }

    pub(super) fn counts(&self) -> Counts {
        let state = self.lock();
        Counts { waiting: state.backlog.len(), ..state.counts }
    }

    /// Its address without path and query, which may hold a secret.
    pub(super) fn origin(&self) -> String {
        origin(&self.lock().options.url)
    }

    /// Resolves when nothing waits.
    pub(super) async fn emptied(&self) {
        loop {
            let emptied = self.emptied.notified();
            if self.lock().backlog.len() == 0 {
                return;
            }
            emptied.await;
        }
    }

    /// Posts what waits, one batch after the other, for ever.
    pub(super) async fn run(self: Arc<Self>, client: Client) {
        loop {
            let batch = self.next().await;
            self.post(&client, batch).await;
            if self.lock().backlog.len() == 0 {
                self.emptied.notify_waiters();
            }
        }
    }

    async fn next(&self) -> Batch {
        loop {
            // A permit of `notify_one` is kept, so what comes between the look and the wait is not missed.
            if let Some(batch) = self.lock().backlog.next() {
                return batch;
            }
            self.changed.notified().await;
        }
    }

    /// Posts a batch until the receiver takes it or its time is over. It stays the same post, whatever becomes of the
    /// settings meanwhile.
    async fn post(&self, client: &Client, batch: Batch) {
        let body = body(&batch);
        let id = new_id().await;
        let since = batch.events.first().map_or_else(Instant::now, |event| event.since);
        let mut pause = FIRST_PAUSE;
        loop {
            let options = self.lock().options.clone();
            let Err(refusal) = attempt(client, &options, &id, body.clone()).await else {
                let mut state = self.lock();
                state.backlog.done(&batch);
                state.counts.delivered += batch.events.len() as u64;
                return;
            };
            let to = origin(&options.url);
            self.lock().counts.failures += 1;
            if since.elapsed() >= options.give_up_after {
                let mut state = self.lock();
                let events = state.backlog.give_up();
                state.counts.dropped += events;
                tracing::warn!(to, events, %refusal, "a webhook's receiver did not take events in time; they are dropped");
                return;
            }
            if pause == FIRST_PAUSE {
                tracing::warn!(to, %refusal, "a webhook's receiver does not take events; they wait, and are posted again");
            }
            let wait = refusal.retry_after.unwrap_or(pause).max(jittered(pause)).min(LONGEST_PAUSE);
            pause = (pause * 2).min(LONGEST_PAUSE);
            // Only a change of the settings is a reason not to wait; that more has come is none.
            let _ = timeout(wait, self.reconfigured(&options)).await;
        }
    }

    async fn reconfigured(&self, options: &Options) {
        while self.lock().options == *options {
            self.changed.notified().await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing in here can panic half-way through a change, so a poisoned lock still guards a whole state.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why a receiver did not take a batch.
#[derive(Debug)]
struct Refusal {
    why: String,
    retry_after: Option<Duration>,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.why)
    }
}

async fn attempt(client: &Client, options: &Options, id: &str, body: Bytes) -> Result<(), Refusal> {
    let refused = |why: String| Refusal { why, retry_after: None };
    // Each attempt says when it was made, so that a receiver can refuse old ones that somebody repeats.
    let timestamp = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let mut request = Request::builder()
        .method(Method::POST)
        .uri(options.url.clone())
        .header(CONTENT_TYPE, "application/json")
        .header(USER_AGENT, concat!("herd/", env!("CARGO_PKG_VERSION")))
        .header("webhook-id", id)
        .header("webhook-timestamp", timestamp);
    if let Some(key) = &options.key {
        request = request.header("webhook-signature", key.sign(id, timestamp, &body));
    }
    let request = request.body(Full::new(body)).map_err(|error| refused(error.to_string()))?;
    let answered = timeout(options.timeout, client.request(request)).await;
    let response = match answered {
        // None of its causes quotes the URL.
        Ok(answer) => answer.map_err(|error| refused(with_causes(&error)))?,
        Err(_) => return Err(refused(format!("it did not answer within {:?}", options.timeout))),
    };
    let answer = judge(&response);
    // The head is the answer; a body that is left unread costs the connection and nothing else.
    let _ = timeout(REST, Limited::new(response.into_body(), MOST_OF_ANSWER).collect()).await;
    answer
}

/// Every 2xx is a yes. A redirect is none: where events go is the operator's decision.
fn judge(response: &Response<Incoming>) -> Result<(), Refusal> {
    let status = response.status();
    if status.is_success() {
        return Ok(());
    }
    let asks_to_wait = matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE);
    let seconds = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
    let retry_after = seconds.filter(|_| asks_to_wait).map(Duration::from_secs);
    Err(Refusal { why: format!("it answered {status}"), retry_after })
}

fn body(batch: &Batch) -> Bytes {
    let events: Vec<&str> = batch.events.iter().map(|event| &*event.json).collect();
    format!("{{\"events\":[{}],\"missed\":{}}}", events.join(","), batch.missed).into()
}

/// A new post's ID. Without random bytes there is none; they come back.
async fn new_id() -> String {
    let mut bytes = [0; 16];
    while getrandom::fill(&mut bytes).is_err() {
        sleep(FIRST_PAUSE).await;
    }
    format!("msg_{:032x}", u128::from_be_bytes(bytes))
}

/// Somewhere between half of the pause and all of it, so that many daemons do not come back at the same moment.
fn jittered(pause: Duration) -> Duration {
    let mut byte = [0];
    // Without random bytes all of the pause is as good.
    let share = if getrandom::fill(&mut byte).is_ok() { f64::from(byte[0]) / 255.0 } else { 1.0 };
    pause.mul_f64(0.5 + share / 2.0)
}

fn origin(url: &Uri) -> String {
    let authority = url.authority().map_or("", |authority| authority.as_str());
    format!("{}://{authority}", url.scheme_str().unwrap_or("http"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_are_spread_and_never_longer_than_meant() {
        for _ in 0..1000 {
            let pause = jittered(Duration::from_secs(8));
            assert!((Duration::from_secs(4)..=Duration::from_secs(8)).contains(&pause), "{pause:?}");
        }
    }

    #[test]
    fn an_address_is_shown_without_what_may_be_secret() {
        let url = "https://hooks.example.com:8443/T0/B0/secret?token=secret".parse().unwrap();
        assert_eq!(origin(&url), "https://hooks.example.com:8443");
        let key = None;
        let timeout = Duration::ZERO;
        let options = Options { url, key, kinds: Vec::new(), timeout, bound: 1, give_up_after: timeout };
        assert!(!format!("{options:?}").contains("secret"));
    }

    #[test]
    fn a_batch_is_one_document_with_what_was_missed() {
        let event = |json: &str| Waiting { since: Instant::now(), json: json.into() };
        let batch = Batch { events: vec![event(r#"{"a":1}"#), event(r#"{"b":2}"#)], missed: 7 };
        let document: serde_json::Value = serde_json::from_slice(&body(&batch)).unwrap();
        assert_eq!(document, serde_json::json!({ "events": [{ "a": 1 }, { "b": 2 }], "missed": 7 }));
    }
}
