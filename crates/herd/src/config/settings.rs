//! What the settings mean: every value is there, checked, and with its default filled in.

use std::{ffi::OsString, net::SocketAddr, ops::RangeInclusive, path::PathBuf, time::Duration};

use herd_gateway::SessionKey;
use herd_process::{Readiness, Signal};
pub(crate) use herd_sandbox::{Mode as SandboxMode, Network as NetworkMode, Reach, Seccomp};

use super::{raw::Raw, value::Word};

/// The daemon's settings.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) network: Network,
    pub(crate) worker: Worker,
    pub(crate) resources: Resources,
    pub(crate) sandbox: Sandbox,
    pub(crate) telemetry: Telemetry,
    pub(crate) written: Written,
}

/// What was written, and where, for what is found out later.
#[derive(Clone, Debug)]
pub(crate) struct Written {
    /// The configuration file as it was named; `None` if the settings came as flags, or nobody wrote any.
    pub(crate) file: Option<String>,
    pub(crate) raw: Raw,
}

impl Settings {
    /// What is no mistake and yet hardly what is wanted, one sentence each.
    pub(crate) fn warnings(&self) -> Vec<String> {
        let mut warnings = self.sandbox.skipped.clone();
        if self.network.lookup_only {
            warnings.push(
                "lookup_only: no session can be served, because nothing but the gateway starts sessions in this version"
                    .to_owned(),
            );
        }
        warnings
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Network {
    pub(crate) data_bind: SocketAddr,
    /// `None`: there is no admin port.
    pub(crate) admin_bind: Option<SocketAddr>,
    /// `None`: the daemon chooses a path in its runtime directory.
    pub(crate) control_socket: Option<PathBuf>,
    /// Where a request's session ID is looked for, in this order.
    pub(crate) session_key: SessionKey,
    pub(crate) lookup_only: bool,
    pub(crate) drain_timeout: Duration,
    pub(crate) response_timeout: Option<Duration>,
    pub(crate) max_connections: usize,
    /// `None`: as many gateway threads as the process may use cores.
    pub(crate) threads: Option<usize>,
}

#[derive(Clone, Debug)]
pub(crate) struct Worker {
    pub(crate) command: Command,
    pub(crate) env: Vec<(String, String)>,
    pub(crate) cwd: Option<PathBuf>,
    pub(crate) listen: Listen,
    pub(crate) ready: Readiness,
    pub(crate) health_path: String,
    pub(crate) start_timeout: Duration,
    pub(crate) start_health_check_delay: Duration,
    pub(crate) stop_signal: Signal,
    pub(crate) stop_grace: Duration,
    pub(crate) http2: bool,
    /// Where it listens in a network of its own, which is the same for all.
    pub(crate) port: u16,
}

/// What the workers run.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Command {
    /// The built-in REPL.
    Repl,
    /// A program with its arguments.
    Program { program: OsString, args: Vec<OsString> },
}

#[derive(Clone, Debug)]
pub(crate) struct Resources {
    pub(crate) min_workers: usize,
    pub(crate) max_workers: usize,
    pub(crate) spare: usize,
    pub(crate) ttl: Duration,
    pub(crate) idle_by: IdleBy,
    pub(crate) max_lifetime: Option<Duration>,
    pub(crate) acquire_timeout: Duration,
    pub(crate) max_waiting: usize,
    pub(crate) when_full: WhenFull,
    pub(crate) worker_reuse: bool,
    pub(crate) health_interval: Duration,
    pub(crate) open_files: u64,
}

/// How far workers are sealed off. What the host cannot give is another matter: see `isolation`.
#[derive(Clone, Debug)]
pub(crate) struct Sandbox {
    pub(crate) mode: SandboxMode,
    pub(crate) network: NetworkMode,
    /// What a worker with `egress` reaches besides public addresses.
    pub(crate) egress_allow: Vec<Reach>,
    pub(crate) read_only: Vec<PathBuf>,
    pub(crate) writable: Vec<PathBuf>,
    pub(crate) hidden: Vec<PathBuf>,
    pub(crate) seccomp: Seccomp,
    pub(crate) seccomp_log: bool,
    pub(crate) workspace: Workspace,
    /// `None`: where the system keeps such things.
    pub(crate) workspace_dir: Option<PathBuf>,
    /// Users and groups that workers run as, if the daemon is root.
    pub(crate) uid_range: Option<RangeInclusive<u32>>,
    pub(crate) limits: Limits,
    /// What the operator asked for that the mode `off` skips, one sentence each.
    pub(crate) skipped: Vec<String>,
}

/// What a worker may use at most. What is `None` was not asked for.
#[derive(Clone, Debug)]
pub(crate) struct Limits {
    /// Bytes.
    pub(crate) memory: Option<u64>,
    /// Cores.
    pub(crate) cpu: Option<f64>,
    pub(crate) pids: Pids,
    /// The size of `/tmp`, in bytes.
    pub(crate) tmp: u64,
    /// The size of `/dev/shm`, in bytes.
    pub(crate) shm: u64,
}

/// How many processes and threads a worker may have.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Pids {
    /// As many as is usual, if the host can count them.
    Default,
    /// As many as were asked for.
    AtMost(u32),
    /// No limit was asked for.
    Unlimited,
}

#[derive(Clone, Debug)]
pub(crate) struct Telemetry {
    /// `None`: text on a terminal, JSON otherwise.
    pub(crate) log_format: Option<LogFormat>,
    pub(crate) log_level: LogLevel,
    pub(crate) metrics_path: String,
}

/// How a worker gets the place where it listens.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Listen {
    /// It is told a TCP port.
    Port,
    /// It is told the path of a Unix socket.
    Socket,
    /// It inherits a listening socket, as with socket activation.
    Inherit,
}

/// What a session's idle clock counts from.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum IdleBy {
    /// The end of its last lease.
    Lease,
    /// The last byte to or from its worker.
    Bytes,
}

/// What a new session does when all workers are taken.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum WhenFull {
    /// It waits for a worker.
    Wait,
    /// It ends the session that has been idle for longest.
    EvictIdle,
}

/// What becomes of a session's workspace when the session ends.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Workspace {
    /// It is removed.
    Ephemeral,
    /// It is kept, and the next session of that name finds it.
    Persistent,
}

/// How log lines are written.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum LogFormat {
    /// One JSON object a line.
    Json,
    /// For people.
    Text,
}

/// The least important lines that are written.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum LogLevel {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

impl Word for Listen {
    const WORDS: &'static [(&'static str, Self)] =
        &[("port", Self::Port), ("socket", Self::Socket), ("inherit", Self::Inherit)];
}

impl Word for IdleBy {
    const WORDS: &'static [(&'static str, Self)] = &[("lease", Self::Lease), ("bytes", Self::Bytes)];
}

impl Word for WhenFull {
    const WORDS: &'static [(&'static str, Self)] = &[("wait", Self::Wait), ("evict-idle", Self::EvictIdle)];
}

impl Word for SandboxMode {
    const WORDS: &'static [(&'static str, Self)] =
        &[("required", Self::Required), ("best-effort", Self::BestEffort), ("off", Self::Off)];
}

impl Word for NetworkMode {
    const WORDS: &'static [(&'static str, Self)] =
        &[("private", Self::Private), ("host", Self::Host), ("egress", Self::Egress)];
}

impl Word for Seccomp {
    const WORDS: &'static [(&'static str, Self)] =
        &[("default", Self::Default), ("browser", Self::Browser), ("off", Self::Off)];
}

impl Word for Workspace {
    const WORDS: &'static [(&'static str, Self)] = &[("ephemeral", Self::Ephemeral), ("persistent", Self::Persistent)];
}

impl Word for LogFormat {
    const WORDS: &'static [(&'static str, Self)] = &[("json", Self::Json), ("text", Self::Text)];
}

impl Word for LogLevel {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("error", Self::Error),
        ("warn", Self::Warn),
        ("info", Self::Info),
        ("debug", Self::Debug),
        ("trace", Self::Trace),
    ];
}
