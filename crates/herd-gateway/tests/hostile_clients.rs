//! Clients that want to confuse the gateway, to hold it up or to use it up.

mod fakes;

use std::time::Duration;

use fakes::{Answer, Client, Fixture, Setup, echo_heads, request_head, response, say_id, soon};
use herd_gateway::GatewayOptions;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const S: &str = "host: h\r\nx-session-id: a\r\n";

/// What a request smuggler tries, and whether the gateway must refuse it (else it must pass it on unambiguously).
const AMBIGUOUS: &[&str] = &[
    // Two framings at once, in either order and in disguise.
    "POST / HTTP/1.1\r\n{S}content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "POST / HTTP/1.1\r\n{S}transfer-encoding: chunked\r\ncontent-length: 5\r\n\r\n0\r\n\r\n",
    "POST / HTTP/1.1\r\n{S}Transfer-Encoding: chunked\r\nCoNtEnT-LeNgTh:5\r\n\r\n0\r\n\r\n",
    "\r\nPOST / HTTP/1.1\r\n{S}transfer-encoding: chunked\r\ncontent-length: 5\r\n\r\n0\r\n\r\n",
    // Transfer codings that hops may read in different ways.
    "POST / HTTP/1.1\r\n{S}transfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "POST / HTTP/1.1\r\n{S}transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "POST / HTTP/1.1\r\n{S}transfer-encoding: chunked\r\ntransfer-encoding: identity\r\n\r\n0\r\n\r\n",
    "POST / HTTP/1.1\r\n{S}transfer-encoding: identity\r\n\r\n",
    "POST / HTTP/1.1\r\n{S}transfer-encoding: xchunked\r\n\r\n0\r\n\r\n",
    "POST / HTTP/1.1\r\n{S}transfer-encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
    "POST / HTTP/1.1\r\n{S}transfer-encoding : chunked\r\n\r\n0\r\n\r\n",
    "POST / HTTP/1.0\r\n{S}transfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    // Lengths that are none, or two.
    "POST / HTTP/1.1\r\n{S}content-length: 3\r\ncontent-length: 4\r\n\r\nabcd",
    "POST / HTTP/1.1\r\n{S}content-length: 3, 4\r\n\r\nabcd",
    "POST / HTTP/1.1\r\n{S}content-length: +3\r\n\r\nabc",
    "POST / HTTP/1.1\r\n{S}content-length: -3\r\n\r\nabc",
    "POST / HTTP/1.1\r\n{S}content-length: 0x3\r\n\r\nabc",
    "POST / HTTP/1.1\r\n{S}content-length: 99999999999999999999\r\n\r\nabc",
    "POST / HTTP/1.1\r\n{S}content-length: \r\n\r\nabc",
    // Field lines that hops may fold, join or skip.
    "GET / HTTP/1.1\r\n{S}x: a\r\n folded\r\n\r\n",
    "GET / HTTP/1.1\r\n folded: a\r\n{S}\r\n",
    "GET / HTTP/1.1\r\n{S}x y: a\r\n\r\n",
    "GET / HTTP/1.1\r\n{S}: a\r\n\r\n",
    "GET / HTTP/1.1\r\n{S}no colon\r\n\r\n",
    "GET / HTTP/1.1\r\n{S}x: a\0b\r\n\r\n",
    "GET / HTTP/1.1\r\n{S}x: a\rb: c\r\n\r\n",
    // Targets and hosts.
    "GET / HTTP/1.1\r\nx-session-id: a\r\n\r\n",
    "GET / HTTP/1.1\r\n{S}host: other\r\n\r\n",
    "GET / HTTP/1.1\r\n{S}host: h\r\n\r\n",
    "GET / HTTP/1.1\r\nhost: a, b\r\nx-session-id: a\r\n\r\n",
    "GET / HTTP/1.1\r\nhost: h/path\r\nx-session-id: a\r\n\r\n",
    "GET / HTTP/1.1\r\nhost: user@h\r\nx-session-id: a\r\n\r\n",
    "GET http://user@h/ HTTP/1.1\r\n{S}\r\n",
    "GET ftp://h/ HTTP/1.1\r\n{S}\r\n",
    "GET h:80 HTTP/1.1\r\n{S}\r\n",
    "GET ?x HTTP/1.1\r\n{S}\r\n",
    "GET * HTTP/1.1\r\n{S}\r\n",
    "GET x HTTP/1.1\r\n{S}\r\n",
    "GET  / HTTP/1.1\r\n{S}\r\n",
    "GET / a HTTP/1.1\r\n{S}\r\n",
    "GET / HTTP/2.0\r\n{S}\r\n",
    "GET / HTTP/1.2\r\n{S}\r\n",
    "GET / http/1.1\r\n{S}\r\n",
    "G\x01T / HTTP/1.1\r\n{S}\r\n",
    "\x16\x03\x01\x02\x00\x01\x00\x01\r\n\r\n",
];

fn with_session(text: &str) -> String {
    text.replace("{S}", S)
}

/// A request that would be answered with 200 if it were read as one of its own.
const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nhost: h\r\nx-session-id: a\r\n\r\n";

#[tokio::test]
async fn ambiguous_requests_are_refused_and_the_connection_is_closed() {
    let mut fixture = Fixture::start(|stream, life| async move {
        life.tell("connected");
        echo_heads(stream, life).await;
    })
    .await;
    for text in AMBIGUOUS {
        let mut client = fixture.connect().await;
        client.send(with_session(text)).await;
        client.send(SMUGGLED).await;
        let answer = client.answer().await;
        assert_eq!(answer.status, 400, "{text:?}: {}", answer.head);
        assert_eq!(answer.field("connection"), Some("close"), "{text:?}");
        assert_eq!(answer.problem("type"), "urn:herd:problem:bad-request", "{text:?}");
        assert!(client.is_closed().await);
        assert!(client.unread.is_empty(), "{text:?} was followed by {:?}", String::from_utf8_lossy(&client.unread));
    }
    assert!(fixture.told.try_recv().is_err(), "no worker has seen any of it");
    assert_eq!(fixture.ask(SMUGGLED).await.status, 200, "the gateway serves on");
}

#[tokio::test]
async fn a_request_with_two_framings_behind_another_one_smuggles_nothing() {
    let fixture = Fixture::start(echo_heads).await;
    let mut client = fixture.connect().await;
    let honest = "GET /1 HTTP/1.1\r\nhost: h\r\nx-session-id: a\r\n\r\n";
    let ambiguous = with_session(AMBIGUOUS[1]);
    client.send(format!("{honest}{ambiguous}{SMUGGLED}")).await;
    assert!(client.answer().await.text().starts_with("GET /1 "));
    let second = client.answer().await;
    assert!(second.status == 400 || !second.text().contains("content-length"), "{}", second.head);
    assert_eq!(second.field("connection"), Some("close"));
    assert!(client.is_closed().await);
    assert!(client.unread.is_empty());
}

#[tokio::test]
async fn broken_chunks_are_refused_and_the_worker_is_cut_off() {
    for chunk in
        ["zz\r\nabc\r\n0\r\n\r\n", "3\r\nabcd\r\n0\r\n\r\n", "-1\r\n\r\n", "ffffffffffffffffff\r\n", "3 3\r\nabc\r\n"]
    {
        let mut fixture = Fixture::start(|mut stream, life| async move {
            let _ = request_head(&mut stream).await;
            let mut rest = Vec::new();
            let _ = stream.read_to_end(&mut rest).await;
            life.tell(if rest.ends_with(b"0\r\n\r\n") { "complete" } else { "cut" });
        })
        .await;
        let mut client = fixture.connect().await;
        client.send(with_session("POST / HTTP/1.1\r\n{S}transfer-encoding: chunked\r\n\r\n2\r\nok\r\n")).await;
        client.send(chunk).await;
        let answer = client.answer().await;
        assert_eq!(answer.status, 400, "{chunk:?}");
        assert_eq!(answer.field("connection"), Some("close"), "{chunk:?}");
        assert_eq!(fixture.next_told().await, "cut", "{chunk:?}");
        assert!(client.is_closed().await);
        fixture.released("a").await;
    }
}

#[tokio::test]
async fn connect_is_not_implemented() {
    let fixture = Fixture::start(say_id).await;
    let answer =
        fixture.ask("CONNECT example.com:443 HTTP/1.1\r\nhost: example.com:443\r\nx-session-id: a\r\n\r\n").await;
    assert_eq!(answer.status, 501);
    assert_eq!(answer.field("herd-error"), Some("not-implemented"));
}

#[tokio::test]
async fn hostile_bytes_come_back_only_as_json_escapes() {
    let options = GatewayOptions { session_key: "path:1".parse().unwrap(), ..GatewayOptions::default() };
    let setup = Setup { options, refuse: Some("no <worker> \"today\" \u{1b}[31m"), ..Setup::default() };
    let fixture = setup.start(say_id).await;
    let answer = fixture.ask("GET /%22%3cscript%3e HTTP/1.1\r\nhost: h\r\n\r\n").await;
    assert_eq!(answer.problem("session"), "\"<script>");
    assert!(!answer.text().contains('\u{1b}'));
    assert!(answer.text().contains(r#""session":"\"<script>""#), "{}", answer.text());
}

#[tokio::test]
async fn a_head_beyond_the_limit_is_answered_with_431() {
    let fixture = Fixture::start(say_id).await;
    let head = |len: usize| format!("GET / HTTP/1.1\r\n{S}x: {}\r\n\r\n", "a".repeat(len));
    assert_eq!(fixture.ask(&head(31 * 1024)).await.status, 200);
    for len in [33 * 1024, 1 << 20] {
        let mut client = fixture.connect().await;
        // The gateway may close before all of it is sent.
        let _ = client.stream.write_all(head(len).as_bytes()).await;
        let answer = client.answer().await;
        assert_eq!(answer.status, 431, "{len}");
        assert_eq!(answer.field("herd-error"), Some("header-too-large"));
        assert!(client.is_closed().await);
    }
    let many: String = (0..200).map(|number| format!("x{number}: y\r\n")).collect();
    let answer = fixture.ask(&format!("GET / HTTP/1.1\r\n{S}{many}\r\n")).await;
    assert_eq!(answer.status, 431);
    let stats = fixture.gateway.stats();
    assert!(stats.failures_total().any(|failures| failures == ("header-too-large", 3)), "{stats:?}");
}

#[tokio::test]
async fn a_client_that_is_slow_with_its_head_is_told_so_and_closed() {
    let options = GatewayOptions { header_timeout: Duration::from_millis(300), ..GatewayOptions::default() };
    let fixture = Setup::with(options).start(say_id).await;
    let mut slow = fixture.connect().await;
    slow.send("GET / HTTP/1.1\r\nhost: h\r\n").await;
    let answer = slow.answer().await;
    assert_eq!(answer.status, 408);
    assert_eq!(answer.field("herd-error"), Some("request-timeout"));
    assert!(slow.is_closed().await);
    // The second request of a connection is watched like the first.
    let mut slow = fixture.connect().await;
    slow.send(SMUGGLED).await;
    assert_eq!(slow.answer().await.status, 200);
    slow.send("GET / HT").await;
    assert_eq!(slow.answer().await.status, 408);
    // And so is a client that does not even say which protocol it speaks.
    let mut silent = fixture.connect().await;
    silent.send("PRI * HTTP/2.0\r\n").await;
    assert!(silent.is_closed().await);
}

#[tokio::test]
async fn a_client_without_requests_is_closed_after_a_while_and_a_busy_one_is_not() {
    let options = GatewayOptions {
        idle_timeout: Duration::from_millis(300),
        header_timeout: Duration::from_millis(300),
        ..GatewayOptions::default()
    };
    let mut fixture = Setup::with(options)
        .start(|mut stream, life| async move {
            while let Some(head) = request_head(&mut stream).await {
                if head.starts_with("GET /slow") {
                    life.tell("asked");
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
                stream.write_all(response("done").as_bytes()).await.unwrap();
            }
        })
        .await;
    let mut busy = fixture.connect().await;
    busy.send("GET /slow HTTP/1.1\r\nhost: h\r\nx-session-id: a\r\n\r\n").await;
    assert_eq!(fixture.next_told().await, "asked");
    let mut idle = fixture.connect().await;
    assert!(idle.is_closed().await);
    let mut kept = fixture.connect().await;
    kept.send(SMUGGLED).await;
    assert_eq!(kept.answer().await.text(), "done");
    assert!(kept.is_closed().await);
    assert_eq!(busy.answer().await.text(), "done");
}

#[tokio::test]
async fn a_body_that_stands_still_is_cut_where_a_limit_is_set() {
    let options = GatewayOptions { body_idle_timeout: Some(Duration::from_millis(300)), ..GatewayOptions::default() };
    let mut fixture = Setup::with(options)
        .start(|mut stream, life| async move {
            let head = request_head(&mut stream).await.unwrap();
            if head.starts_with("POST") {
                let mut rest = Vec::new();
                let _ = stream.read_to_end(&mut rest).await;
                life.tell(format!("got {}", rest.len()));
            } else {
                let chunk = [b'x'; 65536];
                stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000000\r\n\r\n").await.unwrap();
                while stream.write_all(&chunk).await.is_ok() {}
                life.tell("cut");
            }
        })
        .await;
    let mut sends_nothing = fixture.connect().await;
    sends_nothing.send(with_session("POST / HTTP/1.1\r\n{S}content-length: 10\r\n\r\nabc")).await;
    assert_eq!(fixture.next_told().await, "got 3");
    assert!(sends_nothing.is_closed().await);
    let mut takes_nothing = fixture.connect().await;
    takes_nothing.send(SMUGGLED).await;
    assert_eq!(fixture.next_told().await, "cut");
    fixture.released("a").await;
}

#[tokio::test]
async fn a_slow_body_holds_up_nobody_else() {
    let fixture = Fixture::start(|mut stream, _| async move {
        while let Some(head) = request_head(&mut stream).await {
            if head.starts_with("POST") {
                let mut body = [0; 4];
                stream.read_exact(&mut body).await.unwrap();
            }
            stream.write_all(response("done").as_bytes()).await.unwrap();
        }
    })
    .await;
    let mut slow = fixture.connect().await;
    slow.send(with_session("POST / HTTP/1.1\r\n{S}content-length: 4\r\n\r\nab")).await;
    for session in ["a", "b"] {
        let request = format!("GET / HTTP/1.1\r\nhost: h\r\nx-session-id: {session}\r\n\r\n");
        assert_eq!(fixture.ask(&request).await.text(), "done");
    }
    assert_eq!(fixture.pool.session(&"a".parse().unwrap()).unwrap().leases, 1);
    slow.send("cd").await;
    assert_eq!(slow.answer().await.text(), "done");
    fixture.released("a").await;
}

#[tokio::test]
async fn connections_beyond_the_limit_wait_until_there_is_room() {
    let options = GatewayOptions { max_connections: 2, ..GatewayOptions::default() };
    let fixture = Setup::with(options).start(say_id).await;
    let mut first = fixture.connect().await;
    let mut second = fixture.connect().await;
    for client in [&mut first, &mut second] {
        client.send(SMUGGLED).await;
        assert_eq!(client.answer().await.status, 200);
    }
    let mut third = fixture.connect().await;
    third.send(SMUGGLED).await;
    // The two that are served go on, and the third is not among them.
    first.send(SMUGGLED).await;
    assert_eq!(first.answer().await.status, 200);
    assert_eq!(fixture.gateway.stats().connections, 2);
    assert!(third.unread.is_empty());
    drop(second);
    assert_eq!(third.answer().await.status, 200);
}

#[tokio::test]
async fn requests_in_one_packet_are_answered_one_after_the_other() {
    let fixture = Fixture::start(echo_heads).await;
    let mut client = fixture.connect().await;
    let requests: String = (0..20).map(|n| format!("GET /{n} HTTP/1.1\r\n{S}\r\n")).collect();
    client.send(requests).await;
    for number in 0..20 {
        assert!(client.answer().await.text().starts_with(&format!("GET /{number} ")));
    }
}

#[tokio::test]
async fn a_client_that_expects_100_gets_it_from_the_worker_or_an_answer_instead() {
    let mut fixture = Fixture::start(|mut stream, life| async move {
        while let Some(head) = request_head(&mut stream).await {
            life.tell(if head.contains("expect: 100-continue") { "expects" } else { "does not" });
            if head.starts_with("POST /no") {
                stream.write_all(b"HTTP/1.1 403 No\r\ncontent-length: 0\r\n\r\n").await.unwrap();
                let mut rest = Vec::new();
                let _ = stream.read_to_end(&mut rest).await;
                life.tell(format!("got {}", rest.len()));
                return;
            }
            stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await.unwrap();
            let mut body = [0; 4];
            stream.read_exact(&mut body).await.unwrap();
            stream.write_all(response(std::str::from_utf8(&body).unwrap()).as_bytes()).await.unwrap();
        }
    })
    .await;
    let head = |path: &str| format!("POST {path} HTTP/1.1\r\n{S}content-length: 4\r\nexpect: 100-continue\r\n\r\n");
    let mut client = fixture.connect().await;
    client.send(head("/yes")).await;
    assert_eq!(fixture.next_told().await, "expects");
    assert_eq!(client.head().await.status, 100);
    client.send("body").await;
    assert_eq!(client.answer().await.text(), "body");
    let mut client = fixture.connect().await;
    client.send(head("/no")).await;
    assert_eq!(fixture.next_told().await, "expects");
    let answer: Answer = client.answer().await;
    assert_eq!(answer.status, 403, "{}", answer.head);
    assert_eq!(fixture.next_told().await, "got 0");
}

#[tokio::test]
async fn a_worker_that_ignores_an_expectation_gets_the_body_all_the_same() {
    let fixture = Fixture::start(|mut stream, _| async move {
        request_head(&mut stream).await.unwrap();
        let mut body = [0; 4];
        stream.read_exact(&mut body).await.unwrap();
        stream.write_all(response("done").as_bytes()).await.unwrap();
    })
    .await;
    let mut client: Client = fixture.connect().await;
    client.send(with_session("POST / HTTP/1.1\r\n{S}content-length: 4\r\nexpect: 100-continue\r\n\r\n")).await;
    assert_eq!(client.head().await.status, 100);
    client.send("body").await;
    assert_eq!(soon(client.answer()).await.text(), "done");
}
