//! On what was measured.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::Result;

use super::{accounting, cores::Layout, proxy::which};

/// How much of the machine other programs used in the meantime, which is what makes figures unsteady.
#[derive(Debug)]
pub(crate) struct Quiet {
    start: Instant,
    busy: Duration,
    own: Duration,
}

impl Quiet {
    pub(crate) fn start() -> Result<Self> {
        let busy = accounting::busy_time_of_the_machine()?;
        Ok(Self { start: Instant::now(), busy, own: accounting::CpuTime::of_this_family()? })
    }

    /// The share of all cores' time, in percent, that went to programs which the benchmark has not started. All of
    /// those that it has started must have ended.
    pub(crate) fn disturbance(&self, cores: usize) -> Result<f64> {
        let busy = accounting::busy_time_of_the_machine()?.saturating_sub(self.busy);
        let own = accounting::CpuTime::of_this_family()?.saturating_sub(self.own);
        #[expect(clippy::cast_precision_loss, reason = "nobody has that many cores")]
        let all = self.start.elapsed().as_secs_f64() * cores as f64;
        Ok(busy.saturating_sub(own).as_secs_f64() / all * 100.0)
    }
}

/// The lines of the report that tell what the figures belong to.
pub(crate) fn facts(layout: &Layout, repository: &Path) -> String {
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu
        .lines()
        .find_map(|line| line.strip_prefix("model name"))
        .map_or("unknown", |rest| rest.trim_start_matches([' ', '\t', ':']));
    let virtual_machine = if cpu.contains(" hypervisor ") { ", a virtual machine" } else { "" };
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let system = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let system =
        system.lines().find_map(|line| line.strip_prefix("PRETTY_NAME=")).unwrap_or("unknown").trim_matches('"');
    format!(
        "- when: {date}\n- CPU: {model}, {count} cores{virtual_machine}\n- kernel: Linux {kernel}, {system}\n\
         - herd: {herd}, {rustc}, release profile\n- compared with: {nginx}; {haproxy}; loaded by {wrk}\n\
         - placement: {layout}\n",
        date = first_line("date", &["--utc", "+%Y-%m-%d %H:%M UTC"]),
        count = layout.all.count(),
        kernel = kernel.trim(),
        herd = revision(repository),
        rustc = first_line("rustc", &["--version"]),
        nginx = first_line("nginx", &["-v"]).trim_start_matches("nginx version: "),
        haproxy = words(&first_line("haproxy", &["-v"]), 3),
        wrk = words(&first_line("wrk", &["-v"]), 2),
    )
}

fn revision(repository: &Path) -> String {
    let repository = repository.display().to_string();
    let commit = first_line("git", &["-C", &repository, "rev-parse", "--short", "HEAD"]);
    let changed = first_line("git", &["-C", &repository, "status", "--porcelain", "--untracked-files=no", "crates"]);
    format!("commit {commit}{}", if changed.is_empty() { "" } else { " with changes" })
}

/// The first line that a program prints; some print their version to stderr, and wrk calls that a failure.
fn first_line(program: &str, args: &[&str]) -> String {
    let Ok(path) = which(program) else { return "not installed".to_owned() };
    let Ok(output) = Command::new(path).args(args).stdin(Stdio::null()).output() else { return "unknown".to_owned() };
    let text = [output.stdout, output.stderr].concat();
    String::from_utf8_lossy(&text).lines().next().unwrap_or_default().trim().to_owned()
}

fn words(text: &str, count: usize) -> String {
    text.split_whitespace().take(count).collect::<Vec<_>>().join(" ")
}
