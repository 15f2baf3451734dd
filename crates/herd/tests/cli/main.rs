//! The program as its users run it: real daemons, real workers, on ephemeral ports.

mod admin;
mod client;
mod commands;
mod control;
mod daemon;
mod doctor;
mod sandbox;
mod sessions;
mod startup;
mod stopping;
mod tls;
