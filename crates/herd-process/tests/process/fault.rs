use std::{env, fs, os::unix::fs::PermissionsExt as _, path::Path, process::Stdio, time::Duration};

use herd_pool::{ExitStatus, Worker as _, WorkerFactory as _, WorkerId};
use herd_process::{ProcessFactory, StartError};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::fixture::{NEVER, PATIENCE, Roll, fail_to_start, patiently, role, script, start};

/// Long enough for a worker to show itself on a busy machine.
const SHORT: Duration = Duration::from_secs(2);

pub(crate) async fn a_program_that_does_not_exist_is_named() {
    for program in ["/nowhere/worker", "no-such-program-anywhere"] {
        let failure = fail_to_start(ProcessFactory::new(program).insecure_sandbox()).await;
        assert!(matches!(failure.reason(), StartError::Failed { .. }), "{:?}", failure.reason());
        assert!(failure.text().contains(program), "{}", failure.text());
    }
}

pub(crate) async fn a_program_that_is_not_executable_is_named() {
    let file = tempfile::NamedTempFile::new().expect("a file");
    fs::set_permissions(file.path(), fs::Permissions::from_mode(0o644)).expect("it is ours");
    let failure = fail_to_start(ProcessFactory::new(file.path()).insecure_sandbox()).await;
    assert!(matches!(failure.reason(), StartError::Failed { .. }), "{:?}", failure.reason());
    assert!(failure.text().contains("ermission denied"), "{}", failure.text());
}

pub(crate) async fn a_working_directory_that_does_not_exist_is_told() {
    let failure = fail_to_start(role(&["serve"]).cwd("/nowhere")).await;
    assert!(failure.text().contains("/nowhere"), "{}", failure.text());
}

pub(crate) async fn an_exit_during_the_start_fails_it_at_once_with_the_last_words() {
    let failure = fail_to_start(role(&["exit", "3", "cannot open the database", "giving up"])).await;
    let StartError::Exited { status, stderr_tail, .. } = failure.reason() else { panic!("{:?}", failure.reason()) };
    assert_eq!(*status, ExitStatus::Code(3));
    assert_eq!(**stderr_tail, ["cannot open the database", "giving up"]);
    let expected =
        "exit code 3 before it was ready; its stderr ended with \"cannot open the database\" / \"giving up\"";
    assert!(failure.text().contains(expected), "{}", failure.text());
}

pub(crate) async fn a_crash_during_the_start_tells_the_signal() {
    let failure = fail_to_start(role(&["abort"])).await;
    assert!(failure.text().contains("signal 6"), "{}", failure.text());
}

pub(crate) async fn a_worker_that_never_listens_is_given_up_after_the_timeout() {
    let roll = Roll::new();
    let options = role(&["sleep"]).env("ROLL", roll.path()).start_timeout(SHORT);
    let failure = fail_to_start(options).await;
    roll.next().await.gone().await;
    let StartError::TimedOut { after, waited_for, last_seen, .. } = failure.reason() else {
        panic!("{:?}", failure.reason())
    };
    assert_eq!((*after, &**waited_for, &**last_seen), (SHORT, "a 2xx answer to GET /health", "connection refused"));
}

pub(crate) async fn a_worker_that_answers_503_is_given_up_and_told() {
    let failure = fail_to_start(role(&["status", "503"]).start_timeout(SHORT)).await;
    assert!(failure.text().contains("last saw status 503"), "{}", failure.text());
}

pub(crate) async fn a_worker_without_the_health_path_is_given_up_with_a_remedy() {
    let failure = fail_to_start(role(&["status", "404"]).start_timeout(SHORT)).await;
    let expected = "last saw status 404 (name another path with health_path / --health-path, or use ready: tcp)";
    assert!(failure.text().contains(expected), "{}", failure.text());
}

pub(crate) async fn garbage_on_the_health_path_is_told() {
    let failure = fail_to_start(role(&["garbage"]).start_timeout(SHORT)).await;
    assert!(failure.text().contains("last saw no HTTP answer: "), "{}", failure.text());
}

pub(crate) async fn a_worker_that_never_answers_is_told() {
    let failure = fail_to_start(role(&["mute"]).start_timeout(SHORT)).await;
    assert!(failure.text().contains("last saw a connection, but no answer yet"), "{}", failure.text());
}

pub(crate) async fn a_program_that_is_no_init_is_found_out() {
    let failure = fail_to_start(role(&["serve"]).init_program("/bin/true")).await;
    assert!(failure.text().contains("enter_init"), "{}", failure.text());
}

pub(crate) async fn an_init_that_talks_nonsense_has_ended_when_the_spawn_fails() {
    let helper = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/process/babbling-init.sh");
    let failure = fail_to_start(role(&["serve"]).init_program(&helper)).await;
    assert!(matches!(failure.reason(), StartError::Failed { .. }), "{}", failure.text());
    let running = fs::read_dir("/proc").expect("/proc is there").flatten().filter(|process| {
        let command = fs::read(process.path().join("cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&command).contains(helper.to_str().expect("a path in UTF-8"))
    });
    assert_eq!(running.count(), 0, "it still runs");
}

pub(crate) async fn a_dropped_spawn_leaves_no_process() {
    let roll = Roll::new();
    let factory = role(&["sleep"]).env("ROLL", roll.path()).build().expect("the options are valid");
    let process = tokio::select! {
        _ = factory.spawn(WorkerId::new(1)) => panic!("it never gets ready"),
        process = roll.next() => process,
    };
    process.gone().await;
    patiently(factory.none_left()).await;
}

pub(crate) async fn a_spawn_dropped_at_any_moment_leaves_no_process() {
    let roll = Roll::new();
    let text = r#"(setsid "$0" worker sleep & ); exec "$0" worker sleep"#;
    let factory = script(text).env("ROLL", roll.path()).build().expect("the options are valid");
    for step in 0..40 {
        let spawn = factory.spawn(WorkerId::new(step));
        assert!(tokio::time::timeout(Duration::from_micros(250 * step), spawn).await.is_err());
    }
    patiently(factory.none_left()).await;
    roll.all_gone().await;
}

/// In a process of its own, since the limit holds for a whole process.
pub(crate) async fn running_out_of_descriptors_fails_that_spawn_alone() {
    let exe = env::current_exe().expect("this binary");
    let daemon = tokio::task::spawn_blocking(|| {
        std::process::Command::new(exe).arg("out-of-descriptors").stdin(Stdio::null()).output().expect("a process")
    });
    let output = patiently(daemon).await.expect("no panic");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Starts workers until there are no descriptors left, which must harm nobody else.
pub(crate) async fn run_out_of_descriptors() {
    let first = start(role(&["serve"])).await;
    let factory = role(&["serve"]).build().expect("the options are valid");
    let open = fs::read_dir("/proc/self/fd").expect("/proc is there").count() as u64;
    let hard = getrlimit(Resource::Nofile).maximum;
    let mut failures = Vec::new();
    // Whatever the step at which there is none left.
    for spare in 0..24 {
        setrlimit(Resource::Nofile, Rlimit { current: Some(open + spare), maximum: hard }).expect("it is lowered");
        match tokio::time::timeout(PATIENCE, factory.spawn(WorkerId::new(spare))).await.expect("it does not hang") {
            Ok(worker) => worker.kill().await,
            Err(error) => failures.push(error.to_string()),
        }
        tokio::time::timeout(PATIENCE, factory.none_left()).await.expect("nothing is left of it");
    }
    assert!(failures.len() > 3, "{failures:?}");
    setrlimit(Resource::Nofile, Rlimit { current: Some(NEVER.as_secs()), maximum: hard }).expect("it is raised");
    patiently(first.healthy()).await.expect("it was left alone");
    let worker = patiently(factory.spawn(WorkerId::new(100))).await.expect("there are descriptors again");
    worker.kill().await;
}
