use std::{
    ffi::OsString,
    fmt,
    ops::RangeInclusive,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use herd_sandbox::{Mode, Network, Plan, Reach, Seccomp, Signal};

use crate::{
    Connector, HttpClient, ProcessFactory, error::OptionsError, options::Listen, readiness::Readiness,
    sandbox::SandboxOptions,
};

/// Options for workers that are processes; see [`ProcessFactory::new`].
///
/// Setters take what they are given; [`build`](Self::build) checks all of it and names every mistake.
#[must_use = "a builder does nothing until `build` is called"]
pub struct ProcessFactoryBuilder<C = HttpClient> {
    raw: RawOptions,
    client: MakeClient<C>,
}

pub(crate) type MakeClient<C> = Arc<dyn Fn(Connector) -> C + Send + Sync>;

/// Options as they were given.
pub(crate) struct RawOptions {
    pub(crate) program: OsString,
    pub(crate) args: Vec<OsString>,
    pub(crate) env: Vec<(OsString, OsString)>,
    pub(crate) cwd: Option<OsString>,
    pub(crate) listen: Listen,
    pub(crate) ready: Readiness,
    pub(crate) health_path: String,
    pub(crate) http2: bool,
    pub(crate) start_timeout: Duration,
    pub(crate) start_health_check_delay: Duration,
    pub(crate) stop_signal: Signal,
    pub(crate) stop_grace: Duration,
    pub(crate) memory_limit: u64,
    pub(crate) cpu_limit: f64,
    pub(crate) pids_limit: Option<i64>,
    pub(crate) open_files: u64,
    pub(crate) sandbox: SandboxOptions,
    pub(crate) state_dir: Option<PathBuf>,
    pub(crate) init_program: Option<PathBuf>,
}

impl ProcessFactoryBuilder {
    pub(crate) fn new(program: OsString) -> Self {
        let raw = RawOptions {
            program,
            args: Vec::new(),
            env: Vec::new(),
            cwd: None,
            listen: Listen::default(),
            ready: Readiness::default(),
            health_path: "/health".to_owned(),
            http2: false,
            start_timeout: Duration::from_secs(30),
            start_health_check_delay: Duration::ZERO,
            stop_signal: Signal::TERM,
            stop_grace: Duration::from_secs(10),
            memory_limit: 0,
            cpu_limit: 0.0,
            pids_limit: None,
            open_files: 4096,
            sandbox: SandboxOptions::default(),
            state_dir: None,
            init_program: None,
        };
        Self { raw, client: Arc::new(HttpClient::new) }
    }
}

impl<C> ProcessFactoryBuilder<C> {
    /// Adds an argument. `{{.Port}}`, `{{.Socket}}`, `{{.WorkerID}}` and `{{.Workspace}}` in it become the worker's
    /// port, the path of its Unix socket, its ID and its private directory. Default: none.
    pub fn arg(mut self, arg: impl Into<OsString>) -> Self {
        self.raw.args.push(arg.into());
        self
    }

    /// Adds arguments, as [`arg`](Self::arg) does.
    pub fn args(mut self, args: impl IntoIterator<Item = impl Into<OsString>>) -> Self {
        self.raw.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// Sets a variable of the worker's environment; templates expand in the value as in an [`arg`](Self::arg). A later
    /// value for the same name replaces the earlier one.
    ///
    /// Besides what is set here the worker gets `PATH` (the daemon's), `HOME` (its workspace), `LANG` (`C.UTF-8`) and
    /// `PORT`, and nothing else; the first three can be replaced.
    pub fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        let (name, value) = (name.into(), value.into());
        self.raw.env.retain(|(known, _)| *known != name);
        self.raw.env.push((name, value));
        self
    }

    /// The worker's working directory, in which templates expand. A relative path is taken from the current directory
    /// at the time of [`build`](Self::build). Default: the worker's workspace or, without a
    /// [sandbox](Self::insecure_sandbox), that current directory. Where each worker has a user of its own, everybody has to
    /// have execute permission on it.
    pub fn cwd(mut self, path: impl AsRef<Path>) -> Self {
        self.raw.cwd = Some(path.as_ref().into());
        self
    }

    /// Where the worker listens. Default: [`Listen::Port`].
    pub fn listen(mut self, listen: Listen) -> Self {
        self.raw.listen = listen;
        self
    }

    /// How the worker shows that it is ready. Default: [`Readiness::Http`] with the health path.
    pub fn ready(mut self, ready: Readiness) -> Self {
        self.raw.ready = ready;
        self
    }

    /// The path that is asked whether the worker is ready, and later whether it lives. Default: `/health`.
    pub fn health_path(mut self, path: impl Into<String>) -> Self {
        self.raw.health_path = path.into();
        self
    }

    /// The worker speaks HTTP/2 with prior knowledge, as gRPC servers do. Default: HTTP/1.1.
    pub fn http2(mut self) -> Self {
        self.raw.http2 = true;
        self
    }

    /// The longest time from the start of a worker until it is ready, over all its tries if its port is lost. Default:
    /// 30 s; at most 24 h.
    pub fn start_timeout(mut self, timeout: Duration) -> Self {
        self.raw.start_timeout = timeout;
        self
    }

    /// How long a started worker is left alone before it is first asked whether it is ready. Default: 0, so that its
    /// readiness is noticed at once.
    pub fn start_health_check_delay(mut self, delay: Duration) -> Self {
        self.raw.start_health_check_delay = delay;
        self
    }

    /// The signal that asks a worker to stop. Default: `TERM`.
    pub fn stop_signal(mut self, signal: Signal) -> Self {
        self.raw.stop_signal = signal;
        self
    }

    /// How long a worker that was asked to stop may take before it is killed. Default: 10 s; at most 24 h.
    pub fn stop_grace(mut self, grace: Duration) -> Self {
        self.raw.stop_grace = grace;
        self
    }

    /// The most memory that a worker's processes may use together, in bytes; 0 is no limit. Default: 0. A worker that
    /// needs more ends as out of memory, all of its processes at once.
    ///
    /// It needs cgroup v2, see [`herd_sandbox::cgroup`]; where that cannot be had, asking for a limit is an error of
    /// [`build`](Self::build), except without a [sandbox](Self::insecure_sandbox).
    pub fn memory_limit(mut self, bytes: u64) -> Self {
        self.raw.memory_limit = bytes;
        self
    }

    /// The most CPU time that a worker's processes may use together, in cores: 0.5 is half a core; 0 is no limit, and
    /// 0.01 is the least that can be. Default: 0. A worker that wants more is made to wait.
    ///
    /// It needs cgroup v2, as [`memory_limit`](Self::memory_limit) does.
    pub fn cpu_limit(mut self, cores: f64) -> Self {
        self.raw.cpu_limit = cores;
        self
    }

    /// How many processes and threads a worker may have: -1 is no limit, 0 and less than -1 are errors.
    ///
    /// It needs cgroup v2, as [`memory_limit`](Self::memory_limit) does. The default, 100, was not asked for: without
    /// cgroup v2 it is kept by `RLIMIT_NPROC` (setrlimit(2)) where each worker has a user of its own, and not at all
    /// elsewhere, which [`Limits`](crate::Limits) and [`missing`](ProcessFactory::missing) tell.
    pub fn pids_limit(mut self, count: i64) -> Self {
        self.raw.pids_limit = Some(count);
        self
    }

    /// How many descriptors each process of a worker may have open (`RLIMIT_NOFILE`). Default: 4096.
    ///
    /// Without root, keep it well below the limit of this process: the kernel refuses descriptors to a process whose own
    /// limit is below the number that its user has on the way through sockets, unix(7) `ETOOMANYREFS`, and workers are of
    /// the same user then.
    pub fn open_files(mut self, count: u64) -> Self {
        self.raw.open_files = count;
        self
    }

    /// How far workers are sealed off, and what becomes of what this host cannot give. Default: [`Mode::Required`].
    pub fn sandbox(mut self, mode: Mode) -> Self {
        self.raw.sandbox.mode = mode;
        self
    }

    /// Seals workers off from nothing: [`Mode::Off`]. They run as the daemon's user, see its files and reach its network,
    /// and limits that were asked for are skipped, with a warning in the log. For programs that are trusted like the
    /// daemon itself.
    pub fn insecure_sandbox(self) -> Self {
        self.sandbox(Mode::Off)
    }

    /// What a worker reaches of the network. Default: [`Network::Private`], a loopback of its own.
    pub fn network(mut self, network: Network) -> Self {
        self.raw.sandbox.network = network;
        self
    }

    /// Lets workers with [`Network::Egress`] reach this beyond public addresses. Default: nothing.
    pub fn egress_allow(mut self, reach: Reach) -> Self {
        self.raw.sandbox.egress_allow.push(reach);
        self
    }

    /// The port on which each worker listens in a network of its own. Default: 8000.
    pub fn port(mut self, port: u16) -> Self {
        self.raw.sandbox.port = port;
        self
    }

    /// Which system calls a worker may make. Default: [`Seccomp::Default`].
    pub fn seccomp(mut self, seccomp: Seccomp) -> Self {
        self.raw.sandbox.seccomp = seccomp;
        self
    }

    /// Has the kernel log the system calls that are refused. Default: it does not.
    pub fn log_refused_calls(mut self) -> Self {
        self.raw.sandbox.seccomp_log = true;
        self
    }

    /// Lets workers see a path of the host that they cannot change, beyond the system's directories, the program's own
    /// file and the [working directory](Self::cwd). It is absolute.
    pub fn read_only(mut self, path: impl Into<PathBuf>) -> Self {
        self.raw.sandbox.read_only.push(path.into());
        self
    }

    /// Lets workers see and change a path of the host, as far as its permissions allow. It is absolute. What one worker
    /// leaves there, others find. What is shown within it is named without symbolic links.
    pub fn writable(mut self, path: impl Into<PathBuf>) -> Self {
        self.raw.sandbox.writable.push(path.into());
        self
    }

    /// Hides a path that workers would see: a directory is empty, and a file cannot be read. It is absolute, is there, and
    /// lies in nothing [`writable`](Self::writable), where one worker could move it to where others see it. Where workers
    /// get no root of their own, a path that they would see is an error in every mode.
    pub fn hidden(mut self, path: impl Into<PathBuf>) -> Self {
        self.raw.sandbox.hidden.push(path.into());
        self
    }

    /// The size of a worker's `/tmp`, in bytes. Default: 64 MiB.
    pub fn tmp_limit(mut self, bytes: u64) -> Self {
        self.raw.sandbox.tmp_limit = bytes;
        self
    }

    /// The size of a worker's `/dev/shm`, in bytes. Default: 64 MiB.
    pub fn shm_limit(mut self, bytes: u64) -> Self {
        self.raw.sandbox.shm_limit = bytes;
        self
    }

    /// The users, and with the same numbers the groups, of which root gives one to each live worker. Nobody else on the
    /// host may use them: what passwd(5), group(5), subuid(5) or subgid(5) give to somebody is an error of
    /// [`build`](Self::build). Default: 2100000000–2100065535, which neither Debian, systemd, useradd(8) nor SSSD hand out.
    pub fn uid_range(mut self, range: RangeInclusive<u32>) -> Self {
        self.raw.sandbox.uid_range = range;
        self
    }

    /// Keeps the workspace of each session in a directory here, which is made if it is not there and which nobody else
    /// may enter: its files outlive a crash, an eviction, the session and the daemon. It lies in nothing that workers see.
    /// Default: a workspace goes with its worker.
    ///
    /// Each worker is then started for one session, so there are no spares: see
    /// [`WorkerFactory::is_per_session`](herd_pool::WorkerFactory::is_per_session). herd removes none of these
    /// workspaces. The directory of a session has the SHA-256 hash of its ID for a name, with the ID in its file
    /// `session`; remove it, as a whole, while the session has no worker.
    pub fn persistent_workspaces(mut self, base: impl Into<PathBuf>) -> Self {
        self.raw.sandbox.persistent_workspaces = Some(base.into());
        self
    }

    /// Where the workers' private directories are made, each readable by this user alone. Default: the user's runtime
    /// directory (`XDG_RUNTIME_DIR`), or the directory for temporary files. It lies in nothing that workers see.
    pub fn state_dir(mut self, path: impl Into<PathBuf>) -> Self {
        self.raw.state_dir = Some(path.into());
        self
    }

    /// A program whose `main` begins with [`herd_sandbox::enter_init`], to be each worker's init. Default: the running
    /// program itself, which then has to begin with that call.
    pub fn init_program(mut self, path: impl Into<PathBuf>) -> Self {
        self.raw.init_program = Some(path.into());
        self
    }

    /// What makes the typed client of each worker from its connector. Default: [`HttpClient::new`].
    pub fn client<D>(self, make: impl Fn(Connector) -> D + Send + Sync + 'static) -> ProcessFactoryBuilder<D> {
        ProcessFactoryBuilder { raw: self.raw, client: Arc::new(make) }
    }

    /// Checks all options as far as that depends on nothing but them, and makes nothing.
    ///
    /// # Errors
    /// [`OptionsError`] names every option that cannot be, and what is allowed.
    pub fn check(&self) -> Result<(), OptionsError> {
        self.raw.check().map(drop)
    }

    /// What would be done to start a worker on this host, step by step, with a user and directories that stand for those
    /// of each worker. Tries what the host can give, as [`build`](Self::build) does, and makes nothing that stays.
    ///
    /// # Errors
    /// As [`build`](Self::build).
    pub fn plan(&self) -> Result<Plan<'static>, OptionsError> {
        self.raw.plan()
    }

    /// Checks all options and makes the factory, with a state directory for its workers. Starts no worker.
    ///
    /// Finds out what this host can give, once for a program, by trying it with short-lived processes. Where workers get
    /// cgroups, this process moves into one of its own below the one that is delegated to it: see
    /// [`CgroupRoot`](herd_sandbox::cgroup::CgroupRoot).
    ///
    /// # Errors
    /// [`OptionsError`] names every option that cannot be, and what is allowed. What a required sandbox needs and this
    /// host cannot give is told as a mistake of the option `sandbox`, and limits that cannot be kept as one of their own,
    /// each with the step, the reason and the remedy.
    pub fn build(self) -> Result<ProcessFactory<C>, OptionsError> {
        Ok(ProcessFactory::from_parts(self.raw.validate()?, self.client))
    }
}

impl<C> fmt::Debug for ProcessFactoryBuilder<C> {
    /// Without arguments and environment, which may hold secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProcessFactoryBuilder").field("program", &self.raw.program).finish_non_exhaustive()
    }
}
