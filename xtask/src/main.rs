//! What contributors run: `cargo xtask test`, `cargo xtask bench`.
#![forbid(unsafe_code)]

mod bench;
mod packages;
mod test;

use std::process::ExitCode;

use clap::Parser;

/// What contributors run.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask")]
enum Task {
    #[command(flatten)]
    Bench(bench::Task),
    Test(test::Options),
}

#[expect(clippy::print_stderr, reason = "this is a command for people")]
fn main() -> ExitCode {
    let done = match Task::parse() {
        Task::Bench(task) => bench::run(&task),
        Task::Test(options) => test::run(&options),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // One line, without a backtrace: it comes after a summary that should stay in view.
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Tells on stderr what takes a while.
#[expect(clippy::print_stderr, reason = "this is a command for people")]
fn progress(what: &str) {
    eprintln!("xtask: {what}");
}
