use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    net::{AddressFamily, SocketFlags, SocketType, socket_with},
    process::{Pid, getpid},
};

use super::{execution::Executions, report, tree, worker::Started};
use crate::{
    Failure, Report, Signal,
    channel::Channel,
    protocol::{MAX_PACKET, Reply, Request},
    sys::{
        signal,
        wait::{self, Children, Ended},
    },
};

/// How long killed processes get to vanish before init looks for more of them, at first and at most.
const SETTLE: Duration = Duration::from_millis(5);
const SETTLE_MAX: Duration = Duration::from_millis(100);

/// The most children that are reaped before something else is done.
const MAX_REAPED: usize = 256;

/// The most sockets that are made at once.
const MAX_SOCKETS: u8 = 64;

/// Waits for the launching process, the worker and the clock, and acts on whichever speaks.
#[derive(Debug)]
pub(super) struct Supervisor {
    channel: Channel,
    /// Readable when a child has ended.
    children: OwnedFd,
    main: Option<Main>,
    /// Whether more children may have ended than were reaped.
    is_behind: bool,
    /// When a stop's grace ends.
    deadline: Option<Instant>,
    executions: Executions,
    /// Locks, which are let go of when this process ends.
    _kept: Vec<OwnedFd>,
}

/// The worker's main process, from fork until it is reaped.
#[derive(Debug)]
struct Main {
    pid: Pid,
    /// Closed without a word when the program was executed; brings a failure otherwise. `None` once that is known.
    start: Option<OwnedFd>,
    /// It did not get as far as the program, which has been reported.
    failed: bool,
}

/// Whether there is a reason to go on.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Next {
    Continue,
    End,
}

impl Supervisor {
    /// Takes over a worker that is on its way.
    pub(super) fn new(channel: Channel, started: Started) -> Result<Self, (Channel, io::Error)> {
        let Started { pid, outcome, kept, user } = started;
        let main = Some(Main { pid, start: Some(outcome), failed: false });
        match signal::child_events() {
            Ok(children) => {
                let executions = Executions::new(user);
                Ok(Self { channel, children, main, is_behind: false, deadline: None, executions, _kept: kept })
            }
            Err(error) => {
                let _ = signal::send(pid, Signal::KILL);
                Err((channel, error))
            }
        }
    }

    /// Serves the launching process until it is gone, or wants the worker killed, or the worker has ended.
    pub(super) fn supervise(&mut self) {
        loop {
            self.wait();
            // The start first: its outcome is reported before the exit that may follow at once. Then exits: they are
            // not told as the effect of a request that came later.
            if self.settle_start() == Next::End {
                return;
            }
            self.executions.catch_up(&self.channel);
            self.executions.settle(&self.channel);
            if self.reap() == Next::End || self.serve() == Next::End {
                return;
            }
            if self.deadline.is_some_and(|deadline| deadline <= Instant::now()) {
                return;
            }
        }
    }

    /// Kills all that the worker has started and returns when it is reaped.
    pub(super) fn end(&mut self) {
        let mut settle = SETTLE;
        loop {
            if matches!(self.reap_some(), Children::None) {
                break;
            }
            if let Some(main) = &self.main {
                // All of a group at once: the kernel lets no fork slip through. Its number is taken as long as the
                // main process is not reaped.
                let _ = signal_group(main.pid, Signal::KILL);
            }
            if getpid() == Pid::INIT {
                // All of a PID namespace at once; the kernel lets no fork slip through.
                let _ = signal::send_to_all(Signal::KILL);
            } else {
                tree::kill(getpid());
            }
            let until = Instant::now() + settle;
            while let Some(left) = until.checked_duration_since(Instant::now()) {
                if matches!(self.reap_some(), Children::None) {
                    break;
                }
                let left = if self.is_behind { Duration::ZERO } else { left };
                wait_for(&mut [PollFd::new(&self.children, PollFlags::IN)], Some(left));
                self.drain_child_events();
            }
            settle = (settle * 2).min(SETTLE_MAX);
        }
        // This says that nothing is left. What the kernel does when this process ends, taking down its namespaces for
        // one, nobody has to wait for.
        self.channel.shut_down();
    }

    fn wait(&mut self) {
        let timeout = self.deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        let timeout = if self.is_behind { Some(Duration::ZERO) } else { timeout };
        let of_channel = if self.executions.is_behind() { PollFlags::IN | PollFlags::OUT } else { PollFlags::IN };
        let mut sources = vec![PollFd::new(&self.channel, of_channel), PollFd::new(&self.children, PollFlags::IN)];
        sources.extend(
            self.main.iter().filter_map(|main| main.start.as_ref()).map(|start| PollFd::new(start, PollFlags::IN)),
        );
        sources.extend(self.executions.sources());
        wait_for(&mut sources, timeout);
        drop(sources);
        self.drain_child_events();
    }

    /// Looks whether the program was executed.
    fn settle_start(&mut self) -> Next {
        let Some(main) = &mut self.main else { return Next::Continue };
        let Some(start) = &main.start else { return Next::Continue };
        let mut packet = [0; MAX_PACKET];
        let outcome = match rustix::io::read(start, &mut packet) {
            // It runs, or was killed on its way there, which its exit tells.
            Ok(0) => Report::Ready { pid: main.pid.as_raw_pid().cast_unsigned() },
            Ok(length) => match Reply::decode(&packet[..length]) {
                Ok(Reply::Report(failure @ Report::Failed(_))) => failure,
                _ => Report::Failed(Failure {
                    step: "start".to_owned(),
                    errno: None,
                    hint: "the worker's process sent no sense".to_owned(),
                }),
            },
            Err(_) => return Next::Continue,
        };
        main.start = None;
        main.failed = matches!(outcome, Report::Failed(_));
        let next = if main.failed { Next::End } else { Next::Continue };
        report(&self.channel, outcome);
        next
    }

    /// Reaps what has ended. With the worker's main process the worker has.
    fn reap(&mut self) -> Next {
        let had_main = self.main.is_some();
        self.reap_some();
        if had_main && self.main.is_none() { Next::End } else { Next::Continue }
    }

    /// Not all that have ended: a worker can make orphans as fast as they are reaped, and would have init do nothing
    /// else.
    fn reap_some(&mut self) -> Children {
        self.is_behind = false;
        for _ in 0..MAX_REAPED {
            match wait::peek() {
                Ok(Children::Ended(ended)) => {
                    if self.main.as_ref().is_some_and(|main| main.pid == ended.pid) {
                        self.main_ended(&ended);
                    } else {
                        self.executions.ended(&ended, &self.channel);
                    }
                    let _ = wait::reap(&ended);
                }
                Ok(children) => return children,
                // Nothing that a second look would change; the caller looks again later.
                Err(_) => return Children::Running,
            }
        }
        self.is_behind = true;
        Children::Running
    }

    /// The main process is a zombie still, so its number and its group's are its own.
    fn main_ended(&mut self, ended: &Ended) {
        self.settle_start();
        let Some(main) = self.main.take() else { return };
        if !main.failed {
            report(&self.channel, Report::Exited { status: ended.status, usage: ended.usage });
        }
        // What is left of its group goes with it, at once and without a gap for a fork.
        let _ = signal_group(main.pid, Signal::KILL);
    }

    fn serve(&mut self) -> Next {
        loop {
            let packet = match self.channel.recv() {
                Ok(Some(packet)) => packet,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Next::Continue,
                // The launching process is gone, or does not speak this protocol: the dead-man's switch.
                Ok(None) | Err(_) => return Next::End,
            };
            let Ok(request) = Request::decode(&packet.bytes) else { return Next::End };
            if let Request::Execute { id, .. } = request
                && packet.is_short
            {
                self.executions.refuse_without_descriptors(id, &self.channel);
                continue;
            }
            if self.act(request, packet.descriptors) == Next::End {
                return Next::End;
            }
        }
    }

    fn act(&mut self, request: Request, descriptors: Vec<OwnedFd>) -> Next {
        match request {
            // There is one worker to an init.
            Request::Plan { .. } => return Next::End,
            Request::Sockets { count, v6 } => self.make_sockets(count, v6),
            Request::Signal(signal) => self.signal(signal),
            Request::Stop { signal, grace } => {
                self.signal(signal);
                self.signal(Signal::CONT);
                // A grace beyond what the clock can count is none that ends.
                let deadline = Instant::now().checked_add(grace);
                self.deadline = self.deadline.into_iter().chain(deadline).min();
            }
            Request::Kill => return Next::End,
            Request::Execute { id, length } => self.execute(id, length, descriptors),
            Request::SignalExecution { id, signal } => self.executions.signal(id, signal),
            Request::EndExecution { id } => self.executions.end(id),
        }
        Next::Continue
    }

    /// Runs a further command beside a worker that runs.
    fn execute(&mut self, id: u32, length: u64, descriptors: Vec<OwnedFd>) {
        match &self.main {
            Some(Main { start: None, failed: false, .. }) => {
                self.executions.start(id, length, descriptors, &self.channel);
            }
            _ => self.executions.refuse(id, &self.channel),
        }
    }

    /// TCP sockets of this network namespace, for whoever asks to connect them.
    fn make_sockets(&self, count: u8, v6: bool) {
        let family = if v6 { AddressFamily::INET6 } else { AddressFamily::INET };
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let mut sockets: Vec<OwnedFd> = Vec::new();
        let mut errno = 0;
        for _ in 0..count.min(MAX_SOCKETS) {
            match socket_with(family, SocketType::STREAM, flags, None) {
                Ok(socket) => sockets.push(socket),
                Err(error) => {
                    errno = error.raw_os_error();
                    break;
                }
            }
        }
        let sockets: Vec<_> = sockets.iter().map(AsFd::as_fd).collect();
        // The launching process may be gone; the next look at the channel tells.
        let _ = self.channel.send(&Reply::Sockets { errno }.encode(), &sockets);
    }

    fn signal(&self, signal: Signal) {
        let Some(main) = &self.main else { return };
        // It fails only for a process that is a zombie already.
        let _ = signal_group(main.pid, signal);
    }

    fn drain_child_events(&self) {
        // The events carry nothing that waiting for the children does not tell better, and they are merged.
        while rustix::io::read(&self.children, &mut [0; 1024]).is_ok_and(|length| length > 0) {}
    }
}

/// To the worker's group; or to its main process alone, if that has not come to make the group yet.
pub(super) fn signal_group(main: Pid, signal: Signal) -> io::Result<()> {
    match signal::send_to_group(main, signal) {
        Err(error) if error.raw_os_error() == Some(libc::ESRCH) => signal::send(main, signal),
        result => result,
    }
}

/// Until one of them is ready or the time is over. An interrupted wait ends early, which callers don't mind.
fn wait_for(sources: &mut [PollFd<'_>], timeout: Option<Duration>) {
    let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
    let _ = poll(sources, timeout.as_ref());
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use rustix::{
        pipe::{PipeFlags, pipe_with},
        process::{WaitId, WaitIdOptions, waitid},
    };

    use super::*;

    /// Each test runs in a process of its own, as `cargo nextest` does it: its children are all reaped here.
    #[test]
    fn a_crowd_of_the_dead_does_not_keep_init_from_obeying() {
        let mut main = Command::new("cat").stdin(Stdio::piped()).spawn().expect("cat is installed");
        let pid = Pid::from_child(&main);
        let dead = 2 * MAX_REAPED;
        let children: Vec<_> = (0..dead).map(|_| Command::new("true").spawn().expect("true is installed")).collect();
        for child in &children {
            let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
            waitid(WaitId::Pid(Pid::from_child(child)), options).expect("it is our child");
        }
        let (outcome, _not_yet) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).expect("a pipe");
        let (launcher, init) = Channel::pair().expect("a socket");
        let started = Started { pid, outcome, kept: Vec::new(), user: None };
        let mut supervisor = Supervisor::new(Channel::from_descriptor(init), started).expect("a descriptor");
        launcher.send(&Request::Kill.encode(), &[]).expect("there is room");

        supervisor.supervise();
        let is_left = |child: &std::process::Child| signal::send(Pid::from_child(child), Signal::CONT).is_ok();
        let left = children.iter().filter(|child| is_left(child)).count();
        assert_eq!(left, dead - MAX_REAPED, "it has obeyed first");
        while supervisor.is_behind {
            supervisor.reap_some();
        }
        assert_eq!(children.iter().filter(|child| is_left(child)).count(), 0);
        main.kill().and_then(|()| main.wait()).expect("it is our child");
    }
}
