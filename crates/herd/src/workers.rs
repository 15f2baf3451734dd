//! From settings to the factory that starts workers.

use std::{
    env,
    ffi::{OsStr, OsString},
    fs,
    os::unix::fs::PermissionsExt as _,
    path::Path,
};

use anyhow::{Context as _, bail};
use herd_pool::{Pool, WorkerFactory};
use herd_process::{HttpClient, ProcessFactory, ProcessFactoryBuilder};

use crate::config::{
    Settings,
    mistake::{Mistake, Origin, Written},
    raw::RawWorker,
    settings::{Command, Listen, SandboxMode},
};

/// The factory of all workers.
pub(crate) type Factory = ProcessFactory<HttpClient>;
/// The pool of all workers.
pub(crate) type WorkerPool = Pool<Factory>;
/// One of the workers.
pub(crate) type PoolWorker = <Factory as WorkerFactory>::Worker;

/// Makes the factory.
///
/// # Errors
/// If the program cannot be found or run, if the working directory is none, or if the workers' directory cannot be made.
pub(crate) fn factory(settings: &Settings) -> anyhow::Result<Factory> {
    if let Command::Program { program, .. } = &settings.worker.command {
        check_program(program)?;
    }
    if let Some(cwd) = &settings.worker.cwd {
        check_directory(cwd)?;
    }
    builder(settings)?.build().context("cannot set up the workers")
}

/// What the factory would refuse, told at the place where it was written.
pub(crate) fn mistakes(settings: &Settings, written: &RawWorker) -> Vec<Mistake> {
    let Ok(builder) = builder(settings) else { return Vec::new() };
    let Err(refused) = builder.check() else { return Vec::new() };
    let mistakes = refused.mistakes().iter();
    mistakes
        .map(|mistake| {
            let (problem, remedy) = mistake.problem.split_once("; ").unwrap_or((&mistake.problem, "correct it"));
            Mistake::new(origin_of(&mistake.option, written), one_line(problem), remedy).unquoted()
        })
        .collect()
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

fn builder(settings: &Settings) -> anyhow::Result<ProcessFactoryBuilder> {
    let worker = &settings.worker;
    let (program, args): (OsString, Vec<OsString>) = match &worker.command {
        Command::Program { program, args } => (program.clone(), args.clone()),
        Command::Repl => {
            let this = env::current_exe().context("cannot tell the path of this program, which is the REPL as well")?;
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
        .open_files(settings.resources.open_files);
    for (name, value) in &worker.env {
        builder = builder.env(name, value);
    }
    if let Some(cwd) = &worker.cwd {
        builder = builder.cwd(cwd);
    }
    if worker.http2 {
        builder = builder.http2();
    }
    if settings.sandbox.mode == SandboxMode::Off {
        builder = builder.insecure_sandbox();
    }
    Ok(builder)
}

/// Where the text of a factory's option was written: `args[0]` is the second word of the command.
fn origin_of(option: &str, written: &RawWorker) -> Origin {
    fn place<T>(written: &Option<Written<T>>) -> Option<&Origin> {
        written.as_ref().map(|written| &written.origin)
    }
    let (name, index) =
        option.split_once('[').map_or((option, ""), |(name, index)| (name, index.trim_end_matches(']')));
    let command = written.command.as_ref().map_or(&[][..], |command| &command.value);
    let env = written.env.as_ref().map_or(&[][..], |env| &env.value);
    let found = match name {
        "program" => command.first().map(|word| &word.origin),
        "args" => index.parse::<usize>().ok().and_then(|index| command.get(index + 1)).map(|word| &word.origin),
        "env" => env.iter().rfind(|variable| variable.value.0 == index).map(|variable| &variable.origin),
        "cwd" => place(&written.cwd),
        "ready" | "ready.command" => place(&written.ready).or(place(&written.listen)),
        "health_path" => place(&written.health_path),
        "start_timeout" => place(&written.start_timeout),
        "start_health_check_delay" => place(&written.start_health_check_delay),
        "stop_grace" => place(&written.stop_grace),
        _ => None,
    };
    found.cloned().unwrap_or_else(|| Origin::flag(option))
}

/// Finds a mistake in the program's name now and not when the first session waits for it.
fn check_program(program: &OsStr) -> anyhow::Result<()> {
    let name = program.display();
    if program.as_encoded_bytes().contains(&b'/') {
        return match verdict(Path::new(program)) {
            Verdict::Runs => Ok(()),
            Verdict::Missing => {
                bail!("the program {name} does not exist; check the path after `--` or in worker.command")
            }
            Verdict::NotExecutable => {
                bail!("the program {name} is not executable; run `chmod +x {name}`, or name another")
            }
            Verdict::Directory => bail!("{name} is a directory and no program; name the program in it"),
        };
    }
    let path =
        env::var_os("PATH").filter(|path| !path.is_empty()).unwrap_or_else(|| "/usr/local/bin:/usr/bin:/bin".into());
    let mut verdicts: Vec<_> = env::split_paths(&path).map(|directory| verdict(&directory.join(program))).collect();
    verdicts.sort();
    match verdicts.first() {
        Some(Verdict::Runs) => Ok(()),
        Some(Verdict::NotExecutable) => bail!("the program {name} in PATH is not executable; run `chmod +x` on it"),
        _ => bail!("the program {name} is not in PATH; install it, or write its path"),
    }
}

/// Finds a missing working directory now, unless it depends on the worker.
fn check_directory(cwd: &Path) -> anyhow::Result<()> {
    let name = cwd.display();
    if cwd.as_os_str().as_encoded_bytes().windows(2).any(|pair| pair == b"{{") {
        return Ok(());
    }
    match fs::metadata(cwd) {
        Ok(metadata) if metadata.is_dir() => Ok(()),
        Ok(_) => bail!("the working directory {name} is no directory; correct --cwd or worker.cwd"),
        Err(error) => {
            Err(error).with_context(|| format!("cannot use the working directory {name}; correct --cwd or worker.cwd"))
        }
    }
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
