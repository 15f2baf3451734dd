//! Who may speak on the control socket: the daemon's own user and root.
//!
//! Its mode keeps others out already. What the kernel says of the peer (SO_PEERCRED, unix(7)) holds as well where somebody
//! has changed that mode, or handed a connection on from a place that is not the file.

use std::{io, sync::Arc};

use rustix::process::geteuid;
use tokio::{
    net::{UnixListener, UnixStream},
    select,
    sync::watch,
};

use super::authority::MendedStream;
use crate::admin::server::{Accept, Incoming, Peer, Throttle};

/// How many requests, each of which may hold a session, one connection may have open at once. Clients of gRPC put all of
/// theirs on one connection, and wait silently when it takes no more.
const MOST_STREAMS: u32 = 10_000;

/// The control socket's listener, which takes connections of those alone who may use it.
#[derive(Debug)]
pub(crate) struct ControlListener {
    /// The present one: it is another when the socket's file was made anew.
    listener: watch::Receiver<Arc<UnixListener>>,
    /// The daemon's user.
    uid: u32,
    refusals: Throttle,
}

/// A connection of somebody who may use the control socket.
#[derive(Debug)]
pub(crate) struct ControlStream {
    stream: UnixStream,
    pid: i32,
    uid: u32,
}

impl ControlListener {
    pub(crate) fn new(listener: watch::Receiver<Arc<UnixListener>>) -> Self {
        Self { listener, uid: geteuid().as_raw(), refusals: Throttle::default() }
    }

    /// Whether the peer may use the socket; if so, its process and user.
    fn admit(&self, stream: &UnixStream) -> io::Result<Option<(i32, u32)>> {
        let peer = stream.peer_cred()?;
        if peer.uid() == self.uid || peer.uid() == 0 {
            return Ok(Some((peer.pid().unwrap_or(0), peer.uid())));
        }
        if let Some(times) = self.refusals.admit() {
            let (uid, pid) = (peer.uid(), peer.pid());
            tracing::warn!(uid, pid, times, "another user was refused at the control socket; check the socket's mode");
        }
        Ok(None)
    }
}

impl Accept for ControlListener {
    type Incoming = ControlStream;

    async fn accept(&self) -> io::Result<ControlStream> {
        loop {
            let mut latest = self.listener.clone();
            let listener = Arc::clone(&latest.borrow_and_update());
            let (stream, _) = select! {
                accepted = listener.accept() => accepted?,
                Ok(()) = latest.changed() => continue,
            };
            if let Some((pid, uid)) = self.admit(&stream)? {
                return Ok(ControlStream { stream, pid, uid });
            }
        }
    }

    fn most_streams(&self) -> u32 {
        MOST_STREAMS
    }
}

impl Incoming for ControlStream {
    type Stream = MendedStream;

    fn peer(&self) -> Peer {
        Peer::Process { pid: self.pid, uid: self.uid }
    }

    async fn establish(self) -> io::Result<MendedStream> {
        Ok(MendedStream::new(self.stream))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_peer_that_is_neither_root_nor_the_daemons_user_is_closed_on() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("control.sock");
        let (_listeners, listener) = watch::channel(UnixListener::bind(&path).unwrap().into());
        let mut control = ControlListener::new(listener);
        let ours = geteuid().as_raw();
        let (client, accepted) = tokio::join!(UnixStream::connect(&path), control.accept());
        assert_eq!(accepted.unwrap().peer(), Peer::Process { pid: std::process::id().try_into().unwrap(), uid: ours });
        drop(client);
        if ours == 0 {
            // Root is let in by every daemon; the other side of this is tested with a real second user.
            control.uid = 1;
            let (client, accepted) = tokio::join!(UnixStream::connect(&path), control.accept());
            assert!(client.is_ok() && accepted.is_ok());
        }
    }
}
