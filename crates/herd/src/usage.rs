//! What a worker's processes use at this moment, from proc(5).

use std::{fs, time::Duration};

use rustix::param::{clock_ticks_per_second, page_size};

/// More processes than this are not added up; a worker that forks without end must not keep the daemon busy.
const MOST_PROCESSES: usize = 4096;

/// The sum over a worker's process tree.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Usage {
    /// CPU time of its processes, and of those that they have waited for.
    pub(crate) cpu_time: Duration,
    /// Resident memory in bytes. What processes share is counted in each of them.
    pub(crate) memory: u64,
}

/// Adds up everything below the process `init`, which also inherits what a worker's processes leave behind. `None` if
/// nothing runs there any more.
pub(crate) fn below(init: u32) -> Option<Usage> {
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
            left.extend(children(pid));
        }
    }
    Some(sum)
}

#[derive(Debug)]
struct Stat {
    cpu_time: Duration,
    memory: u64,
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
        assert_eq!(stat.memory, 3 * page_size() as u64);
        assert_eq!(stat.cpu_time, Duration::from_millis(150_000 / clock_ticks_per_second()));
    }

    #[test]
    fn this_process_is_found_below_its_parent() {
        let parent = rustix::process::getppid().unwrap().as_raw_nonzero().get();
        assert!(below(parent.unsigned_abs()).unwrap().memory > 1 << 20);
        assert_eq!(below(u32::MAX), None);
    }
}
