//! A service manager such as systemd: what it is told (sd_notify(3)), and the sockets that it passes on
//! (sd_listen_fds(3)).
//!
//! Whoever starts the daemon without one has neither variable set, and nothing is told to anybody. Neither the variables
//! nor the sockets reach a worker: its environment is made anew, and init closes what it inherits.

mod notifier;
mod sockets;

use std::{env, future::pending, sync::Arc, time::Duration};

use rustix::time::{ClockId, clock_gettime};
use tokio::time::{MissedTickBehavior, interval};

use self::notifier::{Notifier, Watchdog};
pub(crate) use self::sockets::Sockets;
use crate::{draining::Draining, gateway_threads::Pulse, pools::Pools};

/// How often the status is brought up to date, where a watchdog does not ask for more.
const INTERVAL: Duration = Duration::from_secs(5);
/// How much longer the end may take, each time that the daemon says so while it drains: some missed turns of
/// [`INTERVAL`], and the time that it takes to close what is left.
const EXTENSION: Duration = Duration::from_secs(30);

/// Tells the service manager what the daemon does, if there is one. Clones are the same.
#[derive(Clone, Debug, Default)]
pub(crate) struct ServiceManager(Option<Arc<Notifier>>);

impl ServiceManager {
    /// Who is named by `NOTIFY_SOCKET`, if anybody is.
    ///
    /// # Errors
    /// If the variables are none that a service manager sets.
    pub(crate) fn from_environment() -> anyhow::Result<Self> {
        let Some(address) = env::var_os("NOTIFY_SOCKET").filter(|address| !address.is_empty()) else {
            return Ok(Self::default());
        };
        let (interval, pid) = (env::var_os("WATCHDOG_USEC"), env::var_os("WATCHDOG_PID"));
        let watchdog = Watchdog::read(interval.as_deref(), pid.as_deref())?;
        Ok(Self(Some(Arc::new(Notifier::open(&address, watchdog)?))))
    }

    /// The daemon serves.
    pub(crate) fn ready(&self, pools: &Pools) {
        self.tell(|| format!("READY=1\nSTATUS={}", status(pools, false)));
    }

    /// The daemon reads its configuration again, until the answer is dropped.
    pub(crate) fn reloading(&self) -> Reloading {
        self.tell(|| {
            // Since systemd 253 it is asked for, so that the manager knows which of its requests this is about.
            let now = clock_gettime(ClockId::Monotonic);
            let microseconds = i128::from(now.tv_sec) * 1_000_000 + i128::from(now.tv_nsec) / 1000;
            format!("RELOADING=1\nMONOTONIC_USEC={microseconds}")
        });
        Reloading(self.clone())
    }

    /// The daemon drains.
    pub(crate) fn stopping(&self, pools: &Pools) {
        let extension = EXTENSION.as_micros();
        self.tell(|| format!("STOPPING=1\nEXTEND_TIMEOUT_USEC={extension}\nSTATUS={}", status(pools, true)));
    }

    /// Says again and again that the daemon is well, in time for the watchdog, and what it does. Does not end by itself.
    ///
    /// It runs among the tasks of the control plane and asks every gateway thread, so that nothing is said as soon as one
    /// of them hangs.
    pub(crate) async fn attend(self, pools: Pools, pulse: Pulse, draining: Draining) {
        let Some(notifier) = self.0 else { return pending().await };
        let period = notifier.watchdog.map_or(INTERVAL, |watchdog| watchdog.period().min(INTERVAL));
        let patience = notifier.watchdog.map_or(INTERVAL, Watchdog::patience);
        let mut turns = interval(period);
        turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut said = String::new();
        let mut complained = false;
        loop {
            turns.tick().await;
            if !pulse.is_felt(patience).await {
                if !complained {
                    tracing::error!(
                        ?patience,
                        "a gateway thread does not answer, and so the service manager is told nothing until it does"
                    );
                }
                complained = true;
                continue;
            }
            if complained {
                tracing::warn!("all gateway threads answer again");
                complained = false;
            }
            let mut lines = Vec::new();
            if notifier.watchdog.is_some() {
                lines.push("WATCHDOG=1".to_owned());
            }
            let drains = draining.has_begun();
            if drains {
                lines.push(format!("EXTEND_TIMEOUT_USEC={}", EXTENSION.as_micros()));
            }
            let status = status(&pools, drains);
            if status != said {
                lines.push(format!("STATUS={status}"));
                said = status;
            }
            if !lines.is_empty() {
                notifier.send(&lines.join("\n"));
            }
        }
    }

    fn tell(&self, what: impl FnOnce() -> String) {
        if let Some(notifier) = &self.0 {
            notifier.send(&what());
        }
    }
}

/// A reload that goes on. Dropping it says that the daemon is done with it, whatever came of it.
#[derive(Debug)]
#[must_use = "the service manager waits until it is dropped"]
pub(crate) struct Reloading(ServiceManager);

impl Drop for Reloading {
    fn drop(&mut self) {
        self.0.tell(|| "READY=1".to_owned());
    }
}

/// One line for `systemctl status`.
fn status(pools: &Pools, drains: bool) -> String {
    let stats = pools.stats();
    let what = if drains { "stopping: waits for the sessions in use" } else { "serving" };
    format!("{what}; sessions: {}, workers: {} of {}", stats.sessions, stats.workers, stats.max_workers)
}
