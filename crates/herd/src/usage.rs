//! What a worker's processes use at this moment: what its cgroup counted, or else the sum over its processes in proc(5).

use std::{
    fs,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use herd_pool::WorkerId;

use rustix::param::{clock_ticks_per_second, page_size};

use crate::{pools::Pools, workers::PoolWorker};

/// More processes than this are not added up; a worker that forks without end must not keep the daemon busy.
const MOST_PROCESSES: usize = 4096;

/// How long what was seen is good enough for those who ask again.
const FRESH: Duration = Duration::from_secs(1);

/// What all processes of a worker use together.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Usage {
    /// CPU time. Without a cgroup: of its processes, and of those that they have waited for.
    pub(crate) cpu_time: Duration,
    /// Memory in bytes. Without a cgroup: what is resident, and what processes share is counted in each of them.
    pub(crate) memory: u64,
    /// The most memory that it has used at once, in bytes. Only a cgroup tells.
    pub(crate) memory_peak: Option<u64>,
    /// How many processes and threads there are.
    pub(crate) pids: u64,
    /// How many processes were killed because the worker's memory limit was reached. Only a cgroup tells.
    pub(crate) oom_kills: Option<u64>,
}

/// The usage of all workers, looked at once a second at most, however often somebody asks.
#[derive(Debug, Default)]
pub(crate) struct Samples(Mutex<Option<Sample>>);

#[derive(Debug)]
struct Sample {
    at: Instant,
    usages: Vec<(WorkerId, Usage)>,
}

impl Samples {
    /// What each worker uses, or used a moment ago.
    pub(crate) fn of(&self, pools: &Pools) -> Vec<(WorkerId, Usage)> {
        // Nothing in here can panic half-way through a change.
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(sample) = &*last
            && sample.at.elapsed() < FRESH
        {
            return sample.usages.clone();
        }
        let workers = pools.iter().flat_map(|pool| pool.pool.workers());
        let usages: Vec<_> = workers.filter_map(|info| Some((info.id, of(info.worker.as_deref()?)?))).collect();
        *last = Some(Sample { at: Instant::now(), usages: usages.clone() });
        usages
    }
}

/// What a worker uses. `None` if nothing of it runs any more. Reads files, so it blocks for a moment.
pub(crate) fn of(worker: &PoolWorker) -> Option<Usage> {
    match worker.usage() {
        Some(counted) => counted.ok().map(|usage| Usage {
            cpu_time: usage.cpu,
            memory: usage.memory,
            memory_peak: usage.memory_peak,
            pids: usage.pids,
            oom_kills: Some(usage.oom_kills),
        }),
        None => below(worker.init_pid()),
    }
}

/// Adds up everything below the process `init`, which also inherits what a worker's processes leave behind. `None` if
/// nothing runs there any more.
fn below(init: u32) -> Option<Usage> {
    let mut left = children(init);
    if left.is_empty() {
        return None;
    }
    let mut sum = Usage::default();
    let mut seen = 0;
    while let Some(pid) = left.pop() {
        seen += 1;
        if seen > MOST_PROCESSES {
            break;
        }
        if let Some(stat) = stat(pid) {
            sum.cpu_time += stat.cpu_time;
            sum.memory += stat.memory;
            sum.pids += stat.threads;
            left.extend(children(pid));
        }
    }
    Some(sum)
}

#[derive(Debug)]
struct Stat {
    cpu_time: Duration,
    memory: u64,
    threads: u64,
}

fn stat(pid: u32) -> Option<Stat> {
    parse_stat(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// The process chooses its own name, the second field, which may hold anything but is cut at 15 bytes: what counts
/// comes after the last parenthesis.
fn parse_stat(text: &str) -> Option<Stat> {
    let (_, fields) = text.rsplit_once(") ")?;
    let fields: Vec<&str> = fields.split_ascii_whitespace().collect();
    // proc(5) counts from 1, and the first field here is the third there.
    let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
    let ticks = field(14)? + field(15)? + field(16)? + field(17)?;
    Some(Stat {
        cpu_time: Duration::from_millis(ticks * 1000 / clock_ticks_per_second()),
        memory: field(24)? * page_size() as u64,
        threads: field(20)?,
    })
}

fn children(pid: u32) -> Vec<u32> {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else { return Vec::new() };
    let lists =
        threads.filter_map(Result::ok).filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok());
    lists
        .flat_map(|list| list.split_ascii_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_full_of_parentheses_does_not_shift_the_fields() {
        let text = "7 (a) R 1 (b)) S 42 7 7 0 -1 0 0 0 0 0 100 50 0 0 20 0 1 0 5 1000 3 0";
        let stat = parse_stat(text).unwrap();
        assert_eq!((stat.memory, stat.threads), (3 * page_size() as u64, 1));
        assert_eq!(stat.cpu_time, Duration::from_millis(150_000 / clock_ticks_per_second()));
    }

    #[test]
    fn this_process_is_found_below_its_parent() {
        let parent = rustix::process::getppid().unwrap().as_raw_nonzero().get();
        let usage = below(parent.unsigned_abs()).unwrap();
        assert!(usage.memory > 1 << 20 && usage.pids >= 1, "{usage:?}");
        assert_eq!(below(u32::MAX), None);
    }
}
