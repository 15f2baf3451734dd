use std::{io, os::fd::OwnedFd, time::Duration, time::SystemTime};

use herd_pool::WorkerId;
use regex::Regex;
use rustix::pipe::{PipeFlags, pipe_with};
use tokio::{
    net::unix::pipe::Receiver,
    select,
    sync::{oneshot, watch},
    task::{JoinSet, yield_now},
    time::{Instant, sleep, sleep_until, timeout},
};
use tracing::Instrument as _;

use crate::{
    lines::{Line, LineSplitter},
    logs::{Logs, OutputStream},
};

/// How much is read at once. The buffer lies on the stack and so costs an idle worker nothing.
const READ_SIZE: usize = 16 * 1024;

/// How many lines of a stream reach the log in one window; all of them reach the ring.
const LOGGED_LINES: u32 = 100;
const LOG_WINDOW: Duration = Duration::from_secs(1);

/// What reading may cost, in bytes; a line costs as much as `LINE_COST` of them. A worker that writes more at a stretch
/// than the burst is read at the rate, which takes a few per cent of a core: it is slowed, never stopped.
const LINE_COST: u64 = 128;
const BURST: u64 = 16 * 1024 * 1024;
const RATE: u64 = 8 * 1024 * 1024;

/// How long the pipes are read after the worker's last process has ended. They hold little and their end comes at once,
/// unless somebody outside of the worker was given one of them.
const DRAIN_TIMEOUT: Duration = Duration::from_millis(500);

/// The two pipes of a worker's output: our ends and the worker's.
#[derive(Debug)]
pub(crate) struct Pipes {
    stdout: Receiver,
    stderr: Receiver,
}

/// The worker's ends of its pipes.
#[derive(Debug)]
pub(crate) struct Writers {
    pub(crate) stdout: OwnedFd,
    pub(crate) stderr: OwnedFd,
}

impl Pipes {
    pub(crate) fn new() -> io::Result<(Self, Writers)> {
        // Close-on-exec from birth: no other worker may inherit an end, or the end of the output would not be seen.
        let (stdout, stdout_writer) = pipe_with(PipeFlags::CLOEXEC)?;
        let (stderr, stderr_writer) = pipe_with(PipeFlags::CLOEXEC)?;
        let pipes = Self { stdout: Receiver::from_owned_fd(stdout)?, stderr: Receiver::from_owned_fd(stderr)? };
        Ok((pipes, Writers { stdout: stdout_writer, stderr: stderr_writer }))
    }
}

/// Watches standard output for a line.
#[derive(Debug)]
pub(crate) struct Tap {
    pub(crate) pattern: Regex,
    pub(crate) found: oneshot::Sender<()>,
}

/// Reads a worker's output into its ring and into the log, until the worker has closed both streams or this is dropped.
#[derive(Debug)]
pub(crate) struct Output {
    readers: JoinSet<()>,
    ended: watch::Sender<bool>,
    logs: Logs,
}

impl Output {
    pub(crate) fn read(pipes: Pipes, worker: WorkerId, logs: Logs, tap: Option<Tap>) -> Self {
        let (ended, _) = watch::channel(false);
        let mut readers = JoinSet::new();
        let stdout = Reader::new(worker, OutputStream::Stdout, pipes.stdout, logs.clone(), tap);
        let stderr = Reader::new(worker, OutputStream::Stderr, pipes.stderr, logs.clone(), None);
        readers.spawn(stdout.run(ended.subscribe()).in_current_span());
        readers.spawn(stderr.run(ended.subscribe()).in_current_span());
        Self { readers, ended, logs }
    }

    /// Reads what is left. To be called when no process of the worker runs any more.
    pub(crate) async fn finish(mut self) {
        self.ended.send_replace(true);
        if timeout(DRAIN_TIMEOUT, async { while self.readers.join_next().await.is_some() {} }).await.is_err() {
            self.readers.shutdown().await;
        }
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        self.logs.close();
    }
}

struct Reader {
    pipe: Receiver,
    splitter: LineSplitter,
    budget: Budget,
    sink: Sink,
}

/// Where lines go.
struct Sink {
    worker: WorkerId,
    stream: OutputStream,
    logs: Logs,
    tap: Option<Tap>,
    window: LogWindow,
}

impl Reader {
    fn new(worker: WorkerId, stream: OutputStream, pipe: Receiver, logs: Logs, tap: Option<Tap>) -> Self {
        let window = LogWindow { ends: Instant::now() + LOG_WINDOW, lines: 0, suppressed: 0 };
        let sink = Sink { worker, stream, logs, tap, window };
        Self { pipe, splitter: LineSplitter::default(), budget: Budget::new(), sink }
    }

    async fn run(mut self, mut ended: watch::Receiver<bool>) {
        loop {
            if let Some(pause) = self.budget.debt().filter(|_| !*ended.borrow()) {
                select! {
                    () = sleep(pause) => {}
                    _ = ended.wait_for(|ended| *ended) => {}
                }
            }
            select! {
                readable = self.pipe.readable() => if readable.is_err() { break },
                () = sleep_until(self.sink.window.ends), if self.sink.window.suppressed > 0 => {
                    self.sink.end_window();
                    continue;
                }
            }
            match self.read_once() {
                Ok(0) => break,
                Ok(READ_SIZE) => yield_now().await,
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => break,
            }
        }
        self.splitter.finish(|line| self.sink.take(line));
        self.sink.end_window();
    }

    fn read_once(&mut self) -> io::Result<usize> {
        let mut buffer = [0; READ_SIZE];
        let length = self.pipe.try_read(&mut buffer)?;
        let mut lines = 0;
        self.splitter.feed(&buffer[..length], |line| {
            lines += 1;
            self.sink.take(line);
        });
        self.budget.spend(length as u64 + lines * LINE_COST);
        Ok(length)
    }
}

impl Sink {
    fn take(&mut self, line: Line<'_>) {
        if let Some(tap) = self.tap.take_if(|tap| tap.pattern.is_match(&line.raw())) {
            // It fails only if nobody waits for the worker any more.
            let _ = tap.found.send(());
        }
        let text = line.printable();
        if Instant::now() >= self.window.ends {
            self.end_window();
        }
        if self.window.lines < LOGGED_LINES {
            self.window.lines += 1;
            let (worker, stream) = (self.worker, self.stream.name());
            tracing::info!(target: "herd::worker", %worker, stream, "{text}");
        } else {
            self.window.suppressed += 1;
        }
        self.logs.push(SystemTime::now(), self.stream, text.into());
    }

    fn end_window(&mut self) {
        let suppressed = self.window.suppressed;
        if suppressed > 0 {
            let (worker, stream) = (self.worker, self.stream.name());
            tracing::warn!(target: "herd::worker", %worker, stream, suppressed, "{suppressed} lines suppressed");
        }
        self.window = LogWindow { ends: Instant::now() + LOG_WINDOW, lines: 0, suppressed: 0 };
    }
}

struct LogWindow {
    ends: Instant,
    lines: u32,
    suppressed: u64,
}

/// A token bucket whose tokens are bytes.
struct Budget {
    /// What may be spent at once, plus what was overspent: `BURST` when full, 0 when all of it is gone.
    credit: i128,
    refilled: Instant,
}

impl Budget {
    fn new() -> Self {
        Self { credit: BURST.into(), refilled: Instant::now() }
    }

    fn spend(&mut self, cost: u64) {
        self.credit -= i128::from(cost);
    }

    /// How long to wait until something may be spent again; `None` if it may be now.
    fn debt(&mut self) -> Option<Duration> {
        let now = Instant::now();
        let elapsed = (now - self.refilled).as_micros();
        self.refilled = now;
        let refill = elapsed.saturating_mul(RATE.into()) / 1_000_000;
        self.credit = (self.credit + i128::try_from(refill).unwrap_or(i128::MAX / 2)).min(BURST.into());
        if self.credit >= 0 {
            return None;
        }
        let micros = self.credit.unsigned_abs() * 1_000_000 / u128::from(RATE);
        Some(Duration::from_micros(u64::try_from(micros).unwrap_or(u64::MAX)) + Duration::from_millis(1))
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_burst_is_free_and_what_goes_beyond_is_read_at_the_rate() {
        let mut budget = Budget::new();
        budget.spend(BURST);
        assert_eq!(budget.debt(), None);
        budget.spend(RATE / 2);
        assert_eq!(budget.debt(), Some(Duration::from_millis(501)));
        advance(Duration::from_millis(501)).await;
        assert_eq!(budget.debt(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn rest_restores_no_more_than_the_burst() {
        let mut budget = Budget::new();
        advance(Duration::from_secs(3600)).await;
        assert_eq!(budget.debt(), None);
        budget.spend(BURST + RATE);
        assert_eq!(budget.debt(), Some(Duration::from_millis(1_001)));
    }
}
