//! The command line: what can be typed, and what it says about the settings.

mod client;
pub(crate) mod completions;
mod flags;
mod help;
pub(crate) mod man;
mod reading;

use std::{ffi::OsString, path::PathBuf};

use clap::{Args, ColorChoice, Parser, Subcommand};

use self::flags::{ResourceFlags, SandboxFlags, WorkerFlags};
pub(crate) use self::{
    client::{DaemonChoice, EndArgs, EventsArgs, LogsArgs, PsArgs, ReloadArgs, SessionChoice, Since, StatsArgs},
    completions::CompletionsArgs,
    flags::{DaemonFlags, words},
    man::ManArgs,
};
use crate::{
    client::{exec::ExecArgs, top::TopArgs},
    config::{Mode, raw::Raw},
};

/// Longer lines of help are hard to read.
const WIDEST: usize = 100;

/// One stateful process per user: herd pins each session to a worker process of its own.
#[derive(Debug, Parser)]
#[command(
    name = "herd",
    version,
    about = "One stateful process per user: pins each session to a worker process of its own",
    long_about = "One stateful process per user.\n\nherd keeps a pool of worker processes and pins each session to one of \
                  them: one session ID, one worker, for the session's lifetime. Without a command it serves the \
                  built-in REPL, so that there is something to try.",
    after_help = EXAMPLES,
    override_usage = "herd [OPTIONS]\n       herd <COMMAND>",
    max_term_width = WIDEST
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
    #[command(flatten)]
    pub(crate) serve: ServeArgs,
    /// When to use colours: `auto` is on a terminal, unless NO_COLOR is set or TERM is `dumb`
    #[arg(long, value_name = "WHEN", global = true, default_value_t = ColorChoice::Auto, hide_default_value = true,
          help_heading = "Everywhere")]
    pub(crate) color: ColorChoice,
}

const EXAMPLES: &str = "\
Examples:
  herd
      try it with the built-in REPL
  herd run --health-path / -- ./server --port {{.Port}}
      a gateway for any program
  herd serve --config herd.yaml
      the daemon
  herd check herd.yaml
      every mistake in a configuration
  herd doctor
      what this host can isolate and limit
  herd ps
      sessions and workers of a running daemon
  herd logs -f alice
      what a session's worker says
  herd end alice
      end a session
  herd reload
      apply a changed configuration to a running daemon

Exit codes: 0 done, 1 the thing asked for failed, 2 wrong usage.";

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the daemon, from a configuration file or with the built-in REPL
    Serve(ServeArgs),
    /// Run a gateway for any program, without a configuration file
    Run(Box<RunArgs>),
    /// Run the daemon as v0.4 did: from its file, with sessions that come through the control plane alone
    Start(StartArgs),
    /// Check a configuration file and list every mistake in it
    Check(CheckArgs),
    /// Print the JSON schema of configuration files, for editors
    Schema,
    /// Say what this host can isolate and limit, and what to do about the rest
    Doctor(DoctorArgs),
    /// List sessions and workers
    Ps(PsArgs),
    /// Show the numbers of each pool and of the gateway
    Stats(StatsArgs),
    /// Watch sessions and workers on the terminal, and end sessions
    Top(TopArgs),
    /// Show what happened to sessions and workers, and follow it
    Events(EventsArgs),
    /// Show what a worker says on its standard output and error, and follow it
    Logs(LogsArgs),
    /// Run a command in a session's sandbox, with a terminal if there is one
    Exec(ExecArgs),
    /// End sessions and wait until their workers are gone
    End(EndArgs),
    /// Read the configuration file again and apply it
    Reload(ReloadArgs),
    /// Make a bearer token for the gateway, and its hash for the configuration
    Token(TokenArgs),
    /// Print what makes a shell complete herd's command line
    Completions(CompletionsArgs),
    /// Print a page of the manual, or write all pages into a directory
    Man(ManArgs),
    /// Be the built-in worker: a REPL that listens where PORT or LISTEN_FDS says
    #[command(hide = true)]
    Repl(ReplArgs),
}

#[derive(Args, Debug)]
pub(crate) struct ServeArgs {
    /// The configuration file (YAML); without one, workers run the built-in REPL
    #[arg(long, short, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) daemon: DaemonFlags,
    /// How the file is read.
    #[arg(skip)]
    pub(crate) mode: Mode,
}

#[derive(Args, Debug)]
pub(crate) struct StartArgs {
    /// The configuration file (YAML) of v0.4; newer keys may be in it too
    #[arg(long, short, value_name = "FILE")]
    config: PathBuf,
    #[command(flatten)]
    daemon: DaemonFlags,
}

impl From<StartArgs> for ServeArgs {
    fn from(StartArgs { config, daemon }: StartArgs) -> Self {
        Self { config: Some(config), daemon, mode: Mode::Start }
    }
}

#[derive(Args, Debug)]
#[command(after_help = RUN_EXAMPLES)]
pub(crate) struct RunArgs {
    #[command(flatten)]
    pub(crate) daemon: DaemonFlags,
    #[command(flatten)]
    worker: WorkerFlags,
    #[command(flatten)]
    resources: ResourceFlags,
    #[command(flatten)]
    sandbox: SandboxFlags,
    /// The program that each worker runs, with its arguments; {{.Port}}, {{.Socket}}, {{.WorkerID}} and
    /// {{.Workspace}} stand for the worker's own
    #[arg(last = true, required = true, value_name = "COMMAND", help_heading = "Program")]
    pub(crate) command: Vec<OsString>,
}

const RUN_EXAMPLES: &str = "\
Examples:
  herd run --health-path / --cwd . -- python3 -m http.server {{.Port}}
  herd run --workers 2..20 --spare 2 --ttl 15m --env MODE=prod -- ./server --port {{.Port}}
  herd run --ready tcp --session-key cookie:sid -- ./server
  herd run --worker-listen socket -- ./server --socket {{.Socket}}

Each worker has PORT, PATH, HOME and LANG in its environment and what --env names, and nothing of herd's own.
Durations are written 500ms, 15m or 1h30m; sizes 512MiB, 2GiB or 500MB.";

#[derive(Args, Debug)]
pub(crate) struct CheckArgs {
    /// The configuration file (YAML)
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// Check it as `herd start` reads it: variables and files are not filled in
    #[arg(long)]
    pub(crate) start: bool,
    /// Print the mistakes as a JSON list; without one the warnings, whose "kind" is "warning"
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args, Debug)]
pub(crate) struct DoctorArgs {
    /// Say whether this configuration file can be had here [default: whether the sandbox `required` can]
    #[arg(long, short, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Print what is done to start a worker, step by step and with the reasons
    #[arg(long)]
    pub(crate) explain: bool,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
    /// The program that the worker runs, with its arguments [default: the configuration's, or the built-in REPL]
    #[arg(last = true, value_name = "COMMAND")]
    pub(crate) command: Vec<OsString>,
}

#[derive(Args, Debug)]
pub(crate) struct TokenArgs {
    /// Make no token, but hash the one in the first line of standard input
    #[arg(long)]
    pub(crate) hash: bool,
    /// Print JSON: {"token": …, "sha256": …}
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args, Debug)]
pub(crate) struct ReplArgs {
    /// Listen on this Unix socket
    #[arg(long, value_name = "PATH")]
    pub(crate) socket: Option<PathBuf>,
}

impl RunArgs {
    /// The settings that the flags say.
    pub(crate) fn into_raw(self) -> Raw {
        let Self { daemon, worker, resources, sandbox, command } = self;
        let mut raw = Raw::default();
        daemon.apply(&mut raw);
        worker.apply(&mut raw);
        resources.apply(&mut raw);
        sandbox.apply(&mut raw);
        raw.pool.worker.command = words("COMMAND", command);
        raw
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_contradicts_itself_nowhere() {
        Cli::command().debug_assert();
    }
}
