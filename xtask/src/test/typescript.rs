//! What the TypeScript client is built and tested with, from npm.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};

use super::repository;
use crate::progress;

/// What npm installs by. With the client's own `.npmrc`, the lock file names no registry.
const FILES: [&str; 3] = [".npmrc", "package.json", "package-lock.json"];

/// Installs what the client's lock file names into `directory`, unless that is there, and answers where.
pub(super) fn install(directory: &Path) -> Result<PathBuf> {
    let client = repository().join("clients/typescript");
    let home = directory.join("typescript");
    let node_modules = home.join("node_modules");
    if node_modules.is_dir() && FILES.iter().all(|name| is_same(&client.join(name), &home.join(name))) {
        return Ok(node_modules);
    }
    progress("installs what the TypeScript client is built with from npm");
    // What is half installed is not mistaken for whole, because it gets its name last.
    let unfinished = home.with_extension(format!("{}.unfinished", std::process::id()));
    fs::create_dir_all(&unfinished).with_context(|| format!("cannot make {}", unfinished.display()))?;
    for name in FILES {
        let file = client.join(name);
        fs::copy(&file, unfinished.join(name)).with_context(|| format!("cannot copy {}", file.display()))?;
    }
    let npm = Command::new("npm")
        .args(["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error", "--prefix"])
        .arg(&unfinished)
        .current_dir(&unfinished)
        .stdin(Stdio::null())
        .stdout(io::stderr())
        .status()
        .context("cannot start npm")?;
    ensure!(
        npm.success(),
        "npm could not install what the TypeScript client is built with; is its registry within reach?"
    );
    match fs::remove_dir_all(&home) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("cannot remove {}", home.display()));
        }
        _ => {}
    }
    fs::rename(&unfinished, &home).with_context(|| format!("cannot make {}", home.display()))?;
    Ok(node_modules)
}

fn is_same(one: &Path, other: &Path) -> bool {
    matches!((fs::read(one), fs::read(other)), (Ok(one), Ok(other)) if one == other)
}
