use std::{
    fs,
    path::Path,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal};
use serde_json::{Value, json};

use crate::{
    client::{Exchange, PATIENCE, eval, get, request},
    daemon::{Daemon, eventually},
    sandbox::file,
};

/// One pool whose workers have this in their environment.
fn with_mode(mode: &str) -> String {
    format!("worker:\n  env: [MODE={mode}]\nresources: {{min_workers: 0, max_workers: 20}}\n")
}

/// A variable of a process's environment.
fn variable(pid: Pid, name: &str) -> Option<String> {
    let environment = fs::read(format!("/proc/{pid}/environ")).unwrap();
    let variables = environment.split(|byte| *byte == 0).map(|variable| String::from_utf8_lossy(variable).into_owned());
    variables.into_iter().find_map(|variable| Some(variable.strip_prefix(name)?.strip_prefix('=')?.to_owned()))
}

fn said(output: &std::process::Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// What `herd reload` says when it does as it is told.
#[track_caller]
fn reload(daemon: &Daemon) -> Value {
    let output = daemon.command(&["reload", "--json"]);
    assert!(output.status.success(), "{}", said(&output));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// What `herd reload` says when nothing is changed.
#[track_caller]
fn refusal(daemon: &Daemon) -> String {
    let output = daemon.command(&["reload"]);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    said(&output)
}

fn is_reloaded(line: &Value) -> bool {
    line["message"] == "the configuration was reloaded"
}

#[test]
fn sighup_gives_new_sessions_workers_by_the_changed_file_and_leaves_the_others_theirs() {
    let (_directory, config) = file(&with_mode("one"));
    let mut daemon = Daemon::serve(&["--config", &config]);
    assert_eq!(eval(daemon.gateway, "alice", "let x = 41").status, 200);
    let alice = daemon.worker_of("alice");
    fs::write(&config, with_mode("two")).unwrap();
    daemon.signal(Signal::HUP);
    let line = daemon.log_line(is_reloaded);
    assert_eq!(line["pools"], "default changed", "{line}");
    assert_eq!(eval(daemon.gateway, "bob", "1").status, 200);
    assert_eq!(variable(daemon.worker_of("bob"), "MODE").as_deref(), Some("two"));
    assert_eq!(eval(daemon.gateway, "alice", "x + 1").body, "42");
    assert_eq!(daemon.worker_of("alice"), alice);
    assert_eq!(variable(alice, "MODE").as_deref(), Some("one"));
}

#[test]
fn the_command_tells_what_has_changed() {
    let (_directory, config) = file("pools:\n  a: {}\n  b: {}\nroutes: [{pool: a}]\n");
    let daemon = Daemon::serve(&["--config", &config]);
    let text = String::from_utf8(daemon.command(&["reload"]).stdout).unwrap();
    assert_eq!(text, "nothing has changed\n");
    fs::write(&config, "pools:\n  a: {resources: {ttl: 1m}}\n  c: {}\nroutes: [{pool: c}]\n").unwrap();
    assert_eq!(
        reload(&daemon),
        json!({
            "pools": [
                {"pool": "a", "change": "changed"},
                {"pool": "c", "change": "added"},
                {"pool": "b", "change": "removed"},
            ],
            "settings": ["routes"],
        })
    );
    let worker = daemon
        .page_when("/v1/workers", |page| page["items"].as_array().unwrap().iter().any(|worker| worker["pool"] == "c"));
    assert!(worker["items"][0]["id"].is_string());
    assert_eq!(eval(daemon.gateway, "alice", "1").status, 200);
    assert_eq!(daemon.page("/v1/sessions/alice")["pool"], "c");
}

#[test]
fn a_secret_that_has_changed_in_its_file_alone_is_told_of() {
    let (directory, config) = file("");
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    for name in ["token", "admin", "signing"] {
        fs::write(path(name), format!("the-former-secret-of-{name}")).unwrap();
    }
    fs::write(path("mode"), "one").unwrap();
    let text = format!(
        "access: {{tokens: [{{name: first, file: {}}}]}}\n\
         network: {{admin_token_file: {}}}\n\
         webhooks: [{{url: 'http://127.0.0.1:9/', secret_file: {}}}]\n\
         worker: {{env: ['MODE=${{file:{}}}']}}\n",
        path("token"),
        path("admin"),
        path("signing"),
        path("mode"),
    );
    fs::write(&config, text).unwrap();
    let mut daemon = Daemon::serve(&["--config", &config]);
    let mut settings = |name: &str, latter: &str| {
        fs::write(path(name), latter).unwrap();
        let told = reload(&daemon);
        let line = daemon.log_line(is_reloaded);
        assert!(!told.to_string().contains(latter) && !line.to_string().contains(latter), "{told} {line}");
        (told, line)
    };
    for (name, setting) in [("token", "access"), ("admin", "network.admin_token_file"), ("signing", "webhooks")] {
        let (told, line) = settings(name, &format!("the-latter-secret-of-{name}"));
        assert_eq!((&told["settings"], &line["settings"]), (&json!([setting]), &json!(setting)), "{told} {line}");
        assert_eq!(told["pools"], json!([{"pool": "default", "change": "unchanged"}]));
    }
    let (told, line) = settings("mode", "two");
    assert_eq!((&told["settings"], &line["pools"]), (&json!([]), &json!("default changed")), "{told} {line}");
    assert_eq!(reload(&daemon)["settings"], json!([]), "nothing has changed since");
}

#[test]
fn a_file_with_mistakes_changes_nothing_and_all_of_them_are_told() {
    let (_directory, config) = file(&with_mode("one"));
    let mut daemon = Daemon::serve(&["--config", &config]);
    eval(daemon.gateway, "alice", "let x = 41");
    fs::write(&config, with_mode("two") + "telemetry:\n  log_level: loud\nrouts: []\n").unwrap();
    let told = refusal(&daemon);
    for place in [format!("{config}:5:14: telemetry.log_level: `loud` "), format!("{config}:6:1: routs: ")] {
        assert!(told.contains(&place), "{place}\n{told}");
    }
    assert!(told.contains("nothing has changed"), "{told}");
    let response = request(daemon.admin, "POST", "/v1/reload", &[]);
    assert_eq!((response.status, response.field("content-type")), (422, Some("application/problem+json")));
    assert_eq!(response.json()["mistakes"].as_array().map(Vec::len), Some(2), "{response:?}");
    daemon.signal(Signal::HUP);
    daemon.log_line(|line| line["level"] == "ERROR" && line["message"].as_str().unwrap().contains("not reloaded"));
    daemon.log_line(|line| line["message"].as_str().unwrap().contains(":5:14: telemetry.log_level: `loud` "));
    daemon.log_line(|line| line["message"].as_str().unwrap().contains(":6:1: routs: "));
    assert_eq!(eval(daemon.gateway, "alice", "x + 1").body, "42");
    eval(daemon.gateway, "bob", "1");
    assert_eq!(variable(daemon.worker_of("bob"), "MODE").as_deref(), Some("one"), "nothing of the file counts");
}

#[test]
fn what_this_host_cannot_give_is_refused_before_anything_changes() {
    let (_directory, config) = file("pools:\n  a: {worker: {env: [MODE=one]}}\n  b: {}\nroutes: [{pool: a}]\n");
    let daemon = Daemon::serve(&["--config", &config]);
    fs::write(
        &config,
        "pools:\n  a: {worker: {env: [MODE=two]}}\n  b: {worker: {command: [/no/such/program]}}\nroutes: [{pool: a}]\n",
    )
    .unwrap();
    let told = refusal(&daemon);
    assert!(told.contains("the program /no/such/program does not exist"), "{told}");
    assert!(told.contains(&format!("{config}:3:")), "{told}");
    eval(daemon.gateway, "alice", "1");
    assert_eq!(variable(daemon.worker_of("alice"), "MODE").as_deref(), Some("one"));
}

#[test]
fn what_cannot_change_while_the_daemon_runs_is_told_at_its_place() {
    let (directory, config) = file(&with_mode("one"));
    let daemon = Daemon::serve(&["--config", &config]);
    let elsewhere = directory.path().join("other.sock");
    for (key, value) in [
        ("max_connections", "7"),
        ("threads", "7"),
        ("tls", "{cert_file: /no/cert.pem, key_file: /no/key.pem}"),
        ("admin_tls", "{cert_file: /no/cert.pem, key_file: /no/key.pem}"),
    ] {
        fs::write(&config, with_mode("two") + &format!("network:\n  {key}: {value}\n")).unwrap();
        let told = refusal(&daemon);
        assert!(told.contains(&format!("{config}:5:")) && told.contains(&format!("network.{key}")), "{told}");
        assert!(told.contains("needs a restart"), "{told}");
    }
    fs::write(&config, with_mode("two") + "telemetry: {trace_ratio: 0.5}\n").unwrap();
    assert!(refusal(&daemon).contains("telemetry.trace_ratio"));
    drop(daemon);

    // What the command line says wins, so these are left out there.
    let serve = |network: &str| {
        fs::write(&config, with_mode("one") + &format!("network: {{{network}}}\n")).unwrap();
    };
    let own = directory.path().join("own.sock");
    let socket = |path: &Path| format!("control_socket: {}", path.display());
    let first = format!("data_bind: '127.0.0.1:0', admin_bind: off, {}", socket(&own));
    serve(&first);
    let runtime = tempfile::TempDir::new().unwrap();
    let command = crate::daemon::herd(&["serve", "--config", &config, "--log-format", "json"], runtime.path());
    let daemon = Daemon::spawn(command, own.clone(), runtime);
    assert_eq!(reload(&daemon)["settings"], json!([]));
    for (key, network) in [
        ("network.data_bind", format!("data_bind: '127.0.0.1:1', admin_bind: off, {}", socket(&own))),
        ("network.admin_bind", format!("data_bind: '127.0.0.1:0', admin_bind: '127.0.0.1:0', {}", socket(&own))),
        ("network.control_socket", format!("data_bind: '127.0.0.1:0', admin_bind: off, {}", socket(&elsewhere))),
    ] {
        serve(&network);
        let told = refusal(&daemon);
        assert!(told.contains(key) && told.contains("needs a restart"), "{key}: {told}");
    }
    serve(&first);
    assert_eq!(reload(&daemon)["settings"], json!([]));
}

#[test]
fn a_pool_that_does_not_change_keeps_its_spares() {
    let (_directory, config) = file("pools:\n  a: {}\n  b: {worker: {env: [MODE=one]}}\nroutes: [{pool: a}]\n");
    let daemon = Daemon::serve(&["--config", &config]);
    let spares = |page: &Value| {
        let workers = page["items"].as_array().unwrap().iter().filter(|worker| worker["state"] == "spare");
        workers.map(|worker| (worker["pool"].to_string(), worker["id"].to_string())).collect::<Vec<_>>()
    };
    let before = spares(&daemon.page_when("/v1/workers", |page| spares(page).len() == 2));
    // The pools move within the file, one of them changes, and so do the routes.
    fs::write(&config, "# moved\npools:\n  b: {worker: {env: [MODE=two]}}\n\n  a: {}\nroutes: [{pool: b}]\n").unwrap();
    reload(&daemon);
    let after = spares(&daemon.page_when("/v1/workers", |page| {
        let after = spares(page);
        after.len() == 2 && after.iter().any(|spare| !before.contains(spare))
    }));
    let of_a = |all: &[(String, String)]| all.iter().find(|(pool, _)| pool == "\"a\"").cloned();
    assert_eq!(of_a(&before), of_a(&after));
}

#[test]
fn a_removed_pool_goes_when_its_sessions_have_ended_and_their_requests_are_answered() {
    let both = "pools:\n  a: {}\n  b: {}\nroutes: [{pool: b, path_prefix: /b, strip_prefix: true}, {pool: a}]\n";
    let (_directory, config) = file(both);
    let mut daemon = Daemon::serve(&["--config", &config]);
    assert_eq!(eval_at(&daemon, "/b/eval", "alice", "let x = 41"), 200);
    daemon.page_when("/v1/sessions/alice", |session| session["leases"] == 0);
    let fields = [("x-session-id", "alice"), ("content-length", "7")];
    let mut request = Exchange::begin(daemon.gateway, "POST", "/b/eval", &fields);
    request.send("x");
    daemon.page_when("/v1/sessions/alice", |session| session["leases"] == 1);

    fs::write(&config, "pools:\n  a: {}\nroutes: [{pool: a}]\n").unwrap();
    assert_eq!(reload(&daemon)["pools"][1], json!({"pool": "b", "change": "removed"}));
    let pools = daemon.page("/v1/stats")["pools"].clone();
    assert_eq!((&pools[1]["pool"], &pools[1]["leaving"]), (&json!("b"), &json!(true)), "{pools}");
    request.send(" + 1  ");
    let response = request.finish();
    assert_eq!((response.status, response.body.as_str()), (200, "42"));
    daemon.log_line(|line| line["message"] == "a removed pool is gone");
    let stats = daemon.page("/v1/stats");
    assert_eq!(stats["pools"].as_array().map(Vec::len), Some(1), "{stats}");
    assert_eq!(stats["sessions_ended"]["drained"], 1, "what it counted goes on: {stats}");
    assert_eq!(eval_at(&daemon, "/b/eval", "alice", "1"), 404, "the other pool's workers have no such page");
}

/// The status of the answer.
fn eval_at(daemon: &Daemon, path: &str, session: &str, script: &str) -> u16 {
    let length = script.len().to_string();
    let fields = [("x-session-id", session), ("content-length", length.as_str())];
    let mut exchange = Exchange::begin(daemon.gateway, "POST", path, &fields);
    exchange.send(script);
    exchange.finish().status
}

#[test]
fn the_gateway_the_log_and_access_follow_the_file() {
    let (directory, config) = file(&with_mode("one"));
    let mut daemon = Daemon::serve(&["--config", &config, "--log-level", "info"]);
    let token = directory.path().join("token");
    let rest = "network: {session_key: query:who, lookup_only: true}\n";
    fs::write(&config, with_mode("one") + rest + "telemetry: {metrics_path: /numbers}\n").unwrap();
    let changed = reload(&daemon);
    assert_eq!(
        changed["settings"],
        json!(["network.session_key", "network.lookup_only", "telemetry.metrics_path"]),
        "{changed}"
    );
    assert_eq!(changed["pools"][0]["change"], "unchanged");
    assert_eq!(get(daemon.gateway, "/?who=alice").status, 404, "sessions are looked up alone");
    assert!(get(daemon.gateway, "/numbers").body.contains("herd_total_workers"));

    let secret = "a-token-that-is-long-enough-to-be-one-0123456789";
    fs::write(&token, secret).unwrap();
    let access = format!("access: {{tokens: [{{name: ci, file: {}}}]}}\n", token.display());
    fs::write(&config, with_mode("one") + &access).unwrap();
    reload(&daemon);
    assert_eq!(eval(daemon.gateway, "alice", "1").status, 401);
    let ask = |token: &str| {
        let bearer = format!("Bearer {token}");
        request(daemon.gateway, "GET", "/", &[("x-session-id", "alice"), ("authorization", &bearer)]).status
    };
    assert_ne!(ask(secret), 401);
    // Another token in the same file: the settings are the same, and the secret is not.
    let next = "another-token-that-is-long-enough-to-be-one-6789";
    fs::write(&token, next).unwrap();
    reload(&daemon);
    assert_eq!((ask(secret), ask(next) == 401), (401, false));
    daemon.signal(Signal::TERM);
    daemon.wait();
    let log = daemon.log.join("\n");
    assert!(!log.contains(secret) && !log.contains(next), "{log}");
}

#[test]
fn the_level_and_the_format_of_the_log_follow_the_file() {
    let log = |format: &str, level: &str| {
        with_mode("one") + &format!("telemetry: {{log_format: {format}, log_level: {level}}}\n")
    };
    let (directory, config) = file(&log("json", "info"));
    let socket = directory.path().join("own.sock");
    let flags = ["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--control-socket", socket.to_str().unwrap()];
    let runtime = tempfile::TempDir::new().unwrap();
    let command = crate::daemon::herd(&[&["serve", "--config", &config], &flags[..]].concat(), runtime.path());
    let mut daemon = Daemon::spawn(command, socket, runtime);
    fs::write(&config, log("text", "info")).unwrap();
    reload(&daemon);
    fs::write(&config, log("json", "error")).unwrap();
    reload(&daemon);
    fs::write(&config, log("json", "info")).unwrap();
    reload(&daemon);
    daemon.signal(Signal::TERM);
    daemon.wait();
    let said = daemon.log.join("\n");
    assert_eq!(said.matches("the configuration was reloaded").count(), 2, "one was quiet:\n{said}");
    assert!(said.lines().last().unwrap().starts_with('{'), "{said}");
}

#[test]
fn a_file_that_has_vanished_changes_nothing() {
    let (_directory, config) = file(&with_mode("one"));
    let daemon = Daemon::serve(&["--config", &config]);
    fs::remove_file(&config).unwrap();
    let told = refusal(&daemon);
    assert!(told.contains(&format!("cannot read the configuration {config}")), "{told}");
    assert_eq!(eval(daemon.gateway, "alice", "1").status, 200);
    fs::write(&config, with_mode("two")).unwrap();
    assert_eq!(reload(&daemon)["pools"][0]["change"], "changed");
}

#[test]
fn a_file_named_relative_to_where_the_daemon_was_started_is_read_again() {
    let (directory, config) = file(&with_mode("one"));
    let runtime = tempfile::TempDir::new().unwrap();
    let socket = runtime.path().join("own.sock");
    let flags = ["--listen", "127.0.0.1:0", "--admin", "off", "--control-socket", socket.to_str().unwrap()];
    let args = [&["serve", "--config", "herd.yaml", "--log-format", "json"], &flags[..]].concat();
    let mut command = crate::daemon::herd(&args, runtime.path());
    command.current_dir(directory.path());
    let daemon = Daemon::spawn(command, socket, runtime);
    fs::write(&config, with_mode("two")).unwrap();
    assert_eq!(reload(&daemon)["pools"][0]["change"], "changed");
}

#[test]
fn a_daemon_without_a_file_has_nothing_to_reload() {
    let mut daemon = Daemon::repl();
    let told = refusal(&daemon);
    assert!(told.contains("started without a configuration file"), "{told}");
    daemon.signal(Signal::HUP);
    daemon.log_line(|line| line["message"].as_str().unwrap().contains("started without a configuration file"));
    assert_eq!(eval(daemon.gateway, "alice", "1").body, "1");
}

#[test]
fn no_request_fails_while_the_configuration_changes() {
    let (_directory, config) = file(&with_mode("0"));
    let daemon = Daemon::serve(&["--config", &config]);
    let (stop, asked) = (AtomicBool::new(false), AtomicUsize::new(0));
    let gateway = daemon.gateway;
    thread::scope(|scope| {
        for number in 0..3 {
            let (stop, asked) = (&stop, &asked);
            scope.spawn(move || {
                let own = format!("own-{number}");
                assert_eq!(eval(gateway, &own, "let n = 0").status, 200);
                for round in 0.. {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    // A session that lives all the while, and now and then one that begins.
                    let response = eval(gateway, &own, "n += 1; n");
                    assert_eq!((response.status, response.body), (200, (round + 1).to_string()));
                    if round % 50 == 0 && round < 200 {
                        let response = eval(gateway, &format!("new-{number}-{round}"), "6 * 7");
                        assert_eq!((response.status, response.body.as_str()), (200, "42"));
                    }
                    asked.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        for change in 1..=20 {
            let before = asked.load(Ordering::Relaxed);
            fs::write(&config, with_mode(&change.to_string())).unwrap();
            reload(&daemon);
            eventually(|| asked.load(Ordering::Relaxed) > before + 10);
        }
        stop.store(true, Ordering::Relaxed);
    });
}

#[test]
fn reloads_that_come_together_follow_one_another() {
    let (_directory, config) = file(&with_mode("one"));
    let daemon = Daemon::serve(&["--config", &config]);
    fs::write(&config, with_mode("two")).unwrap();
    let exchanges: Vec<_> = (0..6).map(|_| Exchange::begin(daemon.admin, "POST", "/v1/reload", &[])).collect();
    let answers: Vec<_> = exchanges.into_iter().map(|exchange| exchange.finish().json()).collect();
    let count = |change: &str| answers.iter().filter(|told| told["pools"][0]["change"] == change).count();
    assert_eq!((count("changed"), count("unchanged")), (1, 5), "{answers:?}");
    eval(daemon.gateway, "bob", "1");
    assert_eq!(variable(daemon.worker_of("bob"), "MODE").as_deref(), Some("two"));
}

#[test]
fn a_pool_may_come_back_while_the_one_of_its_name_still_leaves() {
    let with_b =
        |mode: &str| format!("pools:\n  a: {{}}\n  b: {{worker: {{env: [MODE={mode}]}}}}\nroutes: [{{pool: b}}]\n");
    let (_directory, config) = file(&with_b("one"));
    let mut daemon = Daemon::serve(&["--config", &config]);
    assert_eq!(eval(daemon.gateway, "alice", "let x = 41").status, 200);
    daemon.page_when("/v1/sessions/alice", |session| session["leases"] == 0);
    let fields = [("x-session-id", "alice"), ("content-length", "5")];
    let mut request = Exchange::begin(daemon.gateway, "POST", "/eval", &fields);
    request.send("x");
    daemon.page_when("/v1/sessions/alice", |session| session["leases"] == 1);
    fs::write(&config, "pools:\n  a: {}\nroutes: [{pool: a}]\n").unwrap();
    reload(&daemon);
    fs::write(&config, with_b("two")).unwrap();
    assert_eq!(reload(&daemon)["pools"][1], json!({"pool": "b", "change": "added"}));
    assert_eq!(eval(daemon.gateway, "bob", "1").status, 200);
    assert_eq!(variable(daemon.worker_of("bob"), "MODE").as_deref(), Some("two"));
    request.send(" + 1");
    assert_eq!(request.finish().body, "42");
    daemon.log_line(|line| line["message"] == "a removed pool is gone");
    assert_eq!(eval(daemon.gateway, "bob", "6 * 7").body, "42", "the pool of that name goes on");
}

#[test]
fn a_file_of_v0_4_is_read_again_as_one() {
    let text = |ttl: &str| {
        format!(
            "worker: {{command: [{}, repl], env: ['MODE=${{HOME}}']}}\nresources: {{ttl: {ttl}}}\nnetwork: {{data_bind: \
             '127.0.0.1:0'}}\nsandbox: {{mode: best-effort}}\n",
            env!("CARGO_BIN_EXE_herd")
        )
    };
    let (_directory, config) = file(&text("1m"));
    let runtime = tempfile::TempDir::new().unwrap();
    let socket = runtime.path().join("own.sock");
    let flags = ["--admin", "127.0.0.1:0", "--control-socket", socket.to_str().unwrap(), "--log-format", "json"];
    let command = crate::daemon::herd(&[&["start", "--config", &config], &flags[..]].concat(), runtime.path());
    let daemon = Daemon::spawn(command, socket, runtime);
    assert_eq!(reload(&daemon)["pools"][0]["change"], "unchanged");
    fs::write(&config, text("2m")).unwrap();
    assert_eq!(reload(&daemon)["pools"][0]["change"], "changed");
    let spare = |page: &Value| {
        let workers = page["items"].as_array().unwrap();
        workers.iter().find(|worker| worker["state"] == "spare").and_then(|worker| worker["pid"].as_i64())
    };
    let pid = spare(&daemon.page_when("/v1/workers", |page| spare(page).is_some())).unwrap();
    let pid = Pid::from_raw(pid.try_into().unwrap()).unwrap();
    assert_eq!(variable(pid, "MODE").as_deref(), Some("${HOME}"), "its texts stay as they are");
}

/// What of the daemon could grow without bound.
#[derive(Debug)]
struct Footprint {
    descriptors: usize,
    state_directories: usize,
    processes: usize,
}

impl Footprint {
    /// Descriptors come and go by a few, with blocking threads and connections.
    fn is_like(&self, before: &Self) -> bool {
        let own = (self.state_directories, self.processes);
        own == (before.state_directories, before.processes) && self.descriptors <= before.descriptors + 5
    }
}

fn footprint(daemon: &Daemon) -> Footprint {
    let entries = |path: &Path| fs::read_dir(path).unwrap().flatten().count();
    let states = fs::read_dir(daemon.directory()).unwrap().flatten();
    let states = states.filter(|entry| entry.file_name().to_string_lossy().starts_with("herd-")).count();
    Footprint {
        descriptors: entries(Path::new(&format!("/proc/{}/fd", daemon.pid()))),
        state_directories: states,
        processes: daemon.descendants().len(),
    }
}

#[test]
fn a_hundred_reloads_leave_nothing_behind() {
    let text = |number: usize| {
        let second = if number % 2 == 1 { "  b: {resources: {min_workers: 0}}\n" } else { "" };
        let own = format!("{{worker: {{env: [MODE={number}]}}, resources: {{min_workers: 0}}}}");
        format!("pools:\n  a: {own}\n{second}routes: [{{pool: a}}]\n")
    };
    let (_directory, config) = file(&text(0));
    let daemon = Daemon::serve(&["--config", &config]);
    let settled = |page: &Value| {
        let workers = page["items"].as_array().unwrap();
        workers.len() == 2
            && workers.iter().all(|worker| matches!(worker["state"].as_str(), Some("spare" | "in-session")))
    };
    // Sessions of former settings keep what their worker was started by.
    assert_eq!(eval(daemon.gateway, "alice", "let x = 41").status, 200);
    fs::write(&config, text(2)).unwrap();
    reload(&daemon);
    daemon.page_when("/v1/workers", settled);
    let before = footprint(&daemon);
    assert_eq!(before.state_directories, 2, "{before:?}");
    for number in 3..=102 {
        fs::write(&config, text(number)).unwrap();
        reload(&daemon);
    }
    daemon.page_when("/v1/workers", settled);
    daemon.page_when("/v1/stats", |stats| stats["pools"].as_array().unwrap().len() == 1);
    // What has just ended may be there for a moment.
    let mut after = footprint(&daemon);
    let deadline = Instant::now() + PATIENCE;
    while !after.is_like(&before) && Instant::now() < deadline {
        thread::park_timeout(Duration::from_millis(50));
        after = footprint(&daemon);
    }
    assert!(after.is_like(&before), "{before:?} became {after:?}");
    assert_eq!(eval(daemon.gateway, "alice", "x + 1").body, "42");
}
