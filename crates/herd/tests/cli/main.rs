//! The program as its users run it: real daemons, real workers, on ephemeral ports.

mod access;
mod admin;
mod admin_access;
mod admin_description;
mod admin_sessions;
mod admin_streams;
mod client;
mod commands;
mod control;
mod control_abuse;
mod control_client;
mod control_foreign;
mod control_sessions;
mod daemon;
mod doctor;
mod metrics;
mod pools;
mod reload;
mod sandbox;
mod secrets;
mod sessions;
mod start;
mod startup;
mod stopping;
mod tls;
mod webhooks;
