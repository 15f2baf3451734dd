//! Acquire, end, crash, time to live and shutdown at once, on one session, in every order that a random scheduler
//! finds.
//!
//! The core's own files are compiled here a second time, over shuttle's primitives in place of the standard library's:
//! they name theirs through `crate::sync`, which in this crate is the module below. What surrounds the core, workers
//! and timers, is played by threads.
#![allow(dead_code, unreachable_pub, unused_imports, reason = "the core's files hold more than this test uses")]

#[path = "../src/backoff.rs"]
mod backoff;
#[path = "../src/crash.rs"]
mod crash;
#[path = "../src/crowd.rs"]
mod crowd;
#[path = "../src/event.rs"]
mod event;
#[path = "../src/gate.rs"]
mod gate;
#[path = "../src/generation.rs"]
mod generation;
#[path = "../src/idle.rs"]
mod idle;
#[path = "../src/index.rs"]
mod index;
#[path = "../src/lines.rs"]
mod lines;
#[path = "../src/options.rs"]
mod options;
#[path = "../src/queue.rs"]
mod queue;
#[path = "../src/schedule.rs"]
mod schedule;
#[path = "../src/session_id.rs"]
mod session_id;
#[path = "../src/setbacks.rs"]
mod setbacks;
#[path = "../src/slot.rs"]
mod slot;
#[path = "../src/state/mod.rs"]
mod state;
#[path = "../src/stats.rs"]
mod stats;
#[path = "../src/table.rs"]
mod table;
#[path = "../src/tenant.rs"]
mod tenant;
#[path = "../src/worker_ids.rs"]
mod worker_ids;

/// What the core synchronizes with, here.
mod sync {
    pub(crate) use shuttle::sync::{Arc, RwLock, Weak, atomic};
}

/// The core's time, here: it moves when the test says so.
mod clock {
    use std::{cell::Cell, time::Duration};

    thread_local! {
        // All threads of one shuttle run live on one thread of the operating system.
        static NOW: Cell<u64> = const { Cell::new(0) };
    }

    #[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
    pub(crate) struct Moment(pub(crate) u64);

    impl Moment {
        pub(crate) fn after(self, duration: Duration) -> Self {
            Self(self.0.saturating_add(u64::try_from(duration.as_nanos()).unwrap()))
        }

        pub(crate) fn since(self, earlier: Self) -> Duration {
            Duration::from_nanos(self.0.saturating_sub(earlier.0))
        }
    }

    #[derive(Clone, Copy, Debug)]
    pub(crate) struct Clock;

    impl Clock {
        pub(crate) fn now(&self) -> Moment {
            Moment(NOW.get())
        }

        pub(crate) fn reset() {
            NOW.set(0);
        }

        pub(crate) fn advance(duration: Duration) {
            NOW.set(Moment(NOW.get()).after(duration).0);
        }
    }
}

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use clock::Clock;
use crash::Crash;
use event::{Event, EventKind};
use generation::Generation;
use herd_pool::{
    AcquireError, EndReason, Exit, ExitStatus, HealthError, Histogram, NoSuchSession, OptionsError, SpawnError,
    WorkerId, WorkerState,
};
use index::Index;
use options::{IdleBy, Options, WhenFull};
use queue::Ticket;
use session_id::SessionId;
use shuttle::{
    sync::{
        Arc, Mutex,
        mpsc::{Sender, channel},
    },
    thread,
};
use slot::{Home, Slot, Template};
use state::{Action, Force, Input, State};
use stats::Stats;
use tenant::{Tenant, TenantLimits};
use worker_ids::WorkerIds;

const TTL: Duration = Duration::from_secs(60);

type Answer = Result<Arc<Slot<WorkerId>>, AcquireError>;

/// The shell around the core, reduced to what this test needs.
struct Shell {
    core: Mutex<Core>,
    index: Arc<Index<WorkerId>>,
    reuse: bool,
    /// Leases that callers hold, by worker. Of the standard library, so that looking at it changes no schedule.
    held: std::sync::Mutex<BTreeMap<WorkerId, usize>>,
    running: std::sync::Mutex<BTreeSet<WorkerId>>,
    tickets: AtomicU64,
}

struct Core {
    state: State<WorkerId>,
    replies: BTreeMap<Ticket, Sender<Answer>>,
    ends: BTreeMap<Ticket, Sender<Result<EndReason, NoSuchSession>>>,
    live: BTreeMap<SessionId, WorkerId>,
    /// Which generation the workers of live sessions and starts are of, and which one counts.
    of: BTreeMap<WorkerId, Generation>,
    generation: Generation,
    started: usize,
    ended: usize,
}

impl Home for Shell {
    fn last_lease_returned(self: Arc<Self>, worker: WorkerId) {
        self.feed(Input::LastLease { worker });
    }
}

impl Shell {
    fn start(reuse: bool, when_full: WhenFull) -> Arc<Self> {
        Clock::reset();
        let index = Arc::new(Index::new());
        let options = Self::options(reuse, when_full);
        Arc::new_cyclic(|shell: &sync::Weak<Self>| {
            let home: sync::Weak<Self> = shell.clone();
            let template = Template::new(Clock, home, &options);
            Self {
                core: Mutex::new(Core {
                    state: State::new(options, template, WorkerIds::new(), Arc::clone(&index)),
                    replies: BTreeMap::new(),
                    ends: BTreeMap::new(),
                    live: BTreeMap::new(),
                    of: BTreeMap::new(),
                    generation: Generation::default(),
                    started: 0,
                    ended: 0,
                }),
                index,
                reuse,
                held: std::sync::Mutex::default(),
                running: std::sync::Mutex::default(),
                tickets: AtomicU64::new(0),
            }
        })
    }

    fn options(reuse: bool, when_full: WhenFull) -> Options {
        Options {
            min_workers: 0,
            max_workers: 2,
            spare: 0,
            ttl: TTL,
            acquire_timeout: Duration::from_secs(3600),
            health_interval: Duration::from_secs(86_400),
            worker_reuse: reuse,
            when_full,
            ..Options::default()
        }
    }

    fn ticket(&self) -> Ticket {
        Ticket(self.tickets.fetch_add(1, Ordering::Relaxed))
    }

    fn feed(self: &Arc<Self>, input: Input<WorkerId>) {
        self.feed_with(input, |_| {});
    }

    fn feed_with(self: &Arc<Self>, input: Input<WorkerId>, prepare: impl FnOnce(&mut Core)) {
        let mut core = self.core.lock().unwrap();
        prepare(&mut core);
        core.state.handle(input, Clock.now());
        let actions = core.state.take_actions();
        for action in &actions {
            self.observe(&mut core, action);
        }
        drop(core);
        for action in actions {
            self.perform(action);
        }
    }

    /// Checks what was decided, in the order of decisions.
    fn observe(&self, core: &mut Core, action: &Action<WorkerId>) {
        match action {
            Action::Publish(Event { kind: EventKind::SessionStarted { worker, session }, .. }) => {
                assert_eq!(core.live.insert(session.clone(), *worker), None, "one session has two live workers");
                assert_eq!(core.of.get(worker), Some(&core.generation), "a new session got a former factory's worker");
                core.started += 1;
            }
            Action::Publish(Event { kind: EventKind::SessionEnded { worker, session, .. }, .. }) => {
                assert_eq!(core.live.remove(session), Some(*worker), "a session ended twice");
                core.ended += 1;
            }
            Action::Spawn { worker, generation, .. } => {
                assert_eq!(*generation, core.generation);
                core.of.insert(*worker, *generation);
            }
            Action::Tell(slot) => {
                if let Some(reason @ (EndReason::Idle | EndReason::Evicted | EndReason::Drained)) = slot.reason() {
                    assert_eq!(slot.gate().read().leases(), 0, "a session in use ended as {reason}");
                }
            }
            Action::Check { worker, .. } => {
                let held = self.held.lock().unwrap().get(worker).copied().unwrap_or_default();
                assert_eq!(held, 0, "a worker changes hands while there is a lease");
            }
            _ => {}
        }
    }

    fn perform(self: &Arc<Self>, action: Action<WorkerId>) {
        let shell = Arc::clone(self);
        match action {
            Action::Spawn { worker, generation, .. } => {
                thread::spawn(move || {
                    // The start may be given up at any time, or be faster.
                    if shell.core.lock().unwrap().generation != generation {
                        return shell.feed(Input::SpawnCancelled { worker });
                    }
                    shell.running.lock().unwrap().insert(worker);
                    shell.feed(Input::Spawned { worker, outcome: Ok(worker) });
                });
            }
            Action::Check { worker, .. } => {
                thread::spawn(move || shell.feed(Input::Checked { worker, outcome: Ok(()) }));
            }
            Action::End { worker, .. } => {
                thread::spawn(move || {
                    shell.running.lock().unwrap().remove(&worker);
                    shell.feed(Input::Closed { worker });
                });
            }
            Action::Grant { ticket, slot, .. } => {
                let reply = self.core.lock().unwrap().replies.remove(&ticket).expect("a second answer");
                if let Err(error) = reply.send(Ok(slot)) {
                    // The caller has gone: the lease goes back.
                    error.0.unwrap().give_back();
                }
            }
            Action::Deny { ticket, error } => {
                let reply = self.core.lock().unwrap().replies.remove(&ticket).expect("a second answer");
                let _ = reply.send(Err(error));
            }
            Action::Answer { ticket, outcome } => {
                let reply = self.core.lock().unwrap().ends.remove(&ticket).expect("a second answer");
                let _ = reply.send(outcome);
            }
            _ => {}
        }
    }

    fn acquire(self: &Arc<Self>, session: &SessionId) -> Answer {
        if let Some(slot) = self.index.hit(session) {
            return Ok(slot);
        }
        let ticket = self.ticket();
        let (reply, answer) = channel();
        let input = Input::Acquire { ticket, session: session.clone() };
        self.feed_with(input, |core| drop(core.replies.insert(ticket, reply)));
        answer.recv().expect("every caller is answered")
    }

    fn use_session(self: &Arc<Self>, session: &SessionId) {
        match self.acquire(session) {
            Ok(slot) => {
                assert_eq!(slot.id(), session);
                *self.held.lock().unwrap().entry(slot.worker).or_default() += 1;
                // In this order: a worker is gone only after its session has ended.
                let runs = self.running.lock().unwrap().contains(&slot.worker);
                assert!(runs || slot.reason().is_some(), "a live session without a worker");
                thread::yield_now();
                *self.held.lock().unwrap().get_mut(&slot.worker).unwrap() -= 1;
                slot.give_back();
            }
            Err(AcquireError::ShutDown | AcquireError::Draining | AcquireError::Ended(_)) => {}
            Err(error) => panic!("{error}"),
        }
    }

    fn end(self: &Arc<Self>, session: &SessionId, force: Force) {
        let ticket = self.ticket();
        let (reply, answer) = channel();
        let input = Input::End { ticket, session: session.clone(), reason: EndReason::Released, force };
        self.feed_with(input, |core| drop(core.ends.insert(ticket, reply)));
        let _ = answer.recv().expect("every caller is answered");
    }

    fn reconfigure(self: &Arc<Self>) {
        let mut core = self.core.lock().unwrap();
        let generation = core.generation.next();
        if core.state.running() {
            core.generation = generation;
        }
        let options = Box::new(Self::options(self.reuse, WhenFull::Wait));
        core.state.handle(Input::Reconfigure { options, generation }, Clock.now());
        let actions = core.state.take_actions();
        for action in &actions {
            self.observe(&mut core, action);
        }
        drop(core);
        for action in actions {
            self.perform(action);
        }
    }

    fn crash(self: &Arc<Self>, session: &SessionId) {
        if let Some(slot) = self.index.find(session) {
            self.feed(Input::Exited { worker: slot.worker, exit: Exit::with_status(ExitStatus::Code(1)) });
        }
    }

    fn pass_time(self: &Arc<Self>) {
        Clock::advance(TTL);
        self.feed(Input::Tick);
    }

    /// When all threads have come to their end, nothing may be left.
    fn check_the_end(self: &Arc<Self>) {
        self.feed(Input::Shutdown);
        while !self.core.lock().unwrap().state.is_finished() {
            thread::yield_now();
        }
        let core = self.core.lock().unwrap();
        assert!(core.replies.is_empty() && core.ends.is_empty(), "somebody was not answered");
        assert!(core.live.is_empty() && core.started == core.ended);
        assert!(self.running.lock().unwrap().is_empty(), "a worker was left behind");
        assert!(self.index.all(|_| true).is_empty());
        assert_eq!(core.state.audit().counted, 0);
    }
}

/// What one thread does.
type Body = Box<dyn FnOnce(&Arc<Shell>, &SessionId) + Send>;

fn run(threads: Vec<Body>, shell: &Arc<Shell>, session: &SessionId) {
    let threads: Vec<_> = threads
        .into_iter()
        .map(|body| {
            let (shell, session) = (Arc::clone(shell), session.clone());
            thread::spawn(move || body(&shell, &session))
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
}

fn race(reuse: bool, shutdown: Input<WorkerId>) {
    let shell = Shell::start(reuse, WhenFull::Wait);
    let session = SessionId::new("alice").unwrap();
    let threads: Vec<Body> = vec![
        Box::new(|shell, session| (0..3).for_each(|_| shell.use_session(session))),
        Box::new(|shell, session| (0..2).for_each(|_| shell.use_session(session))),
        Box::new(|shell, session| shell.end(session, Force::Close)),
        Box::new(|shell, session| {
            shell.crash(session);
            shell.end(session, Force::Kill);
        }),
        Box::new(|shell, _| (0..3).for_each(|_| shell.pass_time())),
        Box::new(|shell, _| {
            thread::yield_now();
            shell.feed(shutdown);
        }),
    ];
    run(threads, &shell, &session);
    shell.check_the_end();
}

/// Leases come and go while time passes; nothing else. The session ends as idle exactly when nobody uses it.
fn idle_race() {
    let shell = Shell::start(false, WhenFull::Wait);
    let session = SessionId::new("alice").unwrap();
    let users: Vec<_> = (0..2)
        .map(|_| {
            let (shell, session) = (Arc::clone(&shell), session.clone());
            thread::spawn(move || (0..4).for_each(|_| shell.use_session(&session)))
        })
        .collect();
    for _ in 0..8 {
        shell.pass_time();
    }
    for user in users {
        user.join().unwrap();
    }
    // Whatever happened before, it must not have been forgotten.
    shell.pass_time();
    let core = shell.core.lock().unwrap();
    assert_eq!(core.live.len(), 0, "an idle session was forgotten");
    drop(core);
    shell.check_the_end();
}

/// A caller, an end and two changes of the factory, while time passes.
fn reconfiguring_race(reuse: bool) {
    let shell = Shell::start(reuse, WhenFull::Wait);
    let session = SessionId::new("alice").unwrap();
    let threads: Vec<Body> = vec![
        Box::new(|shell, session| (0..3).for_each(|_| shell.use_session(session))),
        Box::new(|shell, session| shell.end(session, Force::Close)),
        Box::new(|shell, _| shell.reconfigure()),
        Box::new(|shell, _| {
            shell.pass_time();
            shell.reconfigure();
        }),
    ];
    run(threads, &shell, &session);
    shell.check_the_end();
}

/// Two pools start and end sessions of one tenant, which may have two of them.
fn tenant_race() {
    let tenant = Tenant::new("acme", TenantLimits { max_sessions: Some(2), max_waiting: Some(2) }).unwrap();
    let shells = [0, 1].map(|_| Shell::start(false, WhenFull::Wait));
    let threads: Vec<_> = (0..4)
        .map(|number| {
            let (shell, tenant) = (Arc::clone(&shells[number % 2]), tenant.clone());
            thread::spawn(move || {
                let session = SessionId::new(format!("s{}", number / 2)).unwrap().of(&tenant);
                match shell.acquire(&session) {
                    Ok(slot) => {
                        assert!(tenant.sessions() <= 2, "more sessions than the tenant may have");
                        slot.give_back();
                        shell.end(&session, Force::Close);
                    }
                    Err(
                        AcquireError::TenantSessions { max_sessions: 2 }
                        | AcquireError::TenantWaiting { max_waiting: 2 },
                    ) => {}
                    Err(error) => panic!("{error}"),
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
    shells.iter().for_each(Shell::check_the_end);
    assert_eq!((tenant.sessions(), tenant.waiting()), (0, 0));
}

#[test]
fn the_factory_changes_while_sessions_come_and_go() {
    shuttle::check_random(|| reconfiguring_race(false), 1000);
    shuttle::check_pct(|| reconfiguring_race(true), 300, 3);
}

#[test]
fn two_pools_share_what_a_tenant_may_have() {
    shuttle::check_random(tenant_race, 1000);
    shuttle::check_pct(tenant_race, 300, 3);
}

#[test]
fn everything_at_once_on_one_session() {
    shuttle::check_random(|| race(false, Input::Shutdown), 1000);
    shuttle::check_pct(|| race(false, Input::Shutdown), 300, 3);
}

#[test]
fn everything_at_once_on_one_session_with_reuse() {
    shuttle::check_random(|| race(true, Input::Shutdown), 1000);
    shuttle::check_pct(|| race(true, Input::Shutdown), 300, 3);
}

#[test]
fn everything_at_once_while_draining() {
    shuttle::check_random(|| race(false, Input::Drain { timeout: TTL }), 1000);
    shuttle::check_pct(|| race(false, Input::Drain { timeout: TTL }), 300, 3);
}

#[test]
fn leases_come_and_go_while_time_passes() {
    shuttle::check_random(idle_race, 1000);
    shuttle::check_pct(idle_race, 300, 3);
}
