//! From a worker ID to a worker that is ready.

use std::{
    net::{Ipv4Addr, TcpListener},
    os::fd::OwnedFd,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use herd_pool::{Connect as _, Exit, WorkerId};
use herd_sandbox::Signal;
use tokio::{
    select,
    sync::oneshot,
    time::{Instant, sleep, sleep_until, timeout, timeout_at},
};

use crate::{
    Connector,
    directory::WorkerDirectory,
    error::StartError,
    factory::Shared,
    listener::{Holder, holder},
    logs::Logs,
    notify::NotifySocket,
    options::{Listen, Ready},
    output::{Output, Pipes, Tap},
    ports::{self, Port, ReserveError},
    probe,
    process::{Launch, Pids, Process},
    template::{Template, Values},
};

/// How many ports a worker may lose to other programs.
const PORT_TRIES: usize = 5;

/// How long one question to a worker may take.
const PROBE_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a worker may leave a question open before that is worth telling.
const SILENCE: Duration = Duration::from_millis(100);

/// How long one run of a readiness command may take.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(10);

/// How long the end of a worker that failed to start is waited for, for its last words. It is killed in any case.
const KILL_PATIENCE: Duration = Duration::from_secs(5);

/// The pause between two looks at a worker begins with the first of these and grows to the second; to the third where
/// each look takes a process.
const FIRST_PAUSE: Duration = Duration::from_millis(1);
const LONGEST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_COMMAND_PAUSE: Duration = Duration::from_millis(500);

/// A worker that is ready.
pub(crate) struct Started {
    pub(crate) process: Process,
    pub(crate) pids: Pids,
    pub(crate) logs: Logs,
    pub(crate) connector: Connector,
    pub(crate) port: Option<u16>,
    pub(crate) at: SystemTime,
    pub(crate) ready_after: Duration,
}

/// Starts one worker and waits until it is ready; tries again with another port as long as others take its port.
pub(crate) async fn start(shared: &Shared, id: WorkerId) -> Result<Started, StartError> {
    let began = Instant::now();
    let deadline = began + shared.options.start_timeout;
    let mut lost = Vec::new();
    loop {
        let mut attempt = Attempt::begin(shared, id, lost.len(), deadline).await?;
        let stderr_tail = match attempt.wait_ready(deadline).await {
            Ok(()) => return Ok(attempt.into_started(began)),
            Err(Unready::Failed(error)) => return Err(error),
            Err(Unready::PortLost { stderr_tail }) => stderr_tail,
        };
        tracing::debug!(worker = %id, port = attempt.values.port, "another program has the worker's port");
        lost.push(attempt.values.port);
        if lost.len() == PORT_TRIES {
            return Err(StartError::PortsLost { ports: lost, stderr_tail });
        }
    }
}

/// Why an attempt did not lead to a worker that is ready.
enum Unready {
    PortLost { stderr_tail: Arc<[String]> },
    Failed(StartError),
}

/// One process that is to become a worker.
struct Attempt<'a> {
    shared: &'a Shared,
    values: Values,
    began_at: SystemTime,
    process: Process,
    pids: Pids,
    logs: Logs,
    connector: Connector,
    signs: Signs,
}

/// Ways in which the worker itself says that it is ready.
struct Signs {
    notify: Option<NotifySocket>,
    line: Option<oneshot::Receiver<()>>,
}

impl<'a> Attempt<'a> {
    /// Gathers what a worker needs and launches it.
    async fn begin(shared: &'a Shared, id: WorkerId, number: usize, deadline: Instant) -> Result<Self, StartError> {
        let options = &shared.options;
        let resource = |what| move |source| StartError::Resource { what, source };
        let directory = WorkerDirectory::create(&shared.state, id, number).map_err(resource("private directory"))?;

        let (port, listener) = match options.listen {
            Listen::Inherit => (None, Some(listening_socket().map_err(resource("listening socket"))?)),
            Listen::Port | Listen::Socket => (Some(reserve_port()?), None),
        };
        let number = listener.as_ref().map_or_else(|| port.as_ref().map_or(0, Port::number), |(number, _)| *number);
        let values = options.values(id, number, &directory);
        let connector = match options.listen {
            Listen::Socket => Connector::unix(directory.socket().to_owned(), options.protocol),
            Listen::Port | Listen::Inherit => Connector::tcp(number, options.protocol),
        };

        let (notify, notify_path) = match options.ready {
            Ready::Notify => {
                let socket = NotifySocket::bind(directory.notify()).map_err(resource("notification socket"))?;
                (Some(socket), Some(directory.notify().into()))
            }
            _ => (None, None),
        };
        let (tap, line) = match &options.ready {
            Ready::Stdout(pattern) => {
                let (found, line) = oneshot::channel();
                (Some(Tap { pattern: pattern.clone(), found }), Some(line))
            }
            _ => (None, None),
        };

        let logs = Logs::new();
        let (pipes, writers) = Pipes::new().map_err(resource("output pipes"))?;
        let mut spec = options.spec(&values, notify_path);
        spec.listen.extend(listener.map(|(_, socket)| socket));
        spec.stdout = Some(writers.stdout);
        spec.stderr = Some(writers.stderr);
        let launch = Launch {
            program: options.program_name(),
            spec,
            init_program: options.init_program.clone(),
            stop_signal: options.stop_signal,
            stop_grace: options.stop_grace,
            output: Some(Output::read(pipes, id, logs.clone(), tap)),
            logs: logs.clone(),
            // The count goes last: when it is back to zero, everything else is released.
            belongings: Box::new((port, directory, shared.live.enter())),
        };
        let began_at = SystemTime::now();
        let (process, pids) = match timeout_at(deadline, Process::launch(launch)).await {
            Ok(launched) => launched?,
            Err(_) => {
                return Err(StartError::TimedOut {
                    program: options.program_name(),
                    after: options.start_timeout,
                    waited_for: "its init to run it".to_owned(),
                    last_seen: "nothing".to_owned(),
                    stderr_tail: Arc::default(),
                });
            }
        };
        Ok(Self { shared, values, began_at, process, pids, logs, connector, signs: Signs { notify, line } })
    }

    /// Waits until the worker is ready, and ends it if it does not become so.
    async fn wait_ready(&mut self, deadline: Instant) -> Result<(), Unready> {
        let watch = Watch {
            shared: self.shared,
            values: &self.values,
            pids: self.pids,
            connector: &self.connector,
            seen: Mutex::default(),
        };
        let ended = select! {
            biased;
            exit = self.process.exited() => Ended::Exited(exit),
            () = sleep_until(deadline) => Ended::TimedOut,
            ready = watch.until_ready(&mut self.signs) => match ready {
                Ok(()) => return Ok(()),
                Err(PortLost) => Ended::PortLost,
            },
        };
        // When it takes longer, the supervising task goes on alone.
        let _ = timeout(KILL_PATIENCE, self.process.kill()).await;
        let stderr_tail = self.process.exit().map(|exit| exit.stderr_tail).unwrap_or_default();
        let options = &self.shared.options;
        let program = options.program_name();
        Err(match ended {
            Ended::PortLost => Unready::PortLost { stderr_tail },
            Ended::Exited(_) if self.lost_its_port(&stderr_tail) => Unready::PortLost { stderr_tail },
            Ended::Exited(Exit { status, .. }) => Unready::Failed(StartError::Exited { program, status, stderr_tail }),
            Ended::TimedOut => Unready::Failed(StartError::TimedOut {
                program,
                after: options.start_timeout,
                waited_for: options.ready.describe().to_string(),
                last_seen: watch.last_seen(),
                stderr_tail,
            }),
        })
    }

    /// Whether a worker that ended during its start did so because somebody else has its port: somebody listens there, or
    /// the worker says that the address is in use and means this one.
    fn lost_its_port(&self, stderr_tail: &[String]) -> bool {
        let port = self.values.port;
        if self.shared.options.listen != Listen::Port {
            return false;
        }
        let says_so = |line: &&String| {
            let line = line.to_ascii_lowercase();
            ["address already in use", "address in use", "eaddrinuse"].iter().any(|phrase| line.contains(phrase))
        };
        let means_this_one = |line: &String| line.contains(&port.to_string()) || !ports::is_free(port).unwrap_or(true);
        matches!(holder(port, &[]), Ok(Holder::Somebody)) || stderr_tail.iter().filter(says_so).any(means_this_one)
    }

    fn into_started(self, began: Instant) -> Started {
        let port = (self.shared.options.listen == Listen::Port).then_some(self.values.port);
        Started {
            process: self.process,
            pids: self.pids,
            logs: self.logs,
            connector: self.connector,
            port,
            at: self.began_at,
            ready_after: began.elapsed(),
        }
    }
}

/// How the wait for readiness ended, other than well.
enum Ended {
    Exited(Exit),
    TimedOut,
    PortLost,
}

/// Somebody else listens on the worker's port.
struct PortLost;

/// What one look at a worker finds.
enum Look {
    Ready,
    NotYet(String),
    PortLost,
}

/// Looks at a worker that is starting.
struct Watch<'a> {
    shared: &'a Shared,
    values: &'a Values,
    pids: Pids,
    connector: &'a Connector,
    seen: Mutex<Seen>,
}

/// What a worker has shown of itself.
#[derive(Default)]
struct Seen {
    /// What the last look found.
    last: Option<String>,
    /// When the worker was asked what it has not answered yet.
    asked: Option<Instant>,
}

impl Watch<'_> {
    /// Resolves when the worker is ready.
    async fn until_ready(&self, signs: &mut Signs) -> Result<(), PortLost> {
        let options = &self.shared.options;
        sleep(options.start_health_check_delay).await;
        match &options.ready {
            Ready::Http(path) => return self.poll(LONGEST_PAUSE, || self.look_at_http(path)).await,
            Ready::Tcp | Ready::Socket => return self.poll(LONGEST_PAUSE, || self.look_at_listener()).await,
            Ready::Command(command) => self.poll(LONGEST_COMMAND_PAUSE, || self.run(command)).await?,
            Ready::Stdout(_) => {
                self.see("no such line");
                if let Some(line) = &mut signs.line
                    && line.await.is_err()
                {
                    self.see("the end of its standard output");
                    std::future::pending::<()>().await;
                }
            }
            Ready::Notify => {
                self.see("no notification");
                if let Some(notify) = &signs.notify
                    && let Err(error) = notify.ready(|status| self.see(status)).await
                {
                    self.see(format!("an error of its notification socket: {error}"));
                    std::future::pending::<()>().await;
                }
            }
        }
        // It says that it is ready; it has to be reachable, too.
        self.poll(LONGEST_PAUSE, || self.look_for_listener()).await
    }

    /// Looks again and again until the worker is ready.
    async fn poll<F: Future<Output = Look>>(&self, longest: Duration, look: impl Fn() -> F) -> Result<(), PortLost> {
        let mut pauses = Pauses::default();
        loop {
            match look().await {
                Look::Ready => return Ok(()),
                Look::PortLost => return Err(PortLost),
                Look::NotYet(what) => self.see(what),
            }
            sleep(pauses.next().min(longest)).await;
        }
    }

    fn see(&self, what: impl Into<String>) {
        *self.seen() = Seen { last: Some(what.into()), asked: None };
    }

    fn last_seen(&self) -> String {
        let seen = self.seen();
        match (&seen.last, seen.asked) {
            // A question that was asked just before the end says less than the answer before it.
            (Some(last), asked) if asked.is_none_or(|asked| asked.elapsed() < SILENCE) => last.clone(),
            (_, Some(_)) => "a connection, but no answer yet".to_owned(),
            _ => "nothing".to_owned(),
        }
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn look_at_http(&self, path: &str) -> Look {
        let stream = match self.connect().await {
            Ok(stream) => stream,
            Err(look) => return look,
        };
        self.seen().asked = Some(Instant::now());
        match timeout(PROBE_TIMEOUT, probe::status(self.connector, stream, path)).await {
            Ok(Ok(status)) if status.is_success() => Look::Ready,
            Ok(Ok(status)) => Look::NotYet(format!("status {}", status.as_u16())),
            Ok(Err(error)) => Look::NotYet(error),
            Err(_) => Look::NotYet(format!("no answer within {PROBE_TIMEOUT:?}")),
        }
    }

    async fn look_at_listener(&self) -> Look {
        self.connect().await.map_or_else(|look| look, |_| Look::Ready)
    }

    /// For a worker that says itself that it is ready: whether it can be reached too.
    async fn look_for_listener(&self) -> Look {
        match self.shared.options.listen {
            Listen::Inherit => Look::Ready,
            Listen::Socket => self.look_at_listener().await,
            Listen::Port => self.look_at_holder(),
        }
    }

    fn look_at_holder(&self) -> Look {
        match holder(self.values.port, &[self.pids.init, self.pids.main]) {
            Ok(Holder::Worker) => Look::Ready,
            Ok(Holder::Nobody) => Look::NotYet(format!("that, but nobody listens on port {}", self.values.port)),
            Ok(Holder::Somebody) => Look::PortLost,
            Err(error) => Look::NotYet(format!("that, but who listens cannot be told: {error}")),
        }
    }

    /// Connects to the worker, and makes sure that it is the worker.
    async fn connect(&self) -> Result<crate::Stream, Look> {
        let stream = match timeout(PROBE_TIMEOUT, self.connector.connect()).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return Err(Look::NotYet(probe::describe_connect(&error))),
            Err(_) => return Err(Look::NotYet(format!("no connection within {PROBE_TIMEOUT:?}"))),
        };
        match self.shared.options.listen {
            Listen::Socket | Listen::Inherit => Ok(stream),
            Listen::Port => match self.look_at_holder() {
                Look::Ready => Ok(stream),
                other => Err(other),
            },
        }
    }

    /// Runs the readiness command once.
    async fn run(&self, command: &[Template]) -> Look {
        let options = &self.shared.options;
        let launch = Launch {
            program: command.first().map(Template::to_string).unwrap_or_default(),
            spec: options.command_spec(command, self.values),
            init_program: options.init_program.clone(),
            stop_signal: Signal::KILL,
            stop_grace: Duration::ZERO,
            output: None,
            logs: Logs::new(),
            belongings: Box::new(self.shared.live.enter()),
        };
        let ran = timeout(COMMAND_TIMEOUT, async {
            let (process, _) = Process::launch(launch).await?;
            Ok::<_, StartError>(process.exited().await.status)
        });
        match ran.await {
            Ok(Ok(herd_pool::ExitStatus::Code(0))) => Look::Ready,
            Ok(Ok(status)) => Look::NotYet(status.to_string()),
            Ok(Err(error)) => Look::NotYet(error.to_string()),
            Err(_) => Look::NotYet(format!("no end of the command within {COMMAND_TIMEOUT:?}")),
        }
    }
}

/// 1 ms twice, then twice as much each time.
#[derive(Default)]
struct Pauses(Option<Duration>);

impl Pauses {
    fn next(&mut self) -> Duration {
        let pause = self.0.unwrap_or(FIRST_PAUSE);
        self.0 = Some(if self.0.is_none() { FIRST_PAUSE } else { (pause * 2).min(LONGEST_COMMAND_PAUSE) });
        pause
    }
}

/// A socket that listens on a port that the kernel picks: the worker gets the socket itself, so nobody can come between.
fn listening_socket() -> std::io::Result<(u16, OwnedFd)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    Ok((listener.local_addr()?.port(), listener.into()))
}

fn reserve_port() -> Result<Port, StartError> {
    Port::reserve().map_err(|error| match error {
        ReserveError::AllTaken => StartError::NoFreePort,
        ReserveError::Io(source) => StartError::Resource { what: "port", source },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_begin_with_a_millisecond_and_stay_short() {
        let mut pauses = Pauses::default();
        let millis: Vec<_> = (0..12).map(|_| pauses.next().as_millis()).collect();
        assert_eq!(millis, [1, 1, 2, 4, 8, 16, 32, 64, 128, 256, 500, 500]);
    }

    #[test]
    fn a_worker_that_listens_after_3_ms_is_seen_after_4() {
        let mut pauses = Pauses::default();
        let mut look = Duration::ZERO;
        while look < Duration::from_millis(3) {
            look += pauses.next();
        }
        assert_eq!(look, Duration::from_millis(4));
    }
}
