use std::{
    fs,
    io::{Read as _, Write as _},
    os::unix::{fs::PermissionsExt as _, net::UnixListener},
    process::Stdio,
    thread,
};

use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

use crate::{
    client::eval,
    daemon::{CANARY, Daemon, eventually, failure, herd, output},
};

#[test]
fn ps_lists_sessions_and_workers() {
    let daemon = Daemon::repl();
    eval(daemon.gateway, "alice", "1");
    let listed = daemon.command(&["ps"]);
    assert!(listed.status.success());
    let text = String::from_utf8(listed.stdout).unwrap();
    let row = text.lines().find(|line| line.starts_with("alice ")).unwrap_or_else(|| panic!("{text}"));
    assert!(row.contains("live") && row.contains("worker-"), "{text}");
    assert!(text.lines().any(|line| line.starts_with("worker-") && line.contains("alice")), "{text}");

    let listed = daemon.command(&["ps", "--json"]);
    let json: Value = serde_json::from_slice(&listed.stdout).unwrap();
    assert_eq!(json["sessions"][0]["id"], "alice", "{json}");
    assert!(json["workers"].as_array().is_some_and(|workers| !workers.is_empty()), "{json}");
}

#[test]
fn ps_lists_what_is_asked_for() {
    let daemon = Daemon::run(&["--workers", "0..4", "--spare", "1"], &["{{herd}}", "repl"]);
    eval(daemon.gateway, "alice", "1");
    daemon.page_when("/v1/stats", |stats| stats["workers"]["spare"] == 1);
    let listed = |args: &[&str]| -> (usize, usize) {
        let output = daemon.command(&[&["ps", "--json"], args].concat());
        let json: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"));
        let count = |name: &str| json[name].as_array().unwrap().len();
        (count("sessions"), count("workers"))
    };
    assert_eq!(listed(&[]), (1, 2));
    assert_eq!(listed(&["--pool", "default"]), (1, 2));
    assert_eq!(listed(&["--tenant", ""]), (1, 1));
    assert_eq!(listed(&["--tenant", "acme"]), (0, 0));
    assert_eq!(listed(&["--state", "live"]), (1, 0));
    assert_eq!(listed(&["--state", "spare"]), (0, 1));
    assert_eq!(listed(&["--state", "in-session"]), (0, 1));
    let refused = daemon.command(&["ps", "--pool", "nope"]);
    assert_eq!(refused.status.code(), Some(1));
    assert_eq!(String::from_utf8(refused.stderr).unwrap(), "herd: there is no pool nope; there are: default\n");
}

#[test]
fn end_ends_a_session_and_names_one_that_is_not_there() {
    let daemon = Daemon::repl();
    eval(daemon.gateway, "a/b?c", "1");
    let ended = daemon.command(&["end", "a/b?c"]);
    assert_eq!(String::from_utf8(ended.stdout).unwrap(), "a/b?c ended (released)\n");
    let again = daemon.command(&["end", "a/b?c"]);
    assert_eq!(again.status.code(), Some(1));
    let said = String::from_utf8(again.stderr).unwrap();
    assert_eq!(said, "herd: there is no session a/b?c; `herd ps` lists those that live\n");
    eval(daemon.gateway, "bob", "1");
    let killed = daemon.command(&["end", "--force", "bob"]);
    assert_eq!(String::from_utf8(killed.stdout).unwrap(), "bob ended (killed)\n");
    eval(daemon.gateway, "carol", "1");
    let ended = daemon.command(&["end", "--json", "carol"]);
    let json: Value = serde_json::from_slice(&ended.stdout).unwrap();
    assert_eq!(json, serde_json::json!({ "pool": "default", "tenant": null, "id": "carol", "reason": "released" }));
}

#[test]
fn commands_give_up_on_a_daemon_that_is_stopped_and_say_how_to_wake_it() {
    let daemon = Daemon::repl();
    eval(daemon.gateway, "alice", "1");
    daemon.signal(Signal::STOP);
    let socket = daemon.socket.to_str().unwrap();
    let begun = [&["ps"][..], &["end", "alice"], &["reload"]].map(|command| {
        let mut command = herd(&[command, &["--socket", socket]].concat(), daemon.directory());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    });
    for (command, waits_for) in begun.into_iter().zip([None, Some("the worker of alice"), Some("the configuration")]) {
        let output = command.wait_with_output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{said}");
        let pid = daemon.pid().as_raw_nonzero();
        assert!(
            said.contains(&format!("says nothing for 10 s; if its process {pid} is stopped, `kill -CONT")),
            "{said}"
        );
        assert!(waits_for.is_none_or(|text| said.lines().next().unwrap().contains(text)), "{said}");
    }
}

#[test]
fn a_problem_is_json_for_those_who_want_json() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("other.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let problem = r#"{"type": "urn:herd:problem:internal", "detail": "it is broken"}"#;
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let head = "HTTP/1.1 500 Internal Server Error\r\nconnection: close\r\ncontent-length: ";
        assert!(stream.read(&mut [0; 1024]).unwrap() > 0);
        write!(stream, "{head}{}\r\n\r\n{problem}", problem.len()).unwrap();
    });
    let listed = output(&["ps", "--json", "--socket", path.to_str().unwrap()], directory.path());
    let said = String::from_utf8(listed.stderr).unwrap();
    assert!(listed.status.code() == Some(1) && said.contains("500") && said.contains("it is broken"), "{said}");
    assert_eq!(serde_json::from_slice::<Value>(&listed.stdout).unwrap()["type"], "urn:herd:problem:internal");
}

#[test]
fn without_a_daemon_commands_say_what_to_do() {
    for args in
        [&["ps"][..], &["end", "alice"], &["end", "--all"], &["stats"], &["events", "-f"], &["logs", "a"], &["reload"]]
    {
        let said = failure(args, 1);
        assert!(said.contains("no daemon of this user runs") && said.contains("start one with `herd`"), "{said}");
    }
    let said = failure(&["ps", "--socket", "/nowhere/herd.sock"], 1);
    assert!(said.contains("no daemon answers on /nowhere/herd.sock; start one"), "{said}");
    assert_eq!(said.lines().count(), 1);
}

#[test]
fn check_lists_every_mistake_and_passes_a_good_file() {
    let directory = TempDir::new().unwrap();
    let bad = directory.path().join("bad.yaml");
    fs::write(&bad, "resources: {ttl: 5}\nbanana: 1\n").unwrap();
    let checked = output(&["check", bad.to_str().unwrap()], directory.path());
    assert_eq!(checked.status.code(), Some(1));
    let text = String::from_utf8(checked.stdout).unwrap();
    assert!(text.contains("bad.yaml:1:18: resources.ttl: `5`") && text.contains("bad.yaml:2:1: banana"), "{text}");
    let checked = output(&["check", "--json", bad.to_str().unwrap()], directory.path());
    let json: Value = serde_json::from_slice(&checked.stdout).unwrap();
    assert_eq!((json[0]["line"].as_u64(), json[1]["key"].as_str()), (Some(1), Some("banana")), "{json}");

    let good = directory.path().join("good.yaml");
    fs::write(&good, "resources: {ttl: 5m}\n").unwrap();
    let checked = output(&["check", good.to_str().unwrap()], directory.path());
    assert!(checked.status.success());
    let checked = output(&["check", "--json", good.to_str().unwrap()], directory.path());
    assert_eq!(String::from_utf8(checked.stdout).unwrap().trim(), "[]");
    assert!(failure(&["check", "/nowhere.yaml"], 1).contains("cannot read the configuration /nowhere.yaml"));
}

#[test]
fn ps_says_why_no_worker_starts_and_stops_saying_it_when_one_does() {
    let directory = TempDir::new().unwrap();
    let gate = directory.path().join("gate");
    let script = format!("[ -e {} ] && exec {{{{herd}}}} repl; echo no license >&2; exit 3", gate.display());
    let flags = ["--workers", "1..1", "--read-only", directory.path().to_str().unwrap()];
    let mut daemon = Daemon::run(&flags, &["sh", "-c", &script]);
    daemon.log_line(|line| line["message"] == "worker could not be started");
    let listed = || String::from_utf8(daemon.command(&["ps"]).stdout).unwrap();
    eventually(|| listed().contains("last start failed "));
    let text = listed();
    assert!(text.lines().last().unwrap().contains(" ago: ") && text.contains("no license"), "{text}");
    fs::write(&gate, "").unwrap();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
    eventually(|| !listed().contains("last start failed "));
    assert!(listed().contains("spare"), "{}", listed());
}

#[test]
fn an_endless_file_is_refused_and_not_read_to_its_end() {
    let directory = TempDir::new().unwrap();
    for command in [&["check"][..], &["serve", "--config"]] {
        let mut child = herd(&[command, &["/dev/stdin"]].concat(), directory.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut pipe = child.stdin.take().unwrap();
        let mut written = 0;
        // It never ends by itself: whoever read all of it would read for ever.
        while let Ok(count) = pipe.write(&[b'#'; 4096]) {
            written += count;
            assert!(written < 8 << 20, "{command:?} reads on and on");
        }
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        assert!(said.contains("the file has more than 1048576 bytes"), "{said}");
    }
}

#[test]
fn what_is_no_mistake_and_hardly_wanted_is_a_warning() {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("herd.yaml");
    fs::write(&file, "sandbox: {mode: off}\nresources: {memory_limit_mb: 64}\n").unwrap();
    let file = file.to_str().unwrap();
    let checked = output(&["check", file], directory.path());
    assert!(checked.status.success());
    let expected = "resources.memory_limit_mb: a memory limit is skipped because the sandbox is off";
    assert_eq!(String::from_utf8(checked.stderr).unwrap(), format!("herd: warning: {file}:2:30: {expected}\n"));
    let mut daemon = Daemon::serve(&["--config", file]);
    let warning = daemon.log_line(|line| line["level"] == "WARN");
    assert_eq!(warning["message"], expected, "{warning}");
}

#[test]
fn check_reads_every_pool_and_the_variables_of_its_environment_and_tells_no_values() {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("herd.yaml");
    let text = "pools:\n  a: {resources: {ttl: \"${HERD_TEST_SECRET}\"}}\n  b: {worker: {port: \"${NOT_SET_HERE}\"}}\n";
    fs::write(&file, text).unwrap();
    let checked = output(&["check", file.to_str().unwrap()], directory.path());
    assert_eq!(checked.status.code(), Some(1));
    let said = String::from_utf8([checked.stdout, checked.stderr].concat()).unwrap();
    assert!(said.contains(":2:24: pools.a.resources.ttl: `${HERD_TEST_SECRET}` is no duration"), "{said}");
    assert!(said.contains(":3:22: pools.b.worker.port: `${NOT_SET_HERE}` needs the environment variable"), "{said}");
    assert!(!said.contains(CANARY), "{said}");
}

#[test]
fn schema_prints_a_schema() {
    let directory = TempDir::new().unwrap();
    let printed = output(&["schema"], directory.path());
    let schema: Value = serde_json::from_slice(&printed.stdout).unwrap();
    assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
    assert_eq!(schema["properties"]["resources"]["properties"]["max_workers"]["default"], 10);
}

#[test]
fn a_program_without_dashes_before_it_gets_the_tip() {
    let said = failure(&["run", "--health-path", "/", "python3", "-m", "http.server"], 2);
    assert!(said.contains("tip: put `--` before the program: herd run … -- python3 …"), "{said}");
    assert!(!failure(&["run", "--banana"], 2).contains("before the program"));
}

#[test]
fn wrong_usage_ends_with_2_and_what_cannot_be_had_with_1() {
    for (args, code) in [
        (&["run"][..], 2),
        (&["run", "--ttl", "5", "--", "true"], 2),
        (&["run", "--workers", "3..1", "--", "true"], 2),
        (&["run", "--memory", "512", "--", "true"], 2),
        (&["run", "--spare", "50", "--", "true"], 2),
        (&["run", "--pids", "0", "--", "true"], 2),
        (&["run", "--banana", "--", "true"], 2),
        (&["run", "--", "true", "{{.Prot}}"], 2),
        (&["banana"], 2),
        (&["end", "a b"], 2),
        (&["serve", "--config", "/nowhere.yaml"], 1),
        (&["run", "--memory", "512MiB", "--", "true"], 1),
        (&["run", "--cpu", "0.5", "--", "true"], 1),
        (&["run", "--pids", "100", "--", "true"], 1),
        (&["run", "--tls-cert", "/c.pem", "--", "true"], 2),
        (&["run", "--admin", "0.0.0.0:0", "--", "true"], 2),
        (&["run", "--seccomp", "none", "--", "true"], 2),
        (&["run", "--read-only", "data/nowhere", "--", "true"], 1),
        (&["run", "--read-only", "{{.Workspace}}/data", "--", "true"], 2),
        (&["run", "--workspace", "kept", "--", "true"], 2),
        (&["run", "--network", "host", "--port", "8000", "--", "true"], 2),
        (&["run", "--writable", "/no/such/place", "--", "true"], 1),
        (&["doctor", "--config", "/nowhere.yaml"], 1),
    ] {
        let said = failure(args, code);
        assert!(!said.is_empty(), "{args:?}");
    }
}

#[test]
fn help_names_every_command_and_its_defaults() {
    let directory = TempDir::new().unwrap();
    let help = String::from_utf8(output(&["--help"], directory.path()).stdout).unwrap();
    for command in
        ["serve", "run", "check", "doctor", "ps", "stats", "events", "logs", "end", "reload", "completions", "man"]
    {
        assert!(help.contains(&format!("\n  {command} ")), "{help}");
    }
    assert!(!help.contains("repl "), "the built-in worker is no command for people: {help}");
    assert!(help.contains("herd run --health-path / -- ./server --port {{.Port}}\n"), "{help}");
    let help = String::from_utf8(output(&["run", "--help"], directory.path()).stdout).unwrap();
    for text in ["[default: 127.0.0.1:8080]", "[default: 1..10]", "--memory", "--seccomp", "Examples:"] {
        assert!(help.contains(text), "{text}: {help}");
    }
}
