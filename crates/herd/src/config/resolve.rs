//! From what was typed to what it means: defaults, and the checks that need more than one value.

use std::{ffi::OsString, time::Duration};

use herd_process::{Readiness, Signal};

use super::{
    access,
    mistake::{Mistake, Mistakes, Written},
    network, pools,
    raw::{Maybe, Raw, RawNetwork, RawPool, RawResources, RawWorker},
    routes, sandbox,
    settings::{Command, IdleBy, Listen, Pool, Resources, Settings, WhenFull, Worker, Workspace},
    telemetry, tenants, webhooks,
};

/// Where workers listen in networks of their own unless a port is named.
const WORKER_PORT: u16 = 8000;
/// The most workers unless a number is named.
pub(super) const MAX_WORKERS: usize = 10;

/// Fills in defaults and checks what belongs together. The answer counts only if no mistake was added.
pub(super) fn resolve(raw: Raw, mistakes: &mut Mistakes) -> Settings {
    let written = raw.clone();
    let pools = pools::resolve(&raw, mistakes);
    let telemetry = telemetry::resolve(raw.telemetry, mistakes);
    let known: Vec<_> = raw.pools.iter().map(|(name, _)| name.value.as_str()).collect();
    let by_default = pools.iter().map(|pool| pool.name.as_str()).find(|name| !known.contains(name));
    let known: Vec<_> = by_default.into_iter().chain(known).collect();
    let routes = routes::resolve(raw.routes, &known, &telemetry.metrics_path, mistakes);
    let access = access::resolve(raw.access, &raw.network, mistakes);
    let network = network::resolve(raw.network, raw.mode, mistakes);
    let webhooks = webhooks::resolve(raw.webhooks, mistakes);
    let mut warnings = network::warnings(&written.network, &network, access.is_some());
    warnings.extend(routes::warnings(&routes, &pools, &written.pools, written.top_level_pool.as_ref()));
    warnings.extend(webhooks::warnings(&written.webhooks));
    warnings.extend(pools::warnings(&written, &pools));
    warnings.extend(tenants::warnings(&written));
    Settings {
        network,
        pools,
        routes,
        access,
        tenants: tenants::resolve(raw.tenants),
        webhooks,
        telemetry,
        warnings,
        file: mistakes.file.clone(),
        raw: written,
    }
}

/// `prefix` stands before the names of its sections.
pub(super) fn resolve_pool(
    name: &str,
    prefix: &str,
    raw: RawPool,
    network: &RawNetwork,
    mistakes: &mut Mistakes,
) -> Pool {
    let sandbox = sandbox::resolve(&raw, prefix, network, mistakes);
    let RawPool { worker, resources, sandbox: _ } = raw.clone();
    Pool {
        name: name.to_owned(),
        worker: resolve_worker(worker, mistakes),
        resources: resolve_resources(resources, sandbox.workspace, mistakes),
        sandbox,
        secrets: Vec::new(),
        file: mistakes.file.clone(),
        raw,
    }
}

pub(super) fn or<T>(written: Maybe<T>, default: T) -> T {
    written.map_or(default, |written| written.value)
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
            let max = max_workers.as_ref().map_or(max.to_string(), |written| written.origin.shown(max));
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
