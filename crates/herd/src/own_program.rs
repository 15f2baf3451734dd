//! Where this program's own file is.

use std::{
    env, io,
    path::{Path, PathBuf},
    sync::OnceLock,
};

/// Where the file of this program was when this was asked first, which the daemon does as it starts.
///
/// It is not looked up again. Once the file was replaced, as an upgrade does it, the kernel's name for what runs ends
/// with ` (deleted)` (proc_pid_exe(5)), and at the former path lies the successor, which new workers can run as well.
///
/// # Errors
/// If `/proc` does not tell it.
pub(crate) fn path() -> io::Result<&'static Path> {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    if let Some(path) = PATH.get() {
        return Ok(path);
    }
    let path = env::current_exe()?;
    Ok(PATH.get_or_init(|| path))
}
