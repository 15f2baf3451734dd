//! Further commands in the worker's sandbox: each is a child of init, which is where the worker is.

use std::{
    collections::VecDeque,
    ffi::CStr,
    fs, io,
    os::fd::{AsFd, OwnedFd},
    panic::{AssertUnwindSafe, catch_unwind},
};

use rustix::{
    event::{PollFd, PollFlags},
    fs::{FileType, Mode, OFlags, fstat, major, minor},
    io::fcntl_dupfd_cloexec,
    pipe::{PipeFlags, pipe_with},
    process::{Pid, Resource, Rlimit, getpid, getrlimit, ioctl_tiocsctty, setrlimit},
    pty::{OpenptFlags, ioctl_tiocgptpeer, unlockpt},
    termios::{Winsize, tcsetwinsize},
};

use super::{
    failed, failure, lossy,
    order::{self, Belongings},
    supervisor::signal_group,
    tree,
    worker::{Child, Further},
};
use crate::{
    Failure, Init, Limit, Report, Signal,
    channel::Channel,
    plan::{Plan, Step},
    protocol::{MAX_PACKET, Reply},
    sys::{
        memory::Mapping,
        process::{Forked, exit_now, fork, join_user_namespace},
        wait::Ended,
    },
};

/// What a command's process says when all is done but for execve(2). No message begins with it.
pub(super) const ARRIVED: u8 = 0;

/// The exit code of a child that did not get as far as the program. Nobody sees it: the failure is told by a message.
const NOT_STARTED: i32 = 127;

/// Why a process ends without a word.
const KILLED: &str =
    "its process was killed before its program ran, by the worker's memory limit or by the worker itself";

/// The device of pts(4) that makes terminals.
const MULTIPLEXER: (u32, u32) = (5, 2);

/// The further commands of one worker.
#[derive(Debug)]
pub(super) struct Executions {
    /// The worker's user namespace, where root gave it one.
    user: Option<OwnedFd>,
    running: Vec<Execution>,
    outbox: Outbox,
}

/// What is to be told of commands. The launching process counts on each word: for one that it misses, it keeps a command
/// for ever.
#[derive(Debug, Default)]
struct Outbox {
    /// What the launching process had no room for, in order.
    unsent: VecDeque<Vec<u8>>,
}

/// The main process of one command, from fork until it is reaped.
#[derive(Debug)]
struct Execution {
    id: u32,
    pid: Pid,
    /// Closed after [`ARRIVED`] when the program was executed; brings a failure otherwise. `None` once that is known.
    start: Option<OwnedFd>,
    /// Whether only execve(2) was left to do.
    arrived: bool,
    /// It did not get as far as the program, which has been reported.
    failed: bool,
}

impl Executions {
    pub(super) fn new(user: Option<OwnedFd>) -> Self {
        Self { user, running: Vec::new(), outbox: Outbox::default() }
    }

    /// Whether something is to be told that the launching process had no room for.
    pub(super) fn is_behind(&self) -> bool {
        !self.outbox.unsent.is_empty()
    }

    /// Tells it, if there is room now.
    pub(super) fn catch_up(&mut self, channel: &Channel) {
        self.outbox.send(channel);
    }

    /// What to wait for.
    pub(super) fn sources(&self) -> impl Iterator<Item = PollFd<'_>> {
        self.running.iter().filter_map(|one| one.start.as_ref()).map(|start| PollFd::new(start, PollFlags::IN))
    }

    /// Starts one. What becomes of it is reported.
    pub(super) fn start(&mut self, id: u32, length: u64, descriptors: Vec<OwnedFd>, channel: &Channel) {
        match self.fork(id, length, descriptors, channel) {
            Ok(execution) => self.running.push(execution),
            Err(failure) => self.outbox.tell(channel, &Reply::Report(Report::ExecutionFailed { id, failure })),
        }
    }

    /// There is no worker that could have further commands.
    pub(super) fn refuse(&mut self, id: u32, channel: &Channel) {
        self.outbox.tell(channel, &refusal(id));
    }

    /// Init has as many descriptors as it may.
    pub(super) fn refuse_without_descriptors(&mut self, id: u32, channel: &Channel) {
        let hint = "init may have no more files open; raise the limit of open files of the launching process";
        let failure = failure("descriptors", Some(libc::EMFILE), hint);
        self.outbox.tell(channel, &Reply::Report(Report::ExecutionFailed { id, failure }));
    }

    fn fork(&self, id: u32, length: u64, descriptors: Vec<OwnedFd>, channel: &Channel) -> Result<Execution, Failure> {
        if self.running.len() >= Init::MAX_EXECUTIONS {
            let hint =
                format!("{} commands run in the worker's sandbox already, and no more may", Init::MAX_EXECUTIONS);
            return Err(failure("executions", None, &hint));
        }
        let mut descriptors = descriptors.into_iter();
        let memory = descriptors.next().ok_or_else(|| failure("plan", None, "it came without a memory file"))?;
        let mapping = Mapping::new(&memory, length).map_err(|error| failed("plan", &error, "it cannot be mapped"))?;
        drop(memory);
        let plan = order::decode(&mapping)?;
        let belongings = match (descriptors.next(), descriptors.next(), descriptors.next()) {
            (stdin @ Some(_), Some(stdout), Some(stderr)) => {
                Some(Belongings { stdin, stdout, stderr, cgroup: None, listen: Vec::new(), kept: Vec::new() })
            }
            _ => None,
        };
        let (outcome, status) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)
            .map_err(|errno| failed("status pipe", &errno.into(), "init cannot make one"))?;
        let init = getpid();
        // The kernel looks at the limit of who forks, and init has none of its own.
        let _limited = ProcessLimit::of(&plan);
        match fork().map_err(|error| failed("fork", &error, &exhausted(&error)))? {
            Forked::Parent { child } => {
                Ok(Execution { id, pid: child, start: Some(outcome), arrived: false, failed: false })
            }
            Forked::Child => {
                let further = Some(Further { id, user: self.user.as_ref(), terminal: None });
                let child = Child { init, belongings, status, channel, further };
                run(child, &plan)
            }
        }
    }

    /// Looks whose program was executed.
    pub(super) fn settle(&mut self, channel: &Channel) {
        for execution in &mut self.running {
            execution.settle(channel, &mut self.outbox);
        }
    }

    /// Takes note of an ended child, which is a zombie still, so that its number, its group's and its session's are their
    /// own.
    pub(super) fn ended(&mut self, ended: &Ended, channel: &Channel) {
        let Some(index) = self.running.iter().position(|one| one.pid == ended.pid) else { return };
        let mut execution = self.running.swap_remove(index);
        execution.settle(channel, &mut self.outbox);
        if !execution.failed {
            let report = Report::ExecutionEnded { id: execution.id, status: ended.status };
            self.outbox.tell(channel, &Reply::Report(report));
        }
        tree::kill_session(ended.pid);
    }

    /// Sends a signal to the process group of one.
    pub(super) fn signal(&self, id: u32, signal: Signal) {
        if let Some(execution) = self.running.iter().find(|one| one.id == id) {
            // It fails only for a process that is a zombie already.
            let _ = signal_group(execution.pid, signal);
        }
    }

    /// Kills one. Its end is noticed as any other.
    pub(super) fn end(&self, id: u32) {
        if let Some(execution) = self.running.iter().find(|one| one.id == id) {
            let _ = signal_group(execution.pid, Signal::KILL);
            tree::kill_session(execution.pid);
        }
    }
}

impl Execution {
    /// Reads what the process has said of its start.
    fn settle(&mut self, channel: &Channel, outbox: &mut Outbox) {
        while let Some(start) = &self.start {
            let mut packet = [0; MAX_PACKET];
            let Ok(length) = rustix::io::read(start, &mut packet) else { return };
            let said = packet[..length].strip_prefix(&[ARRIVED]);
            self.arrived |= said.is_some();
            match said.unwrap_or(&packet[..length]) {
                [] if length > 0 => {}
                [] if self.arrived => {
                    self.start = None;
                    outbox.tell(channel, &Reply::Executed { id: self.id });
                }
                [] => self.fail(channel, outbox, failure("start", None, KILLED)),
                said => match Reply::decode(said) {
                    Ok(Reply::Report(Report::Failed(failure))) => self.fail(channel, outbox, failure),
                    _ => self.fail(channel, outbox, failure("start", None, "the command's process sent no sense")),
                },
            }
        }
    }

    fn fail(&mut self, channel: &Channel, outbox: &mut Outbox, failure: Failure) {
        self.start = None;
        self.failed = true;
        outbox.tell(channel, &Reply::Report(Report::ExecutionFailed { id: self.id, failure }));
    }
}

impl Outbox {
    /// Two words for each command that the launching process may have, and as much again for those that it should not.
    const MOST: usize = 4 * Init::MAX_EXECUTIONS;

    fn tell(&mut self, channel: &Channel, reply: &Reply) {
        // Who asks for more commands than there may be, and does not listen, is owed nothing more.
        if self.unsent.len() < Self::MOST {
            self.unsent.push_back(reply.encode());
        }
        self.send(channel);
    }

    fn send(&mut self, channel: &Channel) {
        while let Some(first) = self.unsent.front() {
            if matches!(channel.send(first, &[]), Err(error) if error.kind() == io::ErrorKind::WouldBlock) {
                return;
            }
            // Sent, or the launching process is gone, which the next look at the channel tells.
            self.unsent.pop_front();
        }
    }
}

/// Init's limit of processes, which is the worker's as long as this lives.
#[derive(Debug)]
struct ProcessLimit(Rlimit);

impl ProcessLimit {
    fn of(plan: &Plan<'_>) -> Option<Self> {
        let limit = plan.steps.iter().find_map(|step| match step {
            Step::Limit { limit: Limit::Processes, value } => Some(*value),
            _ => None,
        })?;
        let before = getrlimit(Resource::Nproc);
        // It fails only where the worker's could not have been set, either.
        setrlimit(Resource::Nproc, Rlimit { current: Some(limit), maximum: before.maximum }).ok()?;
        Some(Self(before))
    }
}

impl Drop for ProcessLimit {
    fn drop(&mut self) {
        // It was there before, and its maximum is untouched.
        let _ = setrlimit(Resource::Nproc, self.0);
    }
}

/// There is no worker that could have further commands.
pub(super) fn refuse(channel: &Channel, id: u32) {
    // No command came before, so there is room.
    let _ = channel.send(&refusal(id).encode(), &[]);
}

fn refusal(id: u32) -> Reply {
    let failure = failure("worker", None, "the worker is not running");
    Reply::Report(Report::ExecutionFailed { id, failure })
}

/// In the new process, which a panic must not leave into what init does.
fn run(child: Child<'_>, plan: &Plan<'_>) -> ! {
    let _ = catch_unwind(AssertUnwindSafe(|| child.run(plan)));
    exit_now(NOT_STARTED);
}

/// Where a process that becomes another user can be looked into by that one, there is no way for a command to become the
/// worker's user that the worker could not interfere with: it is a copy of init still.
pub(super) fn check_dumps() -> Result<(), Failure> {
    const STEP: &str = "dumps";
    let hint = "set fs.suid_dumpable to 0 or 2: with 1 the worker could change the command before its filters are on";
    match fs::read_to_string("/proc/sys/fs/suid_dumpable") {
        Ok(text) if matches!(text.trim(), "0" | "2") => Ok(()),
        Ok(_) => Err(failure(STEP, None, hint)),
        Err(error) => Err(failed(STEP, &error, "fs.suid_dumpable cannot be read")),
    }
}

impl Child<'_> {
    /// The steps that only a further command has.
    pub(super) fn go_further(&mut self, step: &Step<'_>) -> Result<(), Failure> {
        let name = step.name();
        let further =
            self.further.as_mut().ok_or_else(|| failure(name, None, "it is no step of the worker's process"))?;
        match step {
            Step::JoinUserNamespace {} => {
                let user = further.user.ok_or_else(|| failure(name, None, "init has none to join"))?;
                join_user_namespace(user)
                    .map_err(|error| failed(name, &error, "the worker's user namespace cannot be joined"))
            }
            Step::Terminal { multiplexer, columns, rows } => {
                let (ours, theirs) = open_terminal(multiplexer, *columns, *rows).map_err(|error| {
                    let hint = format!("the worker has used up its terminals, or {} is none", lossy(multiplexer));
                    failed(name, &error, &hint)
                })?;
                let copy = || fcntl_dupfd_cloexec(&theirs, 0).map_err(|errno| failed(name, &errno.into(), ""));
                self.belongings = Some(Belongings {
                    stdin: Some(copy()?),
                    stdout: copy()?,
                    stderr: theirs,
                    cgroup: None,
                    listen: Vec::new(),
                    kept: Vec::new(),
                });
                further.terminal = Some(ours);
                Ok(())
            }
            Step::Begin {} => {
                let terminal = further.terminal.take();
                let terminal: Vec<_> = terminal.iter().map(AsFd::as_fd).collect();
                self.channel
                    .send(&Reply::Begun { id: further.id }.encode(), &terminal)
                    .map_err(|error| failed(name, &error, "the launching process cannot be told"))
            }
            _ => Err(failure(name, None, "it is no step of a further command")),
        }
    }
}

/// A new terminal of the mount at whose multiplexer this is, which becomes the controlling terminal of this process; see
/// pty(7). This side of it, and the other.
fn open_terminal(multiplexer: &CStr, columns: u32, rows: u32) -> io::Result<(OwnedFd, OwnedFd)> {
    let size = |number: u32| u16::try_from(number).map_err(|_| io::ErrorKind::InvalidInput);
    let size = Winsize { ws_row: size(rows)?, ws_col: size(columns)?, ws_xpixel: 0, ws_ypixel: 0 };
    // Nothing that is opened here makes this process wait.
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let ours = rustix::fs::open(multiplexer, flags, Mode::empty())?;
    let found = fstat(&ours)?;
    if FileType::from_raw_mode(found.st_mode) != FileType::CharacterDevice
        || (major(found.st_rdev), minor(found.st_rdev)) != MULTIPLEXER
    {
        return Err(io::Error::from_raw_os_error(libc::ENOTTY));
    }
    unlockpt(&ours)?;
    // Not by its name: it is the other side of this one, whatever is mounted where.
    let theirs = ioctl_tiocgptpeer(&ours, OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
    tcsetwinsize(&ours, size)?;
    ioctl_tiocsctty(&theirs)?;
    Ok((ours, theirs))
}

/// Why there can be no further process.
fn exhausted(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(libc::EAGAIN) => "the worker has as many processes as its limit allows; raise pids_limit, or end some",
        Some(libc::ENOMEM) => "the worker has as much memory as its limit allows; raise memory_limit",
        _ => "init cannot make a process",
    }
    .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_there_was_no_room_for_is_told_when_there_is() {
        let (ours, theirs) = Channel::pair().expect("a pair");
        let theirs = Channel::from_descriptor(theirs);
        let filler = Reply::Announced.encode();
        let mut before = 0;
        while theirs.send(&filler, &[]).is_ok() {
            before += 1;
        }
        let mut executions = Executions::new(None);
        for id in 0..3 {
            executions.refuse(id, &theirs);
        }
        assert!(executions.is_behind());
        for _ in 0..before {
            assert_eq!(ours.recv().expect("a packet").expect("a packet").bytes, filler);
        }
        executions.catch_up(&theirs);
        assert!(!executions.is_behind());
        for id in 0..3 {
            assert_eq!(ours.recv().expect("a packet").expect("a packet").bytes, refusal(id).encode());
        }
        // Whoever does not listen at all has a bound.
        while theirs.send(&filler, &[]).is_ok() {}
        (0..1000).for_each(|id| executions.refuse(id, &theirs));
        assert_eq!(executions.outbox.unsent.len(), Outbox::MOST);
    }
}
