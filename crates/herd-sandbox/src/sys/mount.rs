use std::{
    ffi::CStr,
    io, mem,
    os::fd::{AsFd, AsRawFd},
};

/// Sets attributes (`MOUNT_ATTR_*`) of the mount at this descriptor and, if `recursive`, of all below it; see
/// mount_setattr(2), Linux 5.12.
pub(crate) fn set_attributes(mount: impl AsFd, attributes: u64, recursive: bool) -> io::Result<()> {
    // SAFETY: all bytes zero is a valid value of this plain structure.
    let mut change: libc::mount_attr = unsafe { mem::zeroed() };
    change.attr_set = attributes;
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    let path: &CStr = c"";
    // SAFETY: the path is a text that ends with a NUL byte, the structure is as large as is said, and both outlive the
    // call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_fd().as_raw_fd(),
            path.as_ptr(),
            flags,
            &raw const change,
            mem::size_of::<libc::mount_attr>(),
        )
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
