//! Who may use the gateway, and whose sessions a caller reaches: bearer tokens, JSON Web Tokens, tenants.

mod rate;
mod tenants;

pub(crate) use self::tenants::Tenants;
