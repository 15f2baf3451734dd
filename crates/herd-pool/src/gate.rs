//! The word through which leases of one session are taken and given back without a lock.

use crate::sync::atomic::{AtomicU64, Ordering};

const LEASE_BITS: u32 = 20;

/// The most leases that one session can have at once.
pub(crate) const MAX_LEASES: u64 = (1 << LEASE_BITS) - 1;

const ONE_REQUEST: u64 = 1 << LEASE_BITS;
const REQUESTS: u64 = (1 << 62) - ONE_REQUEST;
const WATCHED: u64 = 1 << 62;
const CLOSED: u64 = 1 << 63;

/// Counts a session's leases, and refuses new ones once it is closed.
///
/// All of it is one atomic word: whether it is closed, whether the core wants to hear of the last lease's return
/// ("watched"), how many leases were given so far ("requests"), and how many are out. Because the count of requests
/// only grows, a compare-and-swap on the word also notices leases that came and went in the meantime; a session that
/// was used is therefore never closed as idle, whatever the interleaving.
#[derive(Debug)]
pub(crate) struct Gate(AtomicU64);

/// What a gate showed at one moment.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Reading(u64);

/// Why a gate gave no lease.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Refused {
    /// It is closed.
    Closed,
    /// [`MAX_LEASES`] are out.
    Full,
}

impl Gate {
    /// An open gate with no lease out.
    pub(crate) fn open() -> Self {
        Self(AtomicU64::new(0))
    }

    /// A gate with all but one lease out and as many requests as can be counted.
    #[cfg(test)]
    pub(crate) fn nearly_full() -> Self {
        Self(AtomicU64::new(REQUESTS | (MAX_LEASES - 1)))
    }

    /// Takes a lease.
    pub(crate) fn lease(&self) -> Result<(), Refused> {
        let mut seen = self.0.load(Ordering::Relaxed);
        loop {
            if seen & CLOSED != 0 {
                return Err(Refused::Closed);
            }
            if seen & MAX_LEASES == MAX_LEASES {
                return Err(Refused::Full);
            }
            // The count of requests wraps within its field and never touches the flags.
            let requests = (seen & REQUESTS).wrapping_add(ONE_REQUEST) & REQUESTS;
            let next = (seen & !REQUESTS | requests) + 1;
            match self.0.compare_exchange_weak(seen, next, Ordering::Acquire, Ordering::Relaxed) {
                Ok(_) => return Ok(()),
                Err(changed) => seen = changed,
            }
        }
    }

    /// Gives a lease back. Returns whether it was the last one and the core wants to hear of that.
    pub(crate) fn give_back(&self) -> bool {
        // Release: what the leaseholder stored before (the idle clock) is seen by whoever sees the lease returned.
        let seen = self.0.fetch_sub(1, Ordering::AcqRel);
        debug_assert!(seen & MAX_LEASES > 0, "a lease was given back twice");
        seen & MAX_LEASES == 1 && seen & WATCHED != 0
    }

    pub(crate) fn read(&self) -> Reading {
        Reading(self.0.load(Ordering::Acquire))
    }

    /// Closes the gate if nothing happened since `seen` was read. Returns whether it did.
    pub(crate) fn close_unchanged(&self, seen: Reading) -> bool {
        self.0.compare_exchange(seen.0, seen.0 | CLOSED, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }

    /// Asks to hear of the last lease's return, if nothing happened since `seen` was read. Returns whether it did.
    pub(crate) fn watch_unchanged(&self, seen: Reading) -> bool {
        self.0.compare_exchange(seen.0, seen.0 | WATCHED, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }

    /// Closes the gate, asks to hear of the last lease's return, and tells how it was before.
    pub(crate) fn close(&self) -> Reading {
        Reading(self.0.fetch_or(CLOSED | WATCHED, Ordering::AcqRel))
    }

    /// Takes back the wish to hear of the last lease's return.
    pub(crate) fn unwatch(&self) {
        self.0.fetch_and(!WATCHED, Ordering::AcqRel);
    }
}

impl Reading {
    pub(crate) fn leases(self) -> u64 {
        self.0 & MAX_LEASES
    }

    pub(crate) fn requests(self) -> u64 {
        (self.0 & REQUESTS) >> LEASE_BITS
    }
}
