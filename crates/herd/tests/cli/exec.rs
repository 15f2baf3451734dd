//! `herd exec`: real commands beside real workers.

use std::{
    fs,
    io::{Read as _, Write as _},
    os::unix::process::ExitStatusExt as _,
    process::{Child, Command, Output, Stdio},
    thread,
};

use http_body_util::Full;
use hyper::{
    Request, Response,
    body::{Bytes, Incoming},
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustix::process::{Pid, Signal, kill_process};

use crate::{
    client::{eval, get},
    daemon::{Daemon, eventually, herd, is_gone},
    terminal::Terminal,
};

const HERD: &str = env!("CARGO_BIN_EXE_herd");
/// More than all buffers on the way hold together.
const MUCH: usize = 24 << 20;

/// A daemon with the session `alice`.
fn daemon() -> Daemon {
    let daemon = Daemon::repl();
    assert_eq!(eval(daemon.gateway, "alice", "1").status, 200);
    daemon
}

fn exec(daemon: &Daemon, words: &[&str]) -> Command {
    let mut command = herd(&["exec", "--socket", daemon.socket.to_str().unwrap()], daemon.directory());
    command.args(words).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

#[track_caller]
fn sh(daemon: &Daemon, script: &str) -> Output {
    exec(daemon, &["alice", "--", "sh", "-c", script]).output().unwrap()
}

#[track_caller]
fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

/// The process of the command, which says its ID as its daemon sees it in the log.
#[track_caller]
fn beside(daemon: &Daemon, worker: Pid) -> Vec<Pid> {
    daemon.descendants().into_iter().filter(|pid| *pid != worker && program(*pid) == "sleep").collect()
}

fn program(pid: Pid) -> String {
    fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default().trim().to_owned()
}

fn wait_for_sleep(daemon: &Daemon) -> Pid {
    let worker = daemon.worker_of("alice");
    let mut found = Vec::new();
    eventually(|| {
        found = beside(daemon, worker);
        !found.is_empty()
    });
    found[0]
}

#[test]
fn a_command_is_in_the_workers_namespaces_and_has_its_identity_and_filters() {
    let daemon = daemon();
    let worker = daemon.worker_of("alice");
    let script = "for n in pid net ipc uts cgroup user mnt; do readlink /proc/self/ns/$n; done; grep -E \
                  '^(Uid|Gid|CapEff|NoNewPrivs|Seccomp):' /proc/self/status; cat /proc/self/cgroup; env";
    let output = sh(&daemon, script);
    assert!(output.status.success(), "{output:?}");
    let said = text(&output.stdout);
    for namespace in ["pid", "net", "ipc", "uts", "cgroup", "user", "mnt"] {
        let of_worker = fs::read_link(format!("/proc/{worker}/ns/{namespace}")).unwrap();
        assert!(said.contains(of_worker.to_str().unwrap()), "{namespace}: {of_worker:?} is not in {said}");
    }
    let status = fs::read_to_string(format!("/proc/{worker}/status")).unwrap();
    let own = fs::read_link(format!("/proc/{worker}/ns/user")).unwrap() == fs::read_link("/proc/self/ns/user").unwrap();
    for line in status.lines() {
        let name = line.split(':').next().unwrap();
        // In a user namespace of its own it counts users in another way.
        let counted = own && matches!(name, "Uid" | "Gid");
        if counted || matches!(name, "CapEff" | "NoNewPrivs" | "Seccomp") {
            assert!(said.contains(line), "{line} is not in {said}");
        }
    }
    assert!(!said.contains(crate::daemon::CANARY), "{said}");
}

#[test]
fn what_it_says_and_how_it_ends_is_what_herd_exec_says_and_how_that_ends() {
    let daemon = daemon();
    let output = sh(&daemon, "echo out; echo err >&2; exit 7");
    assert_eq!((output.status.code(), text(&output.stdout), text(&output.stderr)), (Some(7), "out\n", "err\n"));
    let output = sh(&daemon, "kill -TERM $$");
    assert_eq!((output.status.code(), text(&output.stderr)), (Some(143), ""));
    let output = exec(&daemon, &["alice", "--", "no-such-program"]).output().unwrap();
    assert_eq!(output.status.code(), Some(127), "{output:?}");
    assert!(text(&output.stderr).contains("no-such-program"), "{output:?}");
    let output = exec(&daemon, &["alice", "--", "/etc/passwd"]).output().unwrap();
    assert_eq!(output.status.code(), Some(126), "{output:?}");
    let words = ["--env", "GREETING=a b=c", "--cwd", "/tmp", "alice", "--", "sh", "-c", "echo $GREETING; pwd"];
    let output = exec(&daemon, &words).output().unwrap();
    assert_eq!(text(&output.stdout), "a b=c\n/tmp\n");
}

#[test]
fn what_is_too_long_is_refused_in_a_sentence() {
    let mut daemon = daemon();
    let long = "a".repeat(20_000);
    let output = exec(&daemon, &["alice", "--", &long]).output().unwrap();
    let said = text(&output.stderr);
    assert!(matches!(output.status.code(), Some(126 | 127)), "{output:?}");
    assert!(said.starts_with("herd: `aaaa") && said.contains("could not be started") && said.len() < 3000, "{said}");
    let line = daemon.log_line(|line| line["message"] == "a command could not be run in a worker's sandbox");
    assert!(line.to_string().len() < 2000, "{line}");
    let much = "b".repeat(100_000);
    let output = exec(&daemon, &["alice", "--", "echo", &much, &much, &much]).output().unwrap();
    assert_eq!(output.status.code(), Some(125));
    let said = text(&output.stderr);
    assert!(said.contains("bytes, and herd exec takes up to 262") && said.contains("standard input"), "{said}");
}

#[test]
fn what_is_wrong_is_said_before_anything_runs() {
    let daemon = daemon();
    let failed = |words: &[&str], code: i32| {
        let output = exec(&daemon, words).output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{output:?}");
        text(&output.stderr).to_owned()
    };
    assert!(failed(&["bob", "--", "true"], 125).contains("there is no session bob; `herd ps` lists"));
    assert!(failed(&["alice", "--pool", "none", "--", "true"], 125).contains("no such pool"));
    assert!(failed(&["--tty", "alice", "--", "true"], 125).contains("--tty needs a terminal"));
    assert!(failed(&["alice"], 2).contains("COMMAND"));
    assert!(failed(&["--env", "x", "alice", "--", "true"], 2).contains("NAME=VALUE"));
    assert!(failed(&["--cwd", "x", "alice", "--", "true"], 2).contains("absolute path"));
    assert_eq!(get(daemon.admin, "/v1/sessions/bob").status, 404, "no session was started");
    let mut nobody = herd(&["exec", "--socket", "/nonexistent/herd.sock", "alice", "--", "true"], daemon.directory());
    let output = nobody.output().unwrap();
    assert_eq!(output.status.code(), Some(125));
    assert!(text(&output.stderr).contains("start one with `herd`"), "{output:?}");
}

#[test]
fn much_input_and_output_is_passed_on_byte_for_byte() {
    let daemon = daemon();
    let much: Vec<u8> = (0..MUCH).map(|place| (place.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let mut child = exec(&daemon, &["alice", "--", "cat"]).stdin(Stdio::piped()).spawn().unwrap();
    let (mut stdin, sent) = (child.stdin.take().unwrap(), much.clone());
    let writer = thread::spawn(move || stdin.write_all(&sent));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    assert!(output.status.success(), "{:?}", text(&output.stderr));
    assert!(output.stdout == much, "{} bytes came of {}", output.stdout.len(), much.len());
    // What is there at the end of the command is told to its end.
    let output = sh(&daemon, "head -c 300000 /dev/zero; head -c 200000 /dev/zero >&2");
    assert_eq!((output.stdout.len(), output.stderr.len()), (300_000, 200_000));
}

#[test]
fn a_reader_who_waits_makes_the_command_wait_and_the_daemon_keep_little() {
    let daemon = daemon();
    let before = memory(daemon.pid());
    let script = "head -c 67108864 /dev/zero & wait; echo all >&2";
    let mut child = exec(&daemon, &["alice", "--", "sh", "-c", script]).spawn().unwrap();
    let mut stdout = child.stdout.take().unwrap();
    let mut first = [0; 1];
    stdout.read_exact(&mut first).unwrap();
    // The window fills, and the command's pipe.
    let worker = daemon.worker_of("alice");
    let mut writer = None;
    eventually(|| {
        writer = daemon.descendants().into_iter().find(|pid| *pid != worker && program(*pid) == "head");
        writer.is_some_and(is_asleep_in_a_pipe)
    });
    let client = memory(Pid::from_child(&child));
    let grown = memory(daemon.pid()).saturating_sub(before);
    assert!(grown < 8 << 20, "the daemon grew by {grown} bytes");
    assert!(client < 64 << 20, "the client has {client} bytes");
    let mut rest = Vec::new();
    stdout.read_to_end(&mut rest).unwrap();
    assert_eq!(rest.len() + 1, 67_108_864);
    assert_eq!(child.wait_with_output().unwrap().stderr, b"all\n");
}

/// Whether it waits for somebody to read what it writes.
fn is_asleep_in_a_pipe(pid: Pid) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let place = fs::read_to_string(format!("/proc/{pid}/syscall")).unwrap_or_default();
    // The number of write(2) comes first.
    stat.contains(") S ") && (place.starts_with("1 ") || place.starts_with("64 "))
}

fn memory(pid: Pid) -> usize {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() * 1024
}

#[test]
fn input_ends_and_a_command_that_reads_none_of_it_keeps_nobody() {
    let daemon = daemon();
    let mut child = exec(&daemon, &["alice", "--", "wc", "-c"]).stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"12345").unwrap();
    assert_eq!(text(&child.wait_with_output().unwrap().stdout).trim(), "5");
    let mut child = exec(&daemon, &["alice", "--", "sh", "-c", "exec <&-; echo closed; sleep 0.2; echo done"]);
    let mut child = child.stdin(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let writer = thread::spawn(move || stdin.write_all(&vec![0; 1 << 20]));
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), text(&output.stdout)), (Some(0), "closed\ndone\n"));
    // Either all was thrown away, or the pipe broke when herd exec had ended.
    let _ = writer.join().unwrap();
}

#[test]
fn a_reader_who_has_seen_enough_ends_the_command() {
    let daemon = daemon();
    let mut child = exec(&daemon, &["alice", "--", "sh", "-c", "while :; do echo y; sleep 0; done"]).spawn().unwrap();
    let mut stdout = child.stdout.take().unwrap();
    stdout.read_exact(&mut [0; 2]).unwrap();
    drop(stdout);
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), text(&output.stderr)), (Some(141), ""));
    eventually(|| daemon.page("/v1/sessions/alice")["leases"] == 0);
}

#[test]
fn others_who_write_for_ever_do_not_put_the_end_off() {
    let daemon = daemon();
    let mut pipes = exec(&daemon, &["alice", "--", "sh", "-c", "setsid yes & sleep 0.3; echo hi >&2; exit 4"]);
    let mut child = pipes.stdout(Stdio::null()).spawn().unwrap();
    let mut code = None;
    eventually(|| {
        code = child.try_wait().unwrap();
        code.is_some()
    });
    assert_eq!(code.unwrap().code(), Some(4));
    assert_eq!(child.wait_with_output().unwrap().stderr, b"hi\n");
    // It comes back after the terminal was taken from all who had it.
    let script =
        "t=$(tty); setsid sh -c \"while :; do echo spam > $t; sleep 0.01; done\" & sleep 0.3; echo last; exit 5";
    let mut terminal = at_terminal(&daemon, &["sh", "-c", script]);
    assert_eq!(terminal.wait().code(), Some(5));
    assert!(String::from_utf8_lossy(&terminal.written).contains("last\r\n"), "{}", terminal.text());
    eventually(|| daemon.page("/v1/sessions/alice")["leases"] == 0);
}

#[test]
fn who_waits_for_the_rest_of_the_output_holds_no_session_and_can_give_up() {
    let daemon = daemon();
    // More than fits on the way, less than what fits there and in the command's own pipe.
    let mut child = exec(&daemon, &["alice", "--", "head", "-c", "220000", "/dev/zero"]).spawn().unwrap();
    let worker = daemon.worker_of("alice");
    let mut stdout = child.stdout.take().unwrap();
    stdout.read_exact(&mut [0; 1]).unwrap();
    eventually(|| daemon.page("/v1/sessions/alice")["leases"] == 0);
    assert!(daemon.descendants().iter().all(|pid| *pid == worker || program(*pid) != "head"));
    assert_eq!(child.try_wait().unwrap(), None, "there is more to read");
    eventually(|| {
        // Until it has heard of the end, an interrupt is the command's.
        kill_process(Pid::from_child(&child), Signal::INT).unwrap();
        child.try_wait().unwrap().is_some()
    });
    assert_eq!(child.wait().unwrap().code(), Some(130));

    let mut child = exec(&daemon, &["alice", "--", "head", "-c", "220000", "/dev/zero"]).spawn().unwrap();
    let mut stdout = child.stdout.take().unwrap();
    stdout.read_exact(&mut [0; 1]).unwrap();
    eventually(|| daemon.page("/v1/sessions/alice")["leases"] == 0);
    let mut rest = Vec::new();
    stdout.read_to_end(&mut rest).unwrap();
    assert_eq!((rest.len(), child.wait().unwrap().code()), (219_999, Some(0)), "nothing of it is lost");
}

#[test]
fn signals_are_the_commands() {
    let daemon = daemon();
    for (signal, script) in [(Signal::INT, "INT"), (Signal::TERM, "TERM"), (Signal::USR1, "USR1")] {
        let script = format!("trap 'echo told; exit 9' {script}; echo ready; while :; do sleep 0.1; done");
        let mut child = exec(&daemon, &["alice", "--", "sh", "-c", &script]).spawn().unwrap();
        let mut stdout = child.stdout.take().unwrap();
        stdout.read_exact(&mut [0; 6]).unwrap();
        kill_process(Pid::from_child(&child), signal).unwrap();
        let mut rest = String::new();
        stdout.read_to_string(&mut rest).unwrap();
        assert_eq!((rest.as_str(), child.wait().unwrap().code()), ("told\n", Some(9)));
    }
}

#[test]
fn a_command_ends_with_its_client_its_session_and_its_daemon() {
    let mut daemon = daemon();
    let begin = |daemon: &Daemon| -> (Child, Pid) {
        let child = exec(daemon, &["alice", "--", "sleep", "1000"]).spawn().unwrap();
        (child, wait_for_sleep(daemon))
    };
    let (mut child, sleep) = begin(&daemon);
    assert_eq!(daemon.page("/v1/sessions/alice")["leases"], 1, "the session is in use");
    child.kill().unwrap();
    assert_eq!(child.wait().unwrap().signal(), Some(9));
    eventually(|| is_gone(sleep));
    eventually(|| daemon.page("/v1/sessions/alice")["leases"] == 0);

    let (child, sleep) = begin(&daemon);
    assert!(daemon.command(&["end", "--force", "alice"]).status.success());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(125));
    assert!(text(&output.stderr).contains("the session ended: killed, and so did the command"), "{output:?}");
    eventually(|| is_gone(sleep));

    eval(daemon.gateway, "alice", "1");
    let (child, sleep) = begin(&daemon);
    kill_process(daemon.worker_of("alice"), Signal::KILL).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(text(&output.stderr).contains("the session ended: crashed (signal 9)"), "{output:?}");
    eventually(|| is_gone(sleep));

    eval(daemon.gateway, "alice", "1");
    let (child, sleep) = begin(&daemon);
    daemon.signal(Signal::KILL);
    daemon.wait();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(125));
    assert!(text(&output.stderr).contains("broke the connection off"), "{output:?}");
    eventually(|| is_gone(sleep));
}

#[test]
fn the_log_says_who_ran_which_program_and_nothing_of_what_may_be_secret() {
    let mut daemon = daemon();
    let output = exec(&daemon, &["--env", "TOKEN=hunter2", "alice", "--", "sh", "-c", ": s3cret"]).output().unwrap();
    assert!(output.status.success());
    let line = daemon.log_line(|line| line["message"] == "a command runs in a worker's sandbox");
    assert_eq!((&line["program"], &line["uid"]), (&"\"sh\"".into(), &rustix::process::geteuid().as_raw().into()));
    assert!(line["pid"].as_i64().is_some_and(|pid| pid > 0) && line["worker"].as_str().is_some(), "{line}");
    let log = daemon.log.join("\n");
    assert!(!log.contains("hunter2") && !log.contains("s3cret") && !log.contains("alice"), "{log}");
}

fn at_terminal(daemon: &Daemon, words: &[&str]) -> Terminal {
    let exec = [HERD, "exec", "--socket", daemon.socket.to_str().unwrap(), "alice", "--"];
    Terminal::start(&[&exec, words].concat(), &herd(&[], daemon.directory()))
}

#[test]
fn a_terminal_is_the_commands_with_its_size_its_keys_and_its_name() {
    let daemon = daemon();
    let script = "stty size; echo term=$TERM; trap 'stty size' WINCH; trap 'echo interrupted' INT; tty; while read -r \
                  line; do echo \"read $line\"; [ \"$line\" = end ] && exit 3; done; while :; do sleep 0.1; done";
    let mut terminal = at_terminal(&daemon, &["bash", "-c", script]);
    terminal.until_shown("24 80");
    terminal.until_shown("term=xterm-256color");
    terminal.until_shown("/dev/pts/");
    assert!(terminal.is_raw(), "keys are the command's");
    terminal.resize(100, 30);
    // The shell looks at its traps when the line is read.
    terminal.press("first\r");
    terminal.until_shown("read first");
    terminal.until_shown("30 100");
    terminal.press("\x03");
    terminal.until_shown("^C");
    terminal.press("end\r");
    assert_eq!(terminal.wait().code(), Some(3), "{}", terminal.text());
    assert!(terminal.text().contains("interrupted"), "{}", terminal.text());
}

#[test]
fn a_program_that_takes_every_key_gets_every_key() {
    let daemon = daemon();
    let script = "stty raw -echo; printf 'raw\\r\\n'; head -c 6 | od -An -tx1";
    let mut terminal = at_terminal(&daemon, &["sh", "-c", script]);
    terminal.until_shown("raw");
    terminal.press("\x03\x1a\x1b[Aq");
    terminal.until_shown("03 1a 1b 5b 41 71");
    assert_eq!(terminal.wait().code(), Some(0));
}

#[test]
fn the_terminal_is_given_back_whatever_ends_the_command() {
    let mut daemon = daemon();
    let begin = |daemon: &Daemon| {
        let mut terminal = at_terminal(daemon, &["sh", "-c", "echo begun; exec sleep 1000"]);
        terminal.until_shown("begun");
        assert!(terminal.is_raw());
        terminal
    };
    let mut terminal = begin(&daemon);
    terminal.press("\x03");
    assert_eq!(terminal.wait().code(), Some(130), "Ctrl-C is the command's, and it died of it");

    let mut terminal = begin(&daemon);
    terminal.signal(Signal::TERM);
    assert_eq!(terminal.wait().code(), Some(143));

    let mut terminal = begin(&daemon);
    assert!(daemon.command(&["end", "--force", "alice"]).status.success());
    assert_eq!(terminal.wait().code(), Some(125));
    assert!(terminal.text().contains("the session ended: killed"), "{}", terminal.text());

    eval(daemon.gateway, "alice", "1");
    let mut terminal = begin(&daemon);
    daemon.signal(Signal::KILL);
    daemon.wait();
    assert_eq!(terminal.wait().code(), Some(125));
    assert!(terminal.text().contains("broke the connection off"), "{}", terminal.text());
}

#[test]
fn on_a_terminal_pipes_can_be_asked_for() {
    let daemon = daemon();
    let exec = [HERD, "exec", "-T", "--no-stdin", "--socket", daemon.socket.to_str().unwrap(), "alice", "--"];
    let words = [&exec[..], &["sh", "-c", "tty; cat; echo over"]].concat();
    let mut terminal = Terminal::start(&words, &herd(&[], daemon.directory()));
    terminal.until_shown("not a tty");
    terminal.until_shown("over");
    assert_eq!(terminal.wait().code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_knows_no_exec_is_named_with_its_version() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("herd.sock");
    let listener = tokio::net::UnixListener::bind(&socket).unwrap();
    let old = tokio::spawn(async move {
        let answer = async |request: Request<Incoming>| {
            let answer = Response::builder().header("server", "herd/0.4.9");
            let session = r#"{"pool":"default","tenant":null,"id":"alice","state":"live","worker":"worker-1","address":null,
                "created":"2026-01-31T12:00:00Z","last_used":"2026-01-31T12:00:00Z","idle_until":null,"ends_by":null,
                "leases":0,"requests":0,"bytes_in":0,"bytes_out":0}"#;
            let body = if request.method() == "GET" { session } else { "" };
            let is_grpc = request.headers().get("content-type").is_some_and(|kind| kind == "application/grpc");
            let answer = if is_grpc { answer.header("grpc-status", "12") } else { answer };
            let kind = if is_grpc { "application/grpc" } else { "application/json" };
            answer.header("content-type", kind).body(Full::new(Bytes::from_static(body.as_bytes())))
        };
        // First the session is looked for, over HTTP/1.1, and then gRPC is spoken.
        let (stream, _) = listener.accept().await.unwrap();
        let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service_fn(answer)).await;
        let (stream, _) = listener.accept().await.unwrap();
        let server = http2::Builder::new(TokioExecutor::new());
        let _ = server.serve_connection(TokioIo::new(stream), service_fn(answer)).await;
    });
    let path = socket.to_str().unwrap().to_owned();
    let output = tokio::task::spawn_blocking(move || {
        herd(&["exec", "--socket", &path, "alice", "--", "true"], directory.path())
            .stdin(Stdio::null())
            .output()
            .unwrap()
    });
    let output = output.await.unwrap();
    old.abort();
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(125), "{said}");
    let own = env!("CARGO_PKG_VERSION");
    assert!(said.contains("there is no exec") && said.contains("herd 0.4.9") && said.contains(own), "{said}");
}
