use std::{
    env,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};

use super::{Environment, repository};

/// Runs all tests, or those that `filters` name. The summary comes last.
pub(super) fn tests(environment: &Environment, filters: &[String]) -> Result<()> {
    // Documentation tests are not for nextest. They run in any case, so that one look shows everything that fails.
    let documented = !filters.is_empty() || succeeds(environment, &["test", "--quiet", "--doc", "--workspace"], &[])?;
    let tested = if has_nextest() {
        succeeds(environment, &["nextest", "run", "--workspace"], filters)?
    } else {
        succeeds(environment, &["test", "--workspace", "--tests", "--no-fail-fast", "--"], filters)?
    };
    ensure!(documented, "documentation tests failed; see above");
    ensure!(tested, "tests failed");
    Ok(())
}

fn succeeds(environment: &Environment, arguments: &[&str], filters: &[String]) -> Result<bool> {
    let status = cargo()
        .args(arguments)
        .args(filters)
        .env("HERD_TEST_NODE_MODULES", &environment.playwright.node_modules)
        .env("HERD_TEST_PYTHON", &environment.playwright.python)
        .env("HERD_TEST_REDIS_SERVER", &environment.redis_server)
        .current_dir(repository())
        .status()
        .context("cannot start cargo")?;
    Ok(status.success())
}

fn has_nextest() -> bool {
    let mut command = cargo();
    command.args(["nextest", "--version"]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

fn cargo() -> Command {
    Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}
