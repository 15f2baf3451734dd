//! herd's own standard output and error, written by threads of their own: a reader who waits must not keep the rest of the
//! conversation waiting.

use std::{
    io::{self, Write},
    sync::mpsc::{Receiver, Sender, channel},
    thread,
};

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

/// How many bytes of output may be on their way from the daemon or wait here, on both streams together.
pub(super) const OUTPUT_WINDOW: u32 = 128 * 1024;

/// Which of the streams.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Which {
    Output,
    Errors,
}

/// Both streams.
#[derive(Debug)]
pub(super) struct Streams {
    /// `None` when nothing follows.
    senders: Option<[Sender<Vec<u8>>; 2]>,
    written: UnboundedReceiver<(Which, io::Result<usize>)>,
}

impl Streams {
    pub(super) fn open() -> Self {
        let (writes, written) = unbounded_channel();
        let output = begin(Which::Output, io::stdout(), writes.clone());
        let errors = begin(Which::Errors, io::stderr(), writes);
        Self { senders: Some([output, errors]), written }
    }

    /// Has bytes written. What waits is no more than [`OUTPUT_WINDOW`], by what the daemon was told.
    pub(super) fn write(&self, which: Which, bytes: Vec<u8>) {
        let Some([output, errors]) = &self.senders else { return };
        let sender = if which == Which::Output { output } else { errors };
        // A stream that failed has said so.
        let _ = sender.send(bytes);
    }

    /// How much was written, or why nothing more is. `None` when all was written that there was to write.
    ///
    /// Cancel safe.
    pub(super) async fn written(&mut self) -> Option<(Which, io::Result<usize>)> {
        self.written.recv().await
    }

    /// Says that nothing follows.
    pub(super) fn close(&mut self) {
        self.senders = None;
    }
}

fn begin(
    which: Which,
    mut stream: impl Write + Send + 'static,
    written: UnboundedSender<(Which, io::Result<usize>)>,
) -> Sender<Vec<u8>> {
    let (sender, pieces): (_, Receiver<Vec<u8>>) = channel();
    thread::spawn(move || {
        for piece in pieces {
            let outcome = stream.write_all(&piece).and_then(|()| stream.flush()).map(|()| piece.len());
            let failed = outcome.is_err();
            if written.send((which, outcome)).is_err() || failed {
                return;
            }
        }
    });
    sender
}
