//! Where this host forbids user namespaces, to a user without any privilege.

use std::process::{Command, Stdio};

use herd_pool::Worker as _;
use herd_process::{Layer, Listen, Mode, Readiness};
use rustix::process::geteuid;

use crate::fixture::{get, patiently, sandboxed_role, shell, start};

/// Runs one of the tests below as on such a host.
fn without_user_namespaces(test: &str) {
    let home = tempfile::tempdir().expect("a directory");
    // One user namespace says how many may be made in it, and the one that this uses up has no capability left to say
    // anything else.
    let map = "unshare --user --map-user=1000 --map-group=1000";
    let script = format!("echo 1 > /proc/sys/user/max_user_namespaces && exec {map} \"$@\"");
    let mut again = Command::new("unshare");
    again.args(["--user", "--map-root-user", "sh", "-c", &script, "sh"]);
    again.arg(std::env::current_exe().expect("this binary")).args(["fallback", test]);
    again.stdin(Stdio::null()).env("XDG_RUNTIME_DIR", home.path());
    let output = again.output().expect("unshare is installed (Debian package util-linux)");
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "{}: {said}", output.status);
}

/// Runs one of the tests below as root of a container that knows no user but root.
fn in_a_small_container(test: &str) {
    let mut again = Command::new("unshare");
    again.args(["--user", "--map-root-user"]).arg(std::env::current_exe().expect("this binary"));
    let output = again.args(["fallback", test]).stdin(Stdio::null()).output();
    let output = output.expect("unshare is installed (Debian package util-linux)");
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "{}: {said}", output.status);
}

/// What the process does that is run so.
pub(crate) async fn run(test: &str) {
    assert_eq!(geteuid().is_root(), test == "container");
    match test {
        "container" => started_by_a_root_that_knows_no_other_user().await,
        "required" => refused(),
        "best-effort" => started_with_what_can_be_had().await,
        _ => panic!("no such test: {test}"),
    }
}

pub(crate) async fn what_is_required_and_cannot_be_had_is_refused_with_the_remedy() {
    let run = tokio::task::spawn_blocking(|| without_user_namespaces("required"));
    patiently(run).await.expect("it passes");
}

pub(crate) async fn at_best_effort_workers_run_and_what_is_missing_is_told() {
    let run = tokio::task::spawn_blocking(|| without_user_namespaces("best-effort"));
    patiently(run).await.expect("it passes");
}

pub(crate) async fn a_root_that_knows_no_other_user_says_so() {
    let run = tokio::task::spawn_blocking(|| in_a_small_container("container"));
    patiently(run).await.expect("it passes");
}

async fn started_by_a_root_that_knows_no_other_user() {
    let error = sandboxed_role(&["serve"]).build().expect_err("it cannot be had").to_string();
    assert!(error.contains("uid_range: this user namespace does not know all users from 2100000000"), "{error}");
    let base = tempfile::tempdir().expect("a directory");
    let options = sandboxed_role(&["serve"]).sandbox(Mode::BestEffort).state_dir(base.path());
    let worker = start(options).await;
    let missing = worker.missing().iter().find(|missing| missing.layer == Layer::Identity).expect("it is told");
    assert!(missing.obstacle.remedy.contains("uid_range"), "{missing}");
    assert!(worker.layers().contains(&Layer::Files), "{:?}", worker.layers());
    assert_eq!(shell(&worker, "echo x > /workspace/x; cat /workspace/x").await, "x");
    patiently(worker.close()).await;
}

fn refused() {
    let error = sandboxed_role(&["serve"]).build().expect_err("it cannot be had");
    assert!(error.mistakes().iter().all(|mistake| mistake.option == "sandbox"), "{error}");
    let problem = |layer: Layer| {
        let found = error.mistakes().iter().find(|mistake| mistake.problem.starts_with(layer.name()));
        found.unwrap_or_else(|| panic!("{layer} is not named: {error}")).problem.as_str()
    };
    for layer in [Layer::UserNamespace, Layer::PidNamespace, Layer::Files, Layer::Network] {
        let problem = problem(layer);
        assert!(problem.contains("step 'user namespace' fails with No space left on device"), "{problem}");
        assert!(problem.contains("user.max_user_namespaces"), "{problem}");
    }
}

async fn started_with_what_can_be_had() {
    let best = |words: &[&str]| sandboxed_role(words).sandbox(Mode::BestEffort);
    let worker = start(best(&["serve"])).await;
    assert!(worker.layers().contains(&Layer::Seccomp), "{:?}", worker.layers());
    let missing: Vec<_> = worker.missing().iter().map(|missing| missing.layer).collect();
    for layer in [Layer::UserNamespace, Layer::PidNamespace, Layer::Files, Layer::Network] {
        assert!(missing.contains(&layer) && !worker.layers().contains(&layer), "{layer}");
    }
    // Without a network of its own it has a port of its own, and without a root of its own the host's paths.
    assert_ne!(worker.address(), "http://127.0.0.1:8000");
    assert_eq!(get(&worker, "/pid").await, worker.pid().to_string());
    let workspace = get(&worker, "/cwd").await;
    assert!(workspace.ends_with("/worker-1/workspace"), "{workspace}");
    assert_eq!(shell(&worker, "echo x > x; cat x").await, "x");
    patiently(worker.healthy()).await.expect("it is healthy");
    patiently(worker.close()).await;

    let worker = start(best(&["serve-socket", "{{.Socket}}"]).listen(Listen::Socket)).await;
    assert!(get(&worker, "/args").await.ends_with("/worker-1/run/socket"));
    let worker = start(best(&["notify", "READY=1"]).ready(Readiness::Notify)).await;
    patiently(worker.healthy()).await.expect("it is healthy");
    refuses_to_hide_what_would_be_seen();
}

/// What was asked for is done or refused: nothing can be mounted over a path here.
fn refuses_to_hide_what_would_be_seen() {
    let place = tempfile::tempdir().expect("a directory");
    let secret = place.path().join("secret");
    std::fs::write(&secret, "x").expect("a file");
    let best = || sandboxed_role(&["serve"]).sandbox(Mode::BestEffort);
    for options in [best().hidden("/usr/bin"), best().read_only(place.path()).hidden(&secret)] {
        let error = options.build().expect_err("it would be seen").to_string();
        assert!(error.starts_with("hidden[0]: ") && error.contains("a root of the worker's own"), "{error}");
    }
    let options = best().read_only(place.path()).state_dir(place.path().join("state"));
    let error = options.build().expect_err("it would be seen").to_string();
    assert!(error.starts_with("state_dir: ") && error.contains("which every worker sees"), "{error}");
    best().hidden(&secret).build().expect("Landlock closes it");
}
