//! What the kernel says that a process has used (proc(5)).

use std::{collections::HashMap, fs, ops::Sub, time::Duration};

use anyhow::{Context, Result, anyhow};

/// Processor time of a process with all of its threads, those that have ended included.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct CpuTime {
    pub(crate) user: Duration,
    pub(crate) system: Duration,
}

impl CpuTime {
    pub(crate) fn of(pid: u32) -> Result<Self> {
        let fields = stat_fields(&pid.to_string())?;
        Ok(Self { user: ticks(&fields, UTIME)?, system: ticks(&fields, STIME)? })
    }

    /// Of this process, and of all its descendants that were waited for.
    pub(crate) fn of_this_family() -> Result<Duration> {
        let fields = stat_fields("self")?;
        [UTIME, STIME, CUTIME, CSTIME].into_iter().map(|field| ticks(&fields, field)).sum()
    }

    pub(crate) fn total(self) -> Duration {
        self.user + self.system
    }
}

impl Sub for CpuTime {
    type Output = Self;

    fn sub(self, earlier: Self) -> Self {
        Self { user: self.user.saturating_sub(earlier.user), system: self.system.saturating_sub(earlier.system) }
    }
}

/// How long the threads that a process has now have run, to the nanosecond. [`CpuTime`] counts in hundredths of a second,
/// and those that have ended too.
pub(crate) fn running_time(pid: u32) -> Result<Duration> {
    let path = format!("/proc/{pid}/task");
    let tasks = fs::read_dir(&path).with_context(|| format!("cannot list {path}"))?;
    let mut sum = Duration::ZERO;
    for task in tasks {
        let file = task?.path().join("schedstat");
        let text = fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
        let nanoseconds = text.split(' ').next().context("schedstat is empty")?.parse()?;
        sum += Duration::from_nanos(nanoseconds);
    }
    Ok(sum)
}

/// How long all cores together were busy since the start of the machine, with whatever.
pub(crate) fn busy_time_of_the_machine() -> Result<Duration> {
    let stat = fs::read_to_string("/proc/stat").context("cannot read /proc/stat")?;
    let line = stat.lines().next().context("/proc/stat is empty")?;
    let fields: Vec<&str> = line.split_whitespace().collect();
    // cpu user nice system idle iowait irq softirq steal: all but idle and iowait.
    [1, 2, 3, 6, 7, 8].into_iter().map(|field| ticks(&fields, field)).sum()
}

/// Memory of one process, in bytes.
#[derive(Debug)]
pub(crate) struct Memory {
    process: u32,
}

impl Memory {
    pub(crate) fn of(process: u32) -> Self {
        Self { process }
    }

    /// What is resident now.
    pub(crate) fn resident(&self) -> Result<u64> {
        field(&self.read("smaps_rollup")?, "Rss")
    }

    /// What is resident now and is shared with nobody.
    pub(crate) fn private(&self) -> Result<u64> {
        let rollup = self.read("smaps_rollup")?;
        Ok(field(&rollup, "Private_Clean")? + field(&rollup, "Private_Dirty")?)
    }

    /// The most that was resident at once since [`reset_peak`](Self::reset_peak).
    pub(crate) fn peak(&self) -> Result<u64> {
        field(&self.read("status")?, "VmHWM")
    }

    /// Starts the peak anew from what is resident now.
    pub(crate) fn reset_peak(&self) -> Result<()> {
        let path = format!("/proc/{}/clear_refs", self.process);
        fs::write(&path, "5").with_context(|| format!("cannot write to {path}; run as the user of that process"))
    }

    fn read(&self, file: &str) -> Result<String> {
        let path = format!("/proc/{}/{file}", self.process);
        fs::read_to_string(&path).with_context(|| format!("cannot read {path}; run as the user of that process"))
    }
}

/// The processes that have this one as their parent.
pub(crate) fn children(pid: u32) -> Vec<u32> {
    parents().into_iter().filter(|&(_, parent)| parent == pid).map(|(child, _)| child).collect()
}

/// The process's children, their children and so on.
pub(crate) fn descendants(pid: u32) -> Vec<u32> {
    let parents = parents();
    let mut found = vec![pid];
    let mut next = 0;
    while let Some(&parent) = found.get(next) {
        found.extend(parents.iter().filter(|&(_, &of)| of == parent).map(|(&child, _)| child));
        next += 1;
    }
    found.split_off(1)
}

// Positions in /proc/PID/stat once the process's number and name are cut off.
const PPID: usize = 1;
const UTIME: usize = 11;
const STIME: usize = 12;
const CUTIME: usize = 13;
const CSTIME: usize = 14;

fn parents() -> HashMap<u32, u32> {
    let Ok(entries) = fs::read_dir("/proc") else { return HashMap::new() };
    entries
        .flatten()
        .filter_map(|entry| {
            let pid = entry.file_name().to_str()?.parse().ok()?;
            let text = fs::read_to_string(entry.path().join("stat")).ok()?;
            let (_, fields) = text.rsplit_once(')')?;
            Some((pid, fields.split_whitespace().nth(PPID)?.parse().ok()?))
        })
        .collect()
}

fn stat_fields(process: &str) -> Result<Vec<String>> {
    let path = format!("/proc/{process}/stat");
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    // The name may hold spaces and parentheses; nothing after its closing one does.
    let (_, fields) = text.rsplit_once(')').with_context(|| format!("{path} has no name in it"))?;
    Ok(fields.split_whitespace().map(str::to_owned).collect())
}

fn ticks<S: AsRef<str>>(fields: &[S], index: usize) -> Result<Duration> {
    let ticks: f64 = fields.get(index).context("too few fields of accounting")?.as_ref().parse()?;
    #[expect(clippy::cast_precision_loss, reason = "the clock ticks a hundred times a second")]
    Ok(Duration::from_secs_f64(ticks / rustix::param::clock_ticks_per_second() as f64))
}

fn field(text: &str, name: &str) -> Result<u64> {
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
        .ok_or_else(|| anyhow!("the kernel does not tell `{name}`"))?;
    let kib: u64 = line.trim().trim_end_matches("kB").trim_end().parse()?;
    Ok(kib * 1024)
}
