use std::{ffi::OsString, fmt, sync::Arc};

use herd_pool::{SessionId, SpawnError, WorkerFactory, WorkerId};
use herd_sandbox::{Layer, Missing};
use tokio::task::spawn_blocking;

use crate::{
    HttpClient, Limits,
    builder::{MakeClient, ProcessFactoryBuilder},
    cgroups::Cgroups,
    directory::StateDirectory,
    live::Live,
    options::Options,
    sandbox::Sandbox,
    start,
    worker::ProcessWorker,
    workspace::PersistentWorkspaces,
};

/// Starts workers that are processes: each one runs the same program, under an init of its own. Cheap to clone.
///
/// `C` is the typed client that every worker comes with.
pub struct ProcessFactory<C = HttpClient> {
    shared: Arc<Shared>,
    client: MakeClient<C>,
}

/// What all workers of a factory have in common.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) options: Options,
    pub(crate) sandbox: Sandbox,
    /// The limits that are kept.
    pub(crate) limits: Limits,
    /// What is wanted and this host cannot give.
    pub(crate) missing: Vec<Missing>,
    pub(crate) cgroups: Option<Cgroups>,
    pub(crate) workspaces: Option<PersistentWorkspaces>,
    pub(crate) state: Arc<StateDirectory>,
    pub(crate) live: Live,
}

impl ProcessFactory {
    /// Begins with a program: a path, or a name to search in the `PATH` of the worker's environment. A relative path is
    /// taken from the current directory at the time of [`build`](ProcessFactoryBuilder::build).
    #[expect(clippy::new_ret_no_self, reason = "a factory exists only once its options are validated")]
    pub fn new(program: impl Into<OsString>) -> ProcessFactoryBuilder {
        ProcessFactoryBuilder::new(program.into())
    }
}

impl<C> ProcessFactory<C> {
    pub(crate) fn from_parts(shared: Shared, client: MakeClient<C>) -> Self {
        Self { shared: Arc::new(shared), client }
    }

    /// The layers of the sandbox that every worker gets, from the outermost.
    #[must_use]
    pub fn layers(&self) -> &[Layer] {
        self.shared.sandbox.layers()
    }

    /// What workers are started without because this host cannot give it, each with the reason and the remedy: layers
    /// of a sandbox at best effort, and cgroups where no limit was asked for that needs them.
    #[must_use]
    pub fn missing(&self) -> &[Missing] {
        &self.shared.missing
    }

    /// What each worker may use at most, as far as that is enforced.
    #[must_use]
    pub fn limits(&self) -> Limits {
        self.shared.limits
    }

    /// Resolves when nothing is left of any worker: no process, no file. Workers that were dropped, and those whose
    /// spawn was, end on their own; this is how to wait for them.
    ///
    /// Cancel safe: it only waits.
    pub async fn none_left(&self) {
        self.shared.live.none_left().await;
    }

    /// Starts no more workers, waits until [none is left](Self::none_left), and removes the state directory, so that
    /// nothing of this factory is left whoever still holds a clone of it. It ends no worker: that is the business of
    /// whoever holds them. A second call waits for the same.
    ///
    /// Cancel safe: the factory is closed once this was polled; what is not waited for goes with the last clone.
    pub async fn close(&self) {
        self.shared.live.close();
        self.shared.live.none_left().await;
        let state = Arc::clone(&self.shared.state);
        // It fails only if the runtime shuts down, and then the state directory goes with the last clone.
        let _ = spawn_blocking(move || state.remove()).await;
    }
}

impl<C: Send + Sync + 'static> ProcessFactory<C> {
    async fn start(&self, id: WorkerId, session: Option<SessionId>) -> Result<ProcessWorker<C>, SpawnError> {
        let started = start::start(&self.shared, id, session).await.map_err(SpawnError::new)?;
        let client = (self.client)(started.connector.clone());
        Ok(ProcessWorker::new(id, Arc::clone(&self.shared), started, client))
    }
}

impl<C> Clone for ProcessFactory<C> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared), client: Arc::clone(&self.client) }
    }
}

impl<C> fmt::Debug for ProcessFactory<C> {
    /// Without arguments and environment, which may hold secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProcessFactory").field("program", &self.shared.options.program).finish_non_exhaustive()
    }
}

impl<C: Send + Sync + 'static> WorkerFactory for ProcessFactory<C> {
    type Worker = ProcessWorker<C>;

    /// Starts a worker. Has to be called on a tokio runtime with I/O and time; the worker's output is read and its
    /// process supervised there, for as long as the worker lives, so it should not be one that serves requests.
    ///
    /// Dropping the future kills what was started.
    ///
    /// # Errors
    /// A [`StartError`](crate::StartError) inside of the [`SpawnError`].
    async fn spawn(&self, id: WorkerId) -> Result<ProcessWorker<C>, SpawnError> {
        self.start(id, None).await
    }

    fn is_per_session(&self) -> bool {
        self.shared.workspaces.is_some()
    }

    /// Starts a worker in the session's workspace, where those are
    /// [kept](ProcessFactoryBuilder::persistent_workspaces).
    async fn spawn_for(&self, id: WorkerId, session: &SessionId) -> Result<ProcessWorker<C>, SpawnError> {
        self.start(id, Some(session.clone())).await
    }
}
