use std::{
    fmt,
    hash::{BuildHasher, Hash, Hasher},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use crate::session_id::HASHER;

/// The longest name of a tenant, in bytes.
const MAX_LEN: usize = 128;

/// Stands for "no limit".
const UNLIMITED: usize = usize::MAX;

/// To whom sessions belong.
///
/// Sessions of two tenants are two sessions, also if they have the same ID: see [`SessionId::of`](crate::SessionId::of).
/// Tenants are the same if their names are. Clones share their limits and counts, and so do all pools that the tenant's
/// sessions are in, as far as one object and its clones name it.
#[derive(Clone)]
pub struct Tenant(Arc<Shared>);

struct Shared {
    name: Box<str>,
    hash: u64,
    most_sessions: AtomicUsize,
    most_waiting: AtomicUsize,
    sessions: AtomicUsize,
    waiting: AtomicUsize,
}

/// What one tenant may have at once, over all pools. The default is no limit.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct TenantLimits {
    /// Sessions: those that start, those that are live, and those whose worker is still ending.
    pub max_sessions: Option<usize>,
    /// Callers that wait for a worker.
    pub max_waiting: Option<usize>,
}

impl Tenant {
    /// A tenant with these limits.
    ///
    /// # Errors
    /// [`InvalidTenant`] if the name is not 1 to 128 bytes of visible ASCII without spaces.
    pub fn new(name: &str, limits: TenantLimits) -> Result<Self, InvalidTenant> {
        if name.is_empty() || name.len() > MAX_LEN || !name.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(InvalidTenant);
        }
        let tenant = Self(Arc::new(Shared {
            name: name.into(),
            hash: HASHER.hash_one(name),
            most_sessions: AtomicUsize::new(UNLIMITED),
            most_waiting: AtomicUsize::new(UNLIMITED),
            sessions: AtomicUsize::new(0),
            waiting: AtomicUsize::new(0),
        }));
        tenant.limit(limits);
        Ok(tenant)
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// What it may have at once.
    #[must_use]
    pub fn limits(&self) -> TenantLimits {
        let limit = |most: &AtomicUsize| Some(most.load(Ordering::Relaxed)).filter(|most| *most != UNLIMITED);
        TenantLimits { max_sessions: limit(&self.0.most_sessions), max_waiting: limit(&self.0.most_waiting) }
    }

    /// Changes what it may have. What it has already is left to it.
    pub fn limit(&self, limits: TenantLimits) {
        let TenantLimits { max_sessions, max_waiting } = limits;
        self.0.most_sessions.store(max_sessions.unwrap_or(UNLIMITED), Ordering::Relaxed);
        self.0.most_waiting.store(max_waiting.unwrap_or(UNLIMITED), Ordering::Relaxed);
    }

    /// How many sessions it has: those that start, those that are live, and those whose worker is still ending.
    #[must_use]
    pub fn sessions(&self) -> usize {
        self.0.sessions.load(Ordering::Relaxed)
    }

    /// How many of its callers wait for a worker.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.0.waiting.load(Ordering::Relaxed)
    }

    /// Whether there are other clones of it, for example in a [`SessionId`](crate::SessionId).
    ///
    /// Whoever holds the last one, and gives out no other, may forget it: nothing counts on it any more.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        Arc::strong_count(&self.0) > 1
    }

    pub(crate) fn hash(&self) -> u64 {
        self.0.hash
    }
}

impl PartialEq for Tenant {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || (self.0.hash == other.0.hash && self.0.name == other.0.name)
    }
}

impl Eq for Tenant {}

impl PartialOrd for Tenant {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Tenant {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.name.cmp(&other.0.name)
    }
}

impl Hash for Tenant {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.0.hash);
    }
}

impl fmt::Display for Tenant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl fmt::Debug for Tenant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tenant")
            .field("name", &self.name())
            .field("limits", &self.limits())
            .field("sessions", &self.sessions())
            .field("waiting", &self.waiting())
            .finish()
    }
}

/// Some text is no name of a tenant. It is not repeated, since it may be hostile.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct InvalidTenant;

impl fmt::Display for InvalidTenant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a tenant's name needs 1 to {MAX_LEN} bytes of visible ASCII without spaces")
    }
}

impl std::error::Error for InvalidTenant {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_could_not_be_shown_are_refused() {
        for name in ["", "a b", "\u{e9}", "a\n", &"x".repeat(129)] {
            assert_eq!(Tenant::new(name, TenantLimits::default()), Err(InvalidTenant), "{name:?}");
        }
        assert_eq!(Tenant::new(&"x".repeat(128), TenantLimits::default()).unwrap().name().len(), 128);
    }

    #[test]
    fn clones_share_their_limits_and_tenants_are_the_same_by_name() {
        let limits = TenantLimits { max_sessions: Some(3), max_waiting: None };
        let tenant = Tenant::new("acme", limits).unwrap();
        let clone = tenant.clone();
        assert_eq!(clone.limits(), limits);
        tenant.limit(TenantLimits { max_sessions: None, max_waiting: Some(7) });
        assert_eq!(clone.limits(), TenantLimits { max_sessions: None, max_waiting: Some(7) });
        assert_eq!(tenant, Tenant::new("acme", TenantLimits::default()).unwrap());
        assert_ne!(tenant, Tenant::new("other", TenantLimits::default()).unwrap());
    }

    #[test]
    fn a_tenant_is_shared_as_long_as_anything_else_names_it() {
        let tenant = Tenant::new("acme", TenantLimits::default()).unwrap();
        let session = crate::SessionId::new("alice").unwrap().of(&tenant);
        assert!(tenant.is_shared());
        drop(session);
        assert!(!tenant.is_shared());
    }
}
