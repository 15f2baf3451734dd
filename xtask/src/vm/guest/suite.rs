use std::{
    fs::{self, File},
    io::{self, Write as _},
    process::{Command, ExitStatus},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, PidfdFlags, pidfd_open},
};

use super::{cgroup::Cgroup, environment};
use crate::vm::{Errand, Suite, Verdict};

/// How long one test may take. Under emulation everything takes about ten times as long as it else does.
const LIMIT: Duration = Duration::from_secs(90);

/// Where a test's output goes until it is known whether anybody wants to read it.
const OUTPUT: &str = "/run/herd-output";

/// Runs each test in a process and a cgroup of its own, one after the other: they change what the whole machine shares.
pub(super) fn run(errand: &Errand, suites: &[Suite]) -> Result<Verdict> {
    let mut out = io::stdout();
    let (mut passed, mut failed) = (0, Vec::new());
    for suite in suites {
        for test in &suite.tests {
            let started = Instant::now();
            let end = Run { errand, suite, test }.end()?;
            let seconds = started.elapsed().as_secs_f64();
            let line = format!("[{seconds:8.3}s] {} {test}", suite.name);
            let output = fs::read(OUTPUT).with_context(|| format!("cannot read {OUTPUT}"))?;
            let output = String::from_utf8_lossy(&output);
            // A harness is content too if no test has the name.
            let ran = output.contains("test result: ok. 1 passed;");
            if matches!(end, End::Passed) && ran {
                passed += 1;
                writeln!(out, "        PASS {line}")?;
                continue;
            }
            writeln!(out, "        FAIL {line}\n{}\n  ({})", output.trim_end(), end.reason())?;
            failed.push(line);
        }
    }
    writeln!(out, "     Summary in the virtual machine: {passed} passed, {} failed", failed.len())?;
    for line in &failed {
        writeln!(out, "        FAIL {line}")?;
    }
    Ok(Verdict::Tests { passed, failed: failed.len() })
}

/// One test.
struct Run<'a> {
    errand: &'a Errand,
    suite: &'a Suite,
    test: &'a str,
}

/// How it ended.
enum End {
    Passed,
    Failed(ExitStatus),
    TooLate,
}

impl Run<'_> {
    fn end(&self) -> Result<End> {
        let output = File::create(OUTPUT).with_context(|| format!("cannot make {OUTPUT}"))?;
        let mut command = Command::new(&self.suite.program);
        environment(&mut command, self.errand)
            .args(["--exact", self.test, "--nocapture"])
            .env("CARGO_MANIFEST_DIR", &self.suite.directory)
            .current_dir(&self.suite.directory)
            .stdout(output.try_clone().context("cannot use a file twice")?)
            .stderr(output);
        let cgroup = Cgroup::make("test")?;
        let mut child = cgroup.spawn(&mut command)?;
        let in_time = ends_within(child.id(), LIMIT)?;
        if !in_time {
            cgroup.kill()?;
        }
        let status = child.wait().context("cannot wait for a test")?;
        cgroup.end()?;
        Ok(match in_time {
            false => End::TooLate,
            true if status.success() => End::Passed,
            true => End::Failed(status),
        })
    }
}

impl End {
    fn reason(&self) -> String {
        match self {
            Self::Passed => "it did not say that it passed".to_owned(),
            Self::Failed(status) => status.to_string(),
            Self::TooLate => format!("killed after {} s", LIMIT.as_secs()),
        }
    }
}

/// Waits for the end of a child and leaves it to be waited for.
fn ends_within(pid: u32, limit: Duration) -> Result<bool> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).context("a child has no number")?;
    let process = pidfd_open(pid, PidfdFlags::empty()).context("cannot watch a test")?;
    let limit = Timespec::try_from(limit)?;
    let mut ended = [PollFd::new(&process, PollFlags::IN)];
    Ok(poll(&mut ended, Some(&limit)).context("cannot wait for a test")? > 0)
}
