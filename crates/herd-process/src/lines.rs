use std::fmt::Write as _;

/// The longest line, in bytes; what goes beyond is cut.
pub(crate) const MAX_LINE: usize = 8 * 1024;

/// Splits a stream of bytes into lines of bounded length.
#[derive(Debug, Default)]
pub(crate) struct LineSplitter {
    /// The beginning of a line whose end has not come yet, up to [`MAX_LINE`] bytes of it.
    partial: Vec<u8>,
    /// How many bytes of that line were cut.
    cut: u64,
}

impl LineSplitter {
    /// Takes the next bytes of the stream and hands every line that they complete to `line`.
    pub(crate) fn feed(&mut self, mut bytes: &[u8], mut line: impl FnMut(Line<'_>)) {
        while let Some(end) = bytes.iter().position(|&byte| byte == b'\n') {
            let (head, tail) = (&bytes[..end], &bytes[end + 1..]);
            bytes = tail;
            if self.partial.is_empty() && head.len() <= MAX_LINE {
                line(Line::new(head, 0));
            } else {
                self.keep(head);
                line(Line::new(&self.partial, self.cut));
                self.forget();
            }
        }
        self.keep(bytes);
    }

    /// Ends the stream: what came after the last end of line is a line too.
    pub(crate) fn finish(&mut self, mut line: impl FnMut(Line<'_>)) {
        if !self.partial.is_empty() {
            line(Line::new(&self.partial, self.cut));
            self.forget();
        }
    }

    fn keep(&mut self, bytes: &[u8]) {
        let room = MAX_LINE - self.partial.len();
        let (kept, cut) = bytes.split_at(bytes.len().min(room));
        self.partial.extend_from_slice(kept);
        self.cut += cut.len() as u64;
    }

    fn forget(&mut self) {
        self.partial.clear();
        // One long line must not hold its memory for the rest of the worker's life.
        self.partial.shrink_to(256);
        self.cut = 0;
    }
}

/// One line as the worker wrote it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Line<'a> {
    bytes: &'a [u8],
    cut: u64,
}

impl<'a> Line<'a> {
    fn new(bytes: &'a [u8], cut: u64) -> Self {
        let bytes = if cut == 0 { bytes.strip_suffix(b"\r").unwrap_or(bytes) } else { bytes };
        Self { bytes, cut }
    }

    /// The line as text, for matching. Not safe to print.
    pub(crate) fn raw(&self) -> std::borrow::Cow<'a, str> {
        String::from_utf8_lossy(self.bytes)
    }

    /// The line as text that is safe to print and cannot pass for two lines of a log. It has at most [`MAX_LINE`] bytes,
    /// and then a mark that says how many more there were.
    pub(crate) fn printable(&self) -> String {
        let raw = self.raw();
        let mut text = String::with_capacity(raw.len());
        let mut cut = self.cut;
        for (at, c) in raw.char_indices() {
            let printable = is_printable(c);
            let size = if printable { c.len_utf8() } else { c.escape_unicode().len() };
            if text.len() + size > MAX_LINE {
                cut += (raw.len() - at) as u64;
                break;
            }
            if printable {
                text.push(c);
            } else {
                text.extend(c.escape_unicode());
            }
        }
        if cut > 0 {
            write!(text, " … [{cut} more bytes cut]").expect("writing to a string cannot fail");
        }
        text
    }
}

/// Whether `c` only ever shows itself: no control characters (C0 but the tab, DEL, C1), no line or paragraph separators,
/// and none of the marks that reorder the text around them (Unicode Standard Annex #9).
fn is_printable(c: char) -> bool {
    match c {
        '\t' => true,
        '\u{2028}' | '\u{2029}' | '\u{200e}' | '\u{200f}' | '\u{061c}' => false,
        '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => false,
        _ => !c.is_control(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(chunks: &[&[u8]]) -> Vec<String> {
        let mut splitter = LineSplitter::default();
        let mut lines = Vec::new();
        for chunk in chunks {
            splitter.feed(chunk, |line| lines.push(line.printable()));
        }
        splitter.finish(|line| lines.push(line.printable()));
        lines
    }

    #[test]
    fn lines_are_the_same_however_the_bytes_arrive() {
        let text = b"one\r\n\ntwo\nthree";
        let expected = ["one", "", "two", "three"];
        assert_eq!(split(&[text]), expected);
        let bytes: Vec<&[u8]> = text.chunks(1).collect();
        assert_eq!(split(&bytes), expected);
        for at in 0..text.len() {
            let (head, tail) = text.split_at(at);
            assert_eq!(split(&[head, tail]), expected, "split at {at}");
        }
    }

    #[test]
    fn a_long_line_is_cut_and_says_so() {
        let long = vec![b'x'; MAX_LINE];
        let exact = split(&[&long, b"\nnext\n"]);
        assert_eq!(exact, [String::from_utf8(long.clone()).expect("ASCII"), "next".to_owned()]);

        let mut chunks: Vec<&[u8]> = vec![&long; 1000];
        chunks.push(b"\nnext\n");
        let lines = split(&chunks);
        let mark = format!(" … [{} more bytes cut]", 999 * MAX_LINE);
        assert_eq!(lines.len(), 2);
        assert!(lines[0].ends_with(&mark) && lines[0].len() == MAX_LINE + mark.len());
        assert_eq!(lines[1], "next");
    }

    #[test]
    fn a_line_that_grows_when_it_is_made_printable_is_cut_too() {
        for hostile in [b"\x1b", b"\xff"] {
            let lines = split(&[&hostile.repeat(MAX_LINE)]);
            assert!(lines[0].len() < MAX_LINE + 40 && lines[0].ends_with("more bytes cut]"), "{}", lines[0].len());
        }
    }

    #[test]
    fn a_line_that_never_ends_holds_no_more_than_its_bound() {
        let mut splitter = LineSplitter::default();
        for _ in 0..1000 {
            splitter.feed(&[b'x'; 4096], |_| panic!("no line ended"));
        }
        assert!(splitter.partial.capacity() <= 2 * MAX_LINE);
    }

    #[test]
    fn hostile_bytes_can_neither_drive_a_terminal_nor_forge_a_line() {
        assert_eq!(split(&[b"\x1b[2Jgone\x07"]), ["\\u{1b}[2Jgone\\u{7}"]);
        assert_eq!(split(&[b"a\rb\tc"]), ["a\\u{d}b\tc"]);
        assert_eq!(split(&["a\u{2028}b\u{9b}31m\u{202e}c".as_bytes()]), ["a\\u{2028}b\\u{9b}31m\\u{202e}c"]);
        assert_eq!(split(&[b"\xff\xfeok\x00"]), ["\u{fffd}\u{fffd}ok\\u{0}"]);
        assert_eq!(split(&["grüße 🐑".as_bytes()]), ["grüße 🐑"]);
    }
}
