//! From what was typed to what it means: defaults, and the checks that need more than one value.

use std::{ffi::OsString, net::Ipv4Addr, time::Duration};

use herd_process::{Readiness, Signal};

use super::{
    mistake::{Mistake, Mistakes, Written},
    raw::{Maybe, Raw, RawNetwork, RawPool, RawResources, RawTelemetry, RawWorker},
    sandbox,
    settings::{
        self, Command, IdleBy, Listen, LogLevel, Network, Pool, Resources, Settings, Telemetry, WhenFull, Worker,
        Workspace,
    },
};

/// The data plane's port unless one is named.
const DATA_PORT: u16 = 8080;
/// The admin API's port unless one is named.
const ADMIN_PORT: u16 = 8081;
/// Where workers listen in networks of their own unless a port is named.
const WORKER_PORT: u16 = 8000;
/// The most workers unless a number is named.
pub(super) const MAX_WORKERS: usize = 10;

/// Fills in defaults and checks what belongs together. The answer counts only if no mistake was added.
pub(crate) fn resolve(raw: Raw, mistakes: &mut Mistakes) -> Settings {
    let pool = resolve_pool(settings::DEFAULT_POOL, raw.pool.clone(), &raw.network, mistakes);
    let (file, written) = (mistakes.file.clone(), raw.clone());
    let Raw { network, pool: _, telemetry } = raw;
    check_paths(&telemetry, mistakes);
    Settings {
        network: resolve_network(network, mistakes),
        pools: vec![pool],
        routes: Vec::new(),
        access: None,
        tenants: settings::Tenants::default(),
        webhooks: Vec::new(),
        telemetry: Telemetry {
            log_format: telemetry.log_format.map(|written| written.value),
            log_level: or(telemetry.log_level, LogLevel::Info),
            metrics_path: or(telemetry.metrics_path, "/metrics".to_owned()),
            otlp_endpoint: None,
            trace_ratio: 1.0,
        },
        file,
        raw: written,
    }
}

fn resolve_pool(name: &str, raw: RawPool, network: &RawNetwork, mistakes: &mut Mistakes) -> Pool {
    let sandbox = sandbox::resolve(&raw, network, mistakes);
    let RawPool { worker, resources, sandbox: _ } = raw.clone();
    Pool {
        name: name.to_owned(),
        worker: resolve_worker(worker, mistakes),
        resources: resolve_resources(resources, sandbox.workspace, mistakes),
        sandbox,
        file: mistakes.file.clone(),
        raw,
    }
}

fn or<T>(written: Maybe<T>, default: T) -> T {
    written.map_or(default, |written| written.value)
}

fn resolve_network(raw: RawNetwork, mistakes: &mut Mistakes) -> Network {
    let RawNetwork {
        data_bind,
        admin_bind,
        control_socket,
        session_key,
        lookup_only,
        drain_timeout,
        response_timeout,
        max_connections,
        threads,
    } = raw;
    let data = data_bind.as_ref().map_or((Ipv4Addr::LOCALHOST, DATA_PORT).into(), |written| written.value);
    let admin = admin_bind.as_ref().map_or(Some((Ipv4Addr::LOCALHOST, ADMIN_PORT).into()), |written| written.value);
    if admin == Some(data) && data.port() != 0 {
        let (origin, other) = match (admin_bind, data_bind) {
            (Some(admin), _) => (admin.origin, "the data plane's"),
            (None, Some(data)) => (data.origin, "the admin API's"),
            (None, None) => unreachable!("the defaults differ"),
        };
        mistakes.push(
            Mistake::new(origin, format!("is {other} address as well"), "give each a port of its own")
                .found(data.to_string()),
        );
    }
    if let Some(threads) = threads.as_ref().filter(|threads| threads.value > 1024) {
        mistakes.push(
            Mistake::new(threads.origin.clone(), "is more than 1024 threads", "write about as many as there are cores")
                .found(threads.value.to_string()),
        );
    }
    Network {
        data_bind: data,
        admin_bind: admin,
        control_socket: control_socket.map(|written| written.value),
        tls: None,
        admin_tls: None,
        admin_token_file: None,
        admin_hosts: Vec::new(),
        session_key: resolve_session_key(session_key, mistakes),
        lookup_only: or(lookup_only, false),
        drain_timeout: or(drain_timeout, Duration::from_secs(30)),
        response_timeout: or(response_timeout, None),
        max_connections: or(max_connections, 10_000),
        threads: threads.map(|written| written.value),
    }
}

fn resolve_session_key(raw: Maybe<Vec<Written<String>>>, mistakes: &mut Mistakes) -> herd_gateway::SessionKey {
    let Some(raw) = raw else { return herd_gateway::SessionKey::default() };
    if raw.value.is_empty() {
        let remedy = "write header:X-Session-ID, cookie:NAME, query:NAME, path:N or host";
        mistakes.push(Mistake::new(raw.origin, "is an empty list", remedy));
        return herd_gateway::SessionKey::default();
    }
    let sources: Vec<_> = raw.value.into_iter().map(|written| written.value).collect();
    // Each source was checked when it was read, and a list of sources is what they make together.
    sources.join(",").parse().unwrap_or_default()
}

fn resolve_worker(raw: RawWorker, mistakes: &mut Mistakes) -> Worker {
    let RawWorker {
        command,
        env,
        cwd,
        listen,
        ready,
        health_path,
        start_timeout,
        start_health_check_delay,
        stop_signal,
        stop_grace,
        http2,
        port,
    } = raw;
    check_env(env.as_ref().map_or(&[], |env| &env.value), mistakes);
    Worker {
        command: resolve_command(command, mistakes),
        env: or(env, Vec::new()).into_iter().map(|written| written.value).collect(),
        cwd: or(cwd, None),
        listen: or(listen, Listen::Port),
        ready: or(ready, Readiness::default()),
        health_path: or(health_path, "/health".to_owned()),
        start_timeout: or(start_timeout, Duration::from_secs(30)),
        start_health_check_delay: or(start_health_check_delay, Duration::ZERO),
        stop_signal: or(stop_signal, Signal::TERM),
        stop_grace: or(stop_grace, Duration::from_secs(10)),
        http2: or(http2, false),
        port: or(port, WORKER_PORT),
    }
}

fn resolve_command(raw: Maybe<Vec<Written<OsString>>>, mistakes: &mut Mistakes) -> Command {
    let Some(raw) = raw else { return Command::Repl };
    let mut words = raw.value.into_iter();
    match words.next() {
        Some(program) if !program.value.is_empty() => {
            Command::Program { program: program.value, args: words.map(|written| written.value).collect() }
        }
        Some(program) => {
            mistakes.push(Mistake::new(program.origin, "is an empty program", "write the program to run"));
            Command::Repl
        }
        None => {
            let remedy = "write the program and its arguments, or leave it out to run the built-in REPL";
            mistakes.push(Mistake::new(raw.origin, "is an empty list", remedy));
            Command::Repl
        }
    }
}

/// A variable that is written twice is most likely a slip, and which one counts would be a guess.
fn check_env(env: &[Written<(String, String)>], mistakes: &mut Mistakes) {
    for (index, variable) in env.iter().enumerate() {
        let name = &variable.value.0;
        if env[..index].iter().any(|earlier| earlier.value.0 == *name) {
            mistakes.push(
                Mistake::new(variable.origin.clone(), "is set a second time", "keep one of them").found(name.as_str()),
            );
        }
    }
}

fn check_paths(telemetry: &RawTelemetry, mistakes: &mut Mistakes) {
    if let Some(path) = telemetry.metrics_path.as_ref().filter(|path| path.value == "/healthz") {
        mistakes.push(
            Mistake::new(path.origin.clone(), "is the health page's path", "write another, such as /metrics")
                .found("/healthz"),
        );
    }
}

fn resolve_resources(raw: RawResources, workspace: Workspace, mistakes: &mut Mistakes) -> Resources {
    // The limits are settled with the sandbox.
    let RawResources {
        min_workers,
        max_workers,
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
        memory_limit: _,
        cpu_limit_cores: _,
        pids_limit: _,
        tmp_limit: _,
        shm_limit: _,
        insecure_sandbox: _,
    } = raw;
    let max = max_workers.as_ref().map_or(MAX_WORKERS, |written| written.value);
    let by_default = if max_workers.is_some() { "" } else { " by default" };
    for few in [&min_workers, &spare].into_iter().flatten() {
        if few.value > max {
            let problem = format!("is above the most workers there may be, which are {max}{by_default}");
            mistakes.push(
                Mistake::new(few.origin.clone(), problem, format!("write at most {max}, or allow more workers"))
                    .found(few.value.to_string()),
            );
        }
    }
    // A worker that keeps a session's files can only be started for that session.
    let waiting = match workspace {
        Workspace::Ephemeral => 1,
        Workspace::Persistent => 0,
    };
    Resources {
        min_workers: or(min_workers, waiting),
        max_workers: max,
        spare: or(spare, waiting),
        ttl: or(ttl, Duration::from_secs(5 * 60)),
        idle_by: or(idle_by, IdleBy::Lease),
        max_lifetime: or(max_lifetime, None),
        acquire_timeout: or(acquire_timeout, Duration::from_secs(30)),
        max_waiting: or(max_waiting, 1000),
        when_full: or(when_full, WhenFull::Wait),
        worker_reuse: or(worker_reuse, false),
        health_interval: or(health_interval, Duration::from_secs(5)),
        open_files: or(open_files, 4096),
    }
}
