//! Counts wrong tokens by where they come from, in bounded memory.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// How many wrong tokens may come at once.
const BURST: u32 = 10;
/// After how long one more may come.
const PAUSE: Duration = Duration::from_secs(1);
/// How many addresses are remembered. Further ones are counted as one.
const MOST_ADDRESSES: usize = 1024;

/// Who sent wrong tokens lately, and is told to wait before the next one. It keeps nobody from guessing, for which tokens
/// are too long, but says that somebody does.
#[derive(Debug, Default)]
pub(super) struct Failures(Mutex<HashMap<Source, Instant>>);

/// Whose tokens are counted together.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
enum Source {
    /// An IPv6 host has as many addresses as it likes in its network, of which the first half is kept here.
    Host(IpAddr),
    /// All for whom there is no place.
    Others,
}

impl From<Option<IpAddr>> for Source {
    fn from(address: Option<IpAddr>) -> Self {
        match address.map(|address| address.to_canonical()) {
            Some(IpAddr::V6(address)) => Self::Host(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into()),
            Some(address) => Self::Host(address),
            None => Self::Others,
        }
    }
}

impl Failures {
    /// For how long no wrong token is expected from there, if so.
    pub(super) fn refuse(&self, from: Option<IpAddr>, now: Instant) -> Option<Duration> {
        let rested = self.lock();
        // Each wrong token puts off the moment at which all is forgotten by one pause.
        let source = Source::from(from);
        let until = rested.get(&source).or_else(|| {
            let full = rested.len() >= MOST_ADDRESSES;
            full.then(|| rested.get(&Source::Others)).flatten()
        })?;
        let debt = until.saturating_duration_since(now);
        let over = debt.checked_sub(PAUSE * (BURST - 1))?;
        (!over.is_zero()).then_some(over)
    }

    pub(super) fn count(&self, from: Option<IpAddr>, now: Instant) {
        let mut rested = self.lock();
        let mut source = Source::from(from);
        if rested.len() >= MOST_ADDRESSES && !rested.contains_key(&source) {
            rested.retain(|_, until| *until > now);
            if rested.len() >= MOST_ADDRESSES {
                source = Source::Others;
            }
        }
        let until = rested.entry(source).or_insert(now);
        *until = (*until).max(now) + PAUSE;
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Source, Instant>> {
        // Nothing in here can panic half-way through a change.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(number: u32) -> Option<IpAddr> {
        Some(IpAddr::from(number.to_be_bytes()))
    }

    #[test]
    fn an_address_that_guesses_is_refused_until_it_pauses() {
        let (failures, start) = (Failures::default(), Instant::now());
        for _ in 0..BURST {
            assert_eq!(failures.refuse(address(1), start), None);
            failures.count(address(1), start);
        }
        assert_eq!(failures.refuse(address(1), start), Some(PAUSE));
        assert_eq!(failures.refuse(address(2), start), None, "others are not");
        assert_eq!(failures.refuse(address(1), start + PAUSE), None);
        failures.count(address(1), start + PAUSE);
        assert_eq!(failures.refuse(address(1), start + PAUSE), Some(PAUSE));
    }

    #[test]
    fn a_network_of_one_host_is_one() {
        let (failures, start) = (Failures::default(), Instant::now());
        for number in 0..BURST {
            failures.count(Some(format!("2001:db8::{number:x}").parse().unwrap()), start);
        }
        assert!(failures.refuse(Some("2001:db8::ffff".parse().unwrap()), start).is_some());
        assert!(failures.refuse(Some("2001:db8:0:1::1".parse().unwrap()), start).is_none());
    }

    #[test]
    fn a_flood_from_everywhere_takes_no_more_memory() {
        let (failures, start) = (Failures::default(), Instant::now());
        for number in 0..10 * MOST_ADDRESSES as u32 {
            failures.count(address(number), start);
        }
        assert!(failures.lock().len() <= MOST_ADDRESSES + 1);
        assert!(failures.refuse(address(u32::MAX), start).is_some(), "strangers are counted together then");
        // Those who behaved are taken in again when the others are forgotten.
        failures.count(address(u32::MAX), start + PAUSE * (10 * MOST_ADDRESSES as u32));
        assert_eq!(failures.lock().len(), 1);
    }
}
