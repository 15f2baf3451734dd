use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;

use crate::{
    client::{Exchange, Response, eval, get},
    daemon::{Daemon, eventually, is_gone},
};

/// A request of alice's whose body is not complete, so that it holds a lease.
fn open_request(daemon: &Daemon) -> Exchange {
    let fields = [("x-session-id", "alice"), ("content-length", "5")];
    let mut exchange = Exchange::begin(daemon.gateway, "POST", "/eval", &fields);
    exchange.send("1");
    // Until the gateway has read the head, there is no such session.
    eventually(|| {
        let session = get(daemon.admin, "/v1/sessions/alice");
        session.status == 200 && session.json()["leases"] == 1
    });
    exchange
}

/// The log so far, without what is no JSON.
fn log(daemon: &Daemon) -> Vec<Value> {
    daemon.log.iter().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

#[track_caller]
fn assert_cut_by_the_shutdown(answer: &Response) {
    assert_eq!((answer.status, answer.field("herd-error")), (502, Some("session-ended")), "{answer:?}");
    assert!(answer.body.contains("shutdown"), "{answer:?}");
}

#[test]
fn sigterm_lets_a_request_finish_refuses_new_ones_and_leaves_nothing() {
    let mut daemon = Daemon::repl();
    let mut request = open_request(&daemon);
    let processes = daemon.descendants();
    daemon.signal(Signal::TERM);
    daemon.log_line(|line| line["message"] == "draining");

    let refused = eval(daemon.gateway, "bob", "1");
    assert_eq!((refused.status, refused.field("connection")), (503, Some("close")), "{refused:?}");
    assert!(refused.field("retry-after").is_some(), "{refused:?}");
    assert_eq!(get(daemon.admin, "/readyz").status, 503);
    assert_eq!(get(daemon.admin, "/healthz").status, 200);

    request.send(" + 1");
    let answer = request.finish();
    assert_eq!((answer.status, answer.body.as_str()), (200, "2"), "{answer:?}");
    assert_eq!(daemon.wait().code(), Some(0), "{:?}", daemon.log);
    assert_eq!(log(&daemon).last().unwrap()["message"], "stopped", "{:?}", daemon.log);
    let left: Vec<_> = processes.into_iter().filter(|pid| !is_gone(*pid)).collect();
    assert!(left.is_empty(), "{left:?}");
    assert!(!daemon.socket.exists(), "the control socket is gone as well");
}

#[test]
fn the_drain_timeout_ends_what_does_not_finish() {
    let mut daemon = Daemon::serve(&["--drain-timeout", "100ms"]);
    let request = open_request(&daemon);
    let processes = daemon.descendants();
    daemon.signal(Signal::INT);
    assert_eq!(daemon.wait().code(), Some(0), "{:?}", daemon.log);
    assert_cut_by_the_shutdown(&request.finish());
    assert!(processes.into_iter().all(is_gone));
    let lines = log(&daemon);
    let cut = lines.iter().find(|line| line["sessions"] == 1).unwrap_or_else(|| panic!("{:?}", daemon.log));
    assert_eq!(cut["level"], "WARN", "{cut}");
    let messages: Vec<_> = lines.iter().filter_map(|line| line["message"].as_str()).collect();
    assert_eq!(messages.last(), Some(&"stopped"), "{messages:?}");
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let mut daemon = Daemon::run(&["--stop-grace", "1h"], &["{{herd}}", "repl"]);
    let request = open_request(&daemon);
    let processes = daemon.descendants();
    daemon.signal(Signal::TERM);
    daemon.log_line(|line| line["message"] == "draining");
    daemon.signal(Signal::TERM);
    let status = daemon.wait();
    assert_eq!(status.code(), Some(1), "{:?}", daemon.log);
    let last = daemon.log.last().unwrap();
    assert_eq!(last, "herd: a second signal (SIGTERM) cut the drain short; what was running was killed");
    assert_cut_by_the_shutdown(&request.finish());
    let lines = log(&daemon);
    let stopping = lines.iter().skip_while(|line| line["message"] != "draining");
    assert!(stopping.clone().count() > 1, "{:?}", daemon.log);
    assert!(stopping.clone().all(|line| line["level"] != "WARN"), "it was asked for: {:?}", daemon.log);
    let ended: Vec<_> = lines.iter().filter(|line| line["message"] == "a session ended").collect();
    assert_eq!(ended.len(), 1, "{:?}", daemon.log);
    assert_eq!(ended[0]["reason"], "shutdown", "{ended:?}");
    assert!(processes.into_iter().all(is_gone));
}

#[test]
fn kill_9_of_the_daemon_leaves_no_process_of_any_worker() {
    let worker = ["sh", "-c", "(setsid sleep 1000 &) ; exec {{herd}} repl"];
    let mut daemon = Daemon::run(&["--workers", "2..4"], &worker);
    eval(daemon.gateway, "alice", "1");
    eval(daemon.gateway, "bob", "1");
    let processes = daemon.descendants();
    assert!(processes.len() >= 6, "two or more of init, REPL and sleep: {processes:?}");
    daemon.signal(Signal::KILL);
    daemon.wait();
    let killed = Instant::now();
    eventually(|| processes.iter().all(|pid| is_gone(*pid)));
    // The promise is 200 ms; a machine that runs many tests at once gets some more.
    assert!(killed.elapsed() < Duration::from_secs(2), "{:?}", killed.elapsed());
}

#[test]
fn an_idle_daemon_stops_at_once() {
    let mut daemon = Daemon::repl();
    eval(daemon.gateway, "alice", "1");
    let asked = Instant::now();
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.wait().code(), Some(0));
    assert!(asked.elapsed() < Duration::from_secs(5), "{:?}", asked.elapsed());
    let left = std::fs::read_dir(daemon.directory()).unwrap().flatten().map(|entry| entry.path()).collect::<Vec<_>>();
    assert!(left.is_empty(), "{left:?}");
}
