//! The control plane with a client that nobody here wrote: Python's grpcio.

use std::{
    env,
    io::{BufRead as _, BufReader},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::daemon::{Daemon, eventually, is_gone};

/// `control.py` with what the tests' set-up has installed for it.
fn client(deed: &str, daemon: &Daemon) -> Command {
    let python = env::var_os("HERD_TEST_CHECKERS")
        .expect("HERD_TEST_CHECKERS is not set; run this test with: cargo xtask test -- NAME");
    let mut command = Command::new(python);
    command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/cli/control.py")).arg(deed).arg(&daemon.socket);
    command.stdin(Stdio::null());
    command
}

/// A process that ends with the test.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_client_from_pypi_finds_everything_by_reflection_alone() {
    let daemon = Daemon::repl();
    daemon.page_when("/v1/stats", |stats| stats["workers"]["spare"] == 1);
    let output = client("look", &daemon).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    let said = String::from_utf8(output.stdout).unwrap();
    let said: Vec<Value> = said.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let services = ["grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection", "herd.v1.HerdService"];
    for service in services {
        assert!(said[0].as_array().unwrap().iter().any(|known| known == service), "{service}: {}", said[0]);
    }
    assert_eq!(said[1..4], [json!("SERVING"), json!("SERVING"), json!(1)]);
    assert_eq!(said[4], "NOT_FOUND");
    assert_eq!(said[5], json!({ "active_workers": 0, "idle_workers": 1, "max_workers": 10 }));
    assert_eq!(said[6], json!({ "sessions": 1, "answers": 2, "end": "OK" }));
    assert_eq!(said[7]["code"], "NOT_FOUND");
}

#[test]
fn kill_9_of_a_client_ends_its_worker_within_200_ms() {
    let daemon = Daemon::repl();
    for _ in 0..3 {
        let mut holder = Killed(client("hold", &daemon).stdout(Stdio::piped()).spawn().unwrap());
        let mut line = String::new();
        BufReader::new(holder.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let session: Value = serde_json::from_str(&line).expect("the client holds a session");
        assert_eq!(session["proxy_address"], format!("http://{}", daemon.gateway));
        let worker = daemon.worker_of(session["session_id"].as_str().unwrap());
        assert_eq!(session["worker_pid"], worker.as_raw_nonzero().get());
        let since = Instant::now();
        holder.0.kill().unwrap();
        eventually(|| is_gone(worker));
        let took = since.elapsed();
        assert!(took < Duration::from_millis(200), "the worker was there for {took:?}");
    }
}
