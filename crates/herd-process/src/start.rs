//! From a worker ID to a worker that is ready.

use std::{
    net::{Ipv4Addr, TcpListener},
    os::fd::OwnedFd,
    sync::Arc,
    time::{Duration, SystemTime},
};

use herd_pool::{Exit, WorkerId};
use tokio::{
    select,
    sync::oneshot,
    time::{Instant, sleep_until, timeout, timeout_at},
};

use crate::{
    Connector,
    directory::WorkerDirectory,
    error::StartError,
    factory::Shared,
    listener::{OwnPort, is_listened_on},
    live::LiveGuard,
    logs::Logs,
    notify::NotifySocket,
    options::{Listen, Ready},
    output::{Output, Pipes, Tap},
    ports::{self, Port, ReserveError},
    process::{Launch, Pids, Process},
    template::Values,
    watch::{PortLost, Signs, Watch},
};

/// How many ports a worker may lose to other programs.
const PORT_TRIES: usize = 5;

/// How long the end of a worker that failed to start is waited for, for its last words. It is killed in any case.
const KILL_PATIENCE: Duration = Duration::from_secs(5);

/// A worker that is ready.
pub(crate) struct Started {
    pub(crate) process: Process,
    pub(crate) pids: Pids,
    pub(crate) logs: Logs,
    pub(crate) connector: Connector,
    pub(crate) at: SystemTime,
    pub(crate) ready_after: Duration,
}

/// Starts one worker and waits until it is ready; tries again with another port as long as others take its port.
pub(crate) async fn start(shared: &Shared, id: WorkerId) -> Result<Started, StartError> {
    let began = Instant::now();
    let deadline = began + shared.options.start_timeout;
    let mut lost = Vec::new();
    loop {
        // Before anything is made, so that whoever waits until nothing is left waits for all of it.
        let live = shared.live.enter().ok_or(StartError::Closed)?;
        let mut attempt = Attempt::begin(shared, live, id, lost.len(), deadline).await?;
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

impl<'a> Attempt<'a> {
    /// Gathers what a worker needs and launches it.
    async fn begin(
        shared: &'a Shared,
        live: LiveGuard,
        id: WorkerId,
        earlier_tries: usize,
        deadline: Instant,
    ) -> Result<Self, StartError> {
        let options = &shared.options;
        let resource = |what| move |source| StartError::Resource { what, source };
        let directory =
            WorkerDirectory::create(&shared.state, id, earlier_tries).map_err(resource("private directory"))?;

        let (port, listener) = match options.listen {
            Listen::Inherit => (None, Some(listening_socket().map_err(resource("listening socket"))?)),
            Listen::Port | Listen::Socket => (Some(reserve_port()?), None),
        };
        let number = listener.as_ref().map_or_else(|| port.as_ref().map_or(0, Port::number), |(number, _)| *number);
        let values = options.values(id, number, &directory);
        let socket_path = directory.socket().to_owned();

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
            belongings: Box::new((port, directory, live)),
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
        let connector = match options.listen {
            Listen::Port => Connector::port(OwnPort::new(number, pids).into(), options.protocol),
            Listen::Inherit => Connector::inherited(number, options.protocol),
            Listen::Socket => Connector::unix(socket_path, options.protocol),
        };
        Ok(Self { shared, values, began_at, process, pids, logs, connector, signs: Signs { notify, line } })
    }

    /// Waits until the worker is ready, and ends it if it does not become so.
    async fn wait_ready(&mut self, deadline: Instant) -> Result<(), Unready> {
        let watch = Watch::new(self.shared, &self.values, &self.connector);
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
        is_listened_on(port).unwrap_or(false) || stderr_tail.iter().filter(says_so).any(means_this_one)
    }

    fn into_started(self, began: Instant) -> Started {
        Started {
            process: self.process,
            pids: self.pids,
            logs: self.logs,
            connector: self.connector,
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
