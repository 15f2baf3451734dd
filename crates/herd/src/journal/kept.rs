//! What is kept of an event. Workers write some of its text, and the journal, its readers' pages and the webhooks keep
//! it for everybody.

use herd_pool::{EventKind, SpawnError};

use crate::causes::with_causes;

/// How many characters of a line of a worker's output are kept. Its log has the whole line, as long as the worker is
/// there.
const LONGEST_LINE: usize = 1000;
/// How much of a worker's text one event keeps, in bytes of JSON.
pub(super) const MOST_BYTES: usize = 8 * 1024;

/// The event with no more of a worker's text than is kept: of output the last lines, of anything else the begin.
pub(super) fn kept(kind: EventKind) -> EventKind {
    match kind {
        EventKind::WorkerCrashed { worker, mut exit } => {
            let mut room = MOST_BYTES;
            let whole = exit.stderr_tail.iter().rev().take_while(|line| {
                // What it takes to separate lines counts too, or else empty ones would be for nothing.
                let taken = in_json(cut(line)) + 3;
                let fits = taken <= room;
                room = room.saturating_sub(taken);
                fits
            });
            let dropped = exit.stderr_tail.len() - whole.count();
            exit.stderr_tail = exit.stderr_tail[dropped..].iter().map(|line| cut(line).to_owned()).collect();
            EventKind::WorkerCrashed { worker, exit }
        }
        EventKind::SpawnFailed { worker, error } => {
            // The text alone, with its causes: an error may hold all that the worker said.
            EventKind::SpawnFailed { worker, error: SpawnError::new(begin(&with_causes(&error))) }
        }
        other => other,
    }
}

fn cut(line: &str) -> &str {
    line.char_indices().nth(LONGEST_LINE).map_or(line, |(end, _)| &line[..end])
}

/// As much of a text as is kept.
fn begin(text: &str) -> String {
    let mut taken = 0;
    let end = text.char_indices().find(|(_, char)| {
        taken += width(*char);
        taken > MOST_BYTES
    });
    end.map_or_else(|| text.to_owned(), |(end, _)| format!("{}…", &text[..end]))
}

fn in_json(text: &str) -> usize {
    text.chars().map(width).sum()
}

/// How many bytes of JSON (RFC 8259 §7) a character takes.
fn width(char: char) -> usize {
    match char {
        '"' | '\\' => 2,
        char if char < ' ' => 6,
        char => char.len_utf8(),
    }
}

#[cfg(test)]
mod tests {
    use herd_pool::{Exit, ExitStatus, WorkerId};

    use super::*;

    fn tail(lines: Vec<String>) -> Vec<String> {
        let exit = Exit { stderr_tail: lines.into(), ..Exit::with_status(ExitStatus::Code(1)) };
        match kept(EventKind::WorkerCrashed { worker: WorkerId::new(1), exit }) {
            EventKind::WorkerCrashed { exit, .. } => exit.stderr_tail.to_vec(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn of_a_workers_output_the_last_lines_are_kept_and_of_long_ones_the_begin() {
        let few = ["opening the database".to_owned(), String::new(), "giving up".to_owned()];
        assert_eq!(tail(few.to_vec()), few);
        let long = tail(vec!["first".to_owned(), "ä".repeat(LONGEST_LINE + 1)]);
        assert_eq!(long, ["first".to_owned(), "ä".repeat(LONGEST_LINE)]);
        for char in ["x", "\u{1}", "\"", "🐑"] {
            let flood: Vec<_> = (0..20).map(|line| format!("{line}{}", char.repeat(8 * 1024))).collect();
            let kept = tail(flood);
            let json = serde_json::to_string(&kept).unwrap();
            assert!((MOST_BYTES / 4..=MOST_BYTES + 2).contains(&json.len()), "{char:?}: {}", json.len());
            assert!(kept.last().unwrap().starts_with("19"), "{char:?}");
        }
        assert!(tail(vec![String::new(); 1_000_000]).len() < MOST_BYTES);
    }

    #[test]
    fn of_a_reason_the_begin_is_kept() {
        let reason = |text: String| {
            let error = SpawnError::new(text);
            match kept(EventKind::SpawnFailed { worker: WorkerId::new(1), error }) {
                EventKind::SpawnFailed { error, .. } => error.to_string(),
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(reason("no such program".to_owned()), "no such program");
        let full = SpawnError::new(std::io::Error::other(anyhow::anyhow!("no space left").context("cannot write")));
        match kept(EventKind::SpawnFailed { worker: WorkerId::new(1), error: full }) {
            EventKind::SpawnFailed { error, .. } => assert_eq!(error.to_string(), "cannot write: no space left"),
            other => panic!("{other:?}"),
        }
        let long = reason(format!("why: {}", "\u{1}🐑".repeat(100_000)));
        assert!(long.starts_with("why: ") && long.ends_with('…') && in_json(&long) <= MOST_BYTES + 3);
    }
}
