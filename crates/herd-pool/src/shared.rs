//! The state behind its lock, and what surrounds it: the part of the pool that all handles, leases and tasks share.

use std::{
    collections::HashMap,
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
};

use tokio::{
    runtime::Handle,
    sync::{Notify, broadcast, oneshot, watch},
    task::{AbortHandle, JoinSet},
};
use tracing::{Instrument as _, Span};

use crate::{
    AcquireError, EndReason, Event, Events, Lease, NoSuchSession, WorkerFactory, WorkerId, WorkerIds,
    builder::{CrashCallback, EventCallback},
    clock::{Clock, Moment},
    driver,
    event::BACKLOG,
    generation::Generation,
    index::Index,
    options::Options,
    queue::Ticket,
    setup::Setup,
    slot::Template,
    state::{Input, State},
};

/// A reference to a worker of factory `F`.
pub(crate) type WorkerOf<F> = Arc<<F as WorkerFactory>::Worker>;

pub(crate) struct Shared<F: WorkerFactory> {
    /// Changes only together with the state's options, under the core's lock. Locked after the core.
    setup: RwLock<Arc<Setup<F>>>,
    pub(crate) clock: Clock,
    /// Live sessions. Hits read it; only the state, under the core's lock, changes it.
    pub(crate) index: Arc<Index<WorkerOf<F>>>,
    core: Mutex<Core<F>>,
    tickets: AtomicU64,
    /// Where the answers to waiting callers go. Locked after the core, if together with it.
    replies: Mutex<HashMap<Ticket, Reply<F>>>,
    runtime: Handle,
    /// In which the pool was made. Its lines in the log belong there, whoever's call brings them about.
    pub(crate) span: Span,
    /// The tasks that start, check, probe and end workers. All of them end by themselves, in bounded time or with the
    /// worker they end.
    tasks: Mutex<JoinSet<()>>,
    /// The tasks that wait for workers to exit; each is aborted when its worker is gone.
    pub(crate) watches: Mutex<HashMap<WorkerId, AbortHandle>>,
    pub(crate) on_event: Option<EventCallback>,
    pub(crate) events: broadcast::Sender<Event>,
    /// Wakes the driver because something is due earlier than it thinks.
    pub(crate) alarm: Notify,
    /// Whose starts go on; those of others are to be given up, and all if there is none.
    pub(crate) starting: watch::Sender<Option<Generation>>,
    /// Turns true when no worker is left and none will come.
    pub(crate) emptied: watch::Sender<bool>,
}

struct Core<F: WorkerFactory> {
    state: State<WorkerOf<F>>,
    /// Whether some thread performs actions at this moment. It performs those that others cause meanwhile as well,
    /// which keeps the actions in order without holding the lock.
    performing: bool,
    /// When the driver wakes up by itself.
    armed: Option<Moment>,
}

/// Where an answer goes.
pub(crate) enum Reply<F: WorkerFactory> {
    Acquire(oneshot::Sender<Result<Lease<F>, AcquireError>>),
    End(oneshot::Sender<Result<EndReason, NoSuchSession>>),
}

impl<F: WorkerFactory> Shared<F> {
    /// Makes what a pool shares and starts its first workers. The events begin with those starts.
    pub(crate) fn start(
        factory: F,
        options: Options,
        on_crash: Option<CrashCallback>,
        on_event: Option<EventCallback>,
        worker_ids: WorkerIds,
        runtime: Handle,
    ) -> (Arc<Self>, Events) {
        let clock = Clock::start();
        let index = Arc::new(Index::new());
        let shared = Arc::new_cyclic(|shared| {
            let home: std::sync::Weak<Self> = shared.clone();
            let template = Template::new(clock, home, &options);
            let state = State::new(options.clone(), template, worker_ids, Arc::clone(&index));
            let generation = Generation::default();
            Self {
                setup: RwLock::new(Arc::new(Setup { factory, options, on_crash, generation })),
                clock,
                index,
                core: Mutex::new(Core { state, performing: false, armed: None }),
                tickets: AtomicU64::new(0),
                replies: Mutex::default(),
                runtime,
                span: Span::current(),
                tasks: Mutex::default(),
                watches: Mutex::default(),
                on_event,
                events: broadcast::Sender::new(BACKLOG),
                alarm: Notify::new(),
                starting: watch::Sender::new(Some(generation)),
                emptied: watch::Sender::new(false),
            }
        });
        // Before the first tick, which starts workers and says so.
        let events = Events::new(shared.events.subscribe());
        shared.spawn(driver::drive(Arc::clone(&shared)));
        shared.feed(Input::Tick);
        (shared, events)
    }

    /// Lets the state know what happened, and performs what follows from it.
    pub(crate) fn feed(self: &Arc<Self>, input: Input<WorkerOf<F>>) {
        let mut core = self.core();
        // The time is read under the lock, so that it never goes back for the state.
        core.state.handle(input, self.clock.now());
        self.rearm(&mut core);
        self.perform_all(core);
    }

    /// Lets another configuration count, unless the pool starts nothing any more.
    pub(crate) fn reconfigure(self: &Arc<Self>, factory: F, options: Options, on_crash: Option<CrashCallback>) {
        let mut core = self.core();
        if !core.state.running() {
            return;
        }
        let mut setup = self.setup.write().unwrap_or_else(PoisonError::into_inner);
        let generation = setup.generation.next();
        let input = Input::Reconfigure { options: Box::new(options.clone()), generation };
        // It is dropped at the end, without a lock: a factory is code of others.
        let _former = std::mem::replace(&mut *setup, Arc::new(Setup { factory, options, on_crash, generation }));
        drop(setup);
        core.state.handle(input, self.clock.now());
        self.rearm(&mut core);
        self.perform_all(core);
    }

    /// The configuration that counts now.
    pub(crate) fn setup(&self) -> Arc<Setup<F>> {
        Arc::clone(&self.setup.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Lets the state know that somebody waits for an answer, which will come to `reply`.
    pub(crate) fn ask(self: &Arc<Self>, reply: Reply<F>, input: impl FnOnce(Ticket) -> Input<WorkerOf<F>>) -> Ticket {
        let mut core = self.core();
        // Tickets are drawn under the lock as well: they are the order of arrival.
        let ticket = Ticket(self.tickets.fetch_add(1, Ordering::Relaxed));
        self.replies().insert(ticket, reply);
        core.state.handle(input(ticket), self.clock.now());
        self.rearm(&mut core);
        self.perform_all(core);
        ticket
    }

    /// Where the answer to a caller goes; `None` if the caller does not wait any more. It can be asked for once.
    pub(crate) fn take_reply(&self, ticket: Ticket) -> Option<Reply<F>> {
        self.replies().remove(&ticket)
    }

    /// Looks at the state.
    pub(crate) fn inspect<T>(&self, look: impl FnOnce(&State<WorkerOf<F>>) -> T) -> T {
        look(&self.core().state)
    }

    /// Tells the driver until when it may sleep.
    pub(crate) fn next_deadline(&self) -> Option<Moment> {
        let mut core = self.core();
        core.armed = core.state.deadline();
        core.armed
    }

    /// Runs a task of the pool.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some(ended) = tasks.try_join_next() {
            if let Err(error) = ended
                && error.is_panic()
            {
                tracing::error!(%error, "a task of the pool panicked");
            }
        }
        tasks.spawn_on(task.instrument(self.span.clone()), &self.runtime);
    }

    /// Runs a task that waits for a worker to exit.
    pub(crate) fn watch(&self, worker: WorkerId, task: impl Future<Output = ()> + Send + 'static) {
        let handle = self.runtime.spawn(task).abort_handle();
        self.watches.lock().unwrap_or_else(PoisonError::into_inner).insert(worker, handle);
    }

    fn core(&self) -> MutexGuard<'_, Core<F>> {
        // Neither workers nor callers run under the lock, so nothing of theirs can panic there.
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn replies(&self) -> MutexGuard<'_, HashMap<Ticket, Reply<F>>> {
        self.replies.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn rearm(&self, core: &mut Core<F>) {
        let deadline = core.state.deadline();
        if deadline.is_some_and(|deadline| core.armed.is_none_or(|armed| deadline < armed)) {
            core.armed = deadline;
            self.alarm.notify_one();
        }
    }

    fn perform_all<'a>(self: &'a Arc<Self>, mut core: MutexGuard<'a, Core<F>>) {
        if core.performing {
            return;
        }
        core.performing = true;
        loop {
            let actions = core.state.take_actions();
            if actions.is_empty() {
                break;
            }
            drop(core);
            for action in actions {
                // Wakers, log subscribers and the drop of a worker are code of others. If it panics, the rest goes on.
                if catch_unwind(AssertUnwindSafe(|| self.perform(action))).is_err() {
                    tracing::error!("what the pool calls on behalf of others panicked");
                }
            }
            core = self.core();
        }
        core.performing = false;
    }
}

impl<F: WorkerFactory> Drop for Shared<F> {
    fn drop(&mut self) {
        for (_, watch) in self.watches.get_mut().unwrap_or_else(PoisonError::into_inner).drain() {
            watch.abort();
        }
    }
}

impl<F: WorkerFactory> fmt::Debug for Shared<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("options", &self.setup().options).finish_non_exhaustive()
    }
}
