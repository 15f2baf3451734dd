//! What a service manager is told, and the sockets that it passes on.

use std::{
    fs,
    io::ErrorKind,
    os::{
        linux::net::SocketAddrExt as _,
        unix::{
            fs::{MetadataExt as _, PermissionsExt as _},
            net::{SocketAddr, UnixDatagram, UnixStream},
        },
    },
    path::Path,
    process::{Command, Output, Stdio},
    thread,
    time::Duration,
};

use rustix::{
    process::{Pid, Signal},
    time::{ClockId, clock_gettime},
};
use serde_json::Value;
use tempfile::TempDir;

use crate::{
    client::{PATIENCE, eval, get},
    daemon::{Daemon, eventually, herd, output},
};

/// A service manager that writes down what it hears.
struct Manager {
    socket: UnixDatagram,
    directory: TempDir,
}

impl Manager {
    fn new() -> Self {
        let directory = TempDir::new().unwrap();
        let socket = UnixDatagram::bind(directory.path().join("notify")).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { socket, directory }
    }

    fn address(&self) -> String {
        self.directory.path().join("notify").to_str().unwrap().to_owned()
    }

    /// The next message, or `None` if none comes in time.
    fn next(&self) -> Option<String> {
        let mut buffer = [0; 4096];
        match self.socket.recv(&mut buffer) {
            Ok(length) => Some(String::from_utf8(buffer[..length].to_vec()).unwrap()),
            Err(error) if error.kind() == ErrorKind::WouldBlock => None,
            Err(error) => panic!("{error}"),
        }
    }

    /// The lines of the next message that has this one.
    #[track_caller]
    fn hears(&self, line: &str) -> Vec<String> {
        loop {
            let message = self.next().unwrap_or_else(|| panic!("nobody says {line}"));
            let lines: Vec<_> = message.lines().map(str::to_owned).collect();
            if lines.iter().any(|found| found == line) {
                return lines;
            }
        }
    }
}

/// A daemon with these variables.
fn start(variables: &[(&str, &str)], flags: &[&str]) -> Daemon {
    let directory = TempDir::new().unwrap();
    let socket = directory.path().join("control.sock");
    let mut command = herd(&["serve", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"], directory.path());
    command.args(["--log-format", "json", "--control-socket"]).arg(&socket).args(flags);
    command.envs(variables.iter().copied());
    Daemon::spawn(command, socket, directory)
}

fn microseconds() -> i128 {
    let now = clock_gettime(ClockId::Monotonic);
    i128::from(now.tv_sec) * 1_000_000 + i128::from(now.tv_nsec) / 1000
}

/// The value of the line `NAME=value`.
#[track_caller]
fn value<'a>(lines: &'a [String], name: &str) -> &'a str {
    let value = lines.iter().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
    value.unwrap_or_else(|| panic!("no {name}: {lines:?}"))
}

#[test]
fn a_service_manager_hears_that_the_gateway_serves_reloads_and_stops() {
    let manager = Manager::new();
    let config = manager.directory.path().join("herd.yaml");
    fs::write(&config, "resources: {max_workers: 7}\n").unwrap();
    let variables = [("NOTIFY_SOCKET", manager.address())].map(|(name, text)| (name, text));
    let variables: Vec<_> = variables.iter().map(|(name, text)| (*name, text.as_str())).collect();
    let mut daemon = start(&variables, &["--config", config.to_str().unwrap()]);

    let ready = manager.hears("READY=1");
    assert!(value(&ready, "STATUS").ends_with(" of 7"), "{ready:?}");
    assert_eq!(eval(daemon.gateway, "alice", "1").status, 200);

    // Both a reload that is applied and one that is refused have an end.
    for text in ["resources: {max_workers: 8}\n", "nonsense: 1\n"] {
        let before = microseconds();
        fs::write(&config, text).unwrap();
        daemon.signal(Signal::HUP);
        let reloading = manager.hears("RELOADING=1");
        let told: i128 = value(&reloading, "MONOTONIC_USEC").parse().unwrap();
        assert!((before..=microseconds()).contains(&told), "{before} {told}");
        manager.hears("READY=1");
    }

    daemon.signal(Signal::TERM);
    let stopping = manager.hears("STOPPING=1");
    let extension: u64 = value(&stopping, "EXTEND_TIMEOUT_USEC").parse().unwrap();
    assert!(extension >= 10_000_000, "{stopping:?}");
    assert!(daemon.wait().success(), "{:?}", daemon.log);
}

#[test]
fn a_drain_that_takes_long_goes_on_asking_for_time() {
    let manager = Manager::new();
    // Without a watchdog it would be every five seconds.
    let daemon = start(&[("NOTIFY_SOCKET", &manager.address()), ("WATCHDOG_USEC", "200000")], &[]);
    let fields = [("x-session-id", "alice"), ("content-length", "5")];
    let _request = crate::client::Exchange::begin(daemon.gateway, "POST", "/eval", &fields);
    daemon.page_when("/v1/stats", |stats| stats["sessions"] == 1);
    daemon.signal(Signal::TERM);
    manager.hears("STOPPING=1");
    for _ in 0..3 {
        let lines = manager.hears("WATCHDOG=1");
        value(&lines, "EXTEND_TIMEOUT_USEC");
    }
}

#[test]
fn an_abstract_socket_is_told_as_well() {
    let name = format!("herd-test-{}-{}", std::process::id(), microseconds());
    let address = SocketAddr::from_abstract_name(&name).unwrap();
    let mut manager = Manager::new();
    manager.socket = UnixDatagram::bind_addr(&address).unwrap();
    manager.socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let _daemon = start(&[("NOTIFY_SOCKET", &format!("@{name}"))], &[]);
    manager.hears("READY=1");
}

#[test]
fn the_watchdog_is_fed_while_the_daemon_lives_and_starves_when_it_hangs() {
    let manager = Manager::new();
    let daemon = start(&[("NOTIFY_SOCKET", &manager.address()), ("WATCHDOG_USEC", "300000")], &[]);
    for _ in 0..4 {
        manager.hears("WATCHDOG=1");
    }
    daemon.signal(Signal::STOP);
    eventually(|| fs::read_to_string(format!("/proc/{}/stat", daemon.pid())).unwrap().contains(") T "));
    manager.socket.set_nonblocking(true).unwrap();
    while manager.next().is_some() {}
    manager.socket.set_nonblocking(false).unwrap();
    manager.socket.set_read_timeout(Some(Duration::from_millis(900))).unwrap();
    assert_eq!(manager.next(), None);
    daemon.signal(Signal::CONT);
    manager.socket.set_read_timeout(Some(PATIENCE)).unwrap();
    manager.hears("WATCHDOG=1");
}

#[test]
fn the_status_follows_the_sessions() {
    let manager = Manager::new();
    let daemon = start(&[("NOTIFY_SOCKET", &manager.address()), ("WATCHDOG_USEC", "200000")], &[]);
    eval(daemon.gateway, "alice", "1");
    loop {
        let message = manager.next().expect("the status does not change");
        if message.contains("sessions: 1,") {
            return;
        }
    }
}

#[test]
fn variables_that_no_service_manager_sets_are_refused() {
    let cases = [
        (vec![("NOTIFY_SOCKET", "run/notify")], "NOTIFY_SOCKET is \"run/notify\""),
        (vec![("NOTIFY_SOCKET", "/run/none"), ("WATCHDOG_USEC", "often")], "WATCHDOG_USEC is \"often\""),
    ];
    for (variables, wanted) in cases {
        let directory = TempDir::new().unwrap();
        let mut command = herd(&["serve", "--listen", "127.0.0.1:0", "--admin", "off"], directory.path());
        let output = command.envs(variables).stdin(Stdio::null()).output().unwrap();
        assert_refused(&output, wanted);
    }
}

#[track_caller]
fn assert_refused(output: &Output, wanted: &str) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains(wanted), "{wanted}: {said}");
}

#[test]
fn a_service_manager_that_is_gone_is_no_reason_not_to_serve() {
    let directory = TempDir::new().unwrap();
    let nobody = directory.path().join("nobody");
    let mut daemon = start(&[("NOTIFY_SOCKET", nobody.to_str().unwrap())], &[]);
    daemon.log_line(|line| line["message"].as_str().is_some_and(|said| said.contains("cannot be told anything")));
    assert_eq!(eval(daemon.gateway, "alice", "1").status, 200);
}

/// Does what systemd does for a service with sockets: `NAMES SOCKET… -- COMMAND`, where a socket is `tcp`, `any`, `udp`
/// or the path of a Unix socket.
const ACTIVATE: &str = r#"
import os, socket, sys
names, *rest = sys.argv[1:]
end = rest.index("--")
kinds, command = rest[:end], rest[end + 1:]
kept = []
for kind in kinds:
    if kind.startswith("/"):
        opened = socket.socket(socket.AF_UNIX)
        opened.bind(kind)
        os.chmod(kind, 0o600)
    else:
        opened = socket.socket(socket.AF_INET, socket.SOCK_DGRAM if kind == "udp" else socket.SOCK_STREAM)
        opened.bind(("0.0.0.0" if kind == "any" else "127.0.0.1", 0))
    if kind != "udp":
        opened.listen()
    kept.append(opened)
high = [os.dup2(opened.fileno(), 100 + number) for number, opened in enumerate(kept)]
for number, descriptor in enumerate(high):
    os.dup2(descriptor, 3 + number)
os.closerange(3 + len(kinds), 300)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(len(kinds)))
if names:
    os.environ["LISTEN_FDNAMES"] = names
os.execv(command[0], command)
"#;

fn activated(names: &str, sockets: &[&str], flags: &[&str], directory: &Path) -> Command {
    let mut command = Command::new("/usr/bin/python3");
    command.args(["-c", ACTIVATE, names]).args(sockets).args(["--", env!("CARGO_BIN_EXE_herd"), "serve"]);
    command.args(["--log-format", "json"]).args(flags);
    command.env("XDG_RUNTIME_DIR", directory).env_remove("HERD_SOCKET").stdin(Stdio::null());
    command
}

#[test]
fn inherited_sockets_are_served_and_reach_no_worker() {
    for (names, order) in [("admin:control:gateway", ["tcp", "", "tcp"]), ("", ["tcp", "", "tcp"])] {
        let directory = TempDir::new().unwrap();
        let control = directory.path().join("herd.sock");
        let sockets = order.map(|kind| if kind.is_empty() { control.to_str().unwrap() } else { kind });
        // The ports of the flags are not those that are served.
        let flags = ["--listen", "127.0.0.1:1", "--admin", "127.0.0.1:2"];
        let command = activated(names, &sockets, &flags, directory.path());
        let mut daemon = Daemon::spawn(command, control.clone(), directory);
        assert!(daemon.gateway.port() > 2 && daemon.admin.port() > 2, "{} {}", daemon.gateway, daemon.admin);
        assert_eq!(eval(daemon.gateway, "alice", "41 + 1").body, "42");
        assert_eq!(get(daemon.admin, "/readyz").status, 200);
        assert!(daemon.command(&["ps"]).status.success());

        let listeners: Vec<_> = (3..6).map(|number| inode(&format!("/proc/{}/fd/{number}", daemon.pid()))).collect();
        let worker = daemon.worker_of("alice");
        for pid in daemon.descendants() {
            // It may have ended since.
            let Ok(descriptors) = fs::read_dir(format!("/proc/{pid}/fd")) else { continue };
            for entry in descriptors.flatten() {
                let found = inode(entry.path().to_str().unwrap());
                assert!(!listeners.contains(&found), "{pid} (worker {worker}) has a listener of the daemon's");
            }
            let environment = environment(pid);
            assert!(!environment.contains("LISTEN_FDNAMES"), "{environment:?}");
        }
        daemon.signal(Signal::TERM);
        assert!(daemon.wait().success(), "{:?}", daemon.log);
        assert!(control.exists(), "the control socket is the service manager's");
    }
}

fn inode(path: &str) -> Option<(u64, u64)> {
    fs::metadata(path).ok().map(|metadata| (metadata.dev(), metadata.ino()))
}

/// Nothing if the process is gone.
fn environment(pid: Pid) -> String {
    fs::read_to_string(format!("/proc/{pid}/environ")).unwrap_or_default()
}

#[test]
fn no_variable_of_the_service_manager_reaches_a_worker() {
    let manager = Manager::new();
    let variables =
        [("NOTIFY_SOCKET", manager.address()), ("WATCHDOG_USEC", "60000000".into()), ("INVOCATION_ID", "f00".into())];
    let variables: Vec<_> = variables.iter().map(|(name, text)| (*name, text.as_str())).collect();
    let daemon = start(&variables, &[]);
    eval(daemon.gateway, "alice", "1");
    assert!(environment(daemon.pid()).contains("NOTIFY_SOCKET"));
    assert!(environment(daemon.worker_of("alice")).contains("PORT="));
    for pid in daemon.descendants() {
        let environment = environment(pid);
        for (name, _) in &variables {
            assert!(!environment.contains(name), "{pid}: {environment:?}");
        }
    }
}

#[test]
fn sockets_that_are_not_what_the_settings_say_are_refused() {
    let flags = ["--listen", "127.0.0.1:1", "--admin", "127.0.0.1:2"];
    let off = ["--listen", "127.0.0.1:1", "--admin", "off"];
    let cases: [(&str, &[&str], &[&str], &str); 4] = [
        ("", &["udp"], &flags, "it is no stream socket; write ListenStream= in the socket unit"),
        ("gateway:admin", &["tcp", "any"], &flags, "and network.admin_bind is 127.0.0.1:2; give both the same address"),
        ("", &["tcp", "tcp"], &off, "network.admin_bind is off; leave the socket out"),
        ("gateway:web", &["tcp", "tcp"], &flags, "is named `web`; name it gateway, admin or control"),
    ];
    for (names, sockets, flags, wanted) in cases {
        let directory = TempDir::new().unwrap();
        assert_refused(&activated(names, sockets, flags, directory.path()).output().unwrap(), wanted);
    }
}

#[test]
fn descriptors_that_are_announced_and_not_there_are_an_error() {
    let directory = TempDir::new().unwrap();
    // The shell's own number is the daemon's.
    let script = format!("LISTEN_PID=$$ LISTEN_FDS=99 exec {} serve --listen 127.0.0.1:0", env!("CARGO_BIN_EXE_herd"));
    let mut command = Command::new("sh");
    let output = command.args(["-c", &script]).env("XDG_RUNTIME_DIR", directory.path()).output().unwrap();
    assert_refused(&output, "the sockets that LISTEN_FDS announces cannot be taken over");
}

/// The real protocol, as far as a host without systemd as its first process has it.
#[test]
fn systemds_own_tool_starts_the_daemon_at_the_first_connection() {
    let directory = TempDir::new().unwrap();
    let socket = directory.path().join("herd.sock");
    // It passes nothing of its environment on, and makes sockets that others may use, which the daemon refuses.
    let script = format!(
        "exec systemd-socket-activate --fdname=control --listen={} -E XDG_RUNTIME_DIR={} {} serve --listen 127.0.0.1:0 \
         --admin 127.0.0.1:0 --log-format json",
        socket.display(),
        directory.path().display(),
        env!("CARGO_BIN_EXE_herd")
    );
    let mut command = Command::new("sh");
    command.args(["-c", &script]);
    let waker = {
        let socket = socket.clone();
        thread::spawn(move || {
            eventually(|| {
                let closed = fs::set_permissions(&socket, fs::Permissions::from_mode(0o600));
                closed.and_then(|()| UnixStream::connect(&socket)).is_ok()
            });
        })
    };
    let daemon = Daemon::spawn(command, socket, directory);
    waker.join().unwrap();
    let output = daemon.command(&["ps", "--json"]);
    assert!(output.status.success(), "{output:?}");
    let page: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(page["workers"].is_array(), "{page}");
    assert_eq!(eval(daemon.gateway, "alice", "1").status, 200);
}

#[test]
fn commands_that_serve_nothing_mind_no_service_manager() {
    let directory = TempDir::new().unwrap();
    let mut command = herd(&["--version"], directory.path());
    let version = command.env("NOTIFY_SOCKET", "nonsense").env("LISTEN_FDS", "99").output().unwrap();
    assert!(version.status.success());
    assert!(output(&["schema"], directory.path()).status.success());
}
