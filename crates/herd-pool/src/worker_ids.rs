use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use crate::WorkerId;

/// A source of worker IDs: `worker-1`, `worker-2`, and so on. Clones share the count.
#[derive(Clone, Debug, Default)]
pub struct WorkerIds(Arc<AtomicU64>);

impl WorkerIds {
    /// A source that begins at `worker-1`.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    pub(crate) fn next(&self) -> WorkerId {
        WorkerId::new(self.0.fetch_add(1, Ordering::Relaxed) + 1)
    }
}
