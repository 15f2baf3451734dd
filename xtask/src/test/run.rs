use std::{
    env,
    process::{Command, Stdio},
    thread::JoinHandle,
};

use anyhow::{Context as _, Result, anyhow, ensure};

use super::{Environment, machine::InMachine, repository, targets::Targets};
use crate::vm::Machine;

/// Runs all tests, or those that `filters` name. `machine` is being set up meanwhile, if that was begun.
pub(super) fn tests(
    environment: &Environment,
    filters: &[String],
    machine: Option<JoinHandle<Result<Machine>>>,
) -> Result<()> {
    let targets = Targets::build()?;
    let in_machine = InMachine::list(&targets, filters)?;
    // Everything runs in any case, so that one look shows all that fails. Documentation tests are not for nextest.
    let documented = !filters.is_empty() || succeeds(environment, &["test", "--quiet", "--doc", "--workspace"], &[])?;
    let tested = on_host(environment, &targets, filters, &in_machine)?;
    let limited = if in_machine.is_empty() { Ok(()) } else { boot(environment, in_machine, machine) };
    let traced = !concerns_traces(filters) || with_traces(environment)?;
    let failures = [
        (!documented).then(|| "documentation tests failed".to_owned()),
        (!tested).then(|| "tests failed".to_owned()),
        (!traced).then(|| "tests of traces failed".to_owned()),
        limited.err().map(|error| format!("{error:#}")),
    ];
    let failures: Vec<_> = failures.into_iter().flatten().collect();
    ensure!(failures.is_empty(), "{}", failures.join("; "));
    Ok(())
}

fn concerns_traces(filters: &[String]) -> bool {
    filters.is_empty() || filters.iter().any(|filter| filter.contains("trace"))
}

/// The tests of a program that is built with the feature `otlp`. They come last: this program takes the place of the one
/// that all other tests start.
fn with_traces(environment: &Environment) -> Result<bool> {
    succeeds(environment, &["test", "--quiet", "--package", "herd", "--features", "otlp", "--test", "traces"], &[])
}

fn on_host(environment: &Environment, targets: &Targets, filters: &[String], elsewhere: &InMachine) -> Result<bool> {
    if has_nextest() {
        // A name that no test has is a mistake, unless it is that of a test in the virtual machine.
        let none = if elsewhere.is_empty() { "--no-tests=fail" } else { "--no-tests=pass" };
        return succeeds(environment, &["nextest", "run", "--workspace", none], filters);
    }
    let mut arguments = vec!["test", "--workspace", "--no-fail-fast", "--lib", "--bins"];
    arguments.extend(targets.on_host().flat_map(|name| ["--test", name]));
    arguments.push("--");
    succeeds(environment, &arguments, filters)
}

fn boot(environment: &Environment, tests: InMachine, machine: Option<JoinHandle<Result<Machine>>>) -> Result<()> {
    let machine = match machine {
        Some(thread) => thread.join().map_err(|_| anyhow!("the set-up of the virtual machine panicked"))?,
        None => Machine::provide(),
    };
    tests.run(&machine.context("the virtual machine cannot boot yet")?, environment)
}

fn succeeds(environment: &Environment, arguments: &[&str], filters: &[String]) -> Result<bool> {
    let mut command = cargo();
    let status = command.args(arguments).args(filters).envs(environment.variables()?).status();
    Ok(status.context("cannot start cargo")?.success())
}

fn has_nextest() -> bool {
    let mut command = cargo();
    command.args(["nextest", "--version"]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// Cargo, in the repository.
pub(super) fn cargo() -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(repository());
    command
}
