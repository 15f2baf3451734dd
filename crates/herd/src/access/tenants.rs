use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use herd_pool::{InvalidTenant, Tenant};

use super::rate::Rate;
use crate::config::settings;

/// From how many names on the registry looks for those that nothing uses any more.
const SWEEP_FROM: usize = 1024;

/// All tenants that anything uses: one object for each name, with its limits from the settings.
///
/// Names come from JSON Web Tokens and from the admin API too, so there is no end of them; a tenant that nothing uses any
/// more is forgotten by and by. Cloning the registry is cheap; all clones are the same.
#[derive(Clone)]
pub(crate) struct Tenants(Arc<Shared>);

struct Shared {
    known: Mutex<Known>,
    /// What the rates count time from.
    epoch: Instant,
}

struct Known {
    limits: settings::Tenants,
    members: HashMap<Box<str>, Arc<Member>>,
    /// With how many names the next sweep comes.
    sweep_at: usize,
}

/// A tenant, and how often it may call.
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) tenant: Tenant,
    rate: Rate,
}

impl Tenants {
    pub(crate) fn new(limits: &settings::Tenants) -> Self {
        let known = Known { limits: limits.clone(), members: HashMap::new(), sweep_at: SWEEP_FROM };
        Self(Arc::new(Shared { known: Mutex::new(known), epoch: Instant::now() }))
    }

    /// The one tenant of this name. All that goes by one name counts against the same limits.
    ///
    /// # Errors
    /// If this can be no tenant's name.
    pub(crate) fn tenant(&self, name: &str) -> Result<Tenant, InvalidTenant> {
        let mut known = self.known();
        if let Some(member) = known.members.get(name) {
            return Ok(member.tenant.clone());
        }
        // Cloned before the lock is gone: from then on a sweep may come, which leaves alone what is shared.
        known.add(name, self.now()).map(|member| member.tenant.clone())
    }

    /// The same, for those who ask about the rate of each request.
    pub(super) fn member(&self, name: &str) -> Result<Arc<Member>, InvalidTenant> {
        let mut known = self.known();
        match known.members.get(name) {
            Some(member) => Ok(Arc::clone(member)),
            None => known.add(name, self.now()),
        }
    }

    /// From now on these limits count, for tenants that are in use as well. What a tenant has already is left to it.
    pub(crate) fn configure(&self, limits: &settings::Tenants) {
        let mut known = self.known();
        known.limits = limits.clone();
        for (name, member) in &known.members {
            let limits = known.limits_of(name);
            member.tenant.limit(of_pool(limits));
            member.rate.limit(limits.requests_per_second);
        }
    }

    /// Those that the settings name and that anything has used.
    pub(crate) fn named(&self) -> Vec<Tenant> {
        let known = self.known();
        let named = known.limits.named.keys().filter_map(|name| known.members.get(name.as_str()));
        named.map(|member| member.tenant.clone()).collect()
    }

    /// The time that rates count by.
    pub(super) fn now(&self) -> u64 {
        u64::try_from(self.0.epoch.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        // Nothing in here can panic half-way through a change.
        self.0.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    fn limits_of(&self, name: &str) -> settings::TenantLimits {
        *self.limits.named.get(name).unwrap_or(&self.limits.default)
    }

    fn add(&mut self, name: &str, now: u64) -> Result<Arc<Member>, InvalidTenant> {
        let limits = self.limits_of(name);
        let tenant = Tenant::new(name, of_pool(limits))?;
        if self.members.len() >= self.sweep_at {
            self.members.retain(|_, member| member.is_needed(now));
            // Twice as many as are in use, so that a sweep costs each new name but a constant.
            self.sweep_at = (2 * self.members.len()).max(SWEEP_FROM);
        }
        let member = Arc::new(Member { tenant, rate: Rate::new(limits.requests_per_second) });
        self.members.insert(name.into(), Arc::clone(&member));
        Ok(member)
    }
}

impl Member {
    /// Counts a request of the tenant's, at this time.
    ///
    /// # Errors
    /// How long the tenant has to wait with it.
    pub(super) fn admit(&self, now: u64) -> Result<(), Duration> {
        self.rate.admit(now)
    }

    /// Whether anything holds it but the registry, or it would be another one if it were made again.
    fn is_needed(self: &Arc<Self>, now: u64) -> bool {
        Arc::strong_count(self) > 1 || self.tenant.is_shared() || !self.rate.is_rested(now)
    }
}

impl fmt::Debug for Tenants {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tenants").field("known", &self.known().members.len()).finish_non_exhaustive()
    }
}

/// What the pools see to. The rate is the gateway's affair.
fn of_pool(limits: settings::TenantLimits) -> herd_pool::TenantLimits {
    let settings::TenantLimits { max_sessions, max_waiting, requests_per_second: _ } = limits;
    herd_pool::TenantLimits { max_sessions, max_waiting }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use herd_pool::SessionId;

    use super::*;
    use crate::config::settings::TenantLimits;

    fn limits(max_sessions: usize, requests_per_second: u32) -> TenantLimits {
        TenantLimits {
            max_sessions: Some(max_sessions),
            max_waiting: None,
            requests_per_second: Some(requests_per_second),
        }
    }

    fn settings(default: TenantLimits, acme: TenantLimits) -> settings::Tenants {
        settings::Tenants { default, named: [("acme".to_owned(), acme)].into() }
    }

    #[test]
    fn one_name_is_one_tenant_with_its_own_limits_or_the_default_ones() {
        let tenants = Tenants::new(&settings(limits(1, 1), limits(5, 1)));
        let acme = tenants.tenant("acme").unwrap();
        assert_eq!(acme.limits().max_sessions, Some(5));
        assert_eq!(tenants.tenant("other").unwrap().limits().max_sessions, Some(1));
        acme.limit(herd_pool::TenantLimits { max_sessions: Some(9), max_waiting: None });
        assert_eq!(tenants.tenant("acme").unwrap().limits().max_sessions, Some(9), "it is the same object");
        assert_eq!(tenants.member("acme").unwrap().tenant.limits().max_sessions, Some(9));
        assert_eq!(tenants.tenant("not a name").unwrap_err(), InvalidTenant);
    }

    #[test]
    fn new_limits_reach_tenants_that_are_in_use() {
        let tenants = Tenants::new(&settings(limits(1, 1), limits(5, 1)));
        let (acme, other) = (tenants.member("acme").unwrap(), tenants.member("other").unwrap());
        assert_eq!(other.admit(1), Ok(()));
        assert!(other.admit(1).is_err());
        tenants.configure(&settings(limits(2, 3), TenantLimits::default()));
        assert_eq!(acme.tenant.limits(), herd_pool::TenantLimits::default());
        assert_eq!(other.tenant.limits().max_sessions, Some(2));
        let now = 1 + 1_000_000_000;
        assert_eq!((0..9).filter(|_| other.admit(now).is_ok()).count(), 3);
        assert!((0..99).all(|_| acme.admit(now).is_ok()));
    }

    #[test]
    fn names_without_end_are_forgotten_but_never_one_that_is_in_use_or_that_waits_for_its_rate() {
        let tenants = Tenants::new(&settings(limits(1, 1), limits(5, 1)));
        let session = SessionId::new("alice").unwrap().of(&tenants.tenant("held").unwrap());
        let held = session.tenant().unwrap();
        held.limit(herd_pool::TenantLimits { max_sessions: Some(77), max_waiting: None });
        let busy = tenants.member("busy").unwrap();
        assert_eq!(busy.admit(u64::MAX / 2), Ok(()));
        drop(busy);
        for number in 0..20 * SWEEP_FROM {
            tenants.tenant(&format!("guest-{number}")).unwrap();
        }
        assert!(tenants.known().members.len() <= SWEEP_FROM);
        assert_eq!(tenants.tenant("held").unwrap().limits().max_sessions, Some(77));
        assert!(tenants.member("busy").unwrap().admit(u64::MAX / 2).is_err());
    }

    #[test]
    fn threads_that_ask_for_one_name_at_once_get_one_tenant() {
        let tenants = Tenants::new(&settings::Tenants::default());
        for round in 0..50 {
            let name = format!("tenant-{round}");
            let members: Vec<_> = thread::scope(|scope| {
                let asking: Vec<_> = (0..4).map(|_| scope.spawn(|| tenants.member(&name).unwrap())).collect();
                asking.into_iter().map(|thread| thread.join().unwrap()).collect()
            });
            assert!(members.iter().all(|member| Arc::ptr_eq(member, &members[0])));
        }
    }
}
