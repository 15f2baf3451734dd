//! Metrics of the daemon's own process, under the names that Prometheus' client libraries use for them.

use std::{
    fs,
    time::{SystemTime, UNIX_EPOCH},
};

use rustix::{
    param::page_size,
    process::{Resource, getrlimit},
    time::{ClockId, clock_gettime},
};

use super::page::Page;

pub(super) fn process(started: SystemTime, page: &mut Page) {
    let cpu = clock_gettime(ClockId::ProcessCPUTime);
    let cpu = cpu.tv_sec as f64 + cpu.tv_nsec as f64 / 1e9;
    page.counter("process_cpu_seconds_total", "CPU time of the daemon alone.", cpu);
    if let Some(resident) = resident() {
        page.gauge("process_resident_memory_bytes", "Memory of the daemon alone.", resident);
    }
    if let Some(open) = open_files() {
        page.gauge("process_open_fds", "Descriptors that the daemon has open.", open);
    }
    if let Some(most) = getrlimit(Resource::Nofile).current {
        page.gauge("process_max_fds", "The most descriptors that the daemon may have open.", most);
    }
    let started = started.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
    page.gauge("process_start_time_seconds", "When the daemon started, in seconds since 1970.", started);
}

/// Since Linux 6.2 the size of the directory says it (proc_pid_fd(5)); before, one has to count, which takes a while for
/// many.
fn open_files() -> Option<u64> {
    let told = fs::metadata("/proc/self/fd").ok()?.len();
    if told > 0 {
        return Some(told);
    }
    // The listing itself has one open.
    Some((fs::read_dir("/proc/self/fd").ok()?.count() as u64).saturating_sub(1))
}

/// The second field of statm, in pages (proc_pid_statm(5)).
fn resident() -> Option<u64> {
    let statm = fs::read_to_string("/proc/self/statm").ok()?;
    Some(statm.split(' ').nth(1)?.parse::<u64>().ok()? * page_size() as u64)
}
