//! Workers' output as server-sent events.

use std::fmt::Write as _;

use axum::body::Bytes;
use herd_process::{LogLine, Logs};

use super::{
    model,
    sse::{End, Source, Told, dropped, frame, missed},
};

/// About how many bytes of text are taken out of the log at once. What a subscriber has not taken yet is not held for it.
const CHUNK: usize = 16 * 1024;

/// Reads a log from some line on.
#[derive(Debug)]
pub(super) struct Following {
    logs: Logs,
    /// The number of the next line.
    position: u64,
    /// Whether somebody counts on this very line, since they know the one before.
    resumes: bool,
    /// Whether lines were read here.
    began: bool,
}

impl Following {
    /// Begins behind the line with the number `after`; without one, with what is kept, or with the last `most` lines of
    /// it. Whoever comes back asks by the address that they were given first, and misses nothing for its limit.
    pub(super) fn new(logs: Logs, after: Option<u64>, most: Option<usize>) -> Self {
        let position = match (after, most) {
            (Some(last), _) => last.saturating_add(1),
            (None, Some(most)) => {
                let kept = logs.since(0);
                kept.get(kept.len().saturating_sub(most)).map_or(0, |line| line.sequence)
            }
            (None, None) => 0,
        };
        Self { logs, position, resumes: after.is_some(), began: false }
    }

    fn take(&mut self, lines: &[LogLine]) -> Told {
        let gone = lines.first().map_or(0, |line| line.sequence.saturating_sub(self.position));
        if gone > 0 && self.began {
            return Told::Last(dropped(self.position.checked_sub(1)));
        }
        let mut text = String::new();
        if gone > 0 && self.resumes {
            text += &String::from_utf8_lossy(&missed(gone));
        }
        for line in lines {
            if text.len() >= CHUNK {
                break;
            }
            // Frames are text of ours.
            let frame = frame(Some(line.sequence), "line", &model::LogLine::new(line));
            let _ = write!(text, "{}", String::from_utf8_lossy(&frame));
            self.position = line.sequence + 1;
        }
        self.began = true;
        Told::Frame(Bytes::from(text))
    }
}

impl Source for Following {
    async fn next(&mut self) -> Told {
        match self.logs.follow(self.position).next().await {
            Some(lines) => self.take(&lines),
            None => Told::Last(frame(None, "end", &End { reason: "worker-gone" })),
        }
    }
}
