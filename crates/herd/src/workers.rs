//! From settings to the factory that starts workers.

use std::{
    env,
    ffi::{OsStr, OsString},
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use herd_pool::{Pool, WorkerFactory};
use herd_process::{HttpClient, OptionsError, ProcessFactory, ProcessFactoryBuilder};
use herd_sandbox::{Layer, Plan};
use rustix::process::{Resource, geteuid, getrlimit};
use serde_json::Value;

use crate::{
    config::{
        Mistakes,
        mistake::{Mistake, Origin, Written},
        raw::RawPool,
        settings::{self, Command, Listen, Pids, Sandbox, SandboxMode, Workspace},
    },
    own_program,
};

/// The factory of all workers.
pub(crate) type Factory = ProcessFactory<HttpClient>;
/// The pool of all workers.
pub(crate) type WorkerPool = Pool<Factory>;
/// One of the workers.
pub(crate) type PoolWorker = <Factory as WorkerFactory>::Worker;

/// Where the workers' private directories are made: in the user's runtime directory, or the one for temporary files.
pub(crate) fn state_directory() -> PathBuf {
    let runtime = env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|path| path.is_absolute() && path.is_dir());
    runtime.unwrap_or_else(env::temp_dir)
}

/// What the factory calls it. Nobody writes it: it follows from the environment.
const STATE_DIR: &str = "state_dir";

/// What to do about a state directory in which no worker can have its own.
fn state_remedy() -> String {
    let variable = if state_directory() == env::temp_dir() { "TMPDIR or XDG_RUNTIME_DIR" } else { "XDG_RUNTIME_DIR" };
    format!("free space there and let this user write there, or set {variable} to another directory with a short path")
}

/// The most files that a worker can be allowed to open; `None` is without a bound.
pub(crate) fn most_open_files() -> Option<u64> {
    most_beside(getrlimit(Resource::Nofile).maximum, geteuid().is_root())
}

/// The same for a daemon with this limit, which may run as root.
///
/// Workers of a daemon that is not root are of its own user. The kernel counts for each user how many descriptors are on
/// their way through sockets, and refuses more to a process whose own limit of open files they exceed: unix(7),
/// `ETOOMANYREFS`. A worker that leaves there as many as it may must not stop the daemon, so its limit is half of that one.
fn most_beside(daemon: Option<u64>, is_root: bool) -> Option<u64> {
    if is_root { daemon } else { daemon.map(|most| most / 2) }
}

/// Makes the factory.
///
/// # Errors
/// If the program cannot be found or run, if the working directory is none, or if the workers' directory cannot be made.
pub(crate) fn factory(settings: &settings::Pool) -> anyhow::Result<Factory> {
    check_paths(settings)?;
    builder(settings)?.build().map_err(|refused| unavailable(&refused, settings))
}

/// What is done to start a worker of each pool on this host.
///
/// # Errors
/// What is the matter with all of them.
pub(crate) fn plans(pools: &[settings::Pool]) -> anyhow::Result<Vec<Plan<'static>>> {
    all_or_refusal(pools.iter().map(plan))
}

/// Everything, or one error with what is the matter with each that cannot be had.
pub(crate) fn all_or_refusal<T>(each: impl IntoIterator<Item = anyhow::Result<T>>) -> anyhow::Result<Vec<T>> {
    let (mut had, mut refused) = (Vec::new(), Vec::new());
    for one in each {
        match one {
            Ok(one) => had.push(one),
            Err(error) => refused.push(error),
        }
    }
    if refused.is_empty() { Ok(had) } else { Err(one_refusal(refused)) }
}

/// One error for several things that cannot be had. Each that is no mistake already is told as one without a place.
pub(crate) fn one_refusal(mut refused: Vec<anyhow::Error>) -> anyhow::Error {
    if refused.len() == 1 {
        return refused.remove(0);
    }
    let mut all = Mistakes::default();
    for error in refused {
        match error.downcast::<Mistakes>() {
            Ok(mistakes) => {
                all.file = all.file.or(mistakes.file);
                all.all.extend(mistakes.all);
            }
            Err(error) => all.all.extend(told(&error)),
        }
    }
    all.sort();
    all.into()
}

/// An error of one sentence or several lines: what is wrong, and what to do behind the last semicolon.
fn told(error: &anyhow::Error) -> Vec<Mistake> {
    let text = format!("{error:#}");
    let one = |line: &str| {
        let (problem, remedy) = line.rsplit_once("; ").unwrap_or((line, "correct it"));
        Mistake::new(Origin::flag(""), problem, remedy).unavailable()
    };
    text.lines().map(one).collect()
}

/// A refusal as a list of mistakes, for programs.
pub(crate) fn refusal_to_json(error: &anyhow::Error) -> Value {
    match error.downcast_ref::<Mistakes>() {
        Some(mistakes) => mistakes.to_json(),
        None => Mistakes { file: None, all: told(error) }.to_json(),
    }
}

/// What is done to start a worker on this host.
///
/// # Errors
/// As [`factory`].
pub(crate) fn plan(settings: &settings::Pool) -> anyhow::Result<Plan<'static>> {
    check_paths(settings)?;
    builder(settings)?.plan().map_err(|refused| unavailable(&refused, settings))
}

/// What was checked before without the host is right now, so the rest is what cannot be had here.
fn unavailable(refused: &OptionsError, settings: &settings::Pool) -> anyhow::Error {
    let all = located(refused, settings).into_iter().map(|mistake| mistake.unavailable().without_values()).collect();
    let mut mistakes = Mistakes { file: settings.file.clone(), all };
    mistakes.sort();
    mistakes.into()
}

/// What the factory would refuse, told at the place where it was written.
pub(crate) fn mistakes(settings: &settings::Pool) -> Vec<Mistake> {
    let Ok(builder) = builder(settings) else { return Vec::new() };
    builder.check().err().map_or_else(Vec::new, |refused| located(&refused, settings))
}

/// What the factory refuses, with the places where it was written.
fn located(refused: &OptionsError, settings: &settings::Pool) -> Vec<Mistake> {
    let mistakes = grouped(refused.mistakes());
    mistakes
        .iter()
        .map(|(option, problem)| {
            let (problem, remedy) = problem.split_once("; ").unwrap_or((problem, "correct it"));
            if option == STATE_DIR {
                return Mistake::new(Origin::flag(""), one_line(problem), state_remedy()).unquoted();
            }
            Mistake::new(origin_of(option, &settings.raw), one_line(problem), remedy).unquoted()
        })
        .collect()
}

/// Options and their problems, with one problem for all layers of the sandbox that the same obstacle takes away.
fn grouped(mistakes: &[herd_process::Mistake]) -> Vec<(String, String)> {
    let is_layer = |name: &str| Layer::ALL.iter().any(|layer| layer.name() == name);
    let mut groups: Vec<(String, Vec<&str>, &str)> = Vec::new();
    for herd_process::Mistake { option, problem, .. } in mistakes {
        let split = problem.split_once(": ").filter(|(layer, _)| option == "sandbox" && is_layer(layer));
        let (layers, obstacle) = split.map_or((Vec::new(), problem.as_str()), |(layer, rest)| (vec![layer], rest));
        let same = |group: &&mut (String, Vec<&str>, &str)| group.2 == obstacle && !group.1.is_empty();
        match groups.iter_mut().find(same) {
            Some(group) if !layers.is_empty() => group.1.extend(layers),
            _ => groups.push((option.clone(), layers, obstacle)),
        }
    }
    let told = |(option, layers, obstacle): (String, Vec<&str>, &str)| {
        let problem =
            if layers.is_empty() { obstacle.to_owned() } else { format!("{}: {obstacle}", layers.join(", ")) };
        (option, problem)
    };
    groups.into_iter().map(told).collect()
}

/// What a regular expression's parser says is a drawing of several lines, the last of which names the mistake.
fn one_line(problem: &str) -> String {
    match (problem.split_once('\n'), problem.rsplit_once("\nerror: ")) {
        (None, _) => problem.to_owned(),
        (Some((first, _)), Some((_, error))) => {
            let first = first.strip_suffix(": regex parse error:").unwrap_or(first);
            format!("{first}: {error}")
        }
        (Some(_), None) => problem.split_whitespace().collect::<Vec<_>>().join(" "),
    }
}

fn builder(settings: &settings::Pool) -> anyhow::Result<ProcessFactoryBuilder> {
    let worker = &settings.worker;
    let (program, args): (OsString, Vec<OsString>) = match &worker.command {
        Command::Program { program, args } => (program.clone(), args.clone()),
        Command::Repl => {
            let this =
                own_program::path().context("cannot tell the path of this program, which is the REPL as well")?;
            (this.into(), vec!["repl".into()])
        }
    };
    let mut builder = ProcessFactory::new(program)
        .args(args)
        .listen(match worker.listen {
            Listen::Port => herd_process::Listen::Port,
            Listen::Socket => herd_process::Listen::Socket,
            Listen::Inherit => herd_process::Listen::Inherit,
        })
        .ready(worker.ready.clone())
        .health_path(&worker.health_path)
        .start_timeout(worker.start_timeout)
        .start_health_check_delay(worker.start_health_check_delay)
        .stop_signal(worker.stop_signal)
        .stop_grace(worker.stop_grace)
        .open_files(
            most_open_files().map_or(settings.resources.open_files, |most| most.min(settings.resources.open_files)),
        )
        .state_dir(state_directory());
    for (name, value) in &worker.env {
        builder = builder.env(name, value);
    }
    if let Some(cwd) = &worker.cwd {
        builder = builder.cwd(cwd);
    }
    if worker.http2 {
        builder = builder.http2();
    }
    Ok(sandboxed(builder, settings))
}

/// The part of the options that is about the sandbox and limits. Without a sandbox there is none; what was asked for all
/// the same is told by [`Settings::warnings`](crate::config::Settings::warnings).
fn sandboxed(mut builder: ProcessFactoryBuilder, settings: &settings::Pool) -> ProcessFactoryBuilder {
    let sandbox = &settings.sandbox;
    if let Some(kept) = kept_workspaces(settings) {
        builder = builder.persistent_workspaces(kept);
    }
    if sandbox.mode == SandboxMode::Off {
        return builder.insecure_sandbox();
    }
    builder = builder
        .sandbox(sandbox.mode)
        .network(sandbox.network)
        .port(settings.worker.port)
        .seccomp(sandbox.seccomp)
        .memory_limit(sandbox.limits.memory.unwrap_or(0))
        .cpu_limit(sandbox.limits.cpu.unwrap_or(0.0))
        .tmp_limit(sandbox.limits.tmp)
        .shm_limit(sandbox.limits.shm);
    builder = match sandbox.limits.pids {
        Pids::Default => builder,
        Pids::AtMost(count) => builder.pids_limit(count.into()),
        Pids::Unlimited => builder.pids_limit(-1),
    };
    if sandbox.seccomp_log {
        builder = builder.log_refused_calls();
    }
    if let Some(range) = &sandbox.uid_range {
        builder = builder.uid_range(range.clone());
    }
    builder = sandbox.egress_allow.iter().copied().fold(builder, ProcessFactoryBuilder::egress_allow);
    builder = sandbox.read_only.iter().fold(builder, ProcessFactoryBuilder::read_only);
    builder = sandbox.writable.iter().fold(builder, ProcessFactoryBuilder::writable);
    sandbox.hidden.iter().fold(builder, ProcessFactoryBuilder::hidden)
}

/// Where workspaces are kept, if they are.
pub(crate) fn kept_workspaces(settings: &settings::Pool) -> Option<PathBuf> {
    let Sandbox { workspace, workspace_dir, .. } = &settings.sandbox;
    let own = || match settings.name.as_str() {
        settings::DEFAULT_POOL => kept_directory(),
        name => kept_directory().join(POOLS).join(name),
    };
    (*workspace == Workspace::Persistent).then(|| workspace_dir.clone().unwrap_or_else(own))
}

/// In it are the kept workspaces of pools other than the default one. Those of sessions have names of 64 digits.
const POOLS: &str = "pools";

/// Where workspaces are kept unless a place is named: where the system keeps the state of programs (FHS 3.0 §5.8), or
/// the user's own programs do (XDG Base Directory Specification).
fn kept_directory() -> PathBuf {
    if rustix::process::geteuid().is_root() {
        return "/var/lib/herd/workspaces".into();
    }
    let named = env::var_os("XDG_STATE_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    let home = || env::home_dir().unwrap_or_else(env::temp_dir).join(".local/state");
    named.unwrap_or_else(home).join("herd/workspaces")
}

/// Where the text of a factory's option was written: `args[0]` is the second word of the command.
fn origin_of(option: &str, written: &RawPool) -> Origin {
    fn place<T>(written: &Option<Written<T>>) -> Option<&Origin> {
        written.as_ref().map(|written| &written.origin)
    }
    fn item<'a, T>(list: &'a Option<Written<Vec<Written<T>>>>, index: &str) -> Option<&'a Origin> {
        list.as_ref()?.value.get(index.parse::<usize>().ok()?).map(|item| &item.origin)
    }
    let (name, index) =
        option.split_once('[').map_or((option, ""), |(name, index)| (name, index.trim_end_matches(']')));
    let RawPool { worker, resources, sandbox } = written;
    let command = worker.command.as_ref().map_or(&[][..], |command| &command.value);
    let env = worker.env.as_ref().map_or(&[][..], |env| &env.value);
    let found = match name {
        "program" => command.first().map(|word| &word.origin),
        "args" => index.parse::<usize>().ok().and_then(|index| command.get(index + 1)).map(|word| &word.origin),
        "env" => env.iter().rfind(|variable| variable.value.0 == index).map(|variable| &variable.origin),
        "cwd" => place(&worker.cwd),
        "port" => place(&worker.port),
        "ready" | "ready.command" => place(&worker.ready).or(place(&worker.listen)),
        "health_path" => place(&worker.health_path),
        "start_timeout" => place(&worker.start_timeout),
        "start_health_check_delay" => place(&worker.start_health_check_delay),
        "stop_grace" => place(&worker.stop_grace),
        "memory_limit" => place(&resources.memory_limit),
        "cpu_limit" => place(&resources.cpu_limit_cores),
        "pids_limit" => place(&resources.pids_limit),
        "sandbox" => place(&sandbox.mode),
        "read_only" => item(&sandbox.read_only, index),
        "writable" => item(&sandbox.writable, index),
        "hidden" => item(&sandbox.hidden, index),
        "uid_range" => place(&sandbox.uid_range),
        "persistent_workspaces" => place(&sandbox.workspace_dir).or(place(&sandbox.workspace)),
        _ => None,
    };
    found.cloned().unwrap_or_else(|| Origin::flag(option))
}

/// Finds a mistake in the program's name, or a missing working directory, now and not when the first session waits for
/// it.
fn check_paths(settings: &settings::Pool) -> anyhow::Result<()> {
    let told = |origin: Origin, (problem, remedy): (String, String)| {
        Mistake::new(origin, problem, remedy).unquoted().unavailable()
    };
    let program = match &settings.worker.command {
        Command::Program { program, .. } => {
            let origin = origin_of("program", &settings.raw);
            check_program(program, &origin.shown(program.display())).map(|found| told(origin, found))
        }
        Command::Repl => None,
    };
    let cwd = settings.worker.cwd.as_deref().and_then(|cwd| {
        let origin = origin_of("cwd", &settings.raw);
        check_directory(cwd, &origin.shown(cwd.display())).map(|found| told(origin, found))
    });
    let mut all = Mistakes { file: settings.file.clone(), all: [program, cwd].into_iter().flatten().collect() };
    all.sort();
    if all.is_empty() { Ok(()) } else { Err(all.into()) }
}

/// What is the matter with a program that is shown as `name`, and what to do.
fn check_program(program: &OsStr, name: &str) -> Option<(String, String)> {
    let told = |problem: String, remedy: String| Some((problem, remedy));
    if program.as_encoded_bytes().contains(&b'/') {
        return match verdict(Path::new(program)) {
            Verdict::Runs => None,
            Verdict::Missing => told(
                format!("the program {name} does not exist"),
                "check the path after `--` or in worker.command".to_owned(),
            ),
            Verdict::NotExecutable => {
                told(format!("the program {name} is not executable"), format!("run `chmod +x {name}`, or name another"))
            }
            Verdict::Directory => {
                told(format!("{name} is a directory and no program"), "name the program in it".to_owned())
            }
        };
    }
    let path =
        env::var_os("PATH").filter(|path| !path.is_empty()).unwrap_or_else(|| "/usr/local/bin:/usr/bin:/bin".into());
    let mut verdicts: Vec<_> = env::split_paths(&path).map(|directory| verdict(&directory.join(program))).collect();
    verdicts.sort();
    match verdicts.first() {
        Some(Verdict::Runs) => None,
        Some(Verdict::NotExecutable) => {
            told(format!("the program {name} in PATH is not executable"), "run `chmod +x` on it".to_owned())
        }
        _ => told(format!("the program {name} is not in PATH"), "install it, or write its path".to_owned()),
    }
}

/// What is the matter with a working directory, unless it depends on the worker.
fn check_directory(cwd: &Path, name: &str) -> Option<(String, String)> {
    if cwd.as_os_str().as_encoded_bytes().windows(2).any(|pair| pair == b"{{") {
        return None;
    }
    let problem = match fs::metadata(cwd) {
        Ok(metadata) if metadata.is_dir() => return None,
        Ok(_) => format!("the working directory {name} is no directory"),
        Err(error) => format!("cannot use the working directory {name}: {error}"),
    };
    Some((problem, "correct --cwd or worker.cwd".to_owned()))
}

/// What can be said of a path that should be a program, the best first.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Verdict {
    Runs,
    NotExecutable,
    Directory,
    Missing,
}

fn verdict(path: &Path) -> Verdict {
    match fs::metadata(path) {
        Err(_) => Verdict::Missing,
        Ok(metadata) if metadata.is_dir() => Verdict::Directory,
        Ok(metadata) if metadata.permissions().mode() & 0o111 == 0 => Verdict::NotExecutable,
        Ok(_) => Verdict::Runs,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::config::{self, raw::Raw};

    #[test]
    fn pools_that_keep_workspaces_in_no_place_of_their_own_have_one_each() {
        let place = |name: &str, directory: Option<&str>| {
            let mut pool = config::settle(Raw::default(), Mistakes::default()).unwrap().pools.remove(0);
            pool.name = name.to_owned();
            (pool.sandbox.workspace, pool.sandbox.workspace_dir) =
                (Workspace::Persistent, directory.map(PathBuf::from));
            kept_workspaces(&pool).unwrap()
        };
        let places: BTreeSet<_> = [settings::DEFAULT_POOL, "a", "b"].map(|name| place(name, None)).into();
        assert_eq!(places.len(), 3, "{places:?}");
        assert!(place(settings::DEFAULT_POOL, None).ends_with("herd/workspaces"), "as when there was only this one");
        assert_eq!(place("a", Some("/srv/a")), Path::new("/srv/a"), "what was written is taken as it is");
    }

    #[test]
    fn a_worker_of_the_daemons_user_leaves_that_user_half_of_the_descriptors() {
        assert_eq!(most_beside(Some(4096), false), Some(2048));
        assert_eq!(most_beside(None, false), None);
        // Root's own are not counted against it.
        assert_eq!(most_beside(Some(4096), true), Some(4096));
    }
}
