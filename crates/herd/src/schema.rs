//! `herd schema`.

use crate::{config, console};

/// Prints the JSON schema of configuration files.
///
/// # Errors
/// If standard output cannot be written to.
pub(crate) fn run() -> anyhow::Result<()> {
    console::print(format_args!("{:#}\n", config::schema()))
}
