//! This program inside the virtual machine: it makes the machine like a freshly booted host under systemd, with the
//! controllers of limits in every cgroup, and does its errand there.

mod cgroup;
mod suite;

use std::{
    fs::{self, File},
    io::{self, Write as _},
    os::{fd::AsFd as _, unix::process::ExitStatusExt as _},
    path::{Path, PathBuf},
    process::{Command, ExitCode, ExitStatus, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use rustix::mount::{MountFlags, mount, mount_bind};

use self::cgroup::Cgroup;
use super::{Deed, Errand, Verdict};

/// Does in a virtual machine what the file says
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    errand: PathBuf,
}

/// In memory, like all of `/run`.
const COPIES: &str = "/run/herd-copies";

/// What systemd gives a service, and Debian a user.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    let file = File::open(&options.errand).with_context(|| format!("cannot open {}", options.errand.display()))?;
    let (mark, errand): (String, Errand) = serde_json::from_reader(io::BufReader::new(file))?;
    ensure!(fs::read_to_string("/proc/1/comm")?.starts_with("virtme"), "this is not the virtual machine");
    set_up(&errand)?;
    let verdict = match &errand.deed {
        Deed::Command { line, directory } => Verdict::Exit(command(&errand, line, directory)?),
        Deed::Tests(suites) => suite::run(&errand, suites)?,
    };
    writeln!(io::stdout(), "{mark}{}", serde_json::to_string(&verdict)?)?;
    Ok(ExitCode::SUCCESS)
}

fn set_up(errand: &Errand) -> Result<()> {
    cgroup::offer_controllers()?;
    // No device asks for this driver; pasta does without a word.
    succeed("modprobe", &["tun"])?;
    copy(&errand.copies)?;
    let scratch = errand.scratch.iter().map(PathBuf::as_path);
    for directory in scratch.filter(|directory| directory.is_dir()) {
        mount("scratch", directory, "tmpfs", MountFlags::NOSUID | MountFlags::NODEV, Some(c"mode=1777"))
            .with_context(|| format!("cannot mount over {}", directory.display()))?;
    }
    Ok(())
}

fn succeed(program: &str, arguments: &[&str]) -> Result<()> {
    // A service's PATH finds them too. What they say goes to the console.
    let mut command = Command::new(program);
    command.args(arguments).env("PATH", PATH).stdin(Stdio::null()).stdout(io::stderr());
    let status = command.status().with_context(|| format!("cannot start {program}"))?;
    ensure!(status.success(), "{program} failed ({status})");
    Ok(())
}

/// Puts copies in memory in the places of the files.
fn copy(files: &[PathBuf]) -> Result<()> {
    fs::create_dir_all(COPIES).with_context(|| format!("cannot make {COPIES}"))?;
    for (number, file) in files.iter().enumerate() {
        let copy = Path::new(COPIES).join(number.to_string());
        let copied = fs::copy(file, &copy);
        copied.with_context(|| format!("cannot copy {} to {}", file.display(), copy.display()))?;
        mount_bind(&copy, file).with_context(|| format!("cannot mount over {}", file.display()))?;
    }
    Ok(())
}

/// Runs a command in a cgroup of its own.
fn command(errand: &Errand, line: &[String], directory: &Path) -> Result<u8> {
    let cgroup = Cgroup::make("command")?;
    let (program, arguments) = line.split_first().context("no command was given")?;
    let mut command = Command::new(program);
    // Its errors would get lost among what the kernel says.
    command.stderr(io::stdout().as_fd().try_clone_to_owned().context("cannot use a file twice")?);
    environment(&mut command, errand).args(arguments).current_dir(directory);
    let mut child = cgroup.spawn(&mut command)?;
    let status = child.wait().with_context(|| format!("cannot wait for {program}"))?;
    cgroup.end()?;
    Ok(code(status))
}

fn environment<'a>(command: &'a mut Command, errand: &Errand) -> &'a mut Command {
    command.env_clear().env("PATH", PATH).env("HOME", "/root").env("LANG", "C.UTF-8").envs(&errand.environment);
    command.stdin(Stdio::null())
}

/// As a shell tells it.
fn code(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(u8::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_by_a_signal_is_told_as_a_shell_tells_it() {
        assert_eq!(code(ExitStatus::from_raw(7 << 8)), 7);
        assert_eq!(code(ExitStatus::from_raw(9)), 137);
    }
}
