//! `herd man`.

use std::{fs, path::PathBuf};

use anyhow::{Context as _, bail};
use clap::{Args, Command, CommandFactory as _};
use clap_mangen::Man;

use super::Cli;
use crate::console;

#[derive(Args, Debug)]
#[command(after_help = "To read a page formatted: herd man ps | man -l -")]
pub(crate) struct ManArgs {
    /// The command whose page is printed [default: the page of herd itself]
    #[arg(conflicts_with = "dir")]
    command: Option<String>,
    /// Print nothing, but write herd.1 and a page for each command, such as herd-logs.1, into this directory
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

/// Prints a page of the manual, or writes all pages.
///
/// # Errors
/// If there is no such command, or if the directory cannot be made or written to.
pub(crate) fn run(args: &ManArgs) -> anyhow::Result<()> {
    let pages = pages()?;
    let Some(directory) = &args.dir else {
        let wanted = args.command.as_ref().map_or_else(|| "herd.1".to_owned(), |command| format!("herd-{command}.1"));
        let found = pages.iter().find(|(name, _)| *name == wanted);
        let Some((_, page)) = found else {
            let known = pages.iter().filter_map(|(name, _)| name.strip_prefix("herd-")?.strip_suffix(".1"));
            bail!(
                "there is no command `{}` with a page; there are: {}; `herd man --dir DIR` writes all pages",
                args.command.as_deref().unwrap_or_default(),
                known.collect::<Vec<_>>().join(", ")
            );
        };
        return console::print_exactly(page);
    };
    let place = directory.display();
    fs::create_dir_all(directory).with_context(|| format!("cannot make the directory {place}"))?;
    for (name, page) in pages {
        let file = directory.join(&name);
        fs::write(&file, page).with_context(|| format!("cannot write {}", file.display()))?;
    }
    Ok(())
}

/// All pages with their files' names, the program's own first.
fn pages() -> anyhow::Result<Vec<(String, String)>> {
    let mut herd = Cli::command().disable_help_subcommand(true);
    herd.build();
    let mut pages = vec![page(&herd)?];
    for command in herd.get_subcommands().filter(|command| !command.is_hide_set()) {
        pages.push(page(command)?);
    }
    Ok(pages)
}

fn page(command: &Command) -> anyhow::Result<(String, String)> {
    // Built commands know themselves as `herd-logs`.
    let name = command.get_display_name().unwrap_or_else(|| command.get_name()).to_owned();
    let mut page = Vec::new();
    let man = Man::new(command.clone())
        .title(&name)
        .manual("herd manual")
        .source(concat!("herd ", env!("CARGO_PKG_VERSION")));
    man.render(&mut page)?;
    Ok((format!("{name}.1"), ascii(&String::from_utf8(page).context("the page is no text")?)))
}

/// The page with everything beyond ASCII as escapes of groff_char(7): not every reader is told how it is encoded.
fn ascii(page: &str) -> String {
    let mut text = String::with_capacity(page.len());
    for c in page.chars() {
        if c.is_ascii() { text.push(c) } else { text += &format!("\\[u{:04X}]", u32::from(c)) }
    }
    text
}
