//! WebSocket and other protocols that take a connection over.

mod fakes;

use std::time::Duration;

use fakes::{Client, Fixture, Life, PATIENCE, Setup, request_head, soon};
use futures_util::{SinkExt, StreamExt};
use herd_gateway::{GatewayOptions, close_code};
use herd_pool::{EndReason, ExitStatus, IdleBy};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_tungstenite::{
    WebSocketStream, accept_async, client_async,
    tungstenite::{Message, client::IntoClientRequest, protocol::CloseFrame},
};

const RAW: &str =
    "GET / HTTP/1.1\r\nhost: h\r\nx-session-id: a\r\nconnection: keep-alive, Upgrade\r\nupgrade: raw/1\r\n\r\n";

async fn websocket(fixture: &Fixture) -> WebSocketStream<TcpStream> {
    let stream = TcpStream::connect(fixture.address).await.unwrap();
    let mut request = format!("ws://{}/ws", fixture.address).into_client_request().unwrap();
    request.headers_mut().insert("x-session-id", "a".parse().unwrap());
    let (socket, response) = soon(client_async(request, stream)).await.unwrap();
    assert_eq!(response.headers()["herd-worker"], "worker-1");
    socket
}

/// Answers each message with itself.
async fn echo(stream: TcpStream, life: Life) {
    let mut socket = accept_async(stream).await.unwrap();
    while let Some(Ok(message)) = socket.next().await {
        if (message.is_text() || message.is_binary()) && socket.send(message).await.is_err() {
            break;
        }
    }
    life.tell("closed");
}

/// Accepts a connection of the protocol `raw/1` and tells what comes on it.
async fn raw(mut stream: TcpStream, life: Life) {
    let head = request_head(&mut stream).await.unwrap();
    assert!(head.contains("connection: upgrade\r\n") && head.contains("upgrade: raw/1\r\n"), "{head}");
    let switch = "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: raw/1\r\n\r\nhello";
    stream.write_all(switch.as_bytes()).await.unwrap();
    let mut buf = [0; 1024];
    while let Ok(read @ 1..) = stream.read(&mut buf).await {
        life.tell(String::from_utf8_lossy(&buf[..read]));
        if stream.write_all(&buf[..read]).await.is_err() {
            break;
        }
    }
    life.tell("end");
    // The other direction is still open.
    let _ = stream.write_all(b"bye").await;
}

async fn raw_client(fixture: &Fixture) -> Client {
    let mut client = fixture.connect().await;
    client.send(RAW).await;
    let answer = client.head().await;
    assert_eq!(answer.status, 101);
    assert_eq!(answer.field("upgrade"), Some("raw/1"));
    assert_eq!(answer.field("connection"), Some("upgrade"));
    assert_eq!(answer.field("herd-session"), Some("new"));
    client
}

#[tokio::test]
async fn a_client_that_breaks_off_while_its_bytes_wait_for_the_worker_gives_its_lease_back() {
    let fixture = Fixture::start(|mut stream, _| async move {
        request_head(&mut stream).await.unwrap();
        let switch = "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: raw/1\r\n\r\n";
        stream.write_all(switch.as_bytes()).await.unwrap();
        std::future::pending::<()>().await;
    })
    .await;
    raw_client(&fixture).await.flood_and_reset().await;
    fixture.released("a").await;
}

#[tokio::test]
async fn websocket_messages_of_all_sizes_come_back_whole() {
    let mut fixture = Fixture::start(echo).await;
    let mut socket = websocket(&fixture).await;
    for len in [0, 1, 125, 126, 65_535, 65_536, 1 << 20] {
        let message = Message::binary(vec![b'm'; len]);
        socket.send(message.clone()).await.unwrap();
        assert_eq!(soon(socket.next()).await.unwrap().unwrap(), message);
    }
    let session = fixture.pool.session(&"a".parse().unwrap()).unwrap();
    assert_eq!(session.leases, 1, "the session is in use for as long as the connection is open");
    assert!(session.bytes_in > 1 << 20 && session.bytes_out > 1 << 20);
    assert_eq!(fixture.gateway.stats().upgrades, 1);
    socket.close(None).await.unwrap();
    while soon(socket.next()).await.is_some() {}
    assert_eq!(fixture.next_told().await, "closed");
    fixture.released("a").await;
    assert_eq!(fixture.gateway.stats().upgrades, 0);
}

#[tokio::test]
async fn many_messages_on_their_way_in_both_directions_keep_their_order() {
    let fixture = Fixture::start(echo).await;
    let (mut sink, mut stream) = websocket(&fixture).await.split();
    let sending = tokio::spawn(async move {
        for number in 0..5000_u32 {
            sink.send(Message::binary(vec![u8::try_from(number % 251).unwrap(); 1000])).await.unwrap();
        }
        sink
    });
    for number in 0..5000_u32 {
        let message = soon(stream.next()).await.unwrap().unwrap();
        assert_eq!(message.into_data()[..], [u8::try_from(number % 251).unwrap(); 1000]);
    }
    drop(sending.await.unwrap());
}

#[tokio::test]
async fn bytes_beside_the_heads_are_not_lost_and_either_half_closes_alone() {
    let mut fixture = Fixture::start(raw).await;
    let mut client = fixture.connect().await;
    // The client does not wait for the worker's consent.
    client.send(format!("{RAW}early")).await;
    assert_eq!(client.head().await.status, 101);
    assert_eq!(client.read_exactly(10).await.unwrap(), b"helloearly");
    assert_eq!(fixture.next_told().await, "early");
    client.stream.shutdown().await.unwrap();
    assert_eq!(fixture.next_told().await, "end");
    assert_eq!(client.read_exactly(3).await.unwrap(), b"bye");
    assert!(client.is_closed().await);
    fixture.released("a").await;
}

#[tokio::test]
async fn a_worker_learns_that_the_client_of_an_upgraded_connection_left() {
    let mut fixture = Fixture::start(raw).await;
    let client = raw_client(&fixture).await;
    drop(client);
    assert_eq!(fixture.next_told().await, "end");
    fixture.released("a").await;
}

#[tokio::test]
async fn an_upgrade_that_the_worker_declines_is_an_ordinary_response() {
    let fixture = Fixture::start(|mut stream, _| async move {
        while request_head(&mut stream).await.is_some() {
            stream.write_all(fakes::response("no").as_bytes()).await.unwrap();
        }
    })
    .await;
    let mut client = fixture.connect().await;
    for _ in 0..2 {
        client.send(RAW).await;
        let answer = client.answer().await;
        assert_eq!((answer.status, answer.text()), (200, "no"));
    }
    assert_eq!(fixture.gateway.stats().upstream_connections_total, 1);
}

/// Ends the session in some way and returns the close frame that the client gets.
async fn goodbye<End>(end: impl FnOnce(herd_pool::Pool<fakes::FakeFactory>, Life) -> End) -> (u16, String)
where
    End: Future<Output = ()> + Send + 'static,
{
    let fixture = Fixture::start(echo).await;
    let mut socket = websocket(&fixture).await;
    socket.send(Message::text("hi")).await.unwrap();
    assert_eq!(soon(socket.next()).await.unwrap().unwrap(), Message::text("hi"));
    let ended = tokio::spawn(end(fixture.pool.clone(), fixture.last_worker()));
    let frame = loop {
        match soon(socket.next()).await {
            Some(Ok(Message::Close(frame))) => break frame.expect("the reason is told"),
            Some(Ok(_)) => {}
            other => panic!("{other:?}"),
        }
    };
    drop(socket);
    soon(ended).await.unwrap();
    fixture.released("a").await;
    let CloseFrame { code, reason } = frame;
    (code.into(), reason.to_string())
}

#[tokio::test]
async fn a_websocket_client_is_told_why_its_session_ended() {
    let id = || "a".parse().unwrap();
    let released = goodbye(|pool, _| async move {
        pool.end(&id()).await.unwrap();
    })
    .await;
    assert_eq!(released, (4000, "released".into()));
    let killed = goodbye(|pool, _| async move {
        pool.kill(&id()).await.unwrap();
    })
    .await;
    assert_eq!(killed, (4004, "killed".into()));
    let crashed = goodbye(|_, worker| async move { worker.crash() }).await;
    assert_eq!(crashed, (4005, "crashed".into()));
    assert_eq!(crashed.0, close_code(EndReason::Crashed(ExitStatus::Signal(9))));
    let drained = goodbye(|pool, _| async move { pool.drain(Duration::from_millis(10)).await }).await;
    assert_eq!(drained, (4010, "shutdown".into()));
}

#[tokio::test]
async fn no_goodbye_is_put_into_the_middle_of_a_frame() {
    let fixture = Fixture::start(|mut stream, life| async move {
        request_head(&mut stream).await.unwrap();
        let switch = "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";
        stream.write_all(switch.as_bytes()).await.unwrap();
        // A text frame of 5 bytes, of which 2 come.
        stream.write_all(b"\x81\x05he").await.unwrap();
        let mut go = [0; 1];
        let _ = stream.read(&mut go).await;
        life.crash();
    })
    .await;
    let mut client = fixture.connect().await;
    client.send(RAW.replace("raw/1", "websocket")).await;
    assert_eq!(client.head().await.status, 101);
    assert_eq!(client.read_exactly(4).await.unwrap(), b"\x81\x05he");
    client.send("x").await;
    assert!(client.is_closed().await);
    assert!(client.unread.is_empty(), "{:?}", client.unread);
    fixture.released("a").await;
}

#[tokio::test]
async fn a_worker_that_says_goodbye_itself_is_not_talked_over() {
    let fixture = Fixture::start(|stream, life| async move {
        let mut socket = accept_async(stream).await.unwrap();
        let frame = CloseFrame { code: 1000.into(), reason: "done".into() };
        socket.close(Some(frame)).await.unwrap();
        while socket.next().await.is_some() {}
        life.crash();
    })
    .await;
    let mut socket = websocket(&fixture).await;
    let message = soon(socket.next()).await.unwrap().unwrap();
    assert!(matches!(&message, Message::Close(Some(frame)) if frame.reason == "done"), "{message:?}");
    while let Some(message) = soon(socket.next()).await {
        assert!(!matches!(message, Ok(Message::Close(_))), "{message:?}");
    }
}

#[tokio::test]
async fn an_upgraded_connection_is_cut_when_its_session_has_ended() {
    // With reuse, nobody else would cut it: the worker lives on as a spare.
    let pool = |builder: herd_pool::PoolBuilder<_>| builder.max_workers(1).worker_reuse(true);
    let options = GatewayOptions { upgrade_grace: Duration::from_millis(50), ..GatewayOptions::default() };
    let mut fixture = Setup { pool, options, ..Setup::default() }.start(raw).await;
    let mut client = raw_client(&fixture).await;
    let session = "a".parse().unwrap();
    let ended = fixture.pool.end(&session);
    let (ended, closed) = tokio::join!(soon(ended), client.is_closed());
    assert_eq!(ended, Ok(EndReason::Released));
    assert!(closed);
    assert_eq!(fixture.next_told().await, "end");
}

#[tokio::test]
async fn bytes_on_an_upgraded_connection_keep_its_session_from_being_idle() {
    let pool = |builder: herd_pool::PoolBuilder<_>| {
        builder.min_workers(0).spare(0).ttl(Duration::from_millis(500)).idle_by(IdleBy::Bytes)
    };
    let fixture = Setup { pool, ..Setup::default() }.start(echo).await;
    let mut socket = websocket(&fixture).await;
    let start = tokio::time::Instant::now();
    while start.elapsed() < Duration::from_millis(1500) {
        socket.send(Message::text("hi")).await.unwrap();
        assert_eq!(soon(socket.next()).await.unwrap().unwrap(), Message::text("hi"));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let last = soon(socket.next()).await.unwrap().unwrap();
    assert!(matches!(&last, Message::Close(Some(frame)) if u16::from(frame.code) == 4001), "{last:?}");
    assert!(start.elapsed() < PATIENCE);
}
