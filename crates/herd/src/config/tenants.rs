//! The section `tenants`.

use std::collections::BTreeMap;

use super::{
    fields::{Fields, about},
    form::{POSITIVE, RATE, TENANT},
    mistake::{Mistake, Origin},
    raw::{Raw, RawAccess, RawTenantLimits, RawTenants},
    resolve::or,
    settings::{TenantLimits, Tenants},
};

pub(super) fn read(f: &mut Fields<'_>) -> RawTenants {
    RawTenants {
        default: f.section("default", about("What each tenant may have that is not named."), read_limits),
        named: f.named(
            "named",
            TENANT,
            about("What the tenants of these names may have, instead of the default."),
            read_limits,
        ),
    }
}

fn read_limits(f: &mut Fields<'_>) -> RawTenantLimits {
    RawTenantLimits {
        max_sessions: f.nullable(
            "max_sessions",
            POSITIVE,
            about("The most sessions at once; one more gets 429. null: no limit.").default("null"),
        ),
        max_waiting: f.nullable(
            "max_waiting",
            POSITIVE,
            about("The most requests that wait for a worker at once; one more gets 429. null: no limit.")
                .default("null"),
        ),
        requests_per_second: f.nullable(
            "requests_per_second",
            RATE,
            about("The most requests a second; more get 429 with retry-after. null: no limit.").default("null"),
        ),
    }
}

pub(super) fn resolve(raw: RawTenants) -> Tenants {
    let RawTenants { default, named } = raw;
    let named: BTreeMap<_, _> =
        or(named, Vec::new()).into_iter().map(|(name, limits)| (name.value, resolve_limits(limits))).collect();
    Tenants { default: resolve_limits(or(default, RawTenantLimits::default())), named }
}

/// What is no mistake and hardly wanted: limits of tenants where nobody is a tenant.
pub(super) fn warnings(raw: &Raw) -> Option<Mistake> {
    let origin = limits(&raw.tenants)?;
    let problem = match &raw.access {
        None => "limits nobody: without `access` no request has a tenant",
        Some(access) if !names_tenants(&access.value) => {
            "limits nobody: no token names a tenant, and there is no `access.jwt.tenant_claim`"
        }
        Some(_) => return None,
    };
    Some(Mistake::warning(origin.clone(), problem, "give tokens a `tenant`, or leave the limits out"))
}

/// Where the first limit is written.
fn limits(raw: &RawTenants) -> Option<&Origin> {
    let RawTenants { default, named } = raw;
    let named = named.iter().flat_map(|named| &named.value).map(|(_, limits)| limits);
    default.iter().map(|limits| &limits.value).chain(named).find_map(|limits| {
        let RawTenantLimits { max_sessions, max_waiting, requests_per_second } = limits;
        let sessions = max_sessions.as_ref().filter(|limit| limit.value.is_some()).map(|limit| &limit.origin);
        let waiting = max_waiting.as_ref().filter(|limit| limit.value.is_some()).map(|limit| &limit.origin);
        let rate = requests_per_second.as_ref().filter(|limit| limit.value.is_some()).map(|limit| &limit.origin);
        sessions.or(waiting).or(rate)
    })
}

fn names_tenants(access: &RawAccess) -> bool {
    let mut tokens = access.tokens.iter().flat_map(|tokens| &tokens.value);
    let claim = access.jwt.as_ref().and_then(|jwt| jwt.value.tenant_claim.as_ref());
    claim.is_some_and(|claim| claim.value.is_some())
        || tokens.any(|token| token.value.tenant.as_ref().is_some_and(|tenant| tenant.value.is_some()))
}

fn resolve_limits(raw: RawTenantLimits) -> TenantLimits {
    let RawTenantLimits { max_sessions, max_waiting, requests_per_second } = raw;
    TenantLimits {
        max_sessions: or(max_sessions, None),
        max_waiting: or(max_waiting, None),
        requests_per_second: or(requests_per_second, None),
    }
}
