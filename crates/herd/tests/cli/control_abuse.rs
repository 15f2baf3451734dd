//! What clients of the control plane do that they should not.

use std::{
    io::{ErrorKind, Read as _, Write as _},
    os::unix::net::UnixStream,
    path::Path,
    time::{Duration, Instant},
};

use crate::{
    client::PATIENCE,
    control_client::{Plane, acquire_request, framed},
    control_sessions::repl,
    daemon::{Daemon, eventually},
};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// A frame of settings without any.
const SETTINGS: &[u8] = b"\0\0\0\x04\0\0\0\0\0";

fn connect(socket: &Path) -> UnixStream {
    let stream = UnixStream::connect(socket).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Sends bytes and reads until the daemon closes.
#[track_caller]
fn exchange(socket: &Path, sent: &[u8]) -> Vec<u8> {
    let mut stream = connect(socket);
    // The daemon may have closed before all was sent.
    let _ = stream.write_all(sent);
    until_closed(stream)
}

#[track_caller]
fn until_closed(mut stream: UnixStream) -> Vec<u8> {
    let mut read = Vec::new();
    match stream.read_to_end(&mut read) {
        Ok(_) => {}
        Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
        Err(error) => panic!("the daemon does not close: {error}, after {:?}", String::from_utf8_lossy(&read)),
    }
    read
}

/// Nothing is left of what was done, and others are served as before.
#[track_caller]
fn assert_unharmed(mut daemon: Daemon) {
    assert!(daemon.command(&["ps"]).status.success());
    let stats = daemon.page_when("/v1/stats", |stats| stats["sessions"] == 0 && stats["waiting"] == 0);
    assert_eq!(stats["sessions"], 0);
    daemon.signal(rustix::process::Signal::TERM);
    assert!(daemon.wait().success());
    assert!(!daemon.log.iter().any(|line| line.contains("panic")), "{}", daemon.log.join("\n"));
}

#[test]
fn bytes_that_are_no_frames_of_http2_end_the_connection() {
    let daemon = Daemon::repl();
    let frame = |length: u32, kind: u8, flags: u8, stream: u32, payload: &[u8]| {
        [&length.to_be_bytes()[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
    };
    for (what, frames) in [
        ("a frame of 16 MiB", [SETTINGS, &frame(0x00ff_ffff, 0, 0, 1, b"x")].concat()),
        ("data on a stream that is idle", [SETTINGS, &frame(1, 0, 0, 1, b"x")].concat()),
        ("headers that are no HPACK", [SETTINGS, &frame(4, 1, 4, 1, &[0xff; 4])].concat()),
        ("headers on an even stream", [SETTINGS, &frame(1, 1, 4, 2, &[0x82])].concat()),
        ("a continuation of nothing", [SETTINGS, &frame(1, 9, 4, 1, &[0x82])].concat()),
        ("a window that grows by nothing", [SETTINGS, &frame(4, 8, 0, 0, &[0; 4])].concat()),
        ("settings that are cut", [SETTINGS, &frame(5, 4, 0, 0, &[0; 5])].concat()),
        ("a ping that is too short", [SETTINGS, &frame(1, 6, 0, 0, &[0])].concat()),
    ] {
        let read = exchange(&daemon.socket, &[PREFACE, &frames].concat());
        // A GOAWAY frame (kind 7) is the last thing said, if anything.
        assert!(!read.windows(4).any(|bytes| bytes == b"HTTP"), "{what}: {read:?}");
    }
    // Random bytes, the same each time.
    let mut state = 0x2545_f491_u32;
    for _ in 0..200 {
        let noise: Vec<u8> = std::iter::repeat_with(|| {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            state.to_le_bytes()[0]
        })
        .take(300)
        .collect();
        let mut stream = connect(&daemon.socket);
        let _ = stream.write_all(PREFACE).and_then(|()| stream.write_all(&noise));
        let _ = stream.shutdown(std::net::Shutdown::Write);
        until_closed(stream);
    }
    assert_unharmed(daemon);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn requests_that_are_no_grpc_are_refused_in_the_way_that_says_why() {
    let daemon = Daemon::repl();
    let mut plane = Plane::connect(&daemon.socket).await;
    let acquire = "/herd.v1.HerdService/Acquire";
    let good = framed(&acquire_request("", 0));
    for (content_type, status) in
        [("application/json", 415), ("text/plain", 415), ("application/grpc+json", 415), ("application/grpc-web", 415)]
    {
        let response = plane.send(acquire, &[("content-type", content_type)], good.clone()).await;
        assert_eq!(response.status(), status, "{content_type}");
        assert_eq!(response.headers()["content-type"], "application/problem+json", "{content_type}");
    }
    for (path, code) in [("/herd.v1.HerdService/Nothing", "12"), ("/herd.v2.HerdService/Acquire", "12"), ("/", "12")] {
        let response = plane.send(path, &[], good.clone()).await;
        assert_eq!((response.status().as_u16(), &response.headers()["grpc-status"]), (200, &code.parse().unwrap()));
    }
    let response = plane.send(acquire, &[("grpc-encoding", "gzip")], good.clone()).await;
    assert_eq!(response.headers()["grpc-status"], "12", "no compression");

    let mut huge = good.clone();
    huge[1..5].copy_from_slice(&u32::MAX.to_be_bytes());
    let mut compressed = good.clone();
    compressed[0] = 1;
    let mut odd = good.clone();
    odd[0] = 7;
    for (what, body) in [
        ("no protobuf", framed(&[0xff; 20])),
        ("a text that is longer than the message", framed(&[0x0a, 0x7f, b'x'])),
        ("a text that is no UTF-8", framed(&[0x0a, 1, 0xff])),
        ("a message of 4 GiB", huge),
        ("a message of 5000 bytes", framed(&vec![0; 5000])),
        ("a compressed message", compressed),
        ("an unknown flag", odd),
        ("a message that is cut", good[..3].to_vec()),
    ] {
        for path in [acquire, "/herd.v1.HerdService/Status", "/grpc.health.v1.Health/Check"] {
            // A request for the status has no fields, and those that it does not know are passed over.
            if what == "a text that is no UTF-8" && path.ends_with("/Status") {
                continue;
            }
            let mut plane = Plane::connect(&daemon.socket).await;
            let response = plane.send(path, &[], body.clone()).await;
            assert_eq!(response.status(), 200, "{what} to {path}");
            let head = response.headers().clone();
            let trailers = http_body_util::BodyExt::collect(response.into_body()).await.unwrap().trailers().cloned();
            let status = head.get("grpc-status").cloned().or_else(|| trailers?.get("grpc-status").cloned());
            let refused = status.as_ref().is_some_and(|status| status != "0");
            assert!(refused, "{what} to {path}: {status:?}");
        }
    }
    let over_http1 = "POST /herd.v1.HerdService/Status HTTP/1.1\r\nhost: herd\r\ncontent-type: application/grpc\r\n\
                      content-length: 5\r\nconnection: close\r\n\r\n\0\0\0\0\0";
    let answer = String::from_utf8(exchange(&daemon.socket, over_http1.as_bytes())).unwrap();
    assert!(answer.starts_with("HTTP/1.1 505 ") && answer.contains("gRPC needs HTTP/2"), "{answer}");
    assert_unharmed(daemon);
}

#[test]
fn one_process_cannot_take_all_connections_nor_the_commands_place() {
    let daemon = Daemon::repl();
    let streams: Vec<_> = (0..700).map(|_| connect(&daemon.socket)).collect();
    let is_open = |stream: &UnixStream| {
        stream.set_nonblocking(true).unwrap();
        let mut stream = stream;
        matches!(stream.read(&mut [0]), Err(error) if error.kind() == ErrorKind::WouldBlock)
    };
    // `ps` comes last, so that when it is answered all before it have been accepted or refused.
    assert!(daemon.command(&["ps"]).status.success());
    let open = streams.iter().filter(|stream| is_open(stream)).count();
    assert_eq!(open, 128);
    drop(streams);
    // There is room again when the daemon has seen that they are gone.
    eventually(|| {
        let mut again = connect(&daemon.socket);
        let asked = again.write_all(b"GET /healthz HTTP/1.1\r\nhost: herd\r\nconnection: close\r\n\r\n");
        asked.is_ok() && until_closed(again).starts_with(b"HTTP/1.1 200 ")
    });
    assert_unharmed(daemon);
}

#[test]
fn a_connection_on_which_nothing_comes_is_closed() {
    let daemon = Daemon::repl();
    let since = Instant::now();
    let waiting: Vec<_> = [&b""[..], b"P", &PREFACE[..10], b"GET /v1/sessions HTTP/1.1\r\nhost: he", b"\0"]
        .into_iter()
        .map(|sent| {
            let mut stream = connect(&daemon.socket);
            stream.write_all(sent).unwrap();
            stream
        })
        .collect();
    for stream in waiting {
        until_closed(stream);
    }
    assert!(since.elapsed() < Duration::from_secs(25), "{:?}", since.elapsed());
    assert_unharmed(daemon);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_thousand_streams_that_break_at_any_moment_leave_nothing() {
    let daemon = repl(&["--workers", "0..2", "--spare", "0"]);
    for round in 0..20 {
        let mut plane = Plane::connect(&daemon.socket).await;
        let mut streams = Vec::new();
        for _ in 0..50 {
            let stream = plane.acquire(&[]).await;
            stream.ask("", 0);
            streams.push(stream);
        }
        // Some are waiting, perhaps one has its session; one half is reset, then all are cut.
        if round % 2 == 0 {
            streams.truncate(25);
        }
        plane.cut();
    }
    daemon.page_when("/v1/stats", |stats| stats["sessions"] == 0 && stats["waiting"] == 0);
    daemon.page_when("/v1/workers", |workers| {
        workers["items"].as_array().unwrap().iter().all(|worker| worker["session"].is_null())
    });
    assert_unharmed(daemon);
}
