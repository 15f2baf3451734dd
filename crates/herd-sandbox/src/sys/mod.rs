//! The system calls that need `unsafe`, one file for each kind, each behind a safe function.

pub(crate) mod descriptor;
pub(crate) mod landlock;
pub(crate) mod memory;
pub(crate) mod mount;
pub(crate) mod network;
pub(crate) mod process;
pub(crate) mod seccomp;
pub(crate) mod signal;
pub(crate) mod wait;
