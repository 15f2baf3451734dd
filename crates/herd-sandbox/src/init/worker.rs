//! From init's fork to the worker's program.

use std::{
    borrow::Cow,
    ffi::{CStr, CString},
    io,
    os::fd::{AsFd, OwnedFd},
    panic::{AssertUnwindSafe, catch_unwind},
};

use rustix::{
    fs::{Mode, OFlags},
    io::fcntl_dupfd_cloexec,
    pipe::{PipeFlags, pipe_with},
    process::{self as sys, Pid, Resource, Rlimit, getpid, getppid},
};

use super::program;
use crate::{
    Failure, Limit, Report,
    plan::{Plan, Step},
    protocol::Reply,
    sys::{
        descriptor,
        memory::Mapping,
        process::{Forked, execute, exit_now, fork},
        signal,
    },
};

/// The exit code of a child that did not get as far as the program. Nobody sees it: the failure is told by a message.
const NOT_STARTED: i32 = 127;

/// Starts the worker from the plan in the first of the descriptors. The rest are its standard output, its standard
/// error and its listening sockets.
///
/// Returns its process ID and a descriptor that tells how the start goes on: a failure, or the end of file when the
/// program is executed. Nothing of the plan is left in this process.
pub(super) fn start(length: u64, descriptors: Vec<OwnedFd>) -> Result<(Pid, OwnedFd), Failure> {
    let mut descriptors = descriptors.into_iter();
    let memory = descriptors.next().ok_or_else(|| failure("plan", None, "it came without a memory file"))?;
    let streams = Streams::new(descriptors).ok_or_else(|| failure("plan", None, "it came without standard streams"))?;
    let mapping = Mapping::new(&memory, length).map_err(|error| failed("plan", &error, "it cannot be mapped"))?;
    let plan = Plan::decode(mapping.bytes())
        .map_err(|_| failure("plan", None, "it is malformed: is the helper binary of the same version?"))?;
    let (start, status) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)
        .map_err(|errno| failed("status pipe", &errno.into(), "init cannot make one"))?;
    let init = getpid();
    let forked = fork().map_err(|error| failed("fork", &error, "the limit of processes or of memory is reached"))?;
    match forked {
        Forked::Parent { child } => Ok((child, start)),
        Forked::Child => {
            // A panic must not unwind into what the parent does.
            let _ = catch_unwind(AssertUnwindSafe(|| Child { init, streams: Some(streams), status }.run(&plan)));
            exit_now(NOT_STARTED);
        }
    }
}

/// What the worker's standard output, standard error and further descriptors become.
#[derive(Debug)]
struct Streams {
    stdout: OwnedFd,
    stderr: OwnedFd,
    listen: Vec<OwnedFd>,
}

impl Streams {
    fn new(mut descriptors: impl Iterator<Item = OwnedFd>) -> Option<Self> {
        Some(Self { stdout: descriptors.next()?, stderr: descriptors.next()?, listen: descriptors.collect() })
    }
}

/// The worker's process before it executes the program.
#[derive(Debug)]
struct Child {
    init: Pid,
    /// Taken when they are put in place.
    streams: Option<Streams>,
    /// Where a failure is told. Closed by a successful exec.
    status: OwnedFd,
}

impl Child {
    /// Returns only if a step failed, which has been told then.
    fn run(mut self, plan: &Plan<'_>) {
        let failed = plan.steps.iter().find_map(|step| self.apply(step).err());
        let failure = failed.unwrap_or_else(|| failure("plan", None, "it names no program"));
        // Init reads it, or is gone and this process with it.
        let _ = rustix::io::write(&self.status, &Reply::Report(Report::Failed(failure)).encode());
    }

    fn apply(&mut self, step: &Step<'_>) -> Result<(), Failure> {
        let name = step.name();
        match step {
            Step::Session => {
                sys::setsid().map_err(|errno| failed(name, &errno.into(), ""))?;
            }
            Step::ParentDeath => self.die_with_init().map_err(|error| failed(name, &error, "init is gone"))?,
            Step::Descriptors { listen } => self.place_descriptors(*listen).map_err(|error| {
                failed(name, &error, "raise the limit of open files of the launching process, or pass fewer sockets")
            })?,
            Step::Directory(path) => {
                let path: &CStr = path;
                sys::chdir(path)
                    .map_err(|errno| failed(name, &errno.into(), &format!("cannot enter {}", lossy(path))))?;
            }
            Step::Umask(mask) => {
                sys::umask(Mode::from_raw_mode(*mask));
            }
            Step::Limit(limit, value) => set_limit(resource(*limit), *value)
                .map_err(|error| failed(name, &error, &limit_hint(resource(*limit), &format!("{limit:?}"), *value)))?,
            Step::OpenFiles(value) => set_limit(Resource::Nofile, *value)
                .map_err(|error| failed(name, &error, &limit_hint(Resource::Nofile, "open files", *value)))?,
            Step::NoNewPrivileges => {
                rustix::thread::set_no_new_privs(true).map_err(|errno| failed(name, &errno.into(), ""))?;
            }
            Step::Signals => {
                signal::reset_dispositions();
                signal::unblock_all().map_err(|error| failed(name, &error, ""))?;
            }
            Step::Execute { program, args, env, listen } => return Err(run_program(name, program, args, env, *listen)),
        }
        Ok(())
    }

    fn die_with_init(&self) -> io::Result<()> {
        // It is bound to the thread of the parent that forked, and init has one.
        sys::set_parent_process_death_signal(Some(sys::Signal::KILL))?;
        // Init may have died before.
        if getppid() == Some(self.init) { Ok(()) } else { Err(io::Error::from_raw_os_error(libc::ESRCH)) }
    }

    fn place_descriptors(&mut self, listen: u32) -> io::Result<()> {
        let streams = self.streams.take().ok_or(io::ErrorKind::InvalidInput)?;
        if usize::try_from(listen).ok() != Some(streams.listen.len()) {
            return Err(io::Error::from_raw_os_error(libc::EBADF));
        }
        let null = rustix::fs::open("/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
        let end = 3 + i32::try_from(listen).map_err(|_| io::ErrorKind::InvalidInput)?;
        // All move out of the way first: one may have the number that another one shall get.
        let away = |descriptor: &OwnedFd| fcntl_dupfd_cloexec(descriptor, end);
        let mut placed = vec![away(&null)?, away(&streams.stdout)?, away(&streams.stderr)?];
        for socket in &streams.listen {
            placed.push(away(socket)?);
        }
        self.status = away(&self.status)?;
        // Before their numbers are given to others.
        drop((null, streams));
        for (number, descriptor) in (0..end).zip(&placed) {
            descriptor::place(descriptor, number)?;
        }
        drop(placed);
        descriptor::close_from(end, Some(self.status.as_fd()))
    }
}

/// Returns only if that fails, with the reason.
fn run_program(step: &str, program: &CStr, args: &[Cow<'_, CStr>], env: &[Cow<'_, CStr>], listen: u32) -> Failure {
    let mut env: Vec<&CStr> = env.iter().map(AsRef::as_ref).collect();
    let path = match program::find(program, &env) {
        Ok(path) => path,
        Err(error) => return failure(step, error.errno, &error.hint),
    };
    let announcement = (listen > 0).then(|| announce(listen));
    env.extend(announcement.iter().flatten().map(AsRef::as_ref));
    let args: Vec<&CStr> = [program].into_iter().chain(args.iter().map(AsRef::as_ref)).collect();
    let error = execute(&path, &args, &env);
    failed(step, &error, &program::explain(&path, &error))
}

/// See sd_listen_fds(3). The process ID is the one that the program will have.
fn announce(listen: u32) -> [CString; 2] {
    [format!("LISTEN_FDS={listen}"), format!("LISTEN_PID={}", getpid().as_raw_pid())]
        .map(|text| CString::new(text).unwrap_or_default())
}

fn set_limit(resource: Resource, value: u64) -> io::Result<()> {
    sys::setrlimit(resource, Rlimit { current: Some(value), maximum: Some(value) }).map_err(Into::into)
}

fn limit_hint(resource: Resource, name: &str, value: u64) -> String {
    let maximum = sys::getrlimit(resource).maximum.map_or_else(|| "unlimited".to_owned(), |limit| limit.to_string());
    format!("{name} cannot be limited to {value}; the hard limit here is {maximum}: ask for less, or raise it")
}

fn resource(limit: Limit) -> Resource {
    match limit {
        Limit::AddressSpace => Resource::As,
        Limit::CoreDump => Resource::Core,
        Limit::CpuTime => Resource::Cpu,
        Limit::Data => Resource::Data,
        Limit::FileSize => Resource::Fsize,
        Limit::LockedMemory => Resource::Memlock,
        Limit::Processes => Resource::Nproc,
        Limit::Stack => Resource::Stack,
    }
}

fn failed(step: &str, error: &io::Error, hint: &str) -> Failure {
    failure(step, error.raw_os_error(), hint)
}

fn failure(step: &str, errno: Option<i32>, hint: &str) -> Failure {
    Failure { step: step.to_owned(), errno, hint: hint.to_owned() }
}

fn lossy(text: &CStr) -> String {
    text.to_string_lossy().into_owned()
}
