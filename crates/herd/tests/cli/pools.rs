use std::{collections::BTreeSet, fs};

use serde_json::Value;

use crate::{
    client::{Exchange, Response, get, request},
    daemon::{Daemon, output},
    sandbox::{file, said},
};

const TWO: &str = "\
pools:
  a: {worker: {env: [NAME=a]}, resources: {max_workers: 4}}
  b: {worker: {env: [NAME=b]}, resources: {max_workers: 3}}
routes:
  - {pool: b, host: '*.b.test'}
  - {pool: b, path_prefix: /b, strip_prefix: true}
  - {pool: b, header: x-kind=b}
  - {pool: a, path_prefix: /eval}
";

/// The gateway takes a token of some tenant, which nobody knows.
pub(crate) const ADMITS_TENANTS: &str = "\
resources: {max_workers: 8}
access: {tokens: [{name: t, tenant: acme, sha256: 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08}]}
";

fn two_pools() -> (tempfile::TempDir, Daemon) {
    let (directory, config) = file(TWO);
    (directory, Daemon::serve(&["--config", &config]))
}

/// Has a session's REPL evaluate a script.
fn eval(daemon: &Daemon, path: &str, session: &str, script: &str, fields: &[(&str, &str)]) -> Response {
    let length = script.len().to_string();
    let own = [("x-session-id", session), ("content-length", length.as_str())];
    let mut exchange = Exchange::begin(daemon.gateway, "POST", path, &[&own, fields].concat());
    exchange.send(script);
    exchange.finish()
}

fn items(page: &Value) -> &[Value] {
    page["items"].as_array().unwrap()
}

#[test]
fn routes_choose_the_pool_by_host_prefix_and_header() {
    let (_directory, daemon) = two_pools();
    let pool_of = |session: &str| daemon.page(&format!("/v1/sessions/{session}"))["pool"].as_str().unwrap().to_owned();
    for (session, path, fields, pool) in [
        ("by-rest", "/eval", vec![], "a"),
        ("by-host", "/eval", vec![("host", "x.b.test")], "b"),
        ("by-prefix", "/b/eval", vec![], "b"),
        ("by-header", "/eval", vec![("x-kind", "b")], "b"),
    ] {
        let response = eval(&daemon, path, session, "6 * 7", &fields);
        assert_eq!((response.status, response.body.as_str()), (200, "42"), "{session}");
        assert_eq!(pool_of(session), pool, "{session}");
        let ended = request(daemon.admin, "DELETE", &format!("/v1/sessions/{session}"), &[]);
        assert_eq!(ended.status, 200);
    }
    let lost = request(daemon.gateway, "GET", "/nowhere", &[("x-session-id", "alice")]);
    assert_eq!((lost.status, lost.field("content-type")), (404, Some("application/problem+json")), "{lost:?}");
}

#[test]
fn the_same_session_id_in_two_pools_is_two_sessions() {
    let (_directory, daemon) = two_pools();
    assert_eq!(eval(&daemon, "/eval", "alice", "let x = 41", &[]).status, 200);
    assert_eq!(eval(&daemon, "/b/eval", "alice", "x + 1", &[]).status, 422, "it has no x");
    assert_eq!(eval(&daemon, "/eval", "alice", "x + 1", &[]).body, "42");

    let table = String::from_utf8(daemon.command(&["ps"]).stdout).unwrap();
    let heads = |name: &str| table.lines().filter(|line| line.split_whitespace().take(2).eq(["POOL", name])).count();
    assert_eq!((heads("SESSION"), heads("WORKER")), (1, 1), "{table}");
    assert!(!table.contains("TENANT"), "nobody is one: {table}");
    for pool in ["a", "b"] {
        let is_listed = |line: &str| line.split_whitespace().take(3).eq([pool, "alice", "live"]);
        assert!(table.lines().any(is_listed), "{table}");
    }
    assert!(table.contains("\nsandbox of pools a, b "), "what they have in common is said once: {table}");

    let asked = daemon.command(&["end", "alice"]);
    let said = String::from_utf8(asked.stderr).unwrap();
    assert_eq!(asked.status.code(), Some(1), "{said}");
    assert!(said.contains("several sessions alice; choose one with --pool a, or --pool b"), "{said}");
    assert!(daemon.command(&["end", "alice", "--pool", "b"]).status.success());
    assert_eq!(daemon.page("/v1/sessions/alice")["pool"], "a", "the only one that is left");
    assert_eq!(eval(&daemon, "/eval", "alice", "x + 1", &[]).body, "42");
    assert!(daemon.command(&["end", "alice"]).status.success());
}

#[test]
fn the_sessions_of_tenants_are_told_apart() {
    let (_directory, config) = file(ADMITS_TENANTS);
    let daemon = Daemon::serve(&["--config", &config]);
    for tenant in [Some("acme"), Some("$(id)"), None] {
        let body = serde_json::json!({"id": "alice", "tenant": tenant}).to_string();
        let length = body.len().to_string();
        let fields = [("content-type", "application/json"), ("content-length", length.as_str())];
        let mut exchange = Exchange::begin(daemon.admin, "POST", "/v1/sessions", &fields);
        exchange.send(&body);
        assert_eq!(exchange.finish().status, 201);
    }
    let table = String::from_utf8(daemon.command(&["ps"]).stdout).unwrap();
    for tenant in ["acme", "$(id)", "-"] {
        let is_workers = |line: &&str| line.starts_with("worker-") && line.contains(" in-session ");
        let rows = table.lines().filter(is_workers).filter(|line| line.split_whitespace().nth(3) == Some(tenant));
        assert_eq!(rows.count(), 1, "{tenant}: {table}");
        assert!(table.lines().any(|line| line.split_whitespace().take(2).eq([tenant, "alice"])), "{table}");
    }
    assert!(!table.contains("POOL"), "there is one: {table}");
    let asked = daemon.command(&["end", "alice"]);
    let said = String::from_utf8(asked.stderr).unwrap();
    assert_eq!(asked.status.code(), Some(1), "{said}");
    for choice in ["--tenant acme", "--tenant '$(id)'", "--tenant ''"] {
        assert!(said.contains(&format!("--pool default {choice}")), "{said}");
    }
    assert!(daemon.command(&["end", "alice", "--tenant", "acme"]).status.success());
    assert!(daemon.command(&["end", "alice", "--tenant", ""]).status.success());
    assert_eq!(daemon.page("/v1/sessions/alice")["tenant"], "$(id)");
    for (flags, expected) in [
        (
            &["--pool", "no pe"][..],
            "herd: there is no session alice with --pool 'no pe', for there is no such pool; there are default\n",
        ),
        (
            &["--tenant", "globex"],
            "herd: there is no session alice with --tenant globex; `herd ps` lists those that live\n",
        ),
    ] {
        let refused = daemon.command(&[&["end", "alice"], flags].concat());
        assert_eq!((String::from_utf8(refused.stderr).unwrap().as_str(), refused.status.code()), (expected, Some(1)));
    }
    let refused = daemon.command(&["end", "alice", "--tenant", "a b", "--json"]);
    let said = String::from_utf8(refused.stderr).unwrap();
    assert!(said.contains("--tenant 'a b'") && said.contains("visible ASCII"), "{said}");
    let problem: Value = serde_json::from_slice(&refused.stdout).unwrap();
    assert_eq!((&problem["type"], refused.status.code()), (&"urn:herd:problem:invalid-tenant".into(), Some(1)));
}

#[test]
fn workers_and_events_of_all_pools_are_counted_in_one_row() {
    let (_directory, daemon) = two_pools();
    for (path, session) in [("/eval", "alice"), ("/b/eval", "bob")] {
        assert_eq!(eval(&daemon, path, session, "1", &[]).status, 200);
    }
    let workers = daemon.page_when("/v1/workers", |page| {
        // The minimum and the spare of each.
        items(page).len() == 4 && items(page).iter().all(|worker| worker["state"] != "starting")
    });
    let ids: BTreeSet<_> = items(&workers).iter().map(|worker| worker["id"].as_str().unwrap()).collect();
    assert_eq!(ids.len(), 4, "{workers}");
    for worker in items(&workers) {
        let logs = get(daemon.admin, &format!("/v1/workers/{}/logs", worker["id"].as_str().unwrap()));
        assert_eq!(logs.status, 200, "{logs:?}");
        let pid = worker["pid"].as_u64().unwrap();
        let environment = fs::read_to_string(format!("/proc/{pid}/environ")).unwrap();
        assert!(environment.contains(&format!("NAME={}", worker["pool"].as_str().unwrap())), "{worker}");
    }

    let mut events = Exchange::begin(daemon.admin, "GET", "/v1/events", &[("last-event-id", "0")]);
    events.head();
    let (mut sequence, mut heard, mut pools) = (0, BTreeSet::new(), BTreeSet::new());
    while pools.len() < 2 {
        let (id, name, event) = events.event();
        sequence += 1;
        assert_eq!((id.parse(), event["sequence"].as_u64()), (Ok(sequence), Some(sequence)), "{event}");
        if heard.insert(event["pool"].to_string()) {
            assert_eq!(name, "worker-starting", "each pool's story begins there: {event}");
        }
        if name == "session-started" {
            let session = if event["pool"] == "a" { "alice" } else { "bob" };
            assert_eq!(event["session"], session, "{event}");
            pools.insert(event["pool"].to_string());
        }
    }

    let metrics = get(daemon.admin, "/metrics").body;
    for line in ["herd_active_sessions 2", "herd_total_workers 4", "herd_sessions_started_total 2"] {
        assert!(metrics.lines().any(|told| told == line), "{line}\n{metrics}");
    }
    let stats = daemon.page("/v1/stats");
    assert_eq!((&stats["sessions"], &stats["max_workers"]), (&2.into(), &7.into()), "{stats}");
}

#[test]
fn a_pool_that_cannot_start_a_worker_is_named_and_leaves_the_others_alone() {
    let (_directory, config) =
        file("pools:\n  fine: {}\n  broken: {worker: {command: ['false']}}\nroutes: [{pool: fine}]\n");
    let daemon = Daemon::serve(&["--config", &config]);
    assert_eq!(eval(&daemon, "/eval", "alice", "6 * 7", &[]).body, "42");
    let stats = daemon.page_when("/v1/stats", |stats| !stats["pools"][1]["last_start_failure"].is_null());
    assert!(stats["pools"][0]["last_start_failure"].is_null(), "{stats}");
    let table = String::from_utf8(daemon.command(&["ps"]).stdout).unwrap();
    assert!(table.contains("\nlast start of pool broken failed "), "{table}");
    assert!(!table.contains("last start of pool fine"), "{table}");
    assert!(table.lines().last().unwrap().starts_with("last start of pool broken failed "), "{table}");
    assert_eq!(table.matches("\nsandbox of pools fine, broken ").count(), 1, "{table}");
}

#[test]
fn kept_workspaces_of_two_pools_are_apart() {
    let (directory, config) = file("");
    let kept = |name: &str| directory.path().join(name);
    let pool = |name: &str| {
        format!("  {name}: {{sandbox: {{workspace: persistent, workspace_dir: {}}}}}\n", kept(name).display())
    };
    let routes = "routes: [{pool: b, path_prefix: /b, strip_prefix: true}, {pool: a}]\n";
    fs::write(&config, format!("pools:\n{}{}{routes}", pool("a"), pool("b"))).unwrap();
    let daemon = Daemon::serve(&["--config", &config]);
    for path in ["/eval", "/b/eval"] {
        assert_eq!(eval(&daemon, path, "alice", "1", &[]).status, 200);
    }
    for name in ["a", "b"] {
        assert_eq!(fs::read_dir(kept(name)).unwrap().count(), 1, "one session");
    }
}

#[test]
fn the_doctor_looks_at_every_pool() {
    let (_directory, config) = file(TWO);
    let text = said(&["doctor", "--config", &config]);
    assert!(text.contains(&format!("{config} can be had here")), "{text}");
    let steps = said(&["doctor", "--config", &config, "--explain"]);
    assert!(steps.starts_with("pool a\n") && steps.contains("\npool b\n"), "{steps}");
    let json: Value = serde_json::from_str(&said(&["doctor", "--config", &config, "--explain", "--json"])).unwrap();
    assert!(["a", "b"].iter().all(|name| json[name].as_array().is_some_and(|steps| steps.len() > 5)), "{json}");

    fs::write(&config, "pools:\n  a: {worker: {command: [/no/one]}}\n  b: {worker: {command: [/no/two]}}\n").unwrap();
    let runtime = tempfile::TempDir::new().unwrap();
    let refused = output(&["doctor", "--config", &config], runtime.path());
    let said = String::from_utf8(refused.stderr).unwrap();
    assert_eq!(refused.status.code(), Some(1), "{said}");
    for place in [format!("{config}:2:"), format!("{config}:3:")] {
        assert!(said.contains(&place), "{place}\n{said}");
    }
}

#[test]
fn lines_about_workers_name_their_pool_and_no_number_of_another_row() {
    let mut daemon = Daemon::run(&["--log-level", "debug"], &["sh", "-c", "echo hello; exec {{herd}} repl"]);
    let said = daemon.log_line(|line| line["target"] == "herd::worker");
    assert_eq!((&said["message"], &said["span"]["pool"]), (&"hello".into(), &"default".into()), "{said}");
    let ready = daemon.log_line(|line| line["message"] == "worker ready");
    assert_eq!((&ready["span"]["pool"], &ready["sequence"]), (&"default".into(), &Value::Null), "{ready}");
}
