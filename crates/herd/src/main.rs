//! herd: one stateful process per user. The daemon, and the commands that talk to it.
#![forbid(unsafe_code)]

mod access;
mod admin;
mod banner;
mod causes;
mod certificates;
mod changes;
mod check;
mod cli;
mod client;
mod config;
mod console;
mod control;
mod daemon;
mod dashboard;
mod doctor;
mod draining;
mod front_door;
mod gateway_threads;
mod holder;
mod isolation;
mod journal;
mod logs;
mod metrics;
mod own_program;
mod pools;
mod prose;
mod reload;
mod repl;
mod schema;
mod service_manager;
mod setup;
mod sight;
mod signals;
mod tls;
mod traces;
mod usage;
mod webhooks;
mod workers;

use std::process::ExitCode;

use crate::{
    cli::{Cli, Command},
    config::mistake::Mistakes,
};

fn main() -> ExitCode {
    herd_sandbox::enter_init();
    cli::completions::answer_shell();
    let Cli { command, serve, color } = Cli::read();
    console::choose_colours(color);
    let done = match command.unwrap_or(Command::Serve(serve)) {
        Command::Serve(args) => daemon::serve(args),
        Command::Run(args) => daemon::run(*args),
        Command::Start(args) => daemon::serve(args.into()),
        Command::Check(args) => check::run(&args),
        Command::Schema => schema::run(),
        Command::Doctor(args) => doctor::run(args),
        Command::Ps(args) => client::ps::run(args),
        Command::Stats(args) => client::stats::run(args),
        Command::Top(args) => return client::top::run(args).unwrap_or_else(|error| failed(&error)),
        Command::Events(args) => client::events::run(&args),
        Command::Logs(args) => client::logs::run(&args),
        Command::Exec(args) => return client::exec::run(args),
        Command::End(args) => client::end::run(args),
        Command::Reload(args) => client::reload::run(args),
        Command::Token(args) => access::run(&args),
        Command::Completions(args) => cli::completions::run(&args),
        Command::Man(args) => cli::man::run(&args),
        Command::Repl(args) => repl::run(args.socket.as_deref()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(&error),
    }
}

/// The one place where errors become exit codes: 1 if the thing asked for failed, 2 if it was asked for wrongly. Usage
/// that the parser of the command line refuses ends with 2 there.
fn failed(error: &anyhow::Error) -> ExitCode {
    match error.downcast_ref::<Mistakes>() {
        Some(mistakes) => {
            console::complain(mistakes);
            let asked_wrongly = mistakes.file.is_none() && !mistakes.are_all_unavailable();
            if asked_wrongly { ExitCode::from(2) } else { ExitCode::FAILURE }
        }
        None => {
            console::complain(format_args!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}
