//! What clients are told of commands that cannot be run.

use herd_process::ExecError;
use rustix::io::Errno;
use tonic::{
    Code, Status,
    metadata::{MetadataMap, MetadataValue},
};

use crate::causes::with_causes;

/// The trailer that says what is the matter with the program itself.
const FAILURE: &str = "herd-exec-failure";

/// The longest message. It travels among the trailers, where each byte can become three and a client takes 16 KiB in all.
const MOST_MESSAGE_BYTES: usize = 2048;

pub(super) fn of(error: &ExecError) -> Status {
    let mut trailers = MetadataMap::new();
    let code = match error {
        ExecError::NotRunning => Code::Unavailable,
        ExecError::Command(_) => Code::InvalidArgument,
        ExecError::TooMany { .. } | ExecError::Exhausted(_) => Code::ResourceExhausted,
        ExecError::Failed { failure, .. } => {
            if let Some(name) = of_program(&failure.step, failure.errno) {
                trailers.insert(FAILURE, MetadataValue::from_static(name));
            }
            Code::FailedPrecondition
        }
        ExecError::TimedOut { .. } => Code::DeadlineExceeded,
        _ => Code::Internal,
    };
    let mut message = with_causes(error);
    if message.len() > MOST_MESSAGE_BYTES {
        message.truncate(message.floor_char_boundary(MOST_MESSAGE_BYTES));
        message.push('…');
    }
    Status::with_metadata(code, message, trailers)
}

/// Whether the program is not there, or is no program.
fn of_program(step: &str, errno: Option<i32>) -> Option<&'static str> {
    if step != "exec" {
        return None;
    }
    let errno = errno.map(Errno::from_raw_os_error);
    Some(if matches!(errno, Some(Errno::NOENT | Errno::NOTDIR)) { "not-found" } else { "not-executable" })
}
