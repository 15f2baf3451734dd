//! What a right file means; `mistakes` and `sections` have what is said of a wrong one.

mod filled;
mod mistakes;
mod pools;
mod schema;
mod sections;

use std::{path::PathBuf, time::Duration};

use proptest::prelude::*;

use super::{Mode, file, mistake::Mistakes, settings::*, settle};

fn load(text: &str) -> Result<Settings, Mistakes> {
    let mut mistakes = Mistakes::of_file("herd.yaml");
    let raw = file::read(text.as_bytes(), Mode::Serve, &|_| None, &mut mistakes);
    settle(raw, mistakes)
}

/// The mistakes in `text`, one line each.
#[track_caller]
fn complaints(text: &str) -> String {
    match load(text) {
        Ok(_) => panic!("no mistake was found in:\n{text}"),
        Err(mistakes) => mistakes.to_string(),
    }
}

#[test]
fn an_empty_file_means_the_defaults() {
    for text in ["", "# nothing\n", "---\n", "network:\nworker: {}\n"] {
        let settings = load(text).unwrap_or_else(|mistakes| panic!("{text:?}: {mistakes}"));
        assert_eq!(settings.network.data_bind.to_string(), "127.0.0.1:8080");
        assert_eq!(settings.network.admin_bind.unwrap().to_string(), "127.0.0.1:8081");
        assert_eq!(settings.network.session_key, herd_gateway::SessionKey::default());
        assert_eq!(settings.pools[0].worker.command, Command::Repl);
        assert_eq!(
            (
                settings.pools[0].resources.min_workers,
                settings.pools[0].resources.max_workers,
                settings.pools[0].resources.spare
            ),
            (1, 10, 1)
        );
        assert_eq!(settings.pools[0].resources.ttl, Duration::from_secs(300));
        assert_eq!(settings.pools[0].resources.open_files, 4096);
        assert_eq!(settings.pools[0].sandbox.mode, SandboxMode::Required);
        assert_eq!((settings.pools[0].sandbox.network, settings.pools[0].worker.port), (NetworkMode::Private, 8000));
        assert_eq!((settings.pools[0].sandbox.limits.tmp, settings.pools[0].sandbox.limits.shm), (64 << 20, 64 << 20));
        assert_eq!(settings.pools[0].sandbox.limits.pids, Pids::Default);
        assert_eq!(settings.telemetry.metrics_path, "/metrics");
    }
}

#[test]
fn every_key_means_what_it_says() {
    let settings = load(
        r#"
network:
  data_bind: "[::1]:9000"
  admin_bind: off
  control_socket: /run/herd/a.sock
  session_key: ["header:X-Id", "cookie:sid", host]
  lookup_only: true
  drain_timeout: 1m
  response_timeout: 20s
  max_connections: 500
  threads: 3
worker:
  command: [/bin/server, --port, "{{.Port}}", 8080, true]
  env: ["A=b=c", "P={{.Port}}"]
  cwd: "{{.Workspace}}/x"
  listen: inherit
  ready: "stdout:ready on \\d+"
  health_path: /h
  start_timeout: 1m30s
  start_health_check_delay: 1s
  stop_signal: SIGINT
  stop_grace: 0
  http2: true
  port: 9000
resources:
  min_workers: 0
  max_workers: 4
  spare: 0
  ttl: 15m
  idle_by: bytes
  max_lifetime: 1h30m
  acquire_timeout: 500ms
  max_waiting: 7
  when_full: evict-idle
  worker_reuse: true
  memory_limit_mb: 512
  cpu_limit_cores: 0.5
  pids_limit: 50
  tmp_limit_mb: 128
  shm_limit_mb: 1
  open_files: 1024
  health_interval: 2s
sandbox:
  mode: best-effort
  network: egress
  egress_allow: [10.1.0.0/16, 192.0.2.7, metadata]
  read_only: [/srv/models/]
  writable: [/srv/cache]
  hidden: [/srv/models/secret, /opt/keys]
  seccomp: browser
  seccomp_log: true
  uid_range: 70000-70099
telemetry: {log_format: json, log_level: debug, metrics_path: /m}
"#,
    )
    .unwrap_or_else(|mistakes| panic!("{mistakes}"));
    let Settings { network, mut pools, telemetry, file, .. } = settings;
    let Pool { worker, resources, sandbox, .. } = pools.remove(0);
    assert_eq!(file.as_deref(), Some("herd.yaml"));
    assert_eq!((network.data_bind.to_string(), network.admin_bind), ("[::1]:9000".to_owned(), None));
    assert_eq!(network.control_socket.unwrap().to_str(), Some("/run/herd/a.sock"));
    assert_eq!(network.session_key.to_string(), "header:x-id,cookie:sid,host");
    assert!(network.lookup_only);
    assert_eq!(network.drain_timeout, Duration::from_secs(60));
    assert_eq!(network.response_timeout, Some(Duration::from_secs(20)));
    assert_eq!((network.max_connections, network.threads), (500, Some(3)));
    let args = ["--port", "{{.Port}}", "8080", "true"].map(Into::into).to_vec();
    assert_eq!(worker.command, Command::Program { program: "/bin/server".into(), args });
    let env = [("A", "b=c"), ("P", "{{.Port}}")].map(|(name, value)| (name.to_owned(), value.to_owned()));
    assert_eq!(worker.env, env);
    assert_eq!((worker.cwd.unwrap().to_str(), worker.listen), (Some("{{.Workspace}}/x"), Listen::Inherit));
    assert_eq!(worker.ready, "stdout:ready on \\d+".parse().unwrap());
    assert_eq!((worker.health_path.as_str(), worker.http2, worker.port), ("/h", true, 9000));
    assert_eq!(worker.start_timeout, Duration::from_secs(90));
    assert_eq!(worker.start_health_check_delay, Duration::from_secs(1));
    assert_eq!((worker.stop_signal, worker.stop_grace), (herd_process::Signal::INT, Duration::ZERO));
    assert_eq!((resources.min_workers, resources.max_workers, resources.spare), (0, 4, 0));
    assert_eq!((resources.ttl, resources.idle_by), (Duration::from_secs(900), IdleBy::Bytes));
    assert_eq!(resources.max_lifetime, Some(Duration::from_secs(5400)));
    assert_eq!(resources.acquire_timeout, Duration::from_millis(500));
    assert_eq!((resources.max_waiting, resources.when_full), (7, WhenFull::EvictIdle));
    assert_eq!((resources.worker_reuse, resources.open_files), (true, 1024));
    assert_eq!(resources.health_interval, Duration::from_secs(2));
    assert_eq!(
        (sandbox.mode, sandbox.network, sandbox.seccomp),
        (SandboxMode::BestEffort, NetworkMode::Egress, Seccomp::Browser)
    );
    let paths = |list: &[&str]| list.iter().map(PathBuf::from).collect::<Vec<_>>();
    assert_eq!(sandbox.read_only, paths(&["/srv/models"]));
    assert_eq!(sandbox.writable, paths(&["/srv/cache"]));
    assert_eq!(sandbox.hidden, paths(&["/srv/models/secret", "/opt/keys"]));
    let allowed = ["10.1.0.0/16", "192.0.2.7", "metadata"].map(|text| text.parse::<Reach>().unwrap());
    assert_eq!(sandbox.egress_allow, allowed);
    assert!(sandbox.seccomp_log && sandbox.skipped.is_empty());
    assert_eq!(sandbox.uid_range, Some(70000..=70099));
    let Limits { memory, cpu, pids, tmp, shm } = sandbox.limits;
    assert_eq!((memory, cpu, pids), (Some(512 << 20), Some(0.5), Pids::AtMost(50)));
    assert_eq!((tmp, shm), (128 << 20, 1 << 20));
    assert_eq!((telemetry.log_format, telemetry.log_level), (Some(LogFormat::Json), LogLevel::Debug));
    assert_eq!(telemetry.metrics_path, "/m");
}

#[test]
fn minus_one_and_zero_ask_for_no_limit() {
    let settings = load("resources: {memory_limit_mb: 0, cpu_limit_cores: 0, pids_limit: -1}").unwrap();
    let Limits { memory, cpu, pids, .. } = settings.pools[0].sandbox.limits;
    assert_eq!((memory, cpu, pids), (None, None, Pids::Unlimited));
}

#[test]
fn who_writes_no_file_gets_the_sandbox_that_there_is() {
    let settings = settle(super::raw::Raw::default(), Mistakes::default()).unwrap();
    assert_eq!(settings.pools[0].sandbox.mode, SandboxMode::BestEffort);
}

#[test]
fn with_persistent_workspaces_no_worker_waits_for_just_any_session() {
    let settings = load("sandbox: {workspace: persistent, workspace_dir: /srv/sessions}").unwrap();
    assert_eq!((settings.pools[0].resources.min_workers, settings.pools[0].resources.spare), (0, 0));
    assert_eq!(settings.pools[0].sandbox.workspace, Workspace::Persistent);
    assert_eq!(settings.pools[0].sandbox.workspace_dir.as_ref().unwrap().to_str(), Some("/srv/sessions"));
}

#[test]
fn the_documented_file_means_the_defaults() {
    let documented = load(include_str!("../../../../docs/herd.yaml")).unwrap_or_else(|mistakes| panic!("{mistakes}"));
    let defaults = load("").unwrap_or_else(|mistakes| panic!("{mistakes}"));
    assert!(documented.network == defaults.network);
    assert!(documented.pools[0].resources == defaults.pools[0].resources);
    assert!(documented.pools[0].sandbox == defaults.pools[0].sandbox);
    assert!(documented.telemetry == defaults.telemetry);
}

#[test]
fn a_file_of_v0_4_is_understood_as_it_is() {
    let settings = load(
        r#"
network:
  control_socket: /tmp/herd.sock
  data_bind: 127.0.0.1:8080
worker:
  command: ["npx", "-y", "@playwright/mcp@latest", "--port", "{{.Port}}"]
  env: ["NODE_ENV=production"]
  health_path: /health
  start_timeout: 30s
  start_health_check_delay: 500ms
resources:
  min_workers: 1
  max_workers: 5
  memory_limit_mb: 512
  cpu_limit_cores: 1.0
  pids_limit: 100
  ttl: 15m
  health_interval: 10s
  worker_reuse: false
  insecure_sandbox: true
telemetry:
  log_format: json
  metrics_path: /metrics
"#,
    )
    .unwrap_or_else(|mistakes| panic!("{mistakes}"));
    assert_eq!(settings.pools[0].sandbox.mode, SandboxMode::Off);
    assert_eq!(
        settings.pools[0].sandbox.skipped.iter().map(ToString::to_string).collect::<Vec<_>>(),
        [
            "resources.memory_limit_mb: a memory limit is skipped because the sandbox is off",
            "resources.cpu_limit_cores: a CPU limit is skipped because the sandbox is off",
            "resources.pids_limit: a limit of processes is skipped because the sandbox is off",
        ]
    );
}

#[test]
fn mistakes_are_told_to_programs_as_well() {
    let Err(mistakes) = load("resources: {ttl: x}") else { panic!("x is no duration") };
    let expected = serde_json::json!([{
        "file": "herd.yaml", "line": 1, "column": 18, "key": "resources.ttl", "kind": "invalid", "found": "x",
        "problem": "is no duration", "remedy": "write a duration such as 500ms, 15m or 1h30m",
    }]);
    assert_eq!(mistakes.to_json(), expected);
}

#[test]
fn control_characters_of_a_file_do_not_reach_the_terminal() {
    let found = complaints(r#"resources: {ttl: "\e[31m"}"#);
    assert!(found.contains(r"`\u{1b}[31m`"), "{found}");
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let mut mistakes = Mistakes::of_file("x");
        let raw = file::read(&bytes, Mode::Serve, &|_| None, &mut mistakes);
        let _ = settle(raw, mistakes);
    }

    /// Known keys with any values: whatever comes out is either settings or mistakes that have a place.
    #[test]
    fn no_value_of_a_known_key_makes_it_panic(
        key in prop::sample::select(vec![
            ("network", "data_bind"), ("network", "session_key"), ("network", "control_socket"), ("network", "threads"),
            ("worker", "command"), ("worker", "env"), ("worker", "ready"), ("worker", "cwd"), ("worker", "stop_signal"),
            ("resources", "ttl"), ("resources", "max_workers"), ("resources", "cpu_limit_cores"),
            ("resources", "memory_limit_mb"), ("sandbox", "hidden"), ("sandbox", "egress_allow"),
            ("sandbox", "uid_range"), ("sandbox", "workspace_dir"), ("worker", "port"), ("telemetry", "metrics_path"),
        ]),
        value in "[-0-9a-zA-Z{}\\[\\].:/,'\" =~*µ\\\\]{0,24}",
    ) {
        let (section, name) = key;
        if let Err(mistakes) = load(&format!("{section}:\n  {name}: {value}\n")) {
            prop_assert!(!mistakes.is_empty());
            prop_assert!(mistakes.all.iter().all(|mistake| mistake.origin.position.is_some()), "{mistakes}");
        }
    }

    /// The same for every key that there is, with values that are filled in too.
    #[test]
    fn no_value_of_any_key_makes_it_panic(
        key in prop::sample::select(keys()),
        value in "[-0-9a-zA-Z$\\{}.:/,= ~*@;]{0,24}",
        quote in prop::sample::select(vec!["", "'", "\""]),
    ) {
        let value = value.replace('\'', "");
        if let Err(mistakes) = load(&schema::document(&key, &format!("{quote}{value}{quote}"))) {
            prop_assert!(!mistakes.is_empty());
            prop_assert!(mistakes.all.iter().all(|mistake| mistake.origin.position.is_some()), "{mistakes}");
        }
    }
}

/// All keys that have values.
fn keys() -> Vec<String> {
    let mut keys = Vec::new();
    schema::walk(&super::schema(), "", &mut |key, _| keys.push(key.to_owned()));
    keys
}
