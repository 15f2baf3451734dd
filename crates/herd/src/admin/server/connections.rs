//! The connections of a listener: what each does, and which one goes where there is no room for a newcomer.

use std::{
    collections::HashMap,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use axum::body::{Body, Bytes, HttpBody};
use hyper::body::{Frame, SizeHint};
use tokio::{
    sync::{Notify, watch},
    time::{Instant, timeout_at},
};

use super::{PeerKey, Room, room::Place};

/// All connections of a listener. Peers that cannot be told apart have no room of their own; so among them whoever did
/// nothing for longest makes room for those who come.
#[derive(Debug)]
pub(super) struct Connections {
    room: Arc<Room>,
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    /// How many there have been.
    count: u64,
    by_number: HashMap<u64, Entry>,
}

#[derive(Debug)]
struct Entry {
    peer: Option<PeerKey>,
    activity: Activity,
    evicted: Arc<Notify>,
    /// Taken until the entry goes.
    _place: Place,
}

/// One connection. Dropping it makes room.
#[derive(Debug)]
pub(super) struct Connection {
    connections: Arc<Connections>,
    number: u64,
    pub(super) activity: Activity,
    evicted: Arc<Notify>,
}

impl Connections {
    pub(super) fn new(room: Room) -> Arc<Self> {
        Arc::new(Self { room: Arc::new(room), open: Mutex::default() })
    }

    /// Lets a peer in, if there is room for it or somebody makes some.
    pub(super) fn enter(self: &Arc<Self>, peer: Option<PeerKey>) -> Option<Connection> {
        let mut open = self.open();
        let place = self.room.enter(peer).or_else(|| {
            // Whoever has a key has a share, and is refused what goes beyond it.
            let longest = peer.is_none().then(|| open.longest_idle()).flatten()?;
            let gone = open.by_number.remove(&longest)?;
            gone.evicted.notify_one();
            drop(gone);
            self.room.enter(peer)
        })?;
        open.count += 1;
        let (number, activity, evicted) = (open.count, Activity::default(), Arc::new(Notify::new()));
        let entry = Entry { peer, activity: activity.clone(), evicted: Arc::clone(&evicted), _place: place };
        open.by_number.insert(number, entry);
        drop(open);
        Some(Connection { connections: Arc::clone(self), number, activity, evicted })
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        // Nothing panics half-way through a change.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Open {
    /// Of those that cannot be told apart the one that has done nothing for longest.
    fn longest_idle(&self) -> Option<u64> {
        let nobodys = self.by_number.iter().filter(|(_, entry)| entry.peer.is_none());
        let idle = nobodys.filter_map(|(number, entry)| Some((entry.activity.idle_since()?, *number)));
        idle.min().map(|(_, number)| number)
    }
}

impl Connection {
    /// Resolves when it has to make room.
    pub(super) async fn evicted(&self) {
        self.evicted.notified().await;
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.connections.open().by_number.remove(&self.number);
    }
}

/// Whether the daemon has something to do for a connection. Clones are the same.
#[derive(Clone, Debug)]
pub(super) struct Activity(watch::Sender<Doing>);

#[derive(Clone, Copy, Debug)]
struct Doing {
    /// Requests and answers that wait for the daemon. What waits for the peer to take it does not count: whoever opens
    /// streams and takes nothing would never be idle.
    busy: usize,
    /// When this last changed.
    since: Instant,
}

impl Default for Activity {
    fn default() -> Self {
        Self(watch::Sender::new(Doing { busy: 0, since: Instant::now() }))
    }
}

impl Activity {
    /// Counts something that the daemon does, until it is dropped.
    pub(super) fn begin(&self) -> Busy {
        self.0.send_modify(|doing| doing.busy += 1);
        Busy(self.clone())
    }

    fn idle_since(&self) -> Option<Instant> {
        let doing = *self.0.borrow();
        (doing.busy == 0).then_some(doing.since)
    }

    /// Resolves when nothing was to be done for this long.
    pub(super) async fn idle_for(&self, limit: Duration) {
        let mut changes = self.0.subscribe();
        loop {
            let doing = *changes.borrow_and_update();
            // The sender lives as long as this does.
            if doing.busy > 0 {
                let _ = changes.changed().await;
            } else if timeout_at(doing.since + limit, changes.changed()).await.is_err() {
                return;
            }
        }
    }
}

/// Something that the daemon does for a connection.
#[derive(Debug)]
pub(super) struct Busy(Activity);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.0.send_modify(|doing| *doing = Doing { busy: doing.busy - 1, since: Instant::now() });
    }
}

/// The body of an answer, which counts as something to do while its next piece has yet to come.
#[derive(Debug)]
pub(super) struct WatchedBody {
    body: Body,
    activity: Activity,
    busy: Option<Busy>,
}

impl WatchedBody {
    pub(super) fn new(body: Body, activity: Activity) -> Self {
        Self { body, activity, busy: None }
    }
}

impl HttpBody for WatchedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.body).poll_frame(cx);
        if polled.is_ready() {
            // Counted for a moment at least, so that the connection is as young as its last piece.
            drop(this.busy.take().unwrap_or_else(|| this.activity.begin()));
        } else if this.busy.is_none() {
            this.busy = Some(this.activity.begin());
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use http_body_util::BodyExt as _;

    use super::*;
    use crate::admin::server::Bounds;

    const BOUNDS: Bounds = Bounds { most: 5, most_of_one: 3, reserve: 1 };

    #[tokio::test(start_paused = true)]
    async fn among_those_who_cannot_be_told_apart_the_longest_idle_makes_room() {
        let connections = Connections::new(Room::new(BOUNDS));
        let mut open = Vec::new();
        for _ in 0..4 {
            open.push(connections.enter(None).unwrap());
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        let busy = open[0].activity.begin();
        drop(open[1].activity.begin());
        let newcomer = connections.enter(None).unwrap();
        let gone: Vec<_> = open.iter().map(|one| one.evicted().now_or_never().is_some()).collect();
        assert_eq!(gone, [false, false, true, false], "one is busy, and one was a moment ago");
        open.remove(2);
        open.push(newcomer);
        let all: Vec<_> = open.iter().map(|one| one.activity.begin()).collect();
        assert!(connections.enter(None).is_none(), "nobody is idle");
        assert!(connections.enter(Some(PeerKey::Process(1))).is_some(), "the reserve is left");
        drop((busy, all, open));
        assert!(connections.open().by_number.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_is_the_daemons_business_until_its_next_piece_is_there() {
        let activity = Activity::default();
        let never = Body::from_stream(futures_util::stream::pending::<Result<Bytes, std::io::Error>>());
        let mut waiting = WatchedBody::new(never, activity.clone());
        assert!(activity.idle_since().is_some(), "the peer has to ask for it");
        assert!(waiting.frame().now_or_never().is_none());
        assert!(activity.idle_since().is_none());
        drop(waiting);
        assert!(activity.idle_since().is_some());
    }
}
