//! Clients of `herd.v1.ExecService` that do what `herd exec` does not.

use std::{
    io::Read as _,
    process::{Child, Stdio},
    time::{Duration, Instant},
};

use hyper::body::Bytes;
use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};
use tokio::sync::mpsc::UnboundedSender;

use crate::{
    client::eval,
    control_client::{Answers, Failure, Plane, framed, varint},
    daemon::{Daemon, eventually, herd, is_gone},
    terminal::Terminal,
};

const EXEC: &str = "/herd.v1.ExecService/Exec";
/// The codes of gRPC.
const INVALID_ARGUMENT: u32 = 3;
const NOT_FOUND: u32 = 5;
const FAILED_PRECONDITION: u32 = 9;
const OUT_OF_RANGE: u32 = 11;

/// A field with bytes of its own.
fn bytes(number: u8, value: &[u8]) -> Vec<u8> {
    let mut field = vec![number << 3 | 2];
    varint(value.len().try_into().unwrap(), &mut field);
    [field, value.to_vec()].concat()
}

fn number(field: u8, value: u64) -> Vec<u8> {
    let mut message = vec![field << 3];
    varint(value, &mut message);
    message
}

/// `ExecRequest { start }`.
fn start(session: &str, command: &[&str], window: u64) -> Vec<u8> {
    let words: Vec<_> = command.iter().flat_map(|word| bytes(4, word.as_bytes())).collect();
    bytes(1, &[bytes(1, session.as_bytes()), words, number(8, window)].concat())
}

/// `ExecRequest { input }`.
fn input(count: usize) -> Vec<u8> {
    bytes(2, &vec![b'x'; count])
}

async fn open(plane: &mut Plane, messages: &[Vec<u8>]) -> (UnboundedSender<Bytes>, Answers) {
    let (requests, answers) = plane.open(EXEC, &[]).await;
    for message in messages {
        requests.send(framed(message).into()).unwrap();
    }
    (requests, answers)
}

/// Sends messages and reads until the stream ends with a status.
async fn ended(plane: &mut Plane, messages: &[Vec<u8>]) -> Failure {
    let (_requests, mut answers) = open(plane, messages).await;
    loop {
        if let Err(failure) = answers.next().await {
            return failure;
        }
    }
}

fn sleeps(daemon: &Daemon) -> Vec<Pid> {
    let name = |pid: &Pid| std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    daemon.descendants().into_iter().filter(|pid| name(pid).trim() == "sleep").collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_conversation_is_refused_and_leaves_nothing_behind() {
    let daemon = Daemon::repl();
    eval(daemon.gateway, "alice", "1");
    let mut plane = Plane::connect(&daemon.socket).await;
    let sleep = || start("alice", &["sleep", "1000"], 0);
    let wrong_size = bytes(4, &[number(1, 0), number(2, 70_000)].concat());
    for (what, messages, code) in [
        ("no start", vec![input(1)], INVALID_ARGUMENT),
        ("nothing", vec![Vec::new()], INVALID_ARGUMENT),
        ("no program", vec![start("alice", &[], 0)], INVALID_ARGUMENT),
        ("a zero byte", vec![start("alice", &["sh\0"], 0)], INVALID_ARGUMENT),
        ("no session ID", vec![start("a b", &["true"], 0)], INVALID_ARGUMENT),
        ("no session", vec![start("bob", &["true"], 0)], NOT_FOUND),
        ("no program", vec![start("alice", &["/none"], 0)], FAILED_PRECONDITION),
        ("two starts", vec![sleep(), sleep()], INVALID_ARGUMENT),
        ("no signal", vec![sleep(), number(5, 99)], INVALID_ARGUMENT),
        ("no size", vec![sleep(), wrong_size], INVALID_ARGUMENT),
        // Beside the window there is the pipe.
        ("more than the window", [vec![sleep()], vec![input(60_000); 5]].concat(), INVALID_ARGUMENT),
        ("a huge message", vec![sleep(), input(1 << 20)], OUT_OF_RANGE),
    ] {
        let failure = ended(&mut plane, &messages).await;
        assert_eq!(failure.code, code, "{what}: {failure:?}");
    }
    eventually(|| sleeps(&daemon).is_empty());
    eventually(|| daemon.page("/v1/sessions/alice")["leases"] == 0);
    assert_eq!(daemon.page("/v1/sessions")["items"].as_array().unwrap().len(), 1, "no session was started");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_more_output_is_under_way_than_the_client_says() {
    let daemon = Daemon::repl();
    eval(daemon.gateway, "alice", "1");
    let mut plane = Plane::connect(&daemon.socket).await;
    let (requests, mut answers) =
        open(&mut plane, &[start("alice", &["head", "-c", "10000", "/dev/zero"], 1000)]).await;
    let (mut under_way, mut all) = (0, 0);
    loop {
        let message = answers.next().await.unwrap();
        match message[0] >> 3 {
            // The output: its tag, its length in one byte or two, and the bytes.
            2 => {
                let count = message.len() - if message.len() > 129 { 3 } else { 2 };
                (under_way, all) = (under_way + count, all + count);
                assert!(under_way <= 1000, "{under_way}");
                if under_way == 1000 {
                    requests.send(framed(&number(6, 1000)).into()).unwrap();
                    under_way = 0;
                }
            }
            5 => break,
            _ => {}
        }
    }
    assert_eq!(all, 10_000);
    assert_eq!(answers.next().await.unwrap_err().code, 0);
}

/// Leaves a process so many descriptors that it may open.
fn leave(pid: Pid, free: u64) {
    let number = |entry: std::fs::DirEntry| entry.file_name().to_str()?.parse::<u64>().ok();
    let open = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().filter_map(|entry| number(entry.unwrap()));
    let mut open: Vec<_> = open.collect();
    open.sort_unstable();
    // The kernel gives the lowest number that is free, and none beyond the limit.
    let most = open.iter().fold(free, |most, number| most + u64::from(*number < most));
    limit(pid, most);
}

fn limit(pid: Pid, files: u64) {
    // The daemon's is that of this process.
    let maximum = getrlimit(Resource::Nofile).maximum;
    prlimit(Some(pid), Resource::Nofile, Rlimit { current: Some(files), maximum }).unwrap();
}

#[test]
fn a_daemon_without_descriptors_refuses_a_command_and_keeps_the_session() {
    let daemon = Daemon::repl();
    eval(daemon.gateway, "alice", "1");
    let worker = daemon.worker_of("alice");
    let words =
        [env!("CARGO_BIN_EXE_herd"), "exec", "--socket", daemon.socket.to_str().unwrap(), "alice", "--", "true"];
    let mut refused = 0;
    // What the daemon closes meanwhile, it has more of than was left to it.
    for free in (1..12).cycle().take(20 * 11) {
        if free == 1 && refused > 0 {
            break;
        }
        leave(daemon.pid(), free);
        let mut terminal = Terminal::start(&words, &herd(&[], daemon.directory()));
        let begun = Instant::now();
        // With so few it cannot even take a connection, and the client waits.
        while terminal.child.try_wait().unwrap().is_none() && begun.elapsed() < Duration::from_secs(2) {
            std::thread::yield_now();
        }
        let code = terminal.child.try_wait().unwrap().and_then(|status| status.code());
        drop(terminal);
        refused += u32::from(code == Some(125));
        limit(daemon.pid(), 4096);
        assert_eq!(daemon.worker_of("alice"), worker, "with {free} descriptors");
        eventually(|| daemon.page("/v1/sessions/alice")["leases"] == 0);
    }
    assert!(refused > 0, "there were enough");
    assert_eq!(daemon.worker_of("alice"), worker);
}

#[test]
fn a_worker_has_so_many_commands_beside_it_and_no_more() {
    let daemon = Daemon::repl();
    eval(daemon.gateway, "alice", "1");
    let socket = daemon.socket.to_str().unwrap();
    let begin = || -> Child {
        let mut command = herd(&["exec", "--socket", socket, "alice", "--", "sleep", "1000"], daemon.directory());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let mut all: Vec<_> = (0..16).map(|_| begin()).collect();
    eventually(|| sleeps(&daemon).len() == 16);
    let mut refused = begin();
    assert_eq!(refused.wait().unwrap().code(), Some(125));
    let mut said = String::new();
    refused.stderr.unwrap().read_to_string(&mut said).unwrap();
    assert!(
        said.contains("16 commands run in this worker's sandbox already; wait until one of them has ended"),
        "{said}"
    );
    let running = sleeps(&daemon);
    for child in &mut all {
        child.kill().unwrap();
        child.wait().unwrap();
    }
    eventually(|| running.iter().all(|pid| is_gone(*pid)));
}
