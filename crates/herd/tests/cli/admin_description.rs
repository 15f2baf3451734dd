//! The description of the admin API, held against a daemon that runs.

use std::{
    env, fs,
    path::Path,
    process::{Command, Stdio},
};

use crate::{
    client::{get, request},
    daemon::Daemon,
    sandbox::file,
};

/// Few workers, and each new session may end an old one, so that none waits for long.
const SMALL: &str = "resources: { min_workers: 1, max_workers: 4, spare: 1, when_full: evict-idle }\n";

/// Every check that schemathesis has, of the description and of what it makes of it: examples, bounds, random and broken
/// requests, and requests that follow from answers. The streams of events are left out: they have no end.
#[test]
fn the_api_does_what_its_description_says() {
    let python = env::var_os("HERD_TEST_CHECKERS")
        .expect("HERD_TEST_CHECKERS is not set; run this test with: cargo xtask test -- NAME");
    let (directory, config) = file(SMALL);
    let daemon = Daemon::serve(&["--config", &config]);
    let settings = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/schemathesis.toml");
    let mut schemathesis = Command::new(Path::new(&python).with_file_name("schemathesis"));
    schemathesis
        .args(["--config-file", settings, "run", "--checks", "all", "--no-color"])
        .args(["--max-time", "45", "--request-timeout", "20", "--phases", "examples,coverage,fuzzing,stateful"])
        .arg(format!("http://{}/openapi.json", daemon.admin))
        // It would keep what it found beside the sources.
        .current_dir(directory.path())
        .stdin(Stdio::null());
    let output = schemathesis.output().unwrap();
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{told}\n{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(get(daemon.admin, "/healthz").status, 200);
    assert!(!daemon.page("/v1/workers")["items"].as_array().unwrap().is_empty(), "the daemon is still well");
}

#[test]
fn the_description_names_every_page_and_method() {
    let daemon = Daemon::repl();
    let description = daemon.page("/openapi.json");
    assert_eq!(description["openapi"], "3.1.0");
    let paths = description["paths"].as_object().unwrap();
    let named: Vec<_> = paths.keys().map(String::as_str).collect();
    let pages = [
        "/healthz",
        "/metrics",
        "/readyz",
        "/v1/events",
        "/v1/gateway",
        "/v1/live",
        "/v1/pools",
        "/v1/pools/{name}",
        "/v1/reload",
        "/v1/sessions",
        "/v1/sessions/{id}",
        "/v1/stats",
        "/v1/workers",
        "/v1/workers/{id}",
        "/v1/workers/{id}/logs",
    ];
    assert_eq!(named, pages);
    for (path, item) in paths {
        let mut allowed: Vec<_> = item.as_object().unwrap().keys().map(|method| method.to_uppercase()).collect();
        allowed.extend(allowed.contains(&"GET".to_owned()).then(|| "HEAD".to_owned()));
        allowed.sort();
        let refused = request(daemon.admin, "PATCH", &path.replace(['{', '}'], ""), &[]);
        let mut told: Vec<_> = refused.field("allow").unwrap().split(',').map(str::to_owned).collect();
        told.sort();
        assert_eq!((refused.status, told), (405, allowed), "{path}");
    }
    let unused = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/admin-api.md")).unwrap();
    for page in pages {
        assert!(unused.contains(page), "the documentation says nothing of {page}");
    }
}
