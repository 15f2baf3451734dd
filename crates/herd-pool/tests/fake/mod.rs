//! Workers that exist in memory only, and do what a test tells them.
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use herd_pool::{
    EndReason, EventKind, Events, Exit, ExitStatus, HealthError, Lease, Pool, PoolBuilder, SessionId, SpawnError,
    Worker, WorkerFactory, WorkerId,
};
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};

/// What a gate does to whoever passes it.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Behaviour {
    Ok,
    Error,
    Slow(Duration),
    Never,
    Panic,
}

impl Behaviour {
    pub(crate) async fn pass(self) -> Result<(), &'static str> {
        match self {
            Self::Ok => Ok(()),
            Self::Error => Err("told to fail"),
            Self::Slow(delay) => {
                sleep(delay).await;
                Ok(())
            }
            Self::Never => std::future::pending().await,
            Self::Panic => panic!("told to panic"),
        }
    }
}

/// A gate whose behaviour can be changed; those who wait at it notice.
#[derive(Debug)]
pub(crate) struct Gate(watch::Sender<Behaviour>);

impl Gate {
    pub(crate) fn new(behaviour: Behaviour) -> Self {
        Self(watch::Sender::new(behaviour))
    }

    pub(crate) fn set(&self, behaviour: Behaviour) {
        self.0.send_replace(behaviour);
    }

    async fn pass(&self) -> Result<(), &'static str> {
        let mut current = self.0.subscribe();
        loop {
            let behaviour = *current.borrow_and_update();
            tokio::select! {
                outcome = behaviour.pass() => return outcome,
                _ = current.changed() => {}
            }
        }
    }
}

/// The factory of fake workers. Clones are the same factory.
#[derive(Clone, Debug)]
pub(crate) struct Fake(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    spawn: Gate,
    /// What the health gate of workers that are yet to be started does.
    health: Mutex<Behaviour>,
    /// How long closing a worker takes.
    close: Mutex<Duration>,
    /// All workers of which something runs, from the start of their spawn until they are gone.
    running: Mutex<BTreeMap<WorkerId, Option<Arc<Control>>>>,
    spawns: AtomicUsize,
    peak: AtomicUsize,
}

/// How a test reaches into one worker.
#[derive(Debug)]
pub(crate) struct Control {
    pub(crate) health: Gate,
    pub(crate) checks: AtomicUsize,
    pub(crate) closes: AtomicUsize,
    pub(crate) kills: AtomicUsize,
    exit: watch::Sender<Option<Exit>>,
}

/// One fake worker.
#[derive(Debug)]
pub(crate) struct FakeWorker {
    id: WorkerId,
    address: String,
    control: Arc<Control>,
    presence: Presence,
}

/// Counts a worker as running until it is ended or dropped.
#[derive(Debug)]
struct Presence {
    id: WorkerId,
    inner: Arc<Inner>,
}

impl Presence {
    fn end(&self) {
        self.inner.running.lock().unwrap().remove(&self.id);
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        self.end();
    }
}

impl Fake {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Inner {
            spawn: Gate::new(Behaviour::Ok),
            health: Mutex::new(Behaviour::Ok),
            close: Mutex::new(Duration::ZERO),
            running: Mutex::default(),
            spawns: AtomicUsize::new(0),
            peak: AtomicUsize::new(0),
        }))
    }

    pub(crate) fn spawn_gate(&self) -> &Gate {
        &self.0.spawn
    }

    /// Sets the health of all workers, and of those to come.
    pub(crate) fn set_health(&self, behaviour: Behaviour) {
        *self.0.health.lock().unwrap() = behaviour;
        for control in self.0.running.lock().unwrap().values().flatten() {
            control.health.set(behaviour);
        }
    }

    pub(crate) fn set_close_time(&self, time: Duration) {
        *self.0.close.lock().unwrap() = time;
    }

    pub(crate) fn control(&self, worker: WorkerId) -> Arc<Control> {
        Arc::clone(self.0.running.lock().unwrap()[&worker].as_ref().expect("the worker is still starting"))
    }

    pub(crate) fn find(&self, worker: WorkerId) -> Option<Arc<Control>> {
        self.0.running.lock().unwrap().get(&worker)?.clone()
    }

    pub(crate) fn running(&self) -> Vec<WorkerId> {
        self.0.running.lock().unwrap().keys().copied().collect()
    }

    pub(crate) fn spawns(&self) -> usize {
        self.0.spawns.load(Ordering::SeqCst)
    }

    /// The most workers that ran at once.
    pub(crate) fn peak(&self) -> usize {
        self.0.peak.load(Ordering::SeqCst)
    }

    /// A builder that starts nothing by itself and checks nothing while a test is about something else.
    pub(crate) fn pool(&self) -> PoolBuilder<Self> {
        Pool::builder(self.clone()).min_workers(0).spare(0).health_interval(Duration::from_secs(3600))
    }
}

impl Control {
    /// Lets the worker end by itself.
    pub(crate) fn exit(&self, status: ExitStatus) {
        self.exit.send_replace(Some(Exit::with_status(status)));
    }

    pub(crate) fn exit_out_of_memory(&self) {
        let exit = Exit { out_of_memory: true, ..Exit::with_status(ExitStatus::Signal(9)) };
        self.exit.send_replace(Some(exit));
    }

    pub(crate) fn checks(&self) -> usize {
        self.checks.load(Ordering::SeqCst)
    }

    pub(crate) fn closes(&self) -> usize {
        self.closes.load(Ordering::SeqCst)
    }

    pub(crate) fn kills(&self) -> usize {
        self.kills.load(Ordering::SeqCst)
    }
}

impl WorkerFactory for Fake {
    type Worker = FakeWorker;

    async fn spawn(&self, id: WorkerId) -> Result<FakeWorker, SpawnError> {
        self.0.spawns.fetch_add(1, Ordering::SeqCst);
        let running = {
            let mut running = self.0.running.lock().unwrap();
            assert!(running.insert(id, None).is_none(), "{id} was given twice");
            running.len()
        };
        self.0.peak.fetch_max(running, Ordering::SeqCst);
        let presence = Presence { id, inner: Arc::clone(&self.0) };
        self.0.spawn.pass().await.map_err(SpawnError::new)?;
        let control = Arc::new(Control {
            health: Gate::new(*self.0.health.lock().unwrap()),
            checks: AtomicUsize::new(0),
            closes: AtomicUsize::new(0),
            kills: AtomicUsize::new(0),
            exit: watch::Sender::new(None),
        });
        self.0.running.lock().unwrap().insert(id, Some(Arc::clone(&control)));
        Ok(FakeWorker { id, address: format!("fake://{id}"), control, presence })
    }
}

impl FakeWorker {
    fn ended(&self, status: ExitStatus) {
        self.control.exit.send_if_modified(|exit| {
            let first = exit.is_none();
            if first {
                *exit = Some(Exit::with_status(status));
            }
            first
        });
        self.presence.end();
    }
}

impl Worker for FakeWorker {
    type Client = ();

    fn id(&self) -> WorkerId {
        self.id
    }

    fn address(&self) -> &str {
        &self.address
    }

    fn client(&self) -> &() {
        &()
    }

    async fn healthy(&self) -> Result<(), HealthError> {
        self.control.checks.fetch_add(1, Ordering::SeqCst);
        self.control.health.pass().await.map_err(HealthError::new)
    }

    fn exited(&self) -> impl Future<Output = Exit> + Send + 'static {
        let mut exit = self.control.exit.subscribe();
        async move {
            match exit.wait_for(Option::is_some).await {
                Ok(exit) => exit.clone().expect("waited for it"),
                Err(_) => Exit::with_status(ExitStatus::Unknown),
            }
        }
    }

    async fn close(&self) {
        self.control.closes.fetch_add(1, Ordering::SeqCst);
        let time = *self.presence.inner.close.lock().unwrap();
        sleep(time).await;
        self.ended(ExitStatus::Code(0));
    }

    async fn kill(&self) {
        self.control.kills.fetch_add(1, Ordering::SeqCst);
        self.ended(ExitStatus::Signal(9));
    }
}

pub(crate) fn id(text: impl AsRef<[u8]>) -> SessionId {
    SessionId::new(text).unwrap()
}

/// Waits for an event, with a bound in real or paused time that only a failing test reaches.
pub(crate) async fn next_event<T>(events: &mut Events, mut wanted: impl FnMut(&EventKind) -> Option<T>) -> T {
    let found = async {
        loop {
            let event = events.next().await.expect("the test reads all events");
            if let Some(found) = wanted(&event.kind) {
                return found;
            }
        }
    };
    timeout(Duration::from_secs(7 * 86_400), found).await.expect("the event did not come")
}

pub(crate) async fn session_ended(events: &mut Events) -> (SessionId, EndReason) {
    next_event(events, |kind| match kind {
        EventKind::SessionEnded { session, reason, .. } => Some((session.clone(), *reason)),
        _ => None,
    })
    .await
}

/// Waits until the pool has the given number of spares that are ready.
pub(crate) async fn spares<F: WorkerFactory>(pool: &Pool<F>, events: &mut Events, wanted: usize) {
    while pool.stats().workers_spare != wanted {
        next_event(events, |_| Some(())).await;
    }
}

pub(crate) type FakeLease = Lease<Fake>;
