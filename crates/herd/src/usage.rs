//! What a worker's processes use at this moment: what its cgroup counted, or else the sum over its processes in proc(5).

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use herd_pool::WorkerId;
use rustix::param::{clock_ticks_per_second, page_size};
use tokio::{runtime::Handle, time::timeout};

use crate::{pools::Pools, workers::PoolWorker};

/// More processes than this are not added up; a worker that forks without end must not keep the daemon busy.
const MOST_PROCESSES: usize = 4096;

/// How long what was seen is good enough for those who ask again.
const FRESH: Duration = Duration::from_secs(1);

/// How long whoever asks waits for it.
const PATIENCE: Duration = Duration::from_millis(3);

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

/// What all workers of a pool use together.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct PoolUsage {
    /// CPU time so far, of those that ended as well.
    pub(crate) cpu_time: Duration,
    /// Memory in bytes, now.
    pub(crate) memory: u64,
    /// Processes and threads, now.
    pub(crate) pids: u64,
}

/// What was seen when somebody looked last.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    /// By name, of all pools that there were.
    pub(crate) pools: BTreeMap<Arc<str>, PoolUsage>,
    /// Of the workers that there are.
    pub(crate) workers: HashMap<WorkerId, Usage>,
}

/// The usage of all pools, as it was seen last.
///
/// To look at thousands of workers takes a while and costs more than what it tells, so that is done only when somebody
/// asks, away from the threads that serve, and not again before twenty times as long as it took.
#[derive(Clone, Debug)]
pub(crate) struct Samples {
    pools: Pools,
    shared: Arc<Shared>,
    /// Where it is looked.
    runtime: Handle,
}

#[derive(Debug, Default)]
struct Shared {
    seen: Mutex<Arc<Seen>>,
    /// Held while somebody looks.
    looking: Mutex<Looks>,
}

#[derive(Debug, Default)]
struct Looks {
    /// Before this nobody looks again.
    not_before: Option<Instant>,
    /// The CPU time of each worker as it was seen last.
    cpu_times: HashMap<WorkerId, (Arc<str>, Duration)>,
    /// That of all workers that ended, by pool.
    ended: BTreeMap<Arc<str>, Duration>,
}

impl Samples {
    /// Whoever calls it has to be on the runtime whose threads may look.
    pub(crate) fn new(pools: Pools) -> Self {
        Self { pools, shared: Arc::default(), runtime: Handle::current() }
    }

    /// What the workers used when they were looked at last.
    pub(crate) fn seen(&self) -> Arc<Seen> {
        Arc::clone(&self.shared.seen.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Looks at all workers, if that is due. Whoever waits for the answer, which nobody has to, waits for a few of them
    /// and not for thousands: what comes late is there for the next one who asks.
    pub(crate) fn refresh(&self) -> impl Future<Output = ()> + use<> {
        let samples = self.clone();
        let look = self.runtime.spawn_blocking(move || samples.look());
        async {
            let _ = timeout(PATIENCE, look).await;
        }
    }

    /// Looks at all workers, if that is due. Reads files, so it blocks for a moment.
    pub(crate) fn look(&self) {
        // Somebody looks already: that will do.
        let Ok(mut looks) = self.shared.looking.try_lock() else { return };
        let begun = Instant::now();
        if looks.not_before.is_some_and(|time| begun < time) {
            return;
        }
        let mut seen = Seen::default();
        let mut before = std::mem::take(&mut looks.cpu_times);
        for pool in self.pools.iter() {
            let sum = seen.pools.entry(Arc::clone(&pool.name)).or_default();
            for info in pool.pool.workers() {
                let usage = info.worker.as_deref().and_then(of);
                let last = before.remove(&info.id).map(|(_, last)| last);
                if let Some(usage) = usage {
                    sum.memory += usage.memory;
                    sum.pids += usage.pids;
                    seen.workers.insert(info.id, usage);
                }
                // A process that ended between two looks, unwaited for, takes its time with it; a counter never falls.
                let cpu_time = usage.map(|usage| usage.cpu_time).max(last);
                looks.cpu_times.extend(cpu_time.map(|time| (info.id, (Arc::clone(&pool.name), time))));
            }
        }
        for (pool, last) in before.into_values() {
            *looks.ended.entry(pool).or_default() += last;
        }
        for (pool, cpu_time) in looks.ended.iter().chain(looks.cpu_times.values().map(|(pool, time)| (pool, time))) {
            seen.pools.entry(Arc::clone(pool)).or_default().cpu_time += *cpu_time;
        }
        *self.shared.seen.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(seen);
        let took = begun.elapsed();
        looks.not_before = Some(Instant::now() + (took * 20).max(FRESH));
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
