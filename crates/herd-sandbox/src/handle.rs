use std::{
    collections::HashMap,
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::PathBuf,
    process::ExitStatus,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU8, Ordering},
    },
    time::{Duration, Instant},
};

use rustix::process::{self as sys, Pid, PidfdFlags, WaitIdOptions, pidfd_open};

use crate::{
    ExecSpec, ExecStreams, Failure, Report, Signal,
    channel::{Channel, Packet},
    launch::memory_file,
    plan::Blueprint,
    protocol::{Reply, Request, VERSION},
    reaper::{self, Orphan},
};

/// How long a process that was started as init has to say so. It does that first of all, within a few milliseconds;
/// the rest is for a machine under heavy load.
const HELLO_TIMEOUT: Duration = Duration::from_secs(10);

/// The launching process's hold on one init, and through it on one worker.
///
/// Nothing here waits, except [`reap`](Self::reap). The control socket ([`AsFd`]) is non-blocking and becomes readable
/// when [`recv`](Self::recv) has something to tell, which suits poll(2) and async runtimes alike.
///
/// **Dropping it kills the worker's whole tree**, and so does the death of this process, however it dies. Init itself
/// is then reaped in the background by a thread of this crate; who wants to wait for that keeps the value until `recv`
/// has returned `None` and calls [`reap`](Self::reap).
#[derive(Debug)]
pub struct Init {
    channel: Channel,
    /// The process that was spawned. Init goes on as another one where there are namespaces.
    spawned: Child,
    moved: OnceLock<Child>,
    /// The worker's main process, where init itself does not know its number.
    main: OnceLock<Pid>,
    program: PathBuf,
    launched: Instant,
    greeting: AtomicU8,
    blueprint: Blueprint,
    /// Further commands that are on their way to their programs.
    beginning: Mutex<HashMap<u32, Beginning>>,
}

/// What a further command's process has told of itself.
#[derive(Debug)]
struct Beginning {
    pid: u32,
    terminal: Option<OwnedFd>,
}

/// A child of this process.
#[derive(Debug)]
struct Child {
    pid: Pid,
    /// Shared with the reaper once the value is dropped.
    pidfd: Arc<OwnedFd>,
    reaped: OnceLock<ExitStatus>,
}

/// It has not said yet that it is an init.
const EXPECTED: u8 = 0;
/// It has.
const RECEIVED: u8 = 1;
/// It is none, and that has been reported.
const REFUSED: u8 = 2;

impl Init {
    /// How many further commands one worker's sandbox has at once at most.
    pub const MAX_EXECUTIONS: usize = 16;

    pub(crate) fn new(channel: Channel, pid: Pid, pidfd: OwnedFd, program: PathBuf, blueprint: Blueprint) -> Self {
        Self {
            channel,
            spawned: Child::new(pid, pidfd),
            moved: OnceLock::new(),
            main: OnceLock::new(),
            program,
            launched: Instant::now(),
            greeting: AtomicU8::new(EXPECTED),
            blueprint,
            beginning: Mutex::default(),
        }
    }

    /// The next report, or `None` once init is gone, and with it all that the worker has started.
    ///
    /// A process that was started as init but is none is reported as [`Report::Failed`] when it ends, or by the first
    /// call later than ten seconds after the launch if it stays. Who waits for the socket alone should therefore call
    /// this once more when the own patience with the start ends.
    ///
    /// # Errors
    /// `WouldBlock` if there is nothing to tell yet; `InvalidData` if the other side does not speak this protocol.
    pub fn recv(&self) -> io::Result<Option<Report>> {
        loop {
            let Packet { bytes, descriptors, is_short, sender } = match self.channel.recv() {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock && self.is_mute() => {
                    return Ok(Some(self.refuse("did not say that it is one")));
                }
                Ok(None) if self.greeting.load(Ordering::Acquire) == EXPECTED => {
                    return Ok(Some(self.refuse("ended without saying that it is one")));
                }
                Ok(None) => return Ok(None),
                Ok(Some(packet)) => packet,
                Err(error) => return Err(error),
            };
            match Reply::decode(&bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))? {
                Reply::Hello { version: VERSION } => self.greeting.store(RECEIVED, Ordering::Release),
                Reply::Hello { version } => {
                    // An init all the same: it ends with the stream, and its worker with it.
                    self.greeting.store(RECEIVED, Ordering::Release);
                    self.channel.shut_down();
                    let hint = format!(
                        "it speaks version {version} of the protocol, this program {VERSION}: build both alike"
                    );
                    return Ok(Some(self.no_init(&hint)));
                }
                Reply::Moved { pid } => self.follow(pid)?,
                Reply::Announced => {
                    let _ = sender.map(|sender| self.main.set(sender));
                }
                Reply::Router if is_short => {
                    // Nothing of the worker runs yet, and its init ends with the stream.
                    self.channel.shut_down();
                    return Ok(Some(Report::Failed(Failure {
                        step: "router".to_owned(),
                        errno: Some(libc::EMFILE),
                        hint: "raise the limit of open files of the launching process".to_owned(),
                    })));
                }
                Reply::Router => {
                    let [datagrams, streams] =
                        descriptors.try_into().map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
                    let process = sender.ok_or(io::ErrorKind::InvalidData)?.as_raw_pid().cast_unsigned();
                    return Ok(Some(Report::Router { process, datagrams, streams }));
                }
                Reply::Sockets { errno } => {
                    let errno = Some(if is_short { libc::EMFILE } else { errno }).filter(|errno| *errno != 0);
                    return Ok(Some(Report::Sockets { sockets: descriptors, errno }));
                }
                Reply::Report(Report::Ready { pid }) => {
                    self.forget_spawned();
                    let pid = self.main.get().map_or(pid, |main| main.as_raw_pid().cast_unsigned());
                    return Ok(Some(Report::Ready { pid }));
                }
                Reply::Begun { id } => {
                    let pid = sender.ok_or(io::ErrorKind::InvalidData)?.as_raw_pid().cast_unsigned();
                    let terminal = descriptors.into_iter().next();
                    self.beginning().insert(id, Beginning { pid, terminal });
                }
                Reply::Executed { id } => {
                    let begun = self.beginning().remove(&id).ok_or(io::ErrorKind::InvalidData)?;
                    return Ok(Some(Report::Executed { id, pid: begun.pid, terminal: begun.terminal }));
                }
                Reply::Report(report) => {
                    if let Report::ExecutionFailed { id, .. } = &report {
                        self.beginning().remove(id);
                    }
                    return Ok(Some(report));
                }
            }
        }
    }

    /// Sends a signal to the worker's process group. Processes that left the group do not get it.
    ///
    /// # Errors
    /// `BrokenPipe` if init is gone, `WouldBlock` if it has not read earlier requests yet.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        self.send(&Request::Signal(signal), &[])
    }

    /// Asks the worker to stop: sends this signal to its process group, and after it `SIGCONT`, since a stopped process
    /// acts on nothing else. What is left of the worker after the grace is killed, the whole tree of it. A second call
    /// can shorten the grace but not extend it.
    ///
    /// The grace ends early when the worker's main process ends: its descendants are killed then.
    ///
    /// # Errors
    /// `BrokenPipe` if init is gone, `WouldBlock` if it has not read earlier requests yet.
    pub fn stop(&self, signal: Signal, grace: Duration) -> io::Result<()> {
        self.send(&Request::Stop { signal, grace }, &[])
    }

    /// Kills the worker's whole tree now: also processes with a session of their own, orphans, stopped ones, and those
    /// that ignore signals. [`recv`](Self::recv) returns `None` when the last one is gone.
    pub fn kill(&self) {
        if self.send(&Request::Kill, &[]).is_err() {
            // Either init is gone, or its buffer is full; then the end of the stream tells it the same.
            self.channel.end();
        }
        self.wake();
    }

    /// Asks for TCP sockets of the worker's network, at most 64 at once: they stay in the network in which they were
    /// made, whoever connects them. The answer is a [`Report::Sockets`].
    ///
    /// # Errors
    /// `BrokenPipe` if init is gone, `WouldBlock` if it has not read earlier requests yet.
    pub fn request_sockets(&self, count: u8, v6: bool) -> io::Result<()> {
        self.send(&Request::Sockets { count, v6 }, &[])
    }

    /// Runs a further command in the worker's sandbox, with all that the worker's own process has: its namespaces, cgroup,
    /// user, limits and filters. [`Report::Executed`] tells when its program runs, [`Report::ExecutionFailed`] why it
    /// cannot, and [`Report::ExecutionEnded`] how it ended, all by this number, which is not used twice.
    ///
    /// At most [`Init::MAX_EXECUTIONS`] run at once. They end with the worker.
    ///
    /// # Errors
    /// `InvalidInput` if the spec cannot be ([`ExecSpec::validate`]), `BrokenPipe` if init is gone, `WouldBlock` if it has
    /// not read earlier requests yet, and what memfd_create(2) says.
    #[expect(clippy::needless_pass_by_value, reason = "its descriptors are closed on this side before it returns")]
    pub fn execute(&self, id: u32, spec: ExecSpec) -> io::Result<()> {
        let plan = self.blueprint.plan(&spec);
        let plan = plan.map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?.encode();
        let memory = memory_file(&plan)?;
        let mut descriptors = vec![memory.as_fd()];
        if let ExecStreams::Descriptors { stdin, stdout, stderr } = &spec.streams {
            descriptors.extend([stdin.as_fd(), stdout.as_fd(), stderr.as_fd()]);
        }
        self.send(&Request::Execute { id, length: plan.len() as u64 }, &descriptors)
    }

    /// Sends a signal to the process group of a further command. It does nothing for one that has ended.
    ///
    /// # Errors
    /// `BrokenPipe` if init is gone, `WouldBlock` if it has not read earlier requests yet.
    pub fn signal_execution(&self, id: u32, signal: Signal) -> io::Result<()> {
        self.send(&Request::SignalExecution { id, signal }, &[])
    }

    /// Kills a further command: its process group and its session. What has taken a session of its own stays in the
    /// sandbox and ends with the worker. It does nothing for one that has ended.
    ///
    /// # Errors
    /// `BrokenPipe` if init is gone, `WouldBlock` if it has not read earlier requests yet.
    pub fn end_execution(&self, id: u32) -> io::Result<()> {
        self.send(&Request::EndExecution { id }, &[])
    }

    /// The process ID of init, once the first report has come; the worker's own comes with [`Report::Ready`].
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child().pid.as_raw_pid().cast_unsigned()
    }

    /// A descriptor that becomes readable when init has ended, see pidfd_open(2).
    #[must_use]
    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.child().pidfd.as_fd()
    }

    /// Waits for init to end and reaps it. Call it once [`recv`](Self::recv) has returned `None`: it is then a matter
    /// of microseconds. A second call gives the same answer.
    ///
    /// A successful status says that nothing of the worker is left. Any other means that somebody ended init, so that
    /// descendants of the worker may live on.
    ///
    /// # Errors
    /// `ECHILD` if this process ignores `SIGCHLD` or something else in it has reaped init.
    pub fn reap(&self) -> io::Result<ExitStatus> {
        self.forget_spawned();
        self.child().wait(WaitIdOptions::EXITED)?.ok_or_else(|| io::ErrorKind::WouldBlock.into())
    }

    /// Like [`reap`](Self::reap), but does not wait: `None` if init has not ended yet.
    ///
    /// # Errors
    /// As [`reap`](Self::reap).
    pub fn try_reap(&self) -> io::Result<Option<ExitStatus>> {
        self.child().wait(WaitIdOptions::EXITED | WaitIdOptions::NOHANG)
    }

    pub(crate) fn send(&self, request: &Request, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        self.channel.send(&request.encode(), descriptors)
    }

    fn beginning(&self) -> MutexGuard<'_, HashMap<u32, Beginning>> {
        self.beginning.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The process that is init.
    fn child(&self) -> &Child {
        self.moved.get().unwrap_or(&self.spawned)
    }

    /// Init goes on as another child of this process. The one that was spawned ends right after saying so.
    fn follow(&self, pid: u32) -> io::Result<()> {
        let pid = Pid::from_raw(pid.cast_signed()).ok_or(io::ErrorKind::InvalidData)?;
        // It is a child, which nobody else reaps, so the number is its own even if it has ended.
        let _ = self.moved.set(Child::new(pid, pidfd_open(pid, PidfdFlags::empty())?));
        Ok(())
    }

    fn is_mute(&self) -> bool {
        self.greeting.load(Ordering::Acquire) == EXPECTED && self.launched.elapsed() > HELLO_TIMEOUT
    }

    /// A worker of the same user can stop its init, which then reads nothing. To others this does nothing.
    fn wake(&self) {
        // It fails only if the process is gone already.
        let _ = sys::pidfd_send_signal(self.pidfd(), sys::Signal::CONT);
    }

    /// What was started is no init of ours. It has nothing to lose: it is killed.
    fn refuse(&self, what: &str) -> Report {
        self.greeting.store(REFUSED, Ordering::Release);
        self.end_stranger();
        self.no_init(&format!(
            "it {what}: call herd_sandbox::enter_init() first in main, or name a helper binary that does"
        ))
    }

    fn no_init(&self, reason: &str) -> Report {
        let hint = format!("{} was started as init, but {reason}", self.program.display());
        Report::Failed(Failure { step: "init".to_owned(), errno: None, hint })
    }

    /// The process that was spawned has ended if init goes on as another one. It is reaped now, or soon.
    fn forget_spawned(&self) {
        let no_hang = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
        if self.moved.get().is_some() && matches!(self.spawned.wait(no_hang), Ok(None)) {
            let _ = self.spawned.reaped.set(ExitStatus::default());
            reaper::adopt(Orphan::new(Arc::clone(&self.spawned.pidfd)));
        }
    }

    /// Takes note of what was said and is not read yet.
    fn read_rest(&self) {
        while let Ok(Some(packet)) = self.channel.recv() {
            match Reply::decode(&packet.bytes) {
                Ok(Reply::Hello { .. }) => self.greeting.store(RECEIVED, Ordering::Release),
                // It fails only without descriptors, and then nobody can wait for the process.
                Ok(Reply::Moved { pid }) => drop(self.follow(pid)),
                _ => {}
            }
        }
    }

    /// An init ends when the stream does; anything else has to be killed. An init must not be: its worker's
    /// descendants would live on.
    fn end_stranger(&self) {
        self.channel.shut_down();
        // From here on it can say hello no more, and without having said it an init starts nothing. What it said
        // before lies in the queue.
        let said_hello = || {
            let Ok(Some(packet)) = self.channel.recv() else { return false };
            matches!(Reply::decode(&packet.bytes), Ok(Reply::Hello { .. }))
        };
        if self.greeting.load(Ordering::Acquire) != RECEIVED && !said_hello() {
            // It fails only if the process is gone already.
            let _ = sys::pidfd_send_signal(self.pidfd(), sys::Signal::KILL);
        }
    }
}

impl AsFd for Init {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.channel.as_fd()
    }
}

impl Drop for Init {
    fn drop(&mut self) {
        let no_hang = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
        if matches!(self.try_reap(), Ok(None)) {
            self.read_rest();
            if self.greeting.load(Ordering::Acquire) == RECEIVED {
                // It may still have to say that it goes on as another process.
                self.channel.end();
            } else {
                self.end_stranger();
            }
            self.wake();
        }
        let gone = !matches!(self.spawned.wait(no_hang), Ok(None));
        if gone {
            // What it said last, it said before it ended.
            self.read_rest();
        }
        match self.moved.get() {
            Some(moved) => {
                if matches!(moved.wait(no_hang), Ok(None)) {
                    reaper::adopt(Orphan::new(Arc::clone(&moved.pidfd)));
                }
                if !gone {
                    reaper::adopt(Orphan::new(Arc::clone(&self.spawned.pidfd)));
                }
            }
            None if gone => {}
            None => reaper::adopt(Orphan::with_channel(Arc::clone(&self.spawned.pidfd), &self.channel)),
        }
    }
}

impl Child {
    fn new(pid: Pid, pidfd: OwnedFd) -> Self {
        Self { pid, pidfd: Arc::new(pidfd), reaped: OnceLock::new() }
    }

    fn wait(&self, options: WaitIdOptions) -> io::Result<Option<ExitStatus>> {
        if let Some(status) = self.reaped.get() {
            return Ok(Some(*status));
        }
        Ok(reaper::wait(self.pidfd.as_fd(), options)?.map(|status| *self.reaped.get_or_init(|| status)))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;

    use super::*;
    use crate::Spec;

    #[test]
    fn a_helper_that_says_nothing_is_killed_and_reported() {
        // It never looks at its standard input, which is the control socket.
        let mut init = Init::launch_with("/usr/bin/yes", Spec::new("true")).unwrap();
        assert_eq!(init.recv().unwrap_err().kind(), io::ErrorKind::WouldBlock);
        init.launched = init.launched.checked_sub(HELLO_TIMEOUT * 2).expect("the machine has run for that long");
        let Ok(Some(Report::Failed(failure))) = init.recv() else { panic!("it should be reported") };
        assert_eq!(failure.step, "init");
        assert!(failure.hint.contains("/usr/bin/yes") && failure.hint.contains("enter_init()"), "{failure}");
        assert_eq!(init.reap().unwrap().signal(), Some(libc::SIGKILL));
        // Once is enough.
        assert!(matches!(init.recv(), Ok(None)));
    }

    #[test]
    fn dropping_a_helper_that_says_nothing_kills_it() {
        let init = Init::launch_with("/usr/bin/yes", Spec::new("true")).unwrap();
        let pidfd = Arc::clone(&init.spawned.pidfd);
        drop(init);
        let mut ended = [rustix::event::PollFd::new(&*pidfd, rustix::event::PollFlags::IN)];
        assert_eq!(rustix::event::poll(&mut ended, Some(&Duration::from_secs(30).try_into().unwrap())), Ok(1));
    }
}
