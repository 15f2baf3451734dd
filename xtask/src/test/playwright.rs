use std::{
    fs, io,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail, ensure};

use crate::{
    packages::{may_sudo, which},
    progress, venv,
};

/// The server (npm `playwright-core`) and the client (PyPI `playwright`) refuse one another unless they are the same.
const VERSION: &str = "1.65.1";

/// Where a Playwright server looks for the browser of the channel "chrome", which a client may choose.
const CHROME: &str = "/opt/google/chrome/chrome";

/// Playwright's server for Node.js and its client for Python, both in the target directory.
#[derive(Debug)]
pub(super) struct Playwright {
    pub(super) node_modules: PathBuf,
    pub(super) python: PathBuf,
}

impl Playwright {
    /// Installs both into `directory` unless they are there.
    pub(super) fn install(directory: &Path) -> Result<Self> {
        // The version is in the path: another one is installed beside it, and what is half installed is not mistaken for
        // whole, because it gets its name last.
        let home = directory.join(format!("playwright-{VERSION}"));
        if !home.is_dir() {
            fs::create_dir_all(directory).with_context(|| format!("cannot make {}", directory.display()))?;
            install_server(&home)?;
        }
        let python = directory.join(format!("playwright-python-{VERSION}"));
        venv::provide(&python, &[&format!("playwright=={VERSION}")])?;
        Ok(Self { node_modules: home.join("node_modules"), python: python.join("bin/python") })
    }
}

fn install_server(home: &Path) -> Result<()> {
    progress(&format!("installs playwright-core {VERSION} from npm"));
    let unfinished = home.with_extension(format!("{}.unfinished", std::process::id()));
    fs::create_dir_all(&unfinished).with_context(|| format!("cannot make {}", unfinished.display()))?;
    let npm = Command::new("npm")
        .args(["install", "--no-audit", "--no-fund", "--no-save", "--loglevel=error", "--prefix"])
        .arg(&unfinished)
        .arg(format!("playwright-core@{VERSION}"))
        .stdin(Stdio::null())
        .stdout(io::stderr())
        .status()
        .context("cannot start npm")?;
    ensure!(npm.success(), "npm could not install playwright-core {VERSION}; is its registry within reach?");
    fs::rename(&unfinished, home).with_context(|| format!("cannot make {}", home.display()))
}

/// Lets Playwright's channel "chrome" find Chromium. A Chrome that is installed stays.
pub(super) fn link_chromium() -> Result<()> {
    if Path::new(CHROME).exists() {
        return Ok(());
    }
    let chromium = which("chromium").context("chromium is in no directory of PATH")?;
    let directory = Path::new(CHROME).parent().expect("it is in a directory");
    let link = || {
        fs::create_dir_all(directory)?;
        // One that leads nowhere is in the way.
        match fs::remove_file(CHROME) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        symlink(&chromium, CHROME)
    };
    let (path, directory) = (chromium.display(), directory.display());
    let Err(error) = link() else { return Ok(()) };
    let command = format!("mkdir -p {directory} && ln -sfn {path} {CHROME}");
    let as_root = || Command::new("sudo").args(["--non-interactive", "sh", "-c", &command]).status();
    if may_sudo() && as_root().is_ok_and(|status| status.success()) {
        return Ok(());
    }
    bail!(
        "Playwright looks for Chrome at {CHROME}, and that cannot be linked to {path} ({error}); type: sudo sh -c '{command}'"
    )
}
