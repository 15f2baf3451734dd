//! `herd exec`.

mod conversation;
mod streams;

use std::{
    ffi::{OsStr, OsString},
    os::unix::ffi::{OsStrExt as _, OsStringExt as _},
    process::ExitCode,
};

use anyhow::ensure;
use clap::{ArgAction, Args};
use clap_complete::engine::ArgValueCompleter;
use herd_pool::SessionId;
use hyper::{Method, StatusCode};
use prost::Message as _;

use self::conversation::{Conversation, Ended};
use super::{
    Daemon, block_on, complete,
    named::Named,
    terminal::{self, RawTerminal},
};
use crate::{
    admin::model::Session,
    cli::{DaemonChoice, SessionChoice},
    console,
    control::{
        MOST_EXEC_MESSAGE_BYTES,
        wire::{ExecStart, TerminalSize, Variable},
    },
};

/// The exit codes that are herd's own, as docker and env(1) have them.
const FAILED: u8 = 125;
const NOT_EXECUTABLE: u8 = 126;
const NOT_FOUND: u8 = 127;

/// The daemon's limit, without what is around it in the message.
const MOST_START_BYTES: usize = MOST_EXEC_MESSAGE_BYTES - 16;

/// Arguments of `herd exec`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  herd exec alice -- sh
  herd exec alice -- cat /workspace/report.pdf > report.pdf
  tar c data | herd exec alice -- tar x
  herd exec --env LANG=C --cwd /tmp alice -- sh -c 'ls | wc -l'

The command has what the session's worker has: its files, processes, network, user and limits. It ends with the \
session, and when herd exec ends. The session must be there; it is in use while the command runs.

Exit codes: the command's own; 128 and the signal's number if a signal ended it; 125 if herd failed, 126 if the command \
cannot be executed, 127 if it is not found; 2 wrong usage.")]
pub(crate) struct ExecArgs {
    /// The session's ID
    #[arg(value_name = "SESSION", value_parser = |text: &str| SessionId::new(text),
          add = ArgValueCompleter::new(complete::sessions))]
    session: SessionId,
    #[command(flatten)]
    choice: SessionChoice,
    /// Give the command a terminal; herd's own input and output must be one [default: if they are]
    #[arg(long, short, overrides_with = "no_tty")]
    tty: bool,
    /// Give the command pipes, also on a terminal
    #[arg(long, short = 'T')]
    no_tty: bool,
    /// Give the command no input, and leave herd's own unread
    #[arg(long, short = 'n')]
    no_stdin: bool,
    /// A variable of the command's environment, beyond those of the worker or instead of them; may be repeated
    #[arg(long, short, value_name = "NAME=VALUE", action = ArgAction::Append, value_parser = variable)]
    env: Vec<OsString>,
    /// The directory to run it in, an absolute path as the worker sees it [default: the worker's own]
    #[arg(long, value_name = "DIR", value_parser = directory)]
    cwd: Option<OsString>,
    #[command(flatten)]
    daemon: DaemonChoice,
    /// The program, with its arguments
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

fn variable(text: &str) -> Result<OsString, String> {
    match text.split_once('=') {
        Some((name, _)) if !name.is_empty() => Ok(text.into()),
        _ => Err("write NAME=VALUE".to_owned()),
    }
}

fn directory(text: &str) -> Result<OsString, String> {
    if text.starts_with('/') { Ok(text.into()) } else { Err("write an absolute path, such as /tmp".to_owned()) }
}

/// Runs a command in a session's sandbox; how it ended is the exit code.
pub(crate) fn run(args: ExecArgs) -> ExitCode {
    match block_on(execute(args)) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            console::complain(format_args!("{error:#}"));
            ExitCode::from(FAILED)
        }
    }
}

async fn execute(args: ExecArgs) -> anyhow::Result<u8> {
    let ExecArgs { session, choice, tty, no_tty, no_stdin, env, cwd, daemon, command } = args;
    let at_terminal = RawTerminal::is_there();
    ensure!(
        at_terminal || !tty,
        "--tty needs a terminal for herd's own input and output; leave it out, and the command gets pipes"
    );
    ensure!(!(tty && no_stdin), "--tty is for somebody who types; leave out --no-stdin or --tty");
    let with_terminal = at_terminal && !no_tty && !no_stdin;
    let daemon = Daemon::find(daemon.socket)?;
    let found = find(&daemon, Named { id: &session, choice: &choice }).await?;
    let size = || {
        let (columns, rows) = terminal::size();
        TerminalSize { columns: columns.into(), rows: rows.into() }
    };
    let mut environment: Vec<_> = env.iter().map(|variable| split(variable)).collect();
    // What the terminal is, programs in it have to know.
    if let Some(term) = std::env::var_os("TERM").filter(|_| with_terminal) {
        environment.insert(0, Variable { name: b"TERM".to_vec(), value: term.into_vec() });
    }
    let start = ExecStart {
        session: session.to_string(),
        pool: Some(found.pool),
        tenant: Some(found.tenant.unwrap_or_default()),
        command: command.into_iter().map(OsString::into_vec).collect(),
        environment,
        directory: cwd.unwrap_or_default().into_vec(),
        terminal: with_terminal.then(size),
        output_window: streams::OUTPUT_WINDOW,
    };
    ensure!(
        start.encoded_len() <= MOST_START_BYTES,
        "the command and its environment are {} bytes, and herd exec takes up to {MOST_START_BYTES}; pass what is \
         long on standard input, or as a file",
        start.encoded_len()
    );
    let conversation = Conversation::begin(&daemon, start).await?;
    match conversation.run(!no_stdin, with_terminal).await? {
        Ended::Code(code) => Ok(u8::try_from(code).unwrap_or(u8::MAX)),
        Ended::Signal(signal) => Ok(u8::try_from(128 + signal).unwrap_or(u8::MAX)),
        Ended::NotFound(why) => {
            console::complain(why);
            Ok(NOT_FOUND)
        }
        Ended::NotExecutable(why) => {
            console::complain(why);
            Ok(NOT_EXECUTABLE)
        }
    }
}

/// The first `=` of one that was looked at already.
fn split(variable: &OsStr) -> Variable {
    let bytes = variable.as_bytes();
    let at = bytes.iter().position(|byte| *byte == b'=').unwrap_or(bytes.len());
    Variable { name: bytes[..at].to_vec(), value: bytes.get(at + 1..).unwrap_or_default().to_vec() }
}

/// The session that is meant.
async fn find(daemon: &Daemon, named: Named<'_>) -> anyhow::Result<Session> {
    let answer = daemon.request(Method::GET, &named.path()).await?;
    match named.explain(&answer) {
        Some(error) if answer.status != StatusCode::OK => Err(error),
        _ => daemon.read("/v1/sessions/ID", answer),
    }
}
