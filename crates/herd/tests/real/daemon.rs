use std::{
    fs,
    io::{BufRead as _, BufReader},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    os::unix::{
        fs::{PermissionsExt as _, chown},
        process::CommandExt as _,
    },
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use crate::{
    gateway::{Answer, Gateway},
    processes::{Processes, Watch},
};

pub(crate) const HERD: &str = env!("CARGO_BIN_EXE_herd");

/// The user and group that own nothing.
const NOBODY: u32 = 65534;

/// Loopback, where the system chooses the port.
const ANYWHERE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

const START_TIMEOUT: Duration = Duration::from_secs(20);

/// A running `herd`, on ports of its own. Dropping it kills it, and with it all workers.
#[derive(Debug)]
pub(crate) struct Daemon {
    pub(crate) gateway: Gateway,
    pub(crate) admin: SocketAddr,
    child: Child,
    mark: String,
    /// For the control socket.
    _directory: TempDir,
}

impl Daemon {
    /// `herd run FLAGS -- COMMAND`. Its workers have an environment variable by which they can be told from others.
    pub(crate) fn run(flags: &[&str], command: &[&str]) -> Self {
        Self::run_at(ANYWHERE, flags, command)
    }

    /// The same with the admin API at an address of the test's choice.
    pub(crate) fn run_at(admin: SocketAddr, flags: &[&str], command: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mark = format!("HERD_TEST_MARK={}", directory.path().display());
        let mut herd = Command::new(HERD);
        herd.args(["run", "--env", &mark]).args(listeners(&directory, admin)).args(flags).arg("--").args(command);
        Self::start(herd, directory, mark)
    }

    /// `herd run` with the built-in REPL as the program.
    pub(crate) fn repl(flags: &[&str]) -> Self {
        Self::run(flags, &[HERD, "repl"])
    }

    /// `herd serve FLAGS`: what a new user starts.
    pub(crate) fn serve(flags: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut herd = Command::new(HERD);
        herd.arg("serve").args(listeners(&directory, ANYWHERE)).args(flags);
        Self::start(herd, directory, String::new())
    }

    /// `herd serve` with this configuration file, in which `network` and `telemetry` are left out.
    pub(crate) fn configured(configuration: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut herd = Command::new(HERD);
        herd.args(serve(configuration, &directory));
        Self::start(herd, directory, String::new())
    }

    /// The same as a user who is not root and has no rights at all.
    pub(crate) fn configured_as_nobody(configuration: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let own = directory.path().join("herd");
        // The program may lie where only root gets.
        fs::copy(HERD, &own).unwrap();
        let args = serve(configuration, &directory);
        chown(directory.path(), Some(NOBODY), Some(NOBODY)).unwrap();
        let mut herd = Command::new(own);
        herd.args(args).uid(NOBODY).gid(NOBODY).current_dir("/").env("XDG_RUNTIME_DIR", directory.path());
        Self::start(herd, directory, String::new())
    }

    fn start(mut herd: Command, directory: TempDir, mark: String) -> Self {
        let mut child =
            herd.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("herd starts");
        let log = BufReader::new(child.stderr.take().unwrap());
        let (serving, is_serving) = mpsc::channel();
        // The thread ends with the daemon.
        #[expect(clippy::print_stderr, reason = "whoever looks at a test that failed wants the daemon's log")]
        thread::spawn(move || {
            for line in log.lines().map_while(Result::ok) {
                eprintln!("{line}");
                let event: Value = serde_json::from_str(&line).unwrap_or_default();
                if event["message"] == "serving" {
                    let address = |name: &str| event[name].as_str().and_then(|text| text.parse::<SocketAddr>().ok());
                    let _ = serving.send((address("gateway").unwrap(), address("admin").unwrap()));
                }
            }
        });
        let (gateway, admin) = is_serving.recv_timeout(START_TIMEOUT).expect("herd says where it serves");
        Self { gateway: Gateway(gateway), admin, child, mark, _directory: directory }
    }

    /// The variable that all workers have in their environment.
    pub(crate) fn mark(&self) -> &str {
        &self.mark
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// All descendants: inits, workers, and what these started.
    pub(crate) fn descendants(&self) -> Processes {
        Processes::below(self.pid())
    }

    /// Everything that has the workers' environment, wherever it went. Without the daemon, which never has it.
    pub(crate) fn marked(&self) -> Processes {
        Processes::with_variable(&self.mark)
    }

    /// What the admin API says.
    pub(crate) async fn admin(&self, path: &str) -> Value {
        let Answer { status, body, .. } = Gateway(self.admin).get(None, path).await;
        assert_eq!(status, 200, "{path}: {body}");
        serde_json::from_str(&body).expect("the admin API answers in JSON")
    }

    /// The worker of a session and the process ID of its main process.
    pub(crate) async fn worker_of(&self, session: &str) -> (String, u32) {
        let workers = self.admin("/v1/workers").await;
        let mut items = workers["items"].as_array().unwrap().iter();
        let worker = items.find(|worker| worker["session"] == session).expect("the session has a worker");
        (worker["id"].as_str().unwrap().to_owned(), u32::try_from(worker["pid"].as_u64().unwrap()).unwrap())
    }

    /// SIGTERM; returns when the daemon has ended.
    pub(crate) fn terminate(mut self, timeout: Duration) -> ExitStatus {
        let watch = Watch::of([self.pid()]);
        self.signal(Signal::TERM);
        watch.wait_for_exits(timeout);
        self.child.wait().unwrap()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Writes the file, in which `{{scripts}}` stands for a directory with the workers' scripts, and says how to start a
/// daemon with it.
fn serve(configuration: &str, directory: &TempDir) -> Vec<String> {
    let file = directory.path().join("herd.yaml");
    fs::write(&file, configuration.replace("{{scripts}}", directory.path().to_str().unwrap())).unwrap();
    let scripts = ["programs.py", "programs.js"].map(|script| {
        let copy = directory.path().join(script);
        // The tests may lie where only root gets, as the program may.
        fs::copy(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/real").join(script), &copy).unwrap();
        copy
    });
    for file in scripts.iter().chain([&file]) {
        fs::set_permissions(file, fs::Permissions::from_mode(0o644)).unwrap();
    }
    let command = ["serve", "--config", file.to_str().unwrap()].map(str::to_owned);
    command.into_iter().chain(listeners(directory, ANYWHERE)).collect()
}

fn listeners(directory: &TempDir, admin: SocketAddr) -> Vec<String> {
    let admin = admin.to_string();
    let control: PathBuf = directory.path().join("herd.sock");
    let control = control.to_str().unwrap();
    ["--listen", "127.0.0.1:0", "--admin", &admin, "--log-format", "json", "--control-socket", control]
        .map(str::to_owned)
        .into()
}
