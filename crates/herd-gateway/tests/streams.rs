//! Bodies pass as they come, in both directions, and either side learns when the other goes away.

mod fakes;

use std::sync::Arc;

use fakes::{Fixture, request_head, response, soon};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::Semaphore,
};

const GET: &str = "GET / HTTP/1.1\r\nhost: h\r\nx-session-id: a\r\n\r\n";
const CHUNKED: &str = "POST / HTTP/1.1\r\nhost: h\r\nx-session-id: a\r\ntransfer-encoding: chunked\r\n\r\n";

/// Tells the test when the gateway hangs up.
async fn tell_when_cut(mut stream: TcpStream, life: &fakes::Life) {
    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest).await;
    life.tell("cut");
}

/// Takes a request and never answers it.
async fn be_asked_and_cut(mut stream: TcpStream, life: fakes::Life) {
    request_head(&mut stream).await.unwrap();
    life.tell("asked");
    tell_when_cut(stream, &life).await;
}

#[tokio::test]
async fn each_event_of_a_stream_passes_before_the_next_one_is_there() {
    let go = Arc::new(Semaphore::new(0));
    let gone = go.clone();
    let fixture = Fixture::start(move |mut stream, _| {
        let go = go.clone();
        async move {
            request_head(&mut stream).await.unwrap();
            let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
            stream.write_all(head.as_bytes()).await.unwrap();
            for number in 0..5 {
                go.acquire().await.unwrap().forget();
                let event = format!("data: {number}\n\n");
                stream.write_all(format!("{:x}\r\n{event}\r\n", event.len()).as_bytes()).await.unwrap();
            }
            go.acquire().await.unwrap().forget();
            stream.write_all(b"0\r\n\r\n").await.unwrap();
        }
    })
    .await;
    let mut client = fixture.connect().await;
    client.send(GET).await;
    assert_eq!(client.head().await.status, 200);
    for number in 0..5 {
        gone.add_permits(1);
        assert!(client.read_until(&format!("data: {number}\n\n")).await.is_some());
        assert_eq!(fixture.pool.session(&"a".parse().unwrap()).unwrap().leases, 1, "the session is in use");
    }
    gone.add_permits(1);
    assert!(client.read_until("\r\n0\r\n\r\n").await.is_some());
    fixture.released("a").await;
}

#[tokio::test]
async fn each_chunk_of_a_request_passes_before_the_next_one_is_there_and_so_do_trailers() {
    let mut fixture = Fixture::start(|mut stream, life| async move {
        let head = request_head(&mut stream).await.unwrap();
        assert!(head.contains("transfer-encoding: chunked\r\n"), "{head}");
        let mut seen = Vec::new();
        while !seen.ends_with(b"0\r\nx-sum: 7\r\n\r\n") {
            stream.read_buf(&mut seen).await.unwrap();
            life.tell(String::from_utf8_lossy(&seen));
        }
        let text = "HTTP/1.1 200 OK\r\ntrailer: x-sum, herd-worker\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\
                    x-sum: 8\r\nherd-worker: worker-9\r\n\r\n";
        stream.write_all(text.as_bytes()).await.unwrap();
        assert_eq!(request_head(&mut stream).await.map(|head| head.starts_with("GET")), Some(true));
        stream.write_all(response("again").as_bytes()).await.unwrap();
    })
    .await;
    let mut client = fixture.connect().await;
    let head = CHUNKED.replace("\r\n\r\n", "\r\ntrailer: x-sum\r\nte: trailers\r\nconnection: te\r\n\r\n");
    client.send(head).await;
    for text in ["one", "two", "three"] {
        client.send(format!("{:x}\r\n{text}\r\n", text.len())).await;
        while !fixture.next_told().await.contains(text) {}
    }
    client.send("0\r\nx-sum: 7\r\n\r\n").await;
    let answer = client.answer().await;
    assert_eq!(answer.text(), "ok");
    assert!(answer.head.contains("x-sum: 8\r\n"), "{}", answer.head);
    assert!(!answer.head.contains("worker-9"), "{}", answer.head);
    client.send(GET).await;
    assert_eq!(client.answer().await.text(), "again", "the connection to the worker is kept");
}

#[tokio::test]
async fn a_get_with_a_chunked_body_keeps_it() {
    let fixture = Fixture::start(|mut stream, _| async move {
        request_head(&mut stream).await.unwrap();
        let mut seen = Vec::new();
        while !seen.ends_with(b"0\r\n\r\n") {
            stream.read_buf(&mut seen).await.unwrap();
        }
        stream.write_all(response(std::str::from_utf8(&seen).unwrap()).as_bytes()).await.unwrap();
    })
    .await;
    let answer = fixture.ask(&format!("{}3\r\nabc\r\n0\r\n\r\n", CHUNKED.replace("POST", "GET"))).await;
    assert_eq!(answer.text(), "3\r\nabc\r\n0\r\n\r\n");
}

#[tokio::test]
async fn responses_without_a_body_leave_the_connection_in_order() {
    let fixture = Fixture::start(|mut stream, _| async move {
        while let Some(head) = request_head(&mut stream).await {
            let text = match head.split(' ').take(2).collect::<Vec<_>>()[..] {
                ["HEAD", _] => "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n".into(),
                [_, "/204"] => "HTTP/1.1 204 No Content\r\n\r\n".into(),
                [_, "/304"] => "HTTP/1.1 304 Not Modified\r\ncontent-length: 10\r\n\r\n".into(),
                [_, "/0"] => "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n".into(),
                [_, "/103"] => format!("HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n{}", response("hinted")),
                _ => response("body"),
            };
            stream.write_all(text.as_bytes()).await.unwrap();
        }
    })
    .await;
    let mut client = fixture.connect().await;
    for (request, status, body) in [
        ("HEAD /", 200, ""),
        ("GET /204", 204, ""),
        ("GET /304", 304, ""),
        ("GET /0", 200, ""),
        ("GET /103", 200, "hinted"),
        ("GET /", 200, "body"),
    ] {
        client.send(format!("{request} HTTP/1.1\r\nhost: h\r\nx-session-id: a\r\n\r\n")).await;
        let answer = client.head().await;
        assert_eq!(answer.status, status, "{request}");
        assert_eq!(client.read_exactly(body.len()).await.unwrap(), body.as_bytes(), "{request}");
        assert!(client.unread.is_empty());
    }
    assert_eq!(fixture.gateway.stats().upstream_connections_total, 1);
}

#[tokio::test]
async fn a_body_that_ends_with_the_connection_is_passed_in_full() {
    let fixture = Fixture::start(|mut stream, _| async move {
        request_head(&mut stream).await.unwrap();
        stream.write_all(b"HTTP/1.0 200 OK\r\n\r\nall of it").await.unwrap();
    })
    .await;
    for _ in 0..3 {
        assert_eq!(fixture.ask(GET).await.text(), "all of it");
    }
}

#[tokio::test]
async fn a_client_that_leaves_before_its_head_is_complete_costs_nothing() {
    let fixture = Fixture::start(|_, _| async {}).await;
    let mut client = fixture.connect().await;
    client.send("GET / HTTP/1.1\r\nhost: h\r\nx-session").await;
    drop(client);
    soon(async {
        while fixture.gateway.stats().connections_total == 0 || fixture.gateway.stats().connections > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(fixture.pool.stats().sessions, 0);
}

#[tokio::test]
async fn a_client_that_leaves_while_it_waits_for_a_worker_leaves_the_queue() {
    let pool = |builder: herd_pool::PoolBuilder<_>| builder.min_workers(0).spare(0).max_workers(1);
    let fixture = fakes::Setup { pool, ..fakes::Setup::default() }.start(|_, _| async {}).await;
    let _held = fixture.pool.acquire(&"holder".parse().unwrap()).await.unwrap();
    let mut client = fixture.connect().await;
    client.send(GET).await;
    for waiting in [1, 0] {
        soon(async {
            while fixture.pool.stats().waiting != waiting {
                tokio::task::yield_now().await;
            }
        })
        .await;
        let _ = client.stream.shutdown().await;
    }
}

#[tokio::test]
async fn a_worker_learns_that_its_client_left_during_the_upload() {
    let mut fixture = Fixture::start(be_asked_and_cut).await;
    let mut client = fixture.connect().await;
    client.send(format!("{CHUNKED}3\r\nabc\r\n")).await;
    assert_eq!(fixture.next_told().await, "asked");
    drop(client);
    assert_eq!(fixture.next_told().await, "cut");
    fixture.released("a").await;
}

#[tokio::test]
async fn a_worker_learns_that_its_client_left_before_the_response() {
    let mut fixture = Fixture::start(be_asked_and_cut).await;
    let mut client = fixture.connect().await;
    client.send(GET).await;
    assert_eq!(fixture.next_told().await, "asked");
    drop(client);
    assert_eq!(fixture.next_told().await, "cut");
    fixture.released("a").await;
}

#[tokio::test]
async fn a_worker_learns_that_its_client_left_with_another_request_on_its_way() {
    let mut fixture = Fixture::start(be_asked_and_cut).await;
    for after in [GET, "\r\n"] {
        let mut client = fixture.connect().await;
        client.send(format!("{GET}{after}")).await;
        assert_eq!(fixture.next_told().await, "asked");
        drop(client);
        assert_eq!(fixture.next_told().await, "cut");
        fixture.released("a").await;
    }
}

#[tokio::test]
async fn a_client_that_breaks_off_an_upload_nobody_reads_gives_its_lease_back() {
    let mut fixture = Fixture::start(|mut stream, life| async move {
        request_head(&mut stream).await.unwrap();
        life.tell("asked");
        std::future::pending::<()>().await;
    })
    .await;
    let mut client = fixture.connect().await;
    client.send("POST / HTTP/1.1\r\nhost: h\r\nx-session-id: a\r\ncontent-length: 1000000000\r\n\r\n").await;
    assert_eq!(fixture.next_told().await, "asked");
    client.flood_and_reset().await;
    fixture.released("a").await;
}

#[tokio::test]
async fn a_worker_learns_that_its_client_left_during_the_response() {
    let mut fixture = Fixture::start(|mut stream, life| async move {
        request_head(&mut stream).await.unwrap();
        let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
        stream.write_all(head.as_bytes()).await.unwrap();
        tell_when_cut(stream, &life).await;
    })
    .await;
    let mut client = fixture.connect().await;
    client.send(GET).await;
    assert_eq!(client.head().await.status, 200);
    drop(client);
    assert_eq!(fixture.next_told().await, "cut");
    fixture.released("a").await;
}

#[tokio::test]
async fn an_answer_before_the_end_of_the_upload_reaches_the_client() {
    let fixture = Fixture::start(|mut stream, _| async move {
        request_head(&mut stream).await.unwrap();
        stream.write_all(b"HTTP/1.1 413 Too Large\r\ncontent-length: 4\r\n\r\nstop").await.unwrap();
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest).await;
    })
    .await;
    let mut client = fixture.connect().await;
    client.send(format!("{CHUNKED}3\r\nabc\r\n")).await;
    let answer = client.answer().await;
    assert_eq!((answer.status, answer.text()), (413, "stop"));
    fixture.released("a").await;
}
