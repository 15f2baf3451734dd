use std::{
    fmt,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

/// The upper bounds of the buckets, each inclusive; what is longer falls into one more.
const BOUNDS: [Duration; 19] = [
    Duration::from_micros(50),
    Duration::from_micros(100),
    Duration::from_micros(250),
    Duration::from_micros(500),
    Duration::from_millis(1),
    Duration::from_micros(2500),
    Duration::from_millis(5),
    Duration::from_millis(10),
    Duration::from_millis(25),
    Duration::from_millis(50),
    Duration::from_millis(100),
    Duration::from_millis(250),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_millis(2500),
    Duration::from_secs(5),
    Duration::from_secs(10),
    Duration::from_secs(30),
    Duration::from_secs(60),
];

/// How often something took how long.
///
/// Its buckets end at 50, 100, 250 and 500 microseconds, at 1, 2.5, 5, 10, 25, 50, 100, 250 and 500 milliseconds, and at
/// 1, 2.5, 5, 10, 30 and 60 seconds, each bound included; one more has what took longer. All numbers are exact:
/// durations add up as whole nanoseconds.
#[derive(Clone, Copy, Default, Eq, PartialEq)]
pub struct Histogram {
    counts: [u64; BOUNDS.len() + 1],
    sum: Duration,
}

impl Histogram {
    /// One in which nothing is counted yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The upper bounds of the buckets, each inclusive, from the shortest to the longest.
    #[must_use]
    pub fn bounds() -> &'static [Duration] {
        &BOUNDS
    }

    /// Counts something that took this long.
    pub fn record(&mut self, took: Duration) {
        self.counts[bucket(took)] += 1;
        self.sum = self.sum.saturating_add(took);
    }

    /// Adds what another one counted.
    pub fn add(&mut self, other: &Self) {
        for (count, more) in self.counts.iter_mut().zip(other.counts) {
            *count += more;
        }
        self.sum = self.sum.saturating_add(other.sum);
    }

    /// How many took at most as long as each bound, with the bound. What took longer than the last one is only in
    /// [`count`](Self::count).
    pub fn cumulative(&self) -> impl Iterator<Item = (Duration, u64)> + use<> {
        let mut so_far = 0;
        BOUNDS.into_iter().zip(self.counts).map(move |(bound, count)| {
            so_far += count;
            (bound, so_far)
        })
    }

    /// How many there were in all.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// How long all of them took together.
    #[must_use]
    pub fn sum(&self) -> Duration {
        self.sum
    }
}

impl fmt::Debug for Histogram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Histogram").field("count", &self.count()).field("sum", &self.sum).finish_non_exhaustive()
    }
}

/// A [`Histogram`] that threads count in without a lock.
#[derive(Debug, Default)]
pub struct SharedHistogram {
    counts: [AtomicU64; BOUNDS.len() + 1],
    nanos: AtomicU64,
}

impl SharedHistogram {
    /// One in which nothing is counted yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Counts something that took this long. Of durations that add up to more than 584 years the sum begins anew.
    pub fn record(&self, took: Duration) {
        self.counts[bucket(took)].fetch_add(1, Relaxed);
        self.nanos.fetch_add(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX), Relaxed);
    }

    /// Counts what took no time that would be worth a look at the clock.
    pub fn record_none(&self) {
        self.counts[0].fetch_add(1, Relaxed);
    }

    /// What was counted so far. It is not one snapshot: what is counted meanwhile may be in one of its numbers and not
    /// in another.
    #[must_use]
    pub fn read(&self) -> Histogram {
        let counts = self.counts.each_ref().map(|count| count.load(Relaxed));
        Histogram { counts, sum: Duration::from_nanos(self.nanos.load(Relaxed)) }
    }
}

fn bucket(took: Duration) -> usize {
    BOUNDS.partition_point(|bound| *bound < took)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LAST: usize = BOUNDS.len() - 1;

    #[test]
    fn a_duration_counts_in_each_bucket_that_is_not_too_short_for_it() {
        let mut histogram = Histogram::new();
        let took = [Duration::ZERO, BOUNDS[0], BOUNDS[0] + Duration::from_nanos(1), BOUNDS[LAST], 2 * BOUNDS[LAST]];
        took.into_iter().for_each(|took| histogram.record(took));
        let cumulative: Vec<_> = histogram.cumulative().collect();
        assert_eq!(cumulative.len(), Histogram::bounds().len());
        assert_eq!(cumulative[..3], [(BOUNDS[0], 2), (BOUNDS[1], 3), (BOUNDS[2], 3)]);
        assert_eq!(cumulative[LAST], (BOUNDS[LAST], 4));
        assert_eq!((histogram.count(), histogram.sum()), (5, took.into_iter().sum()));

        let mut sum = histogram;
        sum.add(&histogram);
        assert_eq!((sum.count(), sum.sum()), (10, 2 * histogram.sum()));
        assert_eq!(sum.cumulative().last(), Some((BOUNDS[LAST], 8)));
    }

    #[test]
    fn what_threads_count_together_is_counted_as_by_one() {
        let (mut one, shared) = (Histogram::new(), SharedHistogram::new());
        let took: Vec<_> = BOUNDS.into_iter().flat_map(|bound| [bound, bound + Duration::from_nanos(1)]).collect();
        std::thread::scope(|scope| {
            for half in took.chunks(took.len() / 2) {
                let shared = &shared;
                scope.spawn(move || half.iter().for_each(|took| shared.record(*took)));
            }
        });
        took.iter().for_each(|took| one.record(*took));
        assert_eq!(shared.read(), one);
        shared.record_none();
        one.record(Duration::ZERO);
        assert_eq!(shared.read(), one);
    }

    #[test]
    fn bounds_go_up() {
        assert!(BOUNDS.is_sorted_by(|shorter, longer| shorter < longer));
    }
}
