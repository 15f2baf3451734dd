//! The settings as they were typed: each value with the place where it stands, nothing filled in.

use std::{ffi::OsString, net::SocketAddr, ops::RangeInclusive, path::PathBuf, time::Duration};

use herd_process::{Readiness, Signal};

use super::{
    Mode,
    mistake::{Origin, Written},
    settings::{
        IdleBy, JwtAlgorithm, Listen, LogFormat, LogLevel, NetworkMode, Reach, SandboxMode, Seccomp, WhenFull,
        Workspace,
    },
};

/// A setting that may have been left out.
pub(crate) type Maybe<T> = Option<Written<T>>;

/// Everything that a file or flags can say.
#[derive(Clone, Debug, Default)]
pub(crate) struct Raw {
    pub(crate) network: RawNetwork,
    /// The pool that is described at the top level.
    pub(crate) pool: RawPool,
    /// Where a file describes that pool first, even if by nothing but an empty section.
    pub(crate) top_level_pool: Option<Origin>,
    /// Those that are described by their names.
    pub(crate) pools: Vec<(Written<String>, RawPool)>,
    pub(crate) routes: Vec<Written<RawRoute>>,
    pub(crate) access: Maybe<RawAccess>,
    pub(crate) tenants: RawTenants,
    pub(crate) webhooks: Vec<Written<RawWebhook>>,
    pub(crate) telemetry: RawTelemetry,
    /// For which command the file was read.
    pub(crate) mode: Mode,
    /// The files whose content was filled in (`${file:/path}`), and where they are named.
    pub(crate) filled: Vec<Written<PathBuf>>,
}

/// What can be said of one kind of worker.
#[derive(Clone, Debug, Default)]
pub(crate) struct RawPool {
    pub(crate) worker: RawWorker,
    pub(crate) resources: RawResources,
    pub(crate) sandbox: RawSandbox,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct RawNetwork {
    pub(crate) data_bind: Maybe<SocketAddr>,
    pub(crate) admin_bind: Maybe<Option<SocketAddr>>,
    pub(crate) control_socket: Maybe<PathBuf>,
    pub(crate) session_key: Maybe<Vec<Written<String>>>,
    pub(crate) lookup_only: Maybe<bool>,
    pub(crate) drain_timeout: Maybe<Duration>,
    pub(crate) response_timeout: Maybe<Option<Duration>>,
    pub(crate) max_connections: Maybe<usize>,
    pub(crate) threads: Maybe<usize>,
    pub(crate) tls: Maybe<RawTls>,
    pub(crate) admin_tls: Maybe<RawTls>,
    pub(crate) admin_token_file: Maybe<Option<PathBuf>>,
    pub(crate) admin_hosts: Maybe<Vec<Written<String>>>,
}

/// Both are required.
#[derive(Clone, Debug, Default)]
pub(crate) struct RawTls {
    pub(crate) cert_file: Maybe<PathBuf>,
    pub(crate) key_file: Maybe<PathBuf>,
}

/// Which requests go to a pool.
#[derive(Clone, Debug, Default)]
pub(crate) struct RawRoute {
    /// Required.
    pub(crate) pool: Maybe<String>,
    pub(crate) host: Maybe<String>,
    pub(crate) path_prefix: Maybe<String>,
    pub(crate) strip_prefix: Maybe<bool>,
    pub(crate) header: Maybe<(String, Option<String>)>,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct RawAccess {
    pub(crate) tokens: Maybe<Vec<Written<RawToken>>>,
    pub(crate) jwt: Maybe<RawJwt>,
    pub(crate) query_parameter: Maybe<Option<String>>,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct RawToken {
    /// Required.
    pub(crate) name: Maybe<String>,
    pub(crate) tenant: Maybe<Option<String>>,
    /// This or the file.
    pub(crate) sha256: Maybe<[u8; 32]>,
    pub(crate) file: Maybe<PathBuf>,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct RawJwt {
    /// Required, as the key file and the audience are.
    pub(crate) algorithm: Maybe<JwtAlgorithm>,
    pub(crate) key_file: Maybe<PathBuf>,
    pub(crate) audience: Maybe<Vec<Written<String>>>,
    pub(crate) issuer: Maybe<Option<String>>,
    pub(crate) tenant_claim: Maybe<Option<String>>,
    pub(crate) session_claim: Maybe<Option<String>>,
    pub(crate) leeway: Maybe<Duration>,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct RawTenants {
    pub(crate) default: Maybe<RawTenantLimits>,
    pub(crate) named: Maybe<Vec<(Written<String>, RawTenantLimits)>>,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct RawTenantLimits {
    pub(crate) max_sessions: Maybe<Option<usize>>,
    pub(crate) max_waiting: Maybe<Option<usize>>,
    pub(crate) requests_per_second: Maybe<Option<u32>>,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct RawWebhook {
    /// Required.
    pub(crate) url: Maybe<String>,
    pub(crate) secret_file: Maybe<Option<PathBuf>>,
    pub(crate) events: Maybe<Vec<Written<String>>>,
    pub(crate) timeout: Maybe<Duration>,
    pub(crate) max_queue: Maybe<usize>,
    pub(crate) give_up_after: Maybe<Duration>,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct RawWorker {
    pub(crate) command: Maybe<Vec<Written<OsString>>>,
    pub(crate) env: Maybe<Vec<Written<(String, String)>>>,
    pub(crate) cwd: Maybe<Option<PathBuf>>,
    pub(crate) listen: Maybe<Listen>,
    pub(crate) ready: Maybe<Readiness>,
    pub(crate) health_path: Maybe<String>,
    pub(crate) start_timeout: Maybe<Duration>,
    pub(crate) start_health_check_delay: Maybe<Duration>,
    pub(crate) stop_signal: Maybe<Signal>,
    pub(crate) stop_grace: Maybe<Duration>,
    pub(crate) http2: Maybe<bool>,
    pub(crate) port: Maybe<u16>,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct RawResources {
    pub(crate) min_workers: Maybe<usize>,
    pub(crate) max_workers: Maybe<usize>,
    pub(crate) spare: Maybe<usize>,
    pub(crate) ttl: Maybe<Duration>,
    pub(crate) idle_by: Maybe<IdleBy>,
    pub(crate) max_lifetime: Maybe<Option<Duration>>,
    pub(crate) acquire_timeout: Maybe<Duration>,
    pub(crate) max_waiting: Maybe<usize>,
    pub(crate) when_full: Maybe<WhenFull>,
    pub(crate) worker_reuse: Maybe<bool>,
    pub(crate) health_interval: Maybe<Duration>,
    pub(crate) open_files: Maybe<u64>,
    /// In bytes; 0 asks for none.
    pub(crate) memory_limit: Maybe<u64>,
    /// 0 asks for none.
    pub(crate) cpu_limit_cores: Maybe<f64>,
    /// `None` asks for none.
    pub(crate) pids_limit: Maybe<Option<u32>>,
    /// In bytes.
    pub(crate) tmp_limit: Maybe<u64>,
    /// In bytes.
    pub(crate) shm_limit: Maybe<u64>,
    pub(crate) insecure_sandbox: Maybe<bool>,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct RawSandbox {
    pub(crate) mode: Maybe<SandboxMode>,
    pub(crate) network: Maybe<NetworkMode>,
    pub(crate) read_only: Maybe<Vec<Written<PathBuf>>>,
    pub(crate) writable: Maybe<Vec<Written<PathBuf>>>,
    pub(crate) hidden: Maybe<Vec<Written<PathBuf>>>,
    pub(crate) seccomp: Maybe<Seccomp>,
    pub(crate) seccomp_log: Maybe<bool>,
    pub(crate) egress_allow: Maybe<Vec<Written<Reach>>>,
    pub(crate) workspace: Maybe<Workspace>,
    pub(crate) workspace_dir: Maybe<PathBuf>,
    pub(crate) uid_range: Maybe<RangeInclusive<u32>>,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct RawTelemetry {
    pub(crate) log_format: Maybe<LogFormat>,
    pub(crate) log_level: Maybe<LogLevel>,
    pub(crate) metrics_path: Maybe<String>,
    pub(crate) otlp_endpoint: Maybe<Option<String>>,
    pub(crate) trace_ratio: Maybe<f64>,
}
