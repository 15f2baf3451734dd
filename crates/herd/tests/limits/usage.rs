use serde_json::Value;

use crate::{
    client::{eval, get},
    daemon::eventually,
    delegated::{daemon, herd_in_cgroup},
};

pub(crate) fn what_a_worker_uses_is_in_the_admin_api_and_the_metrics() {
    let daemon =
        daemon("resources: {memory_limit_mb: 256, cpu_limit_cores: 2, pids_limit: 50, min_workers: 0, spare: 0}\n");
    // Some 30 MB that are let go of again, so that the peak is above what is used now.
    let script =
        "let s = \"x\"; while s.len() < 500000 { s += s } let m = #{}; for n in 0..40 { m[`${n}`] = s + n } m = (); 1";
    assert_eq!(eval(daemon.gateway, "alice", script).body, "1");
    let worker = daemon.page("/v1/workers")["items"][0].clone();
    let number = |name: &str| worker[name].as_u64().unwrap_or_else(|| panic!("{name}: {worker}"));
    assert!(number("cpu_time_ms") > 0, "{worker}");
    assert!(number("memory_peak_bytes") > 20 << 20 && number("memory_peak_bytes") <= 256 << 20, "{worker}");
    assert!(number("memory_bytes") > 1 << 20 && number("memory_bytes") <= number("memory_peak_bytes"), "{worker}");
    // The worker, its two threads at least, and init.
    assert!((3..20).contains(&number("pids")), "{worker}");
    assert_eq!(number("oom_kills"), 0, "{worker}");
    let limits = &worker["limits"];
    assert_eq!(
        (&limits["memory_bytes"], &limits["cpu_cores"], &limits["pids"]),
        (&(256 << 20).into(), &2.0.into(), &50.into())
    );

    // What comes late for one who asks is there for the next.
    let sample = |name: &str| {
        let metrics = get(daemon.admin, "/metrics").body;
        let name = format!("{name}{{pool=\"default\"}} ");
        metrics.lines().find_map(|line| line.strip_prefix(&name)?.parse::<f64>().ok())
    };
    for name in ["herd_pool_cpu_seconds_total", "herd_pool_memory_bytes", "herd_pool_pids"] {
        eventually(|| sample(name).is_some_and(|value| value > 0.0));
    }
    let metrics = get(daemon.admin, "/metrics").body;
    assert!(!metrics.contains("alice"));
}

pub(crate) fn the_doctor_says_that_limits_can_be_had() {
    let directory = tempfile::tempdir().unwrap();
    let told = herd_in_cgroup(&["doctor", "--json"], directory.path()).output().unwrap();
    let told: Value = serde_json::from_slice(&told.stdout).unwrap();
    for limit in ["memory", "cpu", "pids"] {
        assert_eq!(told["limits"][limit], "cgroup v2", "{told}");
    }
    let layer = told["layers"].as_array().unwrap().iter().find(|layer| layer["layer"] == "cgroup limits").unwrap();
    assert_eq!(layer["available"], true, "{told}");
}
