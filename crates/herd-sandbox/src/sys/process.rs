use std::{
    ffi::CStr,
    io, mem,
    os::fd::{AsFd, AsRawFd, BorrowedFd},
    ptr,
};

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

/// Like [`fork`], into new namespaces (`CLONE_NEW*`) and into the cgroup of this directory, see clone(2). `sibling`: the
/// child's parent is the caller's own.
pub(crate) fn fork_into(namespaces: u64, cgroup: Option<BorrowedFd<'_>>, sibling: bool) -> io::Result<Forked> {
    // SAFETY: all bytes zero is a valid value of this plain structure.
    let mut args: libc::clone_args = unsafe { mem::zeroed() };
    args.flags = namespaces;
    if let Some(cgroup) = cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = u64::from(cgroup.as_raw_fd().cast_unsigned());
    }
    if sibling {
        // The child tells of its end by the signal that the caller tells of its own by.
        args.flags |= u64::from(libc::CLONE_PARENT.cast_unsigned());
    } else {
        args.exit_signal = u64::from(libc::SIGCHLD.cast_unsigned());
    }
    // SAFETY: the process has one thread, which callers have checked, so no lock is held by a thread that the child
    // does not have. Without a stack of its own the child goes on with a copy of the caller's, as after fork(2); the
    // structure is as large as is said.
    match unsafe { libc::syscall(libc::SYS_clone3, &raw const args, mem::size_of::<libc::clone_args>()) } {
        -1 => Err(io::Error::last_os_error()),
        child => Ok(i32::try_from(child)
            .ok()
            .and_then(Pid::from_raw)
            .map_or(Forked::Child, |child| Forked::Parent { child })),
    }
}

/// Moves this process, or its next child, into new namespaces (`CLONE_NEW*`); see unshare(2).
pub(crate) fn unshare(namespaces: libc::c_int) -> io::Result<()> {
    // SAFETY: the call reads no memory. The process has one thread, so no other sees its namespaces change.
    let result = unsafe { libc::unshare(namespaces) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Moves this process into the user namespace of this descriptor, in which it has all capabilities then; see setns(2).
pub(crate) fn join_user_namespace(namespace: impl AsFd) -> io::Result<()> {
    // SAFETY: the call reads no memory. The process has one thread, so no other sees its credentials differ.
    let result = unsafe { libc::setns(namespace.as_fd().as_raw_fd(), libc::CLONE_NEWUSER) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// From linux/sched.h; beyond what the C library's `int` flags hold.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// Gives this process a session keyring of its own, without a name; see keyctl_join_session_keyring(3).
pub(crate) fn join_session_keyring() -> io::Result<()> {
    let no_name = ptr::null::<libc::c_char>();
    // SAFETY: without a name the call reads no memory.
    let result = unsafe { libc::syscall(libc::SYS_keyctl, libc::KEYCTL_JOIN_SESSION_KEYRING, no_name) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
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
