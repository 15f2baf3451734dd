//! Kinds of workers: the sections `worker`, `resources` and `sandbox`, at the top level and under `pools`.

use std::path::{Path, PathBuf};

use super::{
    fields::{Fields, about},
    file::section,
    form::{
        ARGUMENT, BOOLEAN, CORES, DIRECTORY, DURATION, MEBIBYTES, MOUNTED, NUMBER, OPEN_FILES, PAGE, PIDS, POOL_NAME,
        PORT, POSITIVE, POSITIVE_DURATION, POSITIVE_MEBIBYTES, REACH, READINESS, SIGNAL, UID_RANGE, VARIABLE,
        WORKING_DIRECTORY, word,
    },
    mistake::{Mistake, Mistakes, Origin, Written},
    raw::{Raw, RawPool, RawResources, RawSandbox, RawWorker},
    resolve::resolve_pool,
    settings::{DEFAULT_POOL, Pool, SandboxMode, Workspace},
};
use crate::workers::kept_workspaces;

/// The three sections of one pool.
pub(super) fn read(f: &mut Fields<'_>) -> RawPool {
    RawPool {
        worker: section(f, "worker", about("The program that each session gets a process of."), worker),
        resources: section(
            f,
            "resources",
            about("How many workers there are, how long, and what each may use."),
            resources,
        ),
        sandbox: section(f, "sandbox", about("What workers see of the host and reach from it."), sandbox),
    }
}

pub(super) fn read_named(f: &mut Fields<'_>) -> Vec<(Written<String>, RawPool)> {
    let text = "Several kinds of workers, each with a name of 1 to 64 lower-case letters, digits, - and _. The sections at \
                the top level are the pool default. No pool has anything from another.";
    let Some(pools) = f.named("pools", POOL_NAME, about(text), read) else { return Vec::new() };
    let is_refused = |mistake: &Mistake| mistake.origin.name == "pools" || mistake.origin.name.starts_with("pools.");
    if pools.value.is_empty() && !f.mistakes.all.iter().any(is_refused) {
        let remedy = "write a line `name:` for each pool, with its settings below, or leave `pools` out";
        f.mistakes.push(Mistake::new(pools.origin, "has no pools in it", remedy));
    }
    pools.value
}

fn worker(f: &mut Fields<'_>) -> RawWorker {
    RawWorker {
        command: f.list(
            "command",
            ARGUMENT,
            about("The program and its arguments; {{.Port}}, {{.Socket}}, {{.WorkerID}} and {{.Workspace}} expand. Default: the built-in REPL."),
        ),
        env: f.list(
            "env",
            VARIABLE,
            about("Variables of the workers, NAME=VALUE each; templates expand. Nothing of herd's own environment is inherited.")
                .default("[]"),
        ),
        cwd: f.nullable(
            "cwd",
            WORKING_DIRECTORY,
            about("The working directory: a path, or one in {{.Workspace}}. null: the worker's workspace; with the sandbox off, where herd was started.").default("null"),
        ),
        listen: f.value(
            "listen",
            word(),
            about("Where workers listen: a TCP port, a Unix socket, or a socket that they inherit (socket activation).")
                .default(r#""port""#),
        ),
        ready: f.value(
            "ready",
            READINESS,
            about("What shows that a worker is ready: http, http:/PATH, tcp, socket, stdout:REGEX, notify (sd_notify) or command:TEXT.")
                .default(r#""http""#),
        ),
        health_path: f.value(
            "health_path",
            PAGE,
            about("The path that answers 2xx when a worker is healthy.").default(r#""/health""#),
        ),
        start_timeout: f.value(
            "start_timeout",
            POSITIVE_DURATION,
            about("How long a worker may take until it is ready.").default(r#""30s""#),
        ),
        start_health_check_delay: f.value(
            "start_health_check_delay",
            DURATION,
            about("How long to wait before a worker is first asked whether it is ready.").default(r#""0s""#),
        ),
        stop_signal: f.value(
            "stop_signal",
            SIGNAL,
            about("The signal that asks a worker to stop: its name or number.").default(r#""TERM""#),
        ),
        stop_grace: f.value(
            "stop_grace",
            DURATION,
            about("How long a worker may take to stop before it is killed.").default(r#""10s""#),
        ),
        http2: f.value("http2", BOOLEAN, about("Speak HTTP/2 with the workers, as gRPC needs.").default("false")),
        port: f.value(
            "port",
            PORT,
            about("The port that each worker has in a network of its own.").default("8000"),
        ),
    }
}

fn resources(f: &mut Fields<'_>) -> RawResources {
    RawResources {
        min_workers: f.value(
            "min_workers",
            NUMBER,
            about("The fewest workers there are, free or not. Default: 1; with persistent workspaces 0."),
        ),
        max_workers: f.value("max_workers", POSITIVE, about("The most workers there are.").default("10")),
        spare: f.value(
            "spare",
            NUMBER,
            about("How many free workers wait for a session. Default: 1; with persistent workspaces 0."),
        ),
        ttl: f.value("ttl", POSITIVE_DURATION, about("How long a session may be idle.").default(r#""5m""#)),
        idle_by: f.value(
            "idle_by",
            word(),
            about("What ttl counts from: the end of the last request, or the last byte to or from the worker.")
                .default(r#""lease""#),
        ),
        max_lifetime: f.nullable(
            "max_lifetime",
            POSITIVE_DURATION,
            about("How long a session may live, used or not. null: no limit.").default("null"),
        ),
        acquire_timeout: f.value(
            "acquire_timeout",
            POSITIVE_DURATION,
            about("How long a request may wait for a worker; then 503.").default(r#""30s""#),
        ),
        max_waiting: f.value(
            "max_waiting",
            POSITIVE,
            about("How many requests may wait at once; one more gets 503.").default("1000"),
        ),
        when_full: f.value(
            "when_full",
            word(),
            about("What a new session does when all workers are taken: wait, or end the one that is idle longest.")
                .default(r#""wait""#),
        ),
        worker_reuse: f.value(
            "worker_reuse",
            BOOLEAN,
            about("Give a worker whose session ended to another session, which finds what the first one left.")
                .default("false"),
        ),
        health_interval: f.value(
            "health_interval",
            POSITIVE_DURATION,
            about("How often each worker is asked whether it is healthy.").default(r#""5s""#),
        ),
        open_files: f.value(
            "open_files",
            OPEN_FILES,
            about("How many files each process of a worker may have open (RLIMIT_NOFILE).").default("4096"),
        ),
        memory_limit: f.value(
            "memory_limit_mb",
            MEBIBYTES,
            about("The most memory of a worker's processes together, in MiB, without swap. 0: no limit.").default("0"),
        ),
        cpu_limit_cores: f.value(
            "cpu_limit_cores",
            CORES,
            about("The most CPU time of a worker's processes together, in cores, at least 0.01. 0: no limit.")
                .default("0"),
        ),
        pids_limit: f.value(
            "pids_limit",
            PIDS,
            about("The most processes and threads of a worker; -1: no limit. Default: 100, where the host can count them."),
        ),
        tmp_limit: f.value(
            "tmp_limit_mb",
            POSITIVE_MEBIBYTES,
            about("The size of each worker's /tmp, in MiB.").default("64"),
        ),
        shm_limit: f.value(
            "shm_limit_mb",
            POSITIVE_MEBIBYTES,
            about("The size of each worker's /dev/shm, in MiB.").default("64"),
        ),
        insecure_sandbox: f.value(
            "insecure_sandbox",
            BOOLEAN,
            about("The v0.4 name of `sandbox.mode: off`.").default("false"),
        ),
    }
}

fn sandbox(f: &mut Fields<'_>) -> RawSandbox {
    RawSandbox {
        mode: f.value(
            "mode",
            word(),
            about("required: every layer, or the daemon does not start. best-effort: as many as this host has. off: none.")
                .default(r#""required""#),
        ),
        network: f.value(
            "network",
            word(),
            about("private: a loopback of the worker's own. egress: the same, and outbound connections. host: the host's.")
                .default(r#""private""#),
        ),
        read_only: f.list(
            "read_only",
            MOUNTED,
            about("Paths of the host that workers see besides the system's directories.").default("[]"),
        ),
        writable: f.list("writable", MOUNTED, about("Paths of the host that workers may change.").default("[]")),
        hidden: f.list("hidden", MOUNTED, about("Paths that workers would see, and shall not.").default("[]")),
        seccomp: f.value(
            "seccomp",
            word(),
            about("Which system calls a worker may make; browser: also what Chromium's own sandbox needs.")
                .default(r#""default""#),
        ),
        seccomp_log: f.value(
            "seccomp_log",
            BOOLEAN,
            about("Have the kernel log refused system calls.").default("false"),
        ),
        egress_allow: f.list(
            "egress_allow",
            REACH,
            about("What `network: egress` reaches besides public addresses: private, metadata, loopback, host, or IPv4 addresses.")
                .default("[]"),
        ),
        workspace: f.value(
            "workspace",
            word(),
            about("persistent: a session's files outlive its worker, and its next worker finds them.")
                .default(r#""ephemeral""#),
        ),
        workspace_dir: f.value(
            "workspace_dir",
            DIRECTORY,
            about("Where persistent workspaces are kept. Default: /var/lib/herd/workspaces; without root below $XDG_STATE_HOME."),
        ),
        uid_range: f.value(
            "uid_range",
            UID_RANGE,
            about("As root: the users, and groups of the same numbers, that workers run as, one each. Default: 2100000000-2100065535."),
        ),
    }
}

/// The pools in the order of the file, the one of the top level first. It is there if it was written, or if no other is.
pub(super) fn resolve(raw: &Raw, mistakes: &mut Mistakes) -> Vec<Pool> {
    let mut pools = Vec::new();
    if raw.top_level_pool.is_some() || raw.pools.is_empty() {
        pools.push(resolve_pool(DEFAULT_POOL, "", raw.pool.clone(), &raw.network, mistakes));
    }
    for (name, pool) in &raw.pools {
        if raw.top_level_pool.is_some() && name.value == DEFAULT_POOL {
            let problem = "is described by the sections at the top level already";
            mistakes.push(Mistake::new(name.origin.clone(), problem, "keep one of the two, or choose another name"));
            continue;
        }
        let prefix = format!("{}.", name.origin.name);
        pools.push(resolve_pool(&name.value, &prefix, pool.clone(), &raw.network, mistakes));
    }
    check_workspaces(&pools, mistakes);
    check_what_pools_see(raw, &pools, mistakes);
    let secrets: Vec<_> = secrets(raw).into_iter().map(|(_, origin)| origin.name.clone()).collect();
    for pool in &mut pools {
        pool.secrets.clone_from(&secrets);
    }
    pools
}

/// What is no mistake and hardly wanted.
pub(super) fn warnings(raw: &Raw, pools: &[Pool]) -> Vec<Mistake> {
    let in_the_open = pools.iter().filter(|pool| pool.sandbox.mode == SandboxMode::Off && !pool.secrets.is_empty());
    let in_the_open = in_the_open.map(|pool| {
        let RawPool { resources, sandbox, .. } = &pool.raw;
        let mode = sandbox.mode.as_ref().map(|mode| &mode.origin);
        let origin = mode.or(resources.insecure_sandbox.as_ref().map(|insecure| &insecure.origin)).cloned();
        let problem = format!(
            "workers run as herd's own user without a sandbox, and can read what is herd's alone: {}",
            pool.secrets.join(", ")
        );
        let origin = origin.unwrap_or_else(|| Origin::flag("sandbox.mode"));
        Mistake::warning(origin, problem, "write `required`, unless you trust the workers with it")
    });
    let in_commands = raw.filled.iter().filter(|file| is_in_command(&file.origin.name)).map(|file| {
        let problem = "puts what is in a file into an argument, and every user of this host can read the arguments of all \
                       processes";
        Mistake::warning(file.origin.clone(), problem, "use `worker.env`, or let the worker read a file of its own")
    });
    // Whoever wrote a program there means a pool; whoever did not most likely means all pools.
    let stray = raw.top_level_pool.as_ref().filter(|_| !raw.pools.is_empty() && raw.pool.worker.command.is_none());
    let stray = stray.map(|origin| {
        let problem =
            "makes a pool `default` whose workers are the built-in REPL: pools inherit nothing from the top level";
        let remedy = "write it in each pool that it is meant for, or give that pool a `worker.command`";
        Mistake::warning(origin.clone(), problem, remedy)
    });
    in_the_open.chain(in_commands).chain(stray).collect()
}

/// Whether this is the name of a word of a pool's command.
fn is_in_command(key: &str) -> bool {
    let pool = key.strip_prefix("pools.").and_then(|key| key.split_once('.')).map(|(_, key)| key);
    pool.unwrap_or(key).starts_with("worker.command")
}

/// A session's workspace is found by the session's ID, which can be the same in two pools.
fn check_workspaces(pools: &[Pool], mistakes: &mut Mistakes) {
    let persistent: Vec<_> = pools.iter().filter(|pool| pool.sandbox.workspace == Workspace::Persistent).collect();
    for (index, pool) in persistent.iter().enumerate() {
        // Where nothing is written, each pool has a place of its own.
        let is_written = |pool: &Pool| pool.sandbox.workspace_dir.is_some();
        let overlaps = |other: &&&Pool| match (kept_workspaces(pool), kept_workspaces(other)) {
            (Some(one), Some(place)) if is_written(pool) || is_written(other) => {
                one.starts_with(&place) || place.starts_with(&one)
            }
            _ => false,
        };
        let Some(first) = persistent[..index].iter().find(overlaps) else { continue };
        let written = &pool.raw.sandbox;
        let origin = written.workspace_dir.as_ref().map(|directory| &directory.origin);
        let Some(origin) = origin.or(written.workspace.as_ref().map(|workspace| &workspace.origin)) else { continue };
        let problem =
            format!("keeps workspaces where the pool {} does, and sessions of the same ID would meet", first.name);
        mistakes.push(Mistake::new(origin.clone(), problem, "give each pool a `workspace_dir` of its own").unquoted());
    }
}

/// Workers must not see the keys and tokens of the daemon, nor the workspaces of another pool.
fn check_what_pools_see(raw: &Raw, pools: &[Pool], mistakes: &mut Mistakes) {
    let secrets = secrets(raw);
    for pool in pools {
        let others = pools.iter().filter(|other| other.name != pool.name);
        let workspaces = others.filter_map(|other| {
            let origin = &other.raw.sandbox.workspace_dir.as_ref()?.origin;
            Some((other.sandbox.workspace_dir.as_deref()?, origin))
        });
        let own: Vec<(&Path, &Origin)> = workspaces.chain(secrets.iter().copied()).collect();
        let sandbox = &pool.raw.sandbox;
        let lists = [&sandbox.read_only, &sandbox.writable].into_iter().flatten().flat_map(|paths| &paths.value);
        let listed = lists.map(|path| (path.value.as_path(), &path.origin));
        // Without a sandbox a working directory shows nothing that workers do not see anyway.
        let cwd = pool.raw.worker.cwd.as_ref().filter(|_| pool.sandbox.mode != SandboxMode::Off);
        let cwd = cwd.and_then(|cwd| Some((cwd.value.as_deref()?, &cwd.origin)));
        for (path, origin) in listed.chain(cwd) {
            if let Some((_, what)) = own.iter().find(|(own, _)| own.starts_with(path)) {
                mistakes.push(shows(origin, path, what));
            }
        }
    }
}

/// A path that would show workers a file which another setting names.
pub(crate) fn shows(origin: &Origin, path: &Path, what: &Origin) -> Mistake {
    let problem = format!("would show workers what `{}` names", what.name);
    Mistake::new(origin.clone(), problem, "name something narrower, or keep the two apart")
        .found(path.display().to_string())
}

/// Every file with a key or a token in it, and where it is named.
pub(crate) fn secrets(raw: &Raw) -> Vec<(&Path, &Origin)> {
    fn some(written: Option<&Written<PathBuf>>) -> Option<(&Path, &Origin)> {
        written.map(|written| (written.value.as_path(), &written.origin))
    }
    fn nullable(written: Option<&Written<Option<PathBuf>>>) -> Option<(&Path, &Origin)> {
        written.and_then(|written| Some((written.value.as_deref()?, &written.origin)))
    }
    let network = &raw.network;
    let tls = [&network.tls, &network.admin_tls].into_iter().flatten();
    let access = raw.access.as_ref().map(|access| &access.value);
    let tokens = access.and_then(|access| access.tokens.as_ref()).into_iter().flat_map(|tokens| &tokens.value);
    tls.filter_map(|tls| some(tls.value.key_file.as_ref()))
        .chain(nullable(network.admin_token_file.as_ref()))
        .chain(tokens.filter_map(|token| some(token.value.file.as_ref())))
        .chain(access.and_then(|access| some(access.jwt.as_ref()?.value.key_file.as_ref())))
        .chain(raw.webhooks.iter().filter_map(|hook| nullable(hook.value.secret_file.as_ref())))
        .collect()
}
