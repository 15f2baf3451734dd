use crate::{
    client::{Exchange, eval, get, request},
    daemon::Daemon,
};

#[test]
fn foreign_hosts_and_origins_are_refused() {
    let daemon = Daemon::repl();
    let own = format!("http://{}", daemon.admin);
    let gateway = format!("http://{}", daemon.gateway);
    for (fields, status) in [
        (vec![("host", "localhost")], 200),
        (vec![("origin", own.as_str())], 200),
        (vec![("host", "evil.test")], 403),
        (vec![("host", "127.0.0.1.evil.test")], 403),
        (vec![("origin", "http://evil.test")], 403),
        (vec![("origin", gateway.as_str())], 403),
        (vec![("origin", "null")], 403),
    ] {
        let response = request(daemon.admin, "GET", "/v1/sessions", &fields);
        assert_eq!(response.status, status, "{fields:?}: {response:?}");
        if status == 403 {
            assert_eq!(response.field("content-type"), Some("application/problem+json"));
        }
    }
    eval(daemon.gateway, "alice", "1");
    let response = request(daemon.admin, "DELETE", "/v1/sessions/alice", &[("origin", "http://evil.test")]);
    assert_eq!(response.status, 403);
    assert_eq!(get(daemon.admin, "/v1/sessions/alice").status, 200);
}

#[test]
fn sessions_and_workers_show_what_they_are() {
    let daemon = Daemon::repl();
    eval(daemon.gateway, "alice", "let x = 41");
    let session = daemon.page_when("/v1/sessions/alice", |session| session["leases"] == 0);
    assert_eq!((session["state"].as_str(), session["requests"].as_u64()), (Some("live"), Some(1)), "{session}");
    assert_eq!(session["bytes_in"], 10, "{session}");
    assert!(session["created"].as_str().is_some_and(|at| at.ends_with('Z') && at.contains('T')), "{session}");
    let id = session["worker"].as_str().unwrap();
    let worker = daemon.page(&format!("/v1/workers/{id}"));
    assert_eq!((worker["state"].as_str(), worker["session"].as_str()), (Some("in-session"), Some("alice")), "{worker}");
    assert_eq!(worker["address"], session["address"]);
    assert!(worker["pid"].as_u64().is_some() && worker["ready_after_ms"].as_f64().is_some(), "{worker}");
    assert!(worker["memory_bytes"].as_u64().is_some_and(|bytes| bytes > 100_000), "{worker}");
    assert!(worker["layers"].as_array().is_some_and(|layers| layers.len() > 3), "{worker}");
    assert_eq!(worker["limits"]["open_files"], 4096, "{worker}");
}

#[test]
fn lists_come_in_pages() {
    let daemon = Daemon::repl();
    for session in ["a", "b", "c"] {
        assert_eq!(eval(daemon.gateway, session, "1").status, 200);
    }
    let first = daemon.page("/v1/sessions?limit=2");
    let ids = |page: &serde_json::Value| {
        page["items"].as_array().unwrap().iter().map(|item| item["id"].as_str().unwrap().to_owned()).collect::<String>()
    };
    assert_eq!(ids(&first), "ab");
    let second = daemon.page(&format!("/v1/sessions?limit=2&cursor={}", first["next"].as_str().unwrap()));
    assert_eq!((ids(&second), &second["next"]), ("c".to_owned(), &serde_json::Value::Null));
}

#[test]
fn what_is_not_there_or_not_understood_is_a_problem_document() {
    let daemon = Daemon::repl();
    for (method, path, status) in [
        ("GET", "/nothing", 404),
        ("GET", "/v1/sessions/nobody", 404),
        ("GET", "/v1/sessions/%20", 400),
        ("GET", "/v1/sessions/%ff", 400),
        ("DELETE", "/v1/sessions/nobody", 404),
        ("DELETE", "/v1/sessions/nobody?force=perhaps", 400),
        ("POST", "/v1/stats", 405),
        ("GET", "/v1/sessions?limit=0", 400),
        ("GET", "/v1/sessions?cursor=xyz", 400),
        ("GET", "/v1/workers/3", 400),
        ("GET", "/v1/workers/worker-999", 404),
        ("GET", "/v1/workers/worker-1/logs?follow=perhaps", 400),
    ] {
        let response = request(daemon.admin, method, path, &[]);
        assert_eq!(response.status, status, "{method} {path}: {response:?}");
        assert_eq!(response.field("content-type"), Some("application/problem+json"), "{method} {path}");
        assert_eq!(response.json()["status"], status, "{method} {path}");
    }
}

#[test]
fn a_workers_log_is_read_and_followed() {
    let daemon = Daemon::run(&[], &["sh", "-c", "echo one; echo two >&2; exec {{herd}} repl"]);
    eval(daemon.gateway, "alice", "1");
    let id = daemon.page("/v1/sessions/alice")["worker"].as_str().unwrap().to_owned();
    let logs = daemon.page_when(&format!("/v1/workers/{id}/logs"), |logs| logs["items"].as_array().unwrap().len() == 2);
    let mut lines: Vec<_> = logs["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|line| format!("{}: {}", line["stream"].as_str().unwrap(), line["text"].as_str().unwrap()))
        .collect();
    // Two pipes keep no order among each other.
    lines.sort();
    assert_eq!(lines, ["stderr: two", "stdout: one"]);
    let last = daemon.page(&format!("/v1/workers/{id}/logs?limit=1"));
    assert_eq!(last["items"].as_array().unwrap()[..], logs["items"].as_array().unwrap()[1..]);
    assert_eq!(get(daemon.admin, &format!("/v1/workers/{id}/logs?limit=0")).status, 400);

    let mut follow = Exchange::begin(daemon.admin, "GET", &format!("/v1/workers/{id}/logs?follow=true"), &[]);
    assert_eq!(follow.head().0, 200);
    assert_eq!((follow.event().0.as_str(), follow.event().0.as_str()), ("0", "1"));
    let resumed = [("last-event-id", "0")];
    let mut resumed = Exchange::begin(daemon.admin, "GET", &format!("/v1/workers/{id}/logs?follow=true"), &resumed);
    resumed.head();
    assert_eq!(resumed.event().0, "1");
    request(daemon.admin, "DELETE", "/v1/sessions/alice", &[]);
    assert_eq!(follow.event().1, "end", "the stream says when the worker is gone");
}

#[test]
fn events_are_followed_and_resumed() {
    let daemon = Daemon::repl();
    let mut events = Exchange::begin(daemon.admin, "GET", "/v1/events", &[]);
    assert_eq!(events.head().0, 200);
    eval(daemon.gateway, "alice", "1");
    let started = std::iter::repeat_with(|| events.event()).find(|(_, name, _)| name == "session-started").unwrap();
    assert_eq!(started.2["session"], "alice");
    request(daemon.admin, "DELETE", "/v1/sessions/alice?force=true", &[]);
    let ended = std::iter::repeat_with(|| events.event()).find(|(_, name, _)| name == "session-ended").unwrap();
    assert_eq!((ended.2["reason"].as_str(), ended.2["sequence"].to_string()), (Some("killed"), ended.0.clone()));

    let mut resumed = Exchange::begin(daemon.admin, "GET", "/v1/events", &[("last-event-id", &started.0)]);
    resumed.head();
    let again = std::iter::repeat_with(|| resumed.event()).find(|(_, name, _)| name == "session-ended").unwrap();
    assert_eq!(again, ended);
    assert_eq!(request(daemon.admin, "GET", "/v1/events", &[("last-event-id", "x")]).status, 400);
}

#[test]
fn metrics_are_valid_text_exposition_with_the_originals_names() {
    let daemon = Daemon::repl();
    eval(daemon.gateway, "secret-session", "1");
    let response = get(daemon.admin, "/metrics");
    assert!(response.field("content-type").is_some_and(|kind| kind.starts_with("text/plain; version=0.0.4")));
    let mut family = String::new();
    let mut families = Vec::new();
    for line in response.body.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            family = help.split(' ').next().unwrap().to_owned();
            assert!(!families.contains(&family), "{family} is there twice");
            families.push(family.clone());
        } else if let Some(kind) = line.strip_prefix("# TYPE ") {
            let (name, kind) = kind.split_once(' ').unwrap();
            assert_eq!(name, family);
            assert_eq!(kind == "counter", name.ends_with("_total"), "{name} is a {kind}");
        } else {
            let (sample, value) = line.rsplit_once(' ').unwrap();
            let name = sample.split('{').next().unwrap();
            let of_histogram = ["_bucket", "_sum", "_count"].iter().any(|end| name.strip_suffix(end) == Some(&family));
            assert!(name == family || of_histogram, "{line}");
            assert!(value.parse::<f64>().is_ok(), "{line}");
        }
    }
    for name in [
        "herd_total_workers",
        "herd_available_workers",
        "herd_active_sessions",
        "herd_inflight_acquires",
        "herd_acquire_requests_total",
        "herd_acquire_failures_total",
        "herd_sessions_started_total",
        "herd_sessions_killed_total",
    ] {
        assert!(families.iter().any(|family| family == name), "{name} is missing");
    }
    assert!(!response.body.contains("secret-session"));
    assert!(response.body.contains("\nherd_active_sessions 1\n"), "{}", response.body);
}
