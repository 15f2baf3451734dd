use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    process::{Command, Stdio},
};

use serde_json::Value;
use tempfile::TempDir;

use crate::{
    daemon::{Daemon, herd},
    sandbox::{file, said},
};

#[test]
fn an_argument_that_workers_do_not_see_is_told_at_start_and_by_the_doctor() {
    let (place, runtime) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    fs::set_permissions(place.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let directory = place.path().canonicalize().unwrap();
    let script = directory.join("server.py");
    fs::write(&script, "").unwrap();
    let script = script.to_str().unwrap();
    let here = directory.to_str().unwrap();
    let explained = |args: &[&str]| {
        let mut command = herd(&[&["doctor", "--explain"], args].concat(), runtime.path());
        let output = command.current_dir(&directory).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stderr).unwrap()
    };
    let unseen = format!("workers do not see {here}; show it with --cwd {here} or --read-only {here}");
    for arg in [here, &format!("--data={here}")] {
        assert_eq!(explained(&["--", "sh", arg]), format!("herd: warning: {unseen}\n"));
    }
    let begin =
        format!("workers do not see {script}: they begin in a workspace of their own; show it with --cwd {here}");
    assert_eq!(explained(&["--", "sh", "server.py"]), format!("herd: warning: {begin}\n"));
    for seen in ["/usr/bin/env", "/dev/null", "/etc/passwd", "/tmp", "elsewhere.py", "{{.Workspace}}", script] {
        assert_eq!(explained(&["--", "sh", seen]), "", "{seen}");
    }
    for shows in [format!("sandbox: {{read_only: [{here}]}}"), format!("worker: {{cwd: {here}}}")] {
        let (_directory, file) = file(&shows);
        assert_eq!(explained(&["--config", &file, "--", "sh", here]), "", "{shows}");
    }
    let (_directory, file) = file("");
    let said = explained(&["--config", &file, "--", "sh", here]);
    assert!(said.contains(&format!("show it with `cwd: {here}` in `worker` or `read_only: [{here}]`")), "{said}");

    let mut daemon = Daemon::run(&[], &["sh", "-c", "exec {{herd}} repl", here]);
    daemon.log_line(|line| line["level"] == "WARN" && line["message"] == unseen.as_str());
}

#[test]
fn relative_paths_of_flags_are_taken_from_the_current_directory() {
    let place = TempDir::new().unwrap();
    let directory = place.path().canonicalize().unwrap();
    fs::create_dir(directory.join("inner")).unwrap();
    let said = |flags: &[&str]| {
        let args = [&["run", "--listen", "127.0.0.1:0", "--admin", "off"], flags, &["--", "true"]].concat();
        let output = herd(&args, &directory).current_dir(directory.join("inner")).output().unwrap();
        assert!(!output.status.success(), "{output:?}");
        String::from_utf8(output.stderr).unwrap()
    };
    // Each shows more than it may, and says so of the path that it stands for.
    for flag in ["--cwd", "--read-only", "--writable"] {
        let expected = format!("{flag}: `{}` would show workers ", directory.display());
        let told = said(&[flag, ".."]);
        assert!(told.contains(&expected), "{told}");
    }
    let inner = directory.join("inner");
    let told = said(&["--read-only", "nowhere"]);
    assert!(told.contains(&format!("--read-only: {} cannot be shown", inner.join("nowhere").display())), "{told}");
    let told = said(&["--cwd", ".", "--hidden", "./"]);
    assert!(told.contains(&format!("--hidden: `{}` hides the working directory", inner.display())), "{told}");
}

/// What the program says to a user without any privilege on a host that forbids user namespaces.
fn said_without_namespaces(args: &[&str]) -> String {
    let runtime = TempDir::new().unwrap();
    // One user namespace says how many may be made in it, and the one that this uses up has no capability left to say
    // anything else.
    let map = "unshare --user --map-user=1000 --map-group=1000";
    let script = format!("echo 1 > /proc/sys/user/max_user_namespaces && exec {map} \"$@\"");
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "sh", "-c", &script, "sh", env!("CARGO_BIN_EXE_herd")]).args(args);
    let output = command.env("XDG_RUNTIME_DIR", runtime.path()).stdin(Stdio::null()).output();
    let output = output.expect("unshare is installed (Debian package util-linux)");
    String::from_utf8([output.stdout, output.stderr].concat()).unwrap()
}

#[test]
fn without_user_namespaces_the_doctor_names_all_that_is_missing_once_and_promises_nothing() {
    let text = said_without_namespaces(&["doctor"]);
    let line =
        text.lines().find(|line| line.starts_with("  no   user namespace, ")).unwrap_or_else(|| panic!("{text}"));
    for layer in ["PID namespace", "own root", "IPC namespace", "network namespace", "cgroup namespace"] {
        assert!(line.contains(layer), "{layer}: {text}");
        assert!(!text.contains(&format!("  yes  {layer}")), "{layer}: {text}");
    }
    assert!(text.contains("  -    own user: only root can give each worker"), "{text}");
    assert!(text.contains("  no   processes\n") && text.contains("  no   size of /tmp\n"), "{text}");
    // Once in the table, and once where it is told that the sandbox cannot be had.
    assert_eq!(text.matches("step 'user namespace' fails with ").count(), 2, "{text}");
}

#[test]
fn the_doctor_and_ps_say_which_limit_of_processes_there_is() {
    let limits: Value = serde_json::from_str(&said(&["doctor", "--json"])).unwrap();
    let (memory, pids) = (&limits["limits"]["memory"], limits["limits"]["pids"].as_str());
    let text = said(&["doctor"]);
    assert_eq!(text.contains("asking for one is refused"), memory.is_null(), "{text}");
    assert_eq!(text.contains("only the default of 100, by RLIMIT_NPROC"), memory.is_null() && pids.is_some(), "{text}");

    let mut daemon = Daemon::repl();
    if memory.is_null() {
        // Nobody asked for a limit, so that nothing is missing.
        daemon.log_line(|line| {
            let message = line["message"].as_str().unwrap_or_default();
            assert!(line["level"] == "INFO" || !message.contains("cgroup"), "{line}");
            message.starts_with("no limits of memory and CPU time are asked for")
        });
    }
    let kept = daemon.page("/v1/stats")["pools"][0]["sandbox"]["limits"]["pids"].as_u64();
    assert_eq!(kept.is_some(), pids.is_some());
    let listed = |daemon: &Daemon| String::from_utf8(daemon.command(&["ps"]).stdout).unwrap();
    assert_eq!(listed(&daemon).contains("\nno limit of processes\n"), kept.is_none());
    let unlimited = Daemon::run(&["--pids", "-1"], &["{{herd}}", "repl"]);
    assert!(listed(&unlimited).contains("\nno limit of processes\n"), "{}", listed(&unlimited));
}

#[test]
fn ps_says_of_an_address_that_it_is_in_a_network_of_the_workers_own() {
    let listed = |network| {
        let daemon = Daemon::run(&["--network", network], &["{{herd}}", "repl"]);
        daemon.page_when("/v1/workers", |workers| workers["items"][0]["address"].is_string());
        String::from_utf8(daemon.command(&["ps"]).stdout).unwrap()
    };
    let (private, host) = (listed("private"), listed("host"));
    assert!(private.contains("http://127.0.0.1:8000 (private)"), "{private}");
    assert!(host.contains("http://127.0.0.1:") && !host.contains("(private)"), "{host}");
}
