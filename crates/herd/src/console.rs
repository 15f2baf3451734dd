//! What commands say to the person who typed them.

mod unseen;

use std::{
    fmt::{Display, Write as _},
    future::pending,
    io::{self, IsTerminal as _, Write},
    os::fd::AsFd as _,
};

use anstream::AutoStream;
use anyhow::Context as _;
use clap::ColorChoice;
use clap::builder::styling as anstyle;
use serde::Serialize;
use tokio::{io::Interest, net::unix::pipe::Sender};

/// Whether anybody still reads standard output.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Reader {
    There,
    /// They have seen enough, as with `herd events | head -1`.
    Gone,
}

/// Sets when colours are used: on standard output and on standard error, each by what it is.
pub(crate) fn choose_colours(choice: ColorChoice) {
    let choice = match choice {
        ColorChoice::Auto => anstream::ColorChoice::Auto,
        ColorChoice::Always => anstream::ColorChoice::AlwaysAnsi,
        ColorChoice::Never => anstream::ColorChoice::Never,
    };
    choice.write_global();
}

/// Whether what is written to standard error has colours.
pub(crate) fn colours_errors() -> bool {
    AutoStream::choice(&io::stderr()) != anstream::ColorChoice::Never
}

/// Writes to standard output, with the colours that `text` has if they are wanted. A reader who has seen enough is no
/// error.
///
/// # Errors
/// If the output cannot be written for another reason, such as a full disk.
pub(crate) fn print(text: impl Display) -> anyhow::Result<()> {
    tell(text).map(drop)
}

/// The same, and says whether somebody reads on.
///
/// # Errors
/// As [`print()`].
pub(crate) fn tell(text: impl Display) -> anyhow::Result<Reader> {
    told(&mut AutoStream::auto(io::stdout().lock()), &text)
}

/// Writes to standard output what programs read, as it is.
///
/// # Errors
/// As [`print()`].
pub(crate) fn print_exactly(text: impl Display) -> anyhow::Result<()> {
    told(&mut io::stdout().lock(), &text).map(drop)
}

/// Writes a value to standard output as JSON over several lines.
///
/// # Errors
/// As [`print()`].
pub(crate) fn print_json(value: &impl Serialize) -> anyhow::Result<()> {
    print_exactly(escaped(&serde_json::to_string_pretty(value)?) + "\n")
}

/// Writes a value to standard output as a line of JSON, and says whether somebody reads on.
///
/// # Errors
/// As [`print()`].
pub(crate) fn tell_json(value: &impl Serialize) -> anyhow::Result<Reader> {
    told(&mut io::stdout().lock(), &(escaped(&serde_json::to_string(value)?) + "\n"))
}

fn told(stdout: &mut impl Write, text: &impl Display) -> anyhow::Result<Reader> {
    // At once: whoever reads lines is to get whole ones.
    let text = text.to_string();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Ok(()) => Ok(Reader::There),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(Reader::Gone),
        Err(error) => Err(error).context("cannot write to standard output"),
    }
}

/// Waits until nobody reads standard output any more, for those who may have nothing to write for long. Where it is no
/// pipe, it does not end.
pub(crate) async fn reader_gone() {
    // A pipe without a reader is in error (poll(2)). Files cannot be watched, and have no reader to lose. It is looked
    // at alone and never written to through this, so that it may block as before.
    let watched = io::stdout().as_fd().try_clone_to_owned().and_then(Sender::from_owned_fd_unchecked);
    match watched {
        Ok(stdout) => drop(stdout.ready(Interest::ERROR).await),
        Err(_) => pending().await,
    }
}

/// Writes one sentence to standard error.
pub(crate) fn complain(sentence: impl Display) {
    let sentence = sentence.to_string();
    let lines: Vec<_> = sentence.split('\n').map(printable).collect();
    // If nobody can be told, there is nobody to tell.
    let _ = writeln!(io::stderr().lock(), "herd: {}", lines.join("\n"));
}

/// A line on the terminal that says how far a long wait is, written over again and again. Elsewhere nothing.
#[derive(Debug)]
pub(crate) struct Progress {
    at_terminal: bool,
}

impl Progress {
    pub(crate) fn new() -> Self {
        Self { at_terminal: io::stderr().is_terminal() && std::env::var_os("TERM").is_none_or(|term| term != "dumb") }
    }

    /// Whether anybody sees it.
    pub(crate) fn is_shown(&self) -> bool {
        self.at_terminal
    }

    pub(crate) fn say(&self, text: impl Display) {
        if self.at_terminal {
            // Back to the line's beginning, and erase what is behind it.
            let _ = write!(io::stderr().lock(), "\r\u{1b}[K{text}");
        }
    }

    /// Takes the line away, before something else is written.
    pub(crate) fn clear(&self) {
        self.say("");
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.clear();
    }
}

/// Headings, and what matters most.
pub(crate) fn strong(text: &str) -> String {
    styled(text, anstyle::Style::new().bold())
}

/// What is there for those who look for it.
pub(crate) fn dim(text: &str) -> String {
    styled(text, anstyle::Style::new().dimmed())
}

/// What somebody has to do something about.
pub(crate) fn alarming(text: &str) -> String {
    styled(text, anstyle::AnsiColor::Red.on_default())
}

/// What passes.
pub(crate) fn passing(text: &str) -> String {
    styled(text, anstyle::AnsiColor::Yellow.on_default())
}

/// What is as it should be.
pub(crate) fn well(text: &str) -> String {
    styled(text, anstyle::AnsiColor::Green.on_default())
}

/// Where no colours are wanted, [`print()`] takes them out.
fn styled(text: &str, style: anstyle::Style) -> String {
    format!("{style}{text}{style:#}")
}

/// Text from workers and clients could hold what a terminal obeys, or what turns the order of its characters round.
pub(crate) fn printable(text: &str) -> String {
    let shown = |c| if is_obeyed(c) { char::REPLACEMENT_CHARACTER } else { c };
    text.chars().map(shown).collect()
}

/// The same as a line, in which they are written out.
pub(crate) fn escape_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for c in text.chars() {
        if is_obeyed(c) { line.extend(c.escape_unicode()) } else { line.push(c) }
    }
    line
}

/// JSON in which they are escaped. Those below the space are already, and none stands outside of a string.
fn escaped(json: &str) -> String {
    let mut text = String::with_capacity(json.len());
    for c in json.chars() {
        if c != '\n' && is_obeyed(c) {
            // Those beyond the first plane are two (RFC 8259 §7).
            for unit in c.encode_utf16(&mut [0; 2]) {
                let _ = write!(text, "\\u{unit:04x}");
            }
        } else {
            text.push(c);
        }
    }
    text
}

/// Control characters, the ends of lines that Unicode has besides them, and what is not seen: what sets the direction of
/// writing (Unicode Standard Annex 9, §2) is among that.
fn is_obeyed(c: char) -> bool {
    c.is_control() || matches!(c, '\u{2028}' | '\u{2029}') || unseen::is_unseen(c)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_a_terminal_obeys_is_left() {
        let hostile = "a\u{1b}[31m\u{9b}31m\u{202e}b\u{7f}\u{2028}";
        assert_eq!(printable(hostile), "a\u{fffd}[31m\u{fffd}31m\u{fffd}b\u{fffd}\u{fffd}");
        assert_eq!(escape_line(hostile), "a\\u{1b}[31m\\u{9b}31m\\u{202e}b\\u{7f}\\u{2028}");
        assert_eq!(printable("größer 漢字 🦀"), "größer 漢字 🦀");
        let unseen = "a\u{200b}\u{ad}\u{3164}\u{2060}\u{2800}\u{fe0f}\u{e0041}b";
        assert_eq!(escape_line(unseen), r"a\u{200b}\u{ad}\u{3164}\u{2060}\u{2800}\u{fe0f}\u{e0041}b");
        assert_eq!(printable(unseen), format!("a{}b", "\u{fffd}".repeat(7)));
    }

    #[test]
    fn escaped_json_means_the_same() {
        let value = serde_json::json!({ "text": "\u{1b}\u{9b}\u{202e}\u{e0041}\n漢🦀" });
        let text = escaped(&value.to_string());
        assert!(!text.chars().any(is_obeyed), "{text}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&text).unwrap(), value);
    }
}
