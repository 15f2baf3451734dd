use std::fs;

use rustix::process::{Signal, kill_process};
use serde_json::Value;

use crate::{
    client::{eval, get, request},
    daemon::{CANARY, Daemon, eventually, is_gone},
};

#[test]
fn what_alice_sets_is_there_for_alice_and_not_for_bob() {
    let daemon = Daemon::repl();
    let first = eval(daemon.gateway, "alice", "let x = 41");
    assert_eq!((first.status, first.field("herd-session")), (200, Some("new")), "{first:?}");
    let second = eval(daemon.gateway, "alice", "x + 1");
    assert_eq!((second.body.as_str(), second.field("herd-session")), ("42", Some("resumed")), "{second:?}");
    assert_eq!(first.field("herd-worker"), second.field("herd-worker"));
    let bob = eval(daemon.gateway, "bob", "x + 1");
    assert_eq!(bob.status, 422, "{bob:?}");
    assert_ne!(bob.field("herd-worker"), first.field("herd-worker"));
}

#[test]
fn a_worker_that_dies_ends_its_session_and_the_next_request_starts_a_new_one() {
    let mut daemon = Daemon::repl();
    eval(daemon.gateway, "alice", "let x = 41");
    kill_process(daemon.worker_of("alice"), Signal::KILL).unwrap();
    // Two tasks write these, in either order.
    let messages = ["a session ended", "a session lost its worker"];
    let mut line = || daemon.log_line(|line| messages.iter().any(|message| line["message"] == *message));
    let mut lines = [line(), line()];
    lines.sort_by_key(|line| line["message"].to_string());
    let [ended, lost] = lines;
    assert_eq!(lost["exit"], "signal 9", "{lost}");
    assert_eq!((ended["level"].as_str(), ended["reason"].as_str()), (Some("INFO"), Some("crashed (signal 9)")));
    assert_eq!(ended["worker"], lost["worker"]);
    assert!(!daemon.log.join("\n").contains("alice"), "whoever knows a session's ID is in it: {:?}", daemon.log);
    let next = eval(daemon.gateway, "alice", "x");
    assert_eq!((next.status, next.field("herd-session")), (422, Some("new")), "{next:?}");
    let stats = daemon.page("/v1/stats");
    assert_eq!(stats["sessions_ended"]["crashed"], 1);
    let metrics = get(daemon.admin, "/metrics").body;
    assert!(metrics.contains("herd_worker_exits_total{pool=\"default\",reason=\"signalled\"} 1"), "{metrics}");
    assert_eq!(
        (&stats["worker_exits"]["signalled"], &stats["worker_exits"]["closed"]),
        (&Value::from(1), &Value::from(0))
    );
}

#[test]
fn a_worker_that_dies_while_it_answers_is_a_502_that_says_so() {
    let daemon = Daemon::repl();
    eval(daemon.gateway, "alice", "1");
    let worker = daemon.worker_of("alice");
    let fields = [("x-session-id", "alice"), ("content-length", "5")];
    let exchange = crate::client::Exchange::begin(daemon.gateway, "POST", "/eval", &fields);
    daemon.page_when("/v1/sessions/alice", |session| session["leases"] == 1);
    kill_process(worker, Signal::KILL).unwrap();
    let response = exchange.finish();
    assert_eq!((response.status, response.field("herd-error")), (502, Some("worker-crashed")), "{response:?}");
    assert_eq!(response.field("content-type"), Some("application/problem+json"));
}

#[test]
fn nothing_of_the_daemons_environment_reaches_workers_logs_or_answers() {
    let mut daemon = Daemon::run(&["--env", "OWN={{.WorkerID}}"], &["sh", "-c", "env; exec {{herd}} repl"]);
    eval(daemon.gateway, "alice", "1");
    let worker = daemon.worker_of("alice");
    let environment = fs::read_to_string(format!("/proc/{worker}/environ")).unwrap();
    assert!(environment.contains("OWN=worker-"), "{environment:?}");
    for pid in daemon.descendants() {
        let environment = fs::read_to_string(format!("/proc/{pid}/environ")).unwrap_or_default();
        assert!(!environment.contains(CANARY), "{pid}: {environment:?}");
    }
    let session = daemon.page("/v1/sessions/alice");
    let logs = get(daemon.admin, &format!("/v1/workers/{}/logs", session["worker"].as_str().unwrap())).body;
    assert!(logs.contains("PORT="), "{logs}");
    let pages = ["/v1/workers", "/v1/sessions", "/v1/stats", "/metrics"].map(|path| get(daemon.admin, path).body);
    daemon.signal(Signal::TERM);
    assert!(daemon.wait().success());
    let everything = [logs, pages.concat(), daemon.log.join("\n"), daemon.stdout()].concat();
    assert!(!everything.contains(CANARY) && !everything.contains("HERD_TEST_SECRET"), "{everything}");
}

#[test]
fn look_up_only_answers_404_and_starts_nothing() {
    let daemon = Daemon::serve(&["--lookup-only"]);
    let response = eval(daemon.gateway, "alice", "1");
    assert_eq!((response.status, response.json()["session"].as_str()), (404, Some("alice")), "{response:?}");
    assert_eq!(daemon.page("/v1/stats")["sessions_started"], 0);
}

#[test]
fn sessions_can_be_named_by_cookie_query_path_and_host() {
    let flags = ["--session-key", "header:X-Session-ID,query:s", "--session-key", "cookie:sid"];
    let daemon = Daemon::serve(&flags);
    eval(daemon.gateway, "alice", "1");
    let by_query = get(daemon.gateway, "/?s=alice");
    assert_eq!(by_query.field("herd-session"), Some("resumed"), "{by_query:?}");
    let by_cookie = request(daemon.gateway, "GET", "/", &[("cookie", "a=b; sid=alice")]);
    assert_eq!(by_cookie.field("herd-session"), Some("resumed"), "{by_cookie:?}");
    let by_nothing = get(daemon.gateway, "/");
    assert!(by_nothing.field("set-cookie").is_some_and(|cookie| cookie.starts_with("sid=")), "{by_nothing:?}");
}

#[test]
fn a_worker_that_takes_longer_than_allowed_is_a_504() {
    let daemon = Daemon::serve(&["--response-timeout", "100ms"]);
    assert_eq!(eval(daemon.gateway, "alice", "1").status, 200);
    assert_eq!(eval(daemon.gateway, "alice", "loop {}").status, 504);
}

#[test]
fn an_idle_session_ends_after_its_ttl_and_its_worker_with_it() {
    let daemon = Daemon::run(&["--ttl", "50ms"], &["{{herd}}", "repl"]);
    let response = eval(daemon.gateway, "alice", "1");
    assert_eq!(response.status, 200);
    daemon.page_when("/v1/stats", |stats| stats["sessions_ended"]["idle"] == 1);
    eventually(|| get(daemon.admin, "/v1/sessions/alice").status == 404);
}

#[test]
fn metrics_are_served_on_the_data_plane_without_a_session() {
    let daemon = Daemon::serve(&["--metrics-path", "/numbers"]);
    let metrics = get(daemon.gateway, "/numbers");
    assert_eq!((metrics.status, metrics.body.contains("herd_total_workers ")), (200, true), "{metrics:?}");
    assert_eq!(get(daemon.gateway, "/healthz").status, 200);
    assert_eq!(get(daemon.gateway, "/metrics").status, 400);
}

#[test]
fn ending_a_session_leaves_no_process_of_it() {
    let daemon = Daemon::run(&["--workers", "0..2", "--spare", "0"], &["sh", "-c", "sleep 1000 & exec {{herd}} repl"]);
    eval(daemon.gateway, "alice", "1");
    let processes = daemon.descendants();
    assert!(processes.len() >= 3, "init, sleep and the REPL: {processes:?}");
    let ended = request(daemon.admin, "DELETE", "/v1/sessions/alice", &[]);
    assert_eq!((ended.status, ended.json()["reason"].as_str()), (200, Some("released")), "{ended:?}");
    let left: Vec<_> = processes.into_iter().filter(|pid| !is_gone(*pid)).collect();
    assert!(left.is_empty(), "{left:?}");
}
