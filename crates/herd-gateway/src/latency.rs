use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use hyper::StatusCode;

/// What one pool's requests took, over all serving threads.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct PoolLatencies {
    /// The pool's name.
    pub pool: Arc<str>,
    /// Responses so far, by the first digit of the status: the first is 1xx.
    pub responses_total: [u64; 5],
    /// From the request's head to the last byte of the response, of every request that was answered, by a worker or by
    /// the gateway itself once it knew the pool.
    pub request: Latency,
    /// From the request's head to the head of the worker's response.
    pub first_byte: Latency,
    /// By phase, in the order in which a request passes them: `admit` (*access*, *route* and *key*), `lease`, `connect`,
    /// `send` (until the head of the response is there), and `relay`.
    pub phases: [(&'static str, Latency); 5],
}

/// How often something took how long.
///
/// It is like [`herd_pool::Histogram`], with finer buckets: at 50, 100, 250 and 500 microseconds, 1, 2.5, 5, 10, 25, 50,
/// 100, 250 and 500 milliseconds, and 1, 2.5, 5, 10, 30 and 60 seconds, each bound included; one more has what took
/// longer.
#[derive(Clone, Copy, Default, Eq, PartialEq)]
pub struct Latency {
    counts: [u64; Self::BUCKETS],
    sum: Duration,
}

impl Latency {
    const BUCKETS: usize = Self::BOUNDS.len() + 1;

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

    /// The upper bounds of the buckets, each inclusive, from the shortest to the longest.
    #[must_use]
    pub fn bounds() -> &'static [Duration] {
        &Self::BOUNDS
    }

    /// How many took at most as long as each bound, with the bound. What took longer than the last one is only in
    /// [`count`](Self::count).
    pub fn cumulative(&self) -> impl Iterator<Item = (Duration, u64)> + use<> {
        let mut so_far = 0;
        Self::BOUNDS.into_iter().zip(self.counts).map(move |(bound, count)| {
            so_far += count;
            (bound, so_far)
        })
    }

    /// How many were measured.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// How long all of them took together. What took so little that nobody looked at the clock adds nothing.
    #[must_use]
    pub fn sum(&self) -> Duration {
        self.sum
    }

    fn add(&mut self, part: &Histogram) {
        for (sum, count) in self.counts.iter_mut().zip(&part.counts) {
            *sum += count.load(Relaxed);
        }
        self.sum += Duration::from_nanos(part.nanos.load(Relaxed));
    }
}

impl fmt::Debug for Latency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Latency").field("count", &self.count()).field("sum", &self.sum).finish_non_exhaustive()
    }
}

impl PoolLatencies {
    pub(crate) fn new(pool: Arc<str>) -> Self {
        let phases = Phase::NAMES.map(|name| (name, Latency::default()));
        Self { pool, responses_total: [0; 5], request: Latency::default(), first_byte: Latency::default(), phases }
    }

    /// Adds what one serving thread counted.
    pub(crate) fn add(&mut self, part: &Record) {
        for (sum, count) in self.responses_total.iter_mut().zip(&part.responses) {
            *sum += count.load(Relaxed);
        }
        self.request.add(&part.request);
        self.first_byte.add(&part.first_byte);
        for ((_, sum), histogram) in self.phases.iter_mut().zip(&part.phases) {
            sum.add(histogram);
        }
    }
}

/// Where a request is. What it may wait for is told apart; what it passes without waiting, such as *rewrite*, is not.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Phase {
    /// *access*, *route* and *key*.
    Admit = 0,
    Lease = 1,
    Connect = 2,
    /// Until the head of the response.
    Send = 3,
    Relay = 4,
}

impl Phase {
    const NAMES: [&'static str; 5] = ["admit", "lease", "connect", "send", "relay"];

    pub(crate) fn name(self) -> &'static str {
        Self::NAMES[self as usize]
    }
}

/// What one pool's requests took on one serving thread, so that threads do not contend for it.
#[derive(Debug, Default)]
pub(crate) struct Record {
    responses: [AtomicU64; 5],
    pub(crate) request: Histogram,
    pub(crate) first_byte: Histogram,
    phases: [Histogram; 5],
}

impl Record {
    pub(crate) fn responded(&self, status: StatusCode) {
        let class = usize::from(status.as_u16() / 100).clamp(1, 5);
        self.responses[class - 1].fetch_add(1, Relaxed);
    }

    pub(crate) fn phase(&self, phase: Phase) -> &Histogram {
        &self.phases[phase as usize]
    }
}

/// The buckets of [`Latency`] while they are counted.
#[derive(Debug, Default)]
pub(crate) struct Histogram {
    counts: [AtomicU64; Latency::BUCKETS],
    nanos: AtomicU64,
}

impl Histogram {
    pub(crate) fn record(&self, took: Duration) {
        let bucket = Latency::BOUNDS.partition_point(|bound| *bound < took);
        self.counts[bucket].fetch_add(1, Relaxed);
        // It wraps after 584 years of requests.
        self.nanos.fetch_add(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX), Relaxed);
    }

    /// Counts what took no time that would be worth a look at the clock.
    pub(crate) fn record_none(&self) {
        self.counts[0].fetch_add(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_duration_counts_in_the_bucket_of_the_next_bound() {
        let histogram = Histogram::default();
        let nanosecond = Duration::from_nanos(1);
        for bound in Latency::BOUNDS {
            histogram.record(bound);
            histogram.record(bound + nanosecond);
        }
        histogram.record_none();
        let mut latency = Latency::default();
        latency.add(&histogram);
        let mut counts = [2; Latency::BUCKETS];
        counts[Latency::BUCKETS - 1] = 1;
        assert_eq!(latency.counts, counts);
        assert_eq!(latency.count(), 39);
        assert_eq!(latency.cumulative().last(), Some((Latency::BOUNDS[18], 38)));
        assert_eq!(latency.sum(), Latency::BOUNDS.into_iter().sum::<Duration>() * 2 + 19 * nanosecond);
        assert!(Latency::BOUNDS.is_sorted());
    }
}
