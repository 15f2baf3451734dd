use std::{io, mem, os::unix::process::ExitStatusExt, process::ExitStatus, time::Duration};

use rustix::process::Pid;

use crate::Usage;

/// A child that has ended and is not reaped yet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ended {
    pub(crate) pid: Pid,
    pub(crate) status: ExitStatus,
    pub(crate) usage: Usage,
}

/// What there is to reap.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Children {
    /// This one has ended.
    Ended(Ended),
    /// All of them run.
    Running,
    /// There is none.
    None,
}

/// Looks for a child that has ended and leaves it a zombie, so that its number stays its own.
pub(crate) fn peek() -> io::Result<Children> {
    // `__WALL`: also children that were made by clone(2) without SIGCHLD.
    let options = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT | libc::__WALL;
    // SAFETY: all bytes zero is a valid value of this plain structure.
    let mut info: libc::siginfo_t = unsafe { mem::zeroed() };
    // SAFETY: all bytes zero is a valid value of this plain structure.
    let mut usage: libc::rusage = unsafe { mem::zeroed() };
    // SAFETY: both pointers are valid for writing. The system call has a fifth parameter, the usage, that the function
    // of the C library lacks; see waitid(2), "C library/kernel differences".
    let result = unsafe { libc::syscall(libc::SYS_waitid, libc::P_ALL, 0, &raw mut info, options, &raw mut usage) };
    if result < 0 {
        let error = io::Error::last_os_error();
        return if error.raw_os_error() == Some(libc::ECHILD) { Ok(Children::None) } else { Err(error) };
    }
    // SAFETY: the kernel has filled the structure in for a child, or left it zero.
    let pid = unsafe { info.si_pid() };
    // SAFETY: as above.
    let status = unsafe { info.si_status() };
    let Some(pid) = Pid::from_raw(pid) else { return Ok(Children::Running) };
    // As wait(2) encodes it.
    let raw = match info.si_code {
        libc::CLD_EXITED => (status & 0xff) << 8,
        libc::CLD_DUMPED => status | 0x80,
        _ => status,
    };
    Ok(Children::Ended(Ended { pid, status: ExitStatus::from_raw(raw), usage: usage_from(&usage) }))
}

/// Reaps a child that [`peek`] has found.
pub(crate) fn reap(ended: &Ended) -> io::Result<()> {
    // SAFETY: without pointers for the status there is no memory to write to.
    let result = unsafe { libc::waitpid(ended.pid.as_raw_pid(), std::ptr::null_mut(), libc::__WALL) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn usage_from(usage: &libc::rusage) -> Usage {
    // The kernel's numbers are never negative; their types differ between architectures.
    let number = |number: i64| u64::try_from(number).unwrap_or_default();
    let time = |time: libc::timeval| {
        Duration::from_secs(number(time.tv_sec)).saturating_add(Duration::from_micros(number(time.tv_usec)))
    };
    Usage {
        user: time(usage.ru_utime),
        system: time(usage.ru_stime),
        // The kernel counts in KiB.
        max_rss: number(usage.ru_maxrss).saturating_mul(1024),
    }
}
