use std::{io, ptr};

/// The size of an instruction: a `struct sock_filter`.
const INSTRUCTION: usize = size_of::<libc::sock_filter>();

/// Puts a filter over all system calls that the calling thread and its descendants will make; see seccomp(2). Its code
/// is that of instructions as they lie in memory. `no_new_privs` must be set.
///
/// # Errors
/// `InvalidInput` if the code is no whole number of instructions, from one to 4096, and what seccomp(2) says.
pub(crate) fn install(code: &[u8], log: bool) -> io::Result<()> {
    let (instructions, []) = code.as_chunks::<INSTRUCTION>() else { return Err(io::ErrorKind::InvalidInput.into()) };
    let mut filter: Vec<libc::sock_filter> = instructions
        .iter()
        .map(|[code_0, code_1, jt, jf, k @ ..]| libc::sock_filter {
            code: u16::from_ne_bytes([*code_0, *code_1]),
            jt: *jt,
            jf: *jf,
            k: u32::from_ne_bytes(*k),
        })
        .collect();
    let length = u16::try_from(filter.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let program = libc::sock_fprog { len: length, filter: filter.as_mut_ptr() };
    let flags = if log { libc::SECCOMP_FILTER_FLAG_LOG } else { 0 };
    // SAFETY: the program points to as many instructions as it says, which outlive the call; the kernel only reads them,
    // and refuses those that are no program.
    let result =
        unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, ptr::from_ref(&program)) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
