//! The last events of all pools, in one order, for those who follow them.

#[cfg(test)]
mod burst;
mod kept;

use std::{
    collections::{BTreeMap, HashSet, VecDeque},
    fmt,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::SystemTime,
};

use axum::body::Bytes;
use herd_pool::{EventKind, Exit, ExitStatus, SpawnError, WorkerId};
use tokio::sync::watch;

use self::kept::kept;

/// How many events are kept. A follower who is further behind has missed some.
pub(crate) const BACKLOG: usize = 1024;

/// Something that happened in a pool.
#[derive(Debug)]
pub(crate) struct Event {
    /// Counts the daemon's events, from 1 and without gaps.
    pub(crate) sequence: u64,
    /// When it happened, by the system's clock.
    pub(crate) at: SystemTime,
    /// The pool's name.
    pub(crate) pool: Arc<str>,
    pub(crate) kind: EventKind,
    rendered: OnceLock<Bytes>,
}

impl Event {
    /// The event as those who follow it over HTTP read it, made once for all of them.
    pub(crate) fn rendered(&self, render: impl FnOnce(&Self) -> Bytes) -> Bytes {
        self.rendered.get_or_init(|| render(self)).clone()
    }
}

/// A bounded record of events. Followers hold a position in it and nothing else, so slow ones cost no memory.
#[derive(Clone, Debug)]
pub(crate) struct Journal(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    record: Mutex<Record>,
    /// The sequence number of the last event.
    last: watch::Sender<u64>,
}

#[derive(Default)]
struct Record {
    /// How many events there have been.
    last: u64,
    events: VecDeque<Arc<Event>>,
    /// By pool, also of those that are gone: counters never fall.
    exits: BTreeMap<Arc<str>, Exits>,
    /// Workers that were ready and are not gone.
    ready: HashSet<WorkerId>,
    /// Those of them that crashed and are counted.
    crashed: HashSet<WorkerId>,
    /// By pool the last start of a worker, if it failed and none has become ready since.
    start_failures: BTreeMap<Arc<str>, (SystemTime, SpawnError)>,
    listeners: Vec<Listener>,
}

type Listener = Box<dyn Fn(&Event) + Send + Sync>;

/// How many workers ended, by how. Workers that were never ready failed to start, which is counted elsewhere.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Exits {
    /// They were asked to.
    pub(crate) closed: u64,
    /// By themselves, with an exit code.
    pub(crate) exited: u64,
    /// By a signal.
    pub(crate) signalled: u64,
    /// By the memory limit.
    pub(crate) out_of_memory: u64,
    /// Nobody can tell.
    pub(crate) unknown: u64,
}

/// Reads the journal from some position on.
#[derive(Debug)]
pub(crate) struct Follower {
    journal: Journal,
    position: u64,
    last: watch::Receiver<u64>,
}

/// What a follower reads.
#[derive(Debug)]
pub(crate) enum Entry {
    Event(Arc<Event>),
    /// This many events are not kept any more.
    Missed(u64),
}

impl Exits {
    fn plus(self, other: &Self) -> Self {
        Self {
            closed: self.closed + other.closed,
            exited: self.exited + other.exited,
            signalled: self.signalled + other.signalled,
            out_of_memory: self.out_of_memory + other.out_of_memory,
            unknown: self.unknown + other.unknown,
        }
    }

    /// All ways to end by name, with their counts.
    pub(crate) fn by_reason(&self) -> [(&'static str, u64); 5] {
        let Self { closed, exited, signalled, out_of_memory, unknown } = *self;
        [
            ("closed", closed),
            ("exited", exited),
            ("signalled", signalled),
            ("out-of-memory", out_of_memory),
            ("unknown", unknown),
        ]
    }
}

impl Journal {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Shared { record: Mutex::default(), last: watch::Sender::new(0) }))
    }

    /// Writes down what happens in a pool. Its events have to come as they happen, each of them: what is counted here
    /// and nowhere else would be wrong for ever without one.
    pub(crate) fn record(&self, pool: &Arc<str>, event: &herd_pool::Event) {
        let herd_pool::Event { sequence: _, at, kind } = event;
        log(pool, kind);
        self.push(*at, Arc::clone(pool), kind.clone());
    }

    /// Calls `listener` for each event from now on, in their order, before anybody can do anything else with the
    /// journal: unlike a [follower](Self::follow) it cannot fall behind. It must neither wait nor use the journal.
    pub(crate) fn listen(&self, listener: impl Fn(&Event) + Send + Sync + 'static) {
        self.lock().listeners.push(Box::new(listener));
    }

    /// Follows from behind the event with this number; `None`: from now on.
    pub(crate) fn follow(&self, after: Option<u64>) -> Follower {
        let last = self.0.last.subscribe();
        let newest = *last.borrow();
        // A number that was not given yet is of an earlier daemon: then all there is, is new.
        let position = after.map_or(newest, |after| if after > newest { 0 } else { after });
        Follower { journal: self.clone(), position, last }
    }

    /// How the workers of all pools ended, also of those that are gone.
    pub(crate) fn exits(&self) -> Exits {
        self.lock().exits.values().fold(Exits::default(), |sum, exits| sum.plus(exits))
    }

    /// The same by pool.
    pub(crate) fn exits_by_pool(&self) -> Vec<(Arc<str>, Exits)> {
        self.lock().exits.iter().map(|(pool, exits)| (Arc::clone(pool), *exits)).collect()
    }

    /// By pool, when and why the last start of a worker failed, if none has become ready since.
    pub(crate) fn start_failures(&self) -> Vec<(Arc<str>, SystemTime, String)> {
        let record = self.lock();
        record.start_failures.iter().map(|(pool, (at, error))| (Arc::clone(pool), *at, error.to_string())).collect()
    }

    /// Forgets the troubles of a pool that is gone, or whose workers are started in another way from now on.
    pub(crate) fn forget_start_failure(&self, pool: &str) {
        self.lock().start_failures.remove(pool);
    }

    /// Keeps an event, with a bounded part of what a worker said in it.
    pub(crate) fn push(&self, at: SystemTime, pool: Arc<str>, kind: EventKind) {
        let kind = kept(kind);
        let mut record = self.lock();
        record.count(at, &pool, &kind);
        record.last += 1;
        let sequence = record.last;
        if record.events.len() == BACKLOG {
            record.events.pop_front();
        }
        let event = Arc::new(Event { sequence, at, pool, kind, rendered: OnceLock::new() });
        record.events.push_back(Arc::clone(&event));
        record.listeners.iter().for_each(|listener| listener(&event));
        // While the record is held, so that the numbers are told in their order.
        self.0.last.send_replace(sequence);
    }

    fn lock(&self) -> MutexGuard<'_, Record> {
        // Nothing in here can panic half-way through a change, so a poisoned lock still guards a whole record.
        self.0.record.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Says why each session ended. Not which one: whoever knows a session's ID is in that session, so the line with the ID
/// is the pool's, for those who debug.
fn log(pool: &str, kind: &EventKind) {
    if let EventKind::SessionEnded { worker, reason, .. } = kind {
        tracing::info!(pool, %worker, %reason, "a session ended");
    }
}

impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Record").field("last", &self.last).finish_non_exhaustive()
    }
}

impl Record {
    fn count(&mut self, at: SystemTime, pool: &Arc<str>, kind: &EventKind) {
        match kind {
            EventKind::SpawnFailed { error, .. } => {
                self.start_failures.insert(Arc::clone(pool), (at, error.clone()));
            }
            EventKind::WorkerReady { worker, .. } => {
                self.ready.insert(*worker);
                self.start_failures.remove(pool);
            }
            EventKind::WorkerCrashed { worker, exit } => {
                if !self.ready.contains(worker) {
                    return;
                }
                self.crashed.insert(*worker);
                let exits = self.exits.entry(Arc::clone(pool)).or_default();
                *match exit {
                    Exit { out_of_memory: true, .. } => &mut exits.out_of_memory,
                    Exit { status: ExitStatus::Code(_), .. } => &mut exits.exited,
                    Exit { status: ExitStatus::Signal(_), .. } => &mut exits.signalled,
                    Exit { status: ExitStatus::Unknown, .. } => &mut exits.unknown,
                } += 1;
            }
            EventKind::WorkerGone { worker } => {
                let was_ready = self.ready.remove(worker);
                if !self.crashed.remove(worker) && was_ready {
                    self.exits.entry(Arc::clone(pool)).or_default().closed += 1;
                }
            }
            _ => {}
        }
    }
}

impl Follower {
    /// The next entry; waits for one. `None` when there will be no more.
    ///
    /// Cancel safe: dropping the future loses nothing.
    pub(crate) async fn next(&mut self) -> Option<Entry> {
        loop {
            self.last.borrow_and_update();
            if let Some(entry) = self.read() {
                return Some(entry);
            }
            // The sender lives in the journal that this holds, so this only waits.
            self.last.changed().await.ok()?;
        }
    }

    /// What is kept of all that would come next, without waiting.
    pub(crate) fn kept(&self) -> Vec<Arc<Event>> {
        let record = self.journal.lock();
        let first = record.events.partition_point(|event| event.sequence <= self.position);
        record.events.range(first..).cloned().collect()
    }

    fn read(&mut self) -> Option<Entry> {
        let next = {
            let record = self.journal.lock();
            let at = record.events.partition_point(|event| event.sequence <= self.position);
            record.events.get(at).cloned()
        }?;
        let missed = next.sequence - self.position - 1;
        if missed > 0 {
            self.position += missed;
            return Some(Entry::Missed(missed));
        }
        self.position = next.sequence;
        Some(Entry::Event(next))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::admin::model;

    fn push(journal: &Journal, pool: &str, kind: EventKind) {
        journal.push(SystemTime::UNIX_EPOCH, pool.into(), kind);
    }

    fn push_any(journal: &Journal, count: usize) {
        (0..count).for_each(|_| push(journal, "default", EventKind::Draining));
    }

    async fn read(follower: &mut Follower) -> String {
        match follower.next().await.unwrap() {
            Entry::Event(event) => event.sequence.to_string(),
            Entry::Missed(missed) => format!("missed {missed}"),
        }
    }

    #[tokio::test]
    async fn a_follower_resumes_behind_the_event_it_saw_last() {
        let journal = Journal::new();
        push_any(&journal, 5);
        let mut follower = journal.follow(Some(3));
        assert_eq!(read(&mut follower).await, "4");
        assert_eq!(read(&mut follower).await, "5");
        let mut from_now = journal.follow(None);
        push_any(&journal, 1);
        assert_eq!(read(&mut from_now).await, "6");
    }

    #[tokio::test]
    async fn a_follower_who_is_too_far_behind_is_told_how_much_it_missed() {
        let journal = Journal::new();
        let mut follower = journal.follow(None);
        push_any(&journal, BACKLOG + 10);
        assert_eq!(read(&mut follower).await, "missed 10");
        assert_eq!(read(&mut follower).await, "11");
    }

    #[tokio::test]
    async fn a_number_of_an_earlier_daemon_means_from_the_start() {
        let journal = Journal::new();
        push_any(&journal, 1);
        assert_eq!(read(&mut journal.follow(Some(900))).await, "1");
    }

    #[test]
    fn each_worker_that_was_ready_is_counted_under_one_way_to_end() {
        let journal = Journal::new();
        let [closed, crashed, never_ready] = [1, 2, 3].map(WorkerId::new);
        let exit = Exit::with_status(ExitStatus::Signal(9));
        let kinds = [
            EventKind::WorkerReady { worker: closed, after: Duration::ZERO },
            EventKind::WorkerReady { worker: crashed, after: Duration::ZERO },
            EventKind::WorkerCrashed { worker: crashed, exit },
            EventKind::WorkerGone { worker: crashed },
            EventKind::WorkerGone { worker: closed },
            EventKind::WorkerGone { worker: never_ready },
        ];
        for (kind, pool) in kinds.into_iter().zip(["a", "b", "b", "b", "a", "a"]) {
            push(&journal, pool, kind);
        }
        let exits = journal.exits();
        assert_eq!((exits.closed, exits.signalled, exits.exited), (1, 1, 0));
        let by_pool: Vec<_> =
            journal.exits_by_pool().into_iter().map(|(pool, e)| (pool, e.closed, e.signalled)).collect();
        assert_eq!(by_pool, [("a".into(), 1, 0), ("b".into(), 0, 1)]);
        let record = journal.lock();
        assert!(record.ready.is_empty() && record.crashed.is_empty());
    }

    #[tokio::test]
    async fn workers_that_say_much_as_they_end_make_it_keep_little() {
        let journal = Journal::new();
        let mut follower = journal.follow(None);
        let worker = WorkerId::new(1);
        let flood: Arc<[String]> = vec!["x".repeat(8 * 1024); 20].into();
        let exit = Exit { stderr_tail: Arc::clone(&flood), ..Exit::with_status(ExitStatus::Code(1)) };
        push(&journal, "a", EventKind::WorkerCrashed { worker, exit });
        let error = SpawnError::new("x".repeat(1024 * 1024));
        push(&journal, "a", EventKind::SpawnFailed { worker, error });
        assert_eq!(Arc::strong_count(&flood), 1, "it does not hold the whole");
        for _ in 0..2 {
            let Some(Entry::Event(event)) = follower.next().await else { panic!("it is there") };
            let json = model::Event::new(&event).to_json();
            assert!(json.len() < kept::MOST_BYTES + 512, "{}", json.len());
        }
        assert!(journal.start_failures()[0].2.len() < kept::MOST_BYTES + 8);
    }

    #[test]
    fn a_pool_that_starts_workers_says_nothing_of_another_that_cannot() {
        let journal = Journal::new();
        let error = SpawnError::new(std::io::Error::other("no such program"));
        let worker = WorkerId::new(1);
        push(&journal, "broken", EventKind::SpawnFailed { worker, error: error.clone() });
        push(&journal, "other", EventKind::SpawnFailed { worker, error });
        push(&journal, "other", EventKind::WorkerReady { worker, after: Duration::ZERO });
        let failures = journal.start_failures();
        assert_eq!(failures.len(), 1, "{failures:?}");
        assert_eq!((&*failures[0].0, failures[0].2.contains("no such program")), ("broken", true));
        journal.forget_start_failure("broken");
        assert!(journal.start_failures().is_empty());
    }
}
