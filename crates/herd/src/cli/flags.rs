//! The flags that mirror the configuration, and what they say.

use std::{
    env,
    net::SocketAddr,
    path::{Component, PathBuf},
    time::Duration,
};

use clap::Args;
use herd_process::{Readiness, Signal};

use crate::config::{
    mistake::{Origin, Written},
    raw::{Maybe, Raw, RawTls},
    settings::{IdleBy, Listen, LogFormat, LogLevel, NetworkMode, SandboxMode, Seccomp, WhenFull, Workspace},
    value::{self, Refusal, Word},
};

/// An address, or none for `off`.
type AdminBind = Option<SocketAddr>;
/// A limit of processes, or none for `-1`.
type PidsLimit = Option<u32>;
/// The least and the most workers.
type WorkerRange = (usize, usize);
/// A name and a value.
type Variable = (String, String);

/// What every daemon can be told. On `serve` these win over the configuration file.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Daemon")]
pub(crate) struct DaemonFlags {
    /// Where the gateway listens [default: 127.0.0.1:8080]; port 0 lets the system choose
    #[arg(long, value_name = "IP:PORT", value_parser = value::address)]
    listen: Option<SocketAddr>,
    /// Where the admin API listens, or `off` [default: 127.0.0.1:8081; with `herd start` off]
    #[arg(long, value_name = "IP:PORT", value_parser = value::admin_address)]
    admin: Option<AdminBind>,
    /// The gateway's certificate with its chain, PEM; the gateway then speaks TLS
    #[arg(long, value_name = "FILE", value_parser = file_path, requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// The private key of that certificate, PEM
    #[arg(long, value_name = "FILE", value_parser = file_path, requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// A file with the bearer token that the admin API asks for; beyond loopback it is needed
    #[arg(long, value_name = "FILE", value_parser = file_path)]
    admin_token_file: Option<PathBuf>,
    /// The control socket of `herd ps` and `herd end` [default: herd.sock in the runtime directory]
    #[arg(long, value_name = "PATH", value_parser = value::socket_path)]
    control_socket: Option<PathBuf>,
    /// Where requests name their session: header:NAME, cookie:NAME, query:NAME, path:N or host; several are tried in
    /// order [default: header:X-Session-ID]
    #[arg(long, value_name = "KEY", value_delimiter = ',', value_parser = value::session_key)]
    session_key: Vec<String>,
    /// Answer requests of unknown sessions with 404 and start none
    #[arg(long)]
    lookup_only: bool,
    /// How long requests may go on after SIGTERM [default: 30s]
    #[arg(long, value_name = "TIME", value_parser = value::duration)]
    drain_timeout: Option<Duration>,
    /// How long a worker may take until its response begins; then 504 [default: no limit]
    #[arg(long, value_name = "TIME", value_parser = value::positive_duration)]
    response_timeout: Option<Duration>,
    /// How many client connections there may be at once; more wait [default: 10000]
    #[arg(long, value_name = "N", value_parser = value::positive_number)]
    max_connections: Option<usize>,
    /// How many threads serve the gateway [default: one for each core]
    #[arg(long, value_name = "N", value_parser = value::positive_number)]
    threads: Option<usize>,
    /// How log lines are written: json or text [default: text on a terminal, json otherwise]
    #[arg(long, value_name = "FORMAT", value_parser = LogFormat::read)]
    log_format: Option<LogFormat>,
    /// The least important log lines to write: error, warn, info, debug or trace [default: info]
    #[arg(long, value_name = "LEVEL", value_parser = LogLevel::read)]
    log_level: Option<LogLevel>,
    /// Where the gateway serves metrics to requests that name no session [default: /metrics]
    #[arg(long, value_name = "PATH", value_parser = value::http_path)]
    metrics_path: Option<String>,
}

#[derive(Args, Debug)]
#[command(next_help_heading = "Worker")]
pub(super) struct WorkerFlags {
    /// Set a variable in the workers' environment (repeatable); {{.Port}} and the like expand in it
    #[arg(long, value_name = "NAME=VALUE", value_parser = value::variable)]
    env: Vec<Variable>,
    /// The workers' working directory; {{.Workspace}} is each worker's own [default: that; with the
    /// sandbox off, the current directory]
    #[arg(long, value_name = "DIR", value_parser = worker_directory)]
    cwd: Option<PathBuf>,
    /// Where workers listen: port, socket (a Unix socket) or inherit (socket activation) [default: port]
    #[arg(long, value_name = "HOW", value_parser = Listen::read)]
    worker_listen: Option<Listen>,
    /// What shows that a worker is ready: http, http:PATH, tcp, socket, stdout:REGEX, notify (sd_notify) or
    /// command:TEXT (a shell command) [default: http]
    #[arg(long, value_name = "HOW", value_parser = value::ready)]
    ready: Option<Readiness>,
    /// The path that answers 2xx when a worker is healthy [default: /health]
    #[arg(long, value_name = "PATH", value_parser = value::http_path)]
    health_path: Option<String>,
    /// How long a worker may take until it is ready [default: 30s]
    #[arg(long, value_name = "TIME", value_parser = value::positive_duration)]
    start_timeout: Option<Duration>,
    /// The signal that asks a worker to stop [default: TERM]
    #[arg(long, value_name = "SIGNAL", value_parser = value::signal)]
    stop_signal: Option<Signal>,
    /// How long a worker may take to stop before it is killed [default: 10s]
    #[arg(long, value_name = "TIME", value_parser = value::duration)]
    stop_grace: Option<Duration>,
    /// Speak HTTP/2 with the workers, as gRPC needs
    #[arg(long)]
    http2: bool,
    /// The port that each worker has in a network of its own [default: 8000]
    #[arg(long, value_name = "PORT", value_parser = value::worker_port)]
    port: Option<u16>,
}

#[derive(Args, Debug)]
#[command(next_help_heading = "Resources")]
pub(super) struct ResourceFlags {
    /// The least and the most workers [default: 1..10]
    #[arg(long, value_name = "MIN..MAX", value_parser = value::worker_range)]
    workers: Option<WorkerRange>,
    /// How many healthy workers wait for new sessions [default: 1]
    #[arg(long, value_name = "N", value_parser = value::number::<usize>)]
    spare: Option<usize>,
    /// How long a session may be idle before it ends [default: 5m]
    #[arg(long, value_name = "TIME", value_parser = value::positive_duration)]
    ttl: Option<Duration>,
    /// What idle counts from: lease (the last request) or bytes (the last byte) [default: lease]
    #[arg(long, value_name = "WHAT", value_parser = IdleBy::read)]
    idle_by: Option<IdleBy>,
    /// How long a session may live, idle or not [default: no limit]
    #[arg(long, value_name = "TIME", value_parser = value::positive_duration)]
    max_lifetime: Option<Duration>,
    /// How long a request may wait for a worker [default: 30s]
    #[arg(long, value_name = "TIME", value_parser = value::positive_duration)]
    acquire_timeout: Option<Duration>,
    /// How many requests may wait for a worker at once [default: 1000]
    #[arg(long, value_name = "N", value_parser = value::positive_number)]
    max_waiting: Option<usize>,
    /// What a new session does when all workers are taken: wait or evict-idle [default: wait]
    #[arg(long, value_name = "WHAT", value_parser = WhenFull::read)]
    when_full: Option<WhenFull>,
    /// Let a worker serve another session after its own ended; what one tenant left, the next one finds
    #[arg(long)]
    worker_reuse: bool,
    /// How often each worker is asked whether it is healthy [default: 5s]
    #[arg(long, value_name = "TIME", value_parser = value::positive_duration)]
    health_interval: Option<Duration>,
    /// How many files a worker may have open [default: 4096]
    #[arg(long, value_name = "N", value_parser = value::open_files)]
    open_files: Option<u64>,
    /// The most memory of a worker, such as 512MiB (0: no limit) [default: no limit]
    #[arg(long, value_name = "SIZE", value_parser = value::size)]
    memory: Option<u64>,
    /// The most CPU of a worker in cores, such as 0.5 (0: no limit) [default: no limit]
    #[arg(long, value_name = "CORES", value_parser = value::cores)]
    cpu: Option<f64>,
    /// The most processes of a worker (-1: no limit) [default: 100, where the host can count them]
    #[arg(long, value_name = "N", value_parser = value::pids, allow_negative_numbers = true)]
    pids: Option<PidsLimit>,
}

#[derive(Args, Debug)]
#[command(next_help_heading = "Sandbox")]
pub(super) struct SandboxFlags {
    /// How much of the sandbox must be there: required, best-effort or off [default: best-effort]
    #[arg(long, value_name = "MODE", value_parser = SandboxMode::read)]
    sandbox: Option<SandboxMode>,
    /// What network a worker has: private (a loopback of its own), host, or egress (private, and outbound connections)
    /// [default: private]
    #[arg(long, value_name = "NETWORK", value_parser = NetworkMode::read)]
    network: Option<NetworkMode>,
    /// Which system calls a worker may make: default, browser (what Chromium's own sandbox needs as well) or off (all)
    /// [default: default]
    #[arg(long, value_name = "FILTER", value_parser = Seccomp::read)]
    seccomp: Option<Seccomp>,
    /// What becomes of a session's files when its worker ends: ephemeral (they go with it) or persistent (the session's
    /// next worker finds them) [default: ephemeral]
    #[arg(long, value_name = "KIND", value_parser = Workspace::read)]
    workspace: Option<Workspace>,
    /// Show workers this path of the host (repeatable); the system's directories are visible anyway
    #[arg(long, value_name = "PATH", value_parser = mounted_path)]
    read_only: Vec<PathBuf>,
    /// Let workers write to this path of the host (repeatable)
    #[arg(long, value_name = "PATH", value_parser = mounted_path)]
    writable: Vec<PathBuf>,
    /// Hide this path, which would be visible, from workers (repeatable)
    #[arg(long, value_name = "PATH", value_parser = mounted_path)]
    hidden: Vec<PathBuf>,
}

/// As in a file, and a relative path is taken from the current directory: who types it stands there.
fn worker_directory(text: &str) -> Result<PathBuf, Refusal> {
    value::worker_directory(&from_here(text)?)
}

/// As [`worker_directory`], for a path of the sandbox.
fn mounted_path(text: &str) -> Result<PathBuf, Refusal> {
    value::mounted_path(&from_here(text)?)
}

/// As in a file, and a relative path is taken from the current directory.
fn file_path(text: &str) -> Result<PathBuf, Refusal> {
    value::file_path(&from_here(text)?)
}

/// The absolute form of a path that was typed. One that begins with a template, and an empty one, stay as they are.
fn from_here(text: &str) -> Result<String, Refusal> {
    if text.is_empty() || text.starts_with('/') || text.starts_with("{{") {
        return Ok(text.to_owned());
    }
    let here = env::current_dir().map_err(|error| {
        let problem = format!("is relative, and the current directory cannot be told ({error})");
        Refusal::new(problem, "write a path that starts with /")
    })?;
    // What is above is another directory where the current one was reached by a link, so it is looked up.
    let path = here.join(text);
    let has_detour = path.components().any(|part| part == Component::ParentDir);
    let path = if has_detour { path.canonicalize().unwrap_or(path) } else { path.components().collect() };
    path.into_os_string().into_string().map_err(|_| {
        let problem = "is relative, and the current directory has a name that is no UTF-8";
        Refusal::new(problem, "go to another directory, or write a path that starts with /")
    })
}

fn flag<T>(name: &str, value: Option<T>) -> Maybe<T> {
    value.map(|value| Written { value, origin: Origin::flag(name) })
}

/// A flag without a value says something only when it is there.
fn switch(name: &str, on: bool) -> Maybe<bool> {
    flag(name, on.then_some(true))
}

pub(crate) fn words<T>(name: &str, values: Vec<T>) -> Maybe<Vec<Written<T>>> {
    let one = |value| Written { value, origin: Origin::flag(name) };
    flag(name, (!values.is_empty()).then(|| values.into_iter().map(one).collect()))
}

/// Keeps what `raw` has unless the flag was given.
fn set<T>(place: &mut Maybe<T>, written: Maybe<T>) {
    if written.is_some() {
        *place = written;
    }
}

impl DaemonFlags {
    /// Writes the flags that were given over what is there.
    pub(crate) fn apply(self, raw: &mut Raw) {
        let Self {
            listen,
            admin,
            tls_cert,
            tls_key,
            admin_token_file,
            control_socket,
            session_key,
            lookup_only,
            drain_timeout,
            response_timeout,
            max_connections,
            threads,
            log_format,
            log_level,
            metrics_path,
        } = self;
        set(&mut raw.network.data_bind, flag("--listen", listen));
        set(&mut raw.network.admin_bind, flag("--admin", admin));
        let tls = RawTls { cert_file: flag("--tls-cert", tls_cert), key_file: flag("--tls-key", tls_key) };
        set(&mut raw.network.tls, flag("--tls-cert", tls.cert_file.is_some().then_some(tls)));
        set(&mut raw.network.admin_token_file, flag("--admin-token-file", admin_token_file.map(Some)));
        set(&mut raw.network.control_socket, flag("--control-socket", control_socket));
        set(&mut raw.network.session_key, words("--session-key", session_key));
        set(&mut raw.network.lookup_only, switch("--lookup-only", lookup_only));
        set(&mut raw.network.drain_timeout, flag("--drain-timeout", drain_timeout));
        set(&mut raw.network.response_timeout, flag("--response-timeout", response_timeout.map(Some)));
        set(&mut raw.network.max_connections, flag("--max-connections", max_connections));
        set(&mut raw.network.threads, flag("--threads", threads));
        set(&mut raw.telemetry.log_format, flag("--log-format", log_format));
        set(&mut raw.telemetry.log_level, flag("--log-level", log_level));
        set(&mut raw.telemetry.metrics_path, flag("--metrics-path", metrics_path));
    }
}

impl WorkerFlags {
    pub(super) fn apply(self, raw: &mut Raw) {
        let Self { env, cwd, worker_listen, ready, health_path, start_timeout, stop_signal, stop_grace, http2, port } =
            self;
        let worker = &mut raw.pool.worker;
        worker.env = words("--env", env);
        worker.cwd = flag("--cwd", cwd.map(Some));
        worker.listen = flag("--worker-listen", worker_listen);
        worker.ready = flag("--ready", ready);
        worker.health_path = flag("--health-path", health_path);
        worker.start_timeout = flag("--start-timeout", start_timeout);
        worker.stop_signal = flag("--stop-signal", stop_signal);
        worker.stop_grace = flag("--stop-grace", stop_grace);
        worker.http2 = switch("--http2", http2);
        worker.port = flag("--port", port);
    }
}

impl ResourceFlags {
    pub(super) fn apply(self, raw: &mut Raw) {
        let Self {
            workers,
            spare,
            ttl,
            idle_by,
            max_lifetime,
            acquire_timeout,
            max_waiting,
            when_full,
            worker_reuse,
            health_interval,
            open_files,
            memory,
            cpu,
            pids,
        } = self;
        let resources = &mut raw.pool.resources;
        resources.min_workers = flag("--workers", workers.map(|(min, _)| min));
        resources.max_workers = flag("--workers", workers.map(|(_, max)| max));
        resources.spare = flag("--spare", spare);
        resources.ttl = flag("--ttl", ttl);
        resources.idle_by = flag("--idle-by", idle_by);
        resources.max_lifetime = flag("--max-lifetime", max_lifetime.map(Some));
        resources.acquire_timeout = flag("--acquire-timeout", acquire_timeout);
        resources.max_waiting = flag("--max-waiting", max_waiting);
        resources.when_full = flag("--when-full", when_full);
        resources.worker_reuse = switch("--worker-reuse", worker_reuse);
        resources.health_interval = flag("--health-interval", health_interval);
        resources.open_files = flag("--open-files", open_files);
        resources.memory_limit = flag("--memory", memory);
        resources.cpu_limit_cores = flag("--cpu", cpu);
        resources.pids_limit = flag("--pids", pids);
    }
}

impl SandboxFlags {
    pub(super) fn apply(self, raw: &mut Raw) {
        let Self { sandbox: mode, network, seccomp, workspace, read_only, writable, hidden } = self;
        let sandbox = &mut raw.pool.sandbox;
        sandbox.mode = flag("--sandbox", mode);
        sandbox.network = flag("--network", network);
        sandbox.seccomp = flag("--seccomp", seccomp);
        sandbox.workspace = flag("--workspace", workspace);
        sandbox.read_only = words("--read-only", read_only);
        sandbox.writable = words("--writable", writable);
        sandbox.hidden = words("--hidden", hidden);
    }
}
