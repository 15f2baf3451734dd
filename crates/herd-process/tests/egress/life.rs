//! Pasta is there for as long as its worker, and the other way round.

use std::{
    env,
    fs::Permissions,
    io::{BufRead as _, BufReader, Write as _},
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use herd_pool::{Worker as _, WorkerFactory as _, WorkerId};
use rustix::process::{Pid, Signal, kill_process};
use tokio::time::timeout;

use crate::fixture::{end_of, factory, pastas, patiently, start, the_pasta};

pub(crate) async fn pasta_ends_with_its_worker() {
    let worker = start(&[]).await;
    let pasta = the_pasta().await;
    let end = end_of(pasta);
    patiently(worker.kill()).await;
    assert_eq!(pastas(), [0; 0], "it has ended already");
    end.await;
}

pub(crate) async fn pasta_ends_with_a_daemon_that_is_killed() {
    let mut daemon = Command::new(env::current_exe().expect("this binary"));
    // It ends with its standard input, should this test not get as far as to kill it.
    daemon.arg("daemon").stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut daemon = daemon.spawn().expect("this binary runs");
    let mut line = String::new();
    let said = daemon.stdout.take().expect("a pipe");
    BufReader::new(said).read_line(&mut line).expect("it speaks");
    let pasta = line.trim_end().parse().expect("one process");
    let end = end_of(pasta);
    daemon.kill().expect("it runs");
    daemon.wait().expect("it is a child");
    end.await;
}

pub(crate) async fn a_worker_ends_with_its_pasta() {
    let worker = start(&[]).await;
    let pasta = the_pasta().await;
    let pasta = Pid::from_raw(pasta.cast_signed()).expect("not 0");
    kill_process(pasta, Signal::KILL).expect("it runs");
    patiently(worker.exited()).await;
    patiently(worker.close()).await;
}

pub(crate) async fn a_dropped_spawn_leaves_no_pasta() {
    let factory = factory(&[]).build().expect("the sandbox can be had");
    for milliseconds in [0, 5, 10, 15, 20, 30, 40, 60] {
        let spawned = timeout(Duration::from_millis(milliseconds), factory.spawn(WorkerId::new(milliseconds))).await;
        drop(spawned);
        patiently(factory.none_left()).await;
        assert_eq!(pastas(), [0; 0], "after {milliseconds} ms");
    }
}

pub(crate) async fn a_pasta_that_cannot_begin_is_told() {
    let mut pasta = tempfile::Builder::new().permissions(Permissions::from_mode(0o755)).tempfile().expect("a file");
    writeln!(pasta, "#!/bin/sh\necho 'it is not my day' >&2\nexit 3").expect("it can be written");
    // A file that is open for writing cannot be executed.
    let pasta = pasta.into_temp_path();
    let said = with_pasta(&pasta, "spawn");
    assert!(said.contains("step 'outlet' failed: pasta ended with exit status: 3: it is not my day"), "{said}");
}

pub(crate) async fn without_pasta_no_worker_is_promised_a_way_out() {
    let said = with_pasta(Path::new("/dev/null"), "build");
    assert!(
        said.contains("egress: step 'outlet' fails: there is no program pasta; install the package passt"),
        "{said}"
    );
}

/// What this binary says in a role, where this file is found as pasta.
fn with_pasta(file: &Path, role: &str) -> String {
    let script = r#"mount --bind "$0" "$(command -v pasta)" && exec "$1" "$2""#;
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "--", "sh", "-c", script]).arg(file);
    let output = command.arg(env::current_exe().expect("this binary")).arg(role).stdin(Stdio::null()).output();
    let output = output.expect("unshare: install the package util-linux");
    String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
}
