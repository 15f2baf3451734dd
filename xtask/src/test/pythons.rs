//! What the Python client is tested with: the oldest and the newest Python that the machine has, each with the newest of
//! what it can have.

use std::{
    env,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};

use super::playwright;
use crate::{progress, venv};

/// The oldest that the client is for.
const OLDEST: (u32, u32) = (3, 10);

/// The environments know what was installed, and are made anew when this changes. On the oldest Python the client has to
/// do with the oldest library that it says it can do with.
const REQUIREMENTS: &[&str] = &[
    "pytest==9.2.0",
    "httpx2==2.14.0; python_version < '3.11'",
    "httpx2==2.16.2; python_version >= '3.11'",
    "websockets==16.1.1; python_version < '3.11'",
    "websockets==17.4; python_version >= '3.11'",
    "build==1.6.1",
    "hatchling==1.33.0",
    "mypy==2.4.1",
    "pyright==1.1.414",
];

/// Two environments, which are the same if the machine has one Python.
#[derive(Debug)]
pub(super) struct Pythons {
    pub(super) oldest: PathBuf,
    pub(super) newest: PathBuf,
}

impl Pythons {
    /// Makes them in `directory` unless they are there.
    pub(super) fn install(directory: &Path) -> Result<Self> {
        let found = candidates().filter_map(|python| Some((version(&python)?, python)));
        let mut found: Vec<_> = found.filter(|(version, _)| *version >= OLDEST).collect();
        found.sort_by_key(|(version, _)| *version);
        let ends = found.first().zip(found.last());
        let (oldest, newest) = ends.context("there is no Python from 3.10 on that can make virtual environments")?;
        Ok(Self { oldest: provide(directory, oldest)?, newest: provide(directory, newest)? })
    }
}

fn provide(directory: &Path, ((major, minor), python): &((u32, u32), PathBuf)) -> Result<PathBuf> {
    let home = directory.join(format!("client-python-{major}.{minor}"));
    let playwright = format!("playwright=={}", playwright::VERSION);
    let requirements: Vec<_> = REQUIREMENTS.iter().copied().chain([playwright.as_str()]).collect();
    venv::provide_with(python, &home, &requirements)?;
    // What PyPI has of pyright fetches the program itself when it is called first.
    let cache = home.join("pyright");
    if !cache.is_dir() {
        progress("installs pyright from npm");
        let mut pyright = Command::new(home.join("bin/pyright"));
        pyright.arg("--version").env("PYRIGHT_PYTHON_CACHE_DIR", &cache);
        let output = pyright.stdin(Stdio::null()).output().context("cannot start pyright")?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "pyright cannot be installed; is npm's registry within reach? {said}");
    }
    Ok(home.join("bin/python"))
}

/// Where Pythons usually are. Nothing is known of them yet, not even whether they are there.
fn candidates() -> impl Iterator<Item = PathBuf> {
    let in_path = (OLDEST.1..30).map(|minor| format!("python3.{minor}")).chain(["python3".to_owned()]);
    let pyenv = env::var_os("PYENV_ROOT").map(PathBuf::from);
    let pyenv = pyenv.or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".pyenv")));
    let versions = pyenv.and_then(|root| root.join("versions").read_dir().ok()).into_iter().flatten();
    in_path.map(PathBuf::from).chain(versions.filter_map(|entry| Some(entry.ok()?.path().join("bin/python"))))
}

/// The version of a Python that can make virtual environments, which on Debian not all can.
fn version(python: &Path) -> Option<(u32, u32)> {
    let program = "import ensurepip, sys, venv; print(*sys.version_info[:2])";
    let output = Command::new(python).args(["-c", program]).stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    let text = String::from_utf8(output.stdout).ok().filter(|_| output.status.success())?;
    let (major, minor) = text.trim().split_once(' ')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}
