use std::{
    collections::VecDeque,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

use tokio::sync::watch;

/// The most lines that are kept of one worker's output.
const MAX_LINES: usize = 1_000;

/// The most bytes of text that are kept of one worker's output.
const MAX_BYTES: usize = 256 * 1024;

/// How many lines of standard error are kept in any case: a flood of the other stream must not wash away a worker's last
/// words.
const TAIL_LINES: usize = 20;

/// Which of a worker's two streams a line came from.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum OutputStream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

impl OutputStream {
    /// `stdout` or `stderr`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

impl fmt::Display for OutputStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One line of a worker's output.
///
/// The text comes from the worker, so its meaning is not to be trusted, but it is safe to print: it is UTF-8 in which
/// bytes that were not are replaced, and control characters are written as `\u{1b}`. A line of more than 8 KiB is cut
/// and says so.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct LogLine {
    /// The line's number: the worker's first line has 0, and both streams count together.
    pub sequence: u64,
    /// When it was read.
    pub at: SystemTime,
    /// Where it was written.
    pub stream: OutputStream,
    /// What it says, without the end of line.
    pub text: Arc<str>,
}

/// The last lines of a worker's output: up to 1,000 lines and 256 KiB, whichever is less. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Logs(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    ring: Mutex<Ring>,
    /// The sequence number that the next line gets; `None` once no line can follow.
    next: watch::Sender<Option<u64>>,
}

#[derive(Debug, Default)]
struct Ring {
    lines: VecDeque<LogLine>,
    bytes: usize,
    /// The last lines of standard error.
    tail: VecDeque<Arc<str>>,
    next: u64,
}

impl Logs {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Shared { ring: Mutex::default(), next: watch::Sender::new(Some(0)) }))
    }

    /// The lines that are still kept and have the sequence number `sequence` or a higher one, oldest first.
    /// `since(0)` is all of them. If the first one's number is higher than asked for, those between are gone.
    #[must_use]
    pub fn since(&self, sequence: u64) -> Vec<LogLine> {
        let ring = self.lock();
        let first = ring.lines.partition_point(|line| line.sequence < sequence);
        ring.lines.range(first..).cloned().collect()
    }

    /// The last lines of standard error, up to 20, oldest first. They are kept however much comes on standard output.
    #[must_use]
    pub fn stderr_tail(&self) -> Vec<Arc<str>> {
        self.lock().tail.iter().cloned().collect()
    }

    /// Follows the output from the line with number `sequence` on; `follow(0)` begins with what is kept.
    #[must_use]
    pub fn follow(&self, sequence: u64) -> Follow {
        Follow { logs: self.clone(), changed: self.0.next.subscribe(), position: sequence }
    }

    pub(crate) fn push(&self, at: SystemTime, stream: OutputStream, text: Arc<str>) {
        let next = {
            let mut ring = self.lock();
            let sequence = ring.next;
            ring.next += 1;
            ring.bytes += text.len();
            if stream == OutputStream::Stderr {
                if ring.tail.len() == TAIL_LINES {
                    ring.tail.pop_front();
                }
                ring.tail.push_back(Arc::clone(&text));
            }
            ring.lines.push_back(LogLine { sequence, at, stream, text });
            while ring.lines.len() > MAX_LINES || ring.bytes > MAX_BYTES {
                let Some(oldest) = ring.lines.pop_front() else { break };
                ring.bytes -= oldest.text.len();
            }
            ring.next
        };
        self.0.next.send_replace(Some(next));
    }

    /// Says that no line will follow, which ends all [`Follow`]s once they have read what is there.
    pub(crate) fn close(&self) {
        self.0.next.send_replace(None);
    }

    fn lock(&self) -> MutexGuard<'_, Ring> {
        // Nothing in here can panic half-way through a change, so a poisoned lock still guards a whole ring.
        self.0.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads a worker's output as it comes. See [`Logs::follow`].
#[derive(Debug)]
pub struct Follow {
    logs: Logs,
    changed: watch::Receiver<Option<u64>>,
    position: u64,
}

impl Follow {
    /// The lines that came since the last call, at least one, oldest first; waits for one if there is none. `None` once
    /// the worker's output has ended and all of it was returned.
    ///
    /// A reader who is slower than the worker misses lines and sees it in their sequence numbers.
    ///
    /// Cancel safe: dropping the future loses no lines.
    pub async fn next(&mut self) -> Option<Vec<LogLine>> {
        loop {
            let ended = self.changed.borrow_and_update().is_none();
            let lines = self.logs.since(self.position);
            if let Some(last) = lines.last() {
                self.position = last.sequence + 1;
                return Some(lines);
            }
            // The sender lives in `logs`, so waiting can only end with a change.
            if ended || self.changed.changed().await.is_err() {
                return None;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn push(logs: &Logs, text: &str) {
        logs.push(SystemTime::now(), OutputStream::Stdout, text.into());
    }

    #[test]
    fn the_ring_is_bounded_in_lines() {
        let logs = Logs::new();
        for number in 0..MAX_LINES + 10 {
            push(&logs, &number.to_string());
        }
        let kept = logs.since(0);
        assert_eq!(kept.len(), MAX_LINES);
        assert_eq!((kept[0].sequence, &*kept[0].text), (10, "10"));
    }

    #[test]
    fn the_ring_is_bounded_in_bytes() {
        let logs = Logs::new();
        let line = "x".repeat(8 * 1024);
        for _ in 0..100 {
            push(&logs, &line);
        }
        assert_eq!(logs.since(0).len(), MAX_BYTES / line.len());
        push(&logs, &"y".repeat(MAX_BYTES + 1));
        assert!(logs.since(0).is_empty(), "a line over the bound is not kept");
    }

    #[test]
    fn since_begins_where_it_was_asked_to() {
        let logs = Logs::new();
        for text in ["a", "b", "c"] {
            push(&logs, text);
        }
        let texts = |sequence| logs.since(sequence).iter().map(|line| line.text.to_string()).collect::<String>();
        assert_eq!([texts(0), texts(2), texts(3)], ["abc", "c", ""]);
    }

    #[test]
    fn the_stderr_tail_outlives_a_flood_of_stdout() {
        let logs = Logs::new();
        for number in 0..TAIL_LINES + 5 {
            logs.push(SystemTime::now(), OutputStream::Stderr, number.to_string().into());
        }
        for _ in 0..2 * MAX_LINES {
            push(&logs, "noise");
        }
        let tail: Vec<_> = (5..TAIL_LINES + 5).map(|number| number.to_string().into()).collect();
        assert_eq!(logs.stderr_tail(), tail);
    }

    #[tokio::test]
    async fn a_follower_sees_every_line_and_then_the_end() {
        let logs = Logs::new();
        push(&logs, "before");
        let mut follow = logs.follow(0);
        assert_eq!(&*follow.next().await.expect("a line")[0].text, "before");

        let reader = tokio::spawn(async move {
            let mut texts = Vec::new();
            while let Some(lines) = follow.next().await {
                texts.extend(lines.into_iter().map(|line| line.text.to_string()));
            }
            texts
        });
        for text in ["one", "two"] {
            push(&logs, text);
            tokio::task::yield_now().await;
        }
        logs.close();
        assert_eq!(reader.await.expect("the reader does not panic"), ["one", "two"]);
    }
}
