//! One process under its init, and the task that supervises it.

use std::{path::PathBuf, sync::Arc, time::Duration};

use herd_pool::{Exit, ExitStatus};
use herd_sandbox::{Init, Signal, Spec};
use tokio::{
    sync::{Semaphore, mpsc, oneshot, watch},
    task::spawn_blocking,
};
use tracing::Instrument as _;

use crate::{
    cgroups::WorkerCgroup,
    egress::WayOut,
    error::StartError,
    execution::{self, ExecCommand, ExecError, Execution, Order},
    logs::Logs,
    output::Output,
    stock::Stock,
    supervisor::{Charge, PolledInit, Supervisor, polled},
};

/// How many processes' belongings are removed at once: fewer than the runtime has threads that may block, so that
/// workers that leave many files behind keep nobody from starting.
static REMOVALS: Semaphore = Semaphore::const_new(4);

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

/// What is wanted of a process.
#[derive(Debug)]
pub(crate) enum Command {
    Stop,
    Kill,
    /// Run a further command in its sandbox.
    Execute(Order),
    /// Send a signal to that command's process group.
    SignalExecution {
        id: u32,
        signal: Signal,
    },
    /// Kill that command. Nobody wants it any more.
    EndExecution {
        id: u32,
    },
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
        tokio::spawn(supervise(launch, started, receiver, publisher).in_current_span());
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

    /// Runs a further command in its sandbox.
    ///
    /// Cancel safe: dropping the future kills what has been started.
    pub(crate) async fn execute(&self, command: ExecCommand) -> Result<Execution, ExecError> {
        if self.exit().is_some() {
            return Err(ExecError::NotRunning);
        }
        execution::execute(&self.commands, command).await
    }

    /// Runs a further command in its sandbox to its end, without streams.
    ///
    /// Cancel safe: dropping the future kills what has been started.
    pub(crate) async fn run(&self, command: ExecCommand) -> Result<ExitStatus, ExecError> {
        execution::run(&self.commands, command).await
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
    let way_out = WayOut::new(&spec.isolation, init_program.as_deref());
    // Starting init blocks for about a millisecond, as long as an execve takes. On its own thread it does not hold up
    // the other workers' output and reports, even when many workers are started at once.
    let launched = spawn_blocking(move || match init_program {
        Some(helper) => Init::launch_with(helper, spec),
        None => Init::launch(spec),
    });
    let ending = match launched.await.map(|launched| launched.map(|init| polled(PolledInit(init)))) {
        Ok(Ok(Ok(init))) => {
            let cgroup = cgroup.clone();
            let charge = Charge { program, stop_signal, stop_grace, stock, cgroup, is_contained, way_out };
            let mut supervisor = Supervisor::new(charge, init, started);
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
    release(belongings).await;
    publisher.send_modify(|status| status.released = true);
}

/// Removes what belonged to a process. That can take long when the worker left many files behind.
async fn release(belongings: Box<dyn Send>) {
    // It fails only if the semaphore is closed, which nobody does.
    let _permit = REMOVALS.acquire().await;
    let _ = spawn_blocking(move || drop(belongings)).await;
}

#[cfg(test)]
mod tests {
    use std::{
        sync::mpsc::{Receiver, Sender, channel},
        time::Duration,
    };

    use tokio::{runtime::Builder, time::timeout};

    use super::*;

    /// More than a test takes on a busy machine.
    const PATIENCE: Duration = Duration::from_secs(60);

    /// What a worker left whose removal takes until somebody lets it end.
    struct Slow {
        begun: mpsc::UnboundedSender<()>,
        end: Receiver<()>,
    }

    impl Drop for Slow {
        fn drop(&mut self) {
            // They fail only if the test is over.
            let _ = self.begun.send(());
            let _ = self.end.recv();
        }
    }

    #[test]
    fn however_many_removals_there_are_a_launch_finds_a_thread() {
        // One more thread than removals may have.
        let runtime = Builder::new_current_thread().enable_all().max_blocking_threads(5).build().expect("a runtime");
        let (begun, mut beginnings) = mpsc::unbounded_channel();
        runtime.block_on(async {
            let (ends, removals): (Vec<Sender<()>>, Vec<_>) = (0..8)
                .map(|_| {
                    let (sender, end) = channel();
                    (sender, tokio::spawn(release(Box::new(Slow { begun: begun.clone(), end }))))
                })
                .unzip();
            for _ in 0..4 {
                timeout(PATIENCE, beginnings.recv()).await.expect("it begins");
            }
            let launch = timeout(PATIENCE, spawn_blocking(|| "launched")).await;
            // Whatever comes of it, nothing is left that waits.
            drop(ends);
            for removal in removals {
                timeout(PATIENCE, removal).await.expect("it ends").expect("no panic");
            }
            assert_eq!(launch.expect("there is a thread").expect("no panic"), "launched");
        });
    }
}
