//! Programs that nobody changed for it, in the sandbox that a configuration file requires.

use std::{fs, path::Path};

use crate::daemon::Daemon;

/// A configuration whose workers are `programs.py`, with more sections.
fn exercises(sandbox: &str, resources: &str) -> String {
    let script = "{{scripts}}/programs.py";
    format!(
        "worker: {{command: [python3, \"{script}\", '{{{{.Port}}}}']}}\n\
         resources: {{min_workers: 0, spare: 0, {resources}}}\n\
         sandbox: {{mode: required, read_only: [\"{script}\"], {sandbox}}}\n"
    )
}

/// Runs one exercise in a session of its own.
async fn exercise(daemon: &Daemon, name: &str) -> String {
    let answer = daemon.gateway.get(Some(name), &format!("/{name}")).await;
    assert_eq!(answer.status, 200, "{name}: {}", answer.body);
    answer.body
}

#[tokio::test]
async fn python_with_threads_and_subprocesses_runs_unchanged() {
    let daemon = Daemon::configured(&exercises("", ""));
    assert_eq!(exercise(&daemon, "python").await, "PIPED awaited");
    let workers = daemon.admin("/v1/workers").await;
    let layers = workers["items"][0]["layers"].to_string();
    for layer in ["PID namespace", "own root", "network namespace", "seccomp", "own user"] {
        assert!(layers.contains(layer), "{workers}");
    }
}

#[tokio::test]
async fn python_runs_unchanged_also_where_nobody_is_root() {
    let daemon = Daemon::configured_as_nobody(&exercises("", ""));
    assert_eq!(exercise(&daemon, "python").await, "PIPED awaited");
}

#[tokio::test]
async fn git_runs_unchanged() {
    let daemon = Daemon::configured(&exercises("", ""));
    assert_eq!(exercise(&daemon, "git").await, "The first one");
}

#[tokio::test]
async fn a_c_compiler_runs_unchanged_and_so_does_what_it_made() {
    let daemon = Daemon::configured(&exercises("", ""));
    assert_eq!(exercise(&daemon, "compiler").await, "compiled and run");
}

#[tokio::test]
async fn redis_runs_unchanged() {
    let daemon = Daemon::configured(&exercises("", ""));
    assert_eq!(exercise(&daemon, "redis").await, "+OK :42");
}

#[tokio::test]
async fn postgresql_runs_unchanged() {
    let daemon = Daemon::configured(&exercises("", ""));
    assert_eq!(exercise(&daemon, "postgres").await, "500500");
}

/// With the profile that lets the browser build its own sandbox, which it does not start without. It has more threads
/// than workers usually may.
#[tokio::test]
async fn chromium_renders_its_page_behind_its_own_sandbox() {
    let daemon = Daemon::configured(&exercises("seccomp: browser", "pids_limit: -1, shm_limit_mb: 256"));
    let dom = exercise(&daemon, "chromium").await;
    assert!(dom.contains("<p id=\"p\">rendered 42</p>"), "{dom}");
}

#[tokio::test]
async fn node_with_threads_and_children_runs_unchanged() {
    let daemon = Daemon::configured(
        "worker: {command: [node, \"{{scripts}}/programs.js\"]}\n\
         resources: {min_workers: 0, spare: 0}\n\
         sandbox: {mode: required, read_only: [\"{{scripts}}/programs.js\"]}\n",
    );
    let answer = daemon.gateway.get(Some("alice"), "/").await;
    assert_eq!((answer.status, answer.body.as_str()), (200, "42, from a child, from a file"));
}

#[tokio::test]
async fn nginx_runs_unchanged() {
    let directory = tempfile::tempdir().unwrap();
    let configuration = directory.path().join("nginx.conf");
    let text = "daemon off; worker_processes 2; pid /workspace/pid; error_log stderr;\n\
                events {}\n\
                http {\n  access_log off;\n  client_body_temp_path /tmp/body; proxy_temp_path /tmp/proxy;\n  \
                fastcgi_temp_path /tmp/fastcgi; uwsgi_temp_path /tmp/uwsgi; scgi_temp_path /tmp/scgi;\n  \
                server { listen 127.0.0.1:8000; root /workspace; sendfile on; }\n}\n";
    fs::write(&configuration, text).unwrap();
    let configuration = readable(&configuration);
    let command = format!("echo from nginx > /workspace/index.html; exec nginx -c {configuration}");
    let daemon = Daemon::configured(&format!(
        "worker: {{command: [sh, -c, '{command}'], ready: 'http:/', health_path: /}}\n\
         resources: {{min_workers: 0, spare: 0}}\n\
         sandbox: {{mode: required, read_only: [{configuration}]}}\n"
    ));
    let answer = daemon.gateway.get(Some("alice"), "/").await;
    assert_eq!((answer.status, answer.body.as_str()), (200, "from nginx\n"));
    assert!(answer.field("server").starts_with("nginx"), "{:?}", answer.headers);
}

/// A file that every user may read, whatever the umask.
fn readable(path: &Path) -> &str {
    use std::os::unix::fs::PermissionsExt as _;
    fs::set_permissions(path, fs::Permissions::from_mode(0o644)).unwrap();
    path.to_str().unwrap()
}
