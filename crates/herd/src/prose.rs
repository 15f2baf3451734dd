//! Sentences that fit the terminal.

use std::io;

use textwrap::{Options, WordSeparator, WordSplitter};

/// How many columns the terminal has, if standard output is one.
pub(crate) fn terminal_width() -> Option<usize> {
    let width = rustix::termios::tcgetwinsize(io::stdout()).ok().map(|size| usize::from(size.ws_col));
    width.filter(|width| *width > 0)
}

/// The text with its lines broken at spaces to `width` columns, those that continue another begun with `hang` spaces.
/// Without a width it stays as it is: whoever reads lines is to get whole ones.
pub(crate) fn wrapped(text: &str, hang: usize, width: Option<usize>) -> String {
    let Some(width) = width else { return text.to_owned() };
    // On a narrow terminal the text needs the room more.
    let hang = " ".repeat(hang.min(width / 4));
    // Paths and addresses stay in one piece, which a terminal's selection finds again.
    let options = Options::new(width)
        .subsequent_indent(&hang)
        .break_words(false)
        .word_separator(WordSeparator::AsciiSpace)
        .word_splitter(WordSplitter::NoHyphenation);
    let line = |line: &str| if line.is_empty() { String::new() } else { textwrap::wrap(line, &options).join("\n") };
    text.split('\n').map(line).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::console::alarming;

    #[test]
    fn lines_break_at_spaces_and_hang() {
        let text = "  no   network namespace: this kernel forbids it\nshort\n";
        let expected = "  no   network namespace:\n       this kernel forbids\n       it\nshort\n";
        assert_eq!(wrapped(text, 7, Some(28)), expected);
        assert_eq!(wrapped(text, 7, None), text);
        let long = wrapped("see /usr/share/doc/herd/a-long-name there", 2, Some(12));
        assert_eq!(long, "see\n  /usr/share/doc/herd/a-long-name\n  there");
    }

    #[test]
    fn colours_take_no_room() {
        let text = format!("{} 3s ago", alarming("failed"));
        assert_eq!(wrapped(&text, 0, Some(13)), text);
    }
}
