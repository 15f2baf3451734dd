//! The programs that tests and benchmarks drive, from Debian's packages.

use std::{
    env,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail, ensure};

use crate::progress;

/// Something that a Debian package provides.
#[derive(Debug)]
pub(crate) struct Need {
    program: &'static str,
    /// Arguments with which the program succeeds if what is needed is there.
    trial: Option<&'static [&'static str]>,
    package: &'static str,
}

impl Need {
    /// A program in `PATH`.
    pub(crate) const fn program(program: &'static str, package: &'static str) -> Self {
        Self { program, trial: None, package }
    }

    /// A command that must succeed.
    pub(crate) const fn command(program: &'static str, trial: &'static [&'static str], package: &'static str) -> Self {
        Self { program, trial: Some(trial), package }
    }

    fn is_met(&self) -> bool {
        which(self.program).is_some() && self.trial.is_none_or(|trial| succeeds(self.program, trial))
    }
}

/// Installs the packages of those `needs` that are not met.
///
/// # Errors
/// If they may not be installed. The error says what to type.
pub(crate) fn provide(needs: &[Need]) -> Result<()> {
    let packages = missing(needs);
    if packages.is_empty() {
        return Ok(());
    }
    let packages = packages.join(" ");
    ensure!(which("apt-get").is_some(), "this is no Debian; install what Debian has in these packages: {packages}");
    let by_hand =
        format!("install them: sudo apt-get update && sudo apt-get install -y --no-install-recommends {packages}");
    let Some(apt) = Apt::if_allowed() else {
        bail!("packages are missing, and this user may not install any; {by_hand}");
    };
    progress(&format!("installs {packages}"));
    let install = format!("install -y -q --no-install-recommends {packages}");
    // The lists may be old, or missing as in a fresh container.
    if !apt.run(&install)? {
        ensure!(apt.run("update -q")? && apt.run(&install)?, "apt-get failed; {by_hand}");
    }
    let missing = missing(needs);
    ensure!(missing.is_empty(), "what is needed from {} is still not there after its installation", missing.join(" "));
    Ok(())
}

/// The first dependency whose name begins so, of the version of a package that would be installed.
pub(crate) fn dependency(package: &str, prefix: &str) -> Result<String> {
    let depends = || -> Result<Option<String>> {
        let mut command = Command::new("apt-cache");
        command.args(["depends", "--important", package]).stdin(Stdio::null());
        let output = command.stderr(Stdio::null()).output().context("cannot start apt-cache")?;
        let text = String::from_utf8_lossy(&output.stdout);
        Ok(text.split_whitespace().find(|word| word.starts_with(prefix) && *word != package).map(str::to_owned))
    };
    if let Some(name) = depends()? {
        return Ok(name);
    }
    update()?;
    depends()?.with_context(|| format!("Debian's package {package} is not known; it names the one that is needed"))
}

/// Fetches a package into a directory without installing it.
pub(crate) fn download(package: &str, directory: &Path) -> Result<PathBuf> {
    let fetch = || {
        // Anybody may, and then nobody has to become somebody else for it.
        let mut command = Command::new("apt-get");
        command.args(["-q", "--option=APT::Sandbox::User=root", "download", package]).current_dir(directory);
        command.stdin(Stdio::null()).stdout(Stdio::null()).status().context("cannot start apt-get")
    };
    if !fetch()?.success() {
        // The lists name a version that a newer one has replaced.
        update()?;
        ensure!(fetch()?.success(), "apt-get could not download {package}; is Debian's archive within reach?");
    }
    let files = directory.read_dir().with_context(|| format!("cannot list {}", directory.display()))?;
    let mut paths = files.filter_map(|entry| entry.ok().map(|entry| entry.path()));
    let archive = paths.find(|path| path.extension().is_some_and(|extension| extension == "deb"));
    archive.with_context(|| format!("apt-get downloaded no {package}"))
}

/// Reads the archive's lists anew.
fn update() -> Result<()> {
    let apt =
        Apt::if_allowed().context("apt's lists are old, and this user may not renew them: sudo apt-get update")?;
    ensure!(apt.run("update -q")?, "apt-get update failed; is Debian's archive within reach?");
    Ok(())
}

fn missing(needs: &[Need]) -> Vec<&'static str> {
    let mut packages: Vec<_> = needs.iter().filter(|need| !need.is_met()).map(|need| need.package).collect();
    packages.dedup();
    packages
}

/// Where a program is: in `PATH`, or where Debian puts servers and not everybody's `PATH` leads to.
pub(crate) fn which(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let directories = env::split_paths(&path).chain(["/usr/sbin", "/usr/local/sbin", "/sbin"].map(PathBuf::from));
    directories.map(|directory| directory.join(program)).find(|path| path.is_file())
}

/// The package manager, run by somebody who may.
struct Apt {
    through_sudo: bool,
}

impl Apt {
    fn if_allowed() -> Option<Self> {
        let root = rustix::process::geteuid().is_root();
        (root || may_sudo()).then_some(Self { through_sudo: !root })
    }

    fn run(&self, arguments: &str) -> Result<bool> {
        let mut command = Command::new(if self.through_sudo { "sudo" } else { "env" });
        if self.through_sudo {
            command.args(["--non-interactive", "env"]);
        }
        let status = command
            // Somebody else's installation is waited for.
            .args(["DEBIAN_FRONTEND=noninteractive", "apt-get", "--option=DPkg::Lock::Timeout=300"])
            .args(arguments.split(' '))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .status()
            .context("cannot start apt-get")?;
        Ok(status.success())
    }
}

/// Whether this user is root, or may become root without being asked anything.
pub(crate) fn may_sudo() -> bool {
    which("sudo").is_some() && succeeds("sudo", &["--non-interactive", "true"])
}

fn succeeds(program: impl AsRef<Path>, arguments: &[&str]) -> bool {
    let mut command = Command::new(program.as_ref());
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_missing_is_asked_for_and_each_package_once() {
        let needs = [
            Need::program("sh", "dash"),
            Need::command("sh", &["-c", "exit 0"], "dash"),
            Need::command("sh", &["-c", "exit 1"], "one"),
            Need::program("no-program-has-this-name", "one"),
            Need::program("no-program-has-this-name-either", "two"),
        ];
        assert_eq!(missing(&needs), ["one", "two"]);
    }
}
