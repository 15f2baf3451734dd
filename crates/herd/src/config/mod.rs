//! The configuration: from a file or from flags, to checked settings.
//!
//! What was typed ([`raw`]) and what it means ([`settings`]) are two types. Everything that is wrong is found in one go
//! and told with its place ([`mistake`]).

mod access;
mod fields;
mod file;
mod form;
mod interpolation;
pub(crate) mod mistake;
mod network;
mod pools;
pub(crate) mod raw;
mod resolve;
mod routes;
pub(crate) mod sandbox;
mod schema;
pub(crate) mod settings;
mod telemetry;
mod tenants;
pub(crate) mod value;
mod webhooks;
mod words;
mod yaml;

use std::{
    env,
    fs::File,
    io::{self, Read as _},
    path::Path,
};

use self::{mistake::Mistake, raw::Raw};
pub(crate) use self::{
    mistake::Mistakes,
    pools::{secrets, shows},
    schema::schema,
    settings::Settings,
};
use crate::workers;

/// For which command a file is read.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) enum Mode {
    /// `herd serve`.
    #[default]
    Serve,
    /// `herd start`, the daemon mode of v0.4: texts stay as they are, sessions come through the control plane alone, and
    /// there is no admin address unless the file names one.
    Start,
}

/// Reads the file; what is wrong in it is in the second part of the answer.
///
/// # Errors
/// If the file cannot be read at all.
pub(crate) fn read(path: &Path) -> anyhow::Result<(Raw, Mistakes)> {
    read_as(path, Mode::Serve)
}

/// Reads the file for this command.
///
/// # Errors
/// If the file cannot be read at all.
pub(crate) fn read_as(path: &Path, mode: Mode) -> anyhow::Result<(Raw, Mistakes)> {
    let text = read_bytes(path).map_err(|error| {
        anyhow::anyhow!("cannot read the configuration {}: {error}; check its path and permissions", path.display())
    })?;
    let mut mistakes = Mistakes::of_file(&path.display().to_string());
    let raw = file::read(&text, mode, &|name| env::var_os(name), &mut mistakes);
    Ok((raw, mistakes))
}

/// Reads at most one byte more than a configuration may have, so that a pipe without end does not fill the memory.
fn read_bytes(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(file::LARGEST_FILE as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Settles what was typed.
///
/// # Errors
/// All mistakes: those found before, and those of values that don't go together.
pub(crate) fn settle(raw: Raw, mut mistakes: Mistakes) -> Result<Settings, Mistakes> {
    let mode = raw.mode;
    let settings = resolve::resolve(raw, &mut mistakes);
    mistakes.all.extend(settings.pools.iter().flat_map(workers::mistakes).map(Mistake::without_values));
    if mode == Mode::Start {
        mistakes.all.iter_mut().for_each(explain_unfilled);
    }
    mistakes.sort();
    if mistakes.is_empty() { Ok(settings) } else { Err(mistakes) }
}

/// Whoever wrote `${NAME}` meant what it stands for.
fn explain_unfilled(mistake: &mut Mistake) {
    if mistake.origin.text.as_ref().or(mistake.found.as_ref()).is_some_and(|text| text.contains("${")) {
        mistake.remedy += "; `herd start` does not fill in variables and files, as `herd serve` does";
    }
}

#[cfg(test)]
mod tests;
