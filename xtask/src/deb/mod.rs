//! `cargo xtask deb`: a Debian package, put together from `deploy/` by Debian's own tools.
//!
//! Two packages of the same program are the same byte for byte: all times are that of `SOURCE_DATE_EPOCH`, or of the last
//! commit. See <https://reproducible-builds.org/docs/source-date-epoch/>.

mod control;
mod tree;

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail, ensure};

use self::{control::Control, tree::Tree};
use crate::{
    packages::{self, Need},
    progress, target_directory,
};

/// Make a Debian package of herd
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// How herd is built: `release`, or `dev` for a package to test, which is not compressed well
    #[arg(long, default_value = "release", value_name = "PROFILE")]
    profile: String,
    /// The directory for the package [default: debian in the target directory]
    #[arg(long, value_name = "DIR")]
    output: Option<PathBuf>,
    /// Package this program instead of building one
    #[arg(long, value_name = "FILE")]
    program: Option<PathBuf>,
}

const NEEDS: &[Need] = &[
    Need::program("dpkg-deb", "dpkg"),
    Need::program("dpkg-shlibdeps", "dpkg-dev"),
    Need::program("strip", "binutils"),
    Need::program("gzip", "gzip"),
];

#[expect(clippy::print_stdout, reason = "this is a command for people")]
pub(crate) fn run(options: &Options) -> Result<()> {
    packages::provide(NEEDS).context("no package can be made yet")?;
    let program = match &options.program {
        Some(program) => program.canonicalize().with_context(|| format!("cannot find {}", program.display()))?,
        None => build(&options.profile)?,
    };
    let output = match &options.output {
        Some(output) => output.clone(),
        None => target_directory()?.join("debian"),
    };
    fs::create_dir_all(&output).with_context(|| format!("cannot make {}", output.display()))?;
    // In tests a small file counts less than a short time.
    let compression = if options.profile == "release" { Compression::Small } else { Compression::Fast };
    println!("{}", package(&program, &output, compression)?.display());
    Ok(())
}

#[derive(Clone, Copy, Debug)]
enum Compression {
    Small,
    Fast,
}

impl Compression {
    fn arguments(self) -> &'static [&'static str] {
        match self {
            Self::Small => &["-Zxz"],
            Self::Fast => &["-Zgzip", "-z1"],
        }
    }
}

fn package(program: &Path, output: &Path, compression: Compression) -> Result<PathBuf> {
    let version = version(program)?;
    let epoch = epoch()?;
    let tree = Tree::plant(program, &version, epoch)?;
    let control = Control::of(&tree, &version)?;
    let file = output.join(format!("herd_{version}_{}.deb", control.architecture()));
    control.write(&tree)?;
    tree.date(epoch)?;
    let mut command = Command::new("dpkg-deb");
    // One thread: how much each of several would compress could differ.
    command.args(["--root-owner-group", "--threads-max=1"]).args(compression.arguments()).arg("--build");
    succeed(command.arg(tree.root()).arg(&file).env("SOURCE_DATE_EPOCH", epoch.to_string()))?;
    Ok(file)
}

fn build(profile: &str) -> Result<PathBuf> {
    progress(&format!("builds herd ({profile})"));
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(["build", "--locked", "--package", "herd", "--profile", profile]).current_dir(repository());
    succeed(&mut command)?;
    let directory = if profile == "dev" { "debug" } else { profile };
    Ok(target_directory()?.join(directory).join("herd"))
}

/// As the program itself says.
fn version(program: &Path) -> Result<String> {
    let said = text(Command::new(program).arg("--version"))?;
    let version = said.trim().strip_prefix("herd ").and_then(|version| version.split_whitespace().next());
    version.map(str::to_owned).with_context(|| format!("{} says no version: {said:?}", program.display()))
}

/// Seconds since 1970.
fn epoch() -> Result<u64> {
    if let Ok(given) = env::var("SOURCE_DATE_EPOCH") {
        return given.parse().with_context(|| format!("SOURCE_DATE_EPOCH is {given:?}, which is no number of seconds"));
    }
    let time = text(Command::new("git").args(["log", "-1", "--format=%ct"]).current_dir(repository()));
    let time = time.context("set SOURCE_DATE_EPOCH, since git does not tell when the last commit was made")?;
    time.trim().parse().context("git tells no time of the last commit; set SOURCE_DATE_EPOCH")
}

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask is in the repository")
}

/// What stands in `deploy/`.
fn template(path: &str) -> Result<String> {
    let path = repository().join("deploy").join(path);
    fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
}

fn succeed(command: &mut Command) -> Result<()> {
    let program = command.get_program().to_owned();
    let status = command.stdin(Stdio::null()).stdout(std::io::stderr()).status();
    let status = status.with_context(|| format!("cannot start {}", program.display()))?;
    ensure!(status.success(), "{} failed ({status})", program.display());
    Ok(())
}

/// The standard output of a command that succeeds.
fn text(command: &mut Command) -> Result<String> {
    let program = command.get_program().to_owned();
    let output =
        command.stdin(Stdio::null()).output().with_context(|| format!("cannot start {}", program.display()))?;
    if !output.status.success() {
        bail!("{} failed: {}", program.display(), String::from_utf8_lossy(&output.stderr).trim());
    }
    String::from_utf8(output.stdout).with_context(|| format!("{} says what is no text", program.display()))
}
