//! A changed configuration for a daemon that runs.
//!
//! Everything is read, checked and got from the host first, and nothing changes before all of it is there. So a
//! configuration that cannot be had leaves the daemon as it is, and says why.

use std::{
    collections::BTreeSet,
    path::PathBuf,
    sync::{Arc, PoisonError, RwLock},
};

use herd_gateway::Gateway;
use serde::{Deserialize, Serialize};
use tokio::{sync::Mutex, task::spawn_blocking};
use utoipa::ToSchema;

use crate::{
    access::{Access, Tenants},
    admin::{Guard, Rules},
    certificates::{Certificates, Renewed},
    changes::{self, Contents},
    cli::DaemonFlags,
    config::{self, Mode, Settings},
    draining::Draining,
    front_door, isolation, logs,
    metrics::Metrics,
    pools::{NamedPool, Pools},
    service_manager::ServiceManager,
    setup::Setup,
    signals::HangUps,
    traces::Traces,
    webhooks::{self, Webhooks},
    workers::{self, Factory},
};

/// Where a daemon's settings are written.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    /// The configuration file, whatever the current directory is.
    pub(crate) file: PathBuf,
    /// What the command line said besides, which wins over the file.
    pub(crate) flags: DaemonFlags,
    /// For which command it is read.
    pub(crate) mode: Mode,
}

impl Source {
    /// Reads everything, and settles it.
    ///
    /// # Errors
    /// If the file cannot be read, or has mistakes.
    pub(crate) fn read(&self) -> anyhow::Result<Settings> {
        let (mut raw, mistakes) = config::read_as(&self.file, self.mode)?;
        self.flags.clone().apply(&mut raw);
        Ok(config::settle(raw, mistakes)?)
    }
}

/// Applies changed settings to the daemon. Cloning it is cheap; all clones are the same.
#[derive(Clone, Debug)]
pub(crate) struct Reloader(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    source: Option<Source>,
    parts: Parts,
    /// What the daemon runs by.
    running: RwLock<Arc<Settings>>,
    /// What the files that `running` names held when they were read. Held by one reload at a time.
    turn: Mutex<Contents>,
}

/// What of a daemon can change.
#[derive(Clone, Debug)]
pub(crate) struct Parts {
    pub(crate) pools: Pools,
    pub(crate) gateway: Gateway<Factory>,
    pub(crate) metrics: Metrics,
    pub(crate) tenants: Tenants,
    pub(crate) certificates: Certificates,
    pub(crate) webhooks: Webhooks,
    pub(crate) traces: Traces,
    pub(crate) guard: Guard,
    pub(crate) draining: Draining,
    pub(crate) service_manager: ServiceManager,
}

/// What a reload has changed.
#[derive(Debug, Deserialize, Eq, PartialEq, Serialize, ToSchema)]
pub(crate) struct Reloaded {
    /// All pools of the new configuration, and those that it has no more.
    pub(crate) pools: Vec<PoolChange>,
    /// The sections and keys besides `pools` that have other values than before, or whose files hold something else.
    pub(crate) settings: Vec<String>,
}

#[derive(Debug, Deserialize, Eq, PartialEq, Serialize, ToSchema)]
pub(crate) struct PoolChange {
    pub(crate) pool: String,
    pub(crate) change: Change,
}

/// What became of a pool.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Change {
    /// It goes on as it was.
    Unchanged,
    /// Its next workers are started by the new settings.
    Changed,
    Added,
    /// It takes on no sessions, and is gone when it has none.
    Removed,
}

impl Change {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Unchanged => "unchanged",
            Self::Changed => "changed",
            Self::Added => "added",
            Self::Removed => "removed",
        }
    }
}

/// Why nothing has changed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReloadError {
    #[error(
        "the daemon was started without a configuration file, so there is nothing to reload; end it and start it anew"
    )]
    NoFile,
    #[error("the daemon is stopping")]
    Stopping,
    /// All mistakes of the configuration, or a sentence.
    #[error("{0:#}")]
    Refused(anyhow::Error),
}

/// New settings, with everything that they need.
struct Next {
    settings: Settings,
    /// What each pool is started by, unless it stays as it is.
    setups: Vec<Option<Setup>>,
    access: Option<Access>,
    certificates: Renewed,
    webhooks: webhooks::Prepared,
    rules: Rules,
    contents: Contents,
    changed: Vec<String>,
}

impl Reloader {
    /// `source` is `None` for a daemon without a file.
    pub(crate) fn new(source: Option<Source>, running: Settings, parts: Parts) -> Self {
        let turn = Mutex::new(Contents::read(&running));
        let running = RwLock::new(Arc::new(running));
        Self(Arc::new(Shared { source, parts, running, turn }))
    }

    /// The settings in force.
    pub(crate) fn settings(&self) -> Arc<Settings> {
        Arc::clone(&self.0.running.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Reads the file again, and applies it: all of it, or nothing. Reloads follow one another.
    ///
    /// Cancel safe: whoever drops the future before it is ready has changed nothing.
    ///
    /// # Errors
    /// If there is something in the file that cannot be had, or cannot change while the daemon runs.
    pub(crate) async fn reload(&self) -> Result<Reloaded, ReloadError> {
        let outcome = self.attempt().await;
        self.0.parts.metrics.reloaded(outcome.is_ok());
        outcome
    }

    async fn attempt(&self) -> Result<Reloaded, ReloadError> {
        let source = self.0.source.clone().ok_or(ReloadError::NoFile)?;
        let mut turn = self.0.turn.lock().await;
        if self.0.parts.draining.has_begun() {
            return Err(ReloadError::Stopping);
        }
        let _reloading = self.0.parts.service_manager.reloading();
        let (before, parts) = (self.settings(), self.0.parts.clone());
        let held = turn.clone();
        let next = spawn_blocking(move || Next::prepare(&source, (&before, &held), &parts)).await;
        let next = next.unwrap_or_else(|_| Err(anyhow::anyhow!("the new configuration could not be looked at")));
        let next = next.map_err(ReloadError::Refused)?;
        if self.0.parts.draining.has_begun() {
            return Err(ReloadError::Stopping);
        }
        let contents = next.contents.clone();
        let (reloaded, settings) = self.0.parts.apply(next).map_err(ReloadError::Refused)?;
        *turn = contents;
        *self.0.running.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(settings);
        let pools = reloaded.pools.iter().filter(|pool| pool.change != Change::Unchanged);
        let pools = pools.map(|pool| format!("{} {}", pool.pool, pool.change.name())).collect::<Vec<_>>().join(", ");
        tracing::info!(pools, settings = reloaded.settings.join(", "), "the configuration was reloaded");
        Ok(reloaded)
    }
}

/// Reloads at every SIGHUP. Does not end by itself.
pub(crate) async fn on_hang_up(mut hang_ups: HangUps, reloader: Reloader) {
    loop {
        hang_ups.next().await;
        if let Err(error) = reloader.reload().await {
            tracing::error!("the configuration was not reloaded, and nothing has changed:");
            for line in error.lines() {
                tracing::error!("{line}");
            }
        }
    }
}

impl Next {
    /// Blocks for as long as it takes to look at the host.
    fn prepare(source: &Source, (before, held): (&Settings, &Contents), parts: &Parts) -> anyhow::Result<Self> {
        let mut settings = source.read()?;
        // Before all others read these files, so that what changes meanwhile is told at the next time at the latest.
        let contents = Contents::read(&settings);
        let mut refusals = Vec::new();
        let fixed = changes::needs_restart(before, &settings);
        refusals.extend((!fixed.is_empty()).then(|| fixed.into()));
        refusals.extend(isolation::guard(&mut settings).err().map(anyhow::Error::from));
        let mut setups = Vec::new();
        for pool in &settings.pools {
            let is_same = parts.pools.find(&pool.name).is_some_and(|current| current.setup().is_for(pool));
            match (!is_same).then(|| Setup::prepare(pool.clone())).transpose() {
                Ok(setup) => setups.push(setup),
                Err(error) => refusals.push(error),
            }
        }
        let access = settings.access.as_ref().map(|access| Access::open(access, &parts.tenants)).transpose();
        let (certificates, unusable) = Renewed::read(&settings.network);
        refusals.extend(unusable);
        let webhooks = webhooks::Prepared::new(&settings.webhooks);
        let rules = Rules::read(&settings.network);
        match (access, certificates, webhooks, rules) {
            (Ok(access), Some(certificates), Ok(webhooks), Ok(rules)) if refusals.is_empty() => {
                let changed = changes::changed((before, held), (&settings, &contents));
                Ok(Self { settings, setups, access, certificates, webhooks, rules, contents, changed })
            }
            (access, _, webhooks, rules) => {
                refusals.extend([access.err(), webhooks.err(), rules.err()].into_iter().flatten());
                Err(workers::one_refusal(refusals))
            }
        }
    }
}

impl Parts {
    /// Has no point at which it waits, so that it is done as a whole.
    fn apply(&self, next: Next) -> anyhow::Result<(Reloaded, Settings)> {
        let Next { settings, setups, access, certificates, webhooks, rules, contents: _, changed } = next;
        let Self { pools, gateway, metrics, traces, .. } = self;
        let mut all: Vec<Arc<NamedPool>> = Vec::new();
        let (mut to_change, mut report) = (Vec::new(), Vec::new());
        for (pool, setup) in settings.pools.iter().zip(setups) {
            let change = match (pools.find(&pool.name), setup) {
                (Some(current), None) => {
                    all.push(current);
                    Change::Unchanged
                }
                (Some(current), Some(setup)) => {
                    all.push(Arc::clone(&current));
                    to_change.push((current, setup));
                    Change::Changed
                }
                (None, Some(setup)) => {
                    all.push(pools.open(setup)?);
                    Change::Added
                }
                (None, None) => anyhow::bail!("the pool {} went while the file was read; try again", pool.name),
            };
            report.push(PoolChange { pool: pool.name.clone(), change });
        }
        let routes = front_door::routes(&all, &settings)?;
        self.certificates.replace(certificates)?;
        // From here on nothing fails: options were checked when the setups were made.
        let announced: BTreeSet<_> = to_change.iter().map(|(pool, _)| Arc::clone(&pool.name)).collect();
        for (pool, setup) in to_change {
            pools.reconfigure(&pool, setup)?;
        }
        gateway.configure(routes, front_door::options(&settings, access, metrics.clone(), traces));
        let kept: BTreeSet<_> = all.iter().map(|pool| Arc::clone(&pool.name)).collect();
        for pool in pools.iter().filter(|pool| !pool.is_leaving() && !kept.contains(&pool.name)) {
            report.push(PoolChange { pool: pool.name.to_string(), change: Change::Removed });
        }
        let added = |name: &str| report.iter().any(|pool| pool.pool == name && pool.change == Change::Added);
        for pool in all.iter().filter(|pool| announced.contains(&pool.name) || added(&pool.name)) {
            pool.setup().announce(all.len() > 1);
            pool.setup().announce_sandbox(all.len() > 1);
        }
        pools.install(all, settings.network.drain_timeout);
        self.tenants.configure(&settings.tenants);
        self.webhooks.configure(webhooks);
        self.guard.configure(rules);
        logs::change(&settings.telemetry);
        front_door::warn(&settings);
        Ok((Reloaded { pools: report, settings: changed }, settings))
    }
}

impl ReloadError {
    /// What is wrong, one mistake a line.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.to_string().lines().map(str::to_owned).collect()
    }
}
