//! The streams of a command: pipes, or one terminal for all.

use std::{
    io,
    os::fd::OwnedFd,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use herd_sandbox::TerminalSize;
use rustix::{
    fs::{OFlags, fcntl_getfl, fcntl_setfl},
    io::{Errno, ioctl_fionread},
    termios::{Winsize, tcsetwinsize},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf, unix::AsyncFd},
    net::unix::pipe,
    time::timeout,
};

use crate::supervisor::polled;

/// More than a terminal keeps of what was written to it, which is 8 KiB on its way and 4 KiB to be read, see pty.c and
/// n_tty.c of the kernel.
const TERMINAL_KEEPS: usize = 64 * 1024;
/// How long a terminal takes to pass on what it keeps: nothing comes for the one, and all has come after the other.
const TERMINAL_SILENCE: Duration = Duration::from_millis(100);
const TERMINAL_PATIENCE: Duration = Duration::from_secs(1);

/// The daemon's side of a terminal in a worker's sandbox. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Terminal(Arc<AsyncFd<OwnedFd>>);

impl Terminal {
    pub(crate) fn new(side: OwnedFd) -> io::Result<Self> {
        fcntl_setfl(&side, fcntl_getfl(&side)? | OFlags::NONBLOCK)?;
        Ok(Self(Arc::new(polled(side)?)))
    }

    pub(crate) fn resize(&self, TerminalSize { columns, rows }: TerminalSize) -> io::Result<()> {
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        Ok(tcsetwinsize(self.0.get_ref(), size)?)
    }
}

/// Standard input of a command in a worker's sandbox.
#[derive(Debug)]
pub struct ExecInput(Input);

#[derive(Debug)]
enum Input {
    /// `None` once it was shut down.
    Pipe(Option<pipe::Sender>),
    Terminal(Terminal),
}

impl ExecInput {
    pub(crate) fn pipe(pipe: pipe::Sender) -> Self {
        Self(Input::Pipe(Some(pipe)))
    }

    pub(crate) fn terminal(terminal: Terminal) -> Self {
        Self(Input::Terminal(terminal))
    }
}

impl AsyncWrite for ExecInput {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.0 {
            Input::Pipe(Some(pipe)) => Pin::new(pipe).poll_write(context, bytes),
            Input::Pipe(None) => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
            Input::Terminal(Terminal(side)) => loop {
                let mut guard = ready!(side.poll_write_ready(context))?;
                if let Ok(written) = guard.try_io(|side| Ok(rustix::io::write(side, bytes)?)) {
                    return Poll::Ready(written);
                }
            },
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Input::Pipe(pipe) = &mut self.0 {
            pipe.take();
        }
        Poll::Ready(Ok(()))
    }
}

/// Standard output or standard error of a command in a worker's sandbox.
///
/// What comes from there was written by a program that may be hostile, also to the terminal of whoever looks at it.
#[derive(Debug)]
pub struct ExecOutput(Source);

#[derive(Debug)]
enum Source {
    Pipe(pipe::Receiver),
    /// So many bytes of it, which are there.
    PipeRest(pipe::Receiver, u64),
    Terminal(Terminal),
    TerminalRest(io::Cursor<Vec<u8>>),
}

impl ExecOutput {
    pub(crate) fn pipe(pipe: pipe::Receiver) -> Self {
        Self(Source::Pipe(pipe))
    }

    pub(crate) fn terminal(terminal: Terminal) -> Self {
        Self(Source::Terminal(terminal))
    }

    /// What was written until now and not read, and then the end: whoever else has the stream open, and writes, can
    /// neither add to it nor put the end off.
    ///
    /// A terminal may take up to a second for this where others have it open, and may add some of what they write
    /// meanwhile. Dropping the future loses what it has read.
    #[must_use]
    pub async fn until_now(self) -> Self {
        match self.0 {
            Source::Pipe(pipe) => {
                // What is written to a pipe can be read at once, and in that order. It fails for no pipe.
                let length = ioctl_fionread(&pipe).unwrap_or(u64::MAX);
                Self(Source::PipeRest(pipe, length))
            }
            Source::Terminal(terminal) => {
                let mut bytes = Vec::new();
                let mut terminal = Self::terminal(terminal).take(TERMINAL_KEEPS as u64);
                let all = async {
                    while matches!(timeout(TERMINAL_SILENCE, terminal.read_buf(&mut bytes)).await, Ok(Ok(1..))) {}
                };
                // Who writes without an end has what it has.
                let _ = timeout(TERMINAL_PATIENCE, all).await;
                Self(Source::TerminalRest(io::Cursor::new(bytes)))
            }
            rest => Self(rest),
        }
    }
}

impl AsyncRead for ExecOutput {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let side = match &mut self.0 {
            Source::Pipe(pipe) => return Pin::new(pipe).poll_read(context, buffer),
            Source::PipeRest(pipe, left) => return Poll::Ready(read_rest(pipe, left, buffer)),
            Source::TerminalRest(bytes) => return Pin::new(bytes).poll_read(context, buffer),
            Source::Terminal(Terminal(side)) => side,
        };
        loop {
            let mut guard = ready!(side.poll_read_ready(context))?;
            match guard.try_io(|side| Ok(rustix::io::read(side, buffer.initialize_unfilled())?)) {
                Ok(Ok(length)) => {
                    buffer.advance(length);
                    return Poll::Ready(Ok(()));
                }
                // How a terminal says that nobody has its other side open any more, see pty(7).
                Ok(Err(error)) if error.raw_os_error() == Some(Errno::IO.raw_os_error()) => return Poll::Ready(Ok(())),
                Ok(Err(error)) => return Poll::Ready(Err(error)),
                Err(_) => {}
            }
        }
    }
}

/// Not as the runtime reads it, which first waits for the kernel to say that there is something.
fn read_rest(pipe: &pipe::Receiver, left: &mut u64, buffer: &mut ReadBuf<'_>) -> io::Result<()> {
    let room = usize::try_from(*left).unwrap_or(usize::MAX).min(buffer.remaining());
    loop {
        match rustix::io::read(pipe, buffer.initialize_unfilled_to(room)) {
            Ok(length) => {
                *left -= length as u64;
                buffer.advance(length);
                return Ok(());
            }
            Err(Errno::INTR) => {}
            // Somebody in the sandbox has opened it and taken what was there.
            Err(Errno::AGAIN) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
}
