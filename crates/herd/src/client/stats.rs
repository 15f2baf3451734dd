//! `herd stats`.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    time::{Duration, SystemTime},
};

use serde::Deserialize;
use serde_json::Value;

use super::{
    Daemon, block_on, problem_as_json,
    ps::{bytes, since, span},
    table::{Column, Table},
};
use crate::{
    admin::model::StartFailure,
    cli::StatsArgs,
    console::{self, alarming, printable, strong},
    prose::{terminal_width, wrapped},
};

/// What is shown of the daemon's numbers.
#[derive(Debug, Deserialize)]
struct Stats {
    version: String,
    pid: u32,
    uptime_ms: u64,
    draining: bool,
    gateway: Gateway,
    pools: Vec<Pool>,
}

#[derive(Debug, Deserialize)]
struct Gateway {
    connections: u64,
    requests: u64,
    upgrades: u64,
    connections_total: Option<u64>,
    requests_total: Option<u64>,
    upgrades_total: Option<u64>,
    received_bytes: u64,
    sent_bytes: u64,
}

#[derive(Debug, Deserialize)]
struct Pool {
    pool: String,
    leaving: bool,
    max_workers: u64,
    workers: Workers,
    sessions: u64,
    waiting: u64,
    sessions_started: u64,
    sessions_ended: BTreeMap<String, u64>,
    spawn_failures: u64,
    worker_exits: BTreeMap<String, u64>,
    last_start_failure: Option<StartFailure>,
}

#[derive(Debug, Deserialize)]
struct Workers {
    total: u64,
    starting: u64,
    spare: u64,
    ending: u64,
}

/// Shows the numbers of a running daemon.
///
/// # Errors
/// If there is no daemon to ask.
pub(crate) fn run(args: StatsArgs) -> anyhow::Result<()> {
    let daemon = Daemon::find(args.daemon.socket)?;
    if args.json {
        let stats: Value = problem_as_json(true, block_on(daemon.get("/v1/stats")))?;
        return console::print_json(&stats);
    }
    let stats: Stats = block_on(daemon.get("/v1/stats"))?;
    console::print(told(&stats, SystemTime::now(), terminal_width()))
}

fn told(stats: &Stats, now: SystemTime, width: Option<usize>) -> String {
    let Stats { version, pid, uptime_ms, draining, gateway, pools } = stats;
    let up = span(Duration::from_millis(*uptime_ms));
    let draining = if *draining { ", draining" } else { "" };
    let mut text = format!("herd {}, process {pid}, up {up}{draining}\n", printable(version));
    text += &wrapped(&gateway.told(), "gateway so far: ".len(), width);
    text.push('\n');
    let _ = write!(text, "{}", table(pools));
    for pool in pools {
        text += &wrapped(&pool.told(now), 4, width);
    }
    text
}

fn table(pools: &[Pool]) -> Table {
    let mut table = Table::new([
        Column::text("POOL").shrinks(),
        Column::number("WORKERS"),
        Column::number("SPARE"),
        Column::number("SESSIONS"),
        Column::number("WAITING").dispensable(1),
        Column::number("STARTING").dispensable(4),
        Column::number("ENDING").dispensable(5),
        Column::number("STARTED").dispensable(2),
        Column::number("FAILED STARTS").dispensable(3),
    ]);
    for pool in pools {
        let name = if pool.leaving { format!("{} (leaving)", pool.pool) } else { pool.pool.clone() };
        table.row([
            name,
            format!("{}/{}", pool.workers.total, pool.max_workers),
            pool.workers.spare.to_string(),
            pool.sessions.to_string(),
            pool.waiting.to_string(),
            pool.workers.starting.to_string(),
            pool.workers.ending.to_string(),
            pool.sessions_started.to_string(),
            pool.spawn_failures.to_string(),
        ]);
    }
    table
}

impl Gateway {
    /// What is open now, and what has been since the daemon's start.
    fn told(&self) -> String {
        let Self { connections, requests, upgrades, received_bytes, sent_bytes, .. } = self;
        let counts = |numbers: [Option<u64>; 3]| {
            let nouns = ["connection", "request", "upgrade"];
            let told: Vec<_> =
                nouns.iter().zip(numbers).filter_map(|(noun, number)| Some(count(number?, noun))).collect();
            told.join(", ")
        };
        let now = counts([Some(*connections), Some(*requests), Some(*upgrades)]);
        let mut total = counts([self.connections_total, self.requests_total, self.upgrades_total]);
        total += if total.is_empty() { "" } else { ", " };
        let (received, sent) = (bytes(*received_bytes), bytes(*sent_bytes));
        format!("gateway now:    {now}\ngateway so far: {total}{received} in, {sent} out\n")
    }
}

impl Pool {
    /// What has come to an end, and what is wrong; nothing of what never happened.
    fn told(&self, now: SystemTime) -> String {
        let lines = [
            reasons(&self.sessions_ended).map(|reasons| format!("sessions ended: {reasons}")),
            reasons(&self.worker_exits).map(|reasons| format!("workers ended: {reasons}")),
            self.last_start_failure.as_ref().map(|StartFailure { at, error }| {
                let said = printable(error);
                format!("{} {} ago: {said}", alarming("last start failed"), since(at, now))
            }),
        ];
        let lines: String = lines.into_iter().flatten().map(|line| format!("  {line}\n")).collect();
        if lines.is_empty() { lines } else { format!("\n{}\n{lines}", strong(&printable(&self.pool))) }
    }
}

/// Counts by reason, the largest first.
fn reasons(counts: &BTreeMap<String, u64>) -> Option<String> {
    let mut counts: Vec<_> = counts.iter().filter(|(_, count)| **count > 0).collect();
    counts.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
    let told: Vec<_> = counts.iter().map(|(reason, count)| format!("{count} {}", printable(reason))).collect();
    (!told.is_empty()).then(|| told.join(", "))
}

fn count(number: u64, noun: &str) -> String {
    if number == 1 { format!("1 {noun}") } else { format!("{number} {noun}s") }
}
