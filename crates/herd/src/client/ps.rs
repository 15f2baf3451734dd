//! `herd ps`.

use std::{
    mem::replace,
    time::{Duration, SystemTime},
};

use anyhow::ensure;
use herd_sandbox::Layer;
use serde_json::json;

use super::{
    Daemon, block_on, problem_as_json,
    table::{Cell, Column, Table},
};
use crate::{
    admin::{
        escape,
        model::{Page, PoolStats, Sandbox, Session, StartFailure, Troubles, Worker},
    },
    cli::{PsArgs, SessionChoice},
    console::{self, alarming, passing, printable, well},
    prose::{terminal_width, wrapped},
};

/// Lists sessions and workers of a running daemon.
///
/// # Errors
/// If there is no daemon to ask.
pub(crate) fn run(args: PsArgs) -> anyhow::Result<()> {
    let PsArgs { pool, tenant, state, json, daemon } = args;
    let daemon = Daemon::find(daemon.socket)?;
    let choice = SessionChoice { pool, tenant };
    let asked = block_on(async {
        let sessions = sessions(&daemon, &choice).await?;
        let workers = all::<Worker>(&daemon, "/v1/workers", "").await?;
        Ok((sessions, workers, daemon.get::<Troubles>("/v1/stats").await?))
    });
    let (mut sessions, mut workers, Troubles { mut pools }) = problem_as_json(json, asked)?;
    let several = pools.len() > 1;
    if let Some(pool) = &choice.pool {
        let known: Vec<_> = pools.iter().map(|pool| pool.pool.clone()).collect();
        pools.retain(|known| known.pool == *pool);
        ensure!(!pools.is_empty(), "there is no pool {pool}; there are: {}", known.join(", "));
        workers.retain(|worker| worker.pool == *pool);
    }
    if let Some(tenant) = &choice.tenant {
        workers.retain(|worker| worker.session.is_some() && worker.tenant.as_deref().unwrap_or("") == tenant);
    }
    if let Some(state) = state {
        sessions.retain(|session| session.state == state.name());
        workers.retain(|worker| worker.state == state.name());
    }
    if json {
        return console::print_json(&json!({ "sessions": sessions, "workers": workers, "pools": pools }));
    }
    let now = SystemTime::now();
    console::print(sessions_table(&sessions, several, now))?;
    console::print("\n")?;
    console::print(workers_table(&workers, several, now))?;
    let width = terminal_width();
    console::print(wrapped(&sandboxes(&pools, several), 2, width))?;
    console::print(wrapped(&failures(&pools, several, now), 2, width))?;
    Ok(())
}

/// All sessions of a pool or tenant.
pub(super) async fn sessions(daemon: &Daemon, choice: &SessionChoice) -> anyhow::Result<Vec<Session>> {
    let SessionChoice { pool, tenant } = choice;
    let mut filters = String::new();
    for (name, value) in [("pool", pool), ("tenant", tenant)] {
        value.iter().for_each(|value| filters += &format!("&{name}={}", escape(value)));
    }
    all(daemon, "/v1/sessions", &filters).await
}

/// Reads a list page by page.
async fn all<T: serde::de::DeserializeOwned>(daemon: &Daemon, path: &str, filters: &str) -> anyhow::Result<Vec<T>> {
    let mut items = Vec::new();
    let mut cursor = String::new();
    loop {
        let page: Page<T> = daemon.get(&format!("{path}?limit=1000{filters}{cursor}")).await?;
        items.extend(page.items);
        match page.next {
            Some(next) => {
                let before = replace(&mut cursor, format!("&cursor={next}"));
                ensure!(cursor != before, "the daemon answers the same page of {path} again and again; see its log");
            }
            None => return Ok(items),
        }
    }
}

/// The pools are told if there are `several`, and tenants if somebody is one.
fn sessions_table(sessions: &[Session], several: bool, now: SystemTime) -> Table {
    let tenants = sessions.iter().any(|session| session.tenant.is_some());
    let mut columns = Vec::new();
    columns.extend(several.then(|| Column::text("POOL").shrinks()));
    columns.extend(tenants.then(|| Column::text("TENANT").shrinks()));
    columns.extend([
        Column::text("SESSION").shrinks(),
        Column::text("STATE"),
        Column::text("WORKER").dispensable(2),
        Column::number("AGE").dispensable(3),
        Column::number("IDLE").dispensable(1),
        Column::number("LEASES").dispensable(5),
        Column::number("REQUESTS").dispensable(4),
        Column::number("IN").dispensable(6),
        Column::number("OUT").dispensable(6),
    ]);
    let mut table = Table::new(columns);
    for session in sessions {
        let idle = if session.leases > 0 { "-".to_owned() } else { since(&session.last_used, now) };
        let mut row: Vec<Cell> = Vec::new();
        row.extend(several.then(|| session.pool.clone().into()));
        row.extend(tenants.then(|| or_dash(session.tenant.as_deref()).into()));
        row.extend([
            session.id.clone().into(),
            state_cell(&session.state),
            or_dash(session.worker.as_deref()).into(),
            since(&session.created, now).into(),
            idle.into(),
            session.leases.to_string().into(),
            session.requests.to_string().into(),
            bytes(session.bytes_in).into(),
            bytes(session.bytes_out).into(),
        ]);
        table.row(row);
    }
    table
}

fn workers_table(workers: &[Worker], several: bool, now: SystemTime) -> Table {
    let tenants = workers.iter().any(|worker| worker.tenant.is_some());
    let mut columns = Vec::new();
    columns.extend(several.then(|| Column::text("POOL").shrinks().dispensable(1)));
    columns.extend([Column::text("WORKER"), Column::text("STATE"), Column::text("SESSION").shrinks()]);
    columns.extend(tenants.then(|| Column::text("TENANT").shrinks().dispensable(2)));
    columns.extend([
        Column::number("PID").dispensable(4),
        Column::number("AGE").dispensable(3),
        Column::number("CPU").dispensable(6),
        Column::number("MEMORY").dispensable(5),
        Column::number("PEAK").dispensable(10),
        Column::number("PIDS").dispensable(9),
        Column::number("READY AFTER").dispensable(8),
        Column::text("ADDRESS").shrinks().dispensable(7),
    ]);
    let mut table = Table::new(columns);
    for worker in workers {
        let mut row: Vec<Cell> = Vec::new();
        row.extend(several.then(|| worker.pool.clone().into()));
        row.extend([worker.id.clone().into(), state_cell(&worker.state), or_dash(worker.session.as_deref()).into()]);
        row.extend(tenants.then(|| or_dash(worker.tenant.as_deref()).into()));
        row.extend([
            worker.pid.map_or_else(|| "-".to_owned(), |pid| pid.to_string()).into(),
            since(&worker.started, now).into(),
            worker.cpu_time_ms.map_or_else(|| "-".to_owned(), |ms| span(Duration::from_millis(ms))).into(),
            worker.memory_bytes.map_or_else(|| "-".to_owned(), bytes).into(),
            worker.memory_peak_bytes.map_or_else(|| "-".to_owned(), bytes).into(),
            worker.pids.map_or_else(|| "-".to_owned(), |count| count.to_string()).into(),
            worker
                .ready_after_ms
                .map_or_else(|| "-".to_owned(), |ms| span(Duration::from_secs_f64(ms.max(0.0) / 1e3)))
                .into(),
            worker.address.as_deref().map_or_else(|| "-".to_owned(), |address| place(address, worker)).into(),
        ]);
        table.row(row);
    }
    table
}

/// Where a worker listens. In a network of its own many have the same address, at which nobody else finds them.
fn place(address: &str, worker: &Worker) -> String {
    let is_private = worker.layers.iter().any(|layer| layer == Layer::Network.name());
    if is_private && address.starts_with("http://") { format!("{address} (private)") } else { address.to_owned() }
}

/// The sandbox of each pool, those together that have the same.
fn sandboxes(pools: &[PoolStats], several: bool) -> String {
    let mut groups: Vec<(String, Vec<String>)> = Vec::new();
    for pool in pools {
        let (told, name) = (sandbox(&pool.sandbox), printable(&pool.pool));
        match groups.iter_mut().find(|(known, _)| *known == told) {
            Some((_, names)) => names.push(name),
            None => groups.push((told, vec![name])),
        }
    }
    let one = |(told, names): (String, Vec<String>)| {
        let of = match &names[..] {
            _ if !several => String::new(),
            [name] => format!(" of pool {name}"),
            names => format!(" of pools {}", names.join(", ")),
        };
        format!("\nsandbox{of} {told}")
    };
    groups.into_iter().map(one).collect()
}

/// The layers that are on, those that are not, and whether anything keeps a worker from making processes.
fn sandbox(sandbox: &Sandbox) -> String {
    let Sandbox { mode, layers, missing, limits } = sandbox;
    let mut text = mode.clone();
    if !layers.is_empty() {
        text += &format!("; on: {}", layers.join(", "));
    }
    text.push('\n');
    if !missing.is_empty() {
        let names: Vec<_> = missing.iter().map(|missing| printable(&missing.layer)).collect();
        text += &format!("missing {} (`herd doctor` says why, and what to do)\n", names.join(", "));
    }
    if limits.pids.is_none() {
        text += "no limit of processes\n";
    }
    text
}

/// Why workers do not start. It is told at the end, where it is seen however long the lists are.
fn failures(pools: &[PoolStats], several: bool, now: SystemTime) -> String {
    let mut text = String::new();
    for PoolStats { pool, last_start_failure, .. } in pools {
        let Some(StartFailure { at, error }) = last_start_failure else { continue };
        let of = if several { format!(" of pool {}", printable(pool)) } else { String::new() };
        let what = alarming(&format!("last start{of} failed"));
        text += &format!("\n{what} {} ago: {}\n", since(at, now), printable(error));
    }
    text
}

/// What passes, and what is as it should be, is seen at a glance.
fn state_cell(state: &str) -> Cell {
    match state {
        "live" | "in-session" => Cell::styled(state, well),
        "starting" | "ending" => Cell::styled(state, passing),
        _ => state.to_owned().into(),
    }
}

fn or_dash(text: Option<&str>) -> String {
    text.unwrap_or("-").to_owned()
}

/// How long ago an RFC 3339 time was.
pub(crate) fn since(time: &str, now: SystemTime) -> String {
    match humantime::parse_rfc3339(time) {
        Ok(then) => span(now.duration_since(then).unwrap_or_default()),
        Err(_) => "?".to_owned(),
    }
}

/// A duration in its two largest units.
pub(super) fn span(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0..1 => format!("{}ms", duration.as_millis()),
        1..10 => format!("{:.1}s", duration.as_secs_f64()),
        10..60 => format!("{seconds}s"),
        60..3600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        3600..86400 => format!("{}h{:02}m", seconds / 3600, seconds / 60 % 60),
        _ => format!("{}d{:02}h", seconds / 86400, seconds / 3600 % 24),
    }
}

pub(super) fn bytes(count: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let mut scaled = count as f64;
    let mut unit = "B";
    for larger in UNITS {
        if scaled < 1024.0 {
            break;
        }
        scaled /= 1024.0;
        unit = larger;
    }
    if unit == "B" || scaled >= 100.0 { format!("{scaled:.0}{unit}") } else { format!("{scaled:.1}{unit}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_and_sizes_are_short() {
        assert_eq!(span(Duration::from_millis(420)), "420ms");
        assert_eq!(span(Duration::from_millis(4200)), "4.2s");
        assert_eq!(span(Duration::from_secs(3725)), "1h02m");
        assert_eq!(span(Duration::from_secs(200_000)), "2d07h");
        assert_eq!([bytes(0), bytes(1023), bytes(1024), bytes(150 << 20)], ["0B", "1023B", "1.0KiB", "150MiB"]);
        assert_eq!(bytes(u64::MAX), "16.0EiB");
    }

    #[test]
    fn tables_fit_forty_columns_and_a_hundred_have_them_whole() {
        let time = "2026-01-31T12:00:00.000Z";
        let session: Session = serde_json::from_value(json!({
            "pool": "python-large", "tenant": "acme-incorporated", "id": "a-session-with-a-long-id", "state": "starting",
            "worker": "worker-12345", "address": null, "created": time, "last_used": time, "leases": 0, "requests": 7,
            "bytes_in": 5000, "bytes_out": 1 << 30, "idle_until": null, "ends_by": null,
        }))
        .unwrap();
        let worker: Worker = serde_json::from_value(json!({
            "pool": "python-large", "id": "worker-12345", "pid": 4194304, "state": "in-session",
            "session": "a-session-with-a-long-id", "tenant": "acme-incorporated", "address": "http://127.0.0.1:8000",
            "started": time, "ready_after_ms": 48.5, "restarts": 0, "cpu_time_ms": 100, "memory_bytes": 1 << 28,
            "memory_peak_bytes": null, "pids": 2, "oom_kills": null, "limits": null, "layers": [], "missing": [],
        }))
        .unwrap();
        let now = humantime::parse_rfc3339(time).unwrap() + Duration::from_secs(7200);
        let (sessions, workers) = (&[session][..], &[worker][..]);
        for several in [false, true] {
            for table in [sessions_table(sessions, several, now), workers_table(workers, several, now)] {
                let text = anstream::adapter::strip_str(&table.within(40).to_string()).to_string();
                for line in text.lines() {
                    assert!(line.chars().count() <= 40, "{line:?}");
                }
                assert!(text.contains("SESSION") && text.contains("STATE"), "{text}");
            }
        }
        let wide = sessions_table(sessions, false, now).within(120).to_string();
        assert!(wide.contains("a-session-with-a-long-id") && wide.contains("REQUESTS"), "{wide}");
    }
}
