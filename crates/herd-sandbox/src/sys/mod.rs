//! The system calls that need `unsafe`, one file for each kind, each behind a safe function.

pub(crate) mod descriptor;
pub(crate) mod memory;
pub(crate) mod process;
pub(crate) mod signal;
pub(crate) mod wait;
