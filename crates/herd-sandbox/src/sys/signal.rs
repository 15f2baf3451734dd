use std::{
    io,
    mem::MaybeUninit,
    os::fd::{FromRawFd, OwnedFd},
    ptr,
};

use rustix::process::Pid;

use crate::Signal;

/// The highest signal number of Linux.
const LAST: i32 = 64;

/// The size of the kernel's set of signals in bytes.
const SET_SIZE: usize = LAST as usize / 8;

/// Blocks all signals that can be blocked.
pub(crate) fn block_all() -> io::Result<()> {
    set_mask(u64::MAX)
}

/// Blocks no signal.
pub(crate) fn unblock_all() -> io::Result<()> {
    set_mask(0)
}

/// Gives every signal its default disposition; see signal(7).
pub(crate) fn reset_dispositions() {
    // The kernel's own call: the C library's keeps its hands off signals 32 and 33, which it uses for threads, but a
    // launcher may have passed them on ignored. All zero is the default disposition, without flags and without a mask,
    // for every architecture's layout of the structure, none of which is larger.
    let default = [0_u64; 16];
    for number in 1..=LAST {
        let no_old = ptr::null_mut::<libc::c_void>();
        // SAFETY: the new disposition is valid for reading and the old one is not asked for; the default disposition
        // runs no code of this process. It fails for SIGKILL and SIGSTOP alone, which cannot have another.
        unsafe { libc::syscall(libc::SYS_rt_sigaction, number, default.as_ptr(), no_old, SET_SIZE) };
    }
}

/// A descriptor that becomes readable when a child has ended, see signalfd(2). `SIGCHLD` must be blocked.
pub(crate) fn child_events() -> io::Result<OwnedFd> {
    let set = child_set();
    // SAFETY: the set is initialised.
    let descriptor = unsafe { libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) };
    if descriptor < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor was opened just now, so nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

/// Sends any signal to a process; see kill(2).
pub(crate) fn send(pid: Pid, signal: Signal) -> io::Result<()> {
    kill(pid.as_raw_pid(), signal)
}

/// Sends any signal to a process group; see kill(2).
pub(crate) fn send_to_group(group: Pid, signal: Signal) -> io::Result<()> {
    kill(-group.as_raw_pid(), signal)
}

/// Sends any signal to all processes of this PID namespace but this one, as far as this process may; see kill(2).
pub(crate) fn send_to_all(signal: Signal) -> io::Result<()> {
    kill(-1, signal)
}

fn kill(target: i32, signal: Signal) -> io::Result<()> {
    // SAFETY: the call reads no memory.
    let result = unsafe { libc::kill(target, signal.number()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// The kernel's own call: the C library's leaves signals 32 and 33 out, which it uses for threads.
fn set_mask(mask: u64) -> io::Result<()> {
    let no_old = ptr::null_mut::<u64>();
    // SAFETY: the mask is valid for reading and has the size that is given; the old one is not asked for.
    let result =
        unsafe { libc::syscall(libc::SYS_rt_sigprocmask, libc::SIG_SETMASK, &raw const mask, no_old, SET_SIZE) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn child_set() -> libc::sigset_t {
    let mut set = MaybeUninit::uninit();
    // SAFETY: the pointer is valid for writing a set.
    unsafe { libc::sigemptyset(set.as_mut_ptr()) };
    // SAFETY: sigemptyset has initialised it; it cannot fail with a valid pointer.
    let mut set = unsafe { set.assume_init() };
    // SAFETY: the set is initialised, and SIGCHLD is a signal.
    unsafe { libc::sigaddset(&raw mut set, libc::SIGCHLD) };
    set
}
