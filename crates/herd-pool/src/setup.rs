//! What a pool was configured with.

use crate::{builder::CrashCallback, generation::Generation, options::Options};

/// A factory with its options, until others take their place.
pub(crate) struct Setup<F> {
    pub(crate) factory: F,
    pub(crate) options: Options,
    pub(crate) on_crash: Option<CrashCallback>,
    pub(crate) generation: Generation,
}
