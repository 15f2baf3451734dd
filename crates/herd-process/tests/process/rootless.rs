//! The tests of the sandbox once more, by a user without any privilege.

use std::{
    env,
    os::unix::{fs::chown, process::CommandExt as _},
    process::{Command, ExitCode, Stdio},
};

use rustix::process::geteuid;

/// A user whom nobody on the host knows.
const USER: u32 = 2_100_070_000;

/// Runs one of the sandbox's tests as that user.
///
/// # Panics
/// If it fails.
pub(crate) fn as_user(test: &str) {
    let home = tempfile::tempdir().expect("a directory");
    let mut again = Command::new(env::current_exe().expect("this binary"));
    again.args(["as-user", test]).stdin(Stdio::null()).env("XDG_RUNTIME_DIR", home.path()).env("TMPDIR", home.path());
    if geteuid().is_root() {
        chown(home.path(), Some(USER), Some(USER)).expect("root may");
        again.uid(USER).gid(USER);
    }
    let output = again.output().expect("this binary can be run by every user: its directories let others pass");
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "{}: {said}", output.status);
}

/// What that user's process does.
pub(crate) fn run(test: &str) -> ExitCode {
    let found = crate::sealed_tests().into_iter().find(|(name, _)| *name == test);
    let (_, run) = found.expect("there is such a test");
    run();
    ExitCode::SUCCESS
}
