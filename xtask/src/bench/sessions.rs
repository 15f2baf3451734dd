//! The first request of a new session, which has to get a worker before it is answered.

use std::{net::SocketAddr, time::Instant};

use anyhow::{Context, Result, ensure};

use super::{
    child::{Running, pause},
    client::Client,
    proxy::{Bench, Upstream, free_address, herd_arguments, start},
    report::{Aim, Section, Table, progress},
    series::{Series, figure},
    worker::SMALL_BODY,
};

const SPARE_AIM_MS: f64 = 1.0;
const COLD_AIM_MS: f64 = 10.0;

/// A herd whose sessions are started and ended one after another.
struct Daemon {
    client: Client,
    admin: Client,
    _running: Running,
}

/// Milliseconds that the first and the second request of each session took.
#[derive(Debug, Default)]
struct Times {
    first: Series,
    second: Series,
}

pub(crate) fn measure(bench: &Bench, count: usize) -> Result<(Section, Vec<Aim>)> {
    progress("new sessions: with a spare");
    let spare = Daemon::start(bench, "herd-spare", &["--workers", "1..4", "--spare", "1"])?.times(count, 1)?;
    progress("new sessions: without a spare");
    let mut daemon = Daemon::start(bench, "herd-cold", &["--workers", "1..4", "--spare", "0"])?;
    // The one worker that there always is serves this session, which stays.
    daemon.first_and_second("held")?;
    let cold = daemon.times(count, 0)?;
    drop(daemon);
    progress("new sessions: the worker alone");
    let alone = worker_alone(bench, count)?;
    Ok((section(&spare, &cold, &alone), aims(&spare, &cold)))
}

impl Daemon {
    fn start(bench: &Bench, name: &str, flags: &[&str]) -> Result<Self> {
        let (address, admin) = (free_address()?, free_address()?);
        let socket = bench.directory.join(format!("{name}.sock"));
        let mut all = vec!["--admin".to_owned(), admin.to_string(), "--control-socket".to_owned()];
        all.push(socket.display().to_string());
        all.extend(flags.iter().map(|&flag| flag.to_owned()));
        let all: Vec<&str> = all.iter().map(String::as_str).collect();
        let mut running = start(bench, name, &bench.herd, herd_arguments(bench, address, &all))?;
        running.wait_for("the metrics", || spares(admin).map(Some))?;
        Ok(Self { client: Client::connect(address)?, admin: Client::connect(admin)?, _running: running })
    }

    /// Starts and ends sessions, each when `spares` workers wait for one.
    fn times(&mut self, count: usize, spares: u64) -> Result<Times> {
        let mut times = Times::default();
        for number in 0..count {
            while spares_by(&mut self.admin)? < spares {
                pause(std::time::Duration::from_millis(1));
            }
            let session = format!("new-{number}");
            let (first, second) = self.first_and_second(&session)?;
            times.first.push(first);
            times.second.push(second);
            let ended = self.admin.request("DELETE", &format!("/v1/sessions/{session}"), "", 0)?;
            ensure!(ended.status == 200, "ending a session is answered with {}: {}", ended.status, ended.body());
        }
        Ok(times)
    }

    fn first_and_second(&mut self, session: &str) -> Result<(f64, f64)> {
        let mut request = |expected| {
            let start = Instant::now();
            let response = self.client.get("/", session)?;
            let milliseconds = start.elapsed().as_secs_f64() * 1e3;
            ensure!(response.status == 200, "a session is answered with {}: {}", response.status, response.body());
            let found = response.field("herd-session");
            ensure!(found == Some(expected), "herd-session is {found:?} and not {expected}");
            Ok(milliseconds)
        };
        Ok((request("new")?, request("resumed")?))
    }
}

/// How long the worker itself takes from its start until its first answer, in milliseconds.
fn worker_alone(bench: &Bench, count: usize) -> Result<Series> {
    (0..count)
        .map(|_| {
            let start = Instant::now();
            let upstream = Upstream::start(bench, "worker-alone")?;
            let response = Client::connect(upstream.address)?.get("/", "")?;
            ensure!(response.body() == SMALL_BODY, "the worker does not answer");
            Ok(start.elapsed().as_secs_f64() * 1e3)
        })
        .collect()
}

/// How many workers wait for a session, by the daemon's metrics.
pub(crate) fn spares(admin: SocketAddr) -> Result<u64> {
    spares_by(&mut Client::connect(admin)?)
}

pub(crate) fn spares_by(admin: &mut Client) -> Result<u64> {
    let metrics = admin.get("/metrics", "")?.body();
    let value = metrics.lines().find_map(|line| line.strip_prefix("herd_available_workers "));
    value.context("there is no herd_available_workers")?.parse().context("herd_available_workers is no number")
}

fn section(spare: &Times, cold: &Times, alone: &Series) -> Section {
    let mut table = Table::new(&["request", "median ms", "p99 ms", "min–max ms"]);
    let rows = [
        ("first of a session, with a spare", &spare.first),
        ("first of a session, without a spare", &cold.first),
        ("second of a session", &spare.second),
        ("(worker started without herd, first request)", alone),
    ];
    for (what, times) in rows {
        table.row([
            what.to_owned(),
            figure(times.median()),
            figure(times.percentile(99)),
            format!("{}–{}", figure(times.min()), figure(times.max())),
        ]);
    }
    Section {
        title: "New sessions".to_owned(),
        text: format!(
            "{} sessions one after another through one open connection, each ended before the next one starts. The \
             worker is the small native one. The last row is the time from starting the same program without herd \
             until its first answer.",
            spare.first.len()
        ),
        table,
    }
}

fn aims(spare: &Times, cold: &Times) -> Vec<Aim> {
    let aim = |what: &str, limit: f64, times: &Series| Aim {
        what: format!("first request of a session, {what}"),
        aim: format!("≤ {limit} ms"),
        measured: format!("{} ms, p99 {} ms", figure(times.median()), figure(times.percentile(99))),
        met: times.median() <= limit,
    };
    vec![aim("with a spare", SPARE_AIM_MS, &spare.first), aim("without a spare", COLD_AIM_MS, &cold.first)]
}
