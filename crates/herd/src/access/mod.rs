//! Who may use the gateway, and whose sessions a caller reaches: bearer tokens, JSON Web Tokens, tenants.

mod command;
mod gate;
#[cfg(test)]
mod gate_tests;
mod jwt;
mod jwt_key;
#[cfg(test)]
mod jwt_tests;
mod presented;
mod rate;
pub(crate) mod secret_file;
mod tenants;
mod token;
mod verified;

pub(crate) use self::{command::run, gate::Access, tenants::Tenants, token::TokenHash};
