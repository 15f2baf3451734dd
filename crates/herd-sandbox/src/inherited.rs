use std::{env, io, os::fd::OwnedFd, process};

use crate::sys::descriptor;

/// The first inherited descriptor, `SD_LISTEN_FDS_START`.
const FIRST: i32 = 3;

/// The listening sockets that this process was started with, as [`Spec::listen`](crate::Spec::listen) passes them on:
/// what sd_listen_fds(3) is to C. For workers that are written in Rust and forbid `unsafe`.
///
/// Without `LISTEN_FDS`, or with the `LISTEN_PID` of another process, there are none. Each call gives duplicates, which
/// are close-on-exec; the descriptors 3 and up themselves stay open, and are close-on-exec from then on too.
///
/// # Errors
/// `InvalidData` if `LISTEN_FDS` is no number; else what fcntl(2) says, `EBADF` for one that is not there.
pub fn inherited_listeners() -> io::Result<Vec<OwnedFd>> {
    let meant_for_this = env::var("LISTEN_PID").is_ok_and(|pid| pid == process::id().to_string());
    let Some(count) = env::var_os("LISTEN_FDS").filter(|_| meant_for_this) else { return Ok(Vec::new()) };
    let count =
        count.to_str().and_then(|count| count.parse().ok()).filter(|count| (0..=i32::MAX - FIRST).contains(count));
    let count: i32 = count.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "LISTEN_FDS is no number"))?;
    let take = |number| descriptor::close_on_exec(number).and_then(|()| descriptor::duplicate(number));
    (FIRST..FIRST + count).map(take).collect()
}
