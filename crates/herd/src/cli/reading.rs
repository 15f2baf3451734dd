//! Reads the command line, and says what is wrong with it.

use std::{ffi::OsString, process};

use clap::{
    Args as _, ColorChoice, Command, FromArgMatches as _,
    error::{ContextKind, ContextValue, ErrorKind},
    parser::ValueSource,
};

use super::{Cli, ServeArgs, help};
use crate::console::{self, printable};

impl Cli {
    /// Reads the command line, or says what is wrong with it and ends the program.
    pub(crate) fn read() -> Self {
        let words: Vec<_> = std::env::args_os().collect();
        let parser = help::parser(colours(&words));
        Self::parse(parser, &words).unwrap_or_else(|error| end(&explain(error, &words), &words))
    }

    fn parse(mut parser: Command, words: &[OsString]) -> Result<Self, clap::Error> {
        let matches = parser.try_get_matches_from_mut(words)?;
        // Those of `serve` mean something without a command alone. What all commands take may stand before them.
        let serving = ServeArgs::augment_args(Command::new("serve"));
        let mut given = serving
            .get_arguments()
            .filter(|argument| matches.value_source(argument.get_id().as_str()) == Some(ValueSource::CommandLine));
        if let (Some(command), Some(flag)) = (matches.subcommand_name(), given.next().and_then(|a| a.get_long())) {
            let sentence = format!(
                "--{flag} stands before the command `{command}`, which begins without it; put it behind the command, if that takes it"
            );
            return Err(parser.error(ErrorKind::ArgumentConflict, sentence));
        }
        Self::from_arg_matches(&matches)
    }
}

/// Says what is wrong, or what was asked for, such as the help, and ends the program.
fn end(error: &clap::Error, words: &[OsString]) -> ! {
    if !error.use_stderr() {
        console::choose_colours(colours(words));
        // The parser itself would not say that it could not.
        if let Err(error) = console::print(error.render().ansi()) {
            console::complain(format_args!("{error:#}"));
            process::exit(1);
        }
        process::exit(error.exit_code());
    }
    error.exit()
}

/// What `--color` says, for what is said before it is parsed.
fn colours(words: &[OsString]) -> ColorChoice {
    let own = words.iter().take_while(|word| *word != "--");
    let mut chosen = ColorChoice::Auto;
    let mut is_next = false;
    for word in own.filter_map(|word| word.to_str()) {
        let value = if is_next { Some(word) } else { word.strip_prefix("--color=") };
        is_next = word == "--color";
        if let Some(choice) = value.and_then(|value| value.parse().ok()) {
            chosen = choice;
        }
    }
    chosen
}

/// A program without `--` before it is the most likely slip, and "unexpected argument" alone does not say so. And words
/// that are repeated could hold what a terminal obeys.
fn explain(mut error: clap::Error, words: &[OsString]) -> clap::Error {
    let unknown = match error.get(ContextKind::InvalidArg) {
        Some(ContextValue::String(word)) if !word.starts_with('-') => Some(word.clone()),
        _ => None,
    };
    let is_run = words.get(1).is_some_and(|command| command == "run");
    if let (Some(unknown), true, ErrorKind::UnknownArgument) = (unknown, is_run, error.kind()) {
        let tip = format!("put `--` before the program: herd run … -- {} …", printable(&unknown));
        error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![tip.into()]));
    }
    for kind in [ContextKind::InvalidArg, ContextKind::InvalidValue, ContextKind::InvalidSubcommand] {
        if let Some(ContextValue::String(word)) = error.get(kind) {
            let word = printable(word);
            error.insert(kind, ContextValue::String(word));
        }
    }
    error
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Command as Chosen;

    fn parse(words: &[&str]) -> Result<Cli, clap::Error> {
        let words: Vec<_> = words.iter().map(OsString::from).collect();
        Cli::parse(help::parser(ColorChoice::Never), &words).map_err(|error| explain(error, &words))
    }

    #[test]
    fn colours_are_chosen_before_or_behind_the_command() {
        for words in [["herd", "--color", "never", "ps"], ["herd", "ps", "--color", "never"]] {
            let cli = parse(&words).unwrap();
            assert!(matches!(cli.command, Some(Chosen::Ps(_))) && cli.color == ColorChoice::Never, "{words:?}");
            assert_eq!(colours(&words.map(OsString::from)), ColorChoice::Never);
        }
        let words = ["herd", "run", "--color=always", "--", "sh", "--color", "never"].map(OsString::from);
        assert_eq!(colours(&words), ColorChoice::Always);
    }

    #[test]
    fn what_the_daemon_takes_does_not_stand_before_a_command() {
        let refused = parse(&["herd", "--listen", "127.0.0.1:0", "ps"]).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::ArgumentConflict);
        assert!(refused.to_string().contains("--listen stands before the command `ps`"), "{refused}");
        assert!(parse(&["herd", "--listen", "127.0.0.1:0"]).is_ok());
    }

    #[test]
    fn words_that_are_repeated_hold_nothing_that_a_terminal_obeys() {
        for words in [["herd", "end", "a\u{1b}[31m"], ["herd", "\u{1b}[31m", ""], ["herd", "--\u{1b}[31m", ""]] {
            let refused = parse(&words).unwrap_err().to_string();
            assert!(!refused.contains('\u{1b}'), "{refused:?}");
        }
    }
}
