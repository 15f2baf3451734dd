use crate::{
    client::{Exchange, eval, get, request},
    delegated::daemon,
};

/// The engine does not count what is assigned into a map, so this takes as much memory as there is.
const BOMB: &str =
    "let s = \"x\"; while s.len() < 500000 { s += s } let m = #{}; let n = 0; loop { m[`${n}`] = s + n; n += 1 }";

pub(crate) fn a_worker_over_its_memory_limit_ends_as_out_of_memory_and_no_other_does() {
    let daemon = daemon("resources: {memory_limit_mb: 64, min_workers: 0, spare: 0}\n");
    assert_eq!(eval(daemon.gateway, "alice", "let x = 41").status, 200);
    let mut events = Exchange::begin(daemon.admin, "GET", "/v1/events", &[]);
    events.head();

    let cut = eval(daemon.gateway, "bob", BOMB);
    assert_eq!((cut.status, cut.field("herd-error")), (502, Some("worker-crashed")), "{cut:?}");
    let detail = cut.json()["detail"].as_str().unwrap().to_owned();
    assert!(detail.ends_with("out of memory"), "{detail}");

    let mut event = |name: &str| std::iter::repeat_with(|| events.event()).find(|event| event.1 == name).unwrap().2;
    let crashed = event("worker-crashed");
    assert_eq!((&crashed["exit"], &crashed["out_of_memory"]), (&"out of memory".into(), &true.into()), "{crashed}");
    let ended = event("session-ended");
    assert_eq!((&ended["session"], &ended["reason"]), (&"bob".into(), &"out-of-memory".into()), "{ended}");

    let metrics = get(daemon.admin, "/metrics").body;
    for line in [
        "herd_worker_exits_total{pool=\"default\",reason=\"out-of-memory\"} 1",
        "herd_sessions_ended_total{pool=\"default\",reason=\"out-of-memory\"} 1",
        "herd_oom_kills_total{pool=\"default\"} 1",
    ] {
        assert!(metrics.lines().any(|found| found == line), "{line}\n{metrics}");
    }
    let stats = daemon.page("/v1/stats");
    assert_eq!(stats["worker_exits"]["out-of-memory"], 1, "{stats}");

    assert_eq!(eval(daemon.gateway, "alice", "x + 1").body, "42");
    assert_eq!(eval(daemon.gateway, "bob", "1 + 1").field("herd-session"), Some("new"));
}

pub(crate) fn a_worker_gets_no_more_cpu_time_than_its_limit() {
    let daemon = daemon("resources: {cpu_limit_cores: 0.5, min_workers: 0, spare: 0}\n");
    assert_eq!(eval(daemon.gateway, "alice", "1").status, 200);
    let cpu_time = || daemon.page("/v1/workers")["items"][0]["cpu_time_ms"].as_u64().unwrap();
    let before = cpu_time();
    assert_eq!(eval(daemon.gateway, "alice", "let start = timestamp(); while start.elapsed < 5.0 {} 1").body, "1");
    let spent = cpu_time() - before;
    // Half of five seconds; it would be all five. The periods of the limit have a tenth of a second each.
    assert!((500..3500).contains(&spent), "{spent} ms");
}

pub(crate) fn a_worker_has_no_more_processes_than_its_limit() {
    let script = "i=0; while [ $i -lt 40 ]; do sleep 600 & i=$((i+1)); done; exec {{herd}} repl";
    let script = script.replace("{{herd}}", env!("CARGO_BIN_EXE_herd"));
    let herd = env!("CARGO_BIN_EXE_herd");
    let daemon = daemon(&format!(
        "worker: {{command: [sh, -c, '{script}']}}\n\
         resources: {{pids_limit: 20, min_workers: 0, spare: 0, acquire_timeout: 20s}}\n\
         sandbox: {{read_only: [{herd}]}}\n"
    ));
    // A shell that cannot fork gives up.
    let refused = eval(daemon.gateway, "alice", "1");
    assert_eq!(refused.status, 503, "{refused:?}");
    assert!(refused.body.to_lowercase().contains("cannot fork"), "{refused:?}");
}

pub(crate) fn a_hundred_processes_is_the_limit_unless_another_is_written() {
    let daemon = daemon("resources: {min_workers: 0, spare: 0}\n");
    assert_eq!(eval(daemon.gateway, "alice", "1").status, 200);
    let worker = &daemon.page("/v1/workers")["items"][0];
    assert_eq!(worker["limits"]["pids"], 100, "{worker}");
    assert!(worker["layers"].to_string().contains("cgroup limits"), "{worker}");
    assert_eq!(worker["missing"], serde_json::json!([]), "{worker}");
    request(daemon.admin, "DELETE", "/v1/sessions/alice", &[]);
}
