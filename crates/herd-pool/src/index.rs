//! Finds live sessions by their ID without a pool-wide lock.

use std::{
    hash::{BuildHasher, BuildHasherDefault, Hasher},
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
    table::Table,
};

const SHARDS: usize = 128;

/// Live sessions by ID, in shards with a lock each.
///
/// Only the core, under its own lock, adds and removes sessions; everybody reads.
pub(crate) struct Index<W>(Box<[Shard<W>]>);

/// A shard has its cache lines to itself, so that hits on different shards do not slow each other down.
#[repr(align(128))]
struct Shard<W> {
    slots: RwLock<Table<Arc<Slot<W>>>>,
    hits: AtomicU64,
}

impl<W> Index<W> {
    pub(crate) fn new() -> Self {
        let shard = || Shard { slots: RwLock::new(Table::new()), hits: AtomicU64::new(0) };
        Self(std::iter::repeat_with(shard).take(SHARDS).collect())
    }

    /// Takes a lease of a live session on behalf of an acquire, and counts it.
    pub(crate) fn hit(&self, id: &SessionId) -> Option<Arc<Slot<W>>> {
        let hash = hash(id);
        let shard = self.shard(hash);
        let slots = shard.slots.read().unwrap_or_else(PoisonError::into_inner);
        let slot = slots.find(hash, |slot| slot.id() == id)?;
        slot.lease().ok()?;
        shard.hits.fetch_add(1, Ordering::Relaxed);
        Some(Arc::clone(slot))
    }

    /// Takes a lease of a live session; `None` if there is none.
    pub(crate) fn lease(&self, id: &SessionId) -> Option<Result<Arc<Slot<W>>, Refused>> {
        let hash = hash(id);
        let slots = self.shard(hash).slots.read().unwrap_or_else(PoisonError::into_inner);
        let slot = slots.find(hash, |slot| slot.id() == id)?;
        Some(slot.lease().map(|()| Arc::clone(slot)))
    }

    /// A live session.
    pub(crate) fn find(&self, id: &SessionId) -> Option<Arc<Slot<W>>> {
        let hash = hash(id);
        let slots = self.shard(hash).slots.read().unwrap_or_else(PoisonError::into_inner);
        slots.find(hash, |slot| slot.id() == id).map(Arc::clone)
    }

    /// All live sessions of which `fits` holds. Only one shard is locked at a time.
    pub(crate) fn all(&self, fits: impl Fn(&Slot<W>) -> bool) -> Vec<Arc<Slot<W>>> {
        let mut all = Vec::new();
        for shard in &self.0 {
            let slots = shard.slots.read().unwrap_or_else(PoisonError::into_inner);
            all.extend(slots.iter().filter(|slot| fits(slot)).map(Arc::clone));
        }
        all
    }

    /// How many acquires were hits.
    pub(crate) fn hits(&self) -> u64 {
        self.0.iter().map(|shard| shard.hits.load(Ordering::Relaxed)).sum()
    }

    /// Adds a session that is not in the index.
    pub(crate) fn insert(&self, slot: Arc<Slot<W>>) {
        let hash = hash(slot.id());
        self.shard(hash).slots.write().unwrap_or_else(PoisonError::into_inner).insert(hash, slot);
    }

    /// Removes a session.
    pub(crate) fn remove(&self, id: &SessionId) {
        let hash = hash(id);
        let mut slots = self.shard(hash).slots.write().unwrap_or_else(PoisonError::into_inner);
        let removed = slots.remove(hash, |slot| slot.id() == id);
        // The slot is dropped after the shard's lock.
        drop(slots);
        debug_assert!(removed.is_some(), "a live session was not in the index");
    }

    fn shard(&self, hash: u64) -> &Shard<W> {
        // The table within a shard goes by the lower half of the hash.
        &self.0[usize::try_from(hash >> 32).unwrap_or_default() % SHARDS]
    }
}

/// The hash that a session ID carries.
fn hash(id: &SessionId) -> u64 {
    BuildHasherDefault::<PassThrough>::default().hash_one(id)
}

#[derive(Default)]
struct PassThrough(u64);

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
