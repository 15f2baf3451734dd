//! The list of commands, by what they are for.

use clap::{ColorChoice, Command, CommandFactory as _};

use super::{Cli, WIDEST};
use crate::prose::{terminal_width, wrapped};

/// What commands are for, and which are. One that is missing here is listed last.
const GROUPS: [(&str, &[&str]); 4] = [
    ("Be a daemon", &["serve", "run", "start"]),
    ("Talk to a running daemon", &["ps", "top", "stats", "events", "logs", "exec", "end", "reload"]),
    ("Look before you start", &["check", "doctor", "schema", "token"]),
    ("Shells and manuals", &["completions", "man", "help"]),
];
const OTHERS: &str = "Other commands";

/// The parser of the command line. It differs from what derives from [`Cli`] in its help alone: there is no way to part
/// commands but to hide them from the list and to write another.
pub(super) fn parser(colours: ColorChoice) -> Command {
    let command = Cli::command().color(colours);
    let styles = command.get_styles().clone();
    let template = format!(
        "{{before-help}}{{about-with-newline}}\n{{usage-heading}} {{usage}}\n\n{}{{all-args}}{{after-help}}",
        list(&command, &styles, columns())
    );
    command.help_template(template).mut_subcommands(|command| command.hide(true))
}

/// How wide the rest of the help is on a terminal.
fn columns() -> Option<usize> {
    terminal_width().map(|width| width.min(WIDEST))
}

fn list(command: &Command, styles: &clap::builder::Styles, columns: Option<usize>) -> String {
    let mut visible: Vec<_> = command
        .get_subcommands()
        .filter(|command| !command.is_hide_set())
        .map(|command| (command.get_name(), command.get_about().map(ToString::to_string).unwrap_or_default()))
        .collect();
    visible.push(("help", "Print the help of a command".to_owned()));
    let width = visible.iter().map(|(name, _)| name.len()).max().unwrap_or_default();
    let (header, literal) = (styles.get_header(), styles.get_literal());
    let mut text = String::new();
    let listed = |name: &str| GROUPS.iter().any(|(_, names)| names.contains(&name));
    let others: Vec<_> = visible.iter().map(|(name, _)| *name).filter(|name| !listed(name)).collect();
    for (purpose, names) in GROUPS.into_iter().chain([(OTHERS, &others[..])]) {
        let lines: String = names
            .iter()
            .filter_map(|name| visible.iter().find(|(known, _)| known == name))
            .map(|(name, about)| format!("  {literal}{name:width$}{literal:#}  {about}\n"))
            .map(|line| wrapped(&line, width + 4, columns))
            .collect();
        if !lines.is_empty() {
            text += &format!("{header}{purpose}:{header:#}\n{lines}\n");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_has_its_purpose() {
        let text = parser(ColorChoice::Never).render_help().to_string();
        assert!(!text.contains(OTHERS), "{text}");
        for (purpose, _) in GROUPS {
            assert!(text.contains(&format!("{purpose}:\n")), "{text}");
        }
    }
}
