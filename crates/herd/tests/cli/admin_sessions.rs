//! Sessions that are started, found and ended by the admin API.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::{
    client::{Exchange, Response, eval, get, request},
    daemon::Daemon,
    sandbox::file,
};

const TWO: &str = "\
pools:
  a: {worker: {env: [NAME=a]}, resources: {max_workers: 5, spare: 0, min_workers: 0}}
  b: {worker: {env: [NAME=b]}, resources: {max_workers: 5, spare: 0, min_workers: 0}}
tenants: {named: {small: {max_sessions: 1}}}
access: {tokens: [{name: t, tenant: acme, sha256: 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08}]}
";

fn two_pools() -> (tempfile::TempDir, Daemon) {
    let (directory, config) = file(TWO);
    (directory, Daemon::serve(&["--config", &config]))
}

/// Sends a body that is JSON.
#[track_caller]
fn post(daemon: &Daemon, body: &str) -> Response {
    let length = body.len().to_string();
    let fields = [("content-type", "application/json"), ("content-length", length.as_str())];
    let mut exchange = Exchange::begin(daemon.admin, "POST", "/v1/sessions", &fields);
    exchange.send(body);
    exchange.finish()
}

#[track_caller]
fn started(daemon: &Daemon, body: &Value) -> Value {
    let answer = post(daemon, &body.to_string());
    assert_eq!(answer.status, 201, "{answer:?}");
    answer.json()
}

fn ids(page: &Value) -> Vec<&str> {
    page["items"].as_array().unwrap().iter().map(|item| item["id"].as_str().unwrap()).collect()
}

fn encode(id: &str) -> String {
    id.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

#[test]
fn a_session_is_started_once_and_used_through_the_gateway() {
    let daemon = Daemon::repl();
    let first = post(&daemon, r#"{"id": "alice"}"#);
    assert_eq!((first.status, first.field("location")), (201, Some("/v1/sessions/alice?pool=default&tenant=")));
    let again = post(&daemon, r#"{"id": "alice", "pool": "default", "timeout_ms": 1000.0}"#);
    assert_eq!((again.status, &again.json()["worker"]), (200, &first.json()["worker"]), "{again:?}");
    let gateway = &first.json()["gateway"];
    assert_eq!(gateway["url"], format!("http://{}", daemon.gateway));
    let reached = json!([&gateway["routes"], &gateway["is_default"], &gateway["warning"]]);
    assert_eq!(reached, json!([[], true, null]), "every request leads there");
    assert_eq!(gateway["name"], json!({"in": "header", "name": "x-session-id", "value": "alice"}));
    let answer = eval(daemon.gateway, "alice", "6 * 7");
    assert_eq!((answer.body.as_str(), answer.field("herd-session")), ("42", Some("resumed")), "{answer:?}");
    assert_eq!(get(daemon.admin, first.field("location").unwrap()).json()["worker"], first.json()["worker"]);
}

#[test]
fn sessions_without_an_id_get_one_that_nobody_guesses() {
    let daemon = Daemon::repl();
    let made: BTreeSet<String> =
        ["", "{}", "null"].map(|body| post(&daemon, body).json()["id"].as_str().unwrap().to_owned()).into();
    assert_eq!(made.len(), 3);
    assert!(made.iter().all(|id| id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit())), "{made:?}");
}

#[test]
fn ids_of_any_visible_ascii_are_found_and_ended_by_their_own_page() {
    let (_directory, config) = file("resources: { max_workers: 9, spare: 2 }\n");
    let daemon = Daemon::serve(&["--config", &config]);
    for id in ["a/b", "..", "%2e%2E", "?x=1#y", "\\\"'<>", "a+b&c;d", "~!@$^*()[]{}|`,:=-_.", "events"] {
        let session = started(&daemon, &json!({ "id": id }));
        assert_eq!(session["id"], id);
        let path = format!("/v1/sessions/{}", encode(id));
        assert_eq!(get(daemon.admin, &path).json()["worker"], session["worker"], "{id}");
        assert_eq!(ids(&daemon.page(&format!("/v1/sessions?prefix={}", encode(id)))), [id]);
        let ended = request(daemon.admin, "DELETE", &format!("{path}?force=true"), &[]);
        assert_eq!((ended.status, &ended.json()["id"], &ended.json()["reason"]), (200, &json!(id), &json!("killed")));
        assert_eq!(get(daemon.admin, &path).status, 404, "{id}");
    }
}

#[test]
fn wishes_that_cannot_be_are_refused_with_what_is_wrong() {
    let (_directory, daemon) = two_pools();
    let long = format!(r#"{{"id": "{}"}}"#, "x".repeat(257));
    let huge = format!(r#"{{"id": "{}"}}"#, "x".repeat(17 * 1024));
    for (body, status, name, said) in [
        ("{}", 404, "no-such-pool", "name one of a, b"),
        (r#"{"pool": ""}"#, 404, "no-such-pool", "a, b"),
        (r#"{"pool": "c"}"#, 404, "no-such-pool", "there are a, b"),
        (r#"{"pool": "a", "id": ""}"#, 400, "invalid-session-id", "empty"),
        (r#"{"pool": "a", "id": "a b"}"#, 400, "invalid-session-id", "0x20"),
        (&long, 400, "invalid-session-id", "257"),
        (r#"{"pool": "a", "tenant": "a b"}"#, 400, "invalid-tenant", "visible ASCII"),
        (r#"{"pool": "a", "timeout_ms": 0}"#, 400, "bad-body", "timeout_ms"),
        (r#"{"pool": "a", "timeout_ms": 0.5}"#, 400, "bad-body", "timeout_ms"),
        (r#"{"pool": "a", "timeout_ms": -1}"#, 400, "bad-body", "timeout_ms"),
        (r#"{"pool": "a", "ttl": 3}"#, 400, "bad-body", "unknown field `ttl`"),
        (r#"["a"]"#, 400, "bad-body", "no JSON object"),
        (&huge, 413, "body-too-large", "16384 bytes"),
    ] {
        let answer = post(&daemon, body);
        assert_eq!(answer.status, status, "{answer:?}");
        let problem = answer.json();
        assert_eq!(problem["type"], format!("urn:herd:problem:{name}"), "{problem}");
        assert!(problem["detail"].as_str().unwrap().contains(said), "{problem}");
    }
    let text = [("content-type", "text/plain"), ("content-length", "2")];
    let mut exchange = Exchange::begin(daemon.admin, "POST", "/v1/sessions", &text);
    exchange.send("{}");
    assert_eq!(exchange.finish().status, 415);
    assert!(ids(&daemon.page("/v1/sessions")).is_empty());
}

#[test]
fn one_id_of_several_pools_and_tenants_is_several_sessions_that_have_to_be_told_apart() {
    let (_directory, daemon) = two_pools();
    let places = [("a", None), ("a", Some("acme")), ("b", Some("acme"))];
    let workers: Vec<Value> = places
        .iter()
        .map(|(pool, tenant)| {
            started(&daemon, &json!({"id": "alice", "pool": pool, "tenant": tenant}))["worker"].clone()
        })
        .collect();
    for method in ["GET", "DELETE"] {
        let asked = request(daemon.admin, method, "/v1/sessions/alice", &[]);
        let expected = places.map(|(pool, tenant)| json!({"pool": pool, "tenant": tenant}));
        assert_eq!((asked.status, &asked.json()["candidates"]), (409, &json!(expected)), "{asked:?}");
    }
    for (choice, status) in [("pool=a", 409), ("tenant=acme", 409), ("pool=b", 200), ("tenant=", 200), ("pool=c", 404)]
    {
        assert_eq!(get(daemon.admin, &format!("/v1/sessions/alice?{choice}")).status, status, "{choice}");
    }
    for ((pool, tenant), worker) in places.iter().zip(&workers) {
        let path = format!("/v1/sessions/alice?pool={pool}&tenant={}", tenant.unwrap_or_default());
        let session = daemon.page(&path);
        assert_eq!((&session["worker"], &session["tenant"]), (worker, &json!(tenant)));
        let shown = daemon.page(&format!("/v1/workers/{}", worker.as_str().unwrap()));
        assert_eq!((&shown["pool"], &shown["tenant"]), (&json!(pool), &json!(tenant)));
    }
    let ended = request(daemon.admin, "DELETE", "/v1/sessions/alice?pool=a&tenant=", &[]).json();
    assert_eq!((&ended["pool"], &ended["tenant"]), (&json!("a"), &Value::Null));
    assert_eq!(get(daemon.admin, "/v1/sessions/alice?pool=a").json()["tenant"], "acme");
}

#[test]
fn a_tenant_gets_no_more_sessions_than_it_may_have() {
    let (_directory, daemon) = two_pools();
    started(&daemon, &json!({"pool": "a", "tenant": "small"}));
    let refused = post(&daemon, r#"{"pool": "b", "tenant": "small"}"#);
    assert_eq!((refused.status, refused.field("retry-after")), (429, Some("1")), "{refused:?}");
    assert_eq!(refused.json()["type"], "urn:herd:problem:tenant-limit");
}

#[test]
fn a_session_of_a_tenant_is_refused_where_the_gateway_admits_nobody_of_one() {
    let daemon = Daemon::repl();
    let refused = post(&daemon, r#"{"id": "alice", "tenant": "acme"}"#);
    assert_eq!((refused.status, &refused.json()["type"]), (409, &json!("urn:herd:problem:no-tenants")), "{refused:?}");
    assert!(refused.json()["detail"].as_str().unwrap().contains("configure `access`"), "{refused:?}");
    assert!(ids(&daemon.page("/v1/sessions")).is_empty());
}

#[test]
fn who_starts_a_session_is_told_which_requests_reach_it() {
    let (_directory, config) = file(
        "pools: {a: {}, b: {}}\nroutes: [{pool: a, host: '*.a.test', path_prefix: /a}, {pool: a, header: x-kind=a}]\n",
    );
    let daemon = Daemon::serve(&["--config", &config]);
    let gateway = &started(&daemon, &json!({"pool": "a"}))["gateway"];
    let routes = json!([
        {"host": "*.a.test", "path_prefix": "/a", "header": null},
        {"host": null, "path_prefix": null, "header": "x-kind=a"},
    ]);
    assert_eq!(
        (&gateway["routes"], &gateway["is_default"], &gateway["warning"]),
        (&routes, &json!(false), &Value::Null)
    );
    let gateway = &started(&daemon, &json!({"pool": "b"}))["gateway"];
    assert_eq!(gateway["routes"], json!([]));
    assert!(gateway["warning"].as_str().unwrap().contains("no route leads to the pool b"), "{gateway}");
}

#[test]
fn every_page_refuses_parameters_that_it_does_not_know() {
    let daemon = Daemon::repl();
    eval(daemon.gateway, "alice", "1");
    let worker = daemon.page("/v1/sessions/alice")["worker"].as_str().unwrap().to_owned();
    for (method, path) in [
        ("GET", "/v1/gateway".to_owned()),
        ("GET", "/healthz".to_owned()),
        ("GET", "/readyz".to_owned()),
        ("GET", "/metrics".to_owned()),
        ("GET", "/openapi.json".to_owned()),
        ("GET", "/v1/stats".to_owned()),
        ("GET", "/v1/events".to_owned()),
        ("GET", "/v1/pools".to_owned()),
        ("GET", "/v1/pools/default".to_owned()),
        ("GET", format!("/v1/workers/{worker}")),
        ("GET", format!("/v1/workers/{worker}/logs")),
        ("GET", "/v1/sessions/alice".to_owned()),
        ("DELETE", "/v1/sessions/alice".to_owned()),
        ("POST", "/v1/sessions".to_owned()),
        ("POST", "/v1/reload".to_owned()),
    ] {
        let refused = request(daemon.admin, method, &format!("{path}?banana=1"), &[]);
        assert_eq!((refused.status, &refused.json()["type"]), (400, &json!("urn:herd:problem:bad-query")), "{path}");
    }
    assert_eq!(ids(&daemon.page("/v1/sessions")), ["alice"]);
}

#[test]
fn sessions_of_a_pool_that_leaves_are_listed_once_beside_those_of_its_successor() {
    let (_directory, config) = file("pools: {default: {}, other: {}}\n");
    let daemon = Daemon::serve(&["--config", &config]);
    let hold = |count: usize| {
        let fields = [("x-session-id", "alice"), ("content-length", "7")];
        let mut open = Exchange::begin(daemon.gateway, "POST", "/eval", &fields);
        open.send("x");
        let is_held = |page: &Value| {
            ids(page).len() == count && page["items"].as_array().unwrap().iter().all(|session| session["leases"] == 1)
        };
        daemon.page_when("/v1/sessions", is_held);
        open
    };
    let former = hold(1);
    for pools in ["{other: {}}", "{default: {}, other: {}}"] {
        std::fs::write(&config, format!("pools: {pools}\n")).unwrap();
        assert_eq!(request(daemon.admin, "POST", "/v1/reload", &[]).status, 200);
    }
    let latter = hold(2);
    let mut workers = BTreeSet::new();
    let mut path = "/v1/sessions?limit=1".to_owned();
    for last in [false, true] {
        let page = daemon.page(&path);
        assert_eq!(ids(&page), ["alice"], "{page}");
        workers.insert(page["items"][0]["worker"].to_string());
        assert_eq!(page["next"].is_null(), last, "{page}");
        path = format!("/v1/sessions?limit=1&cursor={}", page["next"].as_str().unwrap_or_default());
    }
    assert_eq!(workers.len(), 2, "each is another session");
    let pools = daemon.page("/v1/pools?limit=2");
    let rest = daemon.page(&format!("/v1/pools?cursor={}", pools["next"].as_str().unwrap()));
    assert_eq!((&rest["items"][0]["pool"], &rest["items"][0]["leaving"]), (&json!("default"), &json!(true)), "{rest}");
    drop((former, latter));
}

#[test]
fn who_does_not_get_a_worker_in_time_is_told_when_to_ask_again() {
    let (_directory, config) = file("resources: { max_workers: 1 }\n");
    let daemon = Daemon::serve(&["--config", &config]);
    started(&daemon, &json!({"id": "alice"}));
    let refused = post(&daemon, r#"{"id": "bob", "timeout_ms": 20}"#);
    assert_eq!((refused.status, refused.field("retry-after")), (503, Some("1")), "{refused:?}");
    assert_eq!(refused.json()["type"], "urn:herd:problem:acquire-timeout");
    assert_eq!(ids(&daemon.page("/v1/sessions")), ["alice"], "nobody waits any more");
}

#[test]
fn lists_are_filtered_by_what_is_shown() {
    let (_directory, daemon) = two_pools();
    for (pool, tenant, id) in
        [("a", None, "x1"), ("a", Some("acme"), "x2"), ("b", Some("acme"), "y1"), ("b", None, "x1")]
    {
        started(&daemon, &json!({"id": id, "pool": pool, "tenant": tenant}));
    }
    let worker = daemon.page("/v1/sessions/y1")["worker"].as_str().unwrap().to_owned();
    for (query, expected) in [
        ("", vec!["x1", "x2", "x1", "y1"]),
        ("pool=a", vec!["x1", "x2"]),
        ("tenant=acme", vec!["x2", "y1"]),
        ("tenant=", vec!["x1", "x1"]),
        ("prefix=x&pool=b", vec!["x1"]),
        ("state=live", vec!["x1", "x2", "x1", "y1"]),
        ("state=ending", vec![]),
        ("pool=c", vec![]),
        (&format!("worker={worker}"), vec!["y1"]),
    ] {
        assert_eq!(ids(&daemon.page(&format!("/v1/sessions?{query}"))), expected, "{query}");
    }
    assert_eq!(ids(&daemon.page("/v1/workers?session=y1")), [worker.as_str()]);
    assert_eq!(ids(&daemon.page("/v1/workers?pool=a&state=in-session")).len(), 2);
    assert_eq!(daemon.page("/v1/workers?pool=a&state=spare")["items"], json!([]));
    for path in [
        "/v1/sessions?state=lively",
        "/v1/sessions?worker=3",
        "/v1/sessions?sort=id",
        "/v1/sessions?limit=1&limit=2",
        "/v1/workers?state=live",
        "/v1/workers?tenant=acme",
        "/v1/pools?pool=a",
        "/v1/events?kind=everything",
        "/v1/events?since=yesterday",
    ] {
        let refused = get(daemon.admin, path);
        assert_eq!(refused.status, 400, "{path}: {refused:?}");
    }
}

#[test]
fn pages_stay_right_while_sessions_come_and_go() {
    let (_directory, daemon) = two_pools();
    for (pool, id) in [("a", "d"), ("a", "f"), ("b", "b"), ("b", "d"), ("b", "f")] {
        started(&daemon, &json!({"id": id, "pool": pool}));
    }
    let next = |page: &Value| format!("/v1/sessions?limit=2&cursor={}", page["next"].as_str().unwrap());
    let first = daemon.page("/v1/sessions?limit=2");
    assert_eq!(ids(&first), ["d", "f"]);
    // The last one that was read goes, one comes before it, and one behind.
    request(daemon.admin, "DELETE", "/v1/sessions/f?pool=a", &[]);
    started(&daemon, &json!({"id": "c", "pool": "a"}));
    started(&daemon, &json!({"id": "g", "pool": "a"}));
    let second = daemon.page(&next(&first));
    assert_eq!(ids(&second), ["g", "b"]);
    request(daemon.admin, "DELETE", "/v1/sessions/d?pool=b", &[]);
    let third = daemon.page(&next(&second));
    assert_eq!((ids(&third), &third["next"]), (vec!["f"], &Value::Null));
    let workers = daemon.page("/v1/workers?limit=3");
    let rest = daemon.page(&format!("/v1/workers?limit=1000&cursor={}", workers["next"].as_str().unwrap()));
    let numbers: Vec<u64> = [ids(&workers), ids(&rest)]
        .concat()
        .iter()
        .map(|id| id.trim_start_matches("worker-").parse().unwrap())
        .collect();
    assert!(numbers.is_sorted() && numbers.len() == 5, "{numbers:?}");
    assert_eq!(get(daemon.admin, &next(&workers)).status, 400, "a cursor of another list");
}

#[test]
fn pools_are_shown_with_their_numbers() {
    let (_directory, daemon) = two_pools();
    started(&daemon, &json!({"id": "alice", "pool": "b"}));
    let pools = daemon.page("/v1/pools");
    let names: Vec<_> = pools["items"].as_array().unwrap().iter().map(|pool| pool["pool"].as_str().unwrap()).collect();
    assert_eq!((names, &pools["next"]), (vec!["a", "b"], &Value::Null));
    let first = daemon.page("/v1/pools?limit=1");
    let second = daemon.page(&format!("/v1/pools?cursor={}", first["next"].as_str().unwrap()));
    assert_eq!((&first["items"][0]["pool"], &second["items"][0]["pool"]), (&json!("a"), &json!("b")));
    let pool = daemon.page("/v1/pools/b");
    assert_eq!((&pool["sessions"], &pool["sessions_started"], &pool["leaving"]), (&json!(1), &json!(1), &json!(false)));
    let stats = daemon.page("/v1/stats");
    assert_eq!((&stats["sessions"], &stats["max_workers"]), (&json!(1), &json!(10)), "{stats}");
    assert_eq!(get(daemon.admin, "/v1/pools/c").status, 404);
}

#[test]
fn a_daemon_whose_workers_cannot_start_is_not_ready_and_shows_strangers_nothing_of_them() {
    let script = ["sh", "-c", "echo the password is wrong >&2; exit 7"];
    let daemon = Daemon::run(&["--start-timeout", "1s", "--workers", "1..1"], &script);
    let mut told = Value::Null;
    crate::daemon::eventually(|| {
        let answer = get(daemon.admin, "/readyz");
        told = if answer.status == 503 { answer.json() } else { Value::Null };
        !told.is_null()
    });
    assert_eq!(told["type"], "urn:herd:problem:not-ready");
    assert!(!told.to_string().contains("password") && !told.to_string().contains("exit"), "{told}");
    assert!(told["detail"].as_str().unwrap().contains("/v1/pools"), "{told}");
    let failure = &daemon.page("/v1/pools/default")["last_start_failure"]["error"];
    assert!(failure.as_str().unwrap().contains("the password is wrong"), "{failure}");
    assert_eq!(get(daemon.admin, "/healthz").body, "ok\n");
}

#[test]
fn a_session_that_was_started_anew_is_not_ended_by_who_means_the_one_before() {
    let daemon = Daemon::repl();
    let first = started(&daemon, &json!({ "id": "alice" }));
    let end = |query: &str| request(daemon.admin, "DELETE", &format!("/v1/sessions/alice?force=true{query}"), &[]);
    let known = format!("&worker={}", first["worker"].as_str().unwrap());
    assert_eq!(end("").status, 200);
    let second = started(&daemon, &json!({ "id": "alice" }));
    assert_ne!(first["worker"], second["worker"]);

    let refused = end(&known);
    assert_eq!((refused.status, &refused.json()["worker"]), (409, &second["worker"]), "{refused:?}");
    assert_eq!(refused.json()["type"], "urn:herd:problem:session-restarted");
    assert_eq!(daemon.page("/v1/sessions/alice")["worker"], second["worker"], "it lives");
    assert_eq!(end("&worker=seven").json()["type"], "urn:herd:problem:invalid-worker-id");
    let known = format!("&worker={}", second["worker"].as_str().unwrap());
    assert_eq!(end(&known).status, 200);
    assert_eq!(end(&known).status, 404);
}
