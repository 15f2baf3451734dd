//! What a tracer is told of requests, and what workers get of it.

mod fakes;

use std::sync::{Arc, Mutex};

use fakes::{Fixture, Setup, echo_heads, soon};
use herd_gateway::{Access, Admission, GatewayOptions, Refusal, Trace, TraceEnd, Tracer};
use hyper::{HeaderMap, Method, Uri, header::HeaderValue};

const CLIENTS: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
const OURS: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-1111111111111111-01";

/// Follows requests unless they say not to, and writes down what it is told.
#[derive(Clone, Default)]
struct Scribe(Arc<Mutex<Vec<String>>>);

impl Scribe {
    fn write(&self, text: String) {
        self.0.lock().unwrap().push(text);
    }

    async fn read(&self, until: &str) -> Vec<String> {
        let is_there = || self.0.lock().unwrap().last().is_some_and(|last| last.starts_with(until));
        soon(async {
            while !is_there() {
                tokio::task::yield_now().await;
            }
        })
        .await;
        std::mem::take(&mut *self.0.lock().unwrap())
    }
}

impl Tracer for Scribe {
    fn begin(&self, method: &Method, headers: &HeaderMap) -> Option<Box<dyn Trace>> {
        let parent = headers.get("traceparent").map_or("none", |parent| parent.to_str().unwrap());
        self.write(format!("begin {method} {parent} {}", headers.contains_key("authorization")));
        (!headers.contains_key("x-not")).then(|| Box::new(self.clone()) as _)
    }
}

impl Trace for Scribe {
    fn traceparent(&self) -> HeaderValue {
        HeaderValue::from_static(OURS)
    }

    fn path(&mut self, path: &str) {
        self.write(path.to_owned());
    }

    fn phase(&mut self, name: &'static str) {
        self.write(name.to_owned());
    }

    fn end(self: Box<Self>, end: &TraceEnd<'_>) {
        self.write(format!("end {} {:?} {:?}", end.status.as_u16(), end.pool, end.session_is_new));
    }
}

async fn traced() -> (Fixture, Scribe) {
    let scribe = Scribe::default();
    let options = GatewayOptions { tracer: Some(Arc::new(scribe.clone())), ..GatewayOptions::default() };
    (Setup::with(options).start(echo_heads).await, scribe)
}

fn get(fields: &str) -> String {
    format!("GET / HTTP/1.1\r\nhost: h\r\nx-session-id: a\r\n{fields}\r\n")
}

#[tokio::test]
async fn a_followed_request_tells_its_phases_and_gives_the_worker_its_parent() {
    let (fixture, scribe) = traced().await;
    let fields = format!("traceparent: {CLIENTS}\r\ntracestate: v=1\r\nconnection: traceparent\r\n");
    let seen = fixture.ask(&get(&fields)).await;
    assert!(seen.text().contains(&format!("traceparent: {OURS}\r\n")), "{}", seen.text());
    assert!(seen.text().contains("tracestate: v=1\r\n") && !seen.text().contains(CLIENTS), "{}", seen.text());
    assert_eq!(
        scribe.read("end").await,
        [
            &format!("begin GET {CLIENTS} false"),
            "/",
            "lease",
            "connect",
            "send",
            "relay",
            "end 200 Some(\"default\") Some(true)"
        ]
    );
    let refused = fixture.ask("GET / HTTP/1.1\r\nhost: h\r\n\r\n").await;
    assert_eq!(refused.status, 400);
    assert_eq!(scribe.read("end").await, ["begin GET none false", "relay", "end 400 Some(\"default\") None"]);
}

#[tokio::test]
async fn trace_fields_that_are_not_well_formed_reach_neither_tracer_nor_worker() {
    let (fixture, scribe) = traced().await;
    for fields in [
        "traceparent: 00-x\r\ntracestate: v=1\r\n".to_owned(),
        "tracestate: v=1\r\n".to_owned(),
        format!("traceparent: {CLIENTS}\r\ntraceparent: {CLIENTS}\r\ntracestate: v=1\r\n"),
    ] {
        let seen = fixture.ask(&get(&format!("x-not: 1\r\n{fields}"))).await;
        assert!(!seen.text().contains("trace"), "{}", seen.text());
        assert_eq!(scribe.read("begin").await, ["begin GET none false"]);
    }
    // What is well-formed passes though it is not followed.
    let fields = format!("x-not: 1\r\ntraceparent: {CLIENTS}\r\ntracestate: v=1\r\n");
    let seen = fixture.ask(&get(&fields)).await;
    assert!(seen.text().contains(CLIENTS) && seen.text().contains("tracestate: v=1\r\n"), "{}", seen.text());
}

#[tokio::test]
async fn without_a_tracer_trace_fields_are_like_all_others() {
    let fixture = Fixture::start(echo_heads).await;
    let seen = fixture.ask(&get("traceparent: 00-x\r\ntracestate: v=1\r\n")).await;
    assert!(seen.text().contains("traceparent: 00-x\r\ntracestate: v=1\r\n"), "{}", seen.text());
}

#[tokio::test]
async fn a_tracer_hears_of_nobody_who_is_refused_and_sees_no_credential() {
    struct Door;
    impl Access for Door {
        fn admit(&self, headers: &HeaderMap, _: &Uri) -> Result<Admission, Refusal> {
            headers.get("authorization").ok_or(Refusal::NoCredentials)?;
            Ok(Admission { credential: herd_gateway::Credential::Authorization, ..Admission::default() })
        }
    }
    let scribe = Scribe::default();
    let options = GatewayOptions {
        access: Some(Arc::new(Door)),
        tracer: Some(Arc::new(scribe.clone())),
        ..GatewayOptions::default()
    };
    let fixture = Setup::with(options).start(echo_heads).await;
    assert_eq!(fixture.ask(&get("")).await.status, 401);
    assert!(scribe.0.lock().unwrap().is_empty());
    assert_eq!(fixture.ask(&get("authorization: Bearer x\r\n")).await.status, 200);
    assert_eq!(scribe.read("end").await[0], "begin GET none false");
}

#[tokio::test]
async fn a_tracer_sees_no_session_no_query_and_no_page_of_the_gateway() {
    let scribe = Scribe::default();
    let options = GatewayOptions {
        session_key: "path:2".parse().unwrap(),
        tracer: Some(Arc::new(scribe.clone())),
        ..GatewayOptions::default()
    };
    let fixture = Setup::with(options).start(echo_heads).await;
    assert_eq!(fixture.ask("GET /healthz HTTP/1.1\r\nhost: h\r\n\r\n").await.status, 200);
    assert_eq!(fixture.ask("GET /s/alice/x?token=1 HTTP/1.1\r\nhost: h\r\n\r\n").await.status, 200);
    let told = scribe.read("end").await;
    assert_eq!(told[..2], ["begin GET none false", "/s/x"]);
    assert!(!told.iter().any(|line| line.contains("alice") || line.contains("token")), "{told:?}");
}
