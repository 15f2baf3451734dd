//! What commands say to the person who typed them.

use std::{
    fmt::Display,
    io::{self, Write as _},
};

/// Writes to standard output. A reader who has seen enough (`herd ps | head -1`) is no error.
///
/// # Errors
/// If the output cannot be written for another reason, such as a full disk.
pub(crate) fn print(text: impl Display) -> anyhow::Result<()> {
    let mut stdout = io::stdout().lock();
    match write!(stdout, "{text}").and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

/// Writes one sentence to standard error.
pub(crate) fn complain(sentence: impl Display) {
    // If nobody can be told, there is nobody to tell.
    let _ = writeln!(io::stderr().lock(), "herd: {sentence}");
}
