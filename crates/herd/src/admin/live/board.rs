//! Where the pictures are shown to all readers.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{Notify, watch},
    time::Instant,
};

use super::picture::{Gone, Picture};

/// How many readers there may be. Each looks at all rows at its interval.
const MOST_READERS: usize = 256;
/// How much is remembered of who is gone, for readers that are slow.
const MOST_GONE: usize = 1 << 16;

/// Shows the latest picture alone, and remembers who is gone for those who have not read of it yet. Clones are the same.
///
/// It holds nothing for any reader: each knows by two numbers what it was sent.
#[derive(Clone, Debug, Default)]
pub(super) struct Board(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    /// There is one while somebody reads, and takes them.
    latest: watch::Sender<Option<Arc<Picture>>>,
    /// Wakes whoever takes the pictures, because somebody came or went.
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// How many readers there are of each interval.
    readers: BTreeMap<Duration, usize>,
    /// Whether somebody takes pictures.
    is_taken: bool,
    /// Whether somebody came since the last picture was begun.
    has_newcomer: bool,
    /// How many pictures there were.
    pictures: u64,
    /// How many entries of the log are not kept any more.
    forgotten: u64,
    /// Who went with which picture.
    log: VecDeque<(u64, Gone)>,
}

/// A reader's place. While one is held, pictures are taken at least as often as its interval says, if that can be.
#[derive(Debug)]
pub(super) struct Seat {
    board: Board,
    interval: Duration,
}

/// That there are as many readers as there may be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Crowded;

/// When the next picture is wanted.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Demand {
    /// As soon as may be, since there is somebody who has none.
    Soon,
    Every(Duration),
}

/// What is told of those who are gone, and where to go on.
#[derive(Debug)]
pub(super) struct Farewells {
    pub(super) gone: Vec<Gone>,
    pub(super) next: u64,
}

impl Board {
    /// Takes a place, and tells whether somebody has to begin to take pictures.
    pub(super) fn join(&self, interval: Duration) -> Result<(Seat, bool), Crowded> {
        let mut state = self.state();
        if state.readers.values().sum::<usize>() >= MOST_READERS {
            return Err(Crowded);
        }
        *state.readers.entry(interval).or_default() += 1;
        state.has_newcomer = true;
        let begins = !std::mem::replace(&mut state.is_taken, true);
        drop(state);
        self.0.changed.notify_one();
        Ok((Seat { board: self.clone(), interval }, begins))
    }

    /// The number of the next picture.
    pub(super) fn begin(&self) -> u64 {
        let mut state = self.state();
        state.has_newcomer = false;
        state.pictures + 1
    }

    pub(super) fn latest(&self) -> Option<Arc<Picture>> {
        self.0.latest.borrow().clone()
    }

    /// Shows a picture.
    pub(super) fn show(&self, picture: Picture, gone: Vec<Gone>) {
        let mut state = self.state();
        state.pictures = picture.number;
        state.log.extend(gone.into_iter().map(|gone| (picture.number, gone)));
        let excess = state.log.len().saturating_sub(MOST_GONE);
        state.log.drain(..excess);
        state.forgotten += excess as u64;
        drop(state);
        // Only now: whoever sees the picture finds in the log who went with it.
        self.0.latest.send_replace(Some(Arc::new(picture)));
    }

    /// When the next picture is wanted; `None`: never, and whoever comes has to see to it that they are taken again.
    pub(super) fn demand(&self) -> Option<Demand> {
        let mut state = self.state();
        if let Some((interval, _)) = state.readers.first_key_value() {
            return Some(if state.has_newcomer { Demand::Soon } else { Demand::Every(*interval) });
        }
        self.wipe(&mut state);
        None
    }

    /// Resolves when the demand may be another one.
    ///
    /// Cancel safe.
    pub(super) async fn changed(&self) {
        self.0.changed.notified().await;
    }

    /// Lets go of all pictures; those who read hear that there are none any more.
    pub(super) fn give_up(&self) {
        self.wipe(&mut self.state());
    }

    fn wipe(&self, state: &mut State) {
        state.is_taken = false;
        state.forgotten += state.log.len() as u64;
        state.log = VecDeque::new();
        self.0.latest.send_replace(None);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing in here panics half-way through a change.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seat {
    /// Follows the pictures.
    pub(super) fn pictures(&self) -> watch::Receiver<Option<Arc<Picture>>> {
        self.board.0.latest.subscribe()
    }

    /// Where the log goes on behind this picture.
    pub(super) fn end_of(&self, picture: &Picture) -> u64 {
        let state = self.board.state();
        state.forgotten + state.log.partition_point(|(number, _)| *number <= picture.number) as u64
    }

    /// Up to `most` of those who went with this picture or before, from the entry `next` on. `None` if that one is not
    /// kept any more.
    pub(super) fn farewells(&self, picture: &Picture, next: u64, most: usize) -> Option<Farewells> {
        let state = self.board.state();
        let begin = usize::try_from(next.checked_sub(state.forgotten)?).ok()?;
        let fresh = state.log.range(begin.min(state.log.len())..);
        let gone: Vec<_> = fresh
            .take_while(|(number, _)| *number <= picture.number)
            .take(most)
            .map(|(_, gone)| gone.clone())
            .collect();
        let next = next + gone.len() as u64;
        Some(Farewells { gone, next })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut state = self.board.state();
        if let Some(count) = state.readers.get_mut(&self.interval) {
            *count -= 1;
            if *count == 0 {
                state.readers.remove(&self.interval);
            }
        }
        drop(state);
        self.board.0.changed.notify_one();
    }
}

impl Demand {
    /// When to take the next picture after one that was begun at that time.
    pub(super) fn due(self, begun: Instant) -> Instant {
        begun
            + match self {
                Self::Soon => super::LEAST_INTERVAL,
                Self::Every(interval) => interval,
            }
    }
}
