use std::{
    ffi::OsStr,
    fs::File,
    io::{self, Write},
    os::{
        fd::{AsFd, AsRawFd, OwnedFd},
        unix::process::CommandExt,
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::OnceLock,
};

use rustix::{
    fs::{
        Access, AtFlags, CWD, MemfdFlags, Mode as FileMode, SealFlags, accessat, fchmod, fcntl_add_seals, memfd_create,
    },
    io::Errno,
    process::{Pid, PidfdFlags, pidfd_open},
};

use crate::{
    Failure, Host, Init, Missing, Mode, Plan, PlanError, Spec, SpecError,
    channel::Channel,
    entry,
    host::has_users,
    landlock,
    plan::Blueprint,
    protocol::{Request, VERSION},
};

/// The name by which a process recognises that it was started as init.
pub(crate) const INIT_NAME: &str = "herd-init";

/// The running program itself: the kernel finds it even after the file was replaced or removed.
const SELF: &str = "/proc/self/exe";

/// A worker's init could not be started. Nothing runs.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LaunchError {
    /// The spec asks for something that cannot be.
    #[error("{0}")]
    Spec(#[from] SpecError),
    /// The spec requires a sandbox that this host cannot give.
    #[error("{}", PlanError::list(.0))]
    Missing(Vec<Missing>),
    /// This program never called [`enter_init`](crate::enter_init), so it cannot serve as init.
    #[error("call herd_sandbox::enter_init() first in main, or name a helper binary that does (Init::launch_with)")]
    EnterInitMissing,
    /// This process is itself one that was started as init, by a program that did not call
    /// [`enter_init`](crate::enter_init). Launching from it would start the program again and again.
    #[error("this process was started as init: call herd_sandbox::enter_init() first in main")]
    InsideInit,
    /// What this host can give could not be found out.
    #[error("cannot try what this host can give: {0}")]
    Rehearsal(#[source] Failure),
    /// Init's program belongs to the worker's user, and neither a copy of it in memory nor Landlock can protect it.
    #[error(
        "init's program can be changed by this user, and no copy of it can be kept in memory; make its file belong to another user, or allow memory files to be executed (vm.memfd_noexec)"
    )]
    Copy(#[source] io::Error),
    /// The socket to init could not be made.
    #[error("cannot make a socket for init")]
    Socket(#[source] io::Error),
    /// The plan could not be written into a memory file.
    #[error("cannot make a memory file for the plan")]
    Memory(#[source] io::Error),
    /// `/dev/null` could not be opened.
    #[error("cannot open /dev/null")]
    Null(#[source] io::Error),
    /// The program that shall be init could not be started.
    #[error("cannot start {program:?} as init")]
    Spawn {
        /// The program.
        program: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The plan could not be sent to init.
    #[error("cannot send the plan to init")]
    Send(#[source] io::Error),
}

impl Init {
    /// Starts an init from this very program and hands it the worker to start.
    ///
    /// Does not wait for the worker: [`recv`](Self::recv) tells what became of it. It takes about as long as one
    /// execve(2), a millisecond or so. The spec's descriptors are closed on this side before it returns.
    ///
    /// # Errors
    /// [`LaunchError`]: nothing was started, or it has been ended again.
    pub fn launch(spec: Spec) -> Result<Self, LaunchError> {
        if entry::is_init() {
            return Err(LaunchError::InsideInit);
        }
        if !entry::was_called() {
            return Err(LaunchError::EnterInitMissing);
        }
        let program = match own_program() {
            Ok(program) => program,
            Err(error) if spec.isolation.mode == Mode::Required => return Err(LaunchError::Copy(error)),
            Err(_) => PathBuf::from(SELF),
        };
        launch(spec, &program)
    }

    /// Like [`launch`](Self::launch), with another program as init: one whose `main` calls
    /// [`enter_init`](crate::enter_init) first.
    ///
    /// # Errors
    /// [`LaunchError`]: nothing was started, or it has been ended again. A helper that is no init is found out later,
    /// by [`recv`](Self::recv).
    pub fn launch_with(helper: impl AsRef<OsStr>, spec: Spec) -> Result<Self, LaunchError> {
        if entry::is_init() {
            return Err(LaunchError::InsideInit);
        }
        launch(spec, Path::new(helper.as_ref()))
    }
}

/// The program to start as init where that is this very program.
///
/// A process of a worker that gets hold of its init's executable, through `/proc/PID/exe` or a script that names
/// `/proc/self/exe` as its interpreter, could change it if it runs as the user who may (CVE-2019-5736). So where the
/// worker's user may, init is started from a copy in memory that nobody can change.
///
/// # Errors
/// Such a copy cannot be made, and there is no Landlock to keep a worker from the file instead.
pub(crate) fn own_program() -> io::Result<PathBuf> {
    static COPY: OnceLock<Result<Option<OwnedFd>, Errno>> = OnceLock::new();
    // Where workers have users of their own, the file is none of theirs.
    let is_ours = || !has_users() && accessat(CWD, SELF, Access::WRITE_OK, AtFlags::EACCESS).is_ok();
    match COPY.get_or_init(|| if is_ours() { copy_in_memory().map(Some) } else { Ok(None) }) {
        Ok(Some(copy)) => {
            // A worker of the same user may have taken the mode away where that is not sealed; where it is, this fails.
            let _ = fchmod(copy, FileMode::RWXU);
            Ok(PathBuf::from(format!("/proc/self/fd/{}", copy.as_raw_fd())))
        }
        Err(error) if landlock::version() < landlock::OLDEST => Err((*error).into()),
        Ok(None) | Err(_) => Ok(PathBuf::from(SELF)),
    }
}

fn copy_in_memory() -> Result<OwnedFd, Errno> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    // Kernels from 6.3 on want to be told that it is to be executed; older ones do not know the flag.
    let memory = memfd_create(INIT_NAME, flags | MemfdFlags::EXEC).or_else(|_| memfd_create(INIT_NAME, flags))?;
    let mut memory = File::from(memory);
    let copied = File::open(SELF).and_then(|mut program| io::copy(&mut program, &mut memory));
    copied.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
    let content = SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE;
    // All inits share it, so its mode must not be changed either: it has to stay executable. Kernels before 6.3 do not
    // know that seal.
    fcntl_add_seals(&memory, content | SealFlags::EXEC).or_else(|_| fcntl_add_seals(&memory, content))?;
    Ok(memory.into())
}

fn launch(spec: Spec, program: &Path) -> Result<Init, LaunchError> {
    let plan = match spec.isolation.mode {
        // What is not asked of the host needs no knowledge of it.
        Mode::Off => Plan::new(&spec, &Host::unknown()),
        _ => Plan::new(&spec, Host::current_with(program)?),
    };
    carry_out(&plan?, spec, program)
}

/// Starts an init and hands it the plan with the spec's descriptors.
pub(crate) fn carry_out(plan: &Plan<'static>, mut spec: Spec, program: &Path) -> Result<Init, LaunchError> {
    let blueprint = Blueprint::new(plan);
    let plan = plan.encode();
    let memory = memory_file(&plan).map_err(LaunchError::Memory)?;
    let stdout = spec.stdout.take().map_or_else(null, Ok).map_err(LaunchError::Null)?;
    let stderr = spec.stderr.take().map_or_else(null, Ok).map_err(LaunchError::Null)?;
    let (channel, theirs) = Channel::pair().map_err(LaunchError::Socket)?;

    // Without a working directory, a user, groups or a closure the standard library takes its posix_spawn path: no
    // code of ours runs between fork and exec, however many threads there are. All our descriptors are close-on-exec
    // from birth, so no program that another thread starts at this moment gets one of them, and neither does init.
    let spawned = Command::new(program)
        .arg0(INIT_NAME)
        .env_clear()
        .stdin(Stdio::from(theirs))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    let failed = |source| LaunchError::Spawn { program: program.to_owned(), source };
    let mut child = spawned.map_err(failed)?;
    let pid = Pid::from_child(&child);
    // The child is not reaped before its pidfd is open, so the number is still its own.
    let pidfd = match pidfd_open(pid, PidfdFlags::empty()) {
        Ok(pidfd) => pidfd,
        Err(error) => {
            // It has no plan, so it has started nothing: ending it leaves nothing behind.
            child.kill().and_then(|()| child.wait()).map_err(failed)?;
            return Err(failed(error.into()));
        }
    };
    let init = Init::new(channel, pid, pidfd, program.to_owned(), blueprint);

    let mut descriptors = vec![memory.as_fd(), stdout.as_fd(), stderr.as_fd()];
    descriptors.extend(spec.isolation.cgroup.as_ref().map(AsFd::as_fd));
    descriptors.extend(spec.listen.iter().map(AsFd::as_fd));
    descriptors.extend(spec.kept.iter().map(AsFd::as_fd));
    match init.send(&Request::Plan { version: VERSION, length: plan.len() as u64 }, &descriptors) {
        // It has ended already. What there is to say about that, `recv` says.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(init),
        result => result.map(|()| init).map_err(LaunchError::Send),
    }
}

fn null() -> io::Result<OwnedFd> {
    Ok(File::options().write(true).open("/dev/null")?.into())
}

/// The plan in memory that nobody can change or shrink any more, so that init can read it in place. Its size is not
/// bound by the socket's buffer.
pub(crate) fn memory_file(plan: &[u8]) -> io::Result<OwnedFd> {
    let memory = memfd_create("herd-plan", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    let mut memory = File::from(memory);
    memory.write_all(plan)?;
    fcntl_add_seals(&memory, SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE)?;
    Ok(memory.into())
}

impl From<PlanError> for LaunchError {
    fn from(error: PlanError) -> Self {
        match error {
            PlanError::Spec(error) => Self::Spec(error),
            PlanError::Missing(missing) => Self::Missing(missing),
        }
    }
}

/// The harness of these tests has a `main` of its own, which does not call `enter_init`.
#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_never_called_enter_init_is_told_so_and_starts_nothing() {
        let error = Init::launch(Spec::new("true")).expect_err("it cannot serve as init");
        assert!(matches!(error, LaunchError::EnterInitMissing));
        assert!(error.to_string().contains("call herd_sandbox::enter_init() first in main"));
    }

    #[test]
    fn a_spec_that_cannot_be_starts_nothing() {
        let error = Init::launch_with("/nonexistent/helper", Spec::new("")).expect_err("there is no program");
        assert!(matches!(error, LaunchError::Spec(SpecError::EmptyProgram)), "{error}");
    }
}
