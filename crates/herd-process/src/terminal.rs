//! The streams of a command: pipes, or one terminal for all.

use std::{
    io,
    os::fd::OwnedFd,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use herd_sandbox::TerminalSize;
use rustix::{
    fs::{OFlags, fcntl_getfl, fcntl_setfl},
    io::Errno,
    termios::{Winsize, tcsetwinsize},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf, unix::AsyncFd},
    net::unix::pipe,
};

use crate::supervisor::polled;

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
    Terminal(Terminal),
}

impl ExecOutput {
    pub(crate) fn pipe(pipe: pipe::Receiver) -> Self {
        Self(Source::Pipe(pipe))
    }

    pub(crate) fn terminal(terminal: Terminal) -> Self {
        Self(Source::Terminal(terminal))
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
