//! What the settings mean: every value is there, checked, and with its default filled in.

use std::{ffi::OsString, net::SocketAddr, path::PathBuf, time::Duration};

use herd_gateway::SessionKey;
use herd_process::{Readiness, Signal};

use super::value::Word;

/// The daemon's settings.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) network: Network,
    pub(crate) worker: Worker,
    pub(crate) resources: Resources,
    pub(crate) sandbox: Sandbox,
    pub(crate) telemetry: Telemetry,
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

#[derive(Clone, Debug)]
pub(crate) struct Sandbox {
    pub(crate) mode: SandboxMode,
    /// What the operator asked for that the mode `off` skips, one sentence each.
    pub(crate) skipped: Vec<String>,
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

/// How much of the sandbox must be there.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum SandboxMode {
    /// All of it, or no worker starts.
    Required,
    /// As much as this host and version can do.
    BestEffort,
    /// None of it.
    Off,
}

/// What network a worker sees.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum NetworkMode {
    /// A loopback of its own and nothing else.
    Private,
    /// The host's.
    Host,
}

/// Which system calls a worker may make.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Seccomp {
    /// Those of the default filter.
    Default,
    /// All.
    Off,
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
    const WORDS: &'static [(&'static str, Self)] = &[("private", Self::Private), ("host", Self::Host)];
}

impl Word for Seccomp {
    const WORDS: &'static [(&'static str, Self)] = &[("default", Self::Default), ("off", Self::Off)];
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
