use std::time::Duration;

use crate::OptionsError;

/// What happens when a new session needs a worker and all `max_workers` are taken.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub enum WhenFull {
    /// Callers wait, up to `max_waiting` of them and `acquire_timeout` each, and are served in the order that the
    /// [crate](crate#what-tenants-share) describes.
    #[default]
    Wait,
    /// The session that has been idle for longest ends ([`EndReason::Evicted`](crate::EndReason::Evicted)) and makes
    /// room. A session with a lease is never evicted; if all have one, callers wait.
    ///
    /// Where there are tenants it is a session of the tenant that has most, if it has more than the newcomer's, and
    /// otherwise one of the newcomer's own. If neither has an idle one, callers wait: nobody can push out the sessions
    /// of a tenant that has no more than itself.
    EvictIdle,
}

/// What resets a session's idle clock, which ends the session when it reaches the `ttl`.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub enum IdleBy {
    /// Leases: the clock runs from the moment the last lease is dropped, and stands still while there is one.
    #[default]
    Lease,
    /// Bytes: the clock runs from the last [`Lease::record_bytes`](crate::Lease::record_bytes), or from the last time
    /// a lease was taken or dropped, so a session whose open connections are silent is idle all the same.
    Bytes,
}

/// What the builder collects, checked.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub(crate) min_workers: usize,
    pub(crate) max_workers: usize,
    pub(crate) spare: usize,
    pub(crate) ttl: Duration,
    pub(crate) max_lifetime: Option<Duration>,
    pub(crate) acquire_timeout: Duration,
    pub(crate) max_waiting: usize,
    pub(crate) when_full: WhenFull,
    pub(crate) spawn_timeout: Option<Duration>,
    pub(crate) health_interval: Duration,
    pub(crate) worker_reuse: bool,
    pub(crate) idle_by: IdleBy,
    /// Whether a worker serves the session alone that it was started for.
    pub(crate) per_session: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            min_workers: 1,
            max_workers: 10,
            spare: 1,
            ttl: Duration::from_secs(5 * 60),
            max_lifetime: None,
            acquire_timeout: Duration::from_secs(30),
            max_waiting: 1000,
            when_full: WhenFull::Wait,
            spawn_timeout: Some(Duration::from_secs(10 * 60)),
            health_interval: Duration::from_secs(5),
            worker_reuse: false,
            idle_by: IdleBy::Lease,
            per_session: false,
        }
    }
}

impl Options {
    /// The same for workers that serve the session alone that they were started for: none of them can be there before
    /// its session is.
    pub(crate) fn per_session(self) -> Self {
        Self { per_session: true, min_workers: 0, spare: 0, ..self }
    }

    pub(crate) fn check(&self) -> Result<(), OptionsError> {
        let Self {
            min_workers,
            max_workers,
            spare: _,
            ttl,
            max_lifetime,
            acquire_timeout: _,
            max_waiting,
            when_full: _,
            spawn_timeout,
            health_interval,
            worker_reuse,
            idle_by: _,
            per_session,
        } = *self;
        if max_workers == 0 {
            return Err(OptionsError::NoWorkers);
        }
        if min_workers > max_workers {
            return Err(OptionsError::MinAboveMax { min_workers, max_workers });
        }
        if max_waiting == 0 {
            return Err(OptionsError::NoWaiting);
        }
        if worker_reuse && per_session {
            return Err(OptionsError::ReusePerSession);
        }
        for (option, value) in [
            ("ttl", Some(ttl)),
            ("max_lifetime", max_lifetime),
            ("spawn_timeout", spawn_timeout),
            ("health_interval", Some(health_interval)),
        ] {
            if value.is_some_and(|value| value.is_zero()) {
                return Err(OptionsError::Zero { option });
            }
        }
        Ok(())
    }
}
