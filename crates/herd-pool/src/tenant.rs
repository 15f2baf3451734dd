use std::{
    fmt,
    hash::{BuildHasher, Hash, Hasher},
};

use crate::{
    AcquireError,
    session_id::HASHER,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

/// The longest name of a tenant, in bytes.
const MAX_LEN: usize = 128;

/// Stands for "no limit".
const UNLIMITED: usize = usize::MAX;

/// To whom sessions belong.
///
/// Sessions of two tenants are two sessions, also if they have the same ID: see
/// [`SessionId::of`](crate::SessionId::of). Tenants are the same if their names are. Clones share their limits and
/// counts, and so do all pools that the tenant's sessions are in, as far as one object and its clones name it.
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

    /// Counts one more session, unless there are as many as there may be.
    pub(crate) fn count_session(&self) -> Result<CountedSession, AcquireError> {
        match count(&self.0.sessions, &self.0.most_sessions) {
            Ok(()) => Ok(CountedSession { _one: Arc::new(OneSession(self.clone())) }),
            Err(max_sessions) => Err(AcquireError::TenantSessions { max_sessions }),
        }
    }

    /// Counts one more caller that waits, unless there are as many as there may be.
    pub(crate) fn count_caller(&self) -> Result<CountedCaller, AcquireError> {
        match count(&self.0.waiting, &self.0.most_waiting) {
            Ok(()) => Ok(CountedCaller(self.clone())),
            Err(max_waiting) => Err(AcquireError::TenantWaiting { max_waiting }),
        }
    }
}

/// Adds one, unless that would be more than allowed: then it tells how many are. Several pools may do so at once.
fn count(now: &AtomicUsize, most: &AtomicUsize) -> Result<(), usize> {
    let mut allowed = UNLIMITED;
    // The numbers protect nothing but themselves, so their order among other things in memory does not matter.
    let counted = now.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |now| {
        allowed = most.load(Ordering::Relaxed);
        (now < allowed).then(|| now + 1)
    });
    counted.map(drop).map_err(|_| allowed)
}

/// Whose something is: a tenant's, or of those without one.
pub(crate) type Whose = Option<Tenant>;

/// A session that its tenant's limit counts, until the last clone is gone. Whatever keeps the session's name taken has
/// a clone: those who wait for it, and the worker that is started for it, serves it, or served it and is not gone yet.
#[derive(Clone)]
pub(crate) struct CountedSession {
    _one: Arc<OneSession>,
}

struct OneSession(Tenant);

impl Drop for OneSession {
    fn drop(&mut self) {
        self.0.0.sessions.fetch_sub(1, Ordering::Relaxed);
    }
}

impl fmt::Debug for CountedSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CountedSession")
    }
}

/// A caller that waits and that its tenant's limit counts, until this is dropped.
#[derive(Debug)]
pub(crate) struct CountedCaller(Tenant);

impl Drop for CountedCaller {
    fn drop(&mut self) {
        self.0.0.waiting.fetch_sub(1, Ordering::Relaxed);
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
