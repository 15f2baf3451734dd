//! `cargo xtask static`: a program that needs nothing of the system that it runs on, not even a libc.

use std::{
    env, fs, io,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail, ensure};

use crate::{
    packages::{self, Need},
    progress, target_directory,
};

/// Make a herd that is linked statically, with musl
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// How herd is built: `release`, or `trial` for one to test, which is made soon
    #[arg(long, default_value = "release", value_name = "PROFILE")]
    profile: String,
}

/// What the cryptographic library's C is compiled with, and what looks at the program.
const NEEDS: &[Need] = &[Need::program("musl-gcc", "musl-tools"), Need::program("readelf", "binutils")];

#[expect(clippy::print_stdout, reason = "this is a command for people")]
pub(crate) fn run(options: &Options) -> Result<()> {
    let program = provide(&options.profile)?;
    let directory = target_directory()?.join("static");
    fs::create_dir_all(&directory).with_context(|| format!("cannot make {}", directory.display()))?;
    let copy = directory.join("herd");
    let unfinished = directory.join(format!("unfinished-{}", std::process::id()));
    // A former one may be running, and such a file cannot be written to.
    let copied = fs::copy(&program, &unfinished).and_then(|_| fs::rename(&unfinished, &copy));
    copied.with_context(|| format!("cannot write {}", copy.display()))?;
    println!("{}", copy.display());
    Ok(())
}

/// Builds the program, and says where Cargo has put it.
///
/// # Errors
/// If what it is built with cannot be had, if it does not compile, or if it needs anything of the system.
pub(crate) fn provide(profile: &str) -> Result<PathBuf> {
    packages::provide(NEEDS).context("nothing can be linked statically yet")?;
    let target = format!("{}-unknown-linux-musl", env::consts::ARCH);
    if !has_libraries(&target)? {
        add_libraries(&target)?;
    }
    let program = build(&target, profile)?;
    verify(&program)?;
    Ok(program)
}

/// Whether Rust's own libraries for the target are there.
fn has_libraries(target: &str) -> Result<bool> {
    let mut rustc = Command::new(env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()));
    rustc.args(["--print", "target-libdir", "--target", target]).current_dir(repository()).stdin(Stdio::null());
    let output = rustc.output().context("cannot start rustc")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "rustc does not know the target {target}: {}", said.trim());
    let directory = String::from_utf8(output.stdout).context("rustc's directory of libraries is no text")?;
    let Ok(libraries) = Path::new(directory.trim()).read_dir() else { return Ok(false) };
    Ok(libraries.flatten().any(|entry| entry.file_name().to_string_lossy().starts_with("libstd-")))
}

fn add_libraries(target: &str) -> Result<()> {
    let what = format!("Rust's libraries for {target} are missing");
    if packages::which("rustup").is_none() {
        bail!("{what}, and so is rustup; install those of this version of Rust where Rust is from");
    }
    progress(&format!("adds Rust's libraries for {target}"));
    let mut rustup = Command::new("rustup");
    rustup.args(["target", "add", target]).current_dir(repository()).stdin(Stdio::null());
    let output = rustup.output().context("cannot start rustup")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{what}, and `rustup target add {target}` fails: {}", said.trim());
    Ok(())
}

fn build(target: &str, profile: &str) -> Result<PathBuf> {
    progress(&format!("builds herd ({profile}, {target})"));
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(["build", "--locked", "--package", "herd", "--profile", profile, "--target", target]);
    // For the compiler of C alone: Rust brings its own linker arguments for this target.
    command.env(format!("CC_{}", target.replace('-', "_")), "musl-gcc");
    let status = command.current_dir(repository()).stdin(Stdio::null()).stdout(io::stderr()).status();
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

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask is in the repository")
}
