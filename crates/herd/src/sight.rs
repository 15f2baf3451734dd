//! What the workers' command names and workers do not see.

use std::{
    env,
    ffi::OsStr,
    fs,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
};

use herd_process::path_in;
use herd_sandbox::{Files, Layer, real_path};

use crate::config::settings::{Command, Pool};

/// Where herd puts what is a worker's own.
const PLACES: [&str; 2] = ["/workspace", "/run/herd"];

/// Directories that a worker has, too, with other things in them.
const COMMON: [&str; 6] = ["/", "/tmp", "/run", "/var", "/etc", "/var/tmp"];

/// One sentence for each argument that names something of the host that workers with these layers do not see.
///
/// It is a guess: an argument that happens to be the name of a file may mean something else.
pub(crate) fn unseen(settings: &Pool, layers: &[Layer]) -> Vec<String> {
    let Command::Program { args, .. } = &settings.worker.command else { return Vec::new() };
    if !layers.contains(&Layer::Files) && !layers.contains(&Layer::Landlock) {
        return Vec::new();
    }
    let Ok(here) = env::current_dir() else { return Vec::new() };
    args.iter().filter_map(|arg| sentence(arg, settings, &here)).collect()
}

fn sentence(arg: &OsStr, settings: &Pool, here: &Path) -> Option<String> {
    if arg.as_bytes().windows(2).any(|pair| pair == b"{{") {
        return None;
    }
    let named = path_in(arg);
    let path = if named.is_absolute() {
        named.to_owned()
    } else if settings.worker.cwd.is_none() && is_like_a_path(named.as_os_str(), here) {
        // Workers look for it in their workspace.
        real_path(&here.join(named))
    } else {
        return None;
    };
    let is_there = fs::symlink_metadata(&path).is_ok();
    // A file is shown to who is told of it; a directory may hold more than is meant.
    let is_visible = path.is_file() || is_own(&path) || is_shown(&path, settings);
    (is_there && (!named.is_absolute() || !is_visible)).then(|| advice(&path, named, settings, here))
}

/// Whether a word is meant to be a path: a subcommand may have the name of some directory.
fn is_like_a_path(word: &OsStr, here: &Path) -> bool {
    let bytes = word.as_bytes();
    !bytes.is_empty() && !bytes.starts_with(b"-") && (bytes.contains(&b'/') || here.join(word).is_file())
}

fn is_own(path: &Path) -> bool {
    Files::OWN.iter().chain(&PLACES).any(|own| path.starts_with(own)) || COMMON.map(Path::new).contains(&path)
}

/// Whether workers see it, or something in it.
fn is_shown(path: &Path, settings: &Pool) -> bool {
    let sandbox = &settings.sandbox;
    let mut files = Files::default();
    files.read_only.clone_from(&sandbox.read_only);
    files.writable.clone_from(&sandbox.writable);
    files.read_only.extend(settings.worker.cwd.clone().filter(|cwd| cwd.is_absolute()));
    if let Command::Program { program, .. } = &settings.worker.command {
        files.read_only.extend(Some(PathBuf::from(program)).filter(|program| program.is_absolute()));
    }
    let real = real_path(path);
    let mut shown = files.read_only.iter().chain(&files.writable);
    shown.any(|shown| real_path(shown).starts_with(&real)) || !files.sights(path).is_empty()
}

fn advice(path: &Path, named: &Path, settings: &Pool, here: &Path) -> String {
    let flags = settings.file.is_none();
    let text = |path: &Path| path.to_string_lossy().escape_debug().to_string();
    let show = |cwd: &Path| {
        let cwd = text(cwd);
        if flags { format!("--cwd {cwd}") } else { format!("`cwd: {cwd}` in `worker`") }
    };
    let shown = text(path);
    if !named.is_absolute() {
        // By a relative path they would not find it, wherever it is shown.
        return format!(
            "workers do not see {shown}: they begin in a workspace of their own; show it with {}",
            show(here)
        );
    }
    let or = if flags { format!("--read-only {shown}") } else { format!("`read_only: [{shown}]` in `sandbox`") };
    format!("workers do not see {shown}; show it with {} or {or}", show(path))
}
