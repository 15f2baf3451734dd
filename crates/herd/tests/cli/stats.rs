//! `herd stats`.

use serde_json::Value;

use crate::{
    client::eval,
    daemon::{Daemon, eventually},
};

#[test]
fn stats_tell_each_pool_and_the_gateway() {
    let daemon = Daemon::run(&["--workers", "0..3", "--spare", "0"], &["{{herd}}", "repl"]);
    eval(daemon.gateway, "alice", "1");
    eval(daemon.gateway, "bob", "1");
    daemon.command(&["end", "bob"]);
    let told = || String::from_utf8(daemon.command(&["stats"]).stdout).unwrap();
    eventually(|| told().contains("  workers ended: 1 closed\n"));
    let text = told();
    assert!(text.starts_with(&format!("herd {}, process {}, up ", env!("CARGO_PKG_VERSION"), daemon.pid())), "{text}");
    assert!(text.contains("\ngateway now:    ") && text.contains("  sessions ended: 1 released\n"), "{text}");
    let row = text.lines().find(|line| line.starts_with("default ")).unwrap();
    let cells: Vec<_> = row.split_whitespace().collect();
    assert_eq!(cells, ["default", "1/3", "0", "1", "0", "0", "0", "2", "0"], "{text}");
    let total = text.lines().find(|line| line.starts_with("gateway so far: 2 connections, 2 requests, 0 upgrades, "));
    assert!(total.is_some_and(|line| line.ends_with(" out")), "{text}");
    let json: Value = serde_json::from_slice(&daemon.command(&["stats", "--json"]).stdout).unwrap();
    assert_eq!((&json["sessions_started"], &json["pools"][0]["pool"]), (&2.into(), &"default".into()), "{json}");
    let gateway = &json["gateway"];
    assert_eq!((&gateway["requests"], &gateway["requests_total"]), (&0.into(), &2.into()), "{json}");
}

#[test]
fn stats_tell_why_no_worker_starts() {
    let daemon = Daemon::run(&["--workers", "0..1", "--spare", "0"], &["sh", "-c", "echo no license >&2; exit 3"]);
    eval(daemon.gateway, "alice", "1");
    let text = String::from_utf8(daemon.command(&["stats"]).stdout).unwrap();
    let line = text.lines().find(|line| line.starts_with("  last start failed ")).unwrap_or_else(|| panic!("{text}"));
    assert!(line.contains(" ago: ") && line.contains("no license"), "{line}");
}
