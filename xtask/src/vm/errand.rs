use std::{collections::BTreeMap, path::PathBuf};

use serde::{Deserialize, Serialize};

/// What the host sends this program into the virtual machine for.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Errand {
    /// Read from the host's file system over and over they are slow: the machine copies them into its memory first, and
    /// puts the copies in their places.
    pub(crate) copies: Vec<PathBuf>,
    /// Directories that get a file system in memory put over them. Those that are not there are left out.
    pub(crate) scratch: Vec<PathBuf>,
    /// Added to the environment, which else is that of a system service.
    pub(crate) environment: BTreeMap<String, String>,
    pub(crate) deed: Deed,
}

/// What is to be done there.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Deed {
    Command { line: Vec<String>, directory: PathBuf },
    Tests(Vec<Suite>),
}

/// Tests that one program has.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Suite {
    /// As nextest names it: package and target.
    pub(crate) name: String,
    pub(crate) program: PathBuf,
    /// Where Cargo would run it: the directory of its package.
    pub(crate) directory: PathBuf,
    pub(crate) tests: Vec<String>,
}

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Verdict {
    /// The exit status of the command, as a shell tells it.
    Exit(u8),
    Tests {
        passed: usize,
        failed: usize,
    },
}
