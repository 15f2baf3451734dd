//! `herd check FILE`.

use std::io::{self, IsTerminal as _};

use crate::{
    cli::CheckArgs,
    config::{self, Mode, Settings},
    console,
};

/// Lists every mistake in the file on standard output, and on standard error what is no mistake and hardly wanted.
///
/// # Errors
/// If there is one, or if the file cannot be read.
pub(crate) fn run(args: &CheckArgs) -> anyhow::Result<()> {
    let mode = if args.start { Mode::Start } else { Mode::Serve };
    let (raw, mistakes) = config::read_as(&args.file, mode)?;
    let settled = config::settle(raw, mistakes);
    let warnings = settled.as_ref().map(Settings::warnings).unwrap_or_default();
    for warning in warnings.lines() {
        console::complain(format_args!("warning: {warning}"));
    }
    let found = settled.err().unwrap_or_default();
    if args.json {
        let all = if found.is_empty() { &warnings } else { &found };
        console::print(format_args!("{:#}\n", all.to_json()))?;
    } else if found.is_empty() {
        let file = args.file.display();
        console::print(format_args!("{file}: no mistakes\n"))?;
        if io::stdout().is_terminal() {
            console::print(format_args!("whether this host can do what it asks for: herd doctor --config {file}\n"))?;
        }
    } else {
        console::print(format_args!("{found}\n"))?;
    }
    match found.all.len() {
        0 => Ok(()),
        1 => anyhow::bail!("{} has a mistake; correct it and check again", args.file.display()),
        count => anyhow::bail!("{} has {count} mistakes; correct them and check again", args.file.display()),
    }
}
