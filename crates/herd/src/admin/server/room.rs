//! Bounds on what peers can make the daemon hold and say.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use super::PeerKey;

/// How many connections one listener has at once.
const MOST: usize = 512;
/// How many of them one peer may have.
const MOST_OF_ONE: usize = 128;
/// How many are kept for peers that have none yet, so that those who take many leave room for the operator.
const RESERVE: usize = 64;

/// How often the log says that something happens which a peer can make happen at will.
const PAUSE: Duration = Duration::from_secs(10);

/// Counts a listener's connections.
#[derive(Debug, Default)]
pub(super) struct Room(Mutex<Taken>);

#[derive(Debug, Default)]
struct Taken {
    total: usize,
    by_peer: HashMap<PeerKey, usize>,
}

/// A connection's place. Dropping it makes room.
#[derive(Debug)]
pub(super) struct Place {
    room: Arc<Room>,
    peer: Option<PeerKey>,
}

impl Room {
    /// A place for a connection of this peer, if there is one. Peers that cannot be told apart have no reserve.
    pub(super) fn enter(self: &Arc<Self>, peer: Option<PeerKey>) -> Option<Place> {
        let mut taken = self.taken();
        let had = peer.map(|peer| taken.by_peer.get(&peer).copied().unwrap_or(0));
        let most = if had == Some(0) { MOST } else { MOST - RESERVE };
        if taken.total >= most || had.is_some_and(|had| had >= MOST_OF_ONE) {
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
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
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

    fn fill(room: &Arc<Room>, peer: Option<PeerKey>) -> Vec<Place> {
        std::iter::from_fn(|| room.enter(peer)).collect()
    }

    #[test]
    fn one_peer_cannot_take_all_places() {
        let room = Arc::new(Room::default());
        let greedy = fill(&room, Some(PeerKey::Process(1)));
        assert_eq!(greedy.len(), MOST_OF_ONE);
        assert!(room.enter(Some(PeerKey::Process(2))).is_some());
        drop(greedy);
        assert!(room.taken().by_peer.is_empty(), "peers that went are forgotten");
        assert_eq!(fill(&room, Some(PeerKey::Process(1))).len(), MOST_OF_ONE);
    }

    #[test]
    fn many_greedy_peers_leave_room_for_one_that_comes_anew() {
        let room = Arc::new(Room::default());
        let mut places: Vec<_> = (1..=3).flat_map(|pid| fill(&room, Some(PeerKey::Process(pid)))).collect();
        places.extend(fill(&room, None));
        assert_eq!(places.len(), MOST - RESERVE);
        assert!(room.enter(Some(PeerKey::Process(1))).is_none());
        let newcomer = PeerKey::Process(9);
        let place = room.enter(Some(newcomer));
        assert!(place.is_some());
        assert!(room.enter(Some(newcomer)).is_none(), "the reserve is for one connection each");
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
