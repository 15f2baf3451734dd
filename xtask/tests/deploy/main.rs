//! What is in `deploy/`, looked at by those that it is for: Debian's package tools, systemd, linters.
#![forbid(unsafe_code)]

mod containers;
mod package;
mod static_program;
mod units;

use std::{
    env,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn deploy(path: &str) -> PathBuf {
    repository().join("deploy").join(path)
}

/// The program, built as tests build it.
#[track_caller]
fn herd() -> PathBuf {
    let program = Path::new(env!("CARGO_BIN_EXE_xtask")).with_file_name("herd");
    assert!(program.is_file(), "{} is missing: cargo build --package herd", program.display());
    program
}

/// What `cargo xtask test` sets up.
#[track_caller]
fn tool(variable: &str) -> PathBuf {
    let path = env::var_os(variable).map(PathBuf::from);
    path.unwrap_or_else(|| panic!("{variable} is not set; run the tests with `cargo xtask test`, as root"))
}

#[track_caller]
fn output(command: &mut Command) -> Output {
    command.stdin(Stdio::null()).output().unwrap_or_else(|error| panic!("{:?}: {error}", command.get_program()))
}

/// Both streams of a command that has to succeed.
#[track_caller]
fn said(command: &mut Command) -> String {
    let output = output(command);
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{:?} {}:\n{said}", command.get_program(), output.status);
    said
}
