//! `cargo xtask test`: sets up what the tests need, and runs all of them.

mod playwright;
mod run;

use std::{
    env,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

use self::playwright::Playwright;
use crate::packages::{self, Need};

/// Set up what the tests need, and run all of them
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Run only the tests whose name contains one of these, and no documentation tests
    #[arg(last = true, value_name = "FILTER")]
    filters: Vec<String>,
}

/// The programs that the tests drive.
const NEEDS: &[Need] = &[
    Need::program("chromium", "chromium"),
    Need::program("node", "nodejs"),
    Need::program("npm", "npm"),
    Need::program("python3", "python3"),
    Need::command("python3", &["-c", "import ensurepip, venv"], "python3-venv"),
    Need::program("redis-server", "redis-server"),
];

/// What the set-up tells the tests. A test that misses one of these fails and names this command.
struct Environment {
    playwright: Playwright,
    redis_server: PathBuf,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    let environment = set_up().context("the tests cannot run yet")?;
    run::tests(&environment, &options.filters)
}

fn set_up() -> Result<Environment> {
    packages::provide(NEEDS)?;
    playwright::link_chromium()?;
    let playwright = Playwright::install(&target_directory()?.join("test-tools"))?;
    let redis_server = packages::which("redis-server").context("redis-server is in no directory of PATH")?;
    Ok(Environment { playwright, redis_server })
}

/// This program is itself in a profile's directory of the target directory.
fn target_directory() -> Result<PathBuf> {
    let program = env::current_exe()?;
    Ok(program.ancestors().nth(2).context("this program is in no target directory")?.to_owned())
}

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask is in the repository")
}
