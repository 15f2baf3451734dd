//! From a worker ID to a worker that is ready.

use std::{
    net::{Ipv4Addr, TcpListener},
    os::fd::OwnedFd,
    sync::Arc,
    time::{Duration, SystemTime},
};

use herd_pool::{Exit, SessionId, WorkerId};
use herd_sandbox::Layer;
use tokio::{
    select,
    sync::oneshot,
    task::spawn_blocking,
    time::{Instant, sleep_until, timeout, timeout_at},
};

use crate::{
    Connector,
    cgroups::WorkerCgroup,
    error::StartError,
    factory::Shared,
    listener::{OwnPort, is_listened_on},
    live::LiveGuard,
    logs::Logs,
    notify::NotifySocket,
    options::{Listen, Ready},
    output::{Output, Pipes, Tap},
    place::Place,
    ports::{self, Port, ReserveError},
    process::{Launch, Pids, Process},
    stock::Stock,
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
    pub(crate) cgroup: Option<WorkerCgroup>,
    pub(crate) at: SystemTime,
    pub(crate) ready_after: Duration,
}

/// Starts one worker and waits until it is ready; tries again with another port as long as others take its port.
pub(crate) async fn start(
    shared: &Arc<Shared>,
    id: WorkerId,
    session: Option<SessionId>,
) -> Result<Started, StartError> {
    let began = Instant::now();
    let deadline = began + shared.options.start_timeout;
    let mut lost = Vec::new();
    loop {
        // Before anything is made, so that whoever waits until nothing is left waits for all of it.
        let live = shared.live.enter().ok_or(StartError::Closed)?;
        let place = make_place(shared, live, id, session.clone(), lost.len()).await?;
        let mut attempt = Attempt::begin(shared, place, id, deadline).await?;
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

/// On a thread that may block: what is made are files, here and in the kernel's file systems.
async fn make_place(
    shared: &Arc<Shared>,
    live: LiveGuard,
    id: WorkerId,
    session: Option<SessionId>,
    number: usize,
) -> Result<Place, StartError> {
    let shared = Arc::clone(shared);
    // Whoever does not wait for it any more lets go of what it made.
    let made = spawn_blocking(move || Place::make(&shared, live, id, session.as_ref(), number));
    made.await.unwrap_or_else(|error| Err(StartError::Launch(error.into())))
}

/// Why an attempt did not lead to a worker that is ready.
enum Unready {
    PortLost { stderr_tail: Arc<[String]> },
    Failed(StartError),
}

/// One process that is to become a worker.
struct Attempt<'a> {
    shared: &'a Arc<Shared>,
    values: Values,
    began_at: SystemTime,
    process: Process,
    pids: Pids,
    logs: Logs,
    connector: Connector,
    cgroup: Option<WorkerCgroup>,
    signs: Signs,
}

impl<'a> Attempt<'a> {
    /// Gathers what a worker needs and launches it.
    async fn begin(
        shared: &'a Arc<Shared>,
        mut place: Place,
        id: WorkerId,
        deadline: Instant,
    ) -> Result<Self, StartError> {
        let options = &shared.options;
        let resource = |what| move |source| StartError::Resource { what, source };
        let private_port = shared.sandbox.private_port();
        let mut listener = None;
        let number = match (private_port, options.listen) {
            (Some(number), _) => number,
            (None, Listen::Inherit) => {
                let (number, socket) = listening_socket().map_err(resource("listening socket"))?;
                listener = Some(socket);
                number
            }
            (None, Listen::Port | Listen::Socket) => place.port.insert(reserve_port()?).number(),
        };
        let inside = place.inside(shared);
        let values = options.values(id, number, &inside);

        let (notify, notify_path) = match options.ready {
            Ready::Notify => {
                let run = place.directory().open_run();
                let bound = run.and_then(|run| NotifySocket::bind(&run, place.identity()));
                let socket = bound.map_err(resource("notification socket"))?;
                (Some(socket), Some(inside.notify.into()))
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
        spec.listen.extend(listener);
        if options.listen == Listen::Inherit {
            spec.listen_ports.extend(private_port);
        }
        place.furnish(shared, &mut spec).map_err(resource("sandbox"))?;
        let stock = private_port.filter(|_| options.listen != Listen::Socket).map(|_| Arc::<Stock>::default());
        let unix = match options.listen {
            Listen::Socket => {
                let directory = place.directory();
                let run = directory.open_run().map_err(resource("directory of sockets"))?;
                Some((directory.run().to_owned(), Arc::new(run)))
            }
            Listen::Port | Listen::Inherit => None,
        };
        let cgroup = place.cgroup().cloned();
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
            stock: stock.clone(),
            cgroup: cgroup.clone(),
            is_contained: shared.sandbox.has(Layer::PidNamespace),
            belongings: Box::new(place),
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
        let protocol = options.protocol;
        let connector = match (options.listen, stock, unix) {
            (_, _, Some((directory, run))) => Connector::unix(directory, run, protocol),
            (_, Some(stock), None) => Connector::private(number, stock, protocol),
            (Listen::Inherit, None, None) => Connector::inherited(number, protocol),
            (Listen::Port | Listen::Socket, None, None) => Connector::port(OwnPort::new(number, pids).into(), protocol),
        };
        let signs = Signs { notify, line };
        Ok(Self { shared, values, began_at, process, pids, logs, connector, cgroup, signs })
    }

    /// Waits until the worker is ready, and ends it if it does not become so.
    async fn wait_ready(&mut self, deadline: Instant) -> Result<(), Unready> {
        let watch = Watch::new(self.shared, &self.process, &self.values, &self.connector);
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
            Ended::Exited(Exit { out_of_memory: true, .. }) => {
                Unready::Failed(StartError::OutOfMemory { program, stderr_tail })
            }
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
        if self.connector.own_port().is_none() {
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
            cgroup: self.cgroup,
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
