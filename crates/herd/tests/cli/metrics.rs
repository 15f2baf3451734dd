//! The numbers that Prometheus reads.

use crate::{
    client::{eval, get, request},
    daemon::{Daemon, eventually},
};

/// The value of a sample, with its labels as they are written.
fn sample(daemon: &Daemon, name: &str) -> Option<f64> {
    let page = get(daemon.admin, "/metrics").body;
    page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
}

#[test]
fn waits_starts_and_requests_are_counted_by_how_long_they_took() {
    let daemon = Daemon::repl();
    for script in ["let x = 1", "x", "x"] {
        assert_eq!(eval(daemon.gateway, "alice", script).status, 200);
    }
    eval(daemon.gateway, "alice", "not a script");
    // The last byte may have reached the client before the request is counted.
    eventually(|| sample(&daemon, "herd_request_seconds_count{pool=\"default\"}") == Some(4.0));
    let value = |name: &str| sample(&daemon, name).unwrap_or_else(|| panic!("no {name}"));
    assert_eq!(value("herd_responses_total{pool=\"default\",class=\"2xx\"}"), 3.0);
    assert_eq!(value("herd_responses_total{pool=\"default\",class=\"4xx\"}"), 1.0);
    assert_eq!(value("herd_time_to_first_byte_seconds_bucket{pool=\"default\",le=\"+Inf\"}"), 4.0);
    assert_eq!(value("herd_request_phase_seconds_count{pool=\"default\",phase=\"send\"}"), 4.0);
    assert_eq!(value("herd_acquire_wait_seconds_count{pool=\"default\"}"), 1.0, "of one session that was not live");
    assert!(value("herd_spawn_seconds_count{pool=\"default\"}") >= 1.0);
    assert!(value("herd_spawn_seconds_sum{pool=\"default\"}") > 0.0);
    assert_eq!(value("herd_sessions{pool=\"default\"}"), 1.0);
    assert_eq!(value("herd_queue_depth{pool=\"default\"}"), 0.0);
}

#[test]
fn what_workers_use_is_summed_up_and_stays_counted_when_they_end() {
    let daemon = Daemon::repl();
    eval(daemon.gateway, "alice", "let sum = 0; for i in 0..200000 { sum += i } sum");
    let cpu_time = "herd_pool_cpu_seconds_total{pool=\"default\"}";
    eventually(|| sample(&daemon, cpu_time).is_some_and(|seconds| seconds > 0.0));
    assert!(sample(&daemon, "herd_pool_memory_bytes{pool=\"default\"}").unwrap() > 1e5);
    let before = sample(&daemon, cpu_time).unwrap();
    let started = sample(&daemon, "herd_worker_exits_total{pool=\"default\",reason=\"closed\"}").unwrap_or(0.0);
    assert!(daemon.command(&["end", "alice"]).status.success());
    eventually(|| {
        sample(&daemon, "herd_worker_exits_total{pool=\"default\",reason=\"closed\"}").is_some_and(|n| n > started)
    });
    assert!(sample(&daemon, cpu_time).unwrap() >= before);
}

#[test]
fn the_daemons_own_process_is_told_in_prometheus_names() {
    let daemon = Daemon::repl();
    for name in [
        "process_cpu_seconds_total",
        "process_resident_memory_bytes",
        "process_open_fds",
        "process_max_fds",
        "process_start_time_seconds",
    ] {
        assert!(sample(&daemon, name).is_some_and(|value| value > 0.0), "{name}");
    }
    assert_eq!(sample(&daemon, "herd_last_reload_successful"), Some(1.0));
    assert!(!daemon.command(&["reload"]).status.success(), "there is no file to read again");
    assert_eq!(sample(&daemon, "herd_reloads_total{outcome=\"failed\"}"), Some(1.0));
    assert_eq!(sample(&daemon, "herd_last_reload_successful"), Some(0.0));
}

#[test]
fn the_gateways_page_has_the_same_numbers() {
    let daemon = Daemon::repl();
    let page = request(daemon.gateway, "GET", "/metrics", &[]).body;
    let names =
        |page: &str| page.lines().filter(|line| line.starts_with("# TYPE")).map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(names(&page), names(&get(daemon.admin, "/metrics").body));
}
