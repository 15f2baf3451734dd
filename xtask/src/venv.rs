//! Python's virtual environments, in the target directory.

use std::{
    fs, io,
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};

use crate::progress;

/// A virtual environment knows its own path, so it cannot be renamed when it is whole; this file is made then, and says
/// what was installed.
const DONE: &str = "herd-tests-are-set-up";

/// Makes a virtual environment in `home` with `requirements` in it, unless it is there.
///
/// # Errors
/// If Python's `venv` or `pip` fail. The error names the first requirement.
pub(crate) fn provide(home: &Path, requirements: &[&str]) -> Result<()> {
    provide_with(Path::new("python3"), home, requirements)
}

/// The same with a Python of the caller's choice.
pub(crate) fn provide_with(python: &Path, home: &Path, requirements: &[&str]) -> Result<()> {
    let wanted = requirements.join("\n");
    if fs::read_to_string(home.join(DONE)).is_ok_and(|installed| installed == wanted) {
        return Ok(());
    }
    let name = requirements[0];
    progress(&format!("installs {name} from PyPI"));
    let made = Command::new(python)
        .args(["-m", "venv", "--clear"])
        .arg(home)
        .stdin(Stdio::null())
        .stdout(io::stderr())
        .status()
        .with_context(|| format!("cannot start {}", python.display()))?;
    ensure!(made.success(), "{} could not make a virtual environment in {}", python.display(), home.display());
    let pip = Command::new(home.join("bin/python"))
        .args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"])
        .args(requirements)
        .stdin(Stdio::null())
        .stdout(io::stderr())
        .status()
        .context("cannot start pip")?;
    ensure!(pip.success(), "pip could not install {name}; is its index within reach?");
    fs::write(home.join(DONE), wanted).with_context(|| format!("cannot write into {}", home.display()))
}
