//! The daemon's pools, by name.

use std::{
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::Context as _;
use herd_pool::{Stats, Worker as _, WorkerId, WorkerIds, WorkerInfo};
use tokio::{
    join,
    task::{JoinSet, spawn_blocking},
    time::timeout,
};
use tracing::error_span;

use crate::{
    config::settings::DEFAULT_POOL,
    journal::Journal,
    setup::Setup,
    workers::{Factory, PoolWorker, WorkerPool},
};

/// All pools of the daemon. Cloning it is cheap; all clones are the same.
#[derive(Clone, Debug)]
pub(crate) struct Pools(Arc<Shared>);

struct Shared {
    /// In the order of the configuration; those that leave come last.
    all: RwLock<Arc<[Arc<NamedPool>]>>,
    /// One count for all pools, so that a worker's ID names one process of the daemon.
    worker_ids: WorkerIds,
    /// How many pools there have been.
    opened: AtomicU64,
    journal: Journal,
    /// What the pools that are gone have counted.
    gone: Mutex<Stats>,
    /// Sees pools off.
    tasks: Mutex<JoinSet<()>>,
    /// Waits for the workers of former setups.
    retiring: Mutex<JoinSet<()>>,
}

/// A pool with its name, and with what its next workers are started by.
#[derive(Debug)]
pub(crate) struct NamedPool {
    pub(crate) name: Arc<str>,
    /// Counts the daemon's pools. One that comes may have the name of one that leaves.
    pub(crate) serial: u64,
    pub(crate) pool: WorkerPool,
    setup: RwLock<Arc<Setup>>,
    leaving: AtomicBool,
}

impl NamedPool {
    /// What starts its next workers.
    pub(crate) fn factory(&self) -> Factory {
        self.setup().factory.clone()
    }

    /// The settings of its next workers.
    pub(crate) fn setup(&self) -> Arc<Setup> {
        // Nothing in here can panic half-way through a change.
        Arc::clone(&self.setup.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether it has been removed from the configuration, and ends when its sessions do.
    pub(crate) fn is_leaving(&self) -> bool {
        self.leaving.load(Ordering::Relaxed)
    }
}

impl Pools {
    /// Makes a pool of each setup, whose first workers are started at once.
    ///
    /// # Errors
    /// If the options of one contradict each other.
    pub(crate) fn start(setups: Vec<Setup>, journal: Journal) -> anyhow::Result<Self> {
        let pools = Self(Arc::new(Shared {
            all: RwLock::new(Arc::new([])),
            worker_ids: WorkerIds::new(),
            opened: AtomicU64::new(0),
            journal,
            gone: Mutex::default(),
            tasks: Mutex::default(),
            retiring: Mutex::default(),
        }));
        let all = setups.into_iter().map(|setup| pools.open(setup)).collect::<Result<_, _>>()?;
        pools.replace(all);
        Ok(pools)
    }

    /// All pools in the order of the configuration, and then those that leave, whose name one of the others may have.
    pub(crate) fn iter(&self) -> impl Iterator<Item = Arc<NamedPool>> + use<> {
        let all = self.all();
        (0..all.len()).map(move |index| Arc::clone(&all[index]))
    }

    /// The pool of that name that takes sessions on.
    pub(crate) fn find(&self, name: &str) -> Option<Arc<NamedPool>> {
        self.iter().find(|pool| &*pool.name == name && !pool.is_leaving())
    }

    /// The pool that the control plane means by a type of worker; without one, the pool `default`, or the only one.
    pub(crate) fn default_for_control(&self, worker_type: &str) -> Option<Arc<NamedPool>> {
        if !worker_type.is_empty() {
            return self.find(worker_type);
        }
        self.find(DEFAULT_POOL).or_else(|| {
            let mut here = self.iter().filter(|pool| !pool.is_leaving());
            here.next().filter(|_| here.next().is_none())
        })
    }

    /// A worker, with its pool. No two pools have workers of the same ID.
    pub(crate) fn worker(&self, id: WorkerId) -> Option<(Arc<NamedPool>, WorkerInfo<PoolWorker>)> {
        self.iter().find_map(|pool| pool.pool.worker(id).map(|worker| (pool, worker)))
    }

    /// The sums over all pools; what is counted includes those that are gone.
    pub(crate) fn stats(&self) -> Stats {
        // Held meanwhile, so that no pool is counted twice or left out as it goes.
        let all = self.0.all.read().unwrap_or_else(PoisonError::into_inner);
        let mut sum = *lock(&self.0.gone);
        for pool in all.iter() {
            sum += pool.pool.stats();
        }
        sum
    }

    /// Lets all sessions end, as [`Pool::drain`](herd_pool::Pool::drain) does, and resolves when no worker is left.
    pub(crate) async fn drain(&self, timeout: Duration) {
        let drain = |pool: Arc<NamedPool>| async move { pool.pool.drain(timeout).await };
        self.iter().map(drain).collect::<JoinSet<()>>().join_all().await;
    }

    /// Ends all sessions, and leaves nothing of any worker behind without asking them.
    pub(crate) async fn end_all(&self) {
        self.iter().map(end_all).collect::<JoinSet<()>>().join_all().await;
    }

    /// Closes the factories, once all workers have been told to end: resolves when nothing of any worker is left, or
    /// after `patience`; whether it is so.
    pub(crate) async fn close(&self, patience: Duration) -> bool {
        let close = |pool: Arc<NamedPool>| async move { pool.factory().close().await };
        let closing = self.iter().map(close).collect::<JoinSet<()>>().join_all();
        let retiring = std::mem::take(&mut *lock(&self.0.retiring)).join_all();
        timeout(patience, async { join!(closing, retiring) }).await.is_ok()
    }

    /// Stops what runs for the pools. Nothing of them is left to end: a pool says so when it is dropped as well, but that
    /// would be after the daemon's last line.
    pub(crate) async fn finish(&self) {
        for pool in self.iter() {
            pool.pool.shutdown().await;
        }
        let mut tasks = std::mem::take(&mut *self.tasks());
        tasks.shutdown().await;
    }

    /// Makes a pool and starts its first workers. It is no part of this before it is [installed](Self::install).
    ///
    /// # Errors
    /// If its options contradict each other.
    pub(crate) fn open(&self, setup: Setup) -> anyhow::Result<Arc<NamedPool>> {
        let name: Arc<str> = setup.settings.name.as_str().into();
        let (journal, pool) = (self.0.journal.clone(), Arc::clone(&name));
        let builder = setup.pool(self.0.worker_ids.clone()).on_event(move |event| journal.record(&pool, event));
        // Whatever the level of the log: the span itself is no line.
        let built = error_span!("pool", pool = &*name).in_scope(|| builder.build());
        let pool = built.with_context(|| format!("cannot set up the pool {name}"))?;
        let (setup, leaving) = (RwLock::new(Arc::new(setup)), AtomicBool::new(false));
        let serial = self.0.opened.fetch_add(1, Ordering::Relaxed);
        Ok(Arc::new(NamedPool { name, serial, pool, setup, leaving }))
    }

    /// Starts the next workers of a pool by another setup. Its sessions keep their workers, and what those were started by
    /// goes with the last of them.
    ///
    /// # Errors
    /// If the options contradict each other; then nothing has changed.
    pub(crate) fn reconfigure(&self, pool: &NamedPool, setup: Setup) -> anyhow::Result<()> {
        let changed = pool.pool.reconfigure(setup.pool(self.0.worker_ids.clone()));
        changed.with_context(|| format!("cannot change the pool {}", pool.name))?;
        let mut current = pool.setup.write().unwrap_or_else(PoisonError::into_inner);
        let former = std::mem::replace(&mut *current, Arc::new(setup));
        drop(current);
        self.0.journal.forget_start_failure(&pool.name);
        reap(lock(&self.0.retiring)).spawn(async move {
            former.factory.none_left().await;
            // The last clone removes the state directory.
            let _ = spawn_blocking(move || drop(former)).await;
        });
        Ok(())
    }

    /// Lets these be the pools, in this order. Those that are not among them take on no sessions any more, and are gone
    /// when theirs have ended, or at the time-out.
    pub(crate) fn install(&self, mut all: Vec<Arc<NamedPool>>, drain_timeout: Duration) {
        for pool in self.iter().filter(|pool| !all.iter().any(|other| Arc::ptr_eq(pool, other))).collect::<Vec<_>>() {
            all.push(Arc::clone(&pool));
            if !pool.leaving.swap(true, Ordering::Relaxed) {
                self.tasks().spawn(self.clone().take_leave(pool, drain_timeout));
            }
        }
        self.replace(all);
    }

    async fn take_leave(self, pool: Arc<NamedPool>, drain_timeout: Duration) {
        pool.pool.drain(drain_timeout).await;
        pool.factory().close().await;
        pool.pool.shutdown().await;
        // Counters go on from where the pool leaves them; of all else it has nothing any more.
        let counted = Stats { max_workers: 0, ..pool.pool.stats() };
        let mut all = self.0.all.write().unwrap_or_else(PoisonError::into_inner);
        *lock(&self.0.gone) += counted;
        *all = all.iter().filter(|other| !Arc::ptr_eq(other, &pool)).cloned().collect();
        drop(all);
        if self.find(&pool.name).is_none() {
            self.0.journal.forget_start_failure(&pool.name);
        }
        tracing::info!(pool = &*pool.name, "a removed pool is gone");
    }

    fn all(&self) -> Arc<[Arc<NamedPool>]> {
        Arc::clone(&self.0.all.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn replace(&self, all: Vec<Arc<NamedPool>>) {
        *self.0.all.write().unwrap_or_else(PoisonError::into_inner) = all.into();
    }

    fn tasks(&self) -> MutexGuard<'_, JoinSet<()>> {
        reap(lock(&self.0.tasks))
    }
}

/// Forgets the tasks that have ended.
fn reap(mut tasks: MutexGuard<'_, JoinSet<()>>) -> MutexGuard<'_, JoinSet<()>> {
    while tasks.try_join_next().is_some() {}
    tasks
}

/// Nothing here panics half-way through a change.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pools").field("all", &self.all).finish_non_exhaustive()
    }
}

async fn end_all(pool: Arc<NamedPool>) {
    let kill_all = async {
        let mut kills = JoinSet::new();
        for worker in pool.pool.workers().into_iter().filter_map(|info| info.worker) {
            kills.spawn(async move { worker.kill().await });
        }
        kills.join_all().await;
    };
    // The order counts: once polled, the shutdown has ended every session for that reason. A worker that is killed
    // before would look like one that crashed.
    join!(biased; pool.pool.shutdown(), kill_all);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{
        self, Mistakes,
        raw::Raw,
        settings::{self, SandboxMode},
    };

    /// What this host offers cannot be tried here: init needs the first call in `main`.
    fn settings(name: &str) -> settings::Pool {
        let mut pool = config::settle(Raw::default(), Mistakes::default()).unwrap().pools.remove(0);
        pool.name = name.to_owned();
        (pool.resources.min_workers, pool.resources.spare) = (0, 0);
        pool.sandbox.mode = SandboxMode::Off;
        pool
    }

    fn pools(names: &[&str]) -> Pools {
        let setups = names.iter().map(|name| Setup::prepare(settings(name)).unwrap()).collect();
        Pools::start(setups, Journal::new()).unwrap()
    }

    #[tokio::test]
    async fn the_control_plane_means_the_default_pool_the_only_one_or_the_one_it_names() {
        let meant = |pools: &Pools, worker_type| pools.default_for_control(worker_type).map(|p| p.name.to_string());
        let both = pools(&["python", "default"]);
        assert_eq!(meant(&both, "").as_deref(), Some("default"));
        assert_eq!(meant(&both, "python").as_deref(), Some("python"));
        assert_eq!(meant(&both, "ruby"), None);
        assert_eq!(meant(&pools(&["python"]), "").as_deref(), Some("python"));
        assert_eq!(meant(&pools(&["python", "ruby"]), ""), None, "nobody could tell");
    }
}
