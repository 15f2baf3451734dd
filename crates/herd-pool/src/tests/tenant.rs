use std::hash::BuildHasher;

use crate::{InvalidTenant, SessionId, Tenant, TenantLimits, session_id::HASHER};

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
    let session = SessionId::new("alice").unwrap().of(&tenant);
    assert!(tenant.is_shared());
    drop(session);
    assert!(!tenant.is_shared());
}

#[test]
fn the_same_text_of_another_tenant_is_another_session() {
    let tenant = |name| Tenant::new(name, TenantLimits::default()).unwrap();
    let id = || SessionId::new("alice").unwrap();
    let hash = |id: &SessionId| HASHER.hash_one(id);
    let ours = id().of(&tenant("acme"));
    assert_eq!(ours, id().of(&tenant("acme")));
    assert_eq!(ours, id().of(&tenant("other")).of(&tenant("acme")), "the last tenant counts");
    for other in [id(), id().of(&tenant("other")), SessionId::new("bob").unwrap().of(&tenant("acme"))] {
        assert_ne!(ours, other);
        assert_ne!(hash(&ours), hash(&other));
    }
    assert_eq!((ours.as_str(), ours.to_string()), ("alice", "alice".to_owned()));
}
