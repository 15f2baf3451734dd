//! The course of one command, from its first request to its exit.

use std::{
    collections::VecDeque,
    ffi::OsString,
    future::{Future, pending},
    os::unix::ffi::OsStringExt as _,
    path::{Path, PathBuf},
    pin::{Pin, pin},
    sync::Arc,
    time::Duration,
};

use herd_pool::{EndReason, ExitStatus, Lease};
use herd_process::{ExecCommand, ExecInput, ExecOutput, Execution, Signal, TerminalSize};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    select,
    sync::{OwnedSemaphorePermit, mpsc::Sender},
    time::{sleep, timeout},
};
use tonic::{Status, Streaming};

use super::{MOST, choice, refusal};
use crate::{
    admin::server::Peer,
    config::settings::IdleBy,
    control::{
        conversation::{DRAIN_MOMENT, FIRST_REQUEST_TIMEOUT},
        refusal::of_end,
        service::Control,
        wire::{
            self, ExecExit, ExecRequest, ExecResponse, ExecStart, ExecStarted, exec_exit,
            exec_request::Request as Asked, exec_response::Response as Told,
        },
    },
    draining::Draining,
    workers::Factory,
};

/// How much input is kept that the command has not taken, in bytes.
const INPUT_WINDOW: usize = 64 * 1024;
/// How much output is read at once, in bytes.
const PIECE: usize = 16 * 1024;
/// The most output that may be under way, whatever the client says.
const MOST_WINDOW: usize = 1024 * 1024;
/// How much of a program's name is logged, in bytes.
const MOST_LOGGED_BYTES: usize = 256;
/// How long after the command's end a client may take nothing of what the command wrote.
const LAST_WORDS_PATIENCE: Duration = Duration::from_mins(10);
/// How long the end of a session may take to be known after the end of a command that it killed.
const REASON_PATIENCE: Duration = Duration::from_millis(300);

/// Runs a command, and says how it went.
pub(super) async fn run(
    control: Control,
    requests: Streaming<ExecRequest>,
    peer: Option<Peer>,
    responses: Sender<Result<ExecResponse, Status>>,
) {
    let ended = async {
        let mut course = Course::begin(&control, requests, peer, &responses).await?;
        course.follow(&responses).await
    };
    let last = match ended.await {
        Ok(exit) => Ok(told(Told::Exit(exit))),
        Err(status) => Err(status),
    };
    // If nobody takes it, the client is gone.
    let _ = responses.send(last).await;
}

struct Course {
    requests: Streaming<ExecRequest>,
    /// Whether the client may say more.
    hears: bool,
    execution: Execution,
    input: Input,
    output: Output,
    session: Hold,
    status: Option<ExitStatus>,
    _place: OwnedSemaphorePermit,
}

/// The session, which is in use for as long as this holds it.
struct Hold {
    lease: Option<Lease<Factory>>,
    ended: Pin<Box<dyn Future<Output = EndReason> + Send>>,
    /// Resolves when it is time to give the lease back.
    let_go: Pin<Box<dyn Future<Output = ()> + Send>>,
    /// How often to reset the idle clock, where a lease alone does not stop it.
    touch_every: Option<Duration>,
}

/// What the client has sent and the command has not taken.
struct Input {
    stream: Option<ExecInput>,
    pending: VecDeque<u8>,
    /// Whether nothing follows.
    is_last: bool,
    /// How much was passed on that the client does not know of.
    taken: usize,
}

/// What the command writes.
struct Output {
    output: Option<ExecOutput>,
    errors: Option<ExecOutput>,
    output_piece: Box<[u8]>,
    errors_piece: Box<[u8]>,
    /// How much may be under way; `None`: as much as the connection takes.
    window: Option<usize>,
    under_way: usize,
}

impl Course {
    async fn begin(
        control: &Control,
        mut requests: Streaming<ExecRequest>,
        peer: Option<Peer>,
        responses: &Sender<Result<ExecResponse, Status>>,
    ) -> Result<Self, Status> {
        let start = first_request(&mut requests).await?;
        let (pool, info) = choice::session(control, &start)?;
        let window = usize::try_from(start.output_window).unwrap_or(MOST_WINDOW).min(MOST_WINDOW);
        let command = command(start)?;
        let place = Arc::clone(&control.executions).try_acquire_owned();
        let place = place.map_err(|_| {
            Status::resource_exhausted(format!("{MOST} commands run already; wait until one of them has ended"))
        })?;
        if control.draining.has_begun() {
            return Err(Status::unavailable("the daemon is draining"));
        }
        // Never acquired: that could start it anew.
        let lease = pool.pool.get(&info.id).ok_or_else(|| Status::not_found("the session has just ended"))?;
        let resources = &pool.setup().settings.resources;
        let touch_every =
            (resources.idle_by == IdleBy::Bytes).then(|| (resources.ttl / 4).max(Duration::from_millis(1)));
        let program = Path::new(&command.program).file_name().unwrap_or_default().to_string_lossy();
        let program = program[..program.floor_char_boundary(MOST_LOGGED_BYTES)].to_owned();
        let worker = lease.worker_id();
        let (pid, uid) = match peer {
            Some(Peer::Process { pid, uid }) => (Some(pid), Some(uid)),
            _ => (None, None),
        };
        let execution = lease.worker().execute(command).await.map_err(|error| {
            tracing::info!(%worker, ?program, uid, pid, "a command could not be run in a worker's sandbox");
            refusal::of(&error)
        })?;
        tracing::info!(%worker, ?program, uid, pid, "a command runs in a worker's sandbox");
        tracing::debug!(%worker, session = %info.id, "a command holds its session");
        let mut course = Self {
            requests,
            hears: true,
            input: Input { stream: None, pending: VecDeque::new(), is_last: false, taken: 0 },
            output: Output {
                output: None,
                errors: None,
                output_piece: vec![0; PIECE].into(),
                errors_piece: vec![0; PIECE].into(),
                window: (window > 0).then_some(window),
                under_way: 0,
            },
            session: Hold {
                ended: Box::pin(lease.ended()),
                lease: Some(lease),
                let_go: Box::pin(let_go(control.draining.clone())),
                touch_every,
            },
            execution,
            status: None,
            _place: place,
        };
        course.input.stream = course.execution.take_input();
        course.output.output = course.execution.take_output();
        course.output.errors = course.execution.take_errors();
        let started = ExecStarted {
            worker: worker.to_string(),
            pid: course.execution.pid(),
            input_window: u32::try_from(INPUT_WINDOW).unwrap_or(u32::MAX),
        };
        // If nobody takes it, the client is gone, and this task is about to be aborted.
        let _ = responses.send(Ok(told(Told::Started(started)))).await;
        Ok(course)
    }

    /// Passes on what comes, until the command has ended and all that it wrote was told.
    async fn follow(&mut self, responses: &Sender<Result<ExecResponse, Status>>) -> Result<ExecExit, Status> {
        let mut exit = pin!(self.execution.wait());
        let mut end_told = false;
        loop {
            let Self { requests, hears, execution, input, output, session, status, _place } = self;
            if status.is_some() && end_told && output.is_over() {
                break;
            }
            let news = match status {
                Some(_) if !end_told => News::End,
                None if input.taken > 0 => News::Taken(input.taken),
                _ => News::None,
            };
            select! {
                biased;
                reason = &mut session.ended, if status.is_none() => return Err(of_end(reason)),
                () = &mut session.let_go, if session.lease.is_some() => session.lease = None,
                () = touch(session.lease.as_ref(), session.touch_every) => {}
                request = requests.message(), if *hears => match request? {
                    Some(ExecRequest { request: Some(asked) }) => match asked {
                        Asked::Input(bytes) => input.push(&bytes)?,
                        Asked::InputEnd(()) => input.is_last = true,
                        Asked::Resize(size) => {
                            // A terminal that is gone has no size.
                            let _ = execution.resize(terminal_size(size)?);
                        }
                        Asked::Signal(number) => {
                            let signal = i32::try_from(number).ok().and_then(Signal::new);
                            let signal = signal.ok_or_else(|| Status::invalid_argument("`signal` is no signal's number"))?;
                            // It may have ended meanwhile.
                            let _ = execution.signal(signal);
                        }
                        Asked::OutputTaken(count) => output.taken(count),
                        Asked::Start(_) => return Err(Status::invalid_argument("`start` is for the first request alone")),
                    },
                    Some(ExecRequest { request: None }) => {
                        return Err(Status::invalid_argument("the request asks for nothing that is known"));
                    }
                    None => {
                        *hears = false;
                        input.is_last = true;
                    }
                },
                exited = &mut exit, if status.is_none() => {
                    *status = Some(exited.status);
                    // What others in the sandbox write now is nobody's business, and they hold up nobody.
                    input.stream = None;
                    output.finish().await;
                    session.lease = None;
                }
                () = input.pass_on() => {}
                told = next(responses, &news, output) => match (told, news) {
                    (Next::News, News::End) => end_told = true,
                    (Next::News, News::Taken(count)) => input.taken -= count,
                    _ => {}
                },
                // Whatever else happens begins this anew.
                () = sleep(LAST_WORDS_PATIENCE), if status.is_some() => {
                    return Err(Status::deadline_exceeded(format!(
                        "the command has ended, and nobody took the rest of its output for {LAST_WORDS_PATIENCE:?}"
                    )));
                }
            }
        }
        let status = self.status.unwrap_or(ExitStatus::Unknown);
        // Of what kills a command its session's end is the reason to be told.
        if matches!(status, ExitStatus::Unknown | ExitStatus::Signal(9))
            && let Ok(reason) = timeout(REASON_PATIENCE, &mut self.session.ended).await
        {
            return Err(of_end(reason));
        }
        match status {
            ExitStatus::Code(code) => Ok(ExecExit { status: Some(exec_exit::Status::Code(code)) }),
            ExitStatus::Signal(signal) => Ok(ExecExit { status: Some(exec_exit::Status::Signal(signal)) }),
            ExitStatus::Unknown => Err(Status::aborted("the command has ended, and nobody can tell how")),
        }
    }
}

/// What the client is to know beside the output, and before it.
enum News {
    None,
    /// So much of its input was passed on.
    Taken(usize),
    /// The command has ended.
    End,
}

/// What the client was told.
enum Next {
    News,
    Output,
}

/// Tells the client something, once it takes it: the news, or what the command writes.
///
/// Dropping the future loses nothing.
async fn next(responses: &Sender<Result<ExecResponse, Status>>, news: &News, output: &mut Output) -> Next {
    // Read is only what somebody takes.
    let Ok(permit) = responses.reserve().await else { return pending().await };
    match news {
        News::None => {}
        News::Taken(count) => {
            permit.send(Ok(told(Told::InputTaken(u32::try_from(*count).unwrap_or(u32::MAX)))));
            return Next::News;
        }
        News::End => {
            permit.send(Ok(told(Told::Ended(()))));
            return Next::News;
        }
    }
    let room = output.room();
    let Output { output: out, errors, output_piece, errors_piece, under_way, .. } = output;
    select! {
        count = read(out, &mut output_piece[..room]), if room > 0 && out.is_some() => match count {
            Some(count) => {
                *under_way += count;
                permit.send(Ok(told(Told::Output(output_piece[..count].to_vec()))));
            }
            None => *out = None,
        },
        count = read(errors, &mut errors_piece[..room]), if room > 0 && errors.is_some() => match count {
            Some(count) => {
                *under_way += count;
                permit.send(Ok(told(Told::Errors(errors_piece[..count].to_vec()))));
            }
            None => *errors = None,
        },
        () = pending(), if room == 0 || (out.is_none() && errors.is_none()) => {}
    }
    Next::Output
}

/// What was read; `None` at the end. A terminal that nobody has open any more is at its end, whatever it says.
async fn read(stream: &mut Option<ExecOutput>, piece: &mut [u8]) -> Option<usize> {
    let Some(stream) = stream else { return pending().await };
    stream.read(piece).await.ok().filter(|count| *count > 0)
}

impl Input {
    /// Keeps what the client has sent.
    fn push(&mut self, bytes: &[u8]) -> Result<(), Status> {
        if self.pending.len() + self.taken + bytes.len() > INPUT_WINDOW {
            return Err(Status::invalid_argument("more input is under way than `input_window` lets be"));
        }
        if self.stream.is_none() || self.is_last {
            self.taken += bytes.len();
        } else {
            self.pending.extend(bytes);
        }
        Ok(())
    }

    /// Passes some of it on, or the end. Waits while there is nothing to do.
    ///
    /// Cancel safe.
    async fn pass_on(&mut self) {
        let Some(stream) = &mut self.stream else { return pending().await };
        if self.pending.is_empty() {
            if !self.is_last {
                return pending().await;
            }
            // It may have closed its end.
            let _ = stream.shutdown().await;
            self.stream = None;
            return;
        }
        match stream.write(self.pending.as_slices().0).await {
            Ok(count) if count > 0 => {
                self.pending.drain(..count);
                self.taken += count;
            }
            // Nobody reads it any more. The client goes on none the wiser, as a shell does for whom the pipe breaks later.
            _ => {
                self.taken += self.pending.len();
                self.pending.clear();
                self.stream = None;
            }
        }
    }
}

impl Output {
    /// How much may be read now.
    fn room(&self) -> usize {
        self.window.map_or(PIECE, |window| window.saturating_sub(self.under_way).min(PIECE))
    }

    fn taken(&mut self, count: u32) {
        self.under_way = self.under_way.saturating_sub(usize::try_from(count).unwrap_or(usize::MAX));
    }

    /// The command has ended: nothing more is to come than what it has written.
    async fn finish(&mut self) {
        for stream in [&mut self.output, &mut self.errors] {
            if let Some(open) = stream.take() {
                *stream = Some(open.until_now().await);
            }
        }
    }

    fn is_over(&self) -> bool {
        self.output.is_none() && self.errors.is_none()
    }
}

/// Resets the idle clock when it is time to.
async fn touch(lease: Option<&Lease<Factory>>, every: Option<Duration>) {
    match (lease, every) {
        (Some(lease), Some(every)) => {
            // At once, since whatever else happens begins this anew.
            lease.touch();
            sleep(every).await;
        }
        _ => pending().await,
    }
}

async fn let_go(draining: Draining) {
    draining.begun().await;
    sleep(DRAIN_MOMENT).await;
}

async fn first_request(requests: &mut Streaming<ExecRequest>) -> Result<ExecStart, Status> {
    let first = timeout(FIRST_REQUEST_TIMEOUT, requests.message()).await.unwrap_or_else(|_| {
        Err(Status::deadline_exceeded(format!("no request came on the stream within {FIRST_REQUEST_TIMEOUT:?}")))
    });
    match first?.and_then(|first| first.request) {
        Some(Asked::Start(start)) => Ok(start),
        _ => Err(Status::invalid_argument("the first request is none to `start` a command")),
    }
}

fn command(start: ExecStart) -> Result<ExecCommand, Status> {
    let ExecStart { command, environment, directory, terminal, .. } = start;
    let mut words = command.into_iter().map(OsString::from_vec);
    let program = words.next().ok_or_else(|| Status::invalid_argument("`command` names no program"))?;
    let mut command = ExecCommand::new(program);
    command.args = words.collect();
    command.env = environment
        .into_iter()
        .map(|variable| (OsString::from_vec(variable.name), OsString::from_vec(variable.value)))
        .collect();
    command.directory = (!directory.is_empty()).then(|| PathBuf::from(OsString::from_vec(directory)));
    command.terminal = terminal.map(terminal_size).transpose()?;
    Ok(command)
}

fn terminal_size(size: wire::TerminalSize) -> Result<TerminalSize, Status> {
    let side = |count: u32| u16::try_from(count).ok().filter(|count| *count > 0);
    match (side(size.columns), side(size.rows)) {
        (Some(columns), Some(rows)) => Ok(TerminalSize { columns, rows }),
        _ => Err(Status::invalid_argument("a terminal has from 1 to 65535 columns and rows")),
    }
}

fn told(response: Told) -> ExecResponse {
    ExecResponse { response: Some(response) }
}
