use std::{
    iter::Sum,
    ops::Add,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

use hyper::StatusCode;

use crate::{failure_kind::FailureKind, refusal_log::RefusalLog};

/// What a gateway has done, and what it does at this moment.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct GatewayStats {
    /// Client connections that are open.
    pub connections: u64,
    /// Client connections accepted so far.
    pub connections_total: u64,
    /// Attempts to accept a connection that failed, for example because no descriptors were left.
    pub accept_failures_total: u64,
    /// TLS handshakes that came to nothing so far: the client gave up, was too slow, or spoke something else.
    pub handshake_failures_total: u64,
    /// Requests that are being answered.
    pub requests: u64,
    /// Requests answered so far, by the first digit of the status: the first is 1xx.
    pub responses_total: [u64; 5],
    /// As [`failures_total`](Self::failures_total) tells them, in the order of their names' list.
    failures: [u64; FailureKind::NAMES.len()],
    /// Upgraded connections that are open.
    pub upgrades: u64,
    /// Upgraded connections so far.
    pub upgrades_total: u64,
    /// Connections opened to workers so far.
    pub upstream_connections_total: u64,
    /// Bytes of request bodies and upgraded connections that came from clients.
    pub received_bytes_total: u64,
    /// Bytes of response bodies and upgraded connections that went to clients.
    pub sent_bytes_total: u64,
}

impl GatewayStats {
    /// Requests that the gateway answered itself with a failure so far, by the name in `herd-error`: all names, also of
    /// what never happened.
    pub fn failures_total(&self) -> impl Iterator<Item = (&'static str, u64)> + use<> {
        FailureKind::NAMES.into_iter().zip(self.failures)
    }
}

impl Add for GatewayStats {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        let mut responses_total = self.responses_total;
        for (sum, count) in responses_total.iter_mut().zip(other.responses_total) {
            *sum += count;
        }
        let mut failures = self.failures;
        for (sum, count) in failures.iter_mut().zip(other.failures) {
            *sum += count;
        }
        Self {
            connections: self.connections + other.connections,
            connections_total: self.connections_total + other.connections_total,
            accept_failures_total: self.accept_failures_total + other.accept_failures_total,
            handshake_failures_total: self.handshake_failures_total + other.handshake_failures_total,
            requests: self.requests + other.requests,
            responses_total,
            failures,
            upgrades: self.upgrades + other.upgrades,
            upgrades_total: self.upgrades_total + other.upgrades_total,
            upstream_connections_total: self.upstream_connections_total + other.upstream_connections_total,
            received_bytes_total: self.received_bytes_total + other.received_bytes_total,
            sent_bytes_total: self.sent_bytes_total + other.sent_bytes_total,
        }
    }
}

impl Sum for GatewayStats {
    fn sum<I: Iterator<Item = Self>>(parts: I) -> Self {
        parts.fold(Self::default(), Add::add)
    }
}

/// The counters of one serving thread, so that threads do not contend for them.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) connections: Gauge,
    pub(crate) accept_failures: AtomicU64,
    pub(crate) handshake_failures: AtomicU64,
    pub(crate) requests: Gauge,
    responses: [AtomicU64; 5],
    failures: [AtomicU64; FailureKind::NAMES.len()],
    pub(crate) refusals: RefusalLog,
    pub(crate) upgrades: Gauge,
    pub(crate) upstream_connections: AtomicU64,
    received_bytes: AtomicU64,
    sent_bytes: AtomicU64,
}

/// Counts what begins and what ends.
#[derive(Debug, Default)]
pub(crate) struct Gauge {
    begun: AtomicU64,
    ended: AtomicU64,
}

impl Gauge {
    pub(crate) fn begin(&self) {
        self.begun.fetch_add(1, Relaxed);
    }

    pub(crate) fn end(&self) {
        self.ended.fetch_add(1, Relaxed);
    }

    fn open(&self) -> u64 {
        // Read in this order, no end is counted whose beginning is not.
        let ended = self.ended.load(Relaxed);
        self.begun.load(Relaxed).saturating_sub(ended)
    }
}

impl Counters {
    pub(crate) fn responded(&self, status: StatusCode) {
        let class = usize::from(status.as_u16() / 100).clamp(1, 5);
        self.responses[class - 1].fetch_add(1, Relaxed);
    }

    /// A client is about to hear of a failure.
    pub(crate) fn failed(&self, kind: FailureKind) {
        self.failures[kind as usize].fetch_add(1, Relaxed);
    }

    pub(crate) fn received(&self, bytes: usize) {
        self.received_bytes.fetch_add(bytes as u64, Relaxed);
    }

    pub(crate) fn sent(&self, bytes: usize) {
        self.sent_bytes.fetch_add(bytes as u64, Relaxed);
    }

    pub(crate) fn stats(&self) -> GatewayStats {
        GatewayStats {
            connections: self.connections.open(),
            connections_total: self.connections.begun.load(Relaxed),
            accept_failures_total: self.accept_failures.load(Relaxed),
            handshake_failures_total: self.handshake_failures.load(Relaxed),
            requests: self.requests.open(),
            responses_total: std::array::from_fn(|class| self.responses[class].load(Relaxed)),
            failures: std::array::from_fn(|kind| self.failures[kind].load(Relaxed)),
            upgrades: self.upgrades.open(),
            upgrades_total: self.upgrades.begun.load(Relaxed),
            upstream_connections_total: self.upstream_connections.load(Relaxed),
            received_bytes_total: self.received_bytes.load(Relaxed),
            sent_bytes_total: self.sent_bytes.load(Relaxed),
        }
    }
}
