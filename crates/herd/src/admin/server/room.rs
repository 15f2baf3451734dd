//! Bounds on what peers can make the daemon hold and say.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use super::PeerKey;

/// How many there may be of something that peers take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    pub(crate) most: usize,
    /// Of one peer.
    pub(crate) most_of_one: usize,
    /// How many are kept for peers that have none yet, so that those who take many leave room for others.
    pub(crate) reserve: usize,
}

/// How often the log says that something happens which a peer can make happen at will.
const PAUSE: Duration = Duration::from_secs(10);

/// Counts what peers take.
#[derive(Debug)]
pub(crate) struct Room {
    bounds: Bounds,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    total: usize,
    by_peer: HashMap<PeerKey, usize>,
}

/// One thing that a peer has taken. Dropping it makes room.
#[derive(Debug)]
pub(crate) struct Place {
    room: Arc<Room>,
    peer: Option<PeerKey>,
}

impl Room {
    pub(crate) fn new(bounds: Bounds) -> Self {
        Self { bounds, taken: Mutex::default() }
    }

    /// A place for this peer, if there is one. Peers that cannot be told apart have no reserve.
    pub(crate) fn enter(self: &Arc<Self>, peer: Option<PeerKey>) -> Option<Place> {
        let Bounds { most, most_of_one, reserve } = self.bounds;
        let mut taken = self.taken();
        let had = peer.map(|peer| taken.by_peer.get(&peer).copied().unwrap_or(0));
        let most = if had == Some(0) { most } else { most - reserve };
        if taken.total >= most || had.is_some_and(|had| had >= most_of_one) {
            return None;
        }
        taken.total += 1;
        if let Some(peer) = peer {
            *taken.by_peer.entry(peer).or_default() += 1;
        }
        drop(taken);
        Some(Place { room: Arc::clone(self), peer })
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        // Nothing panics while it is held.
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.room.taken();
        taken.total -= 1;
        let Some(peer) = self.peer else { return };
        if let Some(count) = taken.by_peer.get_mut(&peer) {
            *count -= 1;
            if *count == 0 {
                taken.by_peer.remove(&peer);
            }
        }
    }
}

/// Keeps what peers can make happen at will from filling the log.
#[derive(Debug, Default)]
pub(crate) struct Throttle(Mutex<Said>);

#[derive(Debug, Default)]
struct Said {
    last: Option<Instant>,
    since: u64,
}

impl Throttle {
    /// Whether to say it now: how often it has happened since it was last said, this time included.
    pub(crate) fn admit(&self) -> Option<u64> {
        let mut said = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        said.since += 1;
        if said.last.is_some_and(|last| last.elapsed() < PAUSE) {
            return None;
        }
        said.last = Some(Instant::now());
        Some(std::mem::take(&mut said.since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds { most: 50, most_of_one: 20, reserve: 10 };

    fn fill(room: &Arc<Room>, peer: Option<PeerKey>) -> Vec<Place> {
        std::iter::from_fn(|| room.enter(peer)).collect()
    }

    #[test]
    fn one_peer_cannot_take_all_places() {
        let room = Arc::new(Room::new(BOUNDS));
        let greedy = fill(&room, Some(PeerKey::Process(1)));
        assert_eq!(greedy.len(), 20);
        assert!(room.enter(Some(PeerKey::Process(2))).is_some());
        drop(greedy);
        assert!(room.taken().by_peer.is_empty(), "peers that went are forgotten");
        assert_eq!(fill(&room, Some(PeerKey::Process(1))).len(), 20);
    }

    #[test]
    fn many_greedy_peers_leave_room_for_one_that_comes_anew() {
        let room = Arc::new(Room::new(BOUNDS));
        let mut places: Vec<_> = (1..=2).flat_map(|pid| fill(&room, Some(PeerKey::Process(pid)))).collect();
        places.extend(fill(&room, None));
        assert_eq!(places.len(), 40, "the reserve is left, also by those who cannot be told apart");
        assert!(room.enter(Some(PeerKey::Process(1))).is_none());
        for newcomer in 11..=20 {
            let its_own = fill(&room, Some(PeerKey::Process(newcomer)));
            assert_eq!(its_own.len(), 1, "the reserve is for one connection each");
            places.extend(its_own);
        }
        assert!(room.enter(Some(PeerKey::Process(21))).is_none());
    }

    #[test]
    fn what_happens_often_is_said_once_and_counted() {
        let throttle = Throttle::default();
        assert_eq!(throttle.admit(), Some(1));
        assert_eq!((throttle.admit(), throttle.admit()), (None, None));
        throttle.0.lock().unwrap().last = Instant::now().checked_sub(PAUSE);
        assert_eq!(throttle.admit(), Some(3));
    }
}
