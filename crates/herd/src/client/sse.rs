//! Reads server-sent events, as <https://html.spec.whatwg.org/multipage/server-sent-events.html> has them.

use std::collections::VecDeque;

use anyhow::{Context as _, bail};
use serde::de::DeserializeOwned;

/// The most bytes that a frame may have. The largest that a daemon sends are lists of some hundred rows.
const MOST_BYTES: usize = 16 << 20;

/// One event of a stream. All of it comes from the other side.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Frame {
    /// The last ID that the stream has named, behind which it can go on; empty: none.
    pub(crate) id: String,
    /// What kind of event it is; `message`, if it does not say.
    pub(crate) name: String,
    pub(crate) data: String,
}

impl Frame {
    /// Reads the data as JSON.
    ///
    /// # Errors
    /// If it is something else.
    pub(crate) fn json<T: DeserializeOwned>(&self) -> anyhow::Result<T> {
        serde_json::from_str(&self.data).with_context(|| {
            format!(
                "cannot read what the daemon streams as `{}`; is it of another version than this command?",
                self.name
            )
        })
    }
}

/// Makes frames of bytes, wherever these are cut.
#[derive(Debug, Default)]
pub(super) struct Parser {
    /// What there is of the line that has not ended yet.
    line: Vec<u8>,
    /// Whether the last byte was a carriage return, to which a line feed would belong.
    returned: bool,
    /// Whether the first line has been read, before which there may be a byte order mark.
    began: bool,
    id: String,
    name: String,
    data: String,
    /// Frames that nobody has taken yet.
    frames: VecDeque<Frame>,
}

impl Parser {
    /// Takes in what came.
    ///
    /// # Errors
    /// If a frame gets too large.
    pub(super) fn feed(&mut self, mut bytes: &[u8]) -> anyhow::Result<()> {
        while let Some((&first, rest)) = bytes.split_first() {
            if std::mem::take(&mut self.returned) && first == b'\n' {
                bytes = rest;
                continue;
            }
            let end = bytes.iter().position(|byte| matches!(byte, b'\r' | b'\n'));
            let length = end.unwrap_or(bytes.len());
            if self.line.len() + self.data.len() + length > MOST_BYTES {
                bail!("the daemon streams a frame of more than {MOST_BYTES} bytes, which no daemon does");
            }
            self.line.extend_from_slice(&bytes[..length]);
            let Some(end) = end else { return Ok(()) };
            self.returned = bytes[end] == b'\r';
            bytes = &bytes[end + 1..];
            let line = std::mem::take(&mut self.line);
            self.take(&String::from_utf8_lossy(&line));
        }
        Ok(())
    }

    /// The next frame that is whole.
    pub(super) fn next(&mut self) -> Option<Frame> {
        self.frames.pop_front()
    }

    fn take(&mut self, line: &str) {
        let line = if std::mem::replace(&mut self.began, true) { line } else { line.trim_start_matches('\u{feff}') };
        if line.is_empty() {
            return self.dispatch();
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => value.clone_into(&mut self.name),
            "data" => {
                self.data += value;
                self.data.push('\n');
            }
            "id" if !value.contains('\0') => value.clone_into(&mut self.id),
            // Comments have no name. `retry` is for those who connect again by themselves.
            _ => {}
        }
    }

    fn dispatch(&mut self) {
        let name = std::mem::take(&mut self.name);
        let mut data = std::mem::take(&mut self.data);
        if data.pop().is_none() {
            return;
        }
        let name = if name.is_empty() { "message".to_owned() } else { name };
        self.frames.push_back(Frame { id: self.id.clone(), name, data });
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(chunks: &[&[u8]]) -> Vec<(String, String, String)> {
        let mut parser = Parser::default();
        for chunk in chunks {
            parser.feed(chunk).unwrap();
        }
        std::iter::from_fn(|| parser.next()).map(|frame| (frame.id, frame.name, frame.data)).collect()
    }

    fn one(id: &str, name: &str, data: &str) -> (String, String, String) {
        (id.to_owned(), name.to_owned(), data.to_owned())
    }

    #[test]
    fn frames_are_read_as_the_standard_has_them() {
        assert_eq!(parse(&[b"id: 7\nevent: line\ndata: {}\n\n"]), [one("7", "line", "{}")]);
        assert_eq!(parse(&[b"data: a\ndata: b\n\ndata:c\n\n"]), [one("", "message", "a\nb"), one("", "message", "c")]);
        assert_eq!(parse(&[b": comment\nretry: 1000\n\ndata\n\n"]), [one("", "message", "")]);
        assert_eq!(parse(&[b"id: 1\nevent: nothing\n\ndata: x\n\n"]), [one("1", "message", "x")]);
        assert_eq!(parse(&[b"id: 1\0\ndata:  two spaces\n\n"]), [one("", "message", " two spaces")]);
        assert_eq!(parse(&["\u{feff}data: x\r\ndata: y\r\r".as_bytes()]), [one("", "message", "x\ny")]);
        assert_eq!(parse(&[b"data: never ended\n"]), []);
        assert_eq!(parse(&[b"data: \xff\n\n"]), [one("", "message", "\u{fffd}")]);
    }

    #[test]
    fn a_frame_without_end_is_refused() {
        for start in [&b"data: "[..], b""] {
            let mut parser = Parser::default();
            parser.feed(start).unwrap();
            let line = [b'x'; 1 << 20];
            let refused = (0..20).find_map(|_| parser.feed(&line).err()).expect("it is refused");
            assert!(refused.to_string().contains("a frame of more than"), "{refused}");
        }
        let mut parser = Parser::default();
        let line = [b"data: ", &[b'x'; 1 << 20][..], b"\n"].concat();
        assert!((0..20).any(|_| parser.feed(&line).is_err()), "many lines are one frame");
    }

    proptest! {
        #[test]
        fn it_does_not_matter_where_the_bytes_are_cut(
            text in "(data|id|event|:)?[: \r\na-c\u{feff}]{0,8}(\r\n|\n|\r)(data: x\r?\n)?(\r\n|\n|\r){0,2}(data:ä\r\n\r\n)?",
            cut in 0usize..64,
        ) {
            let bytes = text.as_bytes();
            let (first, second) = bytes.split_at(cut.min(bytes.len()));
            let single: Vec<_> = bytes.chunks(1).collect();
            prop_assert_eq!(parse(&[bytes]), parse(&[first, second]));
            prop_assert_eq!(parse(&[bytes]), parse(&single));
        }
    }
}
