//! The real `herd` binary with programs that nobody here wrote, and with the built-in REPL.
//!
//! `cargo xtask test` installs the programs and says where they are; without it these tests fail and say so.

mod browser;
mod clients_python;
mod clients_typescript;
mod daemon;
mod dashboard;
mod faults;
mod files;
mod gateway;
mod playwright;
mod processes;
mod redis;
mod repl;
mod sandboxed;
mod schema;
mod telemetry;

use std::path::PathBuf;

/// What `cargo xtask test` has set up.
fn provided(variable: &str) -> PathBuf {
    let path = std::env::var_os(variable)
        .unwrap_or_else(|| panic!("{variable} is not set; run this test with: cargo xtask test -- NAME"));
    let path = PathBuf::from(path);
    assert!(path.exists(), "{} is missing; run: cargo xtask test", path.display());
    path
}
