use std::{
    ffi::OsString,
    os::{fd::OwnedFd, unix::ffi::OsStrExt},
    path::PathBuf,
};

use crate::Isolation;

/// What to start: one command and everything that its process shall be given.
///
/// Nothing of the launching process reaches the worker unless it is named here: not its environment, not its
/// descriptors, not its limits, not its signal mask.
///
/// [`Spec::new`] gives the defaults named at each field; set what should differ.
#[derive(Debug)]
#[non_exhaustive]
pub struct Spec {
    /// The program. Without a slash it is searched in the `PATH` of [`env`](Self::env), or in
    /// `/usr/local/bin:/usr/bin:/bin` if there is none; with one it is a path, relative to [`cwd`](Self::cwd) if it
    /// does not begin with a slash.
    pub program: OsString,
    /// The arguments after the program's own name. Default: none.
    pub args: Vec<OsString>,
    /// The worker's whole environment, in this order. Default: empty.
    pub env: Vec<(OsString, OsString)>,
    /// The working directory, an absolute path. Default: the current directory of the launching process at the time of
    /// the launch or, in a sandbox, `/`.
    pub cwd: Option<PathBuf>,
    /// How many descriptors the worker may have open (`RLIMIT_NOFILE`, soft and hard). Default: 4096.
    pub open_files: u64,
    /// Further limits, soft and hard alike. Default: no core dumps.
    pub limits: Vec<(Limit, u64)>,
    /// The file mode creation mask, see umask(2). Default: `0o077`, what a worker writes is its user's alone.
    pub umask: u32,
    /// Listening sockets to pass on as descriptors 3 and up, announced by `LISTEN_FDS` and `LISTEN_PID`, see
    /// sd_listen_fds(3). At most [`Spec::MAX_LISTEN`], together with [`kept`](Self::kept). Default: none.
    pub listen: Vec<OwnedFd>,
    /// TCP ports of the loopback address 127.0.0.1 on which the worker finds itself listening, passed on after
    /// [`listen`](Self::listen). The sockets are made in the worker's network namespace. Default: none.
    pub listen_ports: Vec<u16>,
    /// TCP ports that the worker serves. Where its network is to be private and only Landlock is there to make it so,
    /// it may listen on these and connect to these alone. Default: none.
    pub tcp_ports: Vec<u16>,
    /// Descriptors that init holds until nothing of the worker is left, and that the worker does not get: locks
    /// (flock(2)) of what the worker uses, which so outlast this process too. Default: none.
    pub kept: Vec<OwnedFd>,
    /// The worker's standard output. Default: `/dev/null`.
    pub stdout: Option<OwnedFd>,
    /// The worker's standard error. Default: `/dev/null`.
    pub stderr: Option<OwnedFd>,
    /// How far the worker is sealed off. Default: [`Isolation::off`].
    pub isolation: Isolation,
}

/// A limit on what one process may use, see setrlimit(2).
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum Limit {
    /// Address space in bytes, `RLIMIT_AS`.
    AddressSpace,
    /// Size of a core dump in bytes, `RLIMIT_CORE`.
    CoreDump,
    /// CPU time in seconds, `RLIMIT_CPU`.
    CpuTime,
    /// Data segment in bytes, `RLIMIT_DATA`.
    Data,
    /// Size of a file that it writes in bytes, `RLIMIT_FSIZE`.
    FileSize,
    /// Locked memory in bytes, `RLIMIT_MEMLOCK`.
    LockedMemory,
    /// Processes and threads of its user, `RLIMIT_NPROC`.
    Processes,
    /// Stack in bytes, `RLIMIT_STACK`.
    Stack,
}

/// A [`Spec`] asks for something that cannot be: found before anything is started.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum SpecError {
    /// The program's name is empty.
    #[error("the program is empty: name a command or a path")]
    EmptyProgram,
    /// A text holds a NUL byte, which ends a text for the kernel.
    #[error("{field} holds a NUL byte")]
    NulByte {
        /// Which text: `argument 2`, for example.
        field: String,
    },
    /// The name of an environment variable is empty or holds `=`.
    #[error("environment variable {name:?} cannot exist: a name is not empty and holds no '='")]
    VariableName {
        /// The name.
        name: OsString,
    },
    /// The environment names a variable twice.
    #[error("environment variable {name:?} is given twice")]
    RepeatedVariable {
        /// The name.
        name: OsString,
    },
    /// The environment names a variable that describes the listening sockets, while there are such.
    #[error("environment variable {name:?} is set by the launch itself, from the listening sockets: leave it out")]
    ReservedVariable {
        /// The name.
        name: OsString,
    },
    /// A path is relative.
    #[error("{field} {path:?} is relative: give an absolute path")]
    RelativePath {
        /// What it is for.
        field: String,
        /// The path.
        path: PathBuf,
    },
    /// The working directory is a relative path.
    #[error("working directory {path:?} is relative: give an absolute path")]
    RelativeDirectory {
        /// The path.
        path: PathBuf,
    },
    /// No working directory is named, and the launching process has none either.
    #[error("the current directory cannot be told ({reason}): give the worker a working directory")]
    NoDirectory {
        /// Why not.
        reason: String,
    },
    /// There are more listening sockets than fit into one message.
    #[error("{count} listening sockets are too many: at most {} can be passed on", Spec::MAX_LISTEN)]
    TooManySockets {
        /// How many there are.
        count: usize,
    },
    /// The worker could not even hold its standard streams and its listening sockets.
    #[error("a limit of {open_files} open files is too low: standard streams and listening sockets need {needed}")]
    TooFewFiles {
        /// The limit that was asked for.
        open_files: u64,
        /// How many the worker starts with.
        needed: u64,
    },
    /// The umask has bits beyond the nine of permissions.
    #[error("umask {umask:#o} has bits beyond 0o777")]
    Umask {
        /// The mask.
        umask: u32,
    },
}

impl Spec {
    /// The most listening sockets that one worker can be given: what one message carries (`SCM_MAX_FD`, see unix(7)),
    /// less the four descriptors that a launch needs.
    pub const MAX_LISTEN: usize = 249;

    /// A worker that runs this program, with the defaults.
    #[must_use]
    pub fn new(program: impl Into<OsString>) -> Self {
        Self {
            program: program.into(),
            args: Vec::new(),
            env: Vec::new(),
            cwd: None,
            open_files: 4096,
            limits: vec![(Limit::CoreDump, 0)],
            umask: 0o077,
            listen: Vec::new(),
            listen_ports: Vec::new(),
            tcp_ports: Vec::new(),
            kept: Vec::new(),
            stdout: None,
            stderr: None,
            isolation: Isolation::off(),
        }
    }

    /// Checks what can be checked without starting anything. [`Init::launch`](crate::Init::launch) does it too.
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
        self.validate_environment()?;
        if let Some(cwd) = &self.cwd {
            no_nul("the working directory", cwd.as_os_str().as_bytes())?;
            if !cwd.is_absolute() {
                return Err(SpecError::RelativeDirectory { path: cwd.clone() });
            }
        }
        let sockets = self.listen.len() + self.listen_ports.len();
        if sockets + self.kept.len() > Self::MAX_LISTEN {
            return Err(SpecError::TooManySockets { count: sockets + self.kept.len() });
        }
        let needed = 3 + sockets as u64;
        if self.open_files < needed {
            return Err(SpecError::TooFewFiles { open_files: self.open_files, needed });
        }
        if self.umask & !0o777 != 0 {
            return Err(SpecError::Umask { umask: self.umask });
        }
        Ok(())
    }

    fn validate_environment(&self) -> Result<(), SpecError> {
        Self::validate_variables(&self.env)?;
        let listens = !(self.listen.is_empty() && self.listen_ports.is_empty());
        let is_reserved = |name: &OsString| listens && (name == "LISTEN_FDS" || name == "LISTEN_PID");
        match self.env.iter().find(|(name, _)| is_reserved(name)) {
            Some((name, _)) => Err(SpecError::ReservedVariable { name: name.clone() }),
            None => Ok(()),
        }
    }

    /// Checks that these can be an environment.
    pub(crate) fn validate_variables(env: &[(OsString, OsString)]) -> Result<(), SpecError> {
        let mut seen = std::collections::HashSet::with_capacity(env.len());
        for (name, value) in env {
            let bytes = name.as_bytes();
            no_nul("the name of an environment variable", bytes)?;
            if bytes.is_empty() || bytes.contains(&b'=') {
                return Err(SpecError::VariableName { name: name.clone() });
            }
            no_nul_in(|| format!("environment variable {name:?}"), value.as_bytes())?;
            if !seen.insert(name) {
                return Err(SpecError::RepeatedVariable { name: name.clone() });
            }
        }
        Ok(())
    }
}

pub(crate) fn no_nul(field: &str, text: &[u8]) -> Result<(), SpecError> {
    no_nul_in(|| field.to_owned(), text)
}

pub(crate) fn no_nul_in(field: impl FnOnce() -> String, text: &[u8]) -> Result<(), SpecError> {
    if text.contains(&0) { Err(SpecError::NulByte { field: field() }) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    fn error(change: impl FnOnce(&mut Spec)) -> SpecError {
        let mut spec = Spec::new("program");
        assert_eq!(spec.validate(), Ok(()));
        change(&mut spec);
        spec.validate().expect_err("it cannot be")
    }

    #[test]
    fn what_cannot_be_is_said_before_anything_is_started() {
        assert_eq!(error(|spec| spec.program = "".into()), SpecError::EmptyProgram);
        let nul = |field: &str| SpecError::NulByte { field: field.to_owned() };
        assert_eq!(error(|spec| spec.program = "a\0b".into()), nul("the program"));
        assert_eq!(error(|spec| spec.args = vec!["ok".into(), "a\0b".into()]), nul("argument 2"));
        assert_eq!(error(|spec| spec.env = vec![("A".into(), "a\0b".into())]), nul("environment variable \"A\""));
        assert_eq!(
            error(|spec| spec.env = vec![("A\0".into(), "b".into())]),
            nul("the name of an environment variable")
        );
        assert_eq!(error(|spec| spec.cwd = Some("/a\0b".into())), nul("the working directory"));
        for name in ["", "A=B"] {
            let expected = SpecError::VariableName { name: name.into() };
            assert_eq!(error(|spec| spec.env = vec![(name.into(), "value".into())]), expected);
        }
        let twice = vec![("A".into(), "1".into()), ("A".into(), "2".into())];
        assert_eq!(error(|spec| spec.env = twice), SpecError::RepeatedVariable { name: "A".into() });
        let relative = SpecError::RelativeDirectory { path: "a/b".into() };
        assert_eq!(error(|spec| spec.cwd = Some("a/b".into())), relative);
        assert_eq!(error(|spec| spec.umask = 0o1777), SpecError::Umask { umask: 0o1777 });
        assert_eq!(error(|spec| spec.open_files = 2), SpecError::TooFewFiles { open_files: 2, needed: 3 });
    }

    #[test]
    fn listening_sockets_are_counted_and_announced_by_the_launch_alone() {
        let sockets = |count| -> Vec<OwnedFd> {
            let null = File::open("/dev/null").unwrap();
            (0..count).map(|_| null.try_clone().unwrap().into()).collect()
        };
        assert_eq!(
            error(|spec| spec.listen = sockets(Spec::MAX_LISTEN + 1)),
            SpecError::TooManySockets { count: Spec::MAX_LISTEN + 1 }
        );
        let clash = error(|spec| {
            spec.listen = sockets(1);
            spec.env = vec![("LISTEN_PID".into(), "1".into())];
        });
        assert_eq!(clash, SpecError::ReservedVariable { name: "LISTEN_PID".into() });
        // Without sockets they are variables like others.
        let mut spec = Spec::new("program");
        spec.env = vec![("LISTEN_PID".into(), "1".into())];
        assert_eq!(spec.validate(), Ok(()));
    }
}
