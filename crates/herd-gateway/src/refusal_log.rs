use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use hyper::header::HeaderValue;
use tracing::Level;

use crate::{account::Caller, failure::Failure};

/// How many refused callers are told of in a second, on each serving thread.
const MOST_A_SECOND: u32 = 10;

/// Tells the log who was refused and why, but never what they showed. Whoever sends many requests cannot fill the log.
#[derive(Debug, Default)]
pub(crate) struct RefusalLog(Mutex<Second>);

#[derive(Debug, Default)]
struct Second {
    began: Option<Instant>,
    told: u32,
    /// Those that nothing was said of since the last line.
    untold: u64,
}

impl RefusalLog {
    pub(crate) fn tell(&self, failure: &Failure, address: Option<&HeaderValue>, caller: Option<&Caller>) {
        if !tracing::enabled!(Level::DEBUG) || !failure.refuses() {
            return;
        }
        let second = &mut *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(untold) = second.place(Instant::now()) else { return };
        tracing::debug!(
            client = address.and_then(|address| address.to_str().ok()),
            caller = failure.caller().or_else(|| caller?.name.as_deref()),
            tenant = caller.and_then(|caller| caller.tenant.as_ref()).map(|tenant| tenant.name()),
            error = failure.kind().name(),
            untold = Some(untold).filter(|untold| *untold > 0),
            "a caller was refused: {failure}"
        );
    }
}

impl Second {
    /// How many were passed over since the last that was told of, if it is time to tell of one.
    fn place(&mut self, now: Instant) -> Option<u64> {
        if self.began.is_none_or(|began| now.duration_since(began) >= Duration::from_secs(1)) {
            (self.began, self.told) = (Some(now), 0);
        }
        if self.told == MOST_A_SECOND {
            self.untold += 1;
            return None;
        }
        self.told += 1;
        Some(std::mem::take(&mut self.untold))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_told_of_ten_times_a_second_and_the_rest_is_counted() {
        let mut second = Second::default();
        let start = Instant::now();
        let told: Vec<_> = (0..1000).filter_map(|_| second.place(start)).collect();
        assert_eq!(told, [0; 10]);
        let later = start + Duration::from_secs(1);
        assert_eq!((second.place(later), second.place(later)), (Some(990), Some(0)));
    }
}
