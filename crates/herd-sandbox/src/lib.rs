//! Starts one command under a small supervising process of its own, the *init*, on Linux.

mod channel;
mod codec;
mod entry;
mod handle;
mod init;
mod launch;
mod plan;
mod protocol;
mod reaper;
mod report;
mod signal;
mod spec;
mod sys;

pub use entry::enter_init;
pub use handle::Init;
pub use launch::LaunchError;
pub use report::{Failure, Report, Usage};
pub use signal::{InvalidSignal, Signal};
pub use spec::{Limit, Spec, SpecError};
