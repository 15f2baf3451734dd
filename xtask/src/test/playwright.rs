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
pub(super) const VERSION: &str = "1.65.1";

/// What looks for barriers in a page (npm `axe-core`).
const AXE_VERSION: &str = "4.14.1";

/// Where a Playwright server looks for the browser of the channel "chrome", which a client may choose.
const CHROME: &str = "/opt/google/chrome/chrome";

/// Playwright's server for Node.js, its client for Python, and what it looks at pages with, in the target directory.
#[derive(Debug)]
pub(super) struct Playwright {
    pub(super) node_modules: PathBuf,
    pub(super) python: PathBuf,
    /// A script that pages are given.
    pub(super) axe: PathBuf,
}

impl Playwright {
    /// Installs all of it into `directory` unless it is there.
    pub(super) fn install(directory: &Path) -> Result<Self> {
        let server = provide(&directory.join(format!("playwright-{VERSION}")), "playwright-core", VERSION)?;
        let axe = provide(&directory.join(format!("axe-{AXE_VERSION}")), "axe-core", AXE_VERSION)?;
        let python = directory.join(format!("playwright-python-{VERSION}"));
        venv::provide(&python, &[&format!("playwright=={VERSION}")])?;
        Ok(Self { node_modules: server, python: python.join("bin/python"), axe: axe.join("axe-core/axe.min.js") })
    }
}

/// Installs a package from npm into `home` unless that is there, and says where it is.
fn provide(home: &Path, package: &str, version: &str) -> Result<PathBuf> {
    // The version is in the path: another one is installed beside it, and what is half installed is not mistaken for
    // whole, because it gets its name last.
    if !home.is_dir() {
        install(home, package, version)?;
    }
    Ok(home.join("node_modules"))
}

fn install(home: &Path, package: &str, version: &str) -> Result<()> {
    progress(&format!("installs {package} {version} from npm"));
    let unfinished = home.with_extension(format!("{}.unfinished", std::process::id()));
    fs::create_dir_all(&unfinished).with_context(|| format!("cannot make {}", unfinished.display()))?;
    let npm = Command::new("npm")
        .args(["install", "--no-audit", "--no-fund", "--no-save", "--loglevel=error", "--prefix"])
        .arg(&unfinished)
        .arg(format!("{package}@{version}"))
        .stdin(Stdio::null())
        .stdout(io::stderr())
        .status()
        .context("cannot start npm")?;
    ensure!(npm.success(), "npm could not install {package} {version}; is its registry within reach?");
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
