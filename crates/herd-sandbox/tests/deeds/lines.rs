//! The output of another process, with a deadline for each wait.

use std::{
    fs::File,
    io::Read,
    os::fd::{AsFd, OwnedFd},
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, poll},
    io::Errno,
};

/// Longer than anything here takes on a loaded machine. Reaching it fails the test.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub(crate) struct Lines {
    pipe: File,
    buffer: Vec<u8>,
}

impl Lines {
    pub(crate) fn new(pipe: OwnedFd) -> Self {
        Self { pipe: pipe.into(), buffer: Vec::new() }
    }

    pub(crate) fn next(&mut self) -> String {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                return String::from_utf8_lossy(&line).trim_end().to_owned();
            }
            assert!(self.fill(), "the output ended after {:?}", String::from_utf8_lossy(&self.buffer));
        }
    }

    /// All up to the end, which comes when the last process that holds the pipe is gone.
    pub(crate) fn rest(&mut self) -> String {
        while self.fill() {}
        String::from_utf8_lossy(&std::mem::take(&mut self.buffer)).into_owned()
    }

    fn fill(&mut self) -> bool {
        assert!(readable(&self.pipe, Instant::now() + PATIENCE), "the output stays silent and open");
        let mut chunk = [0; 4096];
        let length = self.pipe.read(&mut chunk).expect("a readable pipe");
        self.buffer.extend_from_slice(&chunk[..length]);
        length > 0
    }
}

/// Waits until the descriptor is readable; false if the deadline comes first.
pub(crate) fn readable(descriptor: impl AsFd, deadline: Instant) -> bool {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = left.try_into().expect("a short time");
        match poll(&mut [PollFd::new(&descriptor, PollFlags::IN)], Some(&timeout)) {
            Ok(0) => return false,
            Ok(_) => return true,
            Err(Errno::INTR) => {}
            Err(error) => panic!("poll: {error}"),
        }
    }
}

/// Looks again and again: for what the kernel sends no event about. None when patience ends.
pub(crate) fn eventually<T>(mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return Some(found);
        }
        if Instant::now() >= deadline {
            return None;
        }
        let pause = Duration::from_millis(2).try_into().expect("a short time");
        let _ = poll(&mut [], Some(&pause));
    }
}
