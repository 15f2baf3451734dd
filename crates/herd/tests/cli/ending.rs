//! `herd end`.

use serde_json::Value;

use crate::{client::eval, daemon::Daemon};

fn with_sessions(names: &[&str]) -> Daemon {
    let daemon = Daemon::repl();
    for name in names {
        assert_eq!(eval(daemon.gateway, name, "1").status, 200);
    }
    daemon
}

fn live(daemon: &Daemon) -> Vec<String> {
    let page = daemon.page("/v1/sessions");
    page["items"].as_array().unwrap().iter().map(|session| session["id"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn several_sessions_end_and_one_that_is_not_there_is_named() {
    let daemon = with_sessions(&["a", "b", "c"]);
    let ended = daemon.command(&["end", "a", "nobody", "b", "a"]);
    assert_eq!(ended.status.code(), Some(1));
    let said = String::from_utf8(ended.stdout).unwrap();
    let mut lines: Vec<_> = said.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["a ended (released)", "b ended (released)"]);
    let complaint = String::from_utf8(ended.stderr).unwrap();
    assert_eq!(
        complaint,
        "herd: there is no session nobody; `herd ps` lists those that live\nherd: 1 of 3 sessions could not be ended\n"
    );
    assert_eq!(live(&daemon), ["c"]);
}

#[test]
fn all_sessions_end_when_that_is_confirmed() {
    let daemon = with_sessions(&["a", "b", "--force"]);
    let refused = daemon.command(&["end", "--all"]);
    let said = String::from_utf8(refused.stderr).unwrap();
    assert!(refused.status.code() == Some(1) && said.contains("would end 3 session(s)"), "{said}");
    assert!(said.contains("--yes") && live(&daemon).len() == 3, "{said}");
    let ended = daemon.command(&["end", "--all", "--yes", "--pool", "default", "--tenant", "", "--json"]);
    let list: Value = serde_json::from_slice(&ended.stdout).unwrap();
    let reasons: Vec<_> = list.as_array().unwrap().iter().map(|one| one["reason"].as_str().unwrap()).collect();
    assert_eq!(reasons, ["released"; 3], "{list}");
    assert!(live(&daemon).is_empty());
    let again = daemon.command(&["end", "--all"]);
    assert_eq!(String::from_utf8(again.stdout).unwrap(), "there are no sessions\n");
    assert!(again.status.success());
}

#[test]
fn on_a_terminal_it_asks_and_takes_no_for_an_answer() {
    let daemon = with_sessions(&["a"]);
    let run = |answer: &str| {
        let line = format!("{} end --all --socket {}", env!("CARGO_BIN_EXE_herd"), daemon.socket.display());
        let mut script = std::process::Command::new("script");
        script.args(["-q", "-e", "-c", &line, "/dev/null"]).env("TERM", "xterm");
        let mut child = script
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .expect("script makes the terminal; install the Debian package bsdutils");
        std::io::Write::write_all(child.stdin.as_mut().unwrap(), answer.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    let (code, said) = run("\n");
    assert!(code == Some(1) && said.contains("End 1 session? ") && said.contains("nothing was ended"), "{said}");
    assert_eq!(live(&daemon), ["a"]);
    let (code, said) = run("y\n");
    assert!(code == Some(0) && said.contains("a ended (released)"), "{said}");
    assert!(live(&daemon).is_empty());
}
