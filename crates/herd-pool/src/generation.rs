//! Which of a pool's configurations something belongs to.

/// Counts the configurations that a pool has had.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Generation(u32);

impl Generation {
    /// The one after this. After four billion of them it begins anew, when nothing of the first is left for long.
    pub(crate) fn next(self) -> Self {
        Self(self.0.wrapping_add(1))
    }
}
