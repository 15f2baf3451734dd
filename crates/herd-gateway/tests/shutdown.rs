//! How a gateway stops serving.

mod fakes;

use std::{sync::Arc, time::Duration};

use fakes::{Fixture, request_head, response, say_id, soon};
use tokio::{io::AsyncWriteExt, net::TcpStream, sync::Semaphore};

const GET: &str = "GET / HTTP/1.1\r\nhost: h\r\nx-session-id: a\r\n\r\n";

#[tokio::test]
async fn requests_are_finished_idle_connections_closed_and_new_ones_refused() {
    let go = Arc::new(Semaphore::new(0));
    let gate = go.clone();
    let mut fixture = Fixture::start(move |mut stream, life| {
        let gate = gate.clone();
        async move {
            while request_head(&mut stream).await.is_some() {
                life.tell("asked");
                gate.acquire().await.unwrap().forget();
                stream.write_all(response("done").as_bytes()).await.unwrap();
            }
        }
    })
    .await;
    let mut busy = fixture.connect().await;
    busy.send(GET).await;
    assert_eq!(fixture.next_told().await, "asked");
    let mut unused = fixture.connect().await;
    let mut idle = fixture.connect().await;
    idle.send(GET).await;
    assert_eq!(fixture.next_told().await, "asked");
    go.add_permits(1);
    // Whichever of the two requests is answered first, one connection is idle then.
    let answered = tokio::select! {
        answer = idle.answer() => { answer }
        answer = busy.answer() => { std::mem::swap(&mut busy, &mut idle); answer }
    };
    assert_eq!(answered.field("connection"), None);
    fixture.shut_down();
    assert!(unused.is_closed().await);
    assert!(idle.is_closed().await);
    assert!(TcpStream::connect(fixture.address).await.is_err());
    assert!(!fixture.served.is_finished());
    go.add_permits(1);
    let last = busy.answer().await;
    assert_eq!((last.text(), last.field("connection")), ("done", Some("close")));
    assert!(busy.is_closed().await);
    soon(&mut fixture.served).await.unwrap();
    assert_eq!(fixture.gateway.stats().connections, 0);
}

#[tokio::test]
async fn a_head_that_has_begun_is_still_answered() {
    let mut fixture = Fixture::start(say_id).await;
    let mut client = fixture.connect().await;
    client.send(&GET[..20]).await;
    soon(async {
        while fixture.gateway.stats().connections == 0 {
            tokio::task::yield_now().await;
        }
        // The bytes are there; the connection's task has only to look.
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    fixture.shut_down();
    client.send(&GET[20..]).await;
    let answer = client.answer().await;
    assert_eq!((answer.text(), answer.field("connection")), ("worker-1", Some("close")));
    soon(&mut fixture.served).await.unwrap();
}

#[tokio::test]
async fn upgraded_connections_go_on_until_the_pool_has_drained() {
    let mut fixture = Fixture::start(|mut stream, _| async move {
        request_head(&mut stream).await.unwrap();
        let switch = "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: raw\r\n\r\n";
        stream.write_all(switch.as_bytes()).await.unwrap();
        let (mut reader, mut writer) = stream.split();
        let _ = tokio::io::copy(&mut reader, &mut writer).await;
    })
    .await;
    let mut client = fixture.connect().await;
    client.send(GET.replace("\r\n\r\n", "\r\nconnection: upgrade\r\nupgrade: raw\r\n\r\n")).await;
    assert_eq!(client.head().await.status, 101);
    fixture.shut_down();
    client.send("still there?").await;
    assert_eq!(client.read_exactly(12).await.unwrap(), b"still there?");
    assert!(!fixture.served.is_finished());
    soon(fixture.pool.drain(Duration::from_millis(50))).await;
    assert!(client.is_closed().await);
    soon(&mut fixture.served).await.unwrap();
}

#[tokio::test]
async fn dropping_the_server_cuts_what_is_left() {
    let mut fixture = Fixture::start(|mut stream, life| async move {
        request_head(&mut stream).await.unwrap();
        life.tell("asked");
        assert!(request_head(&mut stream).await.is_none());
        life.tell("cut");
    })
    .await;
    let mut client = fixture.connect().await;
    client.send(GET).await;
    assert_eq!(fixture.next_told().await, "asked");
    fixture.served.abort();
    assert!(client.is_closed().await);
    assert_eq!(fixture.next_told().await, "cut");
    fixture.released("a").await;
}
