//! The programs that herd is compared with, from Debian's packages.

use std::{
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail, ensure};

use super::{proxy::which, report::progress};

/// Installs those of `programs` that are missing.
pub(crate) fn provide(programs: &[&str]) -> Result<()> {
    let missing: Vec<&str> = programs.iter().copied().filter(|program| which(program).is_err()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let packages: Vec<&str> =
        missing.iter().map(|&program| if program == "perf" { "linux-perf" } else { program }).collect();
    let by_hand = format!("install by hand: sudo apt-get install -y --no-install-recommends {}", packages.join(" "));
    ensure!(
        Path::new("/usr/bin/apt-get").exists(),
        "missing: {}; this is no Debian, so install them",
        missing.join(", ")
    );
    let mut command = if rustix::process::geteuid().is_root() {
        Command::new("apt-get")
    } else if which("sudo").is_ok() && may_sudo() {
        let mut sudo = Command::new("sudo");
        sudo.args(["--non-interactive", "apt-get"]);
        sudo
    } else {
        bail!("missing: {}; this user may not install packages. {by_hand}", missing.join(", "));
    };
    progress(&format!("installs {}", missing.join(", ")));
    let status = command
        .args(["install", "-y", "-q", "--no-install-recommends"])
        .args(&packages)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .stdin(Stdio::null())
        // The report alone goes to stdout.
        .stdout(std::io::stderr())
        .status()
        .context("cannot start apt-get")?;
    ensure!(status.success(), "apt-get has ended with {status}; {by_hand}, perhaps after: sudo apt-get update");
    Ok(())
}

fn may_sudo() -> bool {
    let quiet =
        Command::new("sudo").args(["--non-interactive", "true"]).stdout(Stdio::null()).stderr(Stdio::null()).status();
    quiet.is_ok_and(|status| status.success())
}
