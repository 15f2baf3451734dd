//! Finds the worker's program, and says in a person's words why one cannot be executed.
//!
//! All of it runs in the worker's process right before exec, so names mean what they mean to the worker.

use std::{
    ffi::{CStr, CString, OsStr},
    fs::File,
    io::{self, Read},
    os::unix::ffi::OsStrExt,
};

use rustix::fs::{Access, AtFlags, CWD, FileType, accessat, stat};

/// Where programs are searched if the worker's environment has no `PATH`.
const DEFAULT_PATH: &[u8] = b"/usr/local/bin:/usr/bin:/bin";

/// How much of a file the kernel looks at for its `#!` line: `BINPRM_BUF_SIZE`.
const FIRST_BYTES: u64 = 256;

/// Why there is nothing to execute.
#[derive(Debug)]
pub(super) struct NotFound {
    pub(super) errno: Option<i32>,
    pub(super) hint: String,
}

/// The file to execute: the program itself if it is a path, else the first one of that name in `PATH` that can be
/// executed.
pub(super) fn find(program: &CStr, env: &[&CStr]) -> Result<CString, NotFound> {
    let name = program.to_bytes();
    if name.contains(&b'/') {
        return match check(program) {
            Ok(()) => Ok(program.to_owned()),
            Err(error) => Err(not_found(&error, &explain(program, &error))),
        };
    }
    let path = env.iter().find_map(|variable| variable.to_bytes().strip_prefix(b"PATH=")).unwrap_or(DEFAULT_PATH);
    // The one that comes closest is reported if none can be executed.
    let mut nearest = None;
    for directory in path.split(|byte| *byte == b':') {
        // An empty entry is the working directory, see environ(7).
        let directory = if directory.is_empty() { b"." } else { directory };
        let Ok(candidate) = CString::new([directory, b"/", name].concat()) else { continue };
        match check(&candidate) {
            Ok(()) => return Ok(candidate),
            Err(error) if is_absent(&error) => {}
            Err(error) => nearest = nearest.or(Some((candidate, error))),
        }
    }
    Err(match nearest {
        Some((candidate, error)) => not_found(&error, &explain(&candidate, &error)),
        None => {
            NotFound { errno: Some(libc::ENOENT), hint: format!("no program {} in PATH={}", text(name), text(path)) }
        }
    })
}

/// What an error of execve(2) says about this file.
pub(super) fn explain(path: &CStr, error: &io::Error) -> String {
    let name = text(path.to_bytes());
    match error.raw_os_error() {
        Some(libc::ENOENT) if stat(path).is_ok() => match interpreter(path) {
            Some(interpreter) => format!("{name} exists, but not the interpreter {interpreter} in its first line"),
            None => {
                format!("{name} exists, but not the dynamic loader that it names: install it, or use another build")
            }
        },
        Some(libc::ENOENT | libc::ENOTDIR) => format!("there is no file {name}"),
        Some(libc::EISDIR) => format!("{name} is a directory, not a program"),
        // Only a file that passes the check is opened: opening a named pipe, for one, would wait.
        Some(libc::EACCES) => match check(path).ok().and_then(|()| interpreter(path)) {
            Some(interpreter) => format!("the interpreter {interpreter} of {name} cannot be executed"),
            None => format!("{name} is not executable: set its execute permission, and check noexec mounts"),
        },
        Some(libc::ENOEXEC) => format!("{name} is neither a program for this machine nor a script with a #! line"),
        Some(libc::E2BIG) => format!("the arguments and the environment of {name} are larger than the kernel takes"),
        Some(libc::ETXTBSY) => format!("{name} is open for writing: wait until that ends"),
        Some(libc::EAGAIN) => format!("{name} would be one process more than the limit of its user allows"),
        Some(libc::ELOOP) => format!("{name} leads through too many symbolic links or interpreters"),
        _ => format!("cannot execute {name}"),
    }
}

fn check(path: &CStr) -> io::Result<()> {
    let found = stat(path)?;
    match FileType::from_raw_mode(found.st_mode) {
        FileType::RegularFile => Ok(accessat(CWD, path, Access::EXEC_OK, AtFlags::EACCESS)?),
        FileType::Directory => Err(io::Error::from_raw_os_error(libc::EISDIR)),
        _ => Err(io::Error::from_raw_os_error(libc::EACCES)),
    }
}

fn is_absent(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR))
}

/// What a script names in its first line; see execve(2), "Interpreter scripts".
fn interpreter(path: &CStr) -> Option<String> {
    let mut first = Vec::new();
    File::open(OsStr::from_bytes(path.to_bytes())).ok()?.take(FIRST_BYTES).read_to_end(&mut first).ok()?;
    let line = first.strip_prefix(b"#!")?.split(|byte| *byte == b'\n').next()?;
    let word = line.split(|byte| matches!(byte, b' ' | b'\t')).find(|word| !word.is_empty())?;
    Some(text(word))
}

fn not_found(error: &io::Error, hint: &str) -> NotFound {
    NotFound { errno: error.raw_os_error(), hint: hint.to_owned() }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
