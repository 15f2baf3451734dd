//! What `herd exec` and the daemon say to each other while the command runs.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use anyhow::{anyhow, bail};
use futures_util::{future::OptionFuture, stream};
use hyper::{
    Request, Response,
    body::Incoming,
    client::conn::http2::{self, SendRequest},
};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::{
    select,
    signal::unix::{Signal, SignalKind, signal},
    sync::mpsc::{UnboundedSender, unbounded_channel},
    task::JoinSet,
    time::timeout,
};
use tonic::{Code, Status, Streaming, body::Body};
use tower_service::Service;

use super::streams::{Streams, Which};
use crate::{
    client::{
        Daemon,
        terminal::{self, RawTerminal},
    },
    control::wire::{
        ExecRequest, ExecResponse, ExecStart, TerminalSize, exec_exit, exec_request::Request as Asked,
        exec_response::Response as Told, exec_service_client::ExecServiceClient,
    },
};

/// How long the start of a command may take. The daemon itself gives up before.
const START_PATIENCE: Duration = Duration::from_secs(15);
/// How often a daemon that says nothing is asked whether it is there, and how long it may take to answer.
const ASK: Duration = Duration::from_secs(10);
/// The largest message of the daemon: a piece of output.
const MOST_MESSAGE_BYTES: usize = 1024 * 1024;
/// The most that is read of the input at once.
const PIECE: usize = 16 * 1024;
/// As if the command had written into the broken pipe itself.
const BROKEN_PIPE: i32 = 13;

/// How a command ended, or why it could not begin.
#[derive(Debug, Eq, PartialEq)]
pub(super) enum Ended {
    Code(i32),
    Signal(i32),
    NotFound(String),
    NotExecutable(String),
}

/// A command that runs, or could not.
pub(super) struct Conversation<'a> {
    daemon: &'a Daemon,
    requests: UnboundedSender<ExecRequest>,
    responses: Streaming<ExecResponse>,
    /// The first thing that the daemon said.
    first: Result<usize, Ended>,
    /// Reads and writes; aborted when this goes.
    _connection: JoinSet<()>,
}

impl<'a> Conversation<'a> {
    /// Has the daemon begin the command.
    pub(super) async fn begin(daemon: &'a Daemon, start: ExecStart) -> anyhow::Result<Self> {
        let begun = timeout(START_PATIENCE, Self::start(daemon, start)).await;
        match begun {
            Ok(begun) => begun,
            Err(_) => Err(daemon.mute(START_PATIENCE).await),
        }
    }

    async fn start(daemon: &'a Daemon, start: ExecStart) -> anyhow::Result<Self> {
        let stream = TokioIo::new(daemon.dial().await?);
        let (sender, connection) = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .keep_alive_interval(ASK)
            .keep_alive_timeout(ASK)
            .handshake::<_, Body>(stream)
            .await
            .map_err(|error| daemon.broken(&error))?;
        let mut driver = JoinSet::new();
        // What goes wrong with it, the stream gets to know as well.
        driver.spawn(async move { drop(connection.await) });
        let origin = hyper::Uri::from_static("http://herd");
        let mut client =
            ExecServiceClient::with_origin(Channel(sender), origin).max_decoding_message_size(MOST_MESSAGE_BYTES);
        // It holds no more than the daemon's window of input, and what else is said is little.
        let (requests, mut asked) = unbounded_channel();
        let _ = requests.send(ask(Asked::Start(start)));
        let asked = stream::poll_fn(move |cx| asked.poll_recv(cx));
        let responses = client.exec(asked).await;
        let mut responses = responses.map_err(|status| explain(daemon, &status))?.into_inner();
        let first = match responses.message().await {
            Ok(Some(ExecResponse { response: Some(Told::Started(started)) })) => {
                Ok(usize::try_from(started.input_window).unwrap_or(usize::MAX))
            }
            Ok(_) => bail!("the daemon answers what this herd does not understand; is it of another version?"),
            Err(status) => match status.metadata().get("herd-exec-failure").map(|name| name.as_bytes()) {
                Some(b"not-found") => Err(Ended::NotFound(status.message().to_owned())),
                Some(_) => Err(Ended::NotExecutable(status.message().to_owned())),
                None => return Err(explain(daemon, &status)),
            },
        };
        Ok(Self { daemon, requests, responses, first, _connection: driver })
    }

    /// Passes everything on in both directions until the command has ended. The terminal is as before when it returns.
    pub(super) async fn run(mut self, with_input: bool, with_terminal: bool) -> anyhow::Result<Ended> {
        let window = match self.first {
            Ok(window) => window,
            Err(ended) => return Ok(ended),
        };
        let mut signals = Signals::catch()?;
        let raw = with_terminal.then(|| RawTerminal::enter("", "")).transpose()?;
        let mut input = with_input.then(terminal::input);
        let mut under_way = 0;
        let mut streams = Streams::open();
        if !with_input {
            self.say(Asked::InputEnd(()));
        }
        // The command's process may be gone before all that it wrote is here.
        let mut is_over = false;
        let ended = loop {
            let has_room = is_over || under_way + PIECE <= window;
            select! {
                biased;
                number = signals.next() => match number {
                    WINCH if with_terminal => {
                        let (columns, rows) = terminal::size();
                        self.say(Asked::Resize(TerminalSize { columns: columns.into(), rows: rows.into() }));
                    }
                    WINCH => {}
                    // Somebody has stopped this process, and the shell has its own ways with the terminal.
                    CONT => raw.as_ref().map_or(Ok(()), RawTerminal::resume)?,
                    number if is_over => return Ok(Ended::Signal(number)),
                    // The command was told already, and does not end: who insists is obeyed.
                    number @ (TERM | HUP) if signals.is_repeated(number) => return Ok(Ended::Signal(number)),
                    number => self.say(Asked::Signal(number.unsigned_abs())),
                },
                written = streams.written() => match written {
                    Some((_, Ok(count))) => self.say(Asked::OutputTaken(u32::try_from(count).unwrap_or(u32::MAX))),
                    Some((which, Err(error))) => {
                        if let Some(ended) = unwritten(which, error)? {
                            return Ok(ended);
                        }
                    }
                    None => {}
                },
                piece = OptionFuture::from(input.as_mut().map(|input| input.recv())), if input.is_some() && has_room => {
                    match piece.flatten() {
                        Some(Ok(piece)) if is_over => {
                            if let Some(number) = meant(&piece).filter(|_| with_terminal) {
                                return Ok(Ended::Signal(number));
                            }
                        }
                        Some(Ok(piece)) => {
                            under_way += piece.len();
                            self.say(Asked::Input(piece));
                        }
                        Some(Err(error)) if !with_terminal => {
                            return Err(anyhow::Error::new(error).context("standard input cannot be read"));
                        }
                        // The end; a terminal that is gone says nothing more either.
                        Some(Err(_)) | None => {
                            input = None;
                            self.say(Asked::InputEnd(()));
                        }
                    }
                }
                response = self.responses.message() => match response.map(|told| told.and_then(|told| told.response)) {
                    Ok(Some(Told::Output(bytes))) => streams.write(Which::Output, bytes),
                    Ok(Some(Told::Errors(bytes))) => streams.write(Which::Errors, bytes),
                    Ok(Some(Told::InputTaken(count))) => {
                        under_way = under_way.saturating_sub(usize::try_from(count).unwrap_or(usize::MAX));
                    }
                    Ok(Some(Told::Ended(()))) => {
                        is_over = true;
                        // The keys of a terminal still mean something; other input is left to who reads next.
                        input = input.filter(|_| with_terminal);
                    }
                    Ok(Some(Told::Exit(exit))) => break exit.status,
                    Ok(Some(Told::Started(_)) | None) => {
                        bail!("the daemon has ended the conversation without a word on how the command ended");
                    }
                    Err(status) => return Err(explain(self.daemon, &status)),
                },
            }
        };
        // The rest of what it wrote may have to wait for its reader.
        streams.close();
        loop {
            select! {
                number = signals.next() => match number {
                    WINCH | CONT => {}
                    number => return Ok(Ended::Signal(number)),
                },
                piece = OptionFuture::from(input.as_mut().map(|input| input.recv())), if with_terminal && input.is_some() => {
                    match piece.flatten() {
                        Some(Ok(piece)) => {
                            if let Some(number) = meant(&piece) {
                                return Ok(Ended::Signal(number));
                            }
                        }
                        Some(Err(_)) | None => input = None,
                    }
                }
                written = streams.written() => match written {
                    Some((_, Ok(_))) => {}
                    Some((which, Err(error))) => {
                        if let Some(ended) = unwritten(which, error)? {
                            return Ok(ended);
                        }
                    }
                    None => break,
                },
            }
        }
        match ended {
            Some(exec_exit::Status::Code(code)) => Ok(Ended::Code(code)),
            Some(exec_exit::Status::Signal(number)) => Ok(Ended::Signal(number)),
            None => bail!("the command has ended, and the daemon does not say how"),
        }
    }

    fn say(&self, asked: Asked) {
        // A conversation that has ended says so when it is listened to.
        let _ = self.requests.send(ask(asked));
    }
}

/// The signal that somebody means who presses Ctrl-C, Ctrl-D or Ctrl-\ on a terminal that passes on every key.
fn meant(keys: &[u8]) -> Option<i32> {
    keys.iter().find_map(|key| match key {
        0x03 | 0x04 => Some(INT),
        0x1c => Some(QUIT),
        _ => None,
    })
}

/// What follows from a stream of herd's own that cannot be written to.
fn unwritten(which: Which, error: io::Error) -> anyhow::Result<Option<Ended>> {
    match which {
        // Whom could be told?
        Which::Errors => Ok(None),
        Which::Output if error.kind() == io::ErrorKind::BrokenPipe => Ok(Some(Ended::Signal(BROKEN_PIPE))),
        Which::Output => {
            Err(anyhow::Error::new(error).context("standard output cannot be written; the command was killed"))
        }
    }
}

fn ask(request: Asked) -> ExecRequest {
    ExecRequest { request: Some(request) }
}

/// Why there is no command, or none any more.
fn explain(daemon: &Daemon, status: &Status) -> anyhow::Error {
    if status.metadata().contains_key("herd-end-reason") {
        return anyhow!("{}, and so did the command", status.message());
    }
    match status.code() {
        Code::Unimplemented => match daemon.doubt() {
            Some(doubt) => anyhow!("there is no exec: {doubt}"),
            None => anyhow!("this daemon has no exec; restart it with this herd"),
        },
        Code::NotFound => anyhow!("{}; `herd ps` lists those that live", status.message()),
        // What the library says where the connection breaks.
        Code::Unknown | Code::Cancelled | Code::Internal if std::error::Error::source(status).is_some() => {
            anyhow!(
                "the daemon broke the connection off, and the command ended with it; see whether it still runs, and its log"
            )
        }
        _ => anyhow!("{}", status.message()),
    }
}

/// A connection as the generated client wants it.
struct Channel(SendRequest<Body>);

impl Service<Request<Body>> for Channel {
    type Response = Response<Incoming>;
    type Error = hyper::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, hyper::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), hyper::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        Box::pin(self.0.send_request(request))
    }
}

const HUP: i32 = 1;
const INT: i32 = 2;
const QUIT: i32 = 3;
const TERM: i32 = 15;
const CONT: i32 = 18;
const WINCH: i32 = 28;

/// The signals that are passed on, and those of the terminal.
struct Signals {
    all: [(i32, Signal); 8],
    /// Those that came before and are the end of most programs.
    told: Vec<i32>,
}

impl Signals {
    fn catch() -> io::Result<Self> {
        // Interrupt, quit, and the two that programs use as they like.
        let caught = |number: i32| Ok::<_, io::Error>((number, signal(SignalKind::from_raw(number))?));
        let all = [
            caught(HUP)?,
            caught(INT)?,
            caught(QUIT)?,
            caught(10)?,
            caught(12)?,
            caught(TERM)?,
            caught(CONT)?,
            caught(WINCH)?,
        ];
        Ok(Self { all, told: Vec::new() })
    }

    /// The next one.
    ///
    /// Cancel safe.
    async fn next(&mut self) -> i32 {
        std::future::poll_fn(|cx| {
            for (number, signal) in &mut self.all {
                if signal.poll_recv(cx).is_ready() {
                    return Poll::Ready(*number);
                }
            }
            Poll::Pending
        })
        .await
    }

    fn is_repeated(&mut self, number: i32) -> bool {
        let repeated = self.told.contains(&number);
        self.told.push(number);
        repeated
    }
}
