//! A further command in a worker's sandbox: what is asked for, and the hold on it.

use std::{
    ffi::{OsStr, OsString},
    fmt,
    fs::File,
    io,
    os::fd::OwnedFd,
    path::PathBuf,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use herd_pool::{Exit, ExitStatus};
use herd_sandbox::{ExecSpec, ExecStreams, Failure, Signal, SpecError, TerminalSize};
use rustix::pipe::{PipeFlags, pipe_with};
use tokio::{
    net::unix::pipe,
    sync::{mpsc, oneshot, watch},
    time::timeout,
};

use crate::{
    process::Command,
    terminal::{ExecInput, ExecOutput, Terminal},
};

/// How long a command's program may take until it runs. The worker's limits slow it as they slow the worker.
const START_TIMEOUT: Duration = Duration::from_secs(10);

/// A command to run in a worker's sandbox: [`ProcessWorker::execute`](crate::ProcessWorker::execute).
///
/// It has what the worker has: namespaces, cgroup, user, limits, Landlock, the filter of system calls.
#[derive(Clone, Default)]
#[non_exhaustive]
pub struct ExecCommand {
    /// The program. Without a slash it is searched in the `PATH` of the command's environment; with one it is a path as
    /// the worker sees it, relative to the directory if it does not begin with a slash.
    pub program: OsString,
    /// The arguments after the program's own name. Default: none.
    pub args: Vec<OsString>,
    /// Variables beyond the worker's own environment, or instead of those of the same name. Default: none.
    pub env: Vec<(OsString, OsString)>,
    /// The working directory, an absolute path as the worker sees it. Default: the worker's own.
    pub directory: Option<PathBuf>,
    /// The size of the terminal that it gets. Default: none, its streams are pipes.
    pub terminal: Option<TerminalSize>,
}

impl ExecCommand {
    /// This program, with the defaults.
    #[must_use]
    pub fn new(program: impl Into<OsString>) -> Self {
        Self { program: program.into(), ..Self::default() }
    }
}

impl fmt::Debug for ExecCommand {
    /// Without its arguments and the values of its environment, which may be secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.env.iter().map(|(name, _)| name).collect();
        f.debug_struct("ExecCommand")
            .field("program", &self.program)
            .field("env", &names)
            .field("directory", &self.directory)
            .field("terminal", &self.terminal)
            .finish_non_exhaustive()
    }
}

/// A command could not be run in a worker's sandbox. Nothing of it runs.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExecError {
    /// The worker is starting, is being ended, or has ended.
    #[error("the worker is not running")]
    NotRunning,
    /// The command asks for something that cannot be anywhere.
    #[error(transparent)]
    Command(#[from] SpecError),
    /// As many commands run in this worker's sandbox as may at once.
    #[error("{limit} commands run in this worker's sandbox already; wait until one of them has ended")]
    TooMany {
        /// How many may.
        limit: usize,
    },
    /// The worker has used up its limit of processes or of memory, so that there is nothing left for a command.
    #[error("the worker has used up what it may: {0}")]
    Exhausted(Failure),
    /// A step of the start failed: there is no such program, for example.
    #[error("`{program}` could not be started: {failure}")]
    Failed {
        /// The program.
        program: String,
        /// Which step failed, why, and what helps.
        failure: Failure,
    },
    /// Its program did not run in time: something keeps the command's process from it. It was killed.
    #[error("`{program}` did not run after {after:?}")]
    TimedOut {
        /// The program.
        program: String,
        /// How long it was waited for.
        after: Duration,
    },
    /// The daemon has no more of something that a command needs: descriptors, memory.
    #[error("the command's {what} could not be made")]
    Resource {
        /// What it needed: `pipes`, for example.
        what: &'static str,
        /// What the operating system said.
        source: io::Error,
    },
}

/// The hold on a command that runs in a worker's sandbox.
///
/// **Dropping it kills** the command's process group and session, that is all that it has started but for what took a
/// session of its own (setsid(2)). The same happens when the command's own process ends, so that the streams end with it.
/// What took a session of its own stays in the sandbox, counts towards the worker's limits, and ends with the worker.
#[derive(Debug)]
pub struct Execution {
    hold: ExecutionHold,
    pid: u32,
    input: Option<ExecInput>,
    output: Option<ExecOutput>,
    errors: Option<ExecOutput>,
    terminal: Option<Terminal>,
}

/// What ends a command when it is dropped.
#[derive(Debug)]
struct ExecutionHold {
    id: u32,
    /// Weak: a command does not keep its worker.
    commands: mpsc::WeakUnboundedSender<Command>,
    /// Set when the command has ended. The other side is gone when the worker is.
    ended: watch::Receiver<Option<ExitStatus>>,
}

/// What the task that supervises a worker is asked for.
#[derive(Debug)]
pub(crate) struct Order {
    pub(crate) id: u32,
    pub(crate) spec: ExecSpec,
    /// Told once when the command runs, or cannot.
    pub(crate) begun: oneshot::Sender<Result<Begun, ExecError>>,
    /// Told when it has ended.
    pub(crate) ended: watch::Sender<Option<ExitStatus>>,
}

/// A command that runs.
#[derive(Debug)]
pub(crate) struct Begun {
    pub(crate) pid: u32,
    /// This side of its terminal.
    pub(crate) terminal: Option<OwnedFd>,
}

/// This side of a command's pipes.
struct Pipes {
    input: pipe::Sender,
    output: pipe::Receiver,
    errors: pipe::Receiver,
}

impl Pipes {
    fn new() -> io::Result<(Self, ExecStreams)> {
        // Close-on-exec from birth, so that no other program holds an end. The command's ends block, as programs expect
        // it of their streams; ours do not, which is a property of each end alone.
        let (stdin, input) = pipe_with(PipeFlags::CLOEXEC)?;
        let (output, stdout) = pipe_with(PipeFlags::CLOEXEC)?;
        let (errors, stderr) = pipe_with(PipeFlags::CLOEXEC)?;
        let pipes = Self {
            input: pipe::Sender::from_owned_fd(input)?,
            output: pipe::Receiver::from_owned_fd(output)?,
            errors: pipe::Receiver::from_owned_fd(errors)?,
        };
        Ok((pipes, ExecStreams::Descriptors { stdin, stdout, stderr }))
    }
}

/// Has a worker's supervising task run a command.
pub(crate) async fn execute(
    commands: &mpsc::UnboundedSender<Command>,
    command: ExecCommand,
) -> Result<Execution, ExecError> {
    let (pipes, streams) = match command.terminal {
        Some(size) => (None, ExecStreams::Terminal(size)),
        None => {
            let (pipes, streams) = Pipes::new().map_err(|source| ExecError::Resource { what: "pipes", source })?;
            (Some(pipes), streams)
        }
    };
    let (hold, Begun { pid, terminal }) = begin(commands, command, streams).await?;
    let terminal = terminal.map(Terminal::new).transpose();
    let terminal = terminal.map_err(|source| ExecError::Resource { what: "terminal", source })?;
    let (input, output, errors) = match (pipes, &terminal) {
        (Some(Pipes { input, output, errors }), _) => {
            (Some(ExecInput::pipe(input)), Some(ExecOutput::pipe(output)), Some(ExecOutput::pipe(errors)))
        }
        (None, Some(terminal)) => {
            (Some(ExecInput::terminal(terminal.clone())), Some(ExecOutput::terminal(terminal.clone())), None)
        }
        (None, None) => (None, None, None),
    };
    Ok(Execution { hold, pid, input, output, errors, terminal })
}

/// Has it run one of which nothing but its end is of interest.
///
/// Cancel safe: dropping the future kills what has been started.
pub(crate) async fn run(
    commands: &mpsc::UnboundedSender<Command>,
    command: ExecCommand,
) -> Result<ExitStatus, ExecError> {
    let null = || {
        let opened = File::options().read(true).write(true).open("/dev/null");
        opened.map(OwnedFd::from).map_err(|source| ExecError::Resource { what: "streams", source })
    };
    let streams = ExecStreams::Descriptors { stdin: null()?, stdout: null()?, stderr: null()? };
    let (hold, _) = begin(commands, command, streams).await?;
    Ok(hold.ended().await)
}

/// A program as it is named to people. Whoever asks for it may have made it as long as a message can be.
pub(crate) fn named(program: &OsStr) -> String {
    const MOST: usize = 512;
    let mut name = program.to_string_lossy().into_owned();
    if name.len() > MOST {
        name.truncate(name.floor_char_boundary(MOST));
        name.push('…');
    }
    name
}

/// Resolves when the command's program runs.
async fn begin(
    commands: &mpsc::UnboundedSender<Command>,
    command: ExecCommand,
    streams: ExecStreams,
) -> Result<(ExecutionHold, Begun), ExecError> {
    /// One number for all, since none is ever used twice.
    static IDS: AtomicU32 = AtomicU32::new(1);

    let program = named(&command.program);
    let mut spec = ExecSpec::new(command.program, streams);
    spec.args = command.args;
    spec.env = command.env;
    spec.directory = command.directory;
    spec.validate()?;

    let id = IDS.fetch_add(1, Ordering::Relaxed);
    let (begun, beginning) = oneshot::channel();
    let (ending, ended) = watch::channel(None);
    commands.send(Command::Execute(Order { id, spec, begun, ended: ending })).map_err(|_| ExecError::NotRunning)?;
    // From here on whoever gives up ends the command.
    let hold = ExecutionHold { id, commands: commands.downgrade(), ended };
    match timeout(START_TIMEOUT, beginning).await {
        Ok(Ok(begun)) => Ok((hold, begun?)),
        // The supervising task has gone, with its worker.
        Ok(Err(_)) => Err(ExecError::NotRunning),
        Err(_) => Err(ExecError::TimedOut { program, after: START_TIMEOUT }),
    }
}

impl ExecutionHold {
    fn ended(&self) -> impl Future<Output = ExitStatus> + Send + 'static {
        let mut ended = self.ended.clone();
        async move {
            let status = ended.wait_for(Option::is_some).await.ok().and_then(|status| *status);
            // Without a word from the task nobody can tell.
            status.unwrap_or(ExitStatus::Unknown)
        }
    }
}

impl Execution {
    /// The process ID of the command's main process, as this process sees it; also that of its process group and session.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Its standard input, once. Shutting it down or dropping it is the end of file; for a terminal it is nothing, there
    /// the end of file is a key.
    pub fn take_input(&mut self) -> Option<ExecInput> {
        self.input.take()
    }

    /// Its standard output, once; with a terminal all that it writes there.
    ///
    /// It ends when nobody has it open any more, which others in the sandbox can put off for ever; see
    /// [`ExecOutput::until_now`] for what to do at the command's end.
    pub fn take_output(&mut self) -> Option<ExecOutput> {
        self.output.take()
    }

    /// Its standard error, once; `None` with a terminal.
    pub fn take_errors(&mut self) -> Option<ExecOutput> {
        self.errors.take()
    }

    /// Tells the command that its terminal has another size now (`SIGWINCH`). Without a terminal it does nothing.
    ///
    /// # Errors
    /// Those of ioctl(2) with `TIOCSWINSZ`.
    pub fn resize(&self, size: TerminalSize) -> io::Result<()> {
        self.terminal.as_ref().map_or(Ok(()), |terminal| terminal.resize(size))
    }

    /// Sends a signal to the command's process group.
    ///
    /// # Errors
    /// [`ExecError::NotRunning`] if it has ended.
    pub fn signal(&self, signal: Signal) -> Result<(), ExecError> {
        if self.hold.ended.borrow().is_some() || self.hold.ended.has_changed().is_err() {
            return Err(ExecError::NotRunning);
        }
        let commands = self.hold.commands.upgrade().ok_or(ExecError::NotRunning)?;
        commands.send(Command::SignalExecution { id: self.hold.id, signal }).map_err(|_| ExecError::NotRunning)
    }

    /// Resolves when the command's main process has ended. The status is [`ExitStatus::Unknown`] if its worker's init was
    /// killed, which nobody survives who could tell.
    ///
    /// Cancel safe, and may be called again: the answer stays.
    pub fn wait(&self) -> impl Future<Output = Exit> + Send + 'static {
        let ended = self.hold.ended();
        async move { Exit::with_status(ended.await) }
    }
}

impl Drop for ExecutionHold {
    fn drop(&mut self) {
        if let Some(commands) = self.commands.upgrade() {
            // It fails only if the worker is gone, and the command with it.
            let _ = commands.send(Command::EndExecution { id: self.id });
        }
    }
}
