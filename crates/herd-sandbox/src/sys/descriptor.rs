use std::{
    io,
    os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd},
};

use rustix::fd::BorrowedFd;

/// Takes the descriptor that this process found as its standard input. For a process that has not touched its standard
/// input yet and will not do so again.
pub(crate) fn take_standard_input() -> OwnedFd {
    // SAFETY: the descriptor is open, as the caller has read its type, and nothing else in this process owns it: the
    // standard library reads from number 0 but never closes it.
    unsafe { OwnedFd::from_raw_fd(0) }
}

/// A new descriptor for what `number` is open to, close-on-exec. It is `EBADF` if the number is open to nothing.
pub(crate) fn duplicate(number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: F_DUPFD_CLOEXEC reads no memory and changes nothing about the descriptor that it duplicates.
    let result = unsafe { libc::fcntl(number, libc::F_DUPFD_CLOEXEC, 3) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made this descriptor, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(result) })
}

/// Makes `number` close-on-exec. It is `EBADF` if the number is open to nothing.
pub(crate) fn close_on_exec(number: RawFd) -> io::Result<()> {
    // SAFETY: F_SETFD reads no memory and closes nothing now. FD_CLOEXEC is the only flag that there is.
    let result = unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Makes `number` a duplicate of the descriptor, in place of what it was, without close-on-exec.
pub(crate) fn place(descriptor: impl AsFd, number: RawFd) -> io::Result<()> {
    // SAFETY: dup2 reads no memory. What it closes is owned by nobody in this process: the numbers that callers place
    // at are the standard streams and those that were vacated before.
    let result = unsafe { libc::dup2(descriptor.as_fd().as_raw_fd(), number) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Closes all descriptors from this number on but one, for which there must be no owners left.
pub(crate) fn close_from(first: RawFd, keep: Option<BorrowedFd<'_>>) -> io::Result<()> {
    let last = RawFd::MAX;
    let Some(keep) = keep.map(|keep| keep.as_raw_fd()).filter(|keep| *keep >= first) else {
        return close_range(first, last);
    };
    if keep > first {
        close_range(first, keep - 1)?;
    }
    close_range(keep + 1, last)
}

/// See close_range(2), Linux 5.9.
fn close_range(first: RawFd, last: RawFd) -> io::Result<()> {
    // SAFETY: the call reads no memory. The callers close what they inherited, or what a forked child has copies of
    // and will not use again before it executes another program or exits without running destructors.
    let result = unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
