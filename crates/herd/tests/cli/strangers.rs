//! What answers on a socket is not always the daemon that a command expects.

use std::{
    fs,
    io::{Read as _, Write as _},
    os::unix::{
        fs::{PermissionsExt as _, chown},
        net::UnixListener,
        process::CommandExt as _,
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
};

use tempfile::TempDir;

use crate::daemon::{Daemon, output};

/// A user who is nobody else here.
const NOBODY: u32 = 65534;
/// The commands that ask a daemon.
const COMMANDS: [&[&str]; 8] = [
    &["ps"],
    &["stats"],
    &["events"],
    &["events", "-f"],
    &["logs", "alice"],
    &["logs", "-f", "worker-1"],
    &["end", "alice"],
    &["reload"],
];

fn answer(status: &str, fields: &str, body: &str) -> Vec<u8> {
    format!("HTTP/1.1 {status}\r\n{fields}content-length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

/// A socket on which each connection is answered so.
fn stranger(directory: &Path, answer: Vec<u8>) -> PathBuf {
    let path = directory.join("stranger.sock");
    let listener = UnixListener::bind(&path).unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            // Whoever goes before it is answered has no need of it.
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(&answer);
        }
    });
    path
}

/// What each command says, all of which fail with one sentence.
#[track_caller]
fn sentences(answer: &[u8]) -> Vec<String> {
    let directory = TempDir::new().unwrap();
    let socket = stranger(directory.path(), answer.to_owned());
    let said = COMMANDS.map(|command| {
        let output = output(&[command, &["--socket", socket.to_str().unwrap()]].concat(), directory.path());
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{command:?}: {said}");
        assert_eq!(said.lines().count(), 1, "{command:?}: {said}");
        assert!(output.stdout.is_empty(), "{command:?}");
        said
    });
    said.to_vec()
}

#[test]
fn a_daemon_of_another_version_is_told_by_its_version() {
    let own = env!("CARGO_PKG_VERSION");
    // An older one that lacks the page, and a newer one whose answers have another shape.
    let page = answer("404 Not Found", "server: herd/0.4.9\r\n", r#"{"type": "urn:herd:problem:no-such-page"}"#);
    for answer in [page, answer("200 OK", "server: herd/0.4.9\r\n", r#"{"rows": []}"#)] {
        for said in sentences(&answer) {
            assert!(said.contains(&format!("is herd 0.4.9 and this is herd {own}; use the `herd` of")), "{said}");
        }
    }
}

#[test]
fn a_list_that_goes_round_in_circles_is_an_error() {
    let directory = TempDir::new().unwrap();
    let fields = format!("server: herd/{}\r\n", env!("CARGO_PKG_VERSION"));
    let socket = stranger(directory.path(), answer("200 OK", &fields, r#"{"items": [], "next": "again"}"#));
    let output = output(&["ps", "--socket", socket.to_str().unwrap()], directory.path());
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("the same page of /v1/sessions again and again"), "{said}");
}

#[test]
fn another_program_is_not_taken_for_a_daemon() {
    for said in sentences(&answer("404 Not Found", "", r#"{"message": "page not found"}"#)) {
        assert!(said.contains("is no daemon of herd") && said.contains("--socket PATH"), "{said}");
    }
    for said in sentences(b"SSH-2.0-OpenSSH_9.2\r\n") {
        assert!(
            said.contains("does not speak HTTP, so it is no herd daemon") && said.contains("--socket PATH"),
            "{said}"
        );
    }
}

#[test]
fn one_that_dies_in_the_middle_is_told_so() {
    for answer in [&b""[..], b"HTTP/1.1 200 OK\r\nserver: herd/0.5.0\r\ncontent-length: 5000\r\n\r\n{\"items\""] {
        for said in sentences(answer) {
            assert!(said.contains("broke the connection off") && said.contains("see whether it still runs"), "{said}");
        }
    }
}

#[test]
fn a_socket_of_somebody_else_says_whose_it_takes() {
    let daemon = Daemon::repl();
    // Its directory is closed to others, and so the socket itself is not even found out about. Here it is open.
    let directory = TempDir::new().unwrap();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(daemon.directory(), fs::Permissions::from_mode(0o755)).unwrap();
    let program = directory.path().join("herd");
    // Not by this process: a child of another test could still have it open for writing when it is to be run.
    assert!(
        Command::new("cp").args([env!("CARGO_BIN_EXE_herd").as_ref(), program.as_os_str()]).status().unwrap().success()
    );
    chown(&program, Some(NOBODY), Some(NOBODY)).unwrap();
    let socket = daemon.socket.to_str().unwrap();
    let output = Command::new(&program)
        .args(["ps", "--socket", socket])
        .uid(NOBODY)
        .gid(NOBODY)
        .current_dir("/")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(said, format!("herd: no permission to use {socket}; run this as the daemon's user or as root\n"));
    assert_eq!(output.status.code(), Some(1));
}
