//! `herd events`.

use serde_json::Value;

use crate::{
    client::eval,
    daemon::{Daemon, failure},
    running::{Relay, Running},
};

fn stdout(daemon: &Daemon, args: &[&str]) -> String {
    let output = daemon.command(args);
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn json(daemon: &Daemon, args: &[&str]) -> Vec<Value> {
    let lines = stdout(daemon, &[&["events", "--json"], args].concat());
    lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn events_that_are_kept_are_told_and_then_it_ends() {
    let daemon = Daemon::repl();
    eval(daemon.gateway, "alice", "1");
    eval(daemon.gateway, "bob", "1");
    daemon.command(&["end", "alice"]);
    let text = stdout(&daemon, &["events"]);
    let line = text.lines().find(|line| line.contains("session-ended")).unwrap_or_else(|| panic!("{text}"));
    // Whichever of the workers was ready first.
    let worker =
        line.split_whitespace().find_map(|word| word.strip_suffix(':').filter(|word| word.starts_with("worker-")));
    let worker = worker.unwrap_or_else(|| panic!("{line}"));
    assert!(line.ends_with(&format!("  session-ended     alice on {worker}: released")), "{line}");
    let all = json(&daemon, &[]);
    let sequences: Vec<_> = all.iter().map(|event| event["sequence"].as_u64().unwrap()).collect();
    assert!(sequences.is_sorted() && sequences[0] == 1, "{sequences:?}");
    let kinds = |args: &[&str]| -> Vec<String> {
        json(&daemon, args).iter().map(|event| event["kind"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(kinds(&["--session", "alice"]), ["session-started", "session-ended"]);
    assert_eq!(kinds(&["--kind", "session-started"]), ["session-started"; 2]);
    assert_eq!(kinds(&["--kind", "session-started,session-ended", "--kind", "draining"]).len(), 3);
    assert!(kinds(&["--worker", worker]).contains(&"worker-gone".to_owned()));
    assert!(kinds(&["--pool", "other"]).is_empty() && kinds(&["--tenant", "acme"]).is_empty());
    assert_eq!(kinds(&["--tenant", ""]).len(), 3);
    let behind = json(&daemon, &["--since", "3"]);
    assert_eq!(behind[0]["sequence"], 4, "{behind:?}");
    assert_eq!(json(&daemon, &["--since", "1h"]).len(), all.len());
    assert!(json(&daemon, &["--since", "2099-01-01T00:00:00Z"]).is_empty());
}

#[test]
fn a_crash_is_told_with_the_last_words() {
    let daemon = Daemon::run(&["--workers", "0..1", "--spare", "0"], &["sh", "-c", "echo no license >&2; exit 3"]);
    eval(daemon.gateway, "alice", "1");
    let text = stdout(&daemon, &["events", "--kind", "spawn-failed"]);
    assert!(text.contains("spawn-failed      worker-1: ") && text.contains("no license"), "{text}");
}

#[test]
fn following_events_goes_on_where_the_connection_broke_off() {
    let mut daemon = Daemon::repl();
    let relay = Relay::to(&daemon.socket);
    let args = ["events", "-f", "--kind", "session-started", "--json"];
    let following = Running::start(&daemon, &relay.socket(), &args);
    for (number, session) in ["a", "b", "c"].into_iter().enumerate() {
        if number > 0 {
            relay.cut();
        }
        eval(daemon.gateway, session, "1");
        relay.open();
        let event: Value = serde_json::from_str(&following.line()).unwrap();
        assert_eq!(event["session"], session, "each event once");
    }
    daemon.signal(rustix::process::Signal::TERM);
    let (code, rest, said) = following.end();
    assert_eq!((code, rest.len(), &*said), (0, 0, "herd: the daemon stops\n"));
    assert!(daemon.wait().success());
}

#[test]
fn a_daemon_that_was_started_anew_is_not_taken_for_the_one_before() {
    let daemon = Daemon::repl();
    let relay = Relay::to(&daemon.socket);
    let following = Running::start(&daemon, &relay.socket(), &["events", "-f"]);
    following.line();
    relay.cut();
    let other = Daemon::repl();
    relay.lead_to(&other.socket);
    relay.open();
    let (code, _, said) = following.end();
    assert!(code == 1 && said.contains("the daemon was started anew"), "{code} {said}");
}

#[test]
fn kinds_and_times_that_are_none_are_wrong_usage() {
    let said = failure(&["events", "--kind", "banana"], 2);
    assert!(said.contains("session-started") && said.contains("worker-crashed"), "{said}");
    let said = failure(&["events", "--since", "yesterday"], 2);
    assert!(said.contains("an event's number (41)") && said.contains("10m"), "{said}");
}
