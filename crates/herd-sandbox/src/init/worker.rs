//! From init's fork to the worker's program.

use std::{
    borrow::Cow,
    ffi::{CStr, CString},
    io,
    net::{Ipv4Addr, SocketAddrV4},
    os::fd::{AsFd, OwnedFd},
    panic::{AssertUnwindSafe, catch_unwind},
};

use rustix::process::{Gid, Uid};
use rustix::{
    fs::{Mode, OFlags},
    io::{Errno, fcntl_dupfd_cloexec},
    net::{AddressFamily, SocketFlags, SocketType, bind, listen, socket_with, sockopt::set_socket_reuseaddr},
    pipe::{PipeFlags, pipe_with},
    process::{self as sys, DumpableBehavior, Pid, Resource, Rlimit, getpid, getppid},
    thread::{CapabilitySet, set_thread_groups, set_thread_res_gid, set_thread_res_uid},
};

use super::{
    birth::{namespace_of, write_maps},
    execution, failed, failure, lossy,
    order::Belongings,
    privilege, program,
};
use crate::{
    Failure, Limit, Report, Signal,
    channel::Channel,
    landlock,
    plan::{Place, Plan, Step, Text},
    protocol::Reply,
    seccomp,
    sys::{
        descriptor,
        process::{Forked, execute, exit_now, fork, fork_into, join_session_keyring},
        signal,
    },
};

/// The exit code of a child that did not get as far as the program. Nobody sees it: the failure is told by a message.
const NOT_STARTED: i32 = 127;

/// A worker on its way to its program.
#[derive(Debug)]
pub(super) struct Started {
    pub(super) pid: Pid,
    /// Tells how the start goes on: a failure, or the end of file when the program is executed.
    pub(super) outcome: OwnedFd,
    /// What is held until nothing of the worker is left.
    pub(super) kept: Vec<OwnedFd>,
    /// The worker's user namespace, where root gave it one.
    pub(super) user: Option<OwnedFd>,
}

/// Starts the worker's process.
pub(super) fn start(plan: &Plan<'_>, mut belongings: Belongings, channel: &Channel) -> Result<Started, Failure> {
    let (outcome, status) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)
        .map_err(|errno| failed("status pipe", &errno.into(), "init cannot make one"))?;
    let init = getpid();
    let user = plan.steps.iter().find_map(|step| match step {
        Step::WorkerUserNamespace { uid, gid } => Some((step.name(), *uid, *gid)),
        _ => None,
    });
    let (mapped, map) =
        pipe_with(PipeFlags::CLOEXEC).map_err(|errno| failed("status pipe", &errno.into(), "init cannot make one"))?;
    let forked = match user {
        Some((step, ..)) => fork_into(u64::from(libc::CLONE_NEWUSER.cast_unsigned()), None, false)
            .map_err(|error| failed(step, &error, "root cannot make a user namespace here"))?,
        None => fork().map_err(|error| failed("fork", &error, "the limit of processes or of memory is reached"))?,
    };
    match forked {
        Forked::Parent { child } => {
            let user = match user {
                Some((step, uid, gid)) => {
                    let process = child.as_raw_pid().to_string();
                    // Now, while it is the one that init made: the worker could make others and go there.
                    let made = write_maps(&process, uid, gid).and_then(|()| namespace_of(&process));
                    Some(made.map_err(|error| {
                        let _ = signal::send(child, Signal::KILL);
                        failed(step, &error, "its user and group cannot be mapped")
                    })?)
                }
                None => None,
            };
            // The worker's process goes on when this is closed.
            drop(map);
            Ok(Started { pid: child, outcome, kept: std::mem::take(&mut belongings.kept), user })
        }
        Forked::Child => {
            drop(map);
            if user.is_some() {
                let _ = rustix::io::read(&mapped, &mut [0]);
            }
            drop(mapped);
            // A panic must not unwind into what the parent does.
            let child = Child { init, belongings: Some(belongings), status, channel, further: None };
            let _ = catch_unwind(AssertUnwindSafe(|| child.run(plan)));
            exit_now(NOT_STARTED);
        }
    }
}

/// The worker's process, or that of a further command, before it executes the program.
#[derive(Debug)]
pub(super) struct Child<'a> {
    pub(super) init: Pid,
    /// Taken when they are put in place.
    pub(super) belongings: Option<Belongings>,
    /// Where a failure is told. Closed by a successful exec.
    pub(super) status: OwnedFd,
    /// Init's, until descriptors are put in place.
    pub(super) channel: &'a Channel,
    /// What only the process of a further command has.
    pub(super) further: Option<Further<'a>>,
}

/// What the process of a further command has beyond the worker's.
#[derive(Debug)]
pub(super) struct Further<'a> {
    pub(super) id: u32,
    /// The worker's user namespace.
    pub(super) user: Option<&'a OwnedFd>,
    /// The launching process's side of its terminal, until it is handed over.
    pub(super) terminal: Option<OwnedFd>,
}

impl Child<'_> {
    /// Returns only if a step failed, which has been told then.
    pub(super) fn run(mut self, plan: &Plan<'_>) {
        let failed = plan.steps_of(Place::Worker).find_map(|step| self.apply(step).err());
        let failure = failed.unwrap_or_else(|| failure("plan", None, "it names no program"));
        // Init reads it, or is gone and this process with it.
        let _ = rustix::io::write(&self.status, &Reply::Report(Report::Failed(failure)).encode());
    }

    fn apply(&mut self, step: &Step<'_>) -> Result<(), Failure> {
        let name = step.name();
        match step {
            Step::Session {} => {
                sys::setsid().map_err(|errno| failed(name, &errno.into(), ""))?;
            }
            Step::ParentDeath {} => self.die_with_init().map_err(|error| failed(name, &error, "init is gone"))?,
            Step::Descriptors { listen } => self.place_descriptors(*listen).map_err(|error| {
                let hint = if self.further.is_some() {
                    "a command needs a few files open; something in the sandbox has lowered its limit by prlimit(2)"
                } else {
                    "raise the limit of open files of the launching process, or pass fewer sockets"
                };
                failed(name, &error, hint)
            })?,
            Step::Directory { path } => {
                let path: &CStr = path;
                sys::chdir(path).map_err(|errno| failed(name, &errno.into(), &directory_hint(path, errno)))?;
            }
            Step::Umask { mask } => {
                sys::umask(Mode::from_raw_mode(*mask));
            }
            Step::Limit { limit, value } => set_limit(resource(*limit), *value)
                .map_err(|error| failed(name, &error, &limit_hint(resource(*limit), &format!("{limit:?}"), *value)))?,
            Step::OpenFiles { number: value } => set_limit(Resource::Nofile, *value)
                .map_err(|error| failed(name, &error, &self.open_files_hint(*value)))?,
            Step::NoNewPrivileges {} => {
                rustix::thread::set_no_new_privs(true).map_err(|errno| failed(name, &errno.into(), ""))?;
            }
            Step::Signals {} => {
                signal::reset_dispositions();
                signal::unblock_all().map_err(|error| failed(name, &error, ""))?;
            }
            // Done by init, in the fork itself.
            Step::WorkerUserNamespace { .. } => {}
            Step::Announce {} => self
                .channel
                .send(&Reply::Announced.encode(), &[])
                .map_err(|error| failed(name, &error, "the launching process cannot be told"))?,
            Step::Listen { ports } => self.listen(ports).map_err(|error| {
                failed(name, &error, &format!("the worker cannot listen on ports {ports:?} of 127.0.0.1"))
            })?,
            Step::BoundingSet {} => privilege::forswear()
                .map_err(|error| failed(name, &error, "capabilities cannot be given up for good"))?,
            Step::Identity { uid, gid } => {
                if self.further.is_some() {
                    execution::check_dumps()?;
                }
                become_user(*uid, *gid).map_err(|error| {
                    failed(name, &error, &format!("the worker cannot run as user {uid} and group {gid}"))
                })?;
            }
            Step::JoinUserNamespace {} | Step::Terminal { .. } | Step::Begin {} => self.go_further(step)?,
            Step::Capabilities {} => privilege::keep(CapabilitySet::empty())
                .map_err(|error| failed(name, &error, "capabilities cannot be given up"))?,
            Step::Keyring {} => match join_session_keyring() {
                Err(error) if error.raw_os_error() == Some(libc::ENOSYS) => {}
                joined => {
                    joined.map_err(|error| failed(name, &error, "a quota of keys is reached, see keyrings(7)"))?;
                }
            },
            Step::Landlock { read, write, tcp, confine_tcp, follow } => {
                restrict(read, write, confine_tcp.then_some(tcp.as_slice()), *follow)
                    .map_err(|error| failed(name, &error, "files cannot be fenced in"))?;
            }
            Step::Seccomp { filters, log } => seccomp::install(filters, *log)
                .map_err(|error| failed(name, &error, "the filter of system calls cannot be installed"))?,
            Step::Rehearse {} => exit_now(0),
            Step::Execute { program, args, env, listen } => {
                if self.further.is_some() {
                    // Init tells by it that the process was not killed before it came here.
                    let _ = rustix::io::write(&self.status, &[execution::ARRIVED]);
                }
                return Err(run_program(name, program, args, env, *listen));
            }
            _ => return Err(failure(name, None, "it is no step of the worker's process")),
        }
        Ok(())
    }

    fn die_with_init(&self) -> io::Result<()> {
        // It is bound to the thread of the parent that forked, and init has one.
        sys::set_parent_process_death_signal(Some(sys::Signal::KILL))?;
        // Init may have died before.
        if getppid() == Some(self.init) { Ok(()) } else { Err(io::Error::from_raw_os_error(libc::ESRCH)) }
    }

    /// Makes listening sockets in this network namespace; see ip(7).
    fn listen(&mut self, ports: &[u32]) -> io::Result<()> {
        let streams = self.belongings.as_mut().ok_or(io::ErrorKind::InvalidInput)?;
        for port in ports {
            let port = u16::try_from(*port).map_err(|_| io::ErrorKind::InvalidInput)?;
            let socket = socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
            set_socket_reuseaddr(&socket, true)?;
            bind(&socket, &SocketAddrV4::new(Ipv4Addr::LOCALHOST, port))?;
            // As many as the kernel allows to wait.
            listen(&socket, i32::MAX)?;
            streams.listen.push(socket);
        }
        Ok(())
    }

    fn open_files_hint(&self, value: u64) -> String {
        let hint = limit_hint(Resource::Nofile, "open files", value);
        if self.further.is_none() {
            return hint;
        }
        // Init has reserved it for all commands.
        format!("{hint}; something in the sandbox has lowered that of this command by prlimit(2)")
    }

    fn place_descriptors(&mut self, listen: u32) -> io::Result<()> {
        let mut streams = self.belongings.take().ok_or(io::ErrorKind::InvalidInput)?;
        if usize::try_from(listen).ok() != Some(streams.listen.len()) {
            return Err(io::Error::from_raw_os_error(libc::EBADF));
        }
        let null = || rustix::fs::open("/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
        let stdin = streams.stdin.take().map_or_else(null, Ok)?;
        let end = 3 + i32::try_from(listen).map_err(|_| io::ErrorKind::InvalidInput)?;
        // All move out of the way first: one may have the number that another one shall get.
        let away = |descriptor: &OwnedFd| fcntl_dupfd_cloexec(descriptor, end);
        let mut placed = vec![away(&stdin)?, away(&streams.stdout)?, away(&streams.stderr)?];
        for socket in &streams.listen {
            placed.push(away(socket)?);
        }
        self.status = away(&self.status)?;
        // Before their numbers are given to others.
        drop((stdin, streams));
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

/// Lets this process's children have the limits of the worker when it has no privilege any more: a limit that is beyond
/// the own one can only be set with.
pub(super) fn reserve_limits(plan: &Plan<'_>) {
    for step in plan.steps_of(Place::Worker) {
        let (resource, value) = match step {
            Step::Limit { limit, value } => (resource(*limit), *value),
            Step::OpenFiles { number } => (Resource::Nofile, *number),
            _ => continue,
        };
        let Rlimit { current, maximum } = sys::getrlimit(resource);
        if maximum.is_some_and(|maximum| maximum < value) {
            // Where it fails the worker's process fails too, and tells it.
            let _ = sys::setrlimit(resource, Rlimit { current, maximum: Some(value) });
        }
    }
}

fn set_limit(resource: Resource, value: u64) -> io::Result<()> {
    sys::setrlimit(resource, Rlimit { current: Some(value), maximum: Some(value) }).map_err(Into::into)
}

fn directory_hint(path: &CStr, errno: Errno) -> String {
    let path = lossy(path);
    if errno != Errno::ACCESS {
        return format!("cannot enter {path}");
    }
    format!(
        "cannot enter {path}: the worker's user (uid {}) needs execute permission on it and on all directories above",
        sys::geteuid().as_raw()
    )
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

/// Fences the worker in, with no more ports than these if there are any given.
fn restrict(read: &[Text<'_>], write: &[Text<'_>], tcp: Option<&[u32]>, follow: bool) -> io::Result<()> {
    let ports: Option<Vec<u16>> = tcp.map(|ports| ports.iter().filter_map(|port| u16::try_from(*port).ok()).collect());
    landlock::restrict(&landlock::Rules { read, write, tcp: ports.as_deref(), follow })
}

/// One user, one group, and none of the groups that the launching process has.
pub(super) fn become_user(uid: u32, gid: u32) -> io::Result<()> {
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
    set_thread_groups(&[])?;
    set_thread_res_gid(gid, gid, gid)?;
    set_thread_res_uid(uid, uid, uid)?;
    // A kernel that is set to let set-user-ID programs dump their memory (fs.suid_dumpable) would let this process be
    // looked into, which is still a copy of init.
    Ok(sys::set_dumpable_behavior(DumpableBehavior::NotDumpable)?)
}
