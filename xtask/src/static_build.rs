//! `cargo xtask static`: a program that needs nothing of the system that it runs on, not even a libc.

use std::{
    env, fs, io,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};

use crate::{
    packages::{self, Need},
    progress, target_directory,
};

/// Make a herd that is linked statically, with musl
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// How herd is built: `release`, or `dev` for one to test
    #[arg(long, default_value = "release", value_name = "PROFILE")]
    profile: String,
}

/// What the cryptographic library's C is compiled with.
const NEEDS: &[Need] = &[Need::program("musl-gcc", "musl-tools"), Need::program("readelf", "binutils")];

#[expect(clippy::print_stdout, reason = "this is a command for people")]
pub(crate) fn run(options: &Options) -> Result<()> {
    packages::provide(NEEDS).context("nothing can be linked statically yet")?;
    let target = format!("{}-unknown-linux-musl", env::consts::ARCH);
    add(&target)?;
    let program = build(&target, &options.profile)?;
    verify(&program)?;
    let directory = target_directory()?.join("static");
    fs::create_dir_all(&directory).with_context(|| format!("cannot make {}", directory.display()))?;
    let copy = directory.join("herd");
    fs::copy(&program, &copy).with_context(|| format!("cannot write {}", copy.display()))?;
    println!("{}", copy.display());
    Ok(())
}

/// Rust's own libraries for the target.
fn add(target: &str) -> Result<()> {
    let status =
        Command::new("rustup").args(["target", "add", target]).stdin(Stdio::null()).stderr(Stdio::null()).status();
    let added = status.is_ok_and(|status| status.success());
    ensure!(added, "Rust's libraries for {target} cannot be had: `rustup target add {target}` says why");
    Ok(())
}

fn build(target: &str, profile: &str) -> Result<PathBuf> {
    progress(&format!("builds herd ({profile}, {target})"));
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(["build", "--locked", "--package", "herd", "--profile", profile, "--target", target]);
    // For the compiler of C alone: Rust brings its own linker arguments for this target.
    command.env(format!("CC_{}", target.replace('-', "_")), "musl-gcc");
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("xtask is in no repository")?;
    let status = command.current_dir(repository).stdin(Stdio::null()).stdout(io::stderr()).status();
    ensure!(status.context("cannot start cargo")?.success(), "herd could not be built");
    let directory = if profile == "dev" { "debug" } else { profile };
    Ok(target_directory()?.join(target).join(directory).join("herd"))
}

/// Whether it names neither a loader nor a library.
fn verify(program: &Path) -> Result<()> {
    let output = Command::new("readelf").args(["--wide", "--program-headers", "--dynamic"]).arg(program).output();
    let output = output.context("cannot start readelf")?;
    let said = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success() && said.contains("LOAD"), "readelf cannot read {}", program.display());
    ensure!(
        !said.contains("INTERP") && !said.contains("(NEEDED)"),
        "{} needs libraries of the system:\n{said}",
        program.display()
    );
    Ok(())
}
