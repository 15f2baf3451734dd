//! A simple model of the world around the state, which checks after every input what holds at any moment.

use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{
    runtime::{Builder, Runtime},
    time::advance,
};

use super::step::Step;
use crate::{
    AcquireError, EndReason, EventKind, Exit, ExitStatus, HealthError, IdleBy, SessionId, SpawnError, Tenant,
    TenantLimits, WorkerId, WorkerIds,
    clock::{Clock, Moment},
    generation::Generation,
    index::Index,
    options::Options,
    queue::Ticket,
    slot::{Home, Slot, Template},
    state::{Action, Input, State},
    tenant::Whose,
};

pub(super) const MS: Duration = Duration::from_millis(1);
pub(super) const TTL: Duration = Duration::from_millis(500);
pub(super) const ACQUIRE_TIMEOUT: Duration = Duration::from_millis(2000);
/// The longest time that a failed start is not tried again.
const MOST_SETBACK: Duration = Duration::from_secs(10);

/// Where last leases are reported; delivered when a step says so, as another thread might be late.
#[derive(Default)]
pub(super) struct Mailbox(pub(super) Mutex<Vec<WorkerId>>);

impl Home for Mailbox {
    fn last_lease_returned(self: Arc<Self>, worker: WorkerId) {
        self.0.lock().unwrap().push(worker);
    }
}

pub(super) struct Waiting {
    session: SessionId,
    since: Moment,
}

/// The world around the state: what runs, who waits, and who holds what.
pub(super) struct World {
    /// Whose clock stands still unless it is told to move.
    runtime: Runtime,
    pub(super) options: Options,
    pub(super) state: State<WorkerId>,
    index: Arc<Index<WorkerId>>,
    pub(super) mailbox: Arc<Mailbox>,
    clock: Clock,
    pub(super) now: Moment,
    tickets: u64,
    pub(super) waiting: BTreeMap<Ticket, Waiting>,
    /// Where the sessions that somebody waits for stand: at the ticket of the first who came.
    places: BTreeMap<SessionId, Ticket>,
    pub(super) enders: BTreeSet<Ticket>,
    pub(super) leases: Vec<Arc<Slot<WorkerId>>>,
    pub(super) spawning: BTreeSet<WorkerId>,
    /// Workers that have served a session and are free again.
    used: BTreeSet<WorkerId>,
    /// Workers that are for one session alone, until they are gone.
    reserved: BTreeMap<WorkerId, SessionId>,
    /// Workers whose start is to be given up, as long as they start.
    cancelled: BTreeSet<WorkerId>,
    /// Which generation each worker is of, until it is gone.
    generations: BTreeMap<WorkerId, Generation>,
    generation: Generation,
    pub(super) tenants: [Tenant; 2],
    /// Those who have sessions in line, in the order in which they are to be served.
    turns: Vec<Whose>,
    /// Whether a session was ever evicted, which changes the turns.
    evicted: bool,
    /// What bounds there may have been when there was more than there may be now.
    most_workers: usize,
    most_waiting: usize,
    pub(super) running: BTreeSet<WorkerId>,
    pub(super) checks: BTreeSet<WorkerId>,
    probes: BTreeSet<WorkerId>,
    pub(super) ends: BTreeSet<WorkerId>,
    /// Sessions from their start until they end.
    pub(super) live: BTreeMap<SessionId, WorkerId>,
    /// What counts as idle for live sessions: what did when they started.
    idle_by: BTreeMap<SessionId, IdleBy>,
    /// Sessions whose own worker could not be started.
    failures: BTreeSet<SessionId>,
    /// Sessions from their end until their workers are gone or free.
    ending: BTreeMap<WorkerId, SessionId>,
    pub(super) started: u64,
    pub(super) ended: u64,
    pub(super) emptied: bool,
    all_cancelled: bool,
}

impl World {
    pub(super) fn new(options: Options) -> Self {
        let runtime = Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let entered = runtime.enter();
        let index = Arc::new(Index::new());
        let mailbox = Arc::new(Mailbox::default());
        let home: Arc<dyn Home> = mailbox.clone();
        let clock = Clock::start();
        let template = Template::new(clock, Arc::downgrade(&home), &options);
        let state = State::new(options.clone(), template, WorkerIds::new(), Arc::clone(&index));
        let now = clock.now();
        drop(entered);
        let tenant = |name| Tenant::new(name, TenantLimits::default()).unwrap();
        let (most_workers, most_waiting) = (options.max_workers, options.max_waiting);
        let mut world = Self {
            runtime,
            options,
            state,
            index,
            mailbox,
            clock,
            now,
            tickets: 0,
            waiting: BTreeMap::new(),
            places: BTreeMap::new(),
            enders: BTreeSet::new(),
            leases: Vec::new(),
            spawning: BTreeSet::new(),
            used: BTreeSet::new(),
            reserved: BTreeMap::new(),
            cancelled: BTreeSet::new(),
            generations: BTreeMap::new(),
            generation: Generation::default(),
            tenants: [tenant("acme"), tenant("other")],
            turns: Vec::new(),
            evicted: false,
            most_workers,
            most_waiting,
            running: BTreeSet::new(),
            checks: BTreeSet::new(),
            probes: BTreeSet::new(),
            ends: BTreeSet::new(),
            live: BTreeMap::new(),
            idle_by: BTreeMap::new(),
            failures: BTreeSet::new(),
            ending: BTreeMap::new(),
            started: 0,
            ended: 0,
            emptied: false,
            all_cancelled: false,
        };
        world.feed(Input::Tick);
        world
    }

    pub(super) fn step(&mut self, step: Step) {
        match step {
            Step::Acquire(session) => {
                let ticket = self.ticket();
                let session = self.name(session);
                let before = self.sessions_of(session.tenant());
                self.waiting.insert(ticket, Waiting { session: session.clone(), since: self.now });
                self.places.entry(session.clone()).or_insert(ticket);
                self.feed(Input::Acquire { ticket, session: session.clone() });
                let limit = session.tenant().and_then(|tenant| tenant.limits().max_sessions);
                let now = self.sessions_of(session.tenant());
                assert!(now <= before || limit.is_none_or(|limit| now <= limit), "a tenant has more than it may have");
            }
            Step::Hit(session) => {
                let session = self.name(session);
                let _entered = self.runtime.enter();
                if let Some(slot) = self.index.hit(&session) {
                    assert_eq!(self.live.get(&session), Some(&slot.worker), "a hit on a session that is not live");
                    self.leases.push(slot);
                }
            }
            Step::GiveUp(pick) => {
                let ticket = self.waiting.keys().nth(pick % self.waiting.len().max(1)).copied();
                if let Some(ticket) = ticket {
                    self.answered(ticket);
                    self.feed(Input::GiveUp { ticket });
                }
            }
            Step::DropLease(pick) if !self.leases.is_empty() => {
                let slot = self.leases.swap_remove(pick % self.leases.len());
                let _entered = self.runtime.enter();
                slot.give_back();
            }
            Step::DropLease(_) => {}
            Step::DeliverLastLease => {
                let reported = mem::take(&mut *self.mailbox.0.lock().unwrap());
                for worker in reported {
                    self.feed(Input::LastLease { worker });
                }
            }
            Step::FinishSpawn { pick, works } => {
                let Some(worker) = take(&mut self.spawning, pick) else { return };
                self.cancelled.remove(&worker);
                let outcome = if works {
                    self.running.insert(worker);
                    Ok(worker)
                } else {
                    let session = self.reserved.remove(&worker);
                    self.generations.remove(&worker);
                    let error = session.as_ref().map_or_else(|| "nobody".to_owned(), ToString::to_string);
                    self.failures.extend(session);
                    Err(SpawnError::new(error))
                };
                self.feed(Input::Spawned { worker, outcome });
            }
            Step::FinishCancel(pick) => {
                if let Some(worker) = take(&mut self.cancelled, pick) {
                    self.spawning.remove(&worker);
                    self.gone_before_it_came(worker);
                }
            }
            Step::Limit { tenant, limits } => self.tenants[tenant].limit(limits),
            Step::Reconfigure(options) => {
                if self.state.audit().running {
                    self.generation = self.generation.next();
                    self.options.clone_from(&options);
                    self.cancelled.clone_from(&self.spawning);
                }
                self.feed(Input::Reconfigure { options, generation: self.generation });
            }
            Step::FinishCheck { pick, healthy } => {
                let Some(worker) = take(&mut self.checks, pick) else { return };
                self.feed(Input::Checked { worker, outcome: found(healthy) });
            }
            Step::FinishProbe { pick, healthy } => {
                let Some(worker) = take(&mut self.probes, pick) else { return };
                self.feed(Input::Probed { worker, outcome: found(healthy) });
            }
            Step::FinishEnd(pick) => {
                let Some(worker) = take(&mut self.ends, pick) else { return };
                self.gone(worker);
            }
            Step::Exit { pick, out_of_memory } => {
                let Some(worker) = self.running.iter().nth(pick % self.running.len().max(1)).copied() else { return };
                let exit = Exit { out_of_memory, ..Exit::with_status(ExitStatus::Code(1)) };
                self.feed(Input::Exited { worker, exit });
                assert!(self.ends.contains(&worker), "a worker that exited is not cleaned up");
            }
            Step::End { session, force } => {
                let ticket = self.ticket();
                self.enders.insert(ticket);
                let (session, reason) = (self.name(session), EndReason::Released);
                self.feed(Input::End { ticket, session, reason, force });
            }
            Step::Advance(millis) => self.advance(self.now.after(Duration::from_millis(millis))),
            Step::Drain(millis) => self.feed(Input::Drain { timeout: Duration::from_millis(millis) }),
            Step::Shutdown => self.feed(Input::Shutdown),
        }
        if self.all_cancelled {
            while let Some(worker) = take(&mut self.spawning, 0) {
                self.gone_before_it_came(worker);
            }
        }
    }

    fn gone_before_it_came(&mut self, worker: WorkerId) {
        self.cancelled.remove(&worker);
        self.reserved.remove(&worker);
        self.generations.remove(&worker);
        self.feed(Input::SpawnCancelled { worker });
    }

    fn gone(&mut self, worker: WorkerId) {
        self.running.remove(&worker);
        self.ending.remove(&worker);
        self.reserved.remove(&worker);
        self.generations.remove(&worker);
        self.feed(Input::Closed { worker });
    }

    /// Lets time pass as the driver does: from one deadline to the next.
    pub(super) fn advance(&mut self, to: Moment) {
        let mut idle_rounds = 0;
        while let Some(due) = self.state.deadline().filter(|due| *due <= to) {
            idle_rounds = if due > self.now { 0 } else { idle_rounds + 1 };
            assert!(idle_rounds < 50, "the state asks for the time again and again");
            self.pass(due);
            self.feed(Input::Tick);
        }
        self.pass(to);
    }

    fn pass(&mut self, to: Moment) {
        self.runtime.block_on(advance(to.since(self.now)));
        self.now = self.now.max(to);
        let _entered = self.runtime.enter();
        assert_eq!(self.clock.now(), self.now);
    }

    fn ticket(&mut self) -> Ticket {
        self.tickets += 1;
        Ticket(self.tickets)
    }

    fn feed(&mut self, input: Input<WorkerId>) {
        let entered = self.runtime.enter();
        self.state.handle(input, self.now);
        drop(entered);
        for action in self.state.take_actions() {
            self.perform(action);
        }
        self.check();
    }

    fn perform(&mut self, action: Action<WorkerId>) {
        match action {
            Action::Spawn { worker, session, generation } => {
                assert!(self.spawning.insert(worker), "{worker} was used twice");
                assert_eq!(generation, self.generation);
                self.generations.insert(worker, generation);
                assert_eq!(session.is_some(), self.options.per_session);
                if let Some(session) = session {
                    let other = self.reserved.values().any(|other| *other == session);
                    assert!(!other, "a second worker of {session} starts while there is one");
                    self.hand_out_to(&session);
                    self.reserved.insert(worker, session);
                }
            }
            Action::CancelSpawns { except: Some(generation) } => assert_eq!(generation, self.generation),
            Action::CancelSpawns { except: None } => self.all_cancelled = true,
            Action::Check { worker, .. } => {
                assert!(self.checks.insert(worker), "{worker} is checked twice at once");
                // A worker that is checked after its session ended is free for others.
                if let Some(session) = self.ending.remove(&worker) {
                    self.used.insert(worker);
                    let held = self.leases.iter().any(|slot| slot.worker == worker);
                    assert!(!held, "{worker} of {session} changes hands while there is a lease");
                    assert!(self.options.worker_reuse);
                    assert_eq!(session.tenant(), None, "what a tenant left in {worker} reaches another session");
                    assert_eq!(
                        self.generations.get(&worker),
                        Some(&self.generation),
                        "{worker} is of a former factory"
                    );
                }
            }
            Action::Probe { worker, .. } => assert!(self.probes.insert(worker), "{worker} is probed twice at once"),
            // Being killed while it is closed adds nothing here: it ends once.
            Action::End { worker, .. } => drop(self.ends.insert(worker)),
            Action::Grant { ticket, slot, is_new } => {
                if is_new && !self.options.per_session {
                    self.hand_out_to(slot.id());
                }
                let waiting = self.answered(ticket);
                assert_eq!(&waiting.session, slot.id(), "a lease of another session");
                if is_new && self.options.per_session {
                    assert_eq!(self.reserved.get(&slot.worker), Some(slot.id()), "a worker of another session");
                }
                self.leases.push(slot);
            }
            Action::Deny { ticket, error } => {
                let session = self.waiting[&ticket].session.clone();
                let is_last = self.waiting.values().filter(|other| other.session == session).count() == 1;
                if matches!(error, AcquireError::Spawn(_)) && is_last && !self.options.per_session {
                    self.hand_out_to(&session);
                }
                let Waiting { session, since } = self.answered(ticket);
                let tenant = session.tenant();
                match error {
                    AcquireError::Spawn(error) | AcquireError::TimedOut { last_spawn_error: Some(error), .. }
                        if self.options.per_session && error.to_string() != session.to_string() =>
                    {
                        panic!("{session} is told what {error} said");
                    }
                    AcquireError::TimedOut { .. } => {
                        assert_eq!(self.now.since(since), ACQUIRE_TIMEOUT, "a time-out at the wrong time");
                    }
                    AcquireError::TenantSessions { max_sessions } => {
                        assert_eq!(tenant.and_then(|tenant| tenant.limits().max_sessions), Some(max_sessions));
                        assert!(self.sessions_of(tenant) >= max_sessions, "refused without need");
                    }
                    AcquireError::TenantWaiting { max_waiting } => {
                        assert_eq!(tenant.and_then(|tenant| tenant.limits().max_waiting), Some(max_waiting));
                        assert!(self.waiting_of(tenant) >= max_waiting, "refused without need");
                    }
                    AcquireError::QueueFull { .. } => {
                        let most = self.tenants.iter().map(|tenant| self.waiting_of(Some(tenant))).max();
                        let most = most.max(Some(self.waiting_of(None))).unwrap_or_default();
                        assert!(self.waiting.len() >= self.options.max_waiting, "refused without need");
                        assert!(self.waiting_of(tenant) + 1 >= most, "somebody with less had to go");
                    }
                    _ => {}
                }
            }
            Action::Answer { ticket, .. } => assert!(self.enders.remove(&ticket), "a second answer"),
            Action::Tell(slot) => assert!(slot.reason().is_some()),
            Action::Publish(event) => self.observe(event.kind),
            Action::Discard(worker, _) => assert!(!self.running.contains(&worker), "{worker} is forgotten but runs"),
            Action::Emptied => self.emptied = true,
            Action::Crashed(_) => {}
        }
    }

    /// Takes a caller out of those who wait.
    fn answered(&mut self, ticket: Ticket) -> Waiting {
        let answered = self.waiting.remove(&ticket).expect("an answer to nobody, or a second one");
        if !self.waiting.values().any(|other| other.session == answered.session) {
            self.places.remove(&answered.session);
        }
        answered
    }

    /// The session of a number: every third one belongs to nobody, the others to the tenants in turn.
    fn name(&self, session: u8) -> SessionId {
        let id = SessionId::new(format!("session-{session}")).unwrap();
        match session % 3 {
            0 => id,
            place => id.of(&self.tenants[usize::from(place) - 1]),
        }
    }

    /// How many sessions the tenant has that are waited for, live, ending, or have a worker that is for them alone.
    fn sessions_of(&self, tenant: Option<&Tenant>) -> usize {
        let names = self.places.keys().chain(self.live.keys());
        let names = names.chain(self.ending.values()).chain(self.reserved.values());
        names.filter(|session| session.tenant() == tenant).collect::<BTreeSet<_>>().len()
    }

    fn waiting_of(&self, tenant: Option<&Tenant>) -> usize {
        self.waiting.values().filter(|waiting| waiting.session.tenant() == tenant).count()
    }

    /// Sessions that wait for any worker, or for room for one of their own, by their place.
    fn line(&self) -> impl Iterator<Item = (&SessionId, Ticket)> {
        let served =
            |session: &SessionId| self.options.per_session && self.reserved.values().any(|other| other == session);
        self.places.iter().filter(move |(session, _)| !self.is_aside(session) && !served(session)).map(|(s, t)| (s, *t))
    }

    /// Whoever has nobody in line loses its turn, and whoever has somebody there without a turn gets the last one.
    fn update_turns(&mut self) {
        let mut line: Vec<_> = self.line().map(|(session, place)| (place, session.tenant().cloned())).collect();
        line.sort();
        self.turns.retain(|turn| line.iter().any(|(_, whose)| whose == turn));
        for (_, whose) in line {
            if !self.turns.contains(&whose) {
                self.turns.push(whose);
            }
        }
    }

    /// A worker goes to this session, or the failure to start one: it must be its turn.
    fn hand_out_to(&mut self, session: &SessionId) {
        self.update_turns();
        let whose = session.tenant().cloned();
        let line = self.line().filter(|(other, _)| other.tenant() == session.tenant());
        let first = line.min_by_key(|(_, place)| *place).map(|(session, _)| session);
        assert_eq!(first, Some(session), "somebody jumped the queue");
        // Whoever room is made for by evicting a session has the next turn.
        if !self.evicted {
            assert_eq!(self.turns.first(), Some(&whose), "it was another tenant's turn");
        }
        self.turns.retain(|turn| *turn != whose);
        self.turns.push(whose);
    }

    /// Whether those who wait for this session wait for something else than a worker.
    fn is_aside(&self, session: &SessionId) -> bool {
        let set_back = self.state.audit().set_back;
        self.is_ending(session) || set_back.iter().any(|(_, other)| other == session)
    }

    fn is_ending(&self, session: &SessionId) -> bool {
        let unwanted = |worker: &WorkerId| {
            self.cancelled.contains(worker) || (self.running.contains(worker) && self.ends.contains(worker))
        };
        self.ending.values().any(|other| other == session)
            || self.reserved.iter().any(|(worker, other)| other == session && unwanted(worker))
    }

    fn observe(&mut self, kind: EventKind) {
        match kind {
            EventKind::SessionStarted { session, worker } => {
                assert!(
                    !self.ending.values().any(|other| *other == session),
                    "{session} starts before its end is over"
                );
                assert!(!self.live.values().any(|other| *other == worker), "{worker} has two sessions");
                assert_eq!(self.generations.get(&worker), Some(&self.generation), "{worker} is of a former factory");
                let is_clean = session.tenant().is_none() || !self.used.contains(&worker);
                assert!(is_clean, "what somebody left in {worker} reaches a tenant's {session}");
                self.idle_by.insert(session.clone(), self.options.idle_by);
                assert_eq!(self.live.insert(session, worker), None, "a session has two workers");
                self.started += 1;
            }
            EventKind::SessionEnded { session, worker, reason } => {
                assert_eq!(self.live.remove(&session), Some(worker), "a session ended twice, or never started");
                let leases = self.leases.iter().filter(|slot| slot.worker == worker && slot.id() == &session).count();
                let idle_by = self.idle_by.remove(&session);
                self.evicted |= reason == EndReason::Evicted;
                let needs_no_lease = match reason {
                    EndReason::Evicted | EndReason::Drained => true,
                    EndReason::Idle => idle_by == Some(IdleBy::Lease),
                    _ => false,
                };
                assert!(leases == 0 || !needs_no_lease, "{session} ended as {reason} with {leases} leases");
                self.ending.insert(worker, session);
                self.ended += 1;
            }
            _ => {}
        }
    }

    /// What holds at any moment.
    fn check(&mut self) {
        self.update_turns();
        let workers = self.spawning.len() + self.running.len();
        self.most_workers = self.options.max_workers.max(self.most_workers.min(workers));
        assert!(workers <= self.most_workers, "{workers} workers run");
        let stats = self.state.stats();
        let audit = self.state.audit();
        assert_eq!(stats.workers, workers, "a worker was lost or made up");
        assert_eq!(stats.sessions, self.live.len());
        assert_eq!(stats.waiting, self.waiting.len());
        assert_eq!(audit.counted, workers);
        self.most_waiting = self.options.max_waiting.max(self.most_waiting.min(stats.waiting));
        assert!(stats.waiting <= self.most_waiting);
        for whose in self.tenants.iter().cloned().map(Some).chain([None]) {
            let live = self.live.keys().filter(|session| session.tenant() == whose.as_ref());
            assert_eq!(self.state.live_of(&whose), live.count());
        }
        for tenant in &self.tenants {
            assert_eq!(tenant.sessions(), self.sessions_of(Some(tenant)), "{tenant}");
            assert_eq!(tenant.waiting(), self.waiting_of(Some(tenant)), "{tenant}");
        }
        for (worker, generation) in &self.generations {
            let is_busy = self.live.values().any(|other| other == worker);
            let is_over = self.cancelled.contains(worker) || self.ends.contains(worker);
            assert!(*generation == self.generation || is_busy || is_over, "{worker} of a former factory is kept");
        }
        for (session, worker) in &self.live {
            assert_eq!(self.index.find(session).map(|slot| slot.worker), Some(*worker), "{session} cannot be found");
        }
        assert_eq!(self.index.all(|_| true).len(), self.live.len());

        for (until, session) in &audit.set_back {
            assert!(self.options.per_session && self.failures.contains(session), "{session} waits without a failure");
            assert!(*until > self.now && until.since(self.now) <= MOST_SETBACK, "{session} waits for too long");
            assert!(self.state.deadline().is_some_and(|at| at <= *until), "{session} is forgotten");
        }
        let in_line = self.places.keys().filter(|session| !self.is_aside(session)).count();
        assert_eq!(audit.in_line, in_line);

        // Nobody waits while nothing is being done for them.
        let lacking = if self.options.per_session {
            let line = self.places.keys().filter(|session| !self.is_aside(session));
            line.filter(|session| !self.reserved.values().any(|other| other == *session)).count() > 0
        } else {
            in_line > self.spawning.len() - self.cancelled.len() + self.checks.len()
        };
        let room = workers < self.options.max_workers;
        if audit.running && lacking && room {
            assert!(audit.held_back, "there is room, but no worker is started");
            assert!(self.state.deadline().is_some() || !self.spawning.is_empty());
        }
        if audit.running && in_line > self.checks.len() {
            assert_eq!(audit.spares, 0, "a spare waits while a session does");
        }
    }

    /// Lets everything that runs come to its end.
    pub(super) fn settle(&mut self) {
        for _ in 0..100 {
            self.step(Step::DeliverLastLease);
            while !self.cancelled.is_empty() {
                self.step(Step::FinishCancel(0));
            }
            while !self.spawning.is_empty() {
                self.step(Step::FinishSpawn { pick: 0, works: true });
            }
            while !self.checks.is_empty() {
                self.step(Step::FinishCheck { pick: 0, healthy: true });
            }
            while !self.probes.is_empty() {
                self.step(Step::FinishProbe { pick: 0, healthy: true });
            }
            while !self.ends.is_empty() {
                self.step(Step::FinishEnd(0));
            }
        }
    }
}

fn take(set: &mut BTreeSet<WorkerId>, pick: usize) -> Option<WorkerId> {
    let worker = set.iter().nth(pick % set.len().max(1)).copied()?;
    set.take(&worker)
}

fn found(healthy: bool) -> Result<(), HealthError> {
    if healthy { Ok(()) } else { Err(HealthError::new("told to fail")) }
}
