use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use hyper::Method;
use tokio::{net::TcpStream, time::timeout};
use tokio_tungstenite::{WebSocketStream, tungstenite::Message};

use crate::daemon::{Daemon, HERD};

/// An evaluation that would never end. Whoever waits for another one behind it waits in vain unless it is cancelled.
const ENDLESS: &str = "loop {}";

async fn say(socket: &mut WebSocketStream<TcpStream>, script: &str) {
    socket.send(Message::text(script)).await.unwrap();
}

async fn hear(socket: &mut WebSocketStream<TcpStream>) -> String {
    let message = timeout(Duration::from_secs(30), socket.next()).await.expect("an answer in time");
    message.expect("an answer").unwrap().into_text().unwrap().to_string()
}

#[tokio::test]
async fn what_alice_defines_is_there_in_her_next_request_and_not_for_bob() {
    let daemon = Daemon::serve(&[]);
    let gateway = daemon.gateway;

    let first = gateway.eval("alice", "let x = 41").await;
    assert_eq!((first.status, first.body.as_str(), first.field("herd-session")), (200, "", "new"));
    let second = gateway.eval("alice", "x + 1").await;
    assert_eq!((second.status, second.body.as_str(), second.field("herd-session")), (200, "42", "resumed"));
    assert_eq!(second.field("content-type"), "text/plain; charset=utf-8");
    assert_eq!(first.worker(), second.worker());

    let bob = gateway.eval("bob", "x + 1").await;
    assert_eq!(bob.status, 422);
    assert_eq!(bob.body, "Variable not found: x (line 1, position 1)");
    assert_ne!(bob.worker(), first.worker());

    gateway.eval("alice", "fn f(a) { a * 2 }").await;
    assert_eq!(gateway.eval("alice", "print(`f is here`); f(21)").await.body, "f is here\n42");
}

#[tokio::test]
async fn a_long_evaluation_does_not_make_its_worker_look_dead() {
    let daemon = Daemon::repl(&["--health-interval", "20ms"]);
    let gateway = daemon.gateway;
    let before = gateway.eval("alice", "let x = 41").await;
    let (_, pid) = daemon.worker_of("alice").await;

    // Busy, and not asleep, for some fifty intervals.
    let script = "let start = timestamp(); while start.elapsed < 1.0 {} x + 1";
    let long = gateway.send_in_background(gateway.request(Method::POST, Some("alice"), "/eval", script));
    let mut answered_meanwhile = 0;
    while !long.is_finished() {
        let health = gateway.get(Some("alice"), "/health").await;
        assert_eq!((health.status, health.body.as_str()), (200, "ok"));
        answered_meanwhile += 1;
    }
    assert!(answered_meanwhile >= 5, "/health was answered {answered_meanwhile} times while the worker evaluated");

    let long = long.await.unwrap();
    assert_eq!((long.status, long.body.as_str(), long.worker()), (200, "42", before.worker()));
    assert_eq!(daemon.worker_of("alice").await, (before.worker().to_owned(), pid));
}

#[tokio::test]
async fn a_websocket_talks_to_the_same_session_as_requests_do() {
    let daemon = Daemon::repl(&[]);
    daemon.gateway.eval("alice", "let x = 41").await;
    let mut socket = daemon.gateway.websocket("alice").await;
    say(&mut socket, "x + 1").await;
    assert_eq!(hear(&mut socket).await, "42");
    // Several at once are answered in order.
    for script in ["let y = x", "y * 2", "nowhere", "print(1); 2"] {
        say(&mut socket, script).await;
    }
    let mut answers = Vec::new();
    for _ in 0..4 {
        answers.push(hear(&mut socket).await);
    }
    assert_eq!(answers, ["", "82", "error: Variable not found: nowhere (line 1, position 1)", "1\n2"]);
    assert_eq!(daemon.gateway.eval("alice", "y").await.body, "41");
}

#[tokio::test]
async fn a_client_that_goes_away_takes_its_evaluation_with_it() {
    let daemon = Daemon::repl(&[]);
    let gateway = daemon.gateway;
    gateway.eval("alice", "let x = 41").await;

    let endless = gateway.send_in_background(gateway.request(Method::POST, Some("alice"), "/eval", ENDLESS));
    // The evaluation has begun, or is on its way: either way it must not be in the way for good.
    gateway.get(Some("alice"), "/health").await;
    endless.abort();
    assert_eq!(gateway.eval("alice", "x + 1").await.body, "42");

    let mut socket = gateway.websocket("alice").await;
    say(&mut socket, "let y = 1").await;
    hear(&mut socket).await;
    say(&mut socket, ENDLESS).await;
    drop(socket);
    assert_eq!(gateway.eval("alice", "x + y").await.body, "42");
}

#[tokio::test]
async fn a_script_that_outgrows_the_limits_ends_its_own_session_only() {
    let daemon = Daemon::repl(&["--workers", "2..4"]);
    let gateway = daemon.gateway;
    gateway.eval("alice", "let x = 41").await;
    let before = gateway.eval("bob", "let x = 1").await;
    // The engine does not count what is assigned into a map.
    let bomb =
        "let s = \"x\"; while s.len() < 500000 { s += s } let m = #{}; let n = 0; loop { m[`${n}`] = s + n; n += 1 }";
    let crash = gateway.eval("bob", bomb).await;
    assert_eq!((crash.status, crash.field("herd-error")), (502, "worker-crashed"), "{}", crash.body);
    let after = gateway.eval("bob", "x").await;
    assert_eq!((after.status, after.field("herd-session")), (422, "new"));
    assert_ne!(after.worker(), before.worker());
    assert_eq!(gateway.eval("alice", "x + 1").await.body, "42");
}

#[tokio::test]
async fn what_is_no_script_is_refused_with_the_reason() {
    let daemon = Daemon::repl(&[]);
    let gateway = daemon.gateway;
    assert_eq!(gateway.eval("alice", vec![b' '; 1 << 20]).await.status, 200);
    assert_eq!(gateway.eval("alice", vec![b' '; (1 << 20) + 1]).await.status, 413);
    assert_eq!(gateway.eval("alice", vec![0xff]).await.status, 400);
    assert_eq!(gateway.get(Some("alice"), "/eval").await.status, 405);
    assert_eq!(gateway.get(Some("alice"), "/ws").await.status, 400);
    assert_eq!(gateway.get(Some("alice"), "/elsewhere").await.status, 404);
    let mut foreign = gateway.request(Method::POST, Some("alice"), "/eval", "1");
    foreign.headers_mut().insert("sec-fetch-site", "cross-site".parse().unwrap());
    assert_eq!(gateway.send(foreign).await.status, 403);
}

#[tokio::test]
async fn it_listens_on_inherited_and_on_unix_sockets_too() {
    let inherited = Daemon::repl(&["--worker-listen", "inherit"]);
    assert_eq!(inherited.gateway.eval("alice", "1 + 1").await.body, "2");
    let unix = Daemon::run(&["--worker-listen", "socket"], &[HERD, "repl", "--socket", "{{.Socket}}"]);
    assert_eq!(unix.gateway.eval("alice", "1 + 1").await.body, "2");
}
