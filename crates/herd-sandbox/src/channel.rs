//! One end of the `SOCK_SEQPACKET` socket pair between the launching process and an init: packets in and out, each
//! whole or not at all, with descriptors if there are any. Nothing here blocks.

use std::{
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use rustix::{
    io::Errno,
    net::{
        AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
        SendAncillaryMessage, SendFlags, Shutdown, SocketFlags, SocketType, recvmsg, sendmsg, shutdown, socketpair,
        sockopt::set_socket_passcred,
    },
    process::Pid,
};

use crate::protocol::MAX_PACKET;

/// The most descriptors that the kernel takes in one packet: `SCM_MAX_FD`, see unix(7).
const MAX_DESCRIPTORS: usize = 253;

#[derive(Debug)]
pub(crate) struct Channel(OwnedFd);

/// A packet as it came.
#[derive(Debug)]
pub(crate) struct Packet {
    pub(crate) bytes: Vec<u8>,
    pub(crate) descriptors: Vec<OwnedFd>,
    /// Whether more descriptors came than this process may have open: the others are gone.
    pub(crate) is_short: bool,
    /// Who sent it, as this process sees it; only on the launching side.
    pub(crate) sender: Option<Pid>,
}

impl Channel {
    /// Two connected ends, neither of which survives an exec.
    pub(crate) fn pair() -> io::Result<(Self, OwnedFd)> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
        // The kernel says who sends: in a PID namespace nobody knows the own number outside, see unix(7).
        set_socket_passcred(&ours, true)?;
        Ok((Self(ours), theirs))
    }

    /// The end that this descriptor is.
    pub(crate) fn from_descriptor(socket: OwnedFd) -> Self {
        Self(socket)
    }

    /// Another hold on the same end.
    pub(crate) fn try_clone(&self) -> io::Result<Self> {
        self.0.try_clone().map(Self)
    }

    /// Sends one packet.
    ///
    /// # Errors
    /// `WouldBlock` if the other side has not read for a long time, `BrokenPipe` if it is gone.
    pub(crate) fn send(&self, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "too many descriptors for one packet"));
        }
        loop {
            match sendmsg(&self.0, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL | SendFlags::DONTWAIT) {
                // The other side went away with packets unread, which is told once; the next call says EPIPE.
                Err(Errno::INTR | Errno::CONNRESET) => {}
                result => return result.map(drop).map_err(Into::into),
            }
        }
    }

    /// Takes one packet, or `None` after the last one once the other side is gone.
    ///
    /// # Errors
    /// `WouldBlock` if there is none, `InvalidData` for one that was longer than any message is.
    pub(crate) fn recv(&self) -> io::Result<Option<Packet>> {
        let mut bytes = [0; MAX_PACKET];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS), ScmCredentials(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
        let message = loop {
            match recvmsg(&self.0, &mut [IoSliceMut::new(&mut bytes)], &mut control, flags) {
                // The other side went away with packets unread. That is told once and before what it sent last, which
                // is still there to be read.
                Err(Errno::INTR | Errno::CONNRESET) => {}
                result => break result?,
            }
        };
        let mut descriptors = Vec::new();
        let mut sender = None;
        for part in control.drain() {
            match part {
                RecvAncillaryMessage::ScmRights(received) => descriptors.extend(received),
                RecvAncillaryMessage::ScmCredentials(credentials) => sender = Some(credentials.pid),
                _ => {}
            }
        }
        // Descriptors alone are cut off where this process has as many as it may, see recvmsg(2) and unix(7).
        let is_short = message.flags.contains(ReturnFlags::CTRUNC);
        if message.flags.contains(ReturnFlags::TRUNC) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "packet was cut off"));
        }
        // No message is empty, so nothing is what the end of the stream reads as.
        if message.bytes == 0 {
            return Ok(None);
        }
        Ok(Some(Packet { bytes: bytes[..message.bytes].to_vec(), descriptors, is_short, sender }))
    }

    /// Sends nothing more: the other side reads what was sent before, then the end.
    pub(crate) fn end(&self) {
        // It fails only if the other side is gone, which is as good.
        let _ = shutdown(&self.0, Shutdown::Write);
    }

    /// Ends both directions: the other side can send nothing more, either.
    pub(crate) fn shut_down(&self) {
        let _ = shutdown(&self.0, Shutdown::Both);
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
