//! The pool's decisions, without any I/O.
//!
//! [`State::handle`] takes what happened and the time, and leaves [`Action`]s behind for the shell to perform, in
//! order. The shell feeds their outcome back as further [`Input`]s. The state holds all that the invariants are about:
//!
//! - one session has at most one live worker, and one worker at most one session;
//! - all workers together, whatever their phase, are never more than `max_workers`;
//! - every ticket that came in with an acquire gets exactly one answer (a grant or a denial), unless it gave up;
//! - free workers go round the tenants that wait, and of each to the session that has waited for longest.
//!
//! Only the gates of live sessions change without the state: leases are taken and returned in parallel to it.

mod balance;
mod entry;
mod inspect;
mod reconfigure;
mod sessions;
mod tick;
mod workers;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    time::{Duration, SystemTime},
};

pub(crate) use entry::Ending;
use entry::{Entry, Kind, Phase};
pub(crate) use inspect::{SessionView, WorkerView};

use crate::{
    AcquireError, Crash, EndReason, Event, EventKind, Exit, HealthError, NoSuchSession, SessionId, SpawnError, Stats,
    WorkerId, WorkerIds,
    backoff::Backoff,
    clock::Moment,
    generation::Generation,
    idle::Idle,
    index::Index,
    options::Options,
    queue::{Queue, Ticket},
    schedule::Schedule,
    setbacks::Setbacks,
    slot::{Slot, Template},
    sync::Arc,
};

/// What happened. `W` is how the shell refers to a running worker.
#[derive(Debug)]
pub(crate) enum Input<W> {
    /// Somebody wants a lease and found no live session.
    Acquire { ticket: Ticket, session: SessionId },
    /// The caller with this ticket does not wait any more.
    GiveUp { ticket: Ticket },
    /// Somebody wants a session to end.
    End { ticket: Ticket, session: SessionId, reason: EndReason, force: Force },
    /// The last lease of a session whose gate is watched came back.
    LastLease { worker: WorkerId },
    /// A start ended.
    Spawned { worker: WorkerId, outcome: Result<W, SpawnError> },
    /// A start was given up, as [`Action::CancelSpawns`] asked for.
    SpawnCancelled { worker: WorkerId },
    /// A check before hand-out ended.
    Checked { worker: WorkerId, outcome: Result<(), HealthError> },
    /// A liveness probe ended.
    Probed { worker: WorkerId, outcome: Result<(), HealthError> },
    /// A worker ended, by itself or not.
    Exited { worker: WorkerId, exit: Exit },
    /// Nothing of a worker runs any more.
    Closed { worker: WorkerId },
    /// Other options count from now on, and a new generation of workers with them.
    Reconfigure { options: Box<Options>, generation: Generation },
    /// No new leases; the rest ends at the timeout.
    Drain { timeout: Duration },
    /// Everything ends now.
    Shutdown,
    /// Time passed.
    Tick,
}

/// How a worker is ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Force {
    Close,
    Kill,
}

/// What the shell has to do.
#[derive(Debug)]
pub(crate) enum Action<W> {
    /// Start a worker, for this session if there is one; answer with `Spawned`.
    Spawn { worker: WorkerId, session: Option<SessionId>, generation: Generation },
    /// Give up the starts of all generations but this one, of all if there is none; answer each with `SpawnCancelled`,
    /// or `Spawned` if it was faster.
    CancelSpawns { except: Option<Generation> },
    /// Check a worker quickly; answer with `Checked`.
    Check { worker: WorkerId, handle: W },
    /// Probe a worker; answer with `Probed`.
    Probe { worker: WorkerId, handle: W },
    /// End a worker; answer with `Closed`.
    End { worker: WorkerId, handle: W, force: Force },
    /// Give a lease to a caller. It is counted in the slot's gate already.
    Grant { ticket: Ticket, slot: Arc<Slot<W>>, is_new: bool },
    /// Give an error to a caller.
    Deny { ticket: Ticket, error: AcquireError },
    /// Tell a caller how a session ended.
    Answer { ticket: Ticket, outcome: Result<EndReason, NoSuchSession> },
    /// Wake those who wait for the session's end.
    Tell(Arc<Slot<W>>),
    /// Call the crash callback.
    Crashed(Crash),
    /// Tell subscribers.
    Publish(Event),
    /// A worker is gone: stop watching it, and drop what is left of it outside of the lock.
    Discard(WorkerId, Option<Box<Ending<W>>>),
    /// No worker is left and none will come.
    Emptied,
}

/// What is due at some time, apart from idle sessions.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Timer {
    /// The longest time that a session may live.
    Lifetime(WorkerId),
    /// A liveness probe.
    Probe(WorkerId),
    /// The longest time that the leases of an ended session may keep its worker from being reused.
    Linger(WorkerId),
    /// The end of a drain.
    Drain,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Mode {
    Running,
    Draining { until: Moment },
    Stopping,
}

/// See the [module](self).
pub(crate) struct State<W> {
    options: Options,
    /// Which workers come from the factory that counts now.
    generation: Generation,
    template: Template,
    worker_ids: WorkerIds,
    index: Arc<Index<W>>,
    mode: Mode,
    workers: BTreeMap<WorkerId, Entry<W>>,
    /// How many of those that are starting come from a factory that does not count any more.
    given_up: usize,
    /// How many workers are in each kind of phase.
    census: [usize; Kind::COUNT],
    spares: BTreeSet<WorkerId>,
    /// Sessions for which workers are being started that serve nobody else.
    coming: HashMap<SessionId, WorkerId>,
    /// Sessions that ended, or whose worker nobody waited for any more, and whose workers are not gone yet.
    endings: HashMap<SessionId, WorkerId>,
    queue: Queue,
    /// Live sessions by when they may be idle, as far as is known: leases come and go without the state. One that is
    /// found to have leases when it is looked at is taken out and its gate watched; the return of its last lease puts
    /// it back.
    idle: Idle,
    /// Under `IdleBy::Bytes`, live sessions that were found to have leases, by when they may have been silent for the
    /// `ttl`. They can end as idle, but cannot be evicted.
    silent: Schedule<WorkerId>,
    timers: Schedule<Timer>,
    probes: Probes,
    /// For workers that any session may get.
    backoff: Backoff,
    /// The same: such a worker has served nobody, so everybody may hear why it could not be started.
    last_spawn_error: Option<SpawnError>,
    /// For workers that are for one session.
    setbacks: Setbacks,
    /// Whether a tenant has ever come. Workers that have served a session are no spares from then on.
    has_tenants: bool,
    /// Whether a start waits for the back-off.
    held_back: bool,
    /// When the first of those may be tried, unless that takes the outcome of another start.
    held_until: Option<Moment>,
    /// Whether the search for a session to evict was cut short.
    evict_on: bool,
    counters: Stats,
    sequence: u64,
    actions: Vec<Action<W>>,
}

/// Liveness probes that run, and those whose time has come but which have to wait for these.
#[derive(Debug, Default)]
struct Probes {
    running: usize,
    overdue: VecDeque<WorkerId>,
}

impl<W: Clone> State<W> {
    pub(crate) fn new(options: Options, template: Template, worker_ids: WorkerIds, index: Arc<Index<W>>) -> Self {
        let counters = Stats { max_workers: options.max_workers, ..Stats::default() };
        Self {
            options,
            generation: Generation::default(),
            template,
            worker_ids,
            index,
            mode: Mode::Running,
            workers: BTreeMap::new(),
            given_up: 0,
            census: [0; Kind::COUNT],
            spares: BTreeSet::new(),
            coming: HashMap::new(),
            endings: HashMap::new(),
            queue: Queue::default(),
            idle: Idle::default(),
            silent: Schedule::default(),
            timers: Schedule::default(),
            probes: Probes::default(),
            backoff: Backoff::default(),
            last_spawn_error: None,
            setbacks: Setbacks::default(),
            has_tenants: false,
            held_back: false,
            held_until: None,
            evict_on: false,
            counters,
            sequence: 0,
            actions: Vec::new(),
        }
    }

    /// Takes in what happened. `now` never goes back.
    pub(crate) fn handle(&mut self, input: Input<W>, now: Moment) {
        match input {
            Input::Acquire { ticket, session } => self.acquire(ticket, &session, now),
            Input::GiveUp { ticket } => {
                self.queue.leave(ticket);
            }
            Input::End { ticket, session, reason, force } => self.end(ticket, &session, reason, force, now),
            Input::LastLease { worker } => self.last_lease(worker, now),
            Input::Spawned { worker, outcome: Ok(handle) } => self.ready(worker, handle, now),
            Input::Spawned { worker, outcome: Err(error) } => self.spawn_failed(worker, &error, now),
            Input::SpawnCancelled { worker } => self.remove(worker),
            Input::Checked { worker, outcome } => self.checked(worker, outcome, now),
            Input::Probed { worker, outcome } => self.probed(worker, outcome, now),
            Input::Exited { worker, exit } => self.exited(worker, exit, now),
            Input::Closed { worker } => self.closed(worker),
            Input::Reconfigure { options, generation } => self.reconfigure(*options, generation, now),
            Input::Drain { timeout } => self.drain(timeout, now),
            Input::Shutdown => self.shutdown(now),
            Input::Tick => self.tick(now),
        }
        self.balance(now);
    }

    /// What is left to do, in order.
    pub(crate) fn take_actions(&mut self) -> Vec<Action<W>> {
        std::mem::take(&mut self.actions)
    }

    fn act(&mut self, action: Action<W>) {
        self.actions.push(action);
    }

    fn publish(&mut self, kind: EventKind) {
        self.sequence += 1;
        let event = Event { sequence: self.sequence, at: SystemTime::now(), kind };
        self.act(Action::Publish(event));
    }

    pub(crate) fn running(&self) -> bool {
        self.mode == Mode::Running
    }
}
