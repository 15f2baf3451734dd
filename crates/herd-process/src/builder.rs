use std::{
    ffi::OsString,
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use herd_sandbox::Signal;

use crate::{Connector, HttpClient, ProcessFactory, error::OptionsError, options::Listen, readiness::Readiness};

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
    pub(crate) insecure_sandbox: bool,
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
            insecure_sandbox: false,
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
    /// at the time of [`build`](Self::build). Default: that current directory.
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

    /// The most memory that a worker's processes may use together, in bytes; 0 is no limit. Default: 0.
    ///
    /// Memory limits cannot be enforced yet, so asking for one is an error, except with
    /// [`insecure_sandbox`](Self::insecure_sandbox).
    pub fn memory_limit(mut self, bytes: u64) -> Self {
        self.raw.memory_limit = bytes;
        self
    }

    /// The most CPU time that a worker's processes may use together, in cores: 0.5 is half a core; 0 is no limit.
    /// Default: 0.
    ///
    /// CPU limits cannot be enforced yet, so asking for one is an error, except with
    /// [`insecure_sandbox`](Self::insecure_sandbox).
    pub fn cpu_limit(mut self, cores: f64) -> Self {
        self.raw.cpu_limit = cores;
        self
    }

    /// How many processes and threads a worker may have: -1 is no limit, 0 and less than -1 are errors. The default is
    /// 100 where the host can enforce it, and no limit elsewhere, which
    /// [`Limits`](crate::Limits) tells.
    ///
    /// Limits of processes cannot be enforced yet, so asking for one is an error, except with
    /// [`insecure_sandbox`](Self::insecure_sandbox).
    pub fn pids_limit(mut self, count: i64) -> Self {
        self.raw.pids_limit = Some(count);
        self
    }

    /// How many descriptors each process of a worker may have open (`RLIMIT_NOFILE`). Default: 4096.
    pub fn open_files(mut self, count: u64) -> Self {
        self.raw.open_files = count;
        self
    }

    /// Accepts workers without namespaces and cgroups, and so without the limits that need them: such a limit is
    /// skipped, with a warning in the log. For programs that are trusted like the daemon itself.
    pub fn insecure_sandbox(mut self) -> Self {
        self.raw.insecure_sandbox = true;
        self
    }

    /// Where the workers' private directories are made, each readable by this user alone. Default: the user's runtime
    /// directory (`XDG_RUNTIME_DIR`), or the directory for temporary files.
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

    /// Checks all options, and makes nothing.
    ///
    /// # Errors
    /// [`OptionsError`] names every option that cannot be, and what is allowed.
    pub fn check(&self) -> Result<(), OptionsError> {
        self.raw.check().map(drop)
    }

    /// Checks all options and makes the factory, with a state directory for its workers. Starts nothing.
    ///
    /// # Errors
    /// [`OptionsError`] names every option that cannot be, and what is allowed.
    pub fn build(self) -> Result<ProcessFactory<C>, OptionsError> {
        let (options, state) = self.raw.validate()?;
        Ok(ProcessFactory::from_parts(options, state, self.client))
    }
}

impl<C> fmt::Debug for ProcessFactoryBuilder<C> {
    /// Without arguments and environment, which may hold secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProcessFactoryBuilder").field("program", &self.raw.program).finish_non_exhaustive()
    }
}
