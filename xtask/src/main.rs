//! What contributors run: `cargo xtask test`, `cargo xtask bench`, `cargo xtask vm`.
#![forbid(unsafe_code)]

mod bench;
mod deb;
mod packages;
mod proto;
mod static_build;
mod test;
mod tools;
mod venv;
mod vm;

use std::{env, path::PathBuf, process::ExitCode};

use anyhow::{Context as _, Result};
use clap::Parser;

/// What contributors run.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask")]
enum Task {
    #[command(flatten)]
    Bench(bench::Task),
    Deb(deb::Options),
    /// Generate the code of the control plane from its schema
    Proto,
    Static(static_build::Options),
    Test(test::Options),
    Vm(vm::Options),
    #[command(hide = true)]
    Guest(vm::guest::Options),
}

#[expect(clippy::print_stderr, reason = "this is a command for people")]
fn main() -> ExitCode {
    let done = match Task::parse() {
        Task::Bench(task) => bench::run(&task).map(|()| ExitCode::SUCCESS),
        Task::Deb(options) => deb::run(&options).map(|()| ExitCode::SUCCESS),
        Task::Proto => proto::generate().map(|()| ExitCode::SUCCESS),
        Task::Static(options) => static_build::run(&options).map(|()| ExitCode::SUCCESS),
        Task::Test(options) => test::run(&options).map(|()| ExitCode::SUCCESS),
        Task::Vm(options) => vm::run(&options),
        Task::Guest(options) => vm::guest::run(&options),
    };
    match done {
        Ok(code) => code,
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

/// This program is itself in a profile's directory of the target directory.
pub(crate) fn target_directory() -> Result<PathBuf> {
    let program = env::current_exe()?;
    Ok(program.ancestors().nth(2).context("this program is in no target directory")?.to_owned())
}
