//! What a pool's workers are started by, and get.

use std::time::Duration;

use anyhow::Context as _;
use herd_pool::{Crash, Pool, PoolBuilder, WorkerIds};
use herd_sandbox::Layer;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::{
    config::settings::{self, IdleBy, Pids, SandboxMode, WhenFull},
    isolation::{Isolation, grouped},
    sight,
    workers::{self, Factory},
};

/// How much longer than its own timeout the pool lets the start of a worker take: the factory, which can say what it
/// waited for, comes first, and has to end the worker that was not ready.
const START_MARGIN: Duration = Duration::from_secs(60);

/// What the workers of a pool are started by, and get.
#[derive(Debug)]
pub(crate) struct Setup {
    pub(crate) settings: settings::Pool,
    pub(crate) factory: Factory,
    pub(crate) isolation: Isolation,
}

impl Setup {
    /// Gets all of it from this host, and starts nothing.
    ///
    /// # Errors
    /// What cannot be had.
    pub(crate) fn prepare(settings: settings::Pool) -> anyhow::Result<Self> {
        let factory = workers::factory(&settings)?;
        let isolation = Isolation::of(&factory, settings.sandbox.mode);
        let setup = Self { settings, factory, isolation };
        let checked = setup.pool(WorkerIds::new()).check();
        checked.with_context(|| format!("cannot set up the pool {}", setup.settings.name))?;
        Ok(setup)
    }

    /// Whether workers would be started and kept as by these settings, wherever in the file they are written.
    pub(crate) fn is_for(&self, settings: &settings::Pool) -> bool {
        let settings::Pool { name, worker, resources, sandbox, secrets: _, file: _, raw: _ } = settings;
        let own = &self.settings;
        (name, worker, resources, sandbox) == (&own.name, &own.worker, &own.resources, &own.sandbox)
    }

    /// The pool that these are for.
    pub(crate) fn pool(&self, worker_ids: WorkerIds) -> PoolBuilder<Factory> {
        let settings::Resources {
            min_workers,
            max_workers,
            spare,
            ttl,
            idle_by,
            max_lifetime,
            acquire_timeout,
            max_waiting,
            when_full,
            worker_reuse,
            health_interval,
            open_files: _,
        } = self.settings.resources;
        Pool::builder(self.factory.clone())
            .worker_ids(worker_ids)
            .min_workers(min_workers)
            .max_workers(max_workers)
            .spare(spare)
            .ttl(ttl)
            .idle_by(match idle_by {
                IdleBy::Lease => herd_pool::IdleBy::Lease,
                IdleBy::Bytes => herd_pool::IdleBy::Bytes,
            })
            .max_lifetime(max_lifetime)
            .acquire_timeout(acquire_timeout)
            .max_waiting(max_waiting)
            .when_full(match when_full {
                WhenFull::Wait => herd_pool::WhenFull::Wait,
                WhenFull::EvictIdle => herd_pool::WhenFull::EvictIdle,
            })
            .worker_reuse(worker_reuse)
            .spawn_timeout(self.settings.worker.start_timeout + START_MARGIN)
            .health_interval(health_interval)
            .on_crash(log_crash)
    }

    /// Says what is not as it may be thought. Which pool it is about is said if there are several.
    pub(crate) fn announce(&self, several: bool) {
        let pool = several.then_some(self.settings.name.as_str());
        let wanted = self.settings.resources.open_files;
        if let Some(most) = workers::most_open_files().filter(|most| *most < wanted) {
            tracing::warn!(
                pool,
                wanted,
                most,
                "workers can have fewer files open than configured: no more than the daemon's hard limit, or half of it \
                 where it is not root; raise that (LimitNOFILE= of its service) or lower open_files"
            );
        }
        for sentence in sight::unseen(&self.settings, &self.isolation.layers) {
            tracing::warn!(pool, "{sentence}");
        }
        for missing in grouped(self.isolation.absent()) {
            tracing::warn!(pool, "the sandbox has no {missing}");
        }
        if let Some(sentence) = self.isolation.unsealed(&self.settings) {
            tracing::warn!(pool, "{sentence}");
        }
        self.announce_limits(pool);
    }

    /// Says in one line how far workers are sealed off.
    pub(crate) fn announce_sandbox(&self, several: bool) {
        let pool = several.then_some(self.settings.name.as_str());
        tracing::info!(pool, "sandbox: {}", self.isolation);
    }

    /// Says which limits are not kept. Whoever asked for one that cannot be has been refused, so that for most it is no
    /// matter.
    fn announce_limits(&self, pool: Option<&str>) {
        let sandbox = &self.settings.sandbox;
        if sandbox.mode == SandboxMode::Off || self.isolation.layers.contains(&Layer::Cgroup) {
            return;
        }
        tracing::info!(
            pool,
            "no limits of memory and CPU time are asked for, and none could be had here (`herd doctor` says why)"
        );
        // The default is what everybody counts on who says nothing.
        if self.isolation.limits.pids.is_none() && sandbox.limits.pids == Pids::Default {
            tracing::warn!(
                pool,
                "workers may have any number of processes: the default of 100 cannot be kept here (`herd doctor` says why)"
            );
        }
    }
}

fn log_crash(crash: &Crash) {
    // The pool itself logs every crash; what it does not say is that it hit a session. Which one is not written: whoever
    // knows a session's ID is in that session.
    if let Crash { session: Some(_), worker, exit } = crash {
        let last_line = exit.stderr_tail.last().map(String::as_str);
        tracing::warn!(%worker, %exit, last_line, "a session lost its worker");
    }
}

/// Lets the daemon open as many files as it may.
pub(crate) fn raise_open_files() {
    let limit = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }) {
        tracing::warn!(%error, "the limit of open files could not be raised");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{self, Mistakes, raw::Raw};

    /// What this host offers cannot be tried here: init needs the first call in `main`.
    fn off() -> settings::Pool {
        let mut pool = config::settle(Raw::default(), Mistakes::default()).unwrap().pools.remove(0);
        (pool.resources.min_workers, pool.resources.spare) = (0, 0);
        pool.sandbox.mode = SandboxMode::Off;
        pool
    }

    #[tokio::test]
    async fn the_pool_is_more_patient_with_a_start_than_the_factory() {
        let mut settings = off();
        settings.worker.start_timeout = Duration::from_secs(3600);
        let pool = Setup::prepare(settings).unwrap().pool(WorkerIds::new()).build().unwrap();
        assert!(format!("{pool:?}").contains("spawn_timeout: Some(3660s)"), "{pool:?}");
    }

    #[test]
    fn a_pool_is_the_same_until_something_of_it_changes() {
        let setup = Setup::prepare(off()).unwrap();
        let mut moved = off();
        moved.file = Some("elsewhere.yaml".to_owned());
        assert!(setup.is_for(&moved));
        let changes: [fn(&mut settings::Pool); 3] = [
            |pool| pool.worker.env.push(("A".to_owned(), "b".to_owned())),
            |pool| pool.resources.ttl += Duration::from_secs(1),
            |pool| pool.sandbox.limits.tmp += 1,
        ];
        for change in changes {
            let mut changed = off();
            change(&mut changed);
            assert!(!setup.is_for(&changed), "{changed:?}");
        }
    }
}
