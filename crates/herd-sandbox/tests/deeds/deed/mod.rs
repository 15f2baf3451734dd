//! The deeds, by what they are aimed at. What each is, and what it must end with, is in `table`.

pub(crate) mod files;
pub(crate) mod identity;
pub(crate) mod init;
pub(crate) mod ipc;
pub(crate) mod kernel;
pub(crate) mod limits;
pub(crate) mod mounts;
pub(crate) mod network;
pub(crate) mod processes;
