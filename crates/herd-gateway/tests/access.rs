//! Who may use the gateway, whose sessions they reach, and that nobody else ever sees what they showed.

mod fakes;

use std::{sync::Arc, time::Duration};

use fakes::{Answer, Fixture, Setup, echo_heads, request_head, say_id, soon};
use herd_gateway::{Access, Admission, Credential, GatewayOptions, MetricsPage, Refusal};
use herd_pool::{Protocol, SessionId, Tenant, TenantLimits};
use http_body_util::{BodyExt, Empty};
use hyper::{HeaderMap, Request, Uri, body::Bytes, header::AUTHORIZATION};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{io::AsyncWriteExt, net::TcpStream};

/// Believes `Bearer TENANT-secret`, or `?key=TENANT-secret`; `pinned-secret` is only for the session `mine`.
struct Door {
    acme: Tenant,
    other: Tenant,
}

impl Door {
    fn new(limits: TenantLimits) -> Arc<Self> {
        let tenant = |name| Tenant::new(name, limits).unwrap();
        Arc::new(Self { acme: tenant("acme"), other: tenant("other") })
    }
}

impl Access for Door {
    fn query_parameter(&self) -> Option<&str> {
        Some("key")
    }

    fn admit(&self, headers: &HeaderMap, uri: &Uri) -> Result<Admission, Refusal> {
        let in_header = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
        let in_query = uri.query().and_then(|query| query.split('&').find_map(|pair| pair.strip_prefix("key=")));
        let (secret, credential) = match (in_header, in_query) {
            (Some(secret), _) => (secret, Credential::Authorization),
            (None, Some(secret)) => (secret, Credential::Query("key".into())),
            (None, None) => return Err(Refusal::NoCredentials),
        };
        let of = |tenant: &Tenant| Admission {
            tenant: Some(tenant.clone()),
            credential: credential.clone(),
            ..Admission::default()
        };
        match secret {
            "acme-secret" => Ok(of(&self.acme)),
            "other-secret" => Ok(of(&self.other)),
            "pinned-secret" => Ok(Admission { session: Some(SessionId::new("mine").unwrap()), ..of(&self.acme) }),
            "nobodys-secret" => Ok(Admission { credential, ..Admission::default() }),
            "old-secret" => Err(Refusal::Expired),
            "busy-secret" => Err(Refusal::TooManyRequests { retry_after: Duration::from_millis(2100), caller: None }),
            _ => Err(Refusal::Invalid("nobody has \"this\" token\u{e9}")),
        }
    }
}

fn guarded(key: &str) -> Setup {
    Setup::with(GatewayOptions {
        access: Some(Door::new(TenantLimits::default())),
        session_key: key.parse().unwrap(),
        metrics: Some(MetricsPage { path: "/metrics".into(), render: Arc::new(|| "herd_up 1\n".into()) }),
        ..GatewayOptions::default()
    })
}

fn by(secret: &str, session: &str) -> String {
    format!("GET / HTTP/1.1\r\nhost: h\r\nauthorization: Bearer {secret}\r\nx-session-id: {session}\r\n\r\n")
}

#[tokio::test]
async fn the_same_id_of_two_tenants_and_of_nobody_is_three_sessions() {
    let fixture = guarded("header:x-session-id").start(say_id).await;
    let mut workers = Vec::new();
    for secret in ["acme-secret", "other-secret", "nobodys-secret"] {
        let first = fixture.ask(&by(secret, "alice")).await;
        assert_eq!((first.status, first.field("herd-session")), (200, Some("new")), "{secret}");
        let again = fixture.ask(&by(secret, "alice")).await;
        assert_eq!((again.text(), again.field("herd-session")), (first.text(), Some("resumed")), "{secret}");
        workers.push(first.text().to_owned());
    }
    assert_eq!(workers, ["worker-1", "worker-2", "worker-3"]);
    let alice = SessionId::new("alice").unwrap();
    let acme = Tenant::new("acme", TenantLimits::default()).unwrap();
    assert!(fixture.pool.session(&alice.clone().of(&acme)).is_some());
    assert!(fixture.pool.session(&alice).is_some());
}

#[tokio::test]
async fn a_refused_caller_starts_nothing_and_is_told_what_to_show() {
    let fixture = guarded("header:x-session-id").start(say_id).await;
    // One connection serves them all: a refusal does not spoil it.
    let mut client = fixture.connect().await;
    let bearer = "Bearer realm=\"herd\"";
    let invalid = "Bearer realm=\"herd\", error=\"invalid_token\", error_description=\"the credentials are not \
                   accepted: nobody has this token\"";
    let expired = "Bearer realm=\"herd\", error=\"invalid_token\", error_description=\"the credentials have expired\"";
    for (secret, status, error, challenge, retry_after) in [
        (None, 401, "unauthorized", Some(bearer), None),
        (Some("wrong-secret"), 401, "unauthorized", Some(invalid), None),
        (Some("old-secret"), 401, "unauthorized", Some(expired), None),
        (Some("busy-secret"), 429, "too-many-requests", None, Some("3")),
    ] {
        let authorization = secret.map_or(String::new(), |secret| format!("authorization: Bearer {secret}\r\n"));
        // A body that comes along is read away.
        let request =
            format!("POST / HTTP/1.1\r\nhost: h\r\n{authorization}x-session-id: a\r\ncontent-length: 4\r\n\r\nbody");
        client.send(request).await;
        let answer = client.answer().await;
        assert_eq!((answer.status, answer.field("herd-error")), (status, Some(error)), "{secret:?}");
        assert_eq!(answer.problem("type"), format!("urn:herd:problem:{error}"));
        assert_eq!(answer.field("www-authenticate"), challenge, "{secret:?}");
        assert_eq!(answer.field("retry-after"), retry_after, "{secret:?}");
        assert_eq!((answer.field("connection"), answer.field("herd-worker")), (None, None));
        for text in [answer.head.as_str(), answer.text()] {
            assert!(!text.contains("-secret"), "{text}");
        }
    }
    let stats = fixture.pool.stats();
    assert_eq!((stats.workers, stats.sessions, stats.acquire_requests), (0, 0, 0));
    let counted: Vec<_> = fixture.gateway.stats().failures_total().filter(|(_, count)| *count > 0).collect();
    assert_eq!(counted, [("unauthorized", 3), ("too-many-requests", 1)]);
    client.send(by("acme-secret", "a")).await;
    assert_eq!(client.answer().await.status, 200);
}

#[tokio::test]
async fn a_refused_upgrade_and_a_refused_http2_stream_start_nothing() {
    let fixture = guarded("header:x-session-id").start(say_id).await;
    let upgrade = "GET / HTTP/1.1\r\nhost: h\r\nx-session-id: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";
    assert_eq!(fixture.ask(upgrade).await.status, 401);
    let refused = ask_http2(&fixture, "/", None).await;
    assert_eq!(refused.status, 401);
    assert!(refused.head.contains("unauthorized"), "{}", refused.head);
    assert_eq!(fixture.pool.stats().acquire_requests, 0);
}

/// Asks in HTTP/2, and shows the response as if it had come in HTTP/1.1.
async fn ask_http2(fixture: &Fixture, path: &str, secret: Option<&str>) -> Answer {
    let stream = TcpStream::connect(fixture.address).await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let mut request = Request::get(format!("http://h{path}")).header("x-session-id", "a");
    request = request.header("referer", "https://h/page?key=acme-secret");
    if let Some(secret) = secret {
        request = request.header("authorization", format!("Bearer {secret}"));
    }
    let response = soon(sender.send_request(request.body(Empty::<Bytes>::new()).unwrap())).await.unwrap();
    let (status, head) = (response.status().as_u16(), format!("{:?}", response.headers()));
    let body = soon(response.into_body().collect()).await.unwrap().to_bytes().to_vec();
    Answer { status, head, body }
}

#[tokio::test]
async fn the_worker_never_sees_the_credential() {
    let fixture = guarded("header:x-session-id").start(echo_heads).await;
    let of =
        |target: &str, fields: &str| format!("GET {target} HTTP/1.1\r\nhost: h\r\nx-session-id: a\r\n{fields}\r\n");
    let two = "authorization: Bearer acme-secret\r\nauthorization: Bearer other-secret\r\n";
    for (target, fields, line) in [
        ("/p?q", "authorization: Bearer acme-secret\r\n", "/p?q"),
        ("/p", two, "/p"),
        ("/p?key=acme-secret", "", "/p"),
        ("/p?a=1&key=acme-secret&b=2", "", "/p?a=1&b=2"),
        ("/p?key=acme-secret&%6b%65y=acme-secret&keys=1&key", "", "/p?keys=1"),
        ("http://h?key=acme-secret", "", "/"),
        ("http://h/p?key=acme-secret&b=%zz", "", "/p?b=%zz"),
        ("/p?key=acme-secret", "referer: https://h/?key=acme-secret\r\n", "/p"),
        ("/p", "authorization: Bearer acme-secret\r\nreferer: https://h/?key=acme-secret\r\n", "/p"),
    ] {
        let seen = fixture.ask(&of(target, fields)).await;
        assert_eq!(seen.status, 200, "{target}");
        assert!(seen.text().starts_with(&format!("GET {line} HTTP/1.1\r\n")), "{target}: {}", seen.text());
        assert!(!seen.text().contains("secret") && !seen.text().contains("authorization"), "{}", seen.text());
    }
    for (path, secret, line) in [("/p?q", Some("acme-secret"), "/p?q"), ("/p?key=acme-secret&q", None, "/p?q")] {
        let seen = ask_http2(&fixture, path, secret).await;
        assert_eq!(seen.status, 200, "{path}");
        assert!(seen.text().starts_with(&format!("GET {line} HTTP/1.1\r\n")), "{path}: {}", seen.text());
        assert!(!seen.text().contains("secret") && !seen.text().contains("authorization"), "{}", seen.text());
    }
}

#[tokio::test]
async fn the_address_of_a_page_reaches_the_worker_without_the_credential() {
    let fixture = guarded("header:x-session-id").start(echo_heads).await;
    let referers: [(&[u8], &str); 9] = [
        (b"https://h/p?key=acme-secret", "https://h/p"),
        (b"https://h/p?a=1&%6b%65y=acme-secret&b=2&key=other-secret", "https://h/p?a=1&b=2"),
        (b"/p?keys=1&key=acme-secret", "/p?keys=1"),
        (b"?key=acme-secret", ""),
        (b"https://h/p?a=1#key=acme-secret", "https://h/p?a=1"),
        (b"https://h/p?a=%zz&key=acme-secret#x", "https://h/p?a=%zz"),
        (b"https://h/p?keys=1&a", "https://h/p?keys=1&a"),
        (b"https://h/p", "https://h/p"),
        (b"https://h/\xff?key=acme-secret", "none"),
    ];
    for (referer, left) in referers {
        let shown = String::from_utf8_lossy(referer);
        for credential in ["/?key=acme-secret HTTP/1.1\r\n", "/ HTTP/1.1\r\nauthorization: Bearer acme-secret\r\n"] {
            let mut request = format!("GET {credential}host: h\r\nx-session-id: a\r\nreferer: ").into_bytes();
            request.extend_from_slice(referer);
            request.extend_from_slice(b"\r\n\r\n");
            let mut client = fixture.connect().await;
            client.send(request).await;
            let seen = client.answer().await;
            assert_eq!(seen.status, 200, "{shown}");
            let field = seen.text().lines().find_map(|line| line.strip_prefix("referer:"));
            assert_eq!(field.map_or("none", str::trim), left, "{shown}: {}", seen.text());
            assert!(!seen.text().contains("secret"), "{shown}: {}", seen.text());
        }
    }
    let two = "referer: /a?key=acme-secret\r\nreferer: /b?key=other-secret&c\r\n";
    let seen = fixture.ask(&format!("GET /?key=acme-secret HTTP/1.1\r\nhost: h\r\nx-session-id: a\r\n{two}\r\n")).await;
    assert!(seen.text().contains("/b?c\r\n") && !seen.text().contains("secret"), "{}", seen.text());
}

#[tokio::test]
async fn the_worker_never_sees_the_credential_of_an_upgrade_or_in_http2() {
    let mut fixture = guarded("header:x-session-id")
        .start(|mut stream, life| async move {
            let head = request_head(&mut stream).await.unwrap();
            life.tell(head);
            let switching = "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";
            stream.write_all(switching.as_bytes()).await.unwrap();
        })
        .await;
    let mut client = fixture.connect().await;
    client
        .send(
            "GET /chat?key=acme-secret&room=1 HTTP/1.1\r\nhost: h\r\nx-session-id: a\r\nconnection: upgrade\r\nupgrade: \
             websocket\r\nreferer: http://h/?key=acme-secret&r\r\nsec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        )
        .await;
    assert_eq!(client.head().await.status, 101);
    let head = fixture.next_told().await;
    assert!(head.starts_with("GET /chat?room=1 HTTP/1.1\r\n"), "{head}");
    assert!(head.contains("sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n"), "{head}");
    assert!(head.contains("referer: http://h/?r\r\n") && !head.contains("secret"), "{head}");

    let setup = Setup { protocol: Protocol::Http2, ..guarded("header:x-session-id") };
    let fixture = setup.start(tell_http2_heads).await;
    for (path, secret) in [("/p?q", Some("acme-secret")), ("/p?key=acme-secret&q", None)] {
        let seen = ask_http2(&fixture, path, secret).await;
        assert_eq!(seen.status, 200);
        assert!(seen.text().contains("/p?q") && !seen.text().contains("secret"), "{}", seen.text());
    }
}

async fn tell_http2_heads(stream: TcpStream, _: fakes::Life) {
    let service = hyper::service::service_fn(|request: Request<hyper::body::Incoming>| async move {
        let seen = format!("{} {:?}", request.uri(), request.headers());
        Ok::<_, std::convert::Infallible>(hyper::Response::new(http_body_util::Full::new(Bytes::from(seen))))
    });
    let _ = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

#[tokio::test]
async fn a_pinned_caller_reaches_the_one_session_and_no_other() {
    let fixture = guarded("header:x-session-id,path:1").start(echo_heads).await;
    let own = fixture.ask(&by("pinned-secret", "mine")).await;
    assert_eq!(own.status, 200);
    let none = fixture.ask("GET / HTTP/1.1\r\nhost: h\r\nauthorization: Bearer pinned-secret\r\n\r\n").await;
    assert_eq!((none.status, none.field("herd-session")), (200, Some("resumed")));
    assert!(none.text().contains("x-session-id: mine\r\n"), "{}", none.text());
    let other = fixture.ask(&by("pinned-secret", "alice")).await;
    assert_eq!((other.status, other.field("herd-error")), (403, Some("forbidden-session")));
    assert_eq!(other.problem("type"), "urn:herd:problem:forbidden-session");
    assert_eq!(fixture.pool.stats().sessions, 1);
}

#[tokio::test]
async fn a_pinned_caller_without_a_cookie_gets_no_new_session() {
    let fixture = guarded("cookie:sid").start(say_id).await;
    let pinned = fixture.ask("GET / HTTP/1.1\r\nhost: h\r\nauthorization: Bearer pinned-secret\r\n\r\n").await;
    assert_eq!((pinned.status, pinned.field("set-cookie")), (200, None));
    let new = fixture.ask("GET / HTTP/1.1\r\nhost: h\r\nauthorization: Bearer acme-secret\r\n\r\n").await;
    let id = new.field("set-cookie").unwrap().split(['=', ';']).nth(1).unwrap();
    // The ID that was made belongs to the tenant as well.
    let of_tenant = SessionId::new(id).unwrap().of(&Tenant::new("acme", TenantLimits::default()).unwrap());
    assert!(fixture.pool.session(&of_tenant).is_some());
    let cookie = format!("GET / HTTP/1.1\r\nhost: h\r\nauthorization: Bearer other-secret\r\ncookie: sid={id}\r\n\r\n");
    assert_eq!(fixture.ask(&cookie).await.field("herd-session"), Some("new"));
}

#[tokio::test]
async fn health_is_open_and_metrics_are_not() {
    let fixture = guarded("header:x-session-id").start(say_id).await;
    let page = |path: &str, fields: &str| format!("GET {path} HTTP/1.1\r\nhost: h\r\n{fields}\r\n");
    let acme = "authorization: Bearer acme-secret\r\n";
    for (path, fields, status, text) in [
        ("/healthz", "", 200, "ok"),
        ("/healthz", "authorization: Bearer wrong-secret\r\n", 200, "ok"),
        ("/healthz", acme, 200, "ok"),
        ("/metrics", "authorization: Bearer nobodys-secret\r\n", 200, "herd_up 1\n"),
        ("/metrics?key=nobodys-secret", "", 200, "herd_up 1\n"),
    ] {
        let answer = fixture.ask(&page(path, fields)).await;
        assert_eq!((answer.status, answer.text()), (status, text), "{path} {fields}");
    }
    for (path, fields) in [
        ("/metrics", ""),
        ("/metrics", "authorization: Bearer old-secret\r\n"),
        ("/healthz", "x-session-id: a\r\n"),
        ("/healthz/", ""),
    ] {
        assert_eq!(fixture.ask(&page(path, fields)).await.status, 401, "{path} {fields}");
    }
    // It tells what the others do, so a tenant does not get it.
    for (path, fields) in [("/metrics", acme), ("/metrics?key=acme-secret", "")] {
        let answer = fixture.ask(&page(path, fields)).await;
        assert_eq!((answer.status, answer.field("herd-error")), (403, Some("forbidden-page")), "{path} {fields}");
        assert!(!answer.text().contains("herd_up"), "{}", answer.text());
    }
    assert_eq!(fixture.pool.stats().acquire_requests, 0);
    // With a session, the path belongs to the worker.
    let of_session = fixture.ask(&page("/healthz", &format!("{acme}x-session-id: a\r\n"))).await;
    assert_eq!(of_session.text(), "worker-1");
}

#[tokio::test]
async fn a_credential_is_never_taken_for_a_session_id() {
    let fixture = guarded("header:authorization,query:key").start(say_id).await;
    for request in [
        "GET / HTTP/1.1\r\nhost: h\r\nauthorization: Bearer acme-secret\r\n\r\n",
        "GET /?key=acme-secret HTTP/1.1\r\nhost: h\r\n\r\n",
    ] {
        let answer = fixture.ask(request).await;
        assert_eq!((answer.status, answer.field("herd-error")), (400, Some("no-session-id")));
    }
    assert_eq!(fixture.pool.stats().sessions, 0);
}

#[tokio::test]
async fn a_tenant_with_all_the_sessions_it_may_have_is_told_so() {
    let limits = TenantLimits { max_sessions: Some(1), max_waiting: None };
    let options = GatewayOptions { access: Some(Door::new(limits)), ..GatewayOptions::default() };
    let fixture = Setup::with(options).start(say_id).await;
    assert_eq!(fixture.ask(&by("acme-secret", "a")).await.status, 200);
    let refused = fixture.ask(&by("acme-secret", "b")).await;
    assert_eq!((refused.status, refused.field("herd-error")), (429, Some("tenant-sessions")));
    assert!(refused.field("retry-after").is_some());
    assert_eq!(refused.problem("session"), "b");
    assert_eq!(fixture.ask(&by("acme-secret", "a")).await.status, 200);
    assert_eq!(fixture.ask(&by("other-secret", "b")).await.status, 200);
}

#[tokio::test]
async fn a_tenant_with_all_the_waiting_callers_it_may_have_is_told_so() {
    let limits = TenantLimits { max_sessions: None, max_waiting: Some(1) };
    let options = GatewayOptions { access: Some(Door::new(limits)), ..GatewayOptions::default() };
    let setup = Setup { pool: |builder| builder.min_workers(0).spare(0).max_workers(1), ..Setup::with(options) };
    let fixture = setup.start(say_id).await;
    let acme = Tenant::new("acme", TenantLimits::default()).unwrap();
    let _taken = fixture.pool.acquire(&SessionId::new("a").unwrap().of(&acme)).await.unwrap();
    let mut waits = fixture.connect().await;
    waits.send(by("acme-secret", "b")).await;
    soon(async {
        while fixture.pool.stats().waiting == 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let refused = fixture.ask(&by("acme-secret", "c")).await;
    assert_eq!((refused.status, refused.field("herd-error")), (429, Some("tenant-waiting")));
}

#[tokio::test]
async fn nothing_secret_is_shown_by_debugging_the_options() {
    let door: Arc<dyn Access> = Door::new(TenantLimits::default());
    let options = GatewayOptions { access: Some(door), ..GatewayOptions::default() };
    assert!(format!("{options:?}").contains("access: Some(Access)"));
}
