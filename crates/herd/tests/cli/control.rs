use std::{
    fs,
    os::unix::{
        fs::{FileTypeExt as _, PermissionsExt as _},
        net::UnixListener,
    },
};

use rustix::process::Signal;
use tempfile::TempDir;

use crate::{
    client::eval,
    daemon::{Daemon, failure, herd, output},
};

/// Flags of a daemon that needs nothing from the system but a control socket.
const QUIET: [&str; 6] = ["--listen", "127.0.0.1:0", "--admin", "off", "--log-format", "json"];

fn daemon_in(directory: TempDir, runtime_dir: &std::path::Path, socket: &str) -> Daemon {
    let socket = runtime_dir.join("herd").join(socket);
    Daemon::spawn(herd(&QUIET, runtime_dir), socket, directory)
}

#[test]
fn a_stale_socket_is_replaced_a_live_one_is_refused_and_a_file_is_left_alone() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("a.sock");
    let flags = ["--control-socket", path.to_str().unwrap()];
    drop(UnixListener::bind(&path).unwrap());
    let daemon = Daemon::spawn(herd(&[&QUIET[..], &flags].concat(), directory.path()), path.clone(), directory);
    assert!(daemon.command(&["ps"]).status.success());
    let metadata = fs::metadata(&path).unwrap();
    assert!(metadata.file_type().is_socket());
    assert_eq!(metadata.permissions().mode() & 0o777, 0o600);

    let said = failure(&[&QUIET[..], &flags].concat(), 1);
    assert!(said.contains("a daemon already answers on the control socket"), "{said}");
    assert!(daemon.command(&["ps"]).status.success(), "the first one is not disturbed");

    let file = daemon.directory().join("file");
    fs::write(&file, "precious").unwrap();
    let said = failure(&[&QUIET[..], &["--control-socket", file.to_str().unwrap()]].concat(), 1);
    assert!(said.contains("is no socket, so it is left alone"), "{said}");
    assert_eq!(fs::read_to_string(&file).unwrap(), "precious");
}

#[test]
fn a_socket_in_a_missing_directory_or_with_a_long_path_is_an_error_with_the_remedy() {
    let said = failure(&[&QUIET[..], &["--control-socket", "/nowhere/at/all/herd.sock"]].concat(), 1);
    assert!(said.contains("the directory of the control socket /nowhere/at/all/herd.sock does not exist; make it"));
    let long = format!("/tmp/{}", "x".repeat(110));
    let said = failure(&[&QUIET[..], &["--control-socket", &long]].concat(), 2);
    assert!(said.contains("has 115 bytes, and the kernel takes 107 for a socket"), "{said}");
}

#[test]
fn the_default_directory_is_made_for_the_user_alone() {
    let runtime = TempDir::new().unwrap();
    let path = runtime.path().to_owned();
    let daemon = daemon_in(runtime, &path, "herd.sock");
    assert_eq!(fs::metadata(path.join("herd")).unwrap().permissions().mode() & 0o777, 0o700);
    assert!(daemon.socket.exists());
    // Found without being named.
    assert!(output(&["ps"], &path).status.success());
}

#[test]
fn a_default_directory_that_others_can_write_is_not_trusted() {
    let runtime = TempDir::new().unwrap();
    let directory = runtime.path().join("herd");
    fs::create_dir(&directory).unwrap();
    fs::set_permissions(&directory, fs::Permissions::from_mode(0o777)).unwrap();
    let refused = output(&QUIET, runtime.path());
    let said = String::from_utf8(refused.stderr).unwrap();
    assert_eq!(refused.status.code(), Some(1), "{said}");
    assert!(said.contains("can be written by others (mode 777)"), "{said}");
}

#[test]
fn of_several_daemons_one_is_to_be_chosen() {
    let runtime = TempDir::new().unwrap();
    let path = runtime.path().to_owned();
    let first = daemon_in(runtime, &path, "herd.sock");
    let mut second = daemon_in(TempDir::new().unwrap(), &path, "");
    second.socket = path.join("herd").join(format!("herd-{}.sock", second.gateway.port()));
    assert!(second.socket.exists(), "a second daemon has the port in its socket's name");
    eval(second.gateway, "alice", "1");

    let asked = output(&["ps"], &path);
    let said = String::from_utf8(asked.stderr).unwrap();
    assert_eq!(asked.status.code(), Some(1), "{said}");
    assert!(said.contains("several daemons run; choose one with --socket"), "{said}");
    assert!(said.contains(first.socket.to_str().unwrap()) && said.contains(second.socket.to_str().unwrap()), "{said}");
    let listed = String::from_utf8(second.command(&["ps"]).stdout).unwrap();
    assert!(listed.contains("alice"), "{listed}");
    let by_variable = herd(&["ps"], &path).env("HERD_SOCKET", &second.socket).output().unwrap();
    assert!(String::from_utf8(by_variable.stdout).unwrap().contains("alice"));

    second.signal(Signal::TERM);
    second.wait();
    assert!(output(&["ps"], &path).status.success(), "one is left, and needs no name");
}

#[test]
fn the_socket_of_a_daemon_that_was_killed_is_replaced_also_where_its_path_is_as_long_as_can_be() {
    let directory = TempDir::new().unwrap();
    let name = "x".repeat(107 - directory.path().as_os_str().len() - 1);
    let path = directory.path().join(name);
    assert_eq!(path.as_os_str().len(), 107);
    let flags = [&QUIET[..], &["--control-socket", path.to_str().unwrap()]].concat();
    let mut first = Daemon::spawn(herd(&flags, directory.path()), path.clone(), TempDir::new().unwrap());
    first.signal(Signal::KILL);
    first.wait();
    assert!(path.exists(), "nobody was left to remove it");
    let second = Daemon::spawn(herd(&flags, directory.path()), path.clone(), directory);
    assert!(second.command(&["ps"]).status.success());
}

#[test]
fn a_daemon_whose_sockets_file_was_removed_is_found_again() {
    let runtime = TempDir::new().unwrap();
    let mut daemon = daemon_in(TempDir::new().unwrap(), runtime.path(), "herd.sock");
    eval(daemon.gateway, "alice", "1");
    // With its directory, as who tidies up would do it.
    fs::remove_dir_all(runtime.path().join("herd")).unwrap();
    let said = daemon.log_line(|line| line["message"].as_str().is_some_and(|said| said.contains("it was made anew")));
    assert_eq!(said["level"], "WARN", "{said}");
    let listed = String::from_utf8(output(&["ps"], runtime.path()).stdout).unwrap();
    assert!(listed.contains("alice"), "{listed}");
    daemon.signal(Signal::TERM);
    daemon.wait();
    assert!(!daemon.socket.exists(), "it goes with the daemon all the same");
}
