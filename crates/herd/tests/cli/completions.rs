//! `herd completions`.

use std::{path::Path, process::Command};

use tempfile::TempDir;

use crate::{
    client::eval,
    daemon::{Daemon, failure, output},
};

/// What bash offers for the last of these words.
fn offered(daemon: &Daemon, words: &[&str]) -> Vec<String> {
    let script = "\
        source <(herd completions bash)
        COMP_WORDS=(\"$@\"); COMP_CWORD=$(($# - 1)); COMP_TYPE=9
        _clap_complete_herd herd \"${COMP_WORDS[COMP_CWORD]}\" \"\" 2>&1
        printf '%s\\n' \"${COMPREPLY[@]}\"";
    let program = Path::new(env!("CARGO_BIN_EXE_herd")).parent().unwrap().to_str().unwrap();
    let output = Command::new("bash")
        .args(["--norc", "-c", script, "bash", "herd"])
        .args(words)
        .env("PATH", format!("{program}:{}", std::env::var("PATH").unwrap()))
        .env("HERD_SOCKET", &daemon.socket)
        .output()
        .unwrap();
    assert!(output.stderr.is_empty(), "{output:?}");
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).filter(|line| !line.is_empty()).collect()
}

#[test]
fn bash_completes_commands_flags_and_what_the_daemon_has() {
    let daemon = Daemon::repl();
    for session in ["alice", "albert", "bob", "al$(touch${IFS}/tmp/x)", "al;reboot", "--all"] {
        assert_eq!(eval(daemon.gateway, session, "1").status, 200);
    }
    assert_eq!(offered(&daemon, &["comp"]), ["completions"]);
    assert!(offered(&daemon, &["logs", "--time"]).contains(&"--timestamps".to_owned()));
    let mut sessions = offered(&daemon, &["end", "al"]);
    sessions.sort();
    assert_eq!(sessions, ["albert", "alice"]);
    let all = offered(&daemon, &["end", ""]);
    assert!(all.contains(&"bob".to_owned()) && !all.iter().any(|word| word.contains(['$', ';'])), "{all:?}");
    assert_eq!(offered(&daemon, &["logs", "worker-1"])[0], "worker-1");
    assert_eq!(offered(&daemon, &["events", "--pool", "d"]), ["default"]);
    assert_eq!(offered(&daemon, &["events", "--kind", "session-s"]), ["session-started"]);
}

#[test]
fn without_a_daemon_nothing_is_offered_and_nothing_is_said() {
    let daemon = Daemon::repl();
    let socket = daemon.directory().join("nobody.sock");
    assert!(offered(&daemon, &["end", "--socket", socket.to_str().unwrap(), "al"]).is_empty());
}

#[test]
fn each_shell_has_a_script_and_others_are_refused() {
    let directory = TempDir::new().unwrap();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = String::from_utf8(output(&["completions", shell], directory.path()).stdout).unwrap();
        assert!(script.contains("HERD_COMPLETE") && script.contains("herd"), "{shell}: {script}");
    }
    assert!(failure(&["completions", "tcsh"], 2).contains("powershell"));
}
