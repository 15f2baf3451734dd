//! Who may use the admin address.

use std::{fs, os::unix::fs::PermissionsExt as _};

use rustix::process::Signal;
use tempfile::TempDir;

use crate::{
    client::{eval, get, request},
    daemon::{Daemon, failure},
    sandbox::file,
};

const TOKEN: &str = "herd_c2VjcmV0LXRva2VuLW9mLXRoZS10ZXN0cw";
const NEXT: &str = "herd_YW5vdGhlci10b2tlbi1vZi10aGUtdGVzdHM";
const GUESS: &str = "herd_Z3Vlc3Nlcy1hcmUtbm90LXdyaXR0ZW4";

/// A daemon that asks for the token in the file.
fn guarded() -> (TempDir, Daemon) {
    let (directory, config) = file("");
    let token = directory.path().join("token");
    fs::write(&token, TOKEN).unwrap();
    fs::set_permissions(&token, fs::Permissions::from_mode(0o600)).unwrap();
    let network = format!("network: {{ admin_token_file: {}, admin_hosts: [herd.example.com] }}\n", token.display());
    fs::write(&config, network).unwrap();
    let daemon = Daemon::serve(&["--config", &config, "--log-level", "trace"]);
    (directory, daemon)
}

fn status(daemon: &Daemon, path: &str, token: &str) -> u16 {
    request(daemon.admin, "GET", path, &[("authorization", &format!("Bearer {token}"))]).status
}

#[test]
fn every_page_that_tells_something_asks_for_the_token() {
    let (_directory, daemon) = guarded();
    for path in
        ["/v1/gateway", "/v1/live", "/v1/sessions", "/v1/events", "/v1/stats", "/metrics", "/openapi.json", "/nothing"]
    {
        let refused = get(daemon.admin, path);
        assert_eq!(refused.status, 401, "{path}: {refused:?}");
        assert_eq!(refused.json()["type"], "urn:herd:problem:no-token");
        assert_eq!(refused.field("www-authenticate"), Some("Bearer realm=\"herd admin API\""));
        assert_eq!(refused.field("cache-control"), Some("no-store"));
    }
    for path in ["/", "/healthz", "/readyz"] {
        assert_eq!(get(daemon.admin, path).status, 200, "{path}");
    }
    assert_eq!(status(&daemon, "/v1/sessions", TOKEN), 200);
    assert_eq!(status(&daemon, "/nothing", TOKEN), 404);
    let wrong = request(daemon.admin, "GET", "/v1/sessions", &[("authorization", &format!("Bearer {GUESS}"))]);
    assert_eq!((wrong.status, wrong.json()["type"].as_str()), (401, Some("urn:herd:problem:bad-token")));
    assert!(daemon.command(&["ps"]).status.success(), "the control socket knows its peers");
}

#[test]
fn a_changed_token_counts_after_a_reload_and_a_broken_one_changes_nothing() {
    let (directory, mut daemon) = guarded();
    let file = directory.path().join("token");
    fs::write(&file, "a-bit-short").unwrap();
    let refused = daemon.command(&["reload"]);
    let said = String::from_utf8([refused.stdout, refused.stderr].concat()).unwrap();
    assert!(refused.status.code() == Some(1) && said.contains("admin_token_file"), "{said}");
    assert!(!said.contains("a-bit-short"), "{said}");
    assert_eq!(status(&daemon, "/v1/stats", TOKEN), 200);
    fs::write(&file, NEXT).unwrap();
    daemon.signal(Signal::HUP);
    daemon.log_line(|line| line["message"] == "the configuration was reloaded");
    assert_eq!((status(&daemon, "/v1/stats", TOKEN), status(&daemon, "/v1/stats", NEXT)), (401, 200));
}

#[test]
fn streams_end_whose_token_is_none_any_more() {
    let (directory, mut daemon) = guarded();
    eval(daemon.gateway, "alice", "1");
    let bearer = format!("Bearer {TOKEN}");
    let worker: serde_json::Value =
        request(daemon.admin, "GET", "/v1/sessions/alice", &[("authorization", &bearer)]).json();
    let logs = format!("/v1/workers/{}/logs?follow=true", worker["worker"].as_str().unwrap());
    let open = |path: &str| {
        let mut stream = crate::client::Exchange::begin(daemon.admin, "GET", path, &[("authorization", &bearer)]);
        assert_eq!(stream.head().0, 200, "{path}");
        stream
    };
    let streams = ["/v1/live", "/v1/events?last_event_id=0", &logs].map(open);
    fs::write(directory.path().join("token"), NEXT).unwrap();
    daemon.signal(Signal::HUP);
    daemon.log_line(|line| line["message"] == "the configuration was reloaded");
    for mut stream in streams {
        let data = loop {
            let (_, name, data) = stream.event();
            if name == "end" {
                break data;
            }
        };
        assert_eq!(data["reason"], "token-changed");
    }
}

#[test]
fn who_guesses_tokens_has_to_wait_and_the_operator_never() {
    let (_directory, daemon) = guarded();
    let answers: Vec<u16> = (0..40).map(|_| status(&daemon, "/v1/stats", GUESS)).collect();
    assert_eq!(answers[0], 401);
    let refused = answers.iter().filter(|status| **status == 429).count();
    assert!(refused > 10, "{answers:?}");
    assert_eq!(status(&daemon, "/v1/stats", TOKEN), 200, "also from where somebody guesses");
    assert_eq!(status(&daemon, "/v1/stats", GUESS), 429);
    assert!(daemon.command(&["ps"]).status.success());
}

#[test]
fn tokens_are_in_no_answer_no_log_and_no_event() {
    let (_directory, mut daemon) = guarded();
    let bearer = format!("Bearer {TOKEN}");
    let ask = |method, path: &str, token: &str| {
        format!("{:?}", request(daemon.admin, method, path, &[("authorization", &format!("Bearer {token}"))]))
    };
    eval(daemon.gateway, "alice", "1");
    let mut said = String::new();
    for path in
        ["/", "/v1/sessions", "/v1/workers", "/v1/pools", "/v1/stats", "/metrics", "/openapi.json", "/v1/x?limit=0"]
    {
        said += &ask("GET", path, TOKEN);
        said += &ask("POST", path, GUESS);
    }
    let fields = [("authorization", bearer.as_str())];
    let mut events = crate::client::Exchange::begin(daemon.admin, "GET", "/v1/events?last_event_id=0", &fields);
    events.head();
    let mut heard = String::new();
    while !heard.contains("session-ended") {
        if heard.contains("session-started") {
            request(daemon.admin, "DELETE", "/v1/sessions/alice?force=true", &fields);
        }
        heard += &format!("{:?}", events.event());
    }
    said += &heard;
    daemon.signal(Signal::TERM);
    daemon.wait();
    said += &daemon.log.join("\n");
    for secret in [TOKEN, GUESS] {
        assert!(!said.contains(secret), "{said}");
    }
}

#[test]
fn hosts_that_the_operator_names_are_let_in_and_others_are_not() {
    let (_directory, daemon) = guarded();
    let bearer = format!("Bearer {TOKEN}");
    let ask = |fields: &[(&str, &str)]| {
        request(daemon.admin, "GET", "/v1/stats", &[&[("authorization", bearer.as_str())], fields].concat()).status
    };
    assert_eq!(ask(&[("host", "herd.example.com")]), 200);
    assert_eq!(ask(&[("host", "herd.example.com"), ("origin", "https://herd.example.com")]), 200);
    assert_eq!(ask(&[("host", "evil.test")]), 403, "a name that its owner points here");
    assert_eq!(ask(&[("origin", "http://evil.test")]), 403);
    assert_eq!(ask(&[("sec-fetch-site", "cross-site")]), 403, "a page that makes a browser ask without an origin");
}

#[test]
fn an_address_beyond_loopback_needs_a_token() {
    let said = failure(&["--listen", "127.0.0.1:0", "--admin", "0.0.0.0:0"], 2);
    assert!(said.contains("admin_token_file"), "{said}");
    let (directory, config) = file("");
    let missing = directory.path().join("missing");
    fs::write(&config, format!("network: {{ admin_token_file: {} }}\n", missing.display())).unwrap();
    let said = failure(&["serve", "--config", &config, "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"], 1);
    assert!(said.contains("admin_token_file") && said.contains(missing.to_str().unwrap()), "{said}");
}
