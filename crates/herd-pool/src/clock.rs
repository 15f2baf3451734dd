//! The pool's time: nanoseconds since the pool was built, so that a moment fits into one atomic word.

use std::time::{Duration, SystemTime};

use tokio::time::Instant;

/// A point in the pool's time.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) struct Moment(pub(crate) u64);

impl Moment {
    /// The end of the pool's time, which does not come.
    const NEVER: Self = Self(u64::MAX);

    pub(crate) fn after(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(nanos(duration)))
    }

    pub(crate) fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

/// Tells the pool's time, and translates it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    epoch: Instant,
}

impl Clock {
    pub(crate) fn start() -> Self {
        Self { epoch: Instant::now() }
    }

    pub(crate) fn now(&self) -> Moment {
        Moment(nanos(Instant::now().saturating_duration_since(self.epoch)))
    }

    pub(crate) fn instant(&self, moment: Moment) -> Option<Instant> {
        self.epoch.checked_add(Duration::from_nanos(moment.0))
    }

    /// The system's time at `moment`, as seen from now.
    pub(crate) fn system_time(&self, moment: Moment) -> SystemTime {
        let ago = self.now().since(moment);
        let now = SystemTime::now();
        now.checked_sub(ago).unwrap_or(now)
    }

    /// The system's time when `moment` will be, as seen from now; now, if it has been. `None` if no such time can be
    /// told.
    pub(crate) fn coming_time(&self, moment: Moment) -> Option<SystemTime> {
        if moment == Moment::NEVER {
            return None;
        }
        SystemTime::now().checked_add(moment.since(self.now()))
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
