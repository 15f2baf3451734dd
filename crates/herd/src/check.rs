//! `herd check FILE`.

use crate::{
    cli::CheckArgs,
    config::{self, Settings},
    console,
};

/// Lists every mistake in the file on standard output, and on standard error what is no mistake and hardly wanted.
///
/// # Errors
/// If there is one, or if the file cannot be read.
pub(crate) fn run(args: &CheckArgs) -> anyhow::Result<()> {
    let (raw, mistakes) = config::read(&args.file)?;
    let settled = config::settle(raw, mistakes);
    for warning in settled.iter().flat_map(Settings::warnings) {
        console::complain(format_args!("warning: {warning}"));
    }
    let found = settled.err().unwrap_or_default();
    if args.json {
        console::print(format_args!("{:#}\n", found.to_json()))?;
    } else if found.is_empty() {
        console::print(format_args!("{}: no mistakes\n", args.file.display()))?;
    } else {
        console::print(format_args!("{found}\n"))?;
    }
    match found.all.len() {
        0 => Ok(()),
        1 => anyhow::bail!("{} has a mistake; correct it and check again", args.file.display()),
        count => anyhow::bail!("{} has {count} mistakes; correct them and check again", args.file.display()),
    }
}
