use std::{
    cell::RefCell,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// How much is read at once.
const CHUNK: usize = 64 * 1024;

/// How many chunks one poll moves before other tasks get their turn.
const CHUNKS_PER_POLL: usize = 16;

thread_local! {
    /// Bytes stay here only within one poll, so the many pipes of a thread share it, and a silent one costs no buffer.
    static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// One direction of an upgraded connection.
#[derive(Debug, Default)]
pub(crate) struct Pipe {
    /// What was read and could not be written yet, from `written` on.
    pending: Vec<u8>,
    written: usize,
    /// The reader's end was reached.
    ended: bool,
}

/// Which side of a pipe failed.
#[derive(Debug)]
pub(crate) enum Broken {
    Reader,
    Writer,
}

impl Pipe {
    /// A pipe that begins with these bytes.
    pub(crate) fn starting_with(bytes: &[u8]) -> Self {
        Self { pending: bytes.to_vec(), written: 0, ended: false }
    }

    /// Whether all that was read has been written.
    pub(crate) fn is_clear(&self) -> bool {
        self.pending.is_empty()
    }

    /// Moves what can be moved. Ready at the reader's end, when all is written. `seen` gets what was read.
    pub(crate) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        reader: &mut (impl AsyncRead + Unpin),
        writer: &mut (impl AsyncWrite + Unpin),
        mut seen: impl FnMut(&[u8]),
    ) -> Poll<Result<(), Broken>> {
        for _ in 0..CHUNKS_PER_POLL {
            ready!(self.poll_pending(cx, writer))?;
            if self.ended {
                return Pin::new(&mut *writer).poll_flush(cx).map_err(|_| Broken::Writer);
            }
            let moved = SCRATCH.with_borrow_mut(|scratch| {
                scratch.resize(CHUNK, 0);
                let mut buf = ReadBuf::new(scratch);
                if ready!(Pin::new(&mut *reader).poll_read(cx, &mut buf)).is_err() {
                    return Poll::Ready(Err(Broken::Reader));
                }
                let read = buf.filled();
                self.ended = read.is_empty();
                seen(read);
                self.write(cx, writer, read)
            });
            if moved.is_pending() {
                // What waits for the writer is pending now; what waits for the reader leaves nothing to flush.
                ready!(Pin::new(&mut *writer).poll_flush(cx)).map_err(|_| Broken::Writer)?;
            }
            ready!(moved)?;
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Writes what the writer takes at once and keeps the rest.
    fn write(
        &mut self,
        cx: &mut Context<'_>,
        writer: &mut (impl AsyncWrite + Unpin),
        mut bytes: &[u8],
    ) -> Poll<Result<(), Broken>> {
        while !bytes.is_empty() {
            match Pin::new(&mut *writer).poll_write(cx, bytes) {
                Poll::Ready(written) => bytes = &bytes[checked(written)?..],
                Poll::Pending => {
                    self.pending.extend_from_slice(bytes);
                    return Poll::Pending;
                }
            }
        }
        Poll::Ready(Ok(()))
    }

    fn poll_pending(
        &mut self,
        cx: &mut Context<'_>,
        writer: &mut (impl AsyncWrite + Unpin),
    ) -> Poll<Result<(), Broken>> {
        while self.written < self.pending.len() {
            let written = ready!(Pin::new(&mut *writer).poll_write(cx, &self.pending[self.written..]));
            self.written += checked(written)?;
        }
        // A pipe that was full once need not stay so large.
        (self.pending, self.written) = (Vec::new(), 0);
        Poll::Ready(Ok(()))
    }
}

fn checked(written: io::Result<usize>) -> Result<usize, Broken> {
    written.ok().filter(|written| *written > 0).ok_or(Broken::Writer)
}
