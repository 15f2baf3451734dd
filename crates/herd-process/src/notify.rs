use std::{
    io,
    os::fd::{AsRawFd as _, OwnedFd},
    path::PathBuf,
};

use herd_sandbox::Identity;
use rustix::fs::{AtFlags, Gid, Uid, chownat};
use tokio::net::UnixDatagram;

use crate::directory::NOTIFY;

/// The longest notification that is read; see sd_notify(3) for what one holds.
const MAX_MESSAGE: usize = 4096;

/// Where a worker says that it is ready, in the manner of sd_notify(3).
///
/// The socket lies in the worker's private directory, so nobody else is told of it.
#[derive(Debug)]
pub(crate) struct NotifySocket(UnixDatagram);

impl NotifySocket {
    /// Makes it in the directory of the worker's sockets, for this user. The worker must not run yet: it could put
    /// something else in its place.
    pub(crate) fn bind(run: &OwnedFd, owner: Option<Identity>) -> io::Result<Self> {
        // By descriptor, so that the length of the directory's path does not matter.
        let path: PathBuf = format!("/proc/self/fd/{}/{NOTIFY}", run.as_raw_fd()).into();
        let socket = UnixDatagram::bind(path)?;
        if let Some(Identity { uid, gid }) = owner {
            chownat(run, NOTIFY, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)), AtFlags::SYMLINK_NOFOLLOW)?;
        }
        Ok(Self(socket))
    }

    /// Waits until the worker says `READY=1`, and passes on what it says about its progress.
    pub(crate) async fn ready(&self, see_status: impl Fn(String)) -> io::Result<()> {
        loop {
            // Descriptors that come with a message are closed by the kernel, as nobody asks for them.
            let mut message = [0; MAX_MESSAGE];
            let length = self.0.recv(&mut message).await?;
            let text = String::from_utf8_lossy(&message[..length]);
            for line in text.lines() {
                if line == "READY=1" {
                    return Ok(());
                }
                if let Some(progress) = line.strip_prefix("STATUS=") {
                    see_status(format!("the status `{}`", progress.escape_debug()));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::directory::open_directory;

    #[tokio::test]
    async fn only_ready_is_ready_and_the_status_is_kept() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join(NOTIFY);
        let run = open_directory(directory.path()).expect("it is there");
        let socket = NotifySocket::bind(&run, None).expect("the path is free");
        let worker = UnixDatagram::unbound().expect("a socket");
        worker.connect(&path).expect("it is bound");
        for message in ["STATUS=loading\u{1b}", "READY=0", "XREADY=1", "MAINPID=1\nREADY=1\nSTATUS=late"] {
            worker.send(message.as_bytes()).await.expect("it is read");
        }
        let status = std::cell::RefCell::new(String::new());
        socket.ready(|seen| *status.borrow_mut() = seen).await.expect("it said so");
        assert_eq!(*status.borrow(), "the status `loading\\u{1b}`");
    }
}
