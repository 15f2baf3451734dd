use std::ptr;

/// The flag of landlock_create_ruleset(2) that asks for the version, from linux/landlock.h.
const VERSION: libc::c_ulong = 1;

/// The version of Landlock's interface, 0 where the kernel has none or does not use it; see landlock(7).
pub(crate) fn version() -> u32 {
    let no_rules = ptr::null::<libc::c_void>();
    // SAFETY: asked for the version, the call reads no memory.
    let version = unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, no_rules, 0_usize, VERSION) };
    u32::try_from(version).unwrap_or(0)
}
