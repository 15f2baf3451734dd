use std::{
    ffi::OsString,
    os::{fd::OwnedFd, unix::ffi::OsStrExt},
    path::PathBuf,
};

use crate::{
    Spec, SpecError,
    spec::{no_nul, no_nul_in},
};

/// A further command in the sandbox of a worker that runs: see [`Init::execute`](crate::Init::execute).
///
/// What is not named here it has from the worker: namespaces, cgroup, user, limits, filters.
#[derive(Debug)]
#[non_exhaustive]
pub struct ExecSpec {
    /// The program, found as [`Spec::program`] is: in the worker's root and by the `PATH` of the command's environment.
    pub program: OsString,
    /// The arguments after the program's own name. Default: none.
    pub args: Vec<OsString>,
    /// What its environment has beyond the worker's own, or instead of it where the names are the same. Default: nothing.
    pub env: Vec<(OsString, OsString)>,
    /// The working directory, an absolute path as the worker sees it. Default: the worker's own.
    pub directory: Option<PathBuf>,
    /// Where its standard streams are.
    pub streams: ExecStreams,
}

/// Where the standard streams of a command are.
#[derive(Debug)]
pub enum ExecStreams {
    /// Descriptors of the launching process, the command's ends of pipes for example.
    Descriptors {
        /// Standard input.
        stdin: OwnedFd,
        /// Standard output.
        stdout: OwnedFd,
        /// Standard error.
        stderr: OwnedFd,
    },
    /// A terminal of this size in the worker's `/dev/pts`, which is the command's controlling terminal. Its other side
    /// comes with [`Report::Executed`](crate::Report::Executed).
    Terminal(TerminalSize),
}

/// The size of a terminal, in characters.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct TerminalSize {
    /// How many fit into a line.
    pub columns: u16,
    /// How many lines there are.
    pub rows: u16,
}

impl ExecSpec {
    /// This program with these streams, and the defaults.
    #[must_use]
    pub fn new(program: impl Into<OsString>, streams: ExecStreams) -> Self {
        Self { program: program.into(), args: Vec::new(), env: Vec::new(), directory: None, streams }
    }

    /// Checks what can be checked without starting anything.
    ///
    /// # Errors
    /// [`SpecError`] names the first thing that cannot be.
    pub fn validate(&self) -> Result<(), SpecError> {
        if self.program.is_empty() {
            return Err(SpecError::EmptyProgram);
        }
        no_nul("the program", self.program.as_bytes())?;
        for (index, arg) in self.args.iter().enumerate() {
            no_nul_in(|| format!("argument {}", index + 1), arg.as_bytes())?;
        }
        Spec::validate_variables(&self.env)?;
        if let Some(directory) = &self.directory {
            no_nul("the working directory", directory.as_os_str().as_bytes())?;
            if !directory.is_absolute() {
                return Err(SpecError::RelativeDirectory { path: directory.clone() });
            }
        }
        Ok(())
    }
}
