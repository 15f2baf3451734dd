use std::{
    fs,
    io::{BufRead as _, BufReader},
    net::TcpListener,
    os::unix::fs::PermissionsExt as _,
    process::{Command, Stdio},
};

use rustix::process::Signal;
use tempfile::TempDir;

use crate::{
    client::{eval, get},
    daemon::{Daemon, failure, herd, output},
};

#[test]
fn the_lines_to_try_work_as_they_are_printed() {
    let mut daemon = Daemon::repl();
    assert_eq!(eval(daemon.gateway, "alice", "let x = 41").status, 200);
    daemon.signal(Signal::TERM);
    daemon.wait();
    let banner = daemon.stdout();
    let url = format!("http://{}/eval", daemon.gateway);
    let to_try: Vec<_> = banner.lines().filter(|line| line.trim_start().starts_with("curl ")).collect();
    assert_eq!(to_try.len(), 3, "{banner}");
    assert!(to_try.iter().all(|line| line.contains(&url) && line.contains("X-Session-ID: ")), "{banner}");
    assert!(banner.contains(&format!("http://{}", daemon.admin)), "{banner}");
    let sandbox = banner.lines().find(|line| line.trim_start().starts_with("sandbox ")).unwrap();
    assert!(sandbox.contains("best-effort; on: ") && sandbox.contains("no_new_privs"), "{banner}");
}

#[test]
fn a_port_that_another_daemon_has_is_told_with_its_process() {
    let other = Daemon::repl();
    let said = failure(&["--listen", &other.gateway.to_string(), "--admin", "off"], 1);
    assert!(said.contains(&format!("herd (process {}) has that port; stop it, or ", other.pid())), "{said}");
}

#[test]
fn a_port_in_use_is_one_sentence_with_the_remedy() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let said = failure(&["--listen", &address, "--admin", "off"], 1);
    // The test itself, under the first 15 bytes of its program's name.
    let holder = format!("(process {}) has that port", std::process::id());
    assert!(said.contains(&format!("cannot listen on {address}: cli-")) && said.contains(&holder), "{said}");
    assert!(said.contains("--listen or network.data_bind"), "{said}");
    let said = failure(&["--listen", "127.0.0.1:0", "--admin", &address], 1);
    assert!(said.contains("--admin or network.admin_bind"), "{said}");
}

#[test]
fn a_program_that_cannot_run_is_an_error_before_anything_listens() {
    let directory = TempDir::new().unwrap();
    let plain = directory.path().join("plain");
    fs::write(&plain, "x").unwrap();
    fs::set_permissions(&plain, fs::Permissions::from_mode(0o644)).unwrap();
    let plain = plain.to_str().unwrap();
    for (program, reason) in [
        ("no-such-program-here", "is not in PATH"),
        ("./no-such-program-here", "does not exist"),
        (plain, "is not executable; run `chmod +x"),
        (directory.path().to_str().unwrap(), "is a directory"),
    ] {
        let said = failure(&["run", "--listen", "127.0.0.1:0", "--admin", "off", "--", program], 1);
        assert!(said.contains(reason), "{program}: {said}");
        assert!(!said.contains("serving"), "{said}");
    }
}

#[test]
fn a_working_directory_that_is_none_is_an_error_before_anything_listens() {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("file");
    fs::write(&file, "x").unwrap();
    for (cwd, reason) in [("/no/such/place", "No such file"), (file.to_str().unwrap(), "is no directory")] {
        let said = failure(&["run", "--cwd", cwd, "--listen", "127.0.0.1:0", "--admin", "off", "--", "true"], 1);
        assert!(said.contains(reason) && said.contains("correct --cwd or worker.cwd"), "{said}");
        assert!(!said.contains("serving"), "{said}");
        // A check may run on another machine than the daemon.
        let config = directory.path().join("herd.yaml");
        fs::write(&config, format!("worker: {{cwd: {cwd}}}\n")).unwrap();
        assert!(output(&["check", config.to_str().unwrap()], directory.path()).status.success());
    }
}

#[test]
fn a_file_configures_the_daemon_and_flags_win_over_it() {
    let directory = TempDir::new().unwrap();
    let socket = directory.path().join("from-file.sock");
    let file = directory.path().join("herd.yaml");
    let program = env!("CARGO_BIN_EXE_herd");
    let text = format!(
        "network:\n  data_bind: 127.0.0.1:1\n  admin_bind: 127.0.0.1:0\n  control_socket: {socket}\n  session_key: query:s\n\
         worker:\n  command: [{program}, repl]\n  listen: inherit\n\
         resources: {{min_workers: 0, max_workers: 2, spare: 0}}\n\
         telemetry: {{log_format: json, metrics_path: /numbers}}\n",
        socket = socket.display(),
    );
    fs::write(&file, text).unwrap();
    let args = ["serve", "--config", file.to_str().unwrap(), "--listen", "127.0.0.1:0"];
    let command = herd(&args, directory.path());
    let mut daemon = Daemon::spawn(command, socket, directory);
    let response = get(daemon.gateway, "/health?s=alice");
    assert_eq!((response.status, response.field("herd-session")), (200, Some("new")), "{response:?}");
    assert_eq!(get(daemon.gateway, "/numbers").status, 200);
    assert!(daemon.command(&["ps"]).status.success());
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.wait().code(), Some(0));
    assert_eq!(daemon.stdout(), "", "what runs as a service says everything in its log");
}

#[test]
fn a_file_with_mistakes_starts_nothing() {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("herd.yaml");
    fs::write(&file, "resources: {max_workers: none}\nworker: {command: nothing}\n").unwrap();
    let said = failure(&["serve", "-c", file.to_str().unwrap()], 1);
    assert_eq!(said.lines().count(), 2, "{said}");
    assert!(said.contains("herd.yaml:1:26: resources.max_workers") && said.contains("herd.yaml:2:19: worker.command"));
}

#[test]
fn limits_are_skipped_only_when_the_sandbox_is_off_and_then_not_in_silence() {
    let mut daemon = Daemon::run(&["--sandbox", "off", "--memory", "512MiB", "--pids", "100"], &["{{herd}}", "repl"]);
    assert_eq!(eval(daemon.gateway, "alice", "1").status, 200);
    daemon.signal(Signal::TERM);
    daemon.wait();
    let log = daemon.log.join("\n");
    assert!(log.contains("--memory: a memory limit is skipped because the sandbox is off"), "{log}");
    assert!(log.contains("--pids: a limit of processes is skipped because the sandbox is off"), "{log}");
}

#[test]
fn workers_listen_on_ports_sockets_and_inherited_sockets() {
    for (how, worker) in [
        ("port", &["{{herd}}", "repl"][..]),
        ("socket", &["{{herd}}", "repl", "--socket", "{{.Socket}}"]),
        ("inherit", &["{{herd}}", "repl"]),
    ] {
        let daemon = Daemon::run(&["--worker-listen", how], worker);
        assert_eq!(eval(daemon.gateway, "alice", "6 * 7").body, "42", "{how}");
    }
}

#[test]
fn log_lines_are_json_on_a_pipe_and_text_without_colours_when_asked_for() {
    for (flags, is_json) in [(&[][..], true), (&["--log-format", "text"], false)] {
        let directory = TempDir::new().unwrap();
        let quiet = ["--listen", "127.0.0.1:0", "--admin", "off"];
        let command = herd(&[&quiet[..], flags].concat(), directory.path());
        let line = first_log_line(command);
        assert!(line.contains("serving") && !line.contains('\u{1b}'), "{line:?}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&line).is_ok(), is_json, "{line}");
    }
}

#[test]
fn a_program_that_cannot_become_ready_is_told_to_the_client_and_the_daemon_lives() {
    let daemon = Daemon::run(&["--acquire-timeout", "10s"], &["sh", "-c", "echo no license >&2; exit 3"]);
    let response = eval(daemon.gateway, "alice", "1");
    assert_eq!(response.status, 503, "{response:?}");
    let detail = response.json()["detail"].as_str().unwrap().to_owned();
    assert!(detail.contains("exit code 3") && detail.contains("no license"), "{detail}");
    assert_eq!(get(daemon.gateway, "/healthz").status, 200);
}

/// Starts a daemon, reads the first line of its log, and ends it.
fn first_log_line(mut command: Command) -> String {
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stderr.take().unwrap()).read_line(&mut line).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    line
}
