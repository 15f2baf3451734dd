//! Keys, as a terminal in raw mode tells them (console_codes(4); xterm's control sequences).

/// A key, or several at once, that somebody pressed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Key {
    Char(char),
    /// A letter with Ctrl.
    Ctrl(char),
    Enter,
    Escape,
    Tab,
    Backspace,
    Up,
    Down,
    Left,
    Right,
    PageUp,
    PageDown,
    Home,
    End,
}

/// The keys in what came at once. A terminal writes a whole sequence at once; a lone escape is the key.
pub(super) fn keys(mut bytes: &[u8]) -> Vec<Key> {
    let mut keys = Vec::new();
    while !bytes.is_empty() {
        let (key, length) = first(bytes);
        keys.extend(key);
        bytes = &bytes[length..];
    }
    keys
}

/// The first key, if it is one that is known, and how many bytes it has.
fn first(bytes: &[u8]) -> (Option<Key>, usize) {
    match bytes {
        [0x1b, kind @ (b'[' | b'O'), rest @ ..] => {
            // The last byte of a control sequence is a letter or a tilde (ECMA-48 §5.4).
            let last = rest.iter().position(|byte| *kind == b'O' || matches!(byte, 0x40..=0x7e));
            let Some(last) = last else { return (None, bytes.len()) };
            let key = match (&rest[last], &rest[..last]) {
                (b'A', _) => Some(Key::Up),
                (b'B', _) => Some(Key::Down),
                (b'C', _) => Some(Key::Right),
                (b'D', _) => Some(Key::Left),
                (b'H', _) | (b'~', b"1" | b"7") => Some(Key::Home),
                (b'F', _) | (b'~', b"4" | b"8") => Some(Key::End),
                (b'~', b"5") => Some(Key::PageUp),
                (b'~', b"6") => Some(Key::PageDown),
                _ => None,
            };
            (key, 2 + last + 1)
        }
        // With Alt another key comes right behind it, and on a slow line so does the next one.
        [0x1b, ..] => (Some(Key::Escape), 1),
        [b'\r' | b'\n', ..] => (Some(Key::Enter), 1),
        [b'\t', ..] => (Some(Key::Tab), 1),
        [0x7f | 0x08, ..] => (Some(Key::Backspace), 1),
        [control @ 0x01..=0x1a, ..] => (Some(Key::Ctrl(char::from(control + b'a' - 1))), 1),
        [0x20..=0x7e, ..] => (Some(Key::Char(char::from(bytes[0]))), 1),
        _ => (None, 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_told_apart_and_what_is_none_is_passed_over() {
        let told = keys(b"q\x1b[A\x1bOB\x1b[5~\x1b[1;5C\x03\x1a\r\x7f\x1b[200~x\x1bz\xc3\xa4\t\x1b");
        use Key::{Backspace, Char, Ctrl, Down, Enter, Escape, PageUp, Right, Tab, Up};
        let expected = [
            Char('q'),
            Up,
            Down,
            PageUp,
            Right,
            Ctrl('c'),
            Ctrl('z'),
            Enter,
            Backspace,
            Char('x'),
            Escape,
            Char('z'),
            Tab,
            Escape,
        ];
        assert_eq!(told, expected);
        for cut in [&b"\x1b["[..], b"\x1bO", b"\x1b[1;", b"\x00", b""] {
            assert!(keys(cut).is_empty(), "{cut:?}");
        }
    }
}
