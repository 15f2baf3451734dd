//! One process under its init, and the task that supervises it.

use std::{
    collections::VecDeque,
    io,
    os::{
        fd::{AsFd as _, AsRawFd, RawFd},
        unix::process::ExitStatusExt as _,
    },
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use herd_pool::{Exit, ExitStatus};
use herd_sandbox::{Failure, Init, Report, Signal, Spec};
use rustix::process::{
    Pid, PidfdFlags, Signal as UnixSignal, WaitId, WaitIdOptions, kill_process_group, pidfd_open, pidfd_send_signal,
    waitid,
};
use tokio::{
    io::unix::AsyncFd,
    select,
    signal::unix::{SignalKind, signal},
    sync::{mpsc, oneshot, watch},
    task::spawn_blocking,
    time::{Instant, sleep, sleep_until, timeout},
};

use crate::{cgroups::WorkerCgroup, error::StartError, logs::Logs, output::Output, stock::Stock};

/// Init has 10 s to say that it is one; only when asked after that does its handle tell that it did not.
const MUTE_INIT: Duration = Duration::from_secs(11);

/// How long init may take to kill a worker before the daemon helps.
const KILL_PATIENCE: Duration = Duration::from_secs(5);

/// How long a killed process that lost its init is waited for. Only one that sleeps in the kernel takes any time.
const ORPHAN_TIMEOUT: Duration = Duration::from_secs(5);

/// What to start and what belongs to it.
pub(crate) struct Launch {
    pub(crate) program: String,
    pub(crate) spec: Spec,
    pub(crate) init_program: Option<PathBuf>,
    pub(crate) stop_signal: Signal,
    pub(crate) stop_grace: Duration,
    pub(crate) output: Option<Output>,
    pub(crate) logs: Logs,
    /// Where sockets of the worker's own network go, if it has one.
    pub(crate) stock: Option<Arc<Stock>>,
    pub(crate) cgroup: Option<WorkerCgroup>,
    /// Whether init is PID 1 of a namespace, with which all of the worker's processes end.
    pub(crate) is_contained: bool,
    /// What is released when nothing of the process is left, on a thread that may block.
    pub(crate) belongings: Box<dyn Send>,
}

/// A hold on one process tree. **Dropping it kills the tree**: the supervising task sees it and stays until everything
/// is reaped and released.
#[derive(Debug)]
pub(crate) struct Process {
    commands: mpsc::UnboundedSender<Command>,
    status: watch::Receiver<Status>,
}

#[derive(Clone, Copy, Debug)]
enum Command {
    Stop,
    Kill,
}

#[derive(Clone, Debug, Default)]
struct Status {
    /// Set when no process is left and all of the output was read.
    exit: Option<Exit>,
    /// Set when everything that belonged to the process was released, too.
    released: bool,
}

/// The process IDs of a running worker.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pids {
    pub(crate) init: u32,
    pub(crate) main: u32,
}

impl Process {
    /// Launches the process and resolves when its program runs.
    ///
    /// Cancel safe: dropping the future kills what has been started.
    pub(crate) async fn launch(launch: Launch) -> Result<(Self, Pids), StartError> {
        let (commands, receiver) = mpsc::unbounded_channel();
        let (publisher, status) = watch::channel(Status::default());
        let (started, start) = oneshot::channel();
        // The task owns itself: it ends when the process does, and that is certain once `commands` is dropped. It must
        // outlive whoever asked for the process, because it has to reap it.
        tokio::spawn(supervise(launch, started, receiver, publisher));
        let process = Self { commands, status };
        match start.await {
            Ok(Ok(pids)) => Ok((process, pids)),
            Ok(Err(error)) => {
                process.wait_released().await;
                Err(error)
            }
            // Only a runtime that shuts down drops the task.
            Err(_) => Err(StartError::Launch("the runtime is shutting down".into())),
        }
    }

    /// Asks the process to stop, grants it its grace, kills what is left, and resolves when all of it is gone and
    /// released.
    pub(crate) async fn stop(&self) {
        self.command(Command::Stop).await;
    }

    /// Kills the process tree and resolves when all of it is gone and released.
    pub(crate) async fn kill(&self) {
        self.command(Command::Kill).await;
    }

    /// How it ended, if it has.
    pub(crate) fn exit(&self) -> Option<Exit> {
        self.status.borrow().exit.clone()
    }

    /// Resolves when no process is left and all of the output was read.
    pub(crate) fn exited(&self) -> impl Future<Output = Exit> + Send + 'static {
        let mut status = self.status.clone();
        async move {
            let exit =
                status.wait_for(|status| status.exit.is_some()).await.ok().and_then(|status| status.exit.clone());
            // Without a word from the task nobody can tell: its runtime was shut down, and init has killed the worker.
            exit.unwrap_or_else(|| Exit::with_status(ExitStatus::Unknown))
        }
    }

    async fn command(&self, command: Command) {
        // It fails only if the task is gone, and then so is the process.
        let _ = self.commands.send(command);
        self.wait_released().await;
    }

    async fn wait_released(&self) {
        let _ = self.status.clone().wait_for(|status| status.released).await;
    }
}

/// Lets tokio poll init's control socket.
#[derive(Debug)]
struct PolledInit(Init);

impl AsRawFd for PolledInit {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

/// Registers a descriptor with tokio.
#[expect(deprecated, reason = "its successor is unsafe, for types whose descriptor may change; those here own theirs")]
fn polled<T: AsRawFd>(inner: T) -> io::Result<AsyncFd<T>> {
    AsyncFd::new(inner)
}

/// Stays with one process from its launch until nothing of it is left.
async fn supervise(
    launch: Launch,
    started: oneshot::Sender<Result<Pids, StartError>>,
    commands: mpsc::UnboundedReceiver<Command>,
    publisher: watch::Sender<Status>,
) {
    let Launch {
        program,
        spec,
        init_program,
        stop_signal,
        stop_grace,
        output,
        logs,
        stock,
        cgroup,
        is_contained,
        belongings,
    } = launch;
    // Starting init blocks for about a millisecond, as long as an execve takes. On its own thread it does not hold up
    // the other workers' output and reports, even when many workers are started at once.
    let launched = spawn_blocking(move || match init_program {
        Some(helper) => Init::launch_with(helper, spec),
        None => Init::launch(spec),
    });
    let ending = match launched.await.map(|launched| launched.map(|init| polled(PolledInit(init)))) {
        Ok(Ok(Ok(init))) => {
            let mut supervisor = Supervisor {
                init,
                stop_signal,
                stop_grace,
                program,
                started: Some(started),
                main: None,
                insist_at: None,
                mute: false,
                stock,
                ordered: VecDeque::new(),
                cgroup: cgroup.clone(),
                is_contained,
            };
            let status = supervisor.run(commands).await;
            supervisor.reap().await;
            status
        }
        failed => {
            let error = match failed {
                Ok(Ok(Err(source))) => StartError::Resource { what: "connection to its init", source },
                Ok(Err(error)) => StartError::Launch(error.into()),
                Err(error) => StartError::Launch(error.into()),
                Ok(Ok(Ok(_))) => unreachable!("matched above"),
            };
            let _ = started.send(Err(error));
            ExitStatus::Unknown
        }
    };
    if let Some(output) = output {
        output.finish().await;
    }
    let stderr_tail = logs.stderr_tail().iter().map(|line| line.to_string()).collect();
    let exit = Exit { status: ending, out_of_memory: false, stderr_tail };
    let exit = match &cgroup {
        Some(cgroup) => cgroup.explain(exit),
        None => exit,
    };
    publisher.send_modify(|status| status.exit = Some(exit));
    // Removing a directory can take long when the worker left many files in it.
    let _ = spawn_blocking(move || drop(belongings)).await;
    publisher.send_modify(|status| status.released = true);
}

struct Supervisor {
    init: AsyncFd<PolledInit>,
    stop_signal: Signal,
    stop_grace: Duration,
    program: String,
    /// Taken when init has told how the start went.
    started: Option<oneshot::Sender<Result<Pids, StartError>>>,
    /// The process ID of the worker's main process, once it runs.
    main: Option<u32>,
    /// When the worker should have ended, once it was told to.
    insist_at: Option<Instant>,
    /// Whether what was launched as init talks nonsense, so that nothing it promises counts.
    mute: bool,
    stock: Option<Arc<Stock>>,
    /// How many sockets each order was for that init has not answered yet.
    ordered: VecDeque<u8>,
    cgroup: Option<WorkerCgroup>,
    is_contained: bool,
}

impl Supervisor {
    /// Passes reports on one way and commands the other until init is gone. Returns how the main process ended.
    async fn run(&mut self, mut commands: mpsc::UnboundedReceiver<Command>) -> ExitStatus {
        let mut ending = ExitStatus::Unknown;
        let mut held = true;
        // The kernel tells the parent of a process that was stopped. The handler is the whole program's and tokio's own;
        // without it an init that was stopped is found when it is to do something.
        let mut child_signals = signal(SignalKind::child()).ok();
        let mut orders = None;
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
                    orders = self.stock.as_ref().map(|stock| stock.open());
                    self.tell(Ok(Pids { init: self.init().pid(), main: pid }));
                }
                Ok(Some(Report::Failed(failure))) => self.fail(failure),
                Ok(Some(Report::Exited { status, .. })) => {
                    ending = exit_status(status);
                    self.close_stock();
                }
                Ok(Some(Report::Sockets { sockets, errno })) => {
                    if let (Some(stock), Some(ordered)) = (&self.stock, self.ordered.pop_front()) {
                        stock.deliver(ordered, sockets, errno);
                    }
                }
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(error) => {
                    tracing::error!(program = self.program, %error, "init does not speak the protocol and is ended");
                    self.mute = true;
                    break;
                }
            }
        }
        self.close_stock();
        if self.started.is_some() {
            let hint = "init was killed before the worker ran".to_owned();
            self.fail(Failure { step: "init".to_owned(), errno: None, hint });
        }
        ending
    }

    /// Asks init for as many sockets of the worker's network as are missing.
    fn order_sockets(&mut self) {
        let Some(stock) = self.stock.clone() else { return };
        let count = stock.order();
        if count == 0 {
            return;
        }
        match self.init().request_sockets(count, false) {
            Ok(()) => self.ordered.push_back(count),
            Err(error) => stock.fail(count, &error),
        }
    }

    fn close_stock(&self) {
        if let Some(stock) = &self.stock {
            stock.close();
        }
    }

    fn obey(&mut self, command: Command) {
        let stopped = match command {
            Command::Stop => self.init().stop(self.stop_signal, self.stop_grace).is_ok(),
            Command::Kill => false,
        };
        if !stopped {
            self.init().kill();
        }
        self.insist_at = Some(Instant::now() + KILL_PATIENCE + if stopped { self.stop_grace } else { Duration::ZERO });
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
                program = self.program,
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

    /// Helps an init that should have ended the worker by now.
    fn insist(&mut self) {
        tracing::warn!(
            program = self.program,
            init = self.init().pid(),
            "a worker that was to end has not ended yet; it is killed again"
        );
        self.insist_at = Some(Instant::now() + KILL_PATIENCE);
        self.init().kill();
        if let Some(cgroup) = &self.cgroup {
            cgroup.kill();
        }
        if let Some(group) = self.main.and_then(|pid| Pid::from_raw(pid.cast_signed())) {
            let _ = kill_process_group(group, UnixSignal::KILL);
        }
        self.wake_init();
    }

    fn fail(&mut self, failure: Failure) {
        let program = self.program.clone();
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
    async fn reap(self) {
        let init = self.init.into_inner().0;
        let clean = if self.mute {
            end_mute(init).await;
            false
        } else {
            matches!(spawn_blocking(move || init.reap()).await, Ok(Ok(status)) if status.success())
        };
        if clean || self.is_contained {
            return;
        }
        if let Some(cgroup) = &self.cgroup {
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

/// The next signal, or never if signals cannot be had.
async fn next_signal(signals: &mut Option<tokio::signal::unix::Signal>) -> Option<()> {
    match signals {
        Some(signals) => signals.recv().await,
        None => std::future::pending().await,
    }
}

async fn next_report(init: &AsyncFd<PolledInit>) -> io::Result<Option<Report>> {
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
