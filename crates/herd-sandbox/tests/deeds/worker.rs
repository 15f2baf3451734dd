//! One process that is confined, or is not: in herd's sandbox, in bubblewrap's, or in none.

use std::{
    cell::RefCell,
    fs::{self, File},
    io::{self, Write},
    os::{fd::OwnedFd, unix::process::ExitStatusExt},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::Instant,
};

use herd_sandbox::{ExecSpec, ExecStreams, Identity, Init, Isolation, Limit, Mode, Mount, Report, Seccomp, Spec};

use crate::{
    lines::{Lines, PATIENCE, readable},
    place::{Means, Place},
    stage::{OPEN_FILES, PROCESSES, SHM_LIMIT, TMP_LIMIT},
};

/// Where a worker finds what it runs, the setuid program among it.
pub(crate) const ASSETS: &str = "/deeds";

const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What to run, and where.
#[derive(Debug)]
pub(crate) struct Job<'a> {
    pub(crate) place: Place,
    pub(crate) means: Means,
    /// The directory of the host that a sandbox shows as [`ASSETS`].
    pub(crate) assets: &'a Path,
    /// The directory of the host that a sandbox shows as `/workspace`.
    pub(crate) workspace: PathBuf,
    /// The program, by the name that it has inside.
    pub(crate) program: PathBuf,
    pub(crate) args: Vec<String>,
    pub(crate) stderr: Option<OwnedFd>,
}

/// A running job. Dropping it kills it.
#[derive(Debug)]
pub(crate) struct Worker {
    process: Process,
    pub(crate) stdout: Lines,
}

#[derive(Debug)]
enum Process {
    Child(Child),
    Init(Init),
    /// A further command, which is given to the init when its worker runs.
    Command(Init, RefCell<Option<ExecSpec>>),
}

/// The number of the only command of an init here.
const COMMAND: u32 = 7;

impl Job<'_> {
    /// The directory of the assets as the job sees it.
    pub(crate) fn assets_inside(place: Place, assets: &Path) -> PathBuf {
        if place.has_own_root() { PathBuf::from(ASSETS) } else { assets.to_owned() }
    }

    pub(crate) fn start(self) -> Worker {
        let (reader, writer) = io::pipe().expect("a pipe");
        let process = match self.place {
            Place::Root | Place::Rootless | Place::Unfiltered | Place::Fallback if self.means == Means::Command => {
                let null = || File::open("/dev/null").expect("it is there");
                let mut spec = self.spec(writer.into());
                let streams = ExecStreams::Descriptors {
                    stdin: null().into(),
                    stdout: spec.stdout.take().expect("it has one"),
                    stderr: spec.stderr.take().expect("it has one"),
                };
                let mut command = ExecSpec::new(std::mem::replace(&mut spec.program, "sleep".into()), streams);
                command.args = std::mem::replace(&mut spec.args, vec!["1000".into()]);
                Process::Command(Init::launch(spec).expect("a launch"), RefCell::new(Some(command)))
            }
            Place::Root | Place::Rootless | Place::Unfiltered | Place::Fallback => {
                Process::Init(Init::launch(self.spec(writer.into())).expect("a launch"))
            }
            Place::Bwrap => {
                let bwrap = self.bubblewrap();
                Process::Child(self.spawn(bwrap, writer))
            }
            Place::Apart => {
                let mut unshare = Command::new("unshare");
                unshare.args(["--mount", "--uts", "--ipc", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"]);
                // The shell is PID 1 and stays: the first of its commands is not its last.
                unshare.args(["sh", "-c", "\"$@\"; exit $?", "sh"]).current_dir(&self.workspace);
                Process::Child(self.spawn(unshare, writer))
            }
            Place::Host | Place::User => {
                let mut plain = Command::new("env");
                plain.current_dir(&self.workspace);
                Process::Child(self.spawn(plain, writer))
            }
        };
        Worker { process, stdout: Lines::new(reader.into()) }
    }

    fn spawn(self, mut command: Command, stdout: io::PipeWriter) -> Child {
        command.arg(self.program).args(self.args).stdin(Stdio::null()).stdout(stdout);
        if let Some(stderr) = self.stderr {
            command.stderr(stderr);
        }
        command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}; `cargo xtask test` installs it"))
    }

    fn spec(self, stdout: OwnedFd) -> Spec {
        let mut spec = Spec::new(self.program);
        spec.args = self.args.into_iter().map(Into::into).collect();
        spec.env = vec![("PATH".into(), PATH.into())];
        spec.cwd = Some(if self.place.has_own_root() { "/workspace".into() } else { self.workspace.clone() });
        spec.open_files = OPEN_FILES;
        spec.limits.push((Limit::Processes, PROCESSES));
        spec.stdout = Some(stdout);
        spec.stderr =
            Some(self.stderr.unwrap_or_else(|| rustix::io::dup(rustix::stdio::stderr()).expect("a duplicate")));
        spec.isolation = Isolation::new(if self.place == Place::Fallback { Mode::BestEffort } else { Mode::Required });
        if self.place == Place::Unfiltered {
            spec.isolation.seccomp = Seccomp::Off;
        }
        if self.place == Place::Root {
            let identity = identity();
            std::os::unix::fs::chown(&self.workspace, Some(identity.uid), Some(identity.gid)).expect("it is ours");
            spec.isolation.identity = Some(identity);
        }
        let mount = |source: &Path, target: &str, writable| Mount {
            source: source.to_owned(),
            target: target.into(),
            writable,
        };
        let files = &mut spec.isolation.files;
        files.mounts = vec![mount(&self.workspace, "/workspace", true), mount(self.assets, ASSETS, false)];
        files.hidden = ["hidden", "hidden-file"].map(|name| Path::new(ASSETS).join(name)).to_vec();
        files.tmp_limit = TMP_LIMIT;
        files.shm_limit = SHM_LIMIT;
        spec
    }

    /// The same, as far as bubblewrap has it.
    fn bubblewrap(&self) -> Command {
        let mut bwrap = Command::new("bwrap");
        bwrap.args(["--unshare-all", "--unshare-user", "--disable-userns", "--die-with-parent", "--new-session"]);
        bwrap.args(["--cap-drop", "ALL", "--hostname", "herd", "--clearenv", "--setenv", "PATH", PATH]);
        bwrap.args(["--ro-bind", "/usr", "/usr"]);
        for name in ["bin", "sbin", "lib", "lib32", "lib64", "libx32"] {
            let path = Path::new("/").join(name);
            match fs::read_link(&path) {
                Ok(link) => bwrap.arg("--symlink").arg(link).arg(path),
                Err(_) if path.is_dir() => bwrap.arg("--ro-bind").arg(&path).arg(&path),
                Err(_) => &mut bwrap,
            };
        }
        bwrap.args(["--proc", "/proc", "--dev", "/dev", "--remount-ro", "/dev"]);
        bwrap.args(["--size", &SHM_LIMIT.to_string(), "--tmpfs", "/dev/shm"]);
        bwrap.args(["--size", &TMP_LIMIT.to_string(), "--tmpfs", "/tmp"]);
        bwrap.arg("--bind").arg(&self.workspace).arg("/workspace");
        bwrap.arg("--ro-bind").arg(self.assets).arg(ASSETS);
        bwrap.args(["--remount-ro", "/", "--chdir", "/workspace", "--"]);
        bwrap
    }
}

/// One that no other worker of these tests has at this time, as good as certainly.
fn identity() -> Identity {
    use std::sync::atomic::{AtomicU32, Ordering};

    static NEXT: AtomicU32 = AtomicU32::new(0);
    let id = 20_000 + (std::process::id() * 8 + NEXT.fetch_add(1, Ordering::Relaxed)) % 40_000;
    Identity { uid: id, gid: id }
}

impl Worker {
    /// The process of the host with which everything ends: the init of herd's sandbox.
    pub(crate) fn pid(&self) -> i32 {
        match &self.process {
            Process::Child(child) => child.id().cast_signed(),
            Process::Init(init) | Process::Command(init, _) => init.pid().cast_signed(),
        }
    }

    /// Whether it could be started at all, as far as that is told.
    pub(crate) fn failure(&self) -> Option<String> {
        let (Process::Init(init) | Process::Command(init, _)) = &self.process else { return None };
        match report(init) {
            Some(Report::Ready { .. }) => {}
            Some(Report::Failed(failure)) => return Some(failure.to_string()),
            other => panic!("neither ready nor failed: {other:?}"),
        }
        let Process::Command(init, command) = &self.process else { return None };
        init.execute(COMMAND, command.borrow_mut().take().expect("it is asked once")).expect("init reads");
        match report(init) {
            Some(Report::Executed { .. }) => None,
            Some(Report::ExecutionFailed { failure, .. }) => Some(failure.to_string()),
            other => panic!("neither executed nor failed: {other:?}"),
        }
    }

    /// Waits for the end of it, [`failure`](Self::failure) having been asked.
    pub(crate) fn finish(mut self) -> (String, ExitStatus) {
        let output = self.stdout.rest();
        let status = match &mut self.process {
            Process::Child(child) => child.wait().expect("it is our child"),
            Process::Init(init) => match report(init) {
                Some(Report::Exited { status, .. }) => status,
                other => panic!("not exited: {other:?}; {output}"),
            },
            Process::Command(init, _) => match report(init) {
                Some(Report::ExecutionEnded { id: COMMAND, status }) => status,
                other => panic!("not ended: {other:?}; {output}"),
            },
        };
        (output, status)
    }

    /// Kills it as the daemon does that has no patience.
    pub(crate) fn kill(&mut self) {
        match &mut self.process {
            Process::Child(child) => {
                // It may have ended.
                let _ = child.kill();
                let _ = child.wait();
            }
            Process::Init(init) | Process::Command(init, _) => init.kill(),
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Waits for the next report.
pub(crate) fn report(init: &Init) -> Option<Report> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match init.recv() {
            Ok(report) => return report,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                assert!(readable(init, deadline), "no report from init {}", init.pid());
            }
            Err(error) => panic!("init {}: {error}", init.pid()),
        }
    }
}

/// Says something in one write, so that lines of several processes do not mix.
pub(crate) fn say(line: &str) {
    io::stdout().write_all(format!("{line}\n").as_bytes()).expect("somebody listens");
    io::stdout().flush().expect("somebody listens");
}

/// How it ended, for messages.
pub(crate) fn shown(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, signal) => format!("signal {signal:?}"),
    }
}
