//! Passes on what a worker's init says and what is wanted of it, until nothing of the worker is left.

use std::{
    collections::VecDeque,
    io,
    os::{
        fd::{AsFd as _, AsRawFd, RawFd},
        unix::process::ExitStatusExt as _,
    },
    sync::Arc,
    time::Duration,
};

use herd_pool::ExitStatus;
use herd_sandbox::{Failure, Init, Report, Signal};
use rustix::process::{
    Pid, PidfdFlags, Signal as UnixSignal, WaitId, WaitIdOptions, kill_process_group, pidfd_open, pidfd_send_signal,
    waitid,
};
use tokio::{
    io::unix::AsyncFd,
    select,
    signal::unix::{SignalKind, signal},
    sync::{mpsc, oneshot},
    task::spawn_blocking,
    time::{Instant, sleep, sleep_until, timeout},
};

use crate::{
    cgroups::WorkerCgroup,
    egress::{Outlet, WayOut},
    error::StartError,
    execution::{Begun, Order},
    executions::Executions,
    process::{Command, Pids},
    stock::Stock,
};

/// Init has 10 s to say that it is one; only when asked after that does its handle tell that it did not.
const MUTE_INIT: Duration = Duration::from_secs(11);

/// How long init may take to kill a worker before the daemon helps.
const KILL_PATIENCE: Duration = Duration::from_secs(5);

/// The same where the end of init is the end of all that the worker has started. An init that is killed tells no more how
/// the worker ended, so it has the time that memory of many gigabytes takes to be freed.
const CONTAINED_PATIENCE: Duration = Duration::from_secs(2);

/// When a request is sent again that init had no room for.
const RETRY: Duration = Duration::from_millis(20);

/// How long a killed process that lost its init is waited for. Only one that sleeps in the kernel takes any time.
const ORPHAN_TIMEOUT: Duration = Duration::from_secs(5);

/// Lets tokio poll init's control socket.
#[derive(Debug)]
pub(crate) struct PolledInit(pub(crate) Init);

impl AsRawFd for PolledInit {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

/// Registers a descriptor with tokio.
#[expect(deprecated, reason = "its successor is unsafe, for types whose descriptor may change; those here own theirs")]
pub(crate) fn polled<T: AsRawFd>(inner: T) -> io::Result<AsyncFd<T>> {
    AsyncFd::new(inner)
}

/// What one supervisor has to know of its worker.
#[derive(Debug)]
pub(crate) struct Charge {
    pub(crate) program: String,
    pub(crate) stop_signal: Signal,
    pub(crate) stop_grace: Duration,
    /// Where sockets of the worker's own network go, if it has one.
    pub(crate) stock: Option<Arc<Stock>>,
    pub(crate) cgroup: Option<WorkerCgroup>,
    /// Whether init is PID 1 of a namespace, with which all of the worker's processes end.
    pub(crate) is_contained: bool,
    /// How to make a way out of the worker's network, where that is to have one.
    pub(crate) way_out: Option<WayOut>,
}

/// Stands between an init and those who want something of its worker.
#[derive(Debug)]
pub(crate) struct Supervisor {
    charge: Charge,
    init: AsyncFd<PolledInit>,
    /// Taken when init has told how the start went.
    started: Option<oneshot::Sender<Result<Pids, StartError>>>,
    /// The process ID of the worker's main process, once it runs.
    main: Option<u32>,
    /// When the worker should have ended, once it was told to.
    insist_at: Option<Instant>,
    /// Whether what was launched as init talks nonsense, so that nothing it promises counts.
    mute: bool,
    /// How many sockets each order was for that init has not answered yet.
    ordered: VecDeque<u8>,
    /// Whether the worker's main process has ended.
    exited: bool,
    /// Further commands in its sandbox.
    executions: Executions,
}

impl Supervisor {
    /// Takes over an init that was launched. Who waits for the start is told of it by `started`.
    pub(crate) fn new(
        charge: Charge,
        init: AsyncFd<PolledInit>,
        started: oneshot::Sender<Result<Pids, StartError>>,
    ) -> Self {
        let started = Some(started);
        Self {
            charge,
            init,
            started,
            main: None,
            insist_at: None,
            mute: false,
            ordered: VecDeque::new(),
            exited: false,
            executions: Executions::default(),
        }
    }

    /// Passes reports on one way and commands the other until init is gone. Returns how the main process ended.
    pub(crate) async fn run(&mut self, mut commands: mpsc::UnboundedReceiver<Command>) -> ExitStatus {
        let mut ending = ExitStatus::Unknown;
        let mut held = true;
        // The kernel tells the parent of a process that was stopped. The handler is the whole program's and tokio's own;
        // without it an init that was stopped is found when it is to do something.
        let mut child_signals = signal(SignalKind::child()).ok();
        let mut orders = None;
        let mut outlet = None;
        self.look_at_init();
        loop {
            let report = select! {
                report = next_report(&self.init) => report,
                command = commands.recv(), if held => {
                    held = command.is_some();
                    self.obey(command.unwrap_or(Command::Kill));
                    continue;
                }
                // It is `None` when the runtime shuts down.
                Some(()) = next_signal(&mut child_signals) => {
                    self.look_at_init();
                    continue;
                }
                Some(()) = next_order(&mut orders) => {
                    self.order_sockets();
                    continue;
                }
                why = next_end(&mut outlet) => {
                    outlet = None;
                    self.end_without_outlet(why);
                    continue;
                }
                () = sleep(RETRY), if self.executions.is_behind() => {
                    self.executions.catch_up(&self.init.get_ref().0);
                    continue;
                }
                () = sleep_until(self.insist_at.unwrap_or_else(Instant::now)), if self.insist_at.is_some() => {
                    self.insist();
                    continue;
                }
                () = sleep(MUTE_INIT), if self.started.is_some() => match self.init().recv() {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                    report => report,
                },
            };
            match report {
                Ok(Some(Report::Ready { pid })) => {
                    self.main = Some(pid);
                    orders = self.charge.stock.as_ref().map(|stock| stock.open());
                    self.tell(Ok(Pids { init: self.init().pid(), main: pid }));
                }
                Ok(Some(Report::Failed(failure))) => self.fail(failure),
                Ok(Some(Report::Exited { status, .. })) => {
                    ending = exit_status(status);
                    self.exited = true;
                    self.close_stock();
                }
                Ok(Some(Report::Router { process, datagrams, streams })) => {
                    let Some(way_out) = self.charge.way_out.take() else { continue };
                    match way_out.open(process, datagrams, streams).await {
                        Ok(opened) => outlet = Some(opened),
                        Err(error) => {
                            self.tell(Err(error));
                            self.obey(Command::Kill);
                        }
                    }
                }
                Ok(Some(Report::Sockets { sockets, errno })) => {
                    if let (Some(stock), Some(ordered)) = (&self.charge.stock, self.ordered.pop_front()) {
                        stock.deliver(ordered, sockets, errno);
                    }
                }
                Ok(Some(Report::Executed { id, pid, terminal })) => {
                    self.executions.begun(&self.init.get_ref().0, id, Begun { pid, terminal });
                }
                Ok(Some(Report::ExecutionFailed { id, failure })) => self.executions.failed(id, failure),
                Ok(Some(Report::ExecutionEnded { id, status })) => self.executions.ended(id, exit_status(status)),
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(error) => {
                    tracing::error!(program = self.charge.program, %error, "init does not speak the protocol and is ended");
                    self.mute = true;
                    break;
                }
            }
        }
        self.close_stock();
        if let Some(outlet) = outlet {
            outlet.close().await;
        }
        if self.started.is_some() {
            let hint = "init was killed before the worker ran".to_owned();
            self.fail(Failure { step: "init".to_owned(), errno: None, hint });
        }
        ending
    }

    /// Asks init for as many sockets of the worker's network as are missing.
    fn order_sockets(&mut self) {
        let Some(stock) = self.charge.stock.clone() else { return };
        let count = stock.order();
        if count == 0 {
            return;
        }
        match self.init().request_sockets(count, false) {
            Ok(()) => self.ordered.push_back(count),
            Err(error) => stock.fail(count, &error),
        }
    }

    /// A worker that was promised a way out does not go on without: whoever uses it sees a crash, and not a program that
    /// fails in strange ways.
    fn end_without_outlet(&mut self, why: String) {
        if self.started.is_some() {
            self.fail(Failure { step: "outlet".to_owned(), errno: None, hint: why });
        } else {
            tracing::error!(program = self.charge.program, why, "the way out of a worker's network ended; so does it");
        }
        self.obey(Command::Kill);
    }

    /// A worker that was told to end begins nothing any more.
    fn execute(&mut self, order: Order) {
        let is_running = self.main.is_some() && self.insist_at.is_none() && !self.exited;
        self.executions.begin(Some(&self.init.get_ref().0).filter(|_| is_running), order);
    }

    fn close_stock(&self) {
        if let Some(stock) = &self.charge.stock {
            stock.close();
        }
    }

    fn obey(&mut self, command: Command) {
        let stopped = match command {
            Command::Stop => self.init().stop(self.charge.stop_signal, self.charge.stop_grace).is_ok(),
            Command::Kill => false,
            Command::Execute(order) => return self.execute(order),
            Command::SignalExecution { id, signal } => return self.executions.signal(self.init(), id, signal),
            Command::EndExecution { id } => return self.executions.end(&self.init.get_ref().0, id),
        };
        if !stopped {
            self.init().kill();
        }
        self.insist_at =
            Some(Instant::now() + self.patience() + if stopped { self.charge.stop_grace } else { Duration::ZERO });
        self.wake_init();
    }

    /// Ends a worker whose init was stopped: only the worker, or another one of the same user, has a reason to do that,
    /// and an init that is stopped does not watch over it.
    fn look_at_init(&mut self) {
        let options = WaitIdOptions::STOPPED | WaitIdOptions::NOHANG;
        let Ok(Some(_)) = waitid(WaitId::PidFd(self.init().pidfd()), options) else { return };
        // A worker that keeps stopping its init while it is ended is told of once; what is late is insisted on.
        if self.insist_at.is_none() {
            tracing::error!(
                program = self.charge.program,
                init = self.init().pid(),
                "a worker's init was stopped by a signal, which leaves the worker unguarded; the worker is killed"
            );
            self.obey(Command::Kill);
        }
        self.wake_init();
    }

    /// A worker that runs under the daemon's user can stop its init (`SIGSTOP`), which then obeys nothing.
    fn wake_init(&self) {
        // It fails only if init is gone.
        let _ = pidfd_send_signal(self.init().pidfd(), UnixSignal::CONT);
    }

    fn patience(&self) -> Duration {
        if self.charge.is_contained { CONTAINED_PATIENCE } else { KILL_PATIENCE }
    }

    /// Helps an init that should have ended the worker by now.
    fn insist(&mut self) {
        tracing::warn!(
            program = self.charge.program,
            init = self.init().pid(),
            "a worker that was to end has not ended yet; it is killed again"
        );
        self.insist_at = Some(Instant::now() + self.patience());
        self.init().kill();
        if self.charge.is_contained {
            // An init that gets no time to obey needs none for this: the kernel ends a PID namespace with its PID 1. It
            // fails only if init is gone.
            let _ = pidfd_send_signal(self.init().pidfd(), UnixSignal::KILL);
        }
        if let Some(cgroup) = &self.charge.cgroup {
            cgroup.kill();
        }
        if let Some(group) = self.main.and_then(|pid| Pid::from_raw(pid.cast_signed())) {
            let _ = kill_process_group(group, UnixSignal::KILL);
        }
        self.wake_init();
    }

    fn fail(&mut self, failure: Failure) {
        let program = self.charge.program.clone();
        self.tell(Err(StartError::Failed { program, failure }));
    }

    fn tell(&mut self, result: Result<Pids, StartError>) {
        if let Some(started) = self.started.take() {
            // It fails only if the caller has given up, and then `commands` says so too.
            let _ = started.send(result);
        }
    }

    fn init(&self) -> &Init {
        &self.init.get_ref().0
    }

    /// Waits for init itself to end. If it did not end of its own accord, somebody killed it: then the worker's main
    /// process gets its parent-death signal, and its process group is killed here.
    pub(crate) async fn reap(self) {
        let init = self.init.into_inner().0;
        let clean = if self.mute {
            end_mute(init).await;
            false
        } else {
            matches!(spawn_blocking(move || init.reap()).await, Ok(Ok(status)) if status.success())
        };
        if clean || self.charge.is_contained {
            return;
        }
        if let Some(cgroup) = &self.charge.cgroup {
            cgroup.kill();
        }
        if let Some(main) = self.main.and_then(|pid| Pid::from_raw(pid.cast_signed())) {
            kill_orphans(main).await;
        }
    }
}

/// Ends an init that talks nonsense and resolves when it has ended. An init ends its worker before itself.
async fn end_mute(init: Init) {
    let pidfd = init.pidfd().try_clone_to_owned();
    // Its handle closes the socket, which tells init to end, kills what is no init at all, and reaps it.
    drop(init);
    // Without a descriptor to wait for there is nothing more that can be done.
    let Ok(gone) = pidfd.and_then(polled) else { return };
    if timeout(KILL_PATIENCE, gone.readable()).await.is_err() {
        // It fails only if init is gone.
        let _ = pidfd_send_signal(gone.get_ref(), UnixSignal::KILL);
        // It fails only if the descriptor cannot be polled.
        let _ = gone.readable().await.map(drop);
    }
}

/// Kills a worker's process group whose init is gone, and waits for the main process.
async fn kill_orphans(main: Pid) {
    // The kernel gives a group's number to no new process while the group has members, and it counts up through all
    // other numbers before it comes back to this one, so this reaches the worker's group or nobody.
    let _ = kill_process_group(main, UnixSignal::KILL);
    if let Ok(gone) = pidfd_open(main, PidfdFlags::NONBLOCK).map(polled) {
        // It fails only if the descriptor cannot be polled, and then there is nothing to wait for.
        let _ = timeout(ORPHAN_TIMEOUT, async { gone.ok()?.readable().await.ok().map(drop) }).await;
    }
}

/// The next order for sockets, or never if the worker has no network of its own.
async fn next_order(orders: &mut Option<mpsc::UnboundedReceiver<()>>) -> Option<()> {
    match orders {
        Some(orders) => orders.recv().await,
        None => std::future::pending().await,
    }
}

/// Why the way out ended, or never if there is none.
async fn next_end(outlet: &mut Option<Outlet>) -> String {
    match outlet {
        Some(outlet) => outlet.ended().await,
        None => std::future::pending().await,
    }
}

/// The next signal, or never if signals cannot be had.
async fn next_signal(signals: &mut Option<tokio::signal::unix::Signal>) -> Option<()> {
    match signals {
        Some(signals) => signals.recv().await,
        None => std::future::pending().await,
    }
}

pub(crate) async fn next_report(init: &AsyncFd<PolledInit>) -> io::Result<Option<Report>> {
    loop {
        let mut guard = init.readable().await?;
        if let Ok(report) = guard.try_io(|init| init.get_ref().0.recv()) {
            return report;
        }
    }
}

fn exit_status(status: std::process::ExitStatus) -> ExitStatus {
    match (status.code(), status.signal()) {
        (Some(code), _) => ExitStatus::Code(code),
        (None, Some(signal)) => ExitStatus::Signal(signal),
        (None, None) => ExitStatus::Unknown,
    }
}
