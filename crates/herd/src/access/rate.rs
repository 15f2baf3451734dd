use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

/// Stands for "no limit".
const UNLIMITED: u64 = u64::MAX;

const SECOND: u64 = 1_000_000_000;

/// How often something may happen: evenly over time, and up to one second's worth of it at once.
///
/// This is the generic cell rate algorithm (ITU-T I.371, annex A). Its whole state is one point in time, so that any
/// number of threads share it without a lock. The interval is whole nanoseconds, rounded up, so that there is never more
/// than was allowed.
#[derive(Debug)]
pub(crate) struct Rate {
    per_second: AtomicU64,
    /// When all of what was let in would have come if it had come evenly, in nanoseconds since an epoch of the caller's.
    due: AtomicU64,
}

impl Rate {
    /// At most so many a second; `None` is no limit.
    pub(crate) fn new(per_second: Option<u32>) -> Self {
        let rate = Self { per_second: AtomicU64::new(UNLIMITED), due: AtomicU64::new(0) };
        rate.limit(per_second);
        rate
    }

    /// Changes the limit. What came before counts on.
    pub(crate) fn limit(&self, per_second: Option<u32>) {
        self.per_second.store(per_second.map_or(UNLIMITED, u64::from), Ordering::Relaxed);
    }

    /// Lets one more in, or says how long to wait until one could be let in.
    ///
    /// `now` is in nanoseconds since a point in time that is the same for all calls.
    ///
    /// # Errors
    /// How long to wait, exactly. Who is refused uses up nothing.
    pub(crate) fn admit(&self, now: u64) -> Result<(), Duration> {
        let per_second = self.per_second.load(Ordering::Relaxed);
        if per_second == UNLIMITED {
            return Ok(());
        }
        if per_second == 0 {
            return Err(Duration::from_secs(1));
        }
        let interval = SECOND.div_ceil(per_second);
        let burst = (per_second - 1) * interval;
        let mut due = self.due.load(Ordering::Relaxed);
        loop {
            let ahead = due.saturating_sub(now);
            if ahead > burst {
                return Err(Duration::from_nanos(ahead - burst));
            }
            let next = due.max(now) + interval;
            match self.due.compare_exchange_weak(due, next, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return Ok(()),
                Err(meanwhile) => due = meanwhile,
            }
        }
    }

    /// Whether nothing of the past counts any more, so that a new one would be the same.
    pub(crate) fn is_rested(&self, now: u64) -> bool {
        self.due.load(Ordering::Relaxed) <= now
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use proptest::prelude::*;

    use super::*;

    /// How many of those who come at these times are let in.
    fn admitted(rate: &Rate, times: impl IntoIterator<Item = u64>) -> usize {
        times.into_iter().filter(|now| rate.admit(*now).is_ok()).count()
    }

    #[test]
    fn one_seconds_worth_may_come_at_once_and_then_one_in_each_interval() {
        let rate = Rate::new(Some(4));
        let start = 5 * SECOND;
        assert_eq!(admitted(&rate, [start; 9]), 4);
        assert_eq!(rate.admit(start), Err(Duration::from_millis(250)));
        assert_eq!(rate.admit(start + SECOND / 4 - 1), Err(Duration::from_nanos(1)));
        assert_eq!(rate.admit(start + SECOND / 4), Ok(()));
        assert_eq!(rate.admit(start + SECOND / 4), Err(Duration::from_millis(250)));
    }

    #[test]
    fn whoever_is_refused_and_comes_back_when_told_is_let_in() {
        let rate = Rate::new(Some(7));
        let mut now = SECOND;
        for _ in 0..100 {
            if let Err(wait) = rate.admit(now) {
                now += u64::try_from(wait.as_nanos()).unwrap();
                assert_eq!(rate.admit(now), Ok(()));
            }
        }
    }

    #[test]
    fn zero_lets_nobody_in_and_none_everybody() {
        let rate = Rate::new(Some(0));
        assert_eq!(rate.admit(SECOND), Err(Duration::from_secs(1)));
        rate.limit(None);
        assert_eq!(admitted(&rate, [SECOND; 1000]), 1000);
    }

    #[test]
    fn a_changed_limit_counts_at_once_and_forgets_nothing() {
        let rate = Rate::new(Some(10));
        assert_eq!(admitted(&rate, [SECOND; 20]), 10);
        rate.limit(Some(2));
        assert!(rate.admit(SECOND).is_err());
        rate.limit(Some(20));
        assert_eq!(admitted(&rate, [2 * SECOND; 40]), 20);
    }

    #[test]
    fn threads_together_get_no_more_than_one_would() {
        let rate = Rate::new(Some(1000));
        let all: usize = thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(|| admitted(&rate, [SECOND; 2000]))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(all, 1000);
    }

    proptest! {
        #[test]
        fn no_stretch_of_time_sees_more_than_its_share_and_a_burst(
            per_second in 1_u32..2000,
            steps in prop::collection::vec(0_u64..50_000_000, 1..300),
        ) {
            let rate = Rate::new(Some(per_second));
            let mut now = SECOND;
            let mut let_in = Vec::new();
            for step in steps {
                now += step;
                if rate.admit(now).is_ok() {
                    let_in.push(now);
                }
            }
            let interval = SECOND.div_ceil(u64::from(per_second));
            for (first, from) in let_in.iter().enumerate() {
                for (last, to) in let_in.iter().enumerate().skip(first) {
                    let share = (to - from) / interval + u64::from(per_second);
                    prop_assert!((last - first + 1) as u64 <= share);
                }
            }
        }

        #[test]
        fn who_keeps_to_the_rate_is_never_refused(per_second in 1_u32..2000, count in 1_u64..5000) {
            let rate = Rate::new(Some(per_second));
            let interval = SECOND.div_ceil(u64::from(per_second));
            for number in 0..count {
                prop_assert!(rate.admit(SECOND + number * interval).is_ok());
            }
        }
    }
}
