use std::{ffi::CStr, io, ptr};

use rustix::process::Pid;

/// Which of the two processes this is.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Forked {
    Child,
    Parent { child: Pid },
}

/// See fork(2). For a process with a single thread: there the child may do all that the parent may.
pub(crate) fn fork() -> io::Result<Forked> {
    // SAFETY: the process has one thread, which callers have checked, so no lock is held by a thread that the child
    // does not have.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        child => Ok(Pid::from_raw(child).map_or(Forked::Child, |child| Forked::Parent { child })),
    }
}

/// Ends this process at once, without destructors and exit handlers.
pub(crate) fn exit_now(code: i32) -> ! {
    // SAFETY: the call has no preconditions and does not return.
    unsafe { libc::_exit(code) }
}

/// Replaces the program of this process. Returns only if that fails.
pub(crate) fn execute(path: &CStr, args: &[&CStr], env: &[&CStr]) -> io::Error {
    let pointers = |texts: &[&CStr]| texts.iter().map(|text| text.as_ptr()).chain([ptr::null()]).collect::<Vec<_>>();
    let (args, env) = (pointers(args), pointers(env));
    // SAFETY: both arrays end with a null pointer, and all that they point to are texts that end with a NUL byte and
    // outlive the call.
    unsafe { libc::execve(path.as_ptr(), args.as_ptr(), env.as_ptr()) };
    io::Error::last_os_error()
}

/// Whether another thread exists beside the caller's.
pub(crate) fn has_threads() -> io::Result<bool> {
    Ok(std::fs::read_dir("/proc/self/task")?.take(2).count() > 1)
}
