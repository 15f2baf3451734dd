//! Finds live sessions by their ID without a pool-wide lock.

use std::{
    borrow::Borrow,
    collections::HashSet,
    hash::{BuildHasher, BuildHasherDefault, Hash, Hasher},
    sync::PoisonError,
};

use crate::{
    SessionId,
    gate::Refused,
    slot::Slot,
    sync::{
        Arc, RwLock,
        atomic::{AtomicU64, Ordering},
    },
};

const SHARDS: usize = 128;

/// Live sessions by ID, in shards with a lock each.
///
/// Only the core, under its own lock, adds and removes sessions; everybody reads.
pub(crate) struct Index<W>(Box<[Shard<W>]>);

/// A shard has its cache lines to itself, so that hits on different shards do not slow each other down.
#[repr(align(128))]
struct Shard<W> {
    slots: RwLock<HashSet<ById<W>, BuildHasherDefault<PassThrough>>>,
    hits: AtomicU64,
}

struct ById<W>(Arc<Slot<W>>);

/// Takes over the hash that a [`SessionId`] carries.
#[derive(Default)]
pub(crate) struct PassThrough(u64);

impl<W> Index<W> {
    pub(crate) fn new() -> Self {
        let shard = || Shard { slots: RwLock::default(), hits: AtomicU64::new(0) };
        Self(std::iter::repeat_with(shard).take(SHARDS).collect())
    }

    /// Takes a lease of a live session on behalf of an acquire, and counts it.
    pub(crate) fn hit(&self, id: &SessionId) -> Option<Arc<Slot<W>>> {
        let shard = self.shard(id);
        let slots = shard.slots.read().unwrap_or_else(PoisonError::into_inner);
        let ById(slot) = slots.get(id)?;
        slot.lease().ok()?;
        shard.hits.fetch_add(1, Ordering::Relaxed);
        Some(Arc::clone(slot))
    }

    /// Takes a lease of a live session; `None` if there is none.
    pub(crate) fn lease(&self, id: &SessionId) -> Option<Result<Arc<Slot<W>>, Refused>> {
        let slots = self.shard(id).slots.read().unwrap_or_else(PoisonError::into_inner);
        let ById(slot) = slots.get(id)?;
        Some(slot.lease().map(|()| Arc::clone(slot)))
    }

    /// A live session.
    pub(crate) fn find(&self, id: &SessionId) -> Option<Arc<Slot<W>>> {
        let slots = self.shard(id).slots.read().unwrap_or_else(PoisonError::into_inner);
        slots.get(id).map(|ById(slot)| Arc::clone(slot))
    }

    /// All live sessions. Only one shard is locked at a time.
    pub(crate) fn all(&self) -> Vec<Arc<Slot<W>>> {
        let mut all = Vec::new();
        for shard in &self.0 {
            let slots = shard.slots.read().unwrap_or_else(PoisonError::into_inner);
            all.extend(slots.iter().map(|ById(slot)| Arc::clone(slot)));
        }
        all
    }

    /// How many acquires were hits.
    pub(crate) fn hits(&self) -> u64 {
        self.0.iter().map(|shard| shard.hits.load(Ordering::Relaxed)).sum()
    }

    /// Adds a session that is not in the index.
    pub(crate) fn insert(&self, slot: Arc<Slot<W>>) {
        let mut slots = self.shard(slot.id()).slots.write().unwrap_or_else(PoisonError::into_inner);
        let added = slots.insert(ById(slot));
        debug_assert!(added, "a session was live twice");
    }

    /// Removes a session.
    pub(crate) fn remove(&self, id: &SessionId) {
        let removed = self.shard(id).slots.write().unwrap_or_else(PoisonError::into_inner).take(id);
        debug_assert!(removed.is_some(), "a live session was not in the index");
        // The slot itself is dropped after the shard's lock, which ended with the statement above.
        drop(removed);
    }

    fn shard(&self, id: &SessionId) -> &Shard<W> {
        // The table within a shard uses the lowest and the seven highest bits of the hash; these are others.
        let hash = BuildHasherDefault::<PassThrough>::default().hash_one(id);
        &self.0[usize::try_from(hash >> 48).unwrap_or_default() % SHARDS]
    }
}

impl<W> Borrow<SessionId> for ById<W> {
    fn borrow(&self) -> &SessionId {
        self.0.id()
    }
}

impl<W> Hash for ById<W> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.id().hash(state);
    }
}

impl<W> PartialEq for ById<W> {
    fn eq(&self, other: &Self) -> bool {
        self.0.id() == other.0.id()
    }
}

impl<W> Eq for ById<W> {}

impl Hasher for PassThrough {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        // A session ID writes its hash as one word; this is here for completeness of the trait only.
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}
