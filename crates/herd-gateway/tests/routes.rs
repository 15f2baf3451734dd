//! Which pool a request goes to, and what that changes of it.

mod fakes;

use fakes::{Answer, Fixture, Setup, echo_heads, pool_of, pool_that_says};
use herd_gateway::{GatewayOptions, Routes, Rule};
use http_body_util::{BodyExt, Empty};
use hyper::{Request, body::Bytes};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;

fn rule(pool: &str) -> Rule {
    Rule { pool: pool.into(), ..Rule::default() }
}

/// A gateway in front of the pools `web` (by default), `api` and `big`, whose workers say where they belong.
async fn three_pools() -> Fixture {
    let fixture = Fixture::start(echo_heads).await;
    let pools = ["web", "api", "big"].map(|name| (name.into(), pool_that_says(name)));
    let rules = vec![
        Rule { header: Some(("x-size".into(), Some("big".into()))), ..rule("big") },
        Rule { host: Some("*.api.example.com".into()), ..rule("api") },
        Rule { path_prefix: Some("/api".into()), ..rule("api") },
    ];
    let routes = Routes::new(pools.into(), rules, Some("web".into())).unwrap();
    fixture.gateway.configure(routes, GatewayOptions::default());
    fixture
}

async fn ask(fixture: &Fixture, target: &str, host: &str, fields: &str) -> Answer {
    fixture.ask(&format!("GET {target} HTTP/1.1\r\nhost: {host}\r\nx-session-id: a\r\n{fields}\r\n")).await
}

fn pool_in(answer: &Answer) -> &str {
    let pool = answer.field("herd-pool").expect("it names the pool");
    assert_eq!(answer.text().split(' ').next(), Some(pool));
    pool
}

#[tokio::test]
async fn requests_go_by_host_path_and_field_to_their_pool() {
    let fixture = three_pools().await;
    for (target, host, fields, pool) in [
        ("/", "h", "", "web"),
        ("/x?/api", "h", "", "web"),
        ("/apis", "h", "", "web"),
        ("/api", "h", "", "api"),
        ("/%61pi/x", "h", "", "api"),
        ("/", "a.API.example.com:80", "", "api"),
        ("/", "api.example.com", "", "web"),
        ("/api", "h", "x-size: big\r\n", "big"),
        ("/api", "h", "x-size: bigger\r\n", "api"),
        ("http://a.api.example.com/", "h", "", "api"),
        ("http://h/api", "a.api.example.com", "", "api"),
    ] {
        assert_eq!(pool_in(&ask(&fixture, target, host, fields).await), pool, "{target} {host} {fields}");
    }
}

#[tokio::test]
async fn http2_requests_go_by_their_authority() {
    let fixture = three_pools().await;
    let stream = TcpStream::connect(fixture.address).await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    for (uri, pool) in [("http://a.api.example.com/", "api"), ("http://h/", "web"), ("http://h/api/x", "api")] {
        let request = Request::get(uri).header("x-session-id", "a").body(Empty::<Bytes>::new()).unwrap();
        let response = fakes::soon(sender.send_request(request)).await.unwrap();
        assert_eq!(response.headers()["herd-pool"], pool, "{uri}");
        let body = response.into_body().collect().await.unwrap().to_bytes();
        assert!(body.starts_with(pool.as_bytes()));
    }
}

#[tokio::test]
async fn a_session_id_names_another_session_in_each_pool_also_if_worker_ids_are_the_same() {
    let fixture = three_pools().await;
    // Both workers are the first of their pool, and the connections to them are kept.
    for _ in 0..3 {
        for (target, said) in [("/", "web worker-1"), ("/api", "api worker-1")] {
            assert_eq!(ask(&fixture, target, "h", "").await.text(), said);
        }
    }
    // Both of one thread; no connection went to the wrong worker, and none was thrown away.
    assert_eq!(fixture.gateway.stats().upstream_connections_total, 2);
}

#[tokio::test]
async fn a_request_that_fits_nothing_is_answered_with_404() {
    let fixture = Fixture::start(echo_heads).await;
    let rules = vec![Rule { host: Some("h".into()), ..rule("a") }];
    let routes = Routes::new(vec![("a".into(), pool_that_says("a"))], rules, None).unwrap();
    fixture.gateway.configure(routes, GatewayOptions::default());
    let lost = ask(&fixture, "/", "other", "").await;
    assert_eq!((lost.status, lost.field("herd-error")), (404, Some("no-route")));
    assert_eq!(lost.problem("type"), "urn:herd:problem:no-route");
    let found = ask(&fixture, "/", "h", "").await;
    // There is only one pool, so there is nothing to tell.
    assert_eq!((found.status, found.field("herd-pool")), (200, None));
    // Health is asked of the gateway, wherever its pools are.
    assert_eq!(fixture.ask("GET /healthz HTTP/1.1\r\nhost: other\r\n\r\n").await.text(), "ok");
}

#[tokio::test]
async fn a_failure_names_the_pool_too_and_a_worker_cannot() {
    let fixture = Fixture::start(echo_heads).await;
    let pools = vec![("web".into(), pool_that_says("web")), ("gone".into(), pool_that_says("gone"))];
    pools[1].1.shutdown().await;
    let liar = pool_of(|mut stream, _| async move {
        use tokio::io::AsyncWriteExt;
        while fakes::request_head(&mut stream).await.is_some() {
            let head = "HTTP/1.1 200 OK\r\nherd-pool: web\r\ncontent-length: 0\r\n\r\n";
            stream.write_all(head.as_bytes()).await.unwrap();
        }
    });
    let pools = [pools, vec![("liar".into(), liar)]].concat();
    let by_path = |pool: &str| Rule { path_prefix: Some(format!("/{pool}")), ..rule(pool) };
    let routes = Routes::new(pools, vec![by_path("gone"), by_path("liar")], None).unwrap();
    fixture.gateway.configure(routes, GatewayOptions::default());
    let failed = ask(&fixture, "/gone", "h", "").await;
    assert_eq!((failed.status, failed.fields("herd-pool")), (503, vec!["gone"]));
    assert_eq!(ask(&fixture, "/liar", "h", "").await.fields("herd-pool"), ["liar"]);
}

#[tokio::test]
async fn a_stripped_prefix_is_not_seen_by_the_worker_and_not_counted_by_the_key() {
    for (key, prefix, target, seen, session) in [
        ("header:x-session-id", "/api", "/api", "/", "a"),
        ("header:x-session-id", "/api", "/api?x=1", "/?x=1", "a"),
        ("header:x-session-id", "/api", "/a%70i/x%2fy?z", "/x%2fy?z", "a"),
        ("header:x-session-id", "/api", "http://h/api/x", "/x", "a"),
        ("path:1", "/api/v1", "/api/v1/bob/x?y", "/x?y", "bob"),
        ("path:2", "/api", "/api/v1/bob/x", "/v1/x", "bob"),
        ("path:1", "/", "/bob/x", "/x", "bob"),
    ] {
        let fixture = Fixture::start(echo_heads).await;
        let rules = vec![Rule { path_prefix: Some(prefix.into()), strip_prefix: true, ..rule("a") }];
        let routes = Routes::new(vec![("a".into(), fixture.pool.clone())], rules, None).unwrap();
        let options = GatewayOptions { session_key: key.parse().unwrap(), ..GatewayOptions::default() };
        fixture.gateway.configure(routes, options);
        let answer = ask(&fixture, target, "h", "").await;
        assert_eq!(answer.status, 200, "{key} {target}");
        assert!(answer.text().starts_with(&format!("GET {seen} HTTP/1.1\r\n")), "{key} {target}: {}", answer.text());
        assert!(answer.text().contains(&format!("x-session-id: {session}\r\n")), "{key} {target}");
    }
}

#[tokio::test]
async fn a_prefix_is_seen_by_the_worker_and_counted_by_the_key_unless_it_is_stripped() {
    let fixture = Fixture::start(echo_heads).await;
    let rules = vec![Rule { path_prefix: Some("/api".into()), ..rule("a") }];
    let routes = Routes::new(vec![("a".into(), fixture.pool.clone())], rules, None).unwrap();
    let options = GatewayOptions { session_key: "path:2".parse().unwrap(), ..GatewayOptions::default() };
    fixture.gateway.configure(routes, options);
    let answer = fixture.ask("GET /api/bob/x HTTP/1.1\r\nhost: h\r\n\r\n").await;
    assert!(answer.text().starts_with("GET /api/x HTTP/1.1\r\n"), "{}", answer.text());
}

#[tokio::test]
async fn a_path_that_could_be_meant_for_another_pool_reaches_none() {
    let fixture = three_pools().await;
    for target in ["//api", "/x/../api", "/api/../x", "/api%2f..", "/api;x", "/%2e%2e/api", "/x\\..\\api", "/api%5cx"] {
        let refused = ask(&fixture, target, "h", "").await;
        assert_eq!((refused.status, refused.field("herd-error")), (400, Some("bad-request")), "{target}");
    }
    for host in ["h,a.api.example.com", "h a.api.example.com", "u@a.api.example.com", "h/a.api.example.com"] {
        assert_eq!(ask(&fixture, "/", host, "").await.status, 400, "{host}");
    }
    assert_eq!(ask(&fixture, "/", "h", "host: a.api.example.com\r\n").await.status, 400);
    // Where no path decides, no path is judged.
    let fixture = Setup::default().start(echo_heads).await;
    for target in ["//api", "/x/../api", "/api;x"] {
        assert!(ask(&fixture, target, "h", "").await.text().starts_with(&format!("GET {target} HTTP/1.1\r\n")));
    }
}
