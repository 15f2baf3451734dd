//! What the core synchronizes with. The interleaving test compiles the core over another set of the same names.

pub(crate) use std::sync::{Arc, RwLock, Weak, atomic};
