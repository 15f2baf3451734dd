//! `herd logs`.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    path::Path,
    process::Stdio,
};

use rustix::process::{Signal, kill_process};
use serde_json::Value;

use crate::{
    client::{eval, request},
    daemon::{Daemon, eventually, herd},
    running::{Relay, Running},
};

/// Two lines on each stream, and then the REPL.
const TALKATIVE: &[&str] = &[
    "sh",
    "-c",
    "echo out 1; echo err 1 >&2; echo out 2; printf 'a\\033[31mred\\302\\233x\\n' >&2; exec {{herd}} repl",
];

/// A worker that says what it is asked to.
const PARROT: &str = r#"
import http.server, os, sys
class Parrot(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        _, word, times = (self.path + "/1").split("/")[:3]
        for number in range(int(times)):
            print(word if times == "1" else number, flush=True)
        self.send_response(200)
        self.end_headers()
    def log_message(self, *args): pass
http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Parrot).serve_forever()
"#;

fn parrot() -> Daemon {
    let flags = ["--workers", "0..4", "--spare", "0", "--health-path", "/health/0"];
    Daemon::run(&flags, &["/usr/bin/python3", "-c", PARROT])
}

/// Has the session's worker say something.
#[track_caller]
fn say(daemon: &Daemon, session: &str, what: &str) {
    let answer = request(daemon.gateway, "GET", &format!("/{what}"), &[("x-session-id", session)]);
    assert_eq!(answer.status, 200, "{answer:?}");
}

/// Follows the session's log, and is past what was said before.
fn follow(daemon: &Daemon, socket: &Path, args: &[&str], session: &str) -> Running {
    let following = Running::start(daemon, socket, &[&["logs", "-f", "--stdout", session], args].concat());
    // What was not there when it began comes on the stream.
    following.line();
    say(daemon, session, "begun");
    while !following.line().contains("begun") {}
    following
}

fn talkative() -> Daemon {
    let daemon = Daemon::run(&["--workers", "0..4", "--spare", "0"], TALKATIVE);
    assert_eq!(eval(daemon.gateway, "alice", "1").status, 200);
    // It reads the two streams in no order.
    eventually(|| stdout(&daemon, &["logs", "alice"]).lines().count() >= 4);
    daemon
}

fn stdout(daemon: &Daemon, args: &[&str]) -> String {
    String::from_utf8(daemon.command(args).stdout).unwrap()
}

#[track_caller]
fn stderr(daemon: &Daemon, args: &[&str]) -> String {
    let output = daemon.command(args);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn logs_tell_what_a_worker_said_by_its_session_or_by_its_own_id() {
    let daemon = talkative();
    let all = stdout(&daemon, &["logs", "alice"]);
    assert!(all.contains("out 1\n") && all.contains("err 1\n"), "{all}");
    assert_eq!(stdout(&daemon, &["logs", "worker-1"]), all);
    assert!(stdout(&daemon, &["logs", "alice", "--stdout"]).starts_with("out 1\nout 2\n"));
    let errors = stdout(&daemon, &["logs", "alice", "--stderr"]);
    assert!(errors.starts_with("err 1\n") && !errors.contains("out"), "{errors}");
    assert_eq!(stdout(&daemon, &["logs", "alice", "--stdout", "-n", "1"]).lines().count(), 1);
    assert_eq!(stdout(&daemon, &["logs", "alice", "-n", "0"]), "");
    let timed = stdout(&daemon, &["logs", "alice", "--timestamps", "--stdout"]);
    let (time, text) = timed.lines().next().unwrap().split_once(' ').unwrap();
    assert!(humantime::parse_rfc3339(time).is_ok() && text == "out 1", "{timed}");
    for line in stdout(&daemon, &["logs", "alice", "--json"]).lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        assert!(line["sequence"].is_u64() && line["stream"].is_string() && line["text"].is_string(), "{line}");
    }
}

#[test]
fn what_a_terminal_would_obey_is_written_out() {
    let daemon = talkative();
    for args in [&["logs", "alice"][..], &["logs", "alice", "--json"], &["logs", "alice", "--color", "always"]] {
        let said = stdout(&daemon, args);
        assert!(said.contains("u{1b}[31mred") && said.contains("u{9b}x"), "{said}");
        assert!(!said.contains(|c: char| c.is_control() && c != '\n'), "{said:?}");
    }
}

#[test]
fn nobody_has_no_log_and_a_session_that_is_called_like_a_worker_takes_a_flag() {
    let daemon = talkative();
    let said = stderr(&daemon, &["logs", "bob"]);
    assert_eq!(said, "herd: there is no session bob; `herd ps` lists those that live\n");
    let said = stderr(&daemon, &["logs", "worker-77"]);
    assert!(said.contains("there is no worker worker-77; ") && said.contains("takes --session"), "{said}");
    assert_eq!(eval(daemon.gateway, "worker-77", "1").status, 200);
    assert!(stderr(&daemon, &["logs", "worker-77"]).contains("no worker worker-77"));
    eventually(|| stdout(&daemon, &["logs", "--session", "worker-77"]).contains("out 2\n"));
    let listed = daemon.command(&["logs", "--json", "bob"]);
    assert_eq!(serde_json::from_slice::<Value>(&listed.stdout).unwrap()["status"], 404, "{listed:?}");
}

#[test]
fn following_tells_new_lines_and_ends_with_the_worker_and_why() {
    let daemon = parrot();
    say(&daemon, "alice", "before");
    let following = Running::start(&daemon, &daemon.socket, &["logs", "--follow", "--stdout", "alice"]);
    while following.line() != "before" {}
    say(&daemon, "alice", "after");
    assert_eq!(following.line(), "after");
    assert!(daemon.command(&["end", "alice"]).status.success());
    let (code, _, said) = following.end();
    assert_eq!((code, &*said), (0, "herd: worker-1 is gone, and session alice ended: released\n"));

    say(&daemon, "bob", "quiet");
    let following = Running::start(&daemon, &daemon.socket, &["logs", "-f", "-n", "0", "bob"]);
    // It says nothing by which to tell that it listens, and so the worker lives until a line of it was seen.
    eventually(|| {
        say(&daemon, "bob", "x");
        following.has_line()
    });
    kill_process(daemon.worker_of("bob"), Signal::KILL).unwrap();
    let (code, _, said) = following.end();
    assert!(code == 0 && said.contains("and session bob ended: crashed"), "{code}: {said}");
}

#[test]
fn following_goes_on_where_the_connection_broke_off() {
    let daemon = parrot();
    let relay = Relay::to(&daemon.socket);
    say(&daemon, "alice", "n1");
    let following = follow(&daemon, &relay.socket(), &[], "alice");
    for number in 2..5 {
        relay.cut();
        say(&daemon, "alice", &format!("n{number}"));
        relay.open();
        assert_eq!(following.line(), format!("n{number}"), "each line once");
    }
    daemon.command(&["end", "alice"]);
    let (code, rest, said) = following.end();
    assert!(code == 0 && rest.is_empty() && said.contains("alice ended: released"), "{rest:?} {said}");
}

#[test]
fn lines_that_went_meanwhile_are_counted() {
    let daemon = parrot();
    for json in [false, true] {
        let relay = Relay::to(&daemon.socket);
        let session = if json { "bob" } else { "alice" };
        say(&daemon, session, "first");
        let following = follow(&daemon, &relay.socket(), if json { &["--json"] } else { &[] }, session);
        relay.cut();
        say(&daemon, session, "flood/1500");
        eventually(|| stdout(&daemon, &["logs", session]).ends_with("1499\n"));
        relay.open();
        let next = following.line();
        if json {
            let (missed, line): (Value, Value) =
                (serde_json::from_str(&next).unwrap(), serde_json::from_str(&following.line()).unwrap());
            assert!(missed["missed"].as_u64().is_some_and(|count| count >= 500) && line["text"] != "0", "{missed}");
            continue;
        }
        assert_ne!(next, "0");
        daemon.command(&["end", session]);
        let (_, _, said) = following.end();
        assert!(
            said.starts_with("herd: missed 5") && said.contains(" lines, which the daemon does not keep"),
            "{said}"
        );
    }
}

#[test]
fn a_session_that_starts_is_waited_for() {
    let directory = tempfile::TempDir::new().unwrap();
    let gate = directory.path().join("gate");
    let script = format!("while [ ! -e {} ]; do sleep 0.05; done; echo up; exec {{{{herd}}}} repl", gate.display());
    let flags = ["--workers", "0..1", "--spare", "0", "--read-only", directory.path().to_str().unwrap()];
    let daemon = Daemon::run(&flags, &["sh", "-c", &script]);
    std::thread::scope(|scope| {
        let request = scope.spawn(|| eval(daemon.gateway, "alice", "1").status);
        daemon.page_when("/v1/workers", |page| page["items"][0]["state"] == "starting");
        let said = stderr(&daemon, &["logs", "alice"]);
        assert!(said.contains("alice is still being started") && said.contains("--follow"), "{said}");
        let following = Running::start(&daemon, &daemon.socket, &["logs", "-f", "alice"]);
        eventually(|| daemon.page("/v1/stats")["sessions_started"] == 0 && following.is_connected());
        fs::write(&gate, "").unwrap();
        assert_eq!(following.line(), "up");
        assert_eq!(request.join().unwrap(), 200);
    });
}

#[test]
fn a_reader_who_has_seen_enough_ends_it_at_once_though_nothing_more_comes() {
    let daemon = talkative();
    let socket = daemon.socket.to_str().unwrap();
    for args in [["logs", "-f", "alice"], ["events", "-f", "--json"]] {
        let mut command = herd(&[&args[..], &["--socket", socket]].concat(), daemon.directory());
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut first = String::new();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        stdout.read_line(&mut first).unwrap();
        drop(stdout);
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    }
}

#[test]
fn a_full_disk_is_an_error() {
    let daemon = talkative();
    for args in [&["logs", "alice"][..], &["logs", "-f", "alice"], &["ps"], &["stats", "--json"], &["events"]] {
        let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let mut command = herd(&[args, &["--socket", daemon.socket.to_str().unwrap()]].concat(), daemon.directory());
        let output = command.stdin(Stdio::null()).stdout(full).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.starts_with("herd: cannot write to standard output: No space left"), "{said}");
    }
}

#[test]
fn help_that_cannot_be_written_is_an_error() {
    let directory = tempfile::tempdir().unwrap();
    for args in [&["--help"][..], &["-h"], &["--version"], &["ps", "--help"], &["help", "serve"]] {
        let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let output = herd(args, directory.path()).stdin(Stdio::null()).stdout(full).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{args:?}: {said}");
        assert!(said.starts_with("herd: cannot write to standard output: No space left"), "{said}");
    }
}

#[test]
fn an_interrupt_ends_a_follower_with_130() {
    let daemon = talkative();
    let following = Running::start(&daemon, &daemon.socket, &["logs", "-f", "alice"]);
    following.line();
    following.signal(Signal::INT);
    let (code, _, said) = following.end();
    assert_eq!((code, &*said), (130, ""));
}

#[test]
fn a_daemon_that_stops_ends_its_followers_and_one_that_dies_is_an_error() {
    for (signal, code) in [(Signal::TERM, 0), (Signal::KILL, 1)] {
        let mut daemon = parrot();
        say(&daemon, "alice", "here");
        let followers =
            [follow(&daemon, &daemon.socket, &[], "alice"), Running::start(&daemon, &daemon.socket, &["events", "-f"])];
        while !followers[1].line().contains("session-started") {}
        daemon.signal(signal);
        for follower in followers {
            let (ended, _, said) = follower.end();
            assert_eq!(ended, code, "{said}");
            assert_eq!(said.lines().count(), 1, "{said}");
            let expected =
                if code == 0 { ["stops", "is gone"] } else { ["the daemon went away", "no daemon answers on"] };
            assert!(expected.iter().any(|text| said.contains(text)), "{said}");
        }
        daemon.wait();
    }
}
