//! Sessions that streams of the control plane hold.

use std::{
    os::unix::process::CommandExt as _,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};

use crate::{
    client::{eval, get, request},
    control_client::{Failure, Plane, Value, fields},
    daemon::{Daemon, eventually, herd, is_gone},
};

/// The codes of gRPC that these tests see.
const OK: u32 = 0;
const INVALID_ARGUMENT: u32 = 3;
const NOT_FOUND: u32 = 5;
const RESOURCE_EXHAUSTED: u32 = 8;
const FAILED_PRECONDITION: u32 = 9;
const ABORTED: u32 = 10;
const INTERNAL: u32 = 13;
const UNAVAILABLE: u32 = 14;

/// A daemon of the REPL in which no session waits for a worker to start.
fn daemon() -> Daemon {
    repl(&["--workers", "1..4", "--spare", "1"])
}

/// A daemon of REPLs with further flags.
pub(crate) fn repl(flags: &[&str]) -> Daemon {
    Daemon::run(flags, &["{{herd}}", "repl"])
}

/// How long it takes until nothing of the process is left.
#[track_caller]
fn assert_gone_within_200_ms(worker: Pid, since: Instant) {
    eventually(|| is_gone(worker));
    let took = since.elapsed();
    assert!(took < Duration::from_millis(200), "the worker was there for {took:?}");
}

fn reason(failure: &Failure) -> Option<&str> {
    failure.trailers.get("herd-end-reason").map(|value| value.to_str().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn each_request_of_a_stream_is_answered_with_the_same_session_and_each_stream_has_its_own() {
    let daemon = daemon();
    let mut plane = Plane::connect(&daemon.socket).await;
    let mut stream = plane.acquire(&[]).await;
    let session = stream.session().await;
    assert_eq!(session.id.len(), 32);
    assert!(session.id.bytes().all(|byte| byte.is_ascii_hexdigit()), "{session:?}");
    assert_eq!(session.proxy_address, format!("http://{}", daemon.gateway));
    assert_eq!(daemon.worker_of(&session.id), session.worker());
    assert_eq!(stream.session().await, session);
    let mut other = plane.acquire(&[]).await;
    let another = other.session().await;
    assert!(another.id != session.id && another.pid != session.pid);

    eval(daemon.gateway, &session.id, "let x = 41");
    assert_eq!(eval(daemon.gateway, &session.id, "x + 1").body, "42");
    // The stream's own is left; those of the requests go when their answers are through.
    daemon.page_when(&format!("/v1/sessions/{}", session.id), |session| session["leases"] == 1);
    drop(stream);
    eventually(|| get(daemon.admin, &format!("/v1/sessions/{}", session.id)).status == 404);
    assert_eq!(eval(daemon.gateway, &another.id, "1").body, "1", "the other stream goes on");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn the_end_of_a_stream_ends_its_worker_within_200_ms() {
    let daemon = daemon();
    let mut plane = Plane::connect(&daemon.socket).await;

    let mut stream = plane.acquire(&[]).await;
    let closed = stream.session().await;
    let since = Instant::now();
    let ended = stream.close().await;
    assert_eq!(
        (ended.code, is_gone(closed.worker())),
        (OK, true),
        "the status says that the worker is gone: {ended:?}"
    );
    assert_gone_within_200_ms(closed.worker(), since);

    let mut stream = plane.acquire(&[]).await;
    let reset = stream.session().await;
    let since = Instant::now();
    drop(stream);
    assert_gone_within_200_ms(reset.worker(), since);

    let mut stream = plane.acquire(&[]).await;
    let cut = stream.session().await;
    let since = Instant::now();
    plane.cut();
    assert_gone_within_200_ms(cut.worker(), since);

    let stats = daemon.page_when("/v1/stats", |stats| stats["sessions"] == 0);
    assert_eq!(stats["sessions_ended"]["client-stream-closed"], 3, "{stats}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_client_that_goes_away_while_it_waits_leaves_nothing() {
    let flags = ["--workers", "0..1", "--spare", "0", "--start-timeout", "60s"];
    let daemon = Daemon::run(&flags, &["sleep", "600"]);
    let mut plane = Plane::connect(&daemon.socket).await;
    let stream = plane.acquire(&[]).await;
    stream.ask("", 0);
    daemon.page_when("/v1/stats", |stats| stats["waiting"] == 1);
    drop(stream);
    daemon.page_when("/v1/stats", |stats| stats["waiting"] == 0);
    assert_eq!(daemon.page("/v1/sessions")["items"].as_array().unwrap().len(), 0);

    let stream = plane.acquire(&[]).await;
    stream.ask("", 0);
    daemon.page_when("/v1/stats", |stats| stats["waiting"] == 1);
    plane.cut();
    daemon.page_when("/v1/stats", |stats| stats["waiting"] == 0);
    assert_eq!(daemon.page("/v1/sessions")["items"].as_array().unwrap().len(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_session_that_ends_first_ends_the_stream_with_the_reason() {
    let daemon = daemon();
    let mut plane = Plane::connect(&daemon.socket).await;
    let mut stream = plane.acquire(&[]).await;
    let killed = stream.session().await;
    request(daemon.admin, "DELETE", &format!("/v1/sessions/{}?force=true", killed.id), &[]);
    let ended = stream.answer().await.unwrap_err();
    assert_eq!((ended.code, reason(&ended)), (ABORTED, Some("killed")), "{ended:?}");

    let mut stream = plane.acquire(&[]).await;
    let crashed = stream.session().await;
    kill_process(crashed.worker(), Signal::KILL).unwrap();
    let ended = stream.answer().await.unwrap_err();
    assert_eq!((ended.code, reason(&ended)), (ABORTED, Some("crashed")), "{ended:?}");
    assert!(ended.message.contains("the session ended: crashed"), "{ended:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_session_that_a_stream_holds_is_never_idle() {
    for idle_by in ["lease", "bytes"] {
        let daemon = repl(&["--workers", "1..4", "--ttl", "300ms", "--idle-by", idle_by]);
        let mut plane = Plane::connect(&daemon.socket).await;
        let mut stream = plane.acquire(&[]).await;
        let held = stream.session().await;
        // Three sessions in a row become idle while it is held, and each began after it was last asked for.
        for name in ["a", "b", "c"] {
            eval(daemon.gateway, name, "1");
            eventually(|| get(daemon.admin, &format!("/v1/sessions/{name}")).status == 404);
        }
        assert_eq!(stream.session().await, held, "idle by {idle_by}");
        drop(stream);
        eventually(|| is_gone(held.worker()));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn what_cannot_be_had_is_told_apart() {
    let daemon = repl(&["--workers", "0..1", "--spare", "0", "--max-waiting", "1"]);
    let mut plane = Plane::connect(&daemon.socket).await;
    let refusal = async |plane: &mut Plane, fields: &[(&str, &str)], worker_type: &str, timeout: i32| {
        let mut stream = plane.acquire(fields).await;
        stream.ask(worker_type, timeout);
        stream.answer().await.unwrap_err()
    };
    let unknown = refusal(&mut plane, &[], "no-such-pool", 0).await;
    assert_eq!(unknown.code, NOT_FOUND);
    assert!(unknown.message.ends_with("there are: default"), "{unknown:?}");
    assert_eq!(refusal(&mut plane, &[], "", -1).await.code, INVALID_ARGUMENT);

    let mut holder = plane.acquire(&[]).await;
    holder.ask("default", 0);
    holder.answer().await.unwrap();
    let since = Instant::now();
    let late = refusal(&mut plane, &[], "", 1).await;
    assert_eq!(late.code, RESOURCE_EXHAUSTED, "{late:?}");
    assert!(late.message.contains("within 1s") && since.elapsed() < Duration::from_secs(20), "{late:?}");
    let waiting = plane.acquire(&[]).await;
    waiting.ask("", 0);
    daemon.page_when("/v1/stats", |stats| stats["waiting"] == 1);
    let full = refusal(&mut plane, &[], "", 0).await;
    assert_eq!(full.code, RESOURCE_EXHAUSTED, "{full:?}");
    assert!(full.message.contains("1 caller waits"), "{full:?}");

    let broken = Daemon::run(&["--workers", "0..1", "--spare", "0"], &["sh", "-c", "echo it is broken >&2; exit 3"]);
    let mut plane = Plane::connect(&broken.socket).await;
    let failed = refusal(&mut plane, &[], "", 0).await;
    assert_eq!(failed.code, INTERNAL, "{failed:?}");
    assert!(failed.message.contains("the worker could not be started"), "{failed:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_tenant_in_the_metadata_owns_the_session() {
    let open = daemon();
    let mut plane = Plane::connect(&open.socket).await;
    let refused = plane.acquire(&[("herd-tenant", "acme")]).await.close().await;
    assert_eq!(refused.code, FAILED_PRECONDITION, "nobody could use it: {refused:?}");
    assert!(refused.message.contains("admits nobody of a tenant"), "{refused:?}");

    let (_directory, config) = crate::sandbox::file(crate::pools::ADMITS_TENANTS);
    let daemon = Daemon::serve(&["--config", &config]);
    let mut plane = Plane::connect(&daemon.socket).await;
    let mut stream = plane.acquire(&[("herd-tenant", "acme")]).await;
    let session = stream.session().await;
    let page = daemon.page("/v1/sessions");
    let found = page["items"].as_array().unwrap().iter().find(|item| item["id"] == session.id.as_str()).unwrap();
    assert_eq!(found["tenant"], "acme", "{page}");
    for fields in [&[("herd-tenant", "not a name")][..], &[("herd-tenant", "a"), ("herd-tenant", "b")]] {
        let refused = plane.acquire(fields).await.close().await;
        assert_eq!(refused.code, INVALID_ARGUMENT, "{refused:?}");
        assert!(refused.message.contains("herd-tenant"), "{refused:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_daemon_that_stops_gives_streams_a_moment_and_ends_them() {
    let mut daemon = repl(&["--workers", "1..4", "--drain-timeout", "600s"]);
    let mut plane = Plane::connect(&daemon.socket).await;
    let mut stream = plane.acquire(&[]).await;
    let session = stream.session().await;
    let serving = plane.call("/grpc.health.v1.Health/Check", b"").await.unwrap();
    assert_eq!(serving, [8, 1], "SERVING");
    daemon.signal(Signal::TERM);
    let ended = stream.answer().await.unwrap_err();
    assert_eq!((ended.code, reason(&ended)), (UNAVAILABLE, Some("drained")), "{ended:?}");
    eventually(|| is_gone(session.worker()));
    let status = daemon.wait();
    assert!(status.success(), "{status}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn while_the_daemon_drains_it_is_not_healthy_and_starts_no_session() {
    let daemon = repl(&["--workers", "1..4", "--drain-timeout", "600s"]);
    let mut plane = Plane::connect(&daemon.socket).await;
    // A request of which the rest does not come keeps the daemon from ending.
    let length = ("content-length", "100");
    let mut open =
        crate::client::Exchange::begin(daemon.gateway, "POST", "/eval", &[("x-session-id", "alice"), length]);
    open.send("1");
    daemon.page_when("/v1/sessions", |page| page["items"][0]["leases"] == 1);
    daemon.signal(Signal::TERM);
    eventually(|| get(daemon.admin, "/readyz").status == 503);
    for service in [&b""[..], b"\x0a\x13herd.v1.HerdService"] {
        let health = plane.call("/grpc.health.v1.Health/Check", service).await.unwrap();
        assert_eq!(health, [8, 2], "NOT_SERVING");
    }
    let mut stream = plane.acquire(&[]).await;
    stream.ask("", 0);
    let refused = stream.answer().await.unwrap_err();
    assert_eq!(refused.code, UNAVAILABLE, "{refused:?}");
    assert!(refused.message.contains("draining"), "{refused:?}");
    drop(open);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn the_death_of_the_daemon_ends_workers_that_streams_hold() {
    let daemon = daemon();
    let mut plane = Plane::connect(&daemon.socket).await;
    let session = plane.acquire(&[]).await.session().await;
    let mut stream = plane.acquire(&[]).await;
    let held = stream.session().await;
    daemon.signal(Signal::KILL);
    eventually(|| is_gone(held.worker()) && is_gone(session.worker()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn status_counts_workers() {
    let daemon = repl(&["--workers", "1..4", "--spare", "1"]);
    let mut plane = Plane::connect(&daemon.socket).await;
    let mut stream = plane.acquire(&[]).await;
    stream.session().await;
    daemon.page_when("/v1/stats", |stats| stats["workers"]["spare"] == 1);
    let status = plane.call("/herd.v1.HerdService/Status", b"").await.unwrap();
    let mut counts = [0; 4];
    for (field, value) in fields(&status) {
        let Value::Number(number) = value else { panic!("{value:?}") };
        counts[usize::try_from(field).unwrap()] = number;
    }
    assert_eq!(counts, [0, 1, 1, 4], "active, idle, most");
}

#[test]
fn another_user_is_refused_also_where_the_sockets_mode_lets_everybody_in() {
    assert!(rustix::process::geteuid().is_root(), "this test needs a second user; run it as root");
    let mut daemon = Daemon::repl();
    let open = |path: &std::path::Path, mode| {
        std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
    };
    open(daemon.directory(), 0o755);
    open(&daemon.socket, 0o666);
    let socket = daemon.socket.to_str().unwrap().to_owned();
    // A program that the other user may run: this one is perhaps in a directory that is closed to others.
    let script = "import socket,sys; s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); \
                  s.sendall(b'GET /healthz HTTP/1.1\\r\\nhost: herd\\r\\n\\r\\n'); print(s.recv(100))";
    let ask = |uid: u32| {
        let mut command = std::process::Command::new("/usr/bin/python3");
        command.args(["-c", script, &socket]).uid(uid).gid(uid).current_dir("/");
        let output = command.output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
    };
    assert!(ask(0).contains("200 OK"), "{}", ask(0));
    let refused = ask(65534);
    // Closed before or after what was sent had arrived.
    let is_closed = ["b''", "ConnectionReset", "BrokenPipe"].iter().any(|sign| refused.contains(sign));
    assert!(is_closed && !refused.contains("200"), "{refused}");
    let said = daemon.log_line(|line| line["message"].as_str().is_some_and(|said| said.contains("another user")));
    assert_eq!(said["uid"], 65534, "{said}");
    assert!(herd(&["ps", "--socket", &socket], daemon.directory()).output().unwrap().status.success());
}
