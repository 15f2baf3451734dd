use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};

use super::{
    Environment, repository,
    targets::{Target, Targets},
};
use crate::{
    target_directory,
    vm::{Deed, Errand, Machine, Suite, Verdict},
};

/// How long all tests together may take.
const LIMIT: Duration = Duration::from_secs(15 * 60);

/// Tests that only the virtual machine can run.
#[derive(Debug)]
pub(super) struct InMachine {
    suites: Vec<Suite>,
    programs: Vec<PathBuf>,
}

impl InMachine {
    /// Those that `filters` name, or all.
    pub(super) fn list(targets: &Targets, filters: &[String]) -> Result<Self> {
        let (mut suites, mut programs) = (Vec::new(), Vec::new());
        for target in targets.in_machine() {
            let mut tests = tests(target)?;
            ensure!(!tests.is_empty(), "{} has no tests", target.id());
            tests.retain(|test| filters.is_empty() || filters.iter().any(|filter| test.contains(filter)));
            if tests.is_empty() {
                continue;
            }
            programs.push(target.program.clone());
            programs.extend(targets.programs(target).map(Path::to_owned));
            let (program, directory) = (target.program.clone(), target.directory.clone());
            suites.push(Suite { name: target.id(), program, directory, tests });
        }
        programs.sort();
        programs.dedup();
        Ok(Self { suites, programs })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.suites.is_empty()
    }

    /// Runs them in one boot.
    pub(super) fn run(self, machine: &Machine, environment: &Environment) -> Result<()> {
        let count: usize = self.suites.iter().map(|suite| suite.tests.len()).sum();
        let errand = Errand {
            copies: self.programs,
            scratch: scratch()?,
            environment: environment.variables()?,
            deed: Deed::Tests(self.suites),
        };
        match machine.send(&errand, LIMIT)? {
            Verdict::Tests { passed, failed: 0 } if passed == count => Ok(()),
            Verdict::Tests { passed, failed: 0 } => bail!("{passed} of {count} tests ran in the virtual machine"),
            Verdict::Tests { failed, .. } => bail!("{failed} of {count} tests failed in the virtual machine"),
            Verdict::Exit(_) => bail!("the virtual machine answered another question"),
        }
    }
}

/// The names of a target's tests, by the program itself. That much it does on every machine.
fn tests(target: &Target) -> Result<Vec<String>> {
    let mut command = Command::new(&target.program);
    command.args(["--list", "--format=terse"]).current_dir(&target.directory).stdin(Stdio::null());
    let output = command.output().with_context(|| format!("cannot start {}", target.program.display()))?;
    let complaint = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{} does not list its tests ({}): {complaint}", target.id(), output.status);
    let list = String::from_utf8(output.stdout).with_context(|| format!("the list of {} is no text", target.id()))?;
    Ok(list.lines().filter_map(|line| line.strip_suffix(": test")).map(str::to_owned).collect())
}

/// Where tests write: what Cargo names `CARGO_TARGET_TMPDIR`, and `/tmp` unless this repository is below it.
fn scratch() -> Result<Vec<PathBuf>> {
    let target = target_directory()?;
    let mut directories = vec![target.join("tmp")];
    let shared = Path::new("/tmp");
    if ![repository(), &target].iter().any(|path| path.starts_with(shared)) {
        directories.push(shared.to_owned());
    }
    Ok(directories)
}
