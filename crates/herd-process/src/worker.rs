use std::{
    fmt, io,
    sync::Arc,
    time::{Duration, SystemTime},
};

use herd_pool::{Connect, Exit, HealthError, Protocol, Worker, WorkerId};
use tokio::time::timeout;

use crate::{
    CgroupUsage, Connector, ExecCommand, ExecError, Execution, HttpClient, Layer, Limits, Logs, Missing, Stream,
    cgroups::WorkerCgroup, factory::Shared, listener::Holder, options::Ready, probe, start::Started,
};

/// How long a liveness check may take: less than pools grant, so that what was found is told and not only that time was
/// up.
const HEALTH_TIMEOUT: Duration = Duration::from_secs(4);

/// One worker: a process tree under an init of its own, and a connection to it.
///
/// **Dropping it kills the whole tree**; [`close`](Worker::close) asks it to stop first.
pub struct ProcessWorker<C = HttpClient> {
    id: WorkerId,
    address: String,
    client: C,
    started: Started,
    shared: Arc<Shared>,
}

impl<C> ProcessWorker<C> {
    pub(crate) fn new(id: WorkerId, shared: Arc<Shared>, started: Started, client: C) -> Self {
        Self { id, address: started.connector.to_string(), client, started, shared }
    }

    /// The process ID of the worker's main process, which is also the ID of its process group.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.started.pids.main
    }

    /// The process ID of the worker's init, the parent of its main process.
    #[must_use]
    pub fn init_pid(&self) -> u32 {
        self.started.pids.init
    }

    /// The last lines of its output.
    #[must_use]
    pub fn logs(&self) -> &Logs {
        &self.started.logs
    }

    /// What it may use at most, as far as that is enforced.
    #[must_use]
    pub fn limits(&self) -> Limits {
        self.shared.limits
    }

    /// The layers of the sandbox that it is in, from the outermost.
    #[must_use]
    pub fn layers(&self) -> &[Layer] {
        self.shared.sandbox.layers()
    }

    /// What it was started without because this host cannot give it, as
    /// [`ProcessFactory::missing`](crate::ProcessFactory::missing) tells.
    #[must_use]
    pub fn missing(&self) -> &[Missing] {
        &self.shared.missing
    }

    /// What all of its processes use, or have used in the end; `None` where workers have no cgroups.
    ///
    /// # Errors
    /// Those of reading the cgroup's files.
    pub fn usage(&self) -> Option<io::Result<CgroupUsage>> {
        self.started.cgroup.as_ref().map(WorkerCgroup::usage)
    }

    /// When its program was started.
    #[must_use]
    pub fn started(&self) -> SystemTime {
        self.started.at
    }

    /// How long it took from the request for a worker until it was ready.
    #[must_use]
    pub fn ready_after(&self) -> Duration {
        self.started.ready_after
    }

    /// Opens connections to it; for clients that are not the typed one.
    #[must_use]
    pub fn connector(&self) -> &Connector {
        &self.started.connector
    }

    /// Runs a further command in the worker's sandbox, and resolves when its program runs, within 10 s.
    ///
    /// It has the worker's namespaces, cgroup, user, capabilities, limits, filters and environment; so it can do what the
    /// worker can, and the worker can do to it what it can do to itself. With Landlock it is beside the worker and not
    /// in its place: neither can look into the other (ptrace(2), `/proc/PID/environ`), and from Linux 6.12 on neither can
    /// signal the other.
    ///
    /// It ends with the worker; its own end does not end the worker.
    ///
    /// Cancel safe: dropping the future kills what has been started.
    ///
    /// # Errors
    /// [`ExecError`]; nothing of the command runs then.
    pub async fn execute(&self, command: ExecCommand) -> Result<Execution, ExecError> {
        self.started.process.execute(command).await
    }

    /// Whether the worker's port is its own. A worker may close its listener, and then anybody may take the port.
    async fn check_port(&self) -> Result<(), HealthError> {
        let Some(own) = self.started.connector.own_port() else { return Ok(()) };
        let port = own.number();
        match own.holder().await {
            Ok(Holder::Worker) => Ok(()),
            Ok(Holder::Nobody) => Err(HealthError::new(format_args!("nobody listens on its port {port}"))),
            Ok(Holder::Somebody) => Err(HealthError::new(format_args!("another program listens on its port {port}"))),
            Err(error) => Err(HealthError::new(format_args!("who listens on its port {port} cannot be told: {error}"))),
        }
    }

    async fn check_answer(&self) -> Result<(), HealthError> {
        let connector = &self.started.connector;
        let connect =
            async { connector.connect().await.map_err(|error| HealthError::new(probe::describe_connect(&error))) };
        match &self.shared.options.ready {
            Ready::Http(path) => {
                let status = probe::status(connector, connect.await?, path).await.map_err(HealthError::new)?;
                if status.is_server_error() {
                    return Err(HealthError::new(format_args!("status {}", status.as_u16())));
                }
            }
            Ready::Tcp | Ready::Socket => drop(connect.await?),
            Ready::Stdout(_) | Ready::Notify | Ready::Command(_) => {}
        }
        Ok(())
    }
}

impl<C> fmt::Debug for ProcessWorker<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("ProcessWorker");
        debug.field("id", &self.id).field("address", &self.address).field("pid", &self.pid()).finish_non_exhaustive()
    }
}

impl<C: Send + Sync + 'static> Worker for ProcessWorker<C> {
    type Client = C;

    fn id(&self) -> WorkerId {
        self.id
    }

    /// `http://127.0.0.1:PORT`, or `unix:PATH` for a worker with [`Listen::Socket`](crate::Listen::Socket).
    fn address(&self) -> &str {
        &self.address
    }

    fn client(&self) -> &C {
        &self.client
    }

    /// Checks that the worker lives, in the way in which it showed that it was ready, within 4 s:
    ///
    /// - by HTTP, if it answers its health path with any status below 500: a worker that says "not found" or "busy"
    ///   lives. One that answers garbage, or nothing in time, does not, so the health path of a worker that computes
    ///   for long must be answered meanwhile;
    /// - by TCP or Unix socket, if it accepts a connection; the kernel does that also for a worker that is busy;
    /// - otherwise if its main process runs, so that no work of whatever length makes it look dead.
    ///
    /// In the host's network a worker with a port must also be the one who listens there. Where that cannot be told because it has more than
    /// 4,096 processes or 65,536 descriptors to look through, it is not healthy.
    async fn healthy(&self) -> Result<(), HealthError> {
        if let Some(exit) = self.started.process.exit() {
            return Err(HealthError::new(format_args!("it ended with {exit}")));
        }
        let checked = timeout(HEALTH_TIMEOUT, async {
            self.check_port().await?;
            self.check_answer().await
        });
        match checked.await {
            Ok(checked) => checked,
            Err(_) => Err(HealthError::new(format_args!("no answer within {HEALTH_TIMEOUT:?}"))),
        }
    }

    fn exited(&self) -> impl Future<Output = Exit> + Send + 'static {
        self.started.process.exited()
    }

    /// Sends the stop signal, grants the grace, kills what is left of the whole tree, reaps it and removes its private
    /// directory.
    async fn close(&self) {
        self.started.process.stop().await;
    }

    /// Kills the whole tree at once, reaps it and removes its private directory.
    async fn kill(&self) {
        self.started.process.kill().await;
    }
}

impl<C: Send + Sync> Connect for ProcessWorker<C> {
    type Stream = Stream;

    async fn connect(&self) -> io::Result<Stream> {
        self.started.connector.connect().await
    }

    fn protocol(&self) -> Protocol {
        self.started.connector.protocol()
    }
}
