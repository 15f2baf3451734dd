//! Events and logs as they happen, for those who read, come back, or do not read.

use std::{fs, net::SocketAddr};

use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

use crate::{
    client::{Exchange, eval, get, request},
    daemon::Daemon,
};

#[track_caller]
fn follow(to: SocketAddr, path: &str, fields: &[(&str, &str)]) -> Exchange {
    let mut stream = Exchange::begin(to, "GET", path, fields);
    let (status, head) = stream.head();
    assert_eq!(status, 200, "{head:?}");
    let field = |name: &str| head.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone());
    assert_eq!(field("content-type").as_deref(), Some("text/event-stream"));
    assert_eq!(field("cache-control").as_deref(), Some("no-store"));
    stream
}

/// Reads until an event of that name.
#[track_caller]
fn until(stream: &mut Exchange, name: &str) -> (String, Value) {
    loop {
        let (id, found, data) = stream.event();
        if found == name {
            return (id, data);
        }
    }
}

fn end(daemon: &Daemon, session: &str) {
    assert_eq!(request(daemon.admin, "DELETE", &format!("/v1/sessions/{session}?force=true"), &[]).status, 200);
}

#[test]
fn events_go_on_where_a_lost_connection_stopped() {
    let daemon = Daemon::repl();
    let mut stream = follow(daemon.admin, "/v1/events?kind=session-started,session-ended", &[]);
    eval(daemon.gateway, "alice", "1");
    let (started, data) = until(&mut stream, "session-started");
    assert_eq!((&data["session"], &data["pool"], &data["tenant"]), (&"alice".into(), &"default".into(), &Value::Null));
    drop(stream);
    end(&daemon, "alice");
    eval(daemon.gateway, "bob", "1");

    let by_field = [("last-event-id", started.as_str())];
    let by_query = format!("/v1/events?last_event_id={started}");
    // The field counts, as a browser sends it when it connects anew with the address that it was given at first.
    for (path, fields) in [("/v1/events", &by_field[..]), (&by_query, &[]), ("/v1/events?last_event_id=0", &by_field)] {
        let mut stream = follow(daemon.admin, path, fields);
        let mut last = started.parse::<u64>().unwrap();
        let mut seen = Vec::new();
        while seen.last().is_none_or(|(name, _)| name != "session-started") {
            let (id, name, data) = stream.event();
            assert_eq!((id.parse().ok(), &data["sequence"]), (Some(last + 1), &(last + 1).into()), "no gap");
            last += 1;
            seen.push((name, data["session"].clone()));
        }
        assert!(seen.contains(&("session-ended".to_owned(), "alice".into())), "{seen:?}");
        assert_eq!(seen.last().unwrap().1, "bob");
    }
}

#[test]
fn events_are_filtered_by_kind_session_worker_and_pool() {
    let daemon = Daemon::repl();
    eval(daemon.gateway, "alice", "1");
    eval(daemon.gateway, "bob", "1");
    let worker = daemon.page("/v1/sessions/bob")["worker"].as_str().unwrap().to_owned();
    end(&daemon, "alice");
    end(&daemon, "bob");
    let first = |query: &str| {
        let (_, name, data) = follow(daemon.admin, &format!("/v1/events?last_event_id=0&{query}"), &[]).event();
        (name, data)
    };
    let (name, data) = first("session=bob");
    assert_eq!((name.as_str(), &data["session"]), ("session-started", &"bob".into()));
    let (name, data) = first("kind=session-ended&session=bob");
    assert_eq!((name.as_str(), &data["session"], &data["reason"]), ("session-ended", &"bob".into(), &"killed".into()));
    let (name, data) = first(&format!("worker={worker}&pool=default"));
    assert!(name.starts_with("worker-") && data["worker"] == *worker, "{name} {data}");
    let (_, data) = first(&format!("worker={worker}&kind=session-ended"));
    assert_eq!(data["session"], "bob");
    let (name, data) = first("tenant=&kind=session-started");
    assert_eq!((name.as_str(), &data["session"]), ("session-started", &"alice".into()));
    let (_, data) = first("since=2020-01-01T00:00:00Z");
    assert_eq!(data["sequence"], 1, "all that is kept is since then");
}

#[test]
fn streams_say_that_the_daemon_stops() {
    let mut daemon = Daemon::repl();
    eval(daemon.gateway, "alice", "1");
    let mut events = follow(daemon.admin, "/v1/events", &[]);
    daemon.signal(Signal::TERM);
    let (_, drained) = until(&mut events, "session-ended");
    assert_eq!(drained["reason"], "drained");
    until(&mut events, "worker-gone");
    let (id, end) = until(&mut events, "end");
    assert_eq!((id.as_str(), &end["reason"]), ("", &"stopping".into()));
    assert!(daemon.wait().success());
}

#[test]
fn a_subscriber_who_does_not_read_the_log_is_dropped_and_told_what_it_got() {
    let directory = TempDir::new().unwrap();
    let go = directory.path().join("go");
    let last = 250_000;
    let line = "a line that is long enough to fill what the kernel keeps for a connection, again and again";
    let script = format!(
        "(until [ -e {} ]; do sleep 0.05; done; yes '{line}' | head -n {last}; echo done) & exec {{{{herd}}}} repl",
        go.display()
    );
    let daemon = Daemon::run(&["--sandbox", "off", "--workers", "1..1"], &["sh", "-c", &script]);
    eval(daemon.gateway, "alice", "1");
    let worker = daemon.page("/v1/sessions/alice")["worker"].as_str().unwrap().to_owned();
    let logs = format!("/v1/workers/{worker}/logs");
    let mut slow = follow(daemon.admin, &format!("{logs}?follow=true"), &[]);
    fs::write(&go, "").unwrap();
    // Meanwhile others are served.
    daemon.page_when(&format!("{logs}?limit=1"), |page| page["items"][0]["text"] == "done");
    let mut expected = 0;
    let dropped = loop {
        let (id, name, data) = slow.event();
        if name != "line" {
            assert_eq!((name.as_str(), id.as_str()), ("dropped", ""), "{data}");
            break data;
        }
        assert_eq!(data["sequence"], expected, "no gap");
        expected += 1;
    };
    assert!(expected < last, "everything was kept for it");
    assert_eq!(dropped["last_sequence"], expected - 1, "{dropped}");
    assert!(dropped["reason"].as_str().unwrap().contains("not read fast enough"), "{dropped}");

    let resumed = [("last-event-id", &*(expected - 1).to_string())];
    let mut back = follow(daemon.admin, &format!("{logs}?follow=true"), &resumed);
    let (_, name, missed) = back.event();
    assert_eq!(name, "missed");
    let (id, ..) = back.event();
    assert_eq!(id.parse::<u64>().unwrap(), expected + missed["count"].as_u64().unwrap());
    end(&daemon, "alice");
    assert_eq!(until(&mut back, "end").1["reason"], "worker-gone");
}

#[test]
fn a_log_that_is_read_behind_a_line_begins_there() {
    let daemon = Daemon::run(&[], &["sh", "-c", "echo one; echo two; exec {{herd}} repl"]);
    eval(daemon.gateway, "alice", "1");
    let worker = daemon.page("/v1/sessions/alice")["worker"].as_str().unwrap().to_owned();
    let logs = format!("/v1/workers/{worker}/logs");
    daemon.page_when(&logs, |logs| logs["items"].as_array().unwrap().len() == 2);
    let rest = daemon.page(&format!("{logs}?last_event_id=0"));
    assert_eq!((rest["items"].as_array().unwrap().len(), &rest["items"][0]["text"]), (1, &"two".into()));
    assert_eq!(get(daemon.admin, &format!("{logs}?last_event_id=x")).status, 400);
    let followed = |query: &str, fields: &[(&str, &str)]| {
        let mut stream = follow(daemon.admin, &format!("{logs}?follow=true{query}"), fields);
        stream.event().2["text"].as_str().unwrap().to_owned()
    };
    assert_eq!(followed("", &[]), "one");
    assert_eq!(followed("&limit=1", &[]), "two", "the last one, and then what comes");
    assert_eq!(followed("&limit=1&last_event_id=0", &[]), "two");
    assert_eq!(request(daemon.admin, "GET", &logs, &[("last-event-id", "x")]).status, 400);
}
