//! Which worker a request reaches, what the worker sees of it, and what the client sees of the response.

mod fakes;

use fakes::{Fixture, Setup, echo_heads, say_id};
use herd_gateway::{Forwarded, GatewayOptions, MetricsPage, Sessions};

fn keyed(key: &str) -> Setup {
    Setup::with(GatewayOptions { session_key: key.parse().unwrap(), ..GatewayOptions::default() })
}

fn get(session: &str) -> String {
    format!("GET / HTTP/1.1\r\nhost: herd\r\nx-session-id: {session}\r\n\r\n")
}

#[tokio::test]
async fn each_session_keeps_its_worker_and_is_told_whether_it_is_new() {
    let fixture = Fixture::start(say_id).await;
    let first = fixture.ask(&get("alice")).await;
    assert_eq!(first.status, 200);
    assert_eq!(first.field("herd-session"), Some("new"));
    assert_eq!(first.field("herd-worker"), Some(first.text()));
    let other = fixture.ask(&get("bob")).await;
    assert_eq!(other.field("herd-session"), Some("new"));
    assert_ne!(other.text(), first.text());
    let again = fixture.ask(&get("alice")).await;
    assert_eq!(again.field("herd-session"), Some("resumed"));
    assert_eq!(again.text(), first.text());
}

#[tokio::test]
async fn a_kept_connection_serves_requests_of_different_sessions() {
    let fixture = Fixture::start(say_id).await;
    let mut client = fixture.connect().await;
    let mut workers = Vec::new();
    for session in ["alice", "bob", "alice", "bob"] {
        client.send(get(session)).await;
        workers.push(client.answer().await.text().to_owned());
    }
    assert_eq!(workers[0], workers[2]);
    assert_eq!(workers[1], workers[3]);
    assert_ne!(workers[0], workers[1]);
    assert_eq!(fixture.gateway.stats().upstream_connections_total, 2);
}

#[tokio::test]
async fn every_key_finds_the_session_and_the_worker_gets_it_in_one_field() {
    for (key, request) in [
        ("header:X-Tenant", "GET / HTTP/1.1\r\nhost: herd\r\nx-tenant: alice\r\n\r\n"),
        ("cookie:sid", "GET / HTTP/1.1\r\nhost: herd\r\ncookie: a=b; sid=alice; c=d\r\n\r\n"),
        ("query:session", "GET /x?a=b&session=al%69ce HTTP/1.1\r\nhost: herd\r\n\r\n"),
        ("path:1", "GET /alice/x HTTP/1.1\r\nhost: herd\r\n\r\n"),
        ("host", "GET / HTTP/1.1\r\nhost: Alice.example.com:8080\r\n\r\n"),
        ("cookie:sid,header:x-tenant", "GET / HTTP/1.1\r\nhost: herd\r\nx-tenant: alice\r\n\r\n"),
        // What the client itself says in the field counts for nothing, unless it is the key.
        ("query:s", "GET /?s=alice HTTP/1.1\r\nhost: herd\r\nx-session-id: mallory\r\n\r\n"),
        ("header:x-session-id", "GET / HTTP/1.1\r\nhost: h\r\nconnection: x-session-id\r\nx-session-id: alice\r\n\r\n"),
    ] {
        let fixture = keyed(key).start(echo_heads).await;
        let seen = fixture.ask(request).await;
        assert_eq!(seen.status, 200, "{key}");
        let lines: Vec<_> = seen.text().lines().filter(|line| line.starts_with("x-session-id")).collect();
        assert_eq!(lines, ["x-session-id: alice"], "{key}");
    }
}

#[tokio::test]
async fn the_segment_that_names_the_session_is_taken_out_of_the_path() {
    for (key, target, seen) in [
        ("path:1", "/alice", "/"),
        ("path:1", "/alice/", "/"),
        ("path:1", "/alice?x=1", "/?x=1"),
        ("path:1", "/alice/a/b?x=1", "/a/b?x=1"),
        ("path:1", "/al%69ce/a%2fb", "/a%2fb"),
        ("path:2", "/api/alice/a", "/api/a"),
        ("path:2", "/api/alice", "/api"),
    ] {
        let fixture = keyed(key).start(echo_heads).await;
        let answer = fixture.ask(&format!("GET {target} HTTP/1.1\r\nhost: herd\r\n\r\n")).await;
        let line = answer.text().lines().next().unwrap();
        assert_eq!(line, format!("GET {seen} HTTP/1.1"), "{key} {target}");
    }
}

#[tokio::test]
async fn a_client_without_a_cookie_gets_a_new_session_in_one() {
    let fixture = keyed("cookie:sid").start(echo_heads).await;
    let answer = fixture.ask("GET / HTTP/1.1\r\nhost: herd\r\n\r\n").await;
    let cookie = answer.field("set-cookie").expect("a cookie is set");
    let (id, attributes) = cookie.strip_prefix("sid=").unwrap().split_once("; ").unwrap();
    assert_eq!(id.len(), 32);
    assert!(id.bytes().all(|byte| byte.is_ascii_hexdigit()));
    assert_eq!(attributes, "Path=/; HttpOnly; SameSite=Lax");
    assert!(answer.text().contains(&format!("x-session-id: {id}\r\n")));
    let again = fixture.ask(&format!("GET / HTTP/1.1\r\nhost: herd\r\ncookie: sid={id}\r\n\r\n")).await;
    assert_eq!(again.field("herd-session"), Some("resumed"));
    assert_eq!(again.field("set-cookie"), None);
    let other = fixture.ask("GET / HTTP/1.1\r\nhost: herd\r\n\r\n").await;
    assert_ne!(other.field("set-cookie"), answer.field("set-cookie"));
}

#[tokio::test]
async fn a_request_without_a_usable_session_is_refused_with_the_reason() {
    for (key, request, error, detail) in [
        (
            "header:x-session-id",
            "GET / HTTP/1.1\r\nhost: h\r\n\r\n",
            "no-session-id",
            "names no session; it has to, in ",
        ),
        ("header:x-session-id", "GET / HTTP/1.1\r\nhost: h\r\nx-session-id: a b\r\n\r\n", "invalid-session-id", "0x20"),
        ("header:x-session-id", "GET / HTTP/1.1\r\nhost: h\r\nx-session-id:\r\n\r\n", "invalid-session-id", "empty"),
        (
            "header:x-session-id",
            "GET / HTTP/1.1\r\nhost: h\r\nx-session-id: a\r\nx-session-id: b\r\n\r\n",
            "invalid-session-id",
            "two different sessions",
        ),
        ("query:s", "GET /?s=a&s=b HTTP/1.1\r\nhost: h\r\n\r\n", "invalid-session-id", "two different"),
        ("query:s", "GET /?s=%zz HTTP/1.1\r\nhost: h\r\n\r\n", "invalid-session-id", "hexadecimal"),
        ("query:s", "GET /?s=%0a HTTP/1.1\r\nhost: h\r\n\r\n", "invalid-session-id", "0x0a"),
        ("cookie:s", "GET / HTTP/1.1\r\nhost: h\r\ncookie: s=a; s=b\r\n\r\n", "invalid-session-id", "two different"),
        ("path:1", "GET / HTTP/1.1\r\nhost: h\r\n\r\n", "no-session-id", "names no session; it has to, in "),
        ("path:1", "GET /../x HTTP/1.1\r\nhost: h\r\n\r\n", "no-session-id", "names no session; it has to, in "),
        ("host", "GET / HTTP/1.1\r\nhost: 127.0.0.1:80\r\n\r\n", "no-session-id", "names no session; it has to, in "),
        ("host", "GET / HTTP/1.1\r\nhost: localhost\r\n\r\n", "no-session-id", "names no session; it has to, in "),
    ] {
        let fixture = keyed(key).start(echo_heads).await;
        let answer = fixture.ask(request).await;
        assert_eq!(answer.status, 400, "{key} {request}");
        assert_eq!(answer.field("herd-error"), Some(error), "{key} {request}");
        assert_eq!(answer.problem("type"), format!("urn:herd:problem:{error}"));
        assert!(answer.problem("detail").as_str().unwrap().contains(detail), "{}", answer.text());
        assert_eq!(fixture.pool.stats().sessions, 0);
    }
}

#[tokio::test]
async fn a_session_id_of_257_bytes_is_refused_and_one_of_256_is_not() {
    let fixture = Fixture::start(say_id).await;
    assert_eq!(fixture.ask(&get(&"a".repeat(256))).await.status, 200);
    assert_eq!(fixture.ask(&get(&"a".repeat(257))).await.status, 400);
}

#[tokio::test]
async fn the_gateways_own_pages_answer_where_no_session_is_named() {
    let metrics = MetricsPage { path: "/metrics".into(), render: std::sync::Arc::new(|| "herd_up 1\n".into()) };
    for key in ["header:x-session-id", "cookie:sid", "path:1", "host"] {
        let options = GatewayOptions {
            session_key: key.parse().unwrap(),
            metrics: Some(metrics.clone()),
            ..GatewayOptions::default()
        };
        let fixture = Setup::with(options).start(say_id).await;
        let health = fixture.ask("GET /healthz HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n").await;
        assert_eq!((health.status, health.text()), (200, "ok"), "{key}");
        let page = fixture.ask("GET /metrics HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n").await;
        assert_eq!((page.status, page.text()), (200, "herd_up 1\n"), "{key}");
        assert_eq!(fixture.pool.stats().sessions, 0, "{key}");
    }
    let fixture = Fixture::start(say_id).await;
    let of_session = fixture.ask("GET /healthz HTTP/1.1\r\nhost: h\r\nx-session-id: alice\r\n\r\n").await;
    assert_eq!(of_session.text(), "worker-1", "with a session, the path belongs to the worker");
    let no_page = fixture.ask("POST /healthz HTTP/1.1\r\nhost: h\r\n\r\n").await;
    assert_eq!(no_page.status, 400);
}

#[tokio::test]
async fn fields_of_one_connection_do_not_pass_and_the_client_is_named() {
    let fixture = Fixture::start(echo_heads).await;
    let seen = fixture
        .ask(
            "GET /p?q HTTP/1.1\r\nhost: example.com:81\r\nx-session-id: a\r\nconnection: keep-alive, X-Secret, host\r\n\
             x-secret: 1\r\nkeep-alive: timeout=9\r\nproxy-connection: x\r\nte: gzip\r\nupgrade: h2c\r\n\
             http2-settings: AAMAAABkAAQAAP__\r\nx-forwarded-for: 6.6.6.6\r\nx-forwarded-host: evil\r\n\
             x-forwarded-proto: https\r\nx-other: stays\r\n\r\n",
        )
        .await;
    let mut lines: Vec<_> = seen.text().lines().filter(|line| !line.is_empty()).collect();
    lines.sort_unstable();
    assert_eq!(
        lines,
        [
            "GET /p?q HTTP/1.1",
            "host: example.com:81",
            "x-forwarded-for: 127.0.0.1",
            "x-forwarded-host: example.com:81",
            "x-forwarded-proto: http",
            "x-other: stays",
            "x-session-id: a",
        ]
    );
}

#[tokio::test]
async fn a_trusted_proxy_is_believed_about_the_client() {
    let options = GatewayOptions { forwarded: Forwarded::Append, ..GatewayOptions::default() };
    let fixture = Setup::with(options).start(echo_heads).await;
    let seen = fixture
        .ask(
            "GET / HTTP/1.1\r\nhost: inner\r\nx-session-id: a\r\nx-forwarded-for: 10.0.0.1\r\nx-forwarded-for: 10.0.0.2\
             \r\nx-forwarded-host: outer\r\nx-forwarded-proto: https\r\n\r\n",
        )
        .await;
    assert!(seen.text().contains("x-forwarded-for: 10.0.0.1, 10.0.0.2, 127.0.0.1\r\n"), "{}", seen.text());
    assert!(seen.text().contains("x-forwarded-host: outer\r\n"));
    assert!(seen.text().contains("x-forwarded-proto: https\r\n"));
}

#[tokio::test]
async fn the_authority_of_an_absolute_target_counts_and_http_1_0_gets_a_host() {
    let fixture = Fixture::start(echo_heads).await;
    let absolute = "GET http://real:80/p HTTP/1.1\r\nhost: fake\r\nx-session-id: a\r\n\r\n";
    let seen = fixture.ask(absolute).await;
    assert!(seen.text().starts_with("GET /p HTTP/1.1\r\n"), "{}", seen.text());
    assert!(seen.text().contains("host: real:80\r\n"));
    assert!(!seen.text().contains("fake"));
    let mut old = fixture.connect().await;
    old.send("GET / HTTP/1.0\r\nx-session-id: a\r\n\r\n").await;
    let seen = old.answer().await;
    assert!(seen.head.starts_with("HTTP/1.0 200"), "{}", seen.head);
    assert!(seen.text().contains("GET / HTTP/1.1\r\n"));
    assert!(seen.text().contains("host: "));
    assert!(old.is_closed().await);
}

#[tokio::test]
async fn what_only_the_gateway_says_is_removed_from_a_workers_response() {
    use tokio::io::AsyncWriteExt;
    let fixture = Fixture::start(|mut stream, _| async move {
        while fakes::request_head(&mut stream).await.is_some() {
            let head = "HTTP/1.1 201 Made\r\nherd-worker: worker-99\r\nherd-session: resumed\r\nherd-x: y\r\n\
                        connection: x-hop\r\nx-hop: 1\r\nkeep-alive: timeout=5\r\nproxy-connection: x\r\nx-own: kept\r\n\
                        content-length: 2\r\n\r\nhi";
            stream.write_all(head.as_bytes()).await.unwrap();
        }
    })
    .await;
    let answer = fixture.ask(&get("a")).await;
    assert_eq!(answer.status, 201);
    assert_eq!(answer.fields("herd-worker"), ["worker-1"]);
    assert_eq!(answer.fields("herd-session"), ["new"]);
    for name in ["herd-x", "connection", "x-hop", "keep-alive", "proxy-connection"] {
        assert_eq!(answer.field(name), None, "{name}");
    }
    assert_eq!(answer.field("x-own"), Some("kept"));
}

#[tokio::test]
async fn look_up_only_answers_404_for_a_session_that_was_not_started() {
    let options = GatewayOptions { sessions: Sessions::LookUpOnly, ..GatewayOptions::default() };
    let fixture = Setup::with(options).start(say_id).await;
    let answer = fixture.ask(&get("alice")).await;
    assert_eq!(answer.status, 404);
    assert_eq!(answer.field("herd-error"), Some("no-such-session"));
    assert_eq!(answer.problem("session"), "alice");
    drop(fixture.pool.acquire(&"alice".parse().unwrap()).await.unwrap());
    let answer = fixture.ask(&get("alice")).await;
    assert_eq!((answer.status, answer.text()), (200, "worker-1"));
}

#[tokio::test]
async fn five_hundred_requests_at_once_for_a_new_session_share_one_worker() {
    let fixture = Fixture::start(say_id).await;
    let asked = (0..500).map(|_| async { fixture.ask(&get("alice")).await });
    let answers = futures_util::future::join_all(asked).await;
    assert!(answers.iter().all(|answer| answer.status == 200 && answer.text() == "worker-1"));
    assert!(answers.iter().any(|answer| answer.field("herd-session") == Some("new")));
    assert_eq!(fixture.gateway.stats().responses_total[1], 500);
}
