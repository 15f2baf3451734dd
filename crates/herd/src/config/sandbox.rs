//! From what was typed about the sandbox and limits to what it means, and the checks that need no host.

use std::{
    fmt::Display,
    ops::RangeInclusive,
    path::{Path, PathBuf},
};

use herd_sandbox::Files;

use super::{
    mistake::{Mistake, Mistakes, Origin, Written},
    raw::{Maybe, RawNetwork, RawPool, RawResources, RawSandbox},
    settings::{Limits, NetworkMode, Pids, Sandbox, SandboxMode, Seccomp, Workspace},
};

/// Directories of the host in which something is visible in every sandbox.
const SYSTEM: [&str; 11] =
    ["/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/opt", "/etc", "/nix/store", "/gnu/store"];

/// Settles everything about the sandbox. Where nobody wrote a mode, a file means `required`: who writes a file serves
/// others. Without one somebody tries herd on whatever host they have, and gets as much as there is.
pub(super) fn resolve(raw: &RawPool, prefix: &str, network: &RawNetwork, mistakes: &mut Mistakes) -> Sandbox {
    let default = if mistakes.file.is_some() { SandboxMode::Required } else { SandboxMode::BestEffort };
    let mode = mode(&raw.resources, &raw.sandbox, default, mistakes);
    check_network(raw, prefix, mistakes);
    check_workspace(raw, mistakes);
    check_uid_range(raw, mistakes);
    check_paths(raw, network, mistakes);
    let skipped = match mode {
        SandboxMode::Off => wishes(raw).map(|(origin, what)| skip(origin, what)).collect(),
        SandboxMode::BestEffort | SandboxMode::Required => Vec::new(),
    };
    let RawSandbox {
        mode: _,
        network,
        read_only,
        writable,
        hidden,
        seccomp,
        seccomp_log,
        egress_allow,
        workspace,
        workspace_dir,
        uid_range,
    } = raw.sandbox.clone();
    Sandbox {
        mode,
        network: value(network, NetworkMode::Private),
        egress_allow: list(egress_allow),
        read_only: list(read_only),
        writable: list(writable),
        hidden: list(hidden),
        seccomp: value(seccomp, Seccomp::Default),
        seccomp_log: value(seccomp_log, false),
        workspace: value(workspace, Workspace::Ephemeral),
        workspace_dir: workspace_dir.map(|written| written.value),
        uid_range: uid_range.map(|written| written.value),
        limits: limits(&raw.resources),
        skipped,
    }
}

fn value<T>(written: Maybe<T>, default: T) -> T {
    written.map_or(default, |written| written.value)
}

fn list<T>(written: Maybe<Vec<Written<T>>>) -> Vec<T> {
    value(written, Vec::new()).into_iter().map(|written| written.value).collect()
}

fn skip(origin: &Origin, what: &str) -> Mistake {
    Mistake::warning(origin.clone(), format!("{what} is skipped because the sandbox is off"), "")
}

/// Zero and -1 ask for no limit, which is not to ask for one.
fn limits(resources: &RawResources) -> Limits {
    Limits {
        memory: resources.memory_limit.as_ref().map(|written| written.value).filter(|bytes| *bytes > 0),
        cpu: resources.cpu_limit_cores.as_ref().map(|written| written.value).filter(|cores| *cores > 0.0),
        pids: match resources.pids_limit.as_ref().map(|written| written.value) {
            None => Pids::Default,
            Some(None) => Pids::Unlimited,
            Some(Some(count)) => Pids::AtMost(count),
        },
        tmp: resources.tmp_limit.as_ref().map_or(Files::DEFAULT_LIMIT, |written| written.value),
        shm: resources.shm_limit.as_ref().map_or(Files::DEFAULT_LIMIT, |written| written.value),
    }
}

fn mode(resources: &RawResources, sandbox: &RawSandbox, default: SandboxMode, mistakes: &mut Mistakes) -> SandboxMode {
    let insecure = resources.insecure_sandbox.as_ref().filter(|insecure| insecure.value);
    match (&sandbox.mode, insecure) {
        (Some(mode), Some(insecure)) if mode.value != SandboxMode::Off => {
            let problem = format!("contradicts `{}`, which wants a sandbox", mode.origin.name);
            mistakes.push(Mistake::new(insecure.origin.clone(), problem, "keep one of the two"));
            mode.value
        }
        (Some(mode), _) => mode.value,
        (None, Some(_)) => SandboxMode::Off,
        (None, None) => default,
    }
}

fn check_network(raw: &RawPool, prefix: &str, mistakes: &mut Mistakes) {
    let network = value(raw.sandbox.network.clone(), NetworkMode::Private);
    if let Some(port) = raw.worker.port.as_ref().filter(|_| network == NetworkMode::Host) {
        let problem = "has no meaning in the host's network, where herd chooses a free port for each worker";
        mistakes.push(Mistake::new(port.origin.clone(), problem, "leave it out, or use the private network"));
    }
    // Of a network that is a mistake itself it is not known what it should be.
    let key = format!("{prefix}sandbox.network");
    let is_known = !mistakes.all.iter().any(|mistake| mistake.origin.name == key);
    let without = match network {
        NetworkMode::Host => Some(("host", "reaches everything")),
        NetworkMode::Private => Some(("private", "reaches nothing outside")),
        NetworkMode::Egress => None,
    };
    let allow = raw.sandbox.egress_allow.as_ref().filter(|allow| !allow.value.is_empty());
    if let (Some(allow), Some((word, reaches)), true) = (allow, without, is_known) {
        let problem = format!("has no meaning with `network: {word}`, which {reaches}");
        mistakes.push(Mistake::new(allow.origin.clone(), problem, "leave it out, or write `network: egress`"));
    }
    if let (Some(log), Some(Written { value: Seccomp::Off, .. })) = (&raw.sandbox.seccomp_log, &raw.sandbox.seccomp)
        && log.value
    {
        let problem = "has no meaning without a filter of system calls";
        mistakes.push(Mistake::new(log.origin.clone(), problem, "leave it out, or choose a filter"));
    }
}

/// A session's files wait for the session, so no worker can be started before it is known whose it will be.
fn check_workspace(raw: &RawPool, mistakes: &mut Mistakes) {
    let persistent = raw.sandbox.workspace.as_ref().filter(|workspace| workspace.value == Workspace::Persistent);
    if persistent.is_none() {
        if let Some(directory) = &raw.sandbox.workspace_dir {
            let problem = "has no meaning as long as workspaces are removed with their workers";
            let remedy = "leave it out, or write `workspace: persistent`";
            mistakes.push(Mistake::new(directory.origin.clone(), problem, remedy));
        }
        return;
    }
    let resources = &raw.resources;
    for few in [&resources.min_workers, &resources.spare].into_iter().flatten().filter(|few| few.value > 0) {
        let problem =
            "wants workers that wait for a session, and with `workspace: persistent` each has to know its own";
        mistakes
            .push(Mistake::new(few.origin.clone(), problem, "write 0, or leave it out").found(few.value.to_string()));
    }
    if let Some(reuse) = resources.worker_reuse.as_ref().filter(|reuse| reuse.value) {
        let problem = "hands a worker to another session, and with `workspace: persistent` each keeps its own";
        mistakes.push(Mistake::new(reuse.origin.clone(), problem, "keep one of the two"));
    }
}

fn check_uid_range(raw: &RawPool, mistakes: &mut Mistakes) {
    let Some(Written { value: range, origin }) = &raw.sandbox.uid_range else { return };
    let workers = value(raw.resources.max_workers.clone(), super::resolve::MAX_WORKERS);
    let count = size(range);
    if count < workers as u64 {
        let workers = raw.resources.max_workers.as_ref().map_or(workers.to_string(), |max| max.origin.shown(workers));
        let count = origin.shown(count);
        let problem = format!("has {count} IDs, and there may be {workers} workers, each with one of its own");
        mistakes.push(Mistake::new(origin.clone(), problem, "write a larger range, or allow fewer workers"));
    }
}

fn size(range: &RangeInclusive<u32>) -> u64 {
    u64::from(*range.end()) - u64::from(*range.start()) + 1
}

/// Paths that contradict one another, or would show what no worker may see.
fn check_paths(raw: &RawPool, network: &RawNetwork, mistakes: &mut Mistakes) {
    let [read_only, writable, hidden] = [&raw.sandbox.read_only, &raw.sandbox.writable, &raw.sandbox.hidden]
        .map(|written| value(written.clone(), Vec::new()));
    for paths in [&read_only, &writable, &hidden] {
        for (index, path) in paths.iter().enumerate() {
            if let Some(first) = paths[..index].iter().find(|first| first.value == path.value) {
                complain(path, format!("is written twice, first as {}", first.origin.name), "keep one", mistakes);
            }
        }
    }
    for path in &read_only {
        if let Some(other) = writable.iter().find(|other| other.value == path.value) {
            complain(path, format!("is writable as well, by {}", other.origin.name), "keep one of the two", mistakes);
        }
    }
    let shown = || read_only.iter().chain(&writable);
    let cwd = raw.worker.cwd.as_ref().and_then(|cwd| cwd.value.as_deref());
    let command = raw.worker.command.as_ref().and_then(|command| command.value.first());
    let program = command.map(|program| Path::new(&program.value)).filter(|program| program.is_absolute());
    let needed: Vec<_> = cwd
        .map(|cwd| (cwd, "the working directory"))
        .into_iter()
        .chain(program.map(|path| (path, "the program")))
        .collect();
    for path in &hidden {
        if let Some(other) = shown().find(|other| other.value.starts_with(&path.value)) {
            let problem = format!("hides what {} shows", other.origin.name);
            complain(path, problem, "keep one of the two, or hide less", mistakes);
            continue;
        }
        if let Some((_, what)) = needed.iter().find(|(needed, _)| needed.starts_with(&path.value)) {
            complain(path, format!("hides {what}"), "hide less", mistakes);
            continue;
        }
        let mut visible = shown().map(|other| other.value.as_path()).chain(cwd).chain(SYSTEM.map(Path::new));
        if !visible.any(|root| path.value.starts_with(root)) {
            let remedy = "leave it out: of the host, workers see the system's directories and what you show them";
            complain(path, "is not visible anyway", remedy, mistakes);
        }
    }
    let control = network.control_socket.as_ref().map(|written| (written.value.as_path(), "herd's control socket"));
    let workspaces = raw.sandbox.workspace_dir.as_ref();
    let workspaces = workspaces.map(|written| (written.value.as_path(), "the workspaces of all sessions"));
    for path in shown() {
        if let Some((_, what)) =
            [control, workspaces].into_iter().flatten().find(|(own, _)| own.starts_with(&path.value))
        {
            complain(path, format!("would show workers {what}"), "name something narrower", mistakes);
        }
    }
}

fn complain(path: &Written<PathBuf>, problem: impl Into<String>, remedy: impl Display, mistakes: &mut Mistakes) {
    let mistake = Mistake::new(path.origin.clone(), problem, remedy.to_string());
    mistakes.push(mistake.found(path.value.display().to_string()));
}

/// Everything that was written and needs a sandbox.
fn wishes(raw: &RawPool) -> impl Iterator<Item = (&Origin, &'static str)> {
    fn some<T>(written: &Maybe<T>, wanted: impl Fn(&T) -> bool) -> Option<&Origin> {
        written.as_ref().filter(|written| wanted(&written.value)).map(|written| &written.origin)
    }
    let RawPool { worker, resources, sandbox } = raw;
    let wishes = [
        (some(&resources.memory_limit, |bytes| *bytes > 0), "a memory limit"),
        (some(&resources.cpu_limit_cores, |cores| *cores > 0.0), "a CPU limit"),
        (some(&resources.pids_limit, Option::is_some), "a limit of processes"),
        (some(&resources.tmp_limit, |_| true), "a private /tmp"),
        (some(&resources.shm_limit, |_| true), "a private /dev/shm"),
        (some(&worker.port, |_| true), "a port in a private network"),
        (some(&sandbox.network, |network| *network != NetworkMode::Host), "a private network"),
        (some(&sandbox.read_only, |paths| !paths.is_empty()), "a list of visible paths"),
        (some(&sandbox.writable, |paths| !paths.is_empty()), "a list of writable paths"),
        (some(&sandbox.hidden, |paths| !paths.is_empty()), "a list of hidden paths"),
        (some(&sandbox.seccomp, |filter| *filter != Seccomp::Off), "a seccomp filter"),
        (some(&sandbox.uid_range, |_| true), "a user for each worker"),
    ];
    wishes.into_iter().filter_map(|(origin, what)| Some((origin?, what)))
}
