//! `herd top` at a real terminal.

use std::process::Stdio;

use rustix::process::Signal;

use crate::{
    client::{eval, get},
    daemon::{Daemon, herd},
    terminal::Terminal,
};

const HERD: &str = env!("CARGO_BIN_EXE_herd");

fn top(daemon: &Daemon) -> Terminal {
    let socket = daemon.socket.to_str().unwrap();
    let words = [HERD, "top", "--interval", "250ms", "--socket", socket];
    Terminal::start(&words, &herd(&[], daemon.directory()))
}

#[test]
fn a_session_appears_is_ended_from_top_and_the_terminal_is_as_before() {
    let daemon = Daemon::repl();
    let mut top = top(&daemon);
    top.until(|screen| screen.alternate_screen() && screen.hide_cursor());
    top.until_shown("there are none");
    eval(daemon.gateway, "alice", "1");
    top.until_shown("alice");
    top.press("\r");
    top.until_shown("sandbox");
    top.press("\x1b");
    top.press("x");
    top.until_shown("End session alice");
    assert_eq!(get(daemon.admin, "/v1/sessions/alice").status, 200, "nobody has said yes");
    top.press("y");
    top.until_shown("alice ended (released)");
    assert_eq!(get(daemon.admin, "/v1/sessions/alice").status, 404);
    top.until_shown("there are none");
    top.press("q");
    assert_eq!(top.wait().code(), Some(0));
}

#[test]
fn signals_give_the_terminal_back() {
    let daemon = Daemon::repl();
    for (signal, code) in [(Signal::TERM, 143), (Signal::INT, 130), (Signal::HUP, 129)] {
        let mut top = top(&daemon);
        top.until_shown("there are none");
        top.signal(signal);
        assert_eq!(top.wait().code(), Some(code));
    }
    let mut top = top(&daemon);
    top.until_shown("there are none");
    top.press("\x03");
    assert_eq!(top.wait().code(), Some(0), "Ctrl-C is a key");
}

#[test]
fn a_daemon_that_is_gone_is_said_and_the_last_picture_stays() {
    let mut daemon = Daemon::repl();
    eval(daemon.gateway, "alice", "1");
    let mut top = top(&daemon);
    top.until_shown("alice");
    daemon.signal(Signal::KILL);
    daemon.wait();
    top.until_shown("DAEMON GONE");
    top.until_shown("no daemon answers");
    assert!(top.text().contains("alice"), "{}", top.text());
    let socket = daemon.socket.to_str().unwrap().to_owned();
    let flags = ["serve", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--log-format", "json"];
    let mut next = herd(&flags, daemon.directory());
    next.args(["--control-socket", &socket]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut next = next.spawn().unwrap();
    top.until(|screen| !screen.contents().contains("GONE") && !screen.contents().contains("alice"));
    top.press("q");
    assert_eq!(top.wait().code(), Some(0));
    next.kill().unwrap();
    next.wait().unwrap();
}

#[test]
fn a_daemon_that_does_not_answer_yet_is_waited_for_at_a_screen_that_says_so() {
    let daemon = Daemon::repl();
    daemon.signal(Signal::STOP);
    let mut top = top(&daemon);
    top.until_shown("waiting for the daemon");
    daemon.signal(Signal::CONT);
    top.until_shown("there are none");
    daemon.signal(Signal::STOP);
    let mut next = self::top(&daemon);
    next.until_shown("waiting for the daemon");
    next.press("q");
    assert_eq!(next.wait().code(), Some(0));
    daemon.signal(Signal::CONT);
    top.press("q");
    assert_eq!(top.wait().code(), Some(0));
}

#[test]
fn a_shell_stops_it_and_lets_it_go_on() {
    let daemon = Daemon::repl();
    let mut shell = Terminal::start(&["bash", "--norc", "-i"], &herd(&[], daemon.directory()));
    shell.press("PS1='ready> '\n");
    shell.until_shown("ready> ");
    let command = format!("{HERD} top --socket {}\n", daemon.socket.display());
    shell.press(&command);
    shell.until(|screen| screen.alternate_screen() && screen.contents().contains("there are none"));
    for stop in ["key", "signal"] {
        match stop {
            "key" => shell.press("\x1a"),
            // To the foreground process group, which a child of the shell leads.
            _ => {
                let foreground = daemon.descendants_of(shell.pid());
                rustix::process::kill_process(foreground[0], Signal::TSTP).unwrap();
            }
        }
        shell.until(|screen| !screen.alternate_screen() && !screen.hide_cursor());
        shell.until_shown("Stopped");
        shell.press("stty -a | grep -o ' -\\?icanon'; clear; echo no''ne\n");
        shell.until_shown("none");
        assert!(!shell.written.windows(8).any(|text| text == b"\r\n -ican"), "the shell's terminal is not raw");
        shell.press("fg\n");
        shell.until(|screen| screen.alternate_screen() && screen.contents().contains("there are none"));
    }
    shell.press("q");
    // What is typed before the prompt may still be for top.
    shell.until(|screen| !screen.alternate_screen() && screen.contents().trim_end().ends_with("ready>"));
    shell.press("exit 5\n");
    assert_eq!(shell.wait().code(), Some(5));
}

#[test]
fn the_picture_follows_the_size_of_the_terminal() {
    let daemon = Daemon::repl();
    eval(daemon.gateway, "alice", "1");
    let mut top = top(&daemon);
    top.until_shown("WORKER");
    top.resize(40, 10);
    top.until(|screen| {
        let text = screen.contents();
        text.contains("alice") && text.contains("SESSION") && !text.contains("WORKER")
    });
    top.press("q");
    assert_eq!(top.wait().code(), Some(0));
}

#[test]
fn without_a_terminal_the_commands_that_need_none_are_named() {
    let daemon = Daemon::repl();
    let output = daemon.command(&["top"]);
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr.contains("needs a terminal") && stderr.contains("`herd ps`"), "{stderr}");
    let output = daemon.command(&["top", "--interval", "1ms"]);
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    assert!(stderr.contains("from 250ms to 1m"), "{stderr}");
}
