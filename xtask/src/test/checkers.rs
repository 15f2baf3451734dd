//! Programs from PyPI that check what herd writes and answers.

use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::venv;

/// The environment knows what was installed, and is made anew when this changes.
const REQUIREMENTS: &[&str] = &[
    "grpcio==1.85.1",
    "grpcio-health-checking==1.85.1",
    "grpcio-reflection==1.85.1",
    "jsonschema==4.26.0",
    "ruamel.yaml==0.19.1",
    "schemathesis==4.32.5",
];

/// Installs them into `directory` unless they are there, and answers the Python that finds them.
pub(super) fn install(directory: &Path) -> Result<PathBuf> {
    let home = directory.join("checkers");
    venv::provide(&home, REQUIREMENTS)?;
    Ok(home.join("bin/python"))
}
