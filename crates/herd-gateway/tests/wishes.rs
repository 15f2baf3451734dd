//! What clients can want of their sessions with the field `herd-session`: to go on with them only, and to end them.

mod fakes;

use std::sync::Arc;

use fakes::{Answer, Fixture, Setup, echo_heads, pool_that_says, request_head, response, say_id, soon};
use futures_util::StreamExt;
use herd_gateway::{Access, Admission, GatewayOptions, Refusal, Routes, Rule, Sessions, close_code};
use herd_pool::{EndReason, EventKind, Protocol, SessionId, Tenant, TenantLimits};
use http_body_util::Empty;
use hyper::{HeaderMap, Request, Uri, body::Bytes};
use hyper_util::rt::{TokioExecutor, TokioIo};
use proptest::prelude::*;
use tokio::{io::AsyncWriteExt, net::TcpStream, sync::Notify};
use tokio_tungstenite::{accept_async, client_async, tungstenite::Message, tungstenite::client::IntoClientRequest};

fn ask(method: &str, session: &str, wish: &str) -> String {
    format!("{method} / HTTP/1.1\r\nhost: h\r\nx-session-id: {session}\r\nherd-session: {wish}\r\n\r\n")
}

fn get(session: &str) -> String {
    format!("GET / HTTP/1.1\r\nhost: h\r\nx-session-id: {session}\r\n\r\n")
}

fn id(session: &str) -> SessionId {
    session.parse().unwrap()
}

fn keyed(key: &str) -> Setup {
    Setup::with(GatewayOptions { session_key: key.parse().unwrap(), ..GatewayOptions::default() })
}

/// Asks in HTTP/2, and answers the status and what the gateway says of the session.
async fn ask_http2(fixture: &Fixture, method: &str, wish: &str) -> (u16, String) {
    let stream = TcpStream::connect(fixture.address).await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let request = Request::builder().method(method).uri("http://h/").header("x-session-id", "a");
    let request = request.header("herd-session", wish).body(Empty::<Bytes>::new()).unwrap();
    let answer = soon(sender.send_request(request)).await.unwrap();
    let said = answer.headers().get("herd-session").or_else(|| answer.headers().get("herd-error"));
    (answer.status().as_u16(), said.unwrap().to_str().unwrap().to_owned())
}

#[tokio::test]
async fn a_request_that_only_resumes_never_starts_a_session() {
    let fixture = Fixture::start(say_id).await;
    let refused = fixture.ask(&ask("GET", "a", "resume")).await;
    assert_eq!((refused.status, refused.field("herd-error")), (404, Some("no-such-session")));
    let detail = "there is no such session, and the request is to start none";
    assert_eq!((refused.problem("detail"), refused.problem("session")), (detail.into(), "a".into()));
    assert_eq!((fixture.pool.stats().sessions, fixture.pool.stats().workers), (0, 0));
    assert_eq!(fixture.ask(&get("a")).await.field("herd-session"), Some("new"));
    let resumed = fixture.ask(&ask("POST", "a", "resume")).await;
    assert_eq!((resumed.status, resumed.field("herd-session"), resumed.text()), (200, Some("resumed"), "worker-1"));
    fixture.released("a").await;
    fixture.last_worker().crash();
    soon(async {
        while fixture.pool.session(&id("a")).is_some() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(fixture.ask(&ask("GET", "a", "resume")).await.status, 404, "a crashed session does not start anew");
    assert_eq!(fixture.ask(&get("a")).await.field("herd-session"), Some("new"), "unless a request lets it");
}

#[tokio::test]
async fn a_session_that_is_lost_between_lease_and_connection_is_told_and_not_started_anew() {
    // The pool learns of the worker's death when somebody could not connect to it.
    let mut fixture = Setup::default().start_unreachable().await;
    drop(fixture.pool.acquire(&id("a")).await.unwrap());
    let mut client = fixture.connect().await;
    client.send(ask("GET", "a", "resume")).await;
    assert_eq!(fixture.next_told().await, "unreachable");
    fixture.last_worker().crash();
    let lost = client.answer().await;
    assert_eq!((lost.status, lost.field("herd-error")), (502, Some("worker-crashed")), "{}", lost.text());
    assert_eq!(fixture.pool.stats().acquire_requests, 1, "the session was not asked for once more");
}

#[tokio::test]
async fn a_delete_ends_its_session_and_is_answered_when_the_worker_is_gone() {
    let closing = Arc::new(Notify::new());
    let mut fixture = Setup { closing: Some(closing.clone()), ..Setup::default() }.start(say_id).await;
    let mut events = fixture.pool.subscribe();
    assert_eq!(fixture.ask(&get("a")).await.status, 200);
    fixture.released("a").await;
    let mut client = fixture.connect().await;
    client.send(ask("DELETE", "a", "end")).await;
    assert_eq!(fixture.next_told().await, "closing");
    let again = fixture.ask(&ask("GET", "a", "resume")).await;
    assert_eq!(again.status, 404, "what ends is not resumed");
    assert!(client.unread.is_empty() && fixture.pool.stats().workers == 1);
    closing.notify_one();
    let ended = client.answer().await;
    assert_eq!((ended.status, ended.field("herd-session")), (204, Some("ended")));
    assert_eq!((ended.field("herd-worker"), ended.field("content-length")), (None, None));
    assert_eq!((fixture.pool.stats().workers, fixture.pool.stats().sessions), (0, 0));
    let reason = soon(async {
        loop {
            if let EventKind::SessionEnded { reason, .. } = events.next().await.unwrap().kind {
                return reason;
            }
        }
    })
    .await;
    assert_eq!(reason, EndReason::Released);
    // The connection goes on, and there is nothing left to end.
    client.send(ask("DELETE", "a", "end")).await;
    let none = client.answer().await;
    assert_eq!((none.status, none.field("herd-error")), (404, Some("no-such-session")));
    assert_eq!(none.problem("detail"), "there is no such session, and so none to end");
}

#[tokio::test]
async fn an_end_whose_client_goes_away_goes_on() {
    let closing = Arc::new(Notify::new());
    let mut fixture = Setup { closing: Some(closing.clone()), ..Setup::default() }.start(say_id).await;
    assert_eq!(fixture.ask(&get("a")).await.status, 200);
    let mut client = fixture.connect().await;
    client.send(ask("DELETE", "a", "end")).await;
    assert_eq!(fixture.next_told().await, "closing");
    drop(client);
    soon(async {
        while fixture.gateway.stats().requests > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    closing.notify_one();
    soon(async {
        while fixture.pool.stats().workers > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_request_in_flight_and_a_websocket_learn_that_their_session_was_ended() {
    let mut fixture = Fixture::start(|mut stream, life| async move {
        let mut first = [0; 4];
        stream.peek(&mut first).await.unwrap();
        if &first == b"POST" {
            request_head(&mut stream).await.unwrap();
            life.tell("posted");
            // Until the worker ends.
            request_head(&mut stream).await;
            return;
        }
        let mut socket = accept_async(stream).await.unwrap();
        life.tell("open");
        while let Some(Ok(_)) = socket.next().await {}
    })
    .await;
    let stream = TcpStream::connect(fixture.address).await.unwrap();
    let mut request = format!("ws://{}/ws", fixture.address).into_client_request().unwrap();
    request.headers_mut().insert("x-session-id", "a".parse().unwrap());
    let (mut socket, _) = soon(client_async(request, stream)).await.unwrap();
    assert_eq!(fixture.next_told().await, "open");
    let mut post = fixture.connect().await;
    post.send("POST / HTTP/1.1\r\nhost: h\r\nx-session-id: a\r\ncontent-length: 0\r\n\r\n").await;
    assert_eq!(fixture.next_told().await, "posted");
    assert_eq!(fixture.ask(&ask("DELETE", "a", "end")).await.status, 204);
    let answer = post.answer().await;
    assert_eq!((answer.status, answer.field("herd-error")), (502, Some("session-ended")));
    let close = soon(async {
        loop {
            if let Some(Ok(Message::Close(Some(frame)))) = socket.next().await {
                return frame;
            }
        }
    })
    .await;
    assert_eq!(u16::from(close.code), close_code(EndReason::Released));
}

#[tokio::test]
async fn every_key_finds_the_session_to_resume_and_to_end() {
    for (key, target, fields) in [
        ("header:x-tenant", "/", "host: h\r\nx-tenant: alice\r\n"),
        ("cookie:sid", "/", "host: h\r\ncookie: a=b; sid=alice\r\n"),
        ("query:session", "/x?a=b&session=al%69ce", "host: h\r\n"),
        ("path:1", "/alice/x", "host: h\r\n"),
        ("path:1", "/alice", "host: h\r\n"),
        ("host", "/", "host: Alice.example.com\r\n"),
    ] {
        let fixture = keyed(key).start(say_id).await;
        let ask = |method: &str, wish: &str| format!("{method} {target} HTTP/1.1\r\n{fields}{wish}\r\n");
        assert_eq!(fixture.ask(&ask("GET", "herd-session: resume\r\n")).await.status, 404, "{key}");
        assert_eq!(fixture.ask(&ask("GET", "")).await.status, 200, "{key}");
        assert!(fixture.pool.session(&id("alice")).is_some(), "{key}");
        assert_eq!(fixture.ask(&ask("GET", "herd-session: resume\r\n")).await.status, 200, "{key}");
        assert_eq!(fixture.ask(&ask("DELETE", "herd-session: end\r\n")).await.status, 204, "{key}");
        assert!(fixture.pool.session(&id("alice")).is_none(), "{key}");
    }
}

#[tokio::test]
async fn a_wish_without_a_session_is_refused_and_makes_no_cookie() {
    for key in ["header:x-session-id", "cookie:sid", "path:1", "host"] {
        let fixture = keyed(key).start(say_id).await;
        for (method, wish) in [("GET", "resume"), ("DELETE", "end")] {
            let request = format!("{method} / HTTP/1.1\r\nhost: localhost\r\nherd-session: {wish}\r\n\r\n");
            let refused = fixture.ask(&request).await;
            assert_eq!((refused.status, refused.field("herd-error")), (400, Some("no-session-id")), "{key} {wish}");
            assert_eq!(refused.field("set-cookie"), None, "{key} {wish}");
        }
        assert_eq!(fixture.pool.stats().acquire_requests, 0);
    }
}

#[tokio::test]
async fn a_wish_that_is_none_is_refused_with_what_is_allowed() {
    let fixture = Fixture::start(say_id).await;
    // One connection serves them all: a refusal does not spoil it.
    let mut client = fixture.connect().await;
    let allowed = "its value can be `resume` or `end`";
    let twice = "it comes more than once";
    for (method, fields, detail) in [
        ("GET", "herd-session: \r\n", allowed),
        ("GET", "herd-session: new\r\n", allowed),
        ("GET", "herd-session: Resume\r\n", allowed),
        ("DELETE", "herd-session: resume, end\r\n", allowed),
        ("GET", "herd-session: end\r\n", "`end` needs the method DELETE"),
        ("POST", "herd-session: end\r\ncontent-length: 0\r\n", "`end` needs the method DELETE"),
        ("DELETE", "herd-session: end\r\nherd-session: end\r\n", twice),
        ("GET", "herd-session: resume\r\nHerd-Session: end\r\n", twice),
    ] {
        client.send(format!("{method} / HTTP/1.1\r\nhost: h\r\nx-session-id: a\r\n{fields}\r\n")).await;
        let refused = client.answer().await;
        assert_eq!((refused.status, refused.field("herd-error")), (400, Some("bad-request")), "{fields}");
        let said = format!("the request's field herd-session is not understood: {detail}");
        assert_eq!(refused.problem("detail"), said, "{fields}");
    }
    assert_eq!(fixture.pool.stats().acquire_requests, 0);
    client.send(get("a")).await;
    assert_eq!(client.answer().await.status, 200);
}

#[tokio::test]
async fn no_worker_sees_the_field_in_a_head_an_upgrade_or_a_trailer() {
    let fixture = Fixture::start(echo_heads).await;
    for fields in [
        "herd-session: resume\r\n",
        "herd-session: resume\r\nconnection: herd-session\r\n",
        "herd-session: resume\r\nconnection: upgrade\r\nupgrade: raw/1\r\n",
    ] {
        assert_eq!(fixture.ask(&get("a")).await.status, 200);
        let seen = fixture.ask(&format!("GET / HTTP/1.1\r\nhost: h\r\nx-session-id: a\r\n{fields}\r\n")).await;
        assert_eq!(seen.status, 200, "{fields}");
        assert!(!seen.text().contains("herd-session"), "{}", seen.text());
    }
    let fixture = Fixture::start(|mut stream, _| async move {
        let mut seen = Vec::new();
        while !seen.ends_with(b"0\r\nother: 1\r\n\r\n") {
            let mut bytes = [0; 1024];
            let read = tokio::io::AsyncReadExt::read(&mut stream, &mut bytes).await.unwrap();
            assert_ne!(read, 0, "{}", String::from_utf8_lossy(&seen));
            seen.extend_from_slice(&bytes[..read]);
        }
        stream.write_all(response("fine").as_bytes()).await.unwrap();
    })
    .await;
    let head = "POST / HTTP/1.1\r\nhost: h\r\nx-session-id: a\r\ntransfer-encoding: chunked\r\n\r\n";
    let answer = fixture.ask(&format!("{head}1\r\nx\r\n0\r\nherd-session: end\r\nother: 1\r\n\r\n")).await;
    assert_eq!(answer.text(), "fine");
}

#[tokio::test]
async fn http2_clients_and_http2_workers_have_the_same_wishes() {
    let fixture = Fixture::start(say_id).await;
    assert_eq!(ask_http2(&fixture, "GET", "resume").await, (404, "no-such-session".into()));
    assert_eq!(ask_http2(&fixture, "DELETE", "end").await, (404, "no-such-session".into()));
    assert_eq!(ask_http2(&fixture, "GET", "x").await, (400, "bad-request".into()));
    assert_eq!(fixture.ask(&get("a")).await.status, 200);
    assert_eq!(ask_http2(&fixture, "GET", "resume").await, (200, "resumed".into()));
    assert_eq!(ask_http2(&fixture, "DELETE", "end").await, (204, "ended".into()));
    assert_eq!(fixture.pool.stats().workers, 0);

    let setup = Setup { protocol: Protocol::Http2, ..Setup::default() };
    let fixture = setup.start_unreachable().await;
    assert_eq!(fixture.ask(&ask("GET", "a", "resume")).await.status, 404);
    drop(fixture.pool.acquire(&id("a")).await.unwrap());
    assert_eq!(fixture.ask(&ask("DELETE", "a", "end")).await.status, 204);
}

#[tokio::test]
async fn where_sessions_are_only_looked_up_nobody_ends_them() {
    let options = GatewayOptions { sessions: Sessions::LookUpOnly, ..GatewayOptions::default() };
    let fixture = Setup::with(options).start(say_id).await;
    drop(fixture.pool.acquire(&id("a")).await.unwrap());
    let refused = fixture.ask(&ask("DELETE", "a", "end")).await;
    assert_eq!((refused.status, refused.field("herd-error")), (403, Some("forbidden-end")));
    let resumed = fixture.ask(&ask("GET", "a", "resume")).await;
    assert_eq!((resumed.status, resumed.text()), (200, "worker-1"));
    assert_eq!(fixture.ask(&ask("DELETE", "b", "end")).await.status, 403, "nor learns which there are");
}

/// Lets callers in by the name of their tenant; `pinned` is one of acme for the session `mine` alone.
struct Door(Tenant, Tenant);

impl Access for Door {
    fn admit(&self, headers: &HeaderMap, _: &Uri) -> Result<Admission, Refusal> {
        let caller = headers.get("x-caller").ok_or(Refusal::NoCredentials)?.to_str().unwrap();
        Ok(Admission {
            tenant: Some(if caller == "other" { self.1.clone() } else { self.0.clone() }),
            session: (caller == "pinned").then(|| id("mine")),
            ..Admission::default()
        })
    }
}

#[tokio::test]
async fn a_caller_ends_sessions_of_its_own_tenant_only() {
    let tenant = |name| Tenant::new(name, TenantLimits::default()).unwrap();
    let options =
        GatewayOptions { access: Some(Arc::new(Door(tenant("acme"), tenant("other")))), ..GatewayOptions::default() };
    let fixture = Setup::with(options).start(say_id).await;
    let by = |caller: &str, method: &str, session: &str, wish: &str| {
        format!("{method} / HTTP/1.1\r\nhost: h\r\nx-caller: {caller}\r\n{session}{wish}\r\n")
    };
    let (mine, end) = ("x-session-id: mine\r\n", "herd-session: end\r\n");
    assert_eq!(fixture.ask(&by("acme", "GET", mine, "")).await.status, 200);
    let answer: Answer = fixture.ask(&ask("DELETE", "mine", "end")).await;
    assert_eq!(answer.status, 401);
    // Whoever is not let in is told so, whatever else is wrong.
    assert_eq!(fixture.ask(&ask("DELETE", "mine", "nonsense")).await.status, 401);
    assert_eq!(fixture.ask(&by("other", "DELETE", mine, end)).await.status, 404);
    assert_eq!(fixture.ask(&by("pinned", "DELETE", "x-session-id: b\r\n", end)).await.status, 403);
    assert!(fixture.pool.session(&id("mine").of(&tenant("acme"))).is_some());
    assert_eq!(fixture.ask(&by("pinned", "DELETE", "", end)).await.status, 204);
    assert!(fixture.pool.session(&id("mine").of(&tenant("acme"))).is_none());
}

#[tokio::test]
async fn the_session_is_that_of_the_pool_to_which_the_request_goes() {
    let fixture = Fixture::start(say_id).await;
    let pools = ["a", "b"].map(|name| (name.into(), pool_that_says(name)));
    let by_path = |pool: &str| Rule { pool: pool.into(), path_prefix: Some(format!("/{pool}")), ..Rule::default() };
    let routes = Routes::new(pools.to_vec(), vec![by_path("a"), by_path("b")], None).unwrap();
    fixture.gateway.configure(routes, GatewayOptions::default());
    let ask = |method: &str, pool: &str, wish: &str| {
        format!("{method} /{pool} HTTP/1.1\r\nhost: h\r\nx-session-id: s\r\n{wish}\r\n")
    };
    assert_eq!(fixture.ask(&ask("GET", "a", "")).await.status, 200);
    assert_eq!(fixture.ask(&ask("GET", "b", "")).await.status, 200);
    let ended = fixture.ask(&ask("DELETE", "b", "herd-session: end\r\n")).await;
    assert_eq!((ended.status, ended.field("herd-pool")), (204, Some("b")));
    assert!(pools[0].1.session(&id("s")).is_some() && pools[1].1.session(&id("s")).is_none());
}

#[tokio::test]
async fn ends_are_counted_and_measured_in_a_phase_of_their_own() {
    let fixture = Fixture::start(say_id).await;
    assert_eq!(fixture.ask(&get("a")).await.status, 200);
    assert_eq!(fixture.ask(&ask("DELETE", "a", "end")).await.status, 204);
    assert_eq!(fixture.ask(&ask("DELETE", "a", "end")).await.status, 404);
    soon(async {
        while fixture.gateway.latencies()[0].request.count() < 3 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let latencies = fixture.gateway.latencies().remove(0);
    let phases: Vec<_> = latencies.phases.iter().map(|(name, latency)| (*name, latency.count())).collect();
    assert_eq!(phases, [("admit", 3), ("lease", 3), ("connect", 1), ("send", 1), ("relay", 3), ("end", 2)]);
    assert_eq!((latencies.responses_total, latencies.first_byte.count()), ([0, 2, 0, 1, 0], 1));
    let counted: Vec<_> = fixture.gateway.stats().failures_total().filter(|(_, count)| *count > 0).collect();
    assert_eq!(counted, [("no-such-session", 1)]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn whatever_the_field_says_a_live_session_is_ended_by_nothing_but_end(
        method in prop::sample::select(vec!["GET", "POST", "DELETE", "PUT", "OPTIONS"]),
        value in prop_oneof![Just("end".to_owned()), Just("resume".to_owned()), "[a-z ,;=]{0,8}", "(END|End|end[!-~]|[!-~]end)"],
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (status, lives) = runtime.block_on(async {
            let fixture = Fixture::start(say_id).await;
            drop(fixture.pool.acquire(&id("a")).await.unwrap());
            let request = format!(
                "{method} / HTTP/1.1\r\nhost: h\r\nx-session-id: a\r\ncontent-length: 0\r\nherd-session: {value}\r\n\r\n"
            );
            let answer = fixture.ask(&request).await;
            (answer.status, fixture.pool.session(&id("a")).is_some())
        });
        // Spaces around a value are no part of it (RFC 9110 §5.5).
        let expected = match (value.trim(), method) {
            ("end", "DELETE") => (204, false),
            ("resume", _) => (200, true),
            _ => (400, true),
        };
        prop_assert_eq!((status, lives), expected);
    }
}
