use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use herd_pool::{Histogram, SharedHistogram};
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
    pub request: Histogram,
    /// From the request's head to the head of the worker's response.
    pub first_byte: Histogram,
    /// By phase, in the order in which a request passes them: `admit` (*access*, *route* and *key*), `lease`, `connect`,
    /// `send` (until the head of the response is there), and `relay`; a request that ends its session passes `end` (until
    /// its worker is gone) instead of those from `connect` to `send`. What took so little that nobody looked at the clock
    /// adds nothing to the sums.
    pub phases: [(&'static str, Histogram); 6],
}

impl PoolLatencies {
    pub(crate) fn new(pool: Arc<str>) -> Self {
        let phases = Phase::NAMES.map(|name| (name, Histogram::default()));
        Self { pool, responses_total: [0; 5], request: Histogram::default(), first_byte: Histogram::default(), phases }
    }

    /// Adds what one serving thread counted.
    pub(crate) fn add(&mut self, part: &Record) {
        for (sum, count) in self.responses_total.iter_mut().zip(&part.responses) {
            *sum += count.load(Relaxed);
        }
        self.request.add(&part.request.read());
        self.first_byte.add(&part.first_byte.read());
        for ((_, sum), histogram) in self.phases.iter_mut().zip(&part.phases) {
            sum.add(&histogram.read());
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
    /// Until the session that the request ends has ended.
    End = 5,
}

impl Phase {
    const NAMES: [&'static str; 6] = ["admit", "lease", "connect", "send", "relay", "end"];

    pub(crate) fn name(self) -> &'static str {
        Self::NAMES[self as usize]
    }
}

/// What one pool's requests took on one serving thread, so that threads do not contend for it.
#[derive(Debug, Default)]
pub(crate) struct Record {
    responses: [AtomicU64; 5],
    pub(crate) request: SharedHistogram,
    pub(crate) first_byte: SharedHistogram,
    phases: [SharedHistogram; 6],
}

impl Record {
    pub(crate) fn responded(&self, status: StatusCode) {
        let class = usize::from(status.as_u16() / 100).clamp(1, 5);
        self.responses[class - 1].fetch_add(1, Relaxed);
    }

    pub(crate) fn phase(&self, phase: Phase) -> &SharedHistogram {
        &self.phases[phase as usize]
    }
}
