//! What the settings mean: every value is there, checked, and with its default filled in.

use std::{
    collections::BTreeMap, ffi::OsString, fmt, net::SocketAddr, ops::RangeInclusive, path::PathBuf, time::Duration,
};

use herd_gateway::SessionKey;
use herd_process::{Readiness, Signal};
pub(crate) use herd_sandbox::{Mode as SandboxMode, Network as NetworkMode, Reach, Seccomp};

use super::{
    mistake::{Mistake, Mistakes},
    raw::{Raw, RawPool},
};

/// The daemon's settings.
#[derive(Clone)]
pub(crate) struct Settings {
    pub(crate) network: Network,
    /// At least one; no two have the same name.
    pub(crate) pools: Vec<Pool>,
    /// Tried in this order; what none of them fits goes to the pool [`DEFAULT_POOL`] if there is one.
    pub(crate) routes: Vec<Route>,
    /// `None`: whoever reaches the gateway may use it.
    pub(crate) access: Option<Access>,
    pub(crate) tenants: Tenants,
    pub(crate) webhooks: Vec<Webhook>,
    pub(crate) telemetry: Telemetry,
    /// What is no mistake and yet hardly what is wanted, besides what the sandbox skips.
    pub(crate) warnings: Vec<Mistake>,
    /// The configuration file as it was named; `None` if the settings came as flags, or nobody wrote any.
    pub(crate) file: Option<String>,
    /// What was written, and where, for what is found out later.
    pub(crate) raw: Raw,
}

/// The name of the pool that the sections `worker`, `resources` and `sandbox` at the top level describe.
pub(crate) const DEFAULT_POOL: &str = "default";

/// One kind of worker.
#[derive(Clone)]
pub(crate) struct Pool {
    pub(crate) name: String,
    pub(crate) worker: Worker,
    pub(crate) resources: Resources,
    pub(crate) sandbox: Sandbox,
    /// The settings that name a file which no worker may read.
    pub(crate) secrets: Vec<String>,
    /// The configuration file as it was named.
    pub(crate) file: Option<String>,
    pub(crate) raw: RawPool,
}

impl Settings {
    /// What is no mistake and yet hardly what is wanted, in the order of the file.
    pub(crate) fn warnings(&self) -> Mistakes {
        let skipped = self.pools.iter().flat_map(|pool| &pool.sandbox.skipped);
        let all = self.warnings.iter().chain(skipped).cloned().collect();
        let mut warnings = Mistakes { file: self.file.clone(), all };
        warnings.sort();
        warnings
    }
}

/// Which requests go to a pool: those that fit everything that is there.
#[derive(Clone, Eq, PartialEq)]
pub(crate) struct Route {
    pub(crate) pool: String,
    /// In lower case, without a port; `*.example.com` fits every name below.
    pub(crate) host: Option<String>,
    /// Begins with a slash; it fits whole segments.
    pub(crate) path_prefix: Option<String>,
    /// Whether workers do not see the prefix.
    pub(crate) strip_prefix: bool,
    /// A field's name in lower case, and its value unless any will do.
    pub(crate) header: Option<(String, Option<String>)>,
}

/// Who may use the gateway. Whoever shows a valid token may.
#[derive(Clone, PartialEq)]
pub(crate) struct Access {
    pub(crate) tokens: Vec<Token>,
    pub(crate) jwt: Option<Jwt>,
    /// A query parameter that may hold the token where a client cannot send `authorization`; workers do not see it.
    pub(crate) query_parameter: Option<String>,
}

/// A bearer token.
#[derive(Clone, PartialEq)]
pub(crate) struct Token {
    /// What logs call it.
    pub(crate) name: String,
    pub(crate) tenant: Option<String>,
    pub(crate) secret: TokenSecret,
}

/// How a token is known.
#[derive(Clone, Eq, PartialEq)]
pub(crate) enum TokenSecret {
    /// By its hash.
    Sha256([u8; 32]),
    /// From a file that holds the token, or `sha256:HEX`.
    File(PathBuf),
}

/// JSON Web Tokens (RFC 7519) that are believed.
#[derive(Clone, PartialEq)]
pub(crate) struct Jwt {
    pub(crate) algorithm: JwtAlgorithm,
    /// The secret (HS256) or the public key in PEM (EdDSA, RS256).
    pub(crate) key_file: PathBuf,
    /// One of them must be in `aud`. Never empty.
    pub(crate) audience: Vec<String>,
    pub(crate) issuer: Option<String>,
    /// The claim that names the tenant; `None`: there are no tenants.
    pub(crate) tenant_claim: Option<String>,
    /// The claim that names the only session that the token is for.
    pub(crate) session_claim: Option<String>,
    /// How far clocks may differ.
    pub(crate) leeway: Duration,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum JwtAlgorithm {
    Hs256,
    EdDsa,
    Rs256,
}

/// What tenants may have at once, over all pools.
#[derive(Clone, Default, PartialEq)]
pub(crate) struct Tenants {
    /// Those that are not named.
    pub(crate) default: TenantLimits,
    pub(crate) named: BTreeMap<String, TenantLimits>,
}

/// `None` is no limit.
#[derive(Clone, Copy, Default, PartialEq)]
pub(crate) struct TenantLimits {
    pub(crate) max_sessions: Option<usize>,
    pub(crate) max_waiting: Option<usize>,
    pub(crate) requests_per_second: Option<u32>,
}

/// Where events are posted.
#[derive(Clone, PartialEq)]
pub(crate) struct Webhook {
    /// `http://` or `https://`.
    pub(crate) url: String,
    /// The key of the signature, in a file.
    pub(crate) secret_file: Option<PathBuf>,
    /// Kinds of events, as `herd_pool::EventKind::name` has them; empty: all.
    pub(crate) events: Vec<String>,
    pub(crate) timeout: Duration,
    /// How many events may wait for the receiver.
    pub(crate) max_queue: usize,
    /// For how long an event is tried again.
    pub(crate) give_up_after: Duration,
}

/// A certificate and its key, PEM files.
#[derive(Clone, Eq, PartialEq)]
pub(crate) struct Tls {
    pub(crate) cert_file: PathBuf,
    pub(crate) key_file: PathBuf,
}

#[derive(Clone, PartialEq)]
pub(crate) struct Network {
    pub(crate) data_bind: SocketAddr,
    /// `None`: there is no admin port.
    pub(crate) admin_bind: Option<SocketAddr>,
    /// The TLS of the gateway; `None`: plain HTTP.
    pub(crate) tls: Option<Tls>,
    /// The TLS of the admin address.
    pub(crate) admin_tls: Option<Tls>,
    /// A file with the bearer token (or `sha256:HEX`, its hash) that the admin address asks for.
    pub(crate) admin_token_file: Option<PathBuf>,
    /// Under which names, besides those of loopback, the admin address may be asked.
    pub(crate) admin_hosts: Vec<String>,
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

#[derive(Clone, PartialEq)]
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
#[derive(Clone, Eq, PartialEq)]
pub(crate) enum Command {
    /// The built-in REPL.
    Repl,
    /// A program with its arguments.
    Program { program: OsString, args: Vec<OsString> },
}

#[derive(Clone, PartialEq)]
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
#[derive(Clone, PartialEq)]
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
    /// What the operator asked for that the mode `off` skips, as warnings.
    pub(crate) skipped: Vec<Mistake>,
}

/// What a worker may use at most. What is `None` was not asked for.
#[derive(Clone, PartialEq)]
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

#[derive(Clone, PartialEq)]
pub(crate) struct Telemetry {
    /// `None`: text on a terminal, JSON otherwise.
    pub(crate) log_format: Option<LogFormat>,
    pub(crate) log_level: LogLevel,
    pub(crate) metrics_path: String,
    /// Where traces go (OTLP over HTTP), in builds with the feature `otlp`.
    pub(crate) otlp_endpoint: Option<String>,
    /// The share of requests that are traced, whatever the client's `traceparent` says: 0 to 1.
    pub(crate) trace_ratio: f64,
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

/// A value may have come out of a variable or a file, and be a secret. Nothing shows it by accident.
macro_rules! without_values {
    ($($name:ident)+) => {
        $(impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct(stringify!($name)).finish_non_exhaustive()
            }
        })+
    };
}

without_values!(
    Settings Pool Route Access Token TokenSecret Jwt Tenants TenantLimits Webhook Tls Network Worker Command Resources
    Sandbox Limits Telemetry
);
