//! A daemon under test.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
    sync::mpsc::{Receiver, RecvTimeoutError, channel},
    thread,
    time::Instant,
};

use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use serde_json::Value;
use tempfile::TempDir;

use crate::client::{PATIENCE, get};

/// In the environment of every daemon under test, and nowhere else.
pub(crate) const CANARY: &str = "canary-5f1c0e";

#[derive(Debug)]
pub(crate) struct Daemon {
    child: Child,
    pub(crate) gateway: SocketAddr,
    pub(crate) admin: SocketAddr,
    pub(crate) socket: PathBuf,
    stderr: Receiver<String>,
    stdout: Receiver<String>,
    /// All lines of the log that were read.
    pub(crate) log: Vec<String>,
    directory: TempDir,
}

/// `herd` with these arguments and an environment that shows it no other daemon.
pub(crate) fn herd(args: &[&str], runtime_dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_herd"));
    command.args(args).env("XDG_RUNTIME_DIR", runtime_dir).env("HERD_TEST_SECRET", CANARY).env_remove("HERD_SOCKET");
    command
}

/// Runs a command to its end.
#[track_caller]
pub(crate) fn output(args: &[&str], runtime_dir: &Path) -> Output {
    herd(args, runtime_dir).stdin(Stdio::null()).output().unwrap()
}

/// The standard error of a command that must fail with this exit code.
#[track_caller]
pub(crate) fn failure(args: &[&str], code: i32) -> String {
    let directory = TempDir::new().unwrap();
    let output = output(args, directory.path());
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(code), "{stderr}");
    stderr
}

impl Daemon {
    /// `herd` with the built-in REPL.
    pub(crate) fn repl() -> Self {
        Self::serve(&[])
    }

    /// `herd serve` with further flags.
    pub(crate) fn serve(flags: &[&str]) -> Self {
        Self::start(&["serve"], flags, &[])
    }

    /// `herd run` with further flags; `{{herd}}` in the worker's command stands for the program under test.
    pub(crate) fn run(flags: &[&str], worker: &[&str]) -> Self {
        Self::start(&["run"], flags, &[&["--"], worker].concat())
    }

    fn start(command: &[&str], flags: &[&str], last: &[&str]) -> Self {
        let directory = TempDir::new().unwrap();
        let socket = directory.path().join("control.sock");
        let addresses = ["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--log-format", "json"];
        let control = ["--control-socket", socket.to_str().unwrap()];
        let program = env!("CARGO_BIN_EXE_herd");
        // A sandbox shows the worker's program, but not what a script may start.
        let shown: &[&str] = if command == ["run"] { &["--read-only", program] } else { &[] };
        let last: Vec<_> = last.iter().map(|word| word.replace("{{herd}}", program)).collect();
        let last: Vec<_> = last.iter().map(String::as_str).collect();
        let args = [command, &addresses, &control, shown, flags, &last].concat();
        Self::spawn(herd(&args, directory.path()), socket, directory)
    }

    /// Starts what `command` says, which logs JSON, and waits until it serves.
    pub(crate) fn spawn(mut command: Command, socket: PathBuf, directory: TempDir) -> Self {
        let pipes = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = pipes.spawn().unwrap();
        let stdout = lines(child.stdout.take().unwrap());
        let stderr = lines(child.stderr.take().unwrap());
        let nowhere = SocketAddr::from(([0, 0, 0, 0], 0));
        let mut daemon =
            Self { child, gateway: nowhere, admin: nowhere, socket, stderr, stdout, log: Vec::new(), directory };
        let serving = daemon.log_line(|line| line["message"] == "serving");
        let address = |name: &str| serving[name].as_str().map(|text| text.parse().unwrap());
        daemon.gateway = address("gateway").unwrap();
        daemon.admin = address("admin").unwrap_or(nowhere);
        daemon
    }

    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    pub(crate) fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// Waits for a line of the log.
    #[track_caller]
    pub(crate) fn log_line(&mut self, wanted: impl Fn(&Value) -> bool) -> Value {
        loop {
            let line = match self.stderr.recv_timeout(PATIENCE) {
                Ok(line) => line,
                Err(_) => panic!("the log has no such line:\n{}", self.log.join("\n")),
            };
            self.log.push(line);
            let parsed: Value = serde_json::from_str(self.log.last().unwrap()).unwrap_or_default();
            if wanted(&parsed) {
                return parsed;
            }
        }
    }

    /// Runs a command that talks to this daemon.
    #[track_caller]
    pub(crate) fn command(&self, args: &[&str]) -> Output {
        let socket = ["--socket", self.socket.to_str().unwrap()];
        output(&[args, &socket].concat(), self.directory())
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap();
    }

    /// Waits for its end, and reads the rest of its output.
    #[track_caller]
    pub(crate) fn wait(&mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.stderr.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => self.log.push(line),
                Err(RecvTimeoutError::Disconnected) => return self.child.wait().unwrap(),
                Err(RecvTimeoutError::Timeout) => panic!("the daemon does not end:\n{}", self.log.join("\n")),
            }
        }
    }

    /// What it has written to standard output; only after its end.
    pub(crate) fn stdout(&self) -> String {
        self.stdout.iter().map(|line| line + "\n").collect()
    }

    /// A page of the admin API.
    #[track_caller]
    pub(crate) fn page(&self, path: &str) -> Value {
        let response = get(self.admin, path);
        assert_eq!(response.status, 200, "{response:?}");
        response.json()
    }

    /// Asks for a page until it is as wanted.
    #[track_caller]
    pub(crate) fn page_when(&self, path: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let mut page = Value::Null;
        eventually(|| {
            page = self.page(path);
            wanted(&page)
        });
        page
    }

    /// The process of the session's worker.
    #[track_caller]
    pub(crate) fn worker_of(&self, session: &str) -> Pid {
        let workers = self.page("/v1/workers");
        let worker = workers["items"].as_array().unwrap().iter().find(|worker| worker["session"] == session);
        let pid = worker.unwrap_or_else(|| panic!("{session} has no worker: {workers}"))["pid"].as_i64().unwrap();
        Pid::from_raw(pid.try_into().unwrap()).unwrap()
    }

    /// All processes below the daemon: inits, workers, and what they have started.
    pub(crate) fn descendants(&self) -> Vec<Pid> {
        self.descendants_of(self.pid())
    }

    /// The same below another process.
    pub(crate) fn descendants_of(&self, pid: Pid) -> Vec<Pid> {
        let mut found = children(pid);
        let mut next = 0;
        while next < found.len() {
            found.extend(children(found[next]));
            next += 1;
        }
        found
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It may be gone already, and its workers go with it.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn is_gone(pid: Pid) -> bool {
    test_kill_process(pid).is_err()
}

/// Looks again and again until something has come about that nothing announces.
#[track_caller]
pub(crate) fn eventually(mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < deadline, "it does not come about");
        thread::park_timeout(std::time::Duration::from_millis(5));
    }
}

fn children(of: Pid) -> Vec<Pid> {
    let Ok(threads) = fs::read_dir(format!("/proc/{of}/task")) else { return Vec::new() };
    let lists = threads.flatten().filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok());
    lists
        .flat_map(|list| list.split_whitespace().filter_map(|pid| Pid::from_raw(pid.parse().ok()?)).collect::<Vec<_>>())
        .collect()
}

/// The lines of a stream, read by a thread that ends with it.
pub(crate) fn lines(stream: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = channel();
    thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    receiver
}
