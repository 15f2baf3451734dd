//! The section `tenants`.

use std::collections::BTreeMap;

use super::{
    fields::{Fields, about},
    form::{POSITIVE, RATE, TENANT},
    raw::{RawTenantLimits, RawTenants},
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

fn resolve_limits(raw: RawTenantLimits) -> TenantLimits {
    let RawTenantLimits { max_sessions, max_waiting, requests_per_second } = raw;
    TenantLimits {
        max_sessions: or(max_sessions, None),
        max_waiting: or(max_waiting, None),
        requests_per_second: or(requests_per_second, None),
    }
}
