use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use herd_sandbox::{Failure, Init, LaunchError, Spec};
use rustix::{
    io::Errno,
    process::{Resource, geteuid, getrlimit},
};
use tempfile::TempDir;

use crate::{
    sealed::sealed,
    stage::{command, failure, gone, launch, marked, script, this_program, write_program},
};

fn fails(spec: Spec) -> Failure {
    let init = launch(spec);
    let failure = failure(&init);
    gone(&init);
    failure
}

fn assert_failure(failure: &Failure, step: &str, errno: Errno, words: &[&str]) {
    assert_eq!((failure.step.as_str(), failure.errno), (step, Some(errno.raw_os_error())), "{failure}");
    for word in words {
        assert!(failure.hint.contains(word), "{word:?} is missing in: {failure}");
    }
}

fn file(text: &str, mode: u32) -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("program");
    write_program(&path, text, mode);
    (directory, path)
}

fn spec(path: &Path) -> Spec {
    Spec::new(path)
}

pub(crate) fn a_missing_program_is_named() {
    let failure = fails(command("/nonexistent/herd-program", &[]));
    assert_failure(&failure, "exec", Errno::NOENT, &["there is no file /nonexistent/herd-program"]);
    let failure = fails(command("herd-no-such-program", &[]));
    assert_failure(&failure, "exec", Errno::NOENT, &["herd-no-such-program", "PATH=/usr/local/sbin:"]);
}

pub(crate) fn a_program_that_is_not_executable_is_named() {
    let (_directory, path) = file("#!/bin/sh\n", 0o644);
    let failure = fails(spec(&path));
    assert_failure(&failure, "exec", Errno::ACCESS, &["program is not executable", "execute permission"]);

    // A pipe as a program must not make anybody wait for a writer.
    let directory = tempfile::tempdir().expect("a directory");
    let fifo = directory.path().join("fifo");
    rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, rustix::fs::Mode::RWXU).expect("a named pipe");
    assert_failure(&fails(spec(&fifo)), "exec", Errno::ACCESS, &["fifo"]);
}

pub(crate) fn a_directory_is_no_program() {
    let directory = tempfile::tempdir().expect("a directory");
    assert_failure(&fails(spec(directory.path())), "exec", Errno::ISDIR, &["is a directory"]);
}

pub(crate) fn a_missing_interpreter_is_named() {
    let (_directory, path) = file("#! /nonexistent/interpreter -x\necho\n", 0o755);
    assert_failure(&fails(spec(&path)), "exec", Errno::NOENT, &["exists", "the interpreter /nonexistent/interpreter "]);
    let (_directory, path) = file("#!/etc\n", 0o755);
    assert_failure(&fails(spec(&path)), "exec", Errno::ACCESS, &["the interpreter /etc "]);
}

pub(crate) fn a_file_without_a_format_is_named() {
    let (_directory, path) = file("echo no first line\n", 0o755);
    assert_failure(&fails(spec(&path)), "exec", Errno::NOEXEC, &["#!"]);
    let (_directory, path) = file("", 0o755);
    assert_failure(&fails(spec(&path)), "exec", Errno::NOEXEC, &["#!"]);
}

pub(crate) fn a_missing_directory_is_named() {
    let mut spec = command("true", &[]);
    spec.cwd = Some("/nonexistent/directory".into());
    assert_failure(&fails(spec), "working directory", Errno::NOENT, &["/nonexistent/directory"]);
}

pub(crate) fn a_directory_that_the_workers_user_may_not_enter_names_the_user() {
    let directory = tempfile::tempdir().expect("a directory");
    // Not even its owner may, so that it makes no difference who runs this.
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o600)).expect("it is ours");
    let mut spec = sealed(command("true", &[]));
    spec.isolation.files.read_only.push(directory.path().to_owned());
    spec.cwd = Some(directory.path().to_owned());
    let user = spec.isolation.identity.as_ref().map_or(geteuid().as_raw(), |identity| identity.uid);
    let path = directory.path().to_str().expect("UTF-8");
    let who = format!("the worker's user (uid {user}) needs execute permission on it and on all directories above");
    assert_failure(&fails(spec), "working directory", Errno::ACCESS, &[path, &who]);
}

pub(crate) fn too_long_arguments_are_named() {
    // One text may have 128 KiB, see execve(2).
    let failure = fails(command("true", &[&"x".repeat(200_000)]));
    assert_failure(&failure, "exec", Errno::TOOBIG, &["larger than the kernel takes"]);
}

pub(crate) fn a_limit_beyond_the_hard_limit_is_named() {
    // Beyond what even root may have: /proc/sys/fs/nr_open.
    let mut spec = command("true", &[]);
    spec.open_files = u64::MAX / 2;
    let hard = getrlimit(Resource::Nofile).maximum.expect("a limit of descriptors is always finite").to_string();
    assert_failure(&fails(spec), "open files", Errno::PERM, &["hard limit", &hard]);
}

pub(crate) fn a_helper_that_is_no_init_is_reported() {
    let init = Init::launch_with("/bin/true", command("true", &[])).expect("it starts");
    let failure = failure(&init);
    assert_eq!(failure.step, "init");
    assert!(failure.hint.contains("/bin/true") && failure.hint.contains("herd_sandbox::enter_init()"), "{failure}");
    assert!(matches!(init.recv(), Ok(None)));
    assert!(init.reap().is_ok());
}

pub(crate) fn a_helper_that_does_not_exist_is_reported() {
    let error = Init::launch_with("/nonexistent/helper", command("true", &[])).expect_err("there is none");
    assert!(
        matches!(&error, LaunchError::Spawn { source, .. } if source.kind() == std::io::ErrorKind::NotFound),
        "{error}"
    );
    // And one that is an init serves.
    let init = Init::launch_with(this_program(), script("exit 4")).expect("it starts");
    crate::stage::ready(&init);
    assert_eq!(crate::stage::exited(&init).0.code(), Some(4));
    gone(&init);
}

pub(crate) fn a_failed_start_leaves_nothing() {
    let mark = crate::stage::mark();
    let mut spec = command("/nonexistent/program", &[]);
    spec.env.push((crate::stage::MARK.into(), mark.clone().into()));
    let (reader, writer) = std::io::pipe().expect("a pipe");
    spec.stdout = Some(writer.into());
    fails(spec);
    assert_eq!(crate::stage::Lines::new(reader.into()).rest(), "");
    assert_eq!(marked(&mark), []);
}
