//! Workers that die, lie or say nothing: the client is always told, and never told anything wrong.

mod fakes;

use std::time::Duration;

use fakes::{Fixture, Life, Setup, request_head, response, say_id};
use herd_gateway::{GatewayOptions, Sessions};
use herd_pool::{Exit, ExitStatus};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: h\r\nx-session-id: a\r\n\r\n")
}

fn post(path: &str) -> String {
    format!("POST {path} HTTP/1.1\r\nhost: h\r\nx-session-id: a\r\ncontent-length: 2\r\n\r\nhi")
}

/// Answers `/` and does what the test wants on any other path.
async fn fails_on_demand(mut stream: TcpStream, life: Life) {
    while let Some(head) = request_head(&mut stream).await {
        let path = head.split(' ').nth(1).unwrap().to_owned();
        if head.starts_with("POST") {
            let mut body = [0; 2];
            stream.read_exact(&mut body).await.unwrap();
        }
        let text = match &*path {
            "/" => response(&life.worker.to_string()),
            "/crash" => return life.crash(),
            "/out-of-memory" => {
                return life.exit_as(Exit { out_of_memory: true, ..Exit::with_status(ExitStatus::Signal(9)) });
            }
            "/close" => return,
            "/garbage" => "what is HTTP?\r\n\r\n".into(),
            "/half" => {
                stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-le").await.unwrap();
                return;
            }
            "/two-lengths" => "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab".into(),
            "/both" => {
                "HTTP/1.1 200 OK\r\ncontent-length: 99\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n".into()
            }
            "/unasked" => "HTTP/1.1 101 Switching\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n".into(),
            "/less" => {
                stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc").await.unwrap();
                return;
            }
            "/more" => {
                "HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nabcHTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil".into()
            }
            "/crash-in-body" => {
                stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc").await.unwrap();
                // Only a client that has read the head can tell that the worker died after it.
                let mut go = [0; 1];
                let _ = stream.read(&mut go).await;
                return life.crash();
            }
            "/crash-in-chunk" => {
                stream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n").await.unwrap();
                let mut go = [0; 1];
                let _ = stream.read(&mut go).await;
                return life.crash();
            }
            "/bad-chunk" => "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\nzz\r\n".into(),
            "/silent" => {
                life.tell("asked");
                // The gateway hangs up; until then, nothing comes.
                let mut rest = Vec::new();
                let _ = stream.read_to_end(&mut rest).await;
                return life.tell("cut");
            }
            other => panic!("unknown path {other}"),
        };
        stream.write_all(text.as_bytes()).await.unwrap();
    }
}

#[tokio::test]
async fn a_crash_while_the_worker_answers_is_told_from_other_failures() {
    for (path, error, detail) in [
        ("/crash", "worker-crashed", "crashed (signal 9)"),
        ("/out-of-memory", "worker-crashed", "out of memory"),
        ("/close", "bad-gateway", "closed the connection"),
        ("/garbage", "bad-gateway", "not HTTP"),
        ("/half", "bad-gateway", "closed the connection"),
        ("/two-lengths", "bad-gateway", "not HTTP"),
        ("/unasked", "bad-gateway", "without being asked"),
    ] {
        for request in [get(path), post(path)] {
            let fixture = Fixture::start(fails_on_demand).await;
            let answer = fixture.ask(&request).await;
            assert_eq!(answer.status, 502, "{path}");
            assert_eq!(answer.field("herd-error"), Some(error), "{path}");
            assert_eq!(answer.problem("session"), "a");
            let told = answer.problem("detail");
            assert!(told.as_str().unwrap().contains(detail), "{path}: {told}");
            fixture.released("a").await;
        }
    }
}

#[tokio::test]
async fn the_request_after_a_crash_starts_a_new_session_and_is_told_so() {
    let fixture = Fixture::start(fails_on_demand).await;
    let mut client = fixture.connect().await;
    client.send(get("/")).await;
    assert_eq!(client.answer().await.text(), "worker-1");
    client.send(post("/crash")).await;
    assert_eq!(client.answer().await.field("herd-error"), Some("worker-crashed"));
    client.send(get("/")).await;
    let next = client.answer().await;
    assert_eq!((next.text(), next.field("herd-session")), ("worker-2", Some("new")));
}

#[tokio::test]
async fn a_worker_that_died_while_idle_is_replaced_without_an_error() {
    let fixture = Fixture::start(fails_on_demand).await;
    let mut client = fixture.connect().await;
    for round in 1..=20 {
        client.send(post("/")).await;
        let answer = client.answer().await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(answer.text(), format!("worker-{round}"));
        assert_eq!(answer.field("herd-session"), Some("new"));
        fixture.last_worker().crash();
        // The pool may or may not have noticed when the next request comes.
        for _ in 0..round {
            tokio::task::yield_now().await;
        }
    }
}

#[tokio::test]
async fn a_worker_that_closed_its_listener_is_unreachable_but_its_session_lives_on() {
    let refusing = Setup::default().start_unreachable().await;
    let answer = refusing.ask(&get("/")).await;
    assert_eq!(answer.status, 502);
    assert_eq!(answer.field("herd-error"), Some("worker-unreachable"));
    assert!(refusing.pool.session(&"a".parse().unwrap()).is_some());
}

#[tokio::test]
async fn a_response_that_breaks_off_is_never_passed_as_complete() {
    for path in ["/less", "/crash-in-body", "/crash-in-chunk", "/bad-chunk"] {
        let mut fixture = Fixture::start(fails_on_demand).await;
        let mut client = fixture.connect().await;
        client.send(get(path)).await;
        let head = client.head().await;
        assert_eq!(head.status, 200);
        if path.starts_with("/crash") {
            fixture.last_worker().crash();
        }
        assert!(client.is_closed().await, "{path}");
        let text = String::from_utf8_lossy(&client.unread);
        assert!(text.contains("abc"), "{path}: what came before is passed on");
        assert!(!text.contains("\r\n0\r\n"), "{path}: {text:?}");
        fixture.released("a").await;
        fixture.shut_down();
    }
}

#[tokio::test]
async fn what_a_worker_sends_beyond_its_length_reaches_nobody() {
    let fixture = Fixture::start(fails_on_demand).await;
    let mut client = fixture.connect().await;
    for _ in 0..3 {
        client.send(get("/more")).await;
        assert_eq!(client.answer().await.text(), "abc");
        client.send(get("/")).await;
        assert_eq!(client.answer().await.text(), "worker-1");
        client.send(post("/")).await;
        assert_eq!(client.answer().await.text(), "worker-1");
    }
    assert!(client.unread.is_empty());
    assert_eq!(fixture.gateway.stats().upstream_connections_total, 4);
}

#[tokio::test]
async fn a_response_with_both_framings_is_passed_on_with_one() {
    let fixture = Fixture::start(fails_on_demand).await;
    let answer = fixture.ask(&get("/both")).await;
    assert_eq!((answer.status, answer.text()), (200, "ok"));
    assert_eq!(answer.field("content-length"), None);
}

#[tokio::test]
async fn a_worker_that_does_not_answer_in_time_is_cut_off_with_504() {
    let options = GatewayOptions { response_timeout: Some(Duration::from_millis(100)), ..GatewayOptions::default() };
    let mut fixture = Setup::with(options).start(fails_on_demand).await;
    let answer = fixture.ask(&get("/silent")).await;
    assert_eq!(answer.status, 504);
    assert_eq!(answer.field("herd-error"), Some("worker-timeout"));
    assert_eq!(fixture.next_told().await, "asked");
    assert_eq!(fixture.next_told().await, "cut");
    fixture.released("a").await;
}

#[tokio::test]
async fn a_request_is_sent_again_only_if_that_changes_nothing() {
    // The worker closes each connection when the second request has come on it, without an answer.
    let mut fixture = Fixture::start(|mut stream, life| async move {
        request_head(&mut stream).await.unwrap();
        stream.write_all(response("first").as_bytes()).await.unwrap();
        if let Some(head) = request_head(&mut stream).await {
            life.tell(head.split(' ').take(2).collect::<Vec<_>>().join(" "));
        }
    })
    .await;
    let mut client = fixture.connect().await;
    client.send(get("/1")).await;
    assert_eq!(client.answer().await.text(), "first");
    client.send(get("/2")).await;
    assert_eq!(client.answer().await.text(), "first");
    assert_eq!(fixture.next_told().await, "GET /2");
    client.send(post("/3")).await;
    let answer = client.answer().await;
    assert_eq!((answer.status, answer.field("herd-error")), (502, Some("bad-gateway")));
    assert_eq!(fixture.next_told().await, "POST /3");
}

#[tokio::test]
async fn a_session_that_is_ended_while_its_worker_answers_is_no_crash() {
    let mut fixture = Fixture::start(fails_on_demand).await;
    let mut client = fixture.connect().await;
    client.send(get("/silent")).await;
    assert_eq!(fixture.next_told().await, "asked");
    fixture.pool.end(&"a".parse().unwrap()).await.unwrap();
    let answer = client.answer().await;
    assert_eq!(answer.status, 502);
    assert_eq!(answer.field("herd-error"), Some("session-ended"));
    assert!(answer.problem("detail").as_str().unwrap().contains("released"));
}

#[tokio::test]
async fn a_worker_that_cannot_be_started_is_answered_for_with_503_and_the_reason() {
    let setup = Setup { refuse: Some("exec /no/such/program: not found"), ..Setup::default() };
    let fixture = setup.start(say_id).await;
    let answer = fixture.ask(&get("/")).await;
    assert_eq!(answer.status, 503);
    assert_eq!(answer.field("herd-error"), Some("spawn-failed"));
    assert!(answer.field("retry-after").unwrap().parse::<u32>().unwrap() > 0);
    assert!(answer.problem("detail").as_str().unwrap().ends_with("exec /no/such/program: not found"));
}

#[tokio::test]
async fn a_full_pool_is_answered_for_with_503_when_the_wait_is_over() {
    let pool = |builder: herd_pool::PoolBuilder<_>| {
        builder.min_workers(0).spare(0).max_workers(1).max_waiting(1).acquire_timeout(Duration::from_millis(300))
    };
    let fixture = Setup { pool, ..Setup::default() }.start(say_id).await;
    let _held = fixture.pool.acquire(&"holder".parse().unwrap()).await.unwrap();
    let mut waiting = fixture.connect().await;
    waiting.send(get("/")).await;
    while fixture.pool.stats().waiting == 0 {
        tokio::task::yield_now().await;
    }
    let refused = fixture.ask("GET / HTTP/1.1\r\nhost: h\r\nx-session-id: b\r\n\r\n").await;
    assert_eq!((refused.status, refused.field("herd-error")), (503, Some("queue-full")));
    assert!(refused.field("retry-after").is_some());
    let late = waiting.answer().await;
    assert_eq!((late.status, late.field("herd-error")), (503, Some("acquire-timeout")));
    assert!(late.field("retry-after").is_some());
    assert_eq!(late.problem("session"), "a");
}

#[tokio::test]
async fn a_draining_pool_is_answered_for_with_503_and_the_connection_closes() {
    for sessions in [Sessions::Start, Sessions::LookUpOnly] {
        let options = GatewayOptions { sessions, ..GatewayOptions::default() };
        let fixture = Setup::with(options).start(say_id).await;
        let lease = fixture.pool.acquire(&"a".parse().unwrap()).await.unwrap();
        let pool = fixture.pool.clone();
        let draining = tokio::spawn(async move { pool.drain(Duration::from_secs(10)).await });
        let mut client = fixture.connect().await;
        let answer = loop {
            client.send(get("/")).await;
            let answer = client.answer().await;
            if answer.status != 200 {
                break answer;
            }
        };
        assert_eq!((answer.status, answer.field("herd-error")), (503, Some("draining")));
        assert!(answer.field("retry-after").is_some());
        assert_eq!(answer.field("connection"), Some("close"));
        assert!(client.is_closed().await);
        drop(lease);
        draining.await.unwrap();
    }
}
