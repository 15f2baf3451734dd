use std::{
    collections::{HashMap, HashSet},
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use hyper::Method;
use rustix::process::Signal;

use crate::{daemon::Daemon, processes::Watch};

/// Leaves its session twice, with a daemon's double fork each time, and ignores what could end it politely.
const DAEMONIZER: &str = r#"
import os, signal, sys, http.server
for sig in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
    signal.signal(sig, signal.SIG_IGN)
for _ in range(2):
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            os.setsid()
            os.chdir("/")
            while True:
                signal.pause()
        os._exit(0)
    os.wait()
http.server.test(http.server.SimpleHTTPRequestHandler, port=int(sys.argv[1]), bind="127.0.0.1")
"#;

#[tokio::test]
async fn kill_9_of_the_daemon_leaves_no_process_of_any_worker_within_200_ms() {
    let flags = ["--health-path", "/", "--workers", "4..8"];
    let daemon = Daemon::run(&flags, &["python3", "-c", DAEMONIZER, "{{.Port}}"]);
    for session in ["alice", "bob"] {
        assert_eq!(daemon.gateway.get(Some(session), "/").await.status, 200);
    }
    let descendants = daemon.descendants();
    let marked = daemon.marked();
    // Each worker is a server and two that left it; there are at least those of two sessions, and their inits.
    assert!(marked.pids().count() >= 6, "{marked:?}");
    assert!(descendants.pids().count() >= 8, "{descendants:?}");
    assert!(marked.pids().all(|pid| descendants.pids().any(|other| other == pid)), "all are the inits' descendants");

    let watch = Watch::of(descendants.pids().chain(marked.pids()).chain([daemon.pid()]));
    daemon.signal(Signal::KILL);
    watch.wait_for_exits(Duration::from_millis(200));
    assert!(daemon.marked().is_empty(), "{:?}", daemon.marked());
}

#[tokio::test]
async fn two_hundred_sessions_on_ten_workers_are_all_answered_or_told_503_in_time() {
    let acquire_timeout = Duration::from_secs(5);
    let daemon = Daemon::repl(&["--workers", "1..10", "--acquire-timeout", "5s", "--ttl", "200ms"]);
    let start = Instant::now();
    let answers = join_all((0..200).map(|number| async move {
        let session = format!("session-{number}");
        // What another session left would be seen.
        let script = format!(
            "let seen = if is_def_var(\"owner\") {{ owner }} else {{ \"nobody\" }}; let owner = {number}; seen"
        );
        (daemon.gateway.eval(&session, script).await, start.elapsed())
    }))
    .await;

    let mut owners = HashMap::new();
    for (number, (answer, after)) in answers.iter().enumerate() {
        assert!(*after < acquire_timeout + Duration::from_secs(5), "session-{number} was answered after {after:?}");
        match answer.status {
            200 => {
                assert_eq!((answer.body.as_str(), answer.field("herd-session")), ("nobody", "new"));
                let other = owners.insert(answer.worker().to_owned(), number);
                assert_eq!(other, None, "{} served two sessions", answer.worker());
            }
            503 => assert_ne!(answer.field("retry-after"), "", "session-{number}: {}", answer.body),
            status => panic!("session-{number} was answered {status}: {}", answer.body),
        }
    }
    // Ten at once, and their places again and again: a session ends 200 ms after its request.
    assert!(owners.len() > 10, "only {} sessions were served", owners.len());
    let stats = daemon.admin("/v1/stats").await;
    assert_eq!(stats["waiting"], 0, "{stats}");
    assert!(stats["workers"]["total"].as_u64().unwrap() <= 10, "{stats}");
}

#[tokio::test]
async fn five_hundred_requests_for_one_new_session_start_one_worker() {
    let daemon = Daemon::repl(&["--workers", "0..10", "--spare", "0"]);
    let gateway = daemon.gateway;
    let request = || gateway.request(Method::POST, Some("alice"), "/eval", "1 + 1");
    let answers = join_all((0..500).map(|_| gateway.send(request()))).await;

    let workers: HashSet<_> = answers.iter().map(|answer| answer.worker().to_owned()).collect();
    assert_eq!(workers.len(), 1, "{workers:?}");
    assert!(answers.iter().all(|answer| answer.status == 200 && answer.body == "2"));
    let started = answers.iter().filter(|answer| answer.field("herd-session") == "new").count();
    assert_eq!(started, 1, "one request started the session");
    let stats = daemon.admin("/v1/stats").await;
    assert_eq!((&stats["sessions_started"], &stats["workers"]["total"]), (&1.into(), &1.into()), "{stats}");
}
