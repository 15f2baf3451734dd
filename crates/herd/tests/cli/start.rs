//! `herd start`: the daemon mode of v0.4.

use std::{fs, net::SocketAddr, path::Path};

use tempfile::TempDir;

use crate::{
    client::request,
    control_client::Plane,
    daemon::{Daemon, failure, herd},
};

/// The documented file with every key of v0.4, but for the places where a daemon listens: others listen there.
fn file(directory: &Path, more: &str) -> String {
    let text = include_str!("../../../../docs/examples/v0.4.yaml");
    let socket = directory.join("control.sock").display().to_string();
    let text = text.replace("/tmp/herd.sock", &socket).replace("127.0.0.1:8080", "127.0.0.1:0");
    let path = directory.join("herd.yaml");
    fs::write(&path, text + more).unwrap();
    path.display().to_string()
}

fn start(more: &str) -> Daemon {
    let directory = TempDir::new().unwrap();
    let command = herd(&["start", "--config", &file(directory.path(), more)], directory.path());
    let socket = directory.path().join("control.sock");
    Daemon::spawn(command, socket, directory)
}

fn get(gateway: SocketAddr, session: &str) -> crate::client::Response {
    request(gateway, "GET", "/", &[("x-session-id", session)])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_file_of_v0_4_runs_unchanged_with_sessions_from_the_control_plane_alone() {
    let daemon = start("");
    assert_eq!(daemon.admin.port(), 0, "it has an admin address that nobody named");
    let unknown = get(daemon.gateway, "alice");
    assert_eq!((unknown.status, unknown.field("herd-error")), (404, Some("no-such-session")), "{unknown:?}");

    let mut plane = Plane::connect(&daemon.socket).await;
    let mut stream = plane.acquire(&[]).await;
    let session = stream.session().await;
    let known = get(daemon.gateway, &session.id);
    assert_eq!(known.status, 200, "{known:?}");
    assert!(known.body.contains("Directory listing"), "{known:?}");
    assert_eq!(request(daemon.gateway, "GET", "/healthz", &[]).body, "ok");
    assert!(request(daemon.gateway, "GET", "/metrics", &[]).body.contains("\nherd_active_sessions 1\n"));
}

#[test]
fn an_admin_address_that_the_file_names_is_there() {
    let directory = TempDir::new().unwrap();
    let path = file(directory.path(), "");
    let text = fs::read_to_string(&path).unwrap().replace("network:\n", "network:\n  admin_bind: 127.0.0.1:0\n");
    fs::write(&path, text).unwrap();
    let command = herd(&["start", "--config", &path], directory.path());
    let socket = directory.path().join("control.sock");
    let daemon = Daemon::spawn(command, socket, directory);
    assert_eq!(daemon.page("/v1/sessions")["items"], serde_json::json!([]));
}

#[test]
fn herd_start_wants_a_file_and_no_other_way_to_sessions() {
    assert!(failure(&["start"], 2).contains("--config <FILE>"));
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("herd.yaml");
    fs::write(&path, "network: {lookup_only: false}\n").unwrap();
    let said = failure(&["start", "--config", path.to_str().unwrap()], 1);
    assert!(said.contains("herd.yaml:1:24: network.lookup_only: `false` contradicts `herd start`"), "{said}");
}
