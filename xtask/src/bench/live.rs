//! Thousands of live sessions: what is asked about them, and who follows what becomes of them.

use std::{
    fs,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, bail, ensure};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::{
    accounting::Memory,
    child::pause,
    client::Client,
    followers::Followers,
    proxy::Bench,
    report::{Aim, Section, Table, progress},
    requests::load,
    series::{Series, figure},
    served::{Served, Settings},
    turns,
};

const PAGE_AIM_MS: f64 = 5.0;
const PAGES: [(&str, &str); 2] = [("GET /v1/sessions, first page", "/v1/sessions"), ("GET /metrics", "/metrics")];
/// How often each page is asked for.
const ASKED: usize = 200;
const FOLLOWERS: usize = 100;
/// How many clients start the sessions.
const STARTERS: usize = 8;
/// While latency is measured, a session comes and goes this often.
const SESSION_EVERY: Duration = Duration::from_millis(50);
/// A worker and its init.
const PROCESSES: usize = 2;
/// What the daemon has open for each worker: its output, its init, its process and a connection.
const FILES: usize = 5;
/// Files of the daemon, and processes of the machine, that are no worker's.
const OTHERS: usize = 1000;
const MIB: f64 = 1_048_576.0;

/// Measures with `most` sessions, or as many as the machine has room for.
pub(crate) fn measure(bench: &Bench, most: usize, rounds: usize, seconds: u32) -> Result<(Section, Vec<Aim>)> {
    let count = room_for(most)?;
    // The sandboxes are another part's subject, and health checks too.
    let resources =
        format!("min_workers: 1, max_workers: {}, spare: 1, ttl: 1h, health_interval: 1h, pids_limit: -1", count + 100);
    let settings = Settings { resources: &resources, sections: "sandbox: {mode: 'off'}", ..Settings::default() };
    let daemon = Served::start(bench, "herd-live", settings)?;
    start_sessions(&daemon, 1)?;
    let few = asked(&daemon)?;
    progress(&format!("live sessions: starts {count}"));
    let began = Instant::now();
    start_sessions(&daemon, count)?;
    let took = began.elapsed();
    // What follows the last start is no part of what comes.
    pause(Duration::from_secs(2));
    let many = asked(&daemon)?;
    let memory = Memory::of(daemon.pid()).private()?;
    progress(&format!("live sessions: {FOLLOWERS} followers"));
    let [alone, followed] = follow(bench, &daemon, rounds, seconds)?;

    let mut table = Table::new(&["what", "measured"]);
    #[expect(clippy::cast_precision_loss, reason = "sizes and numbers are far below 2^52")]
    let [rate, memory] = [count as f64 / took.as_secs_f64(), memory as f64 / MIB].map(figure);
    table.row([format!("start of {count} sessions, without spares"), format!("{rate} a second")]);
    table.row(["daemon with all of them, private".to_owned(), format!("{memory} MiB")]);
    let mut aims = Vec::new();
    for (at, (what, _)) in PAGES.into_iter().enumerate() {
        for (sessions, times) in [(1, &few[at]), (count, &many[at])] {
            let measured = format!("{} ms, p99 {} ms", figure(times.median()), figure(times.percentile(99)));
            table.row([format!("{what}, sessions: {sessions}"), measured.clone()]);
            if sessions == count {
                aims.push(Aim {
                    what: format!("{what}, {count} sessions"),
                    aim: format!("≤ {PAGE_AIM_MS} ms"),
                    measured,
                    met: times.median() <= PAGE_AIM_MS,
                });
            }
        }
    }
    for (percentile, alone, followed) in [("p50", &alone.p50, &followed.p50), ("p99", &alone.p99, &followed.p99)] {
        table.row([format!("{percentile} of requests, nobody follows"), format!("{} µs", alone.spread())]);
        table.row([format!("{percentile} of requests, {FOLLOWERS} follow"), format!("{} µs", followed.spread())]);
        aims.push(Aim {
            what: format!("{percentile} of requests while {FOLLOWERS} follow the events"),
            aim: "within what it is while nobody does".to_owned(),
            measured: format!("{} : {} µs", figure(followed.median()), alone.spread()),
            met: followed.median() <= alone.max(),
        });
    }
    let short = if count < most {
        format!(
            "It was to be {most} sessions: a process may have no more open files here, or the machine no more processes. \
             The pages' part of the pool is measured with 10,000 and more under \"Hit path\"."
        )
    } else {
        String::new()
    };
    let text = format!(
        "`herd serve` with {count} sessions, each with a process of the small native worker, without sandboxes and with \
         `health_interval: 1h`. Pages are read {ASKED} times over one connection. \"Follow\": `wrk -t1 -c1 -d{seconds}s` \
         in one session, while another one is started and ended every {} ms at most; in turns nobody or {FOLLOWERS} \
         clients stream `GET /v1/events`, all of which are sent everything, and one thread reads what comes. The daemon \
         has one core for all that it does. {short}",
        SESSION_EVERY.as_millis()
    );
    Ok((Section { title: "Live sessions".to_owned(), text, table }, aims))
}

/// How many sessions this machine has room for, up to `most`. As far as it may, it makes room.
fn room_for(most: usize) -> Result<usize> {
    let numbers: usize = fs::read_to_string("/proc/sys/kernel/pid_max")?.trim().parse()?;
    let limit = getrlimit(Resource::Nofile);
    let wanted = (OTHERS + most * FILES) as u64;
    let raised = limit.maximum.map(|maximum| maximum.max(wanted));
    // Only root may raise the highest limit, and not in every container.
    for maximum in [raised, limit.maximum] {
        if setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).is_ok() {
            break;
        }
    }
    let files =
        getrlimit(Resource::Nofile).current.map_or(usize::MAX, |files| usize::try_from(files).unwrap_or(usize::MAX));
    let room = most.min(files.saturating_sub(OTHERS) / FILES).min(numbers.saturating_sub(OTHERS) / PROCESSES);
    ensure!(room > 0, "a process may have {files} files and the machine {numbers} processes: ulimit -n {wanted}");
    Ok(room)
}

/// Latency of requests, in microseconds.
#[derive(Debug, Default)]
struct Latency {
    p50: Series,
    p99: Series,
}

/// Starts the sessions that are not there yet.
fn start_sessions(daemon: &Served, count: usize) -> Result<()> {
    let next = AtomicUsize::new(0);
    let start = || -> Result<()> {
        let mut client = Client::connect(daemon.address)?;
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= count {
                return Ok(());
            }
            let response = client.get("/", &format!("live-{number}"))?;
            ensure!(response.status == 200, "session {number} is answered {}: {}", response.status, response.body());
        }
    };
    thread::scope(|scope| {
        let starters: Vec<_> = (0..STARTERS).map(|_| scope.spawn(start)).collect();
        starters.into_iter().try_for_each(|starter| match starter.join() {
            Ok(done) => done,
            Err(_) => bail!("a thread that starts sessions has panicked"),
        })
    })
}

/// How long each page takes, in milliseconds.
fn asked(daemon: &Served) -> Result<[Series; PAGES.len()]> {
    let mut admin = Client::connect(daemon.admin)?;
    let mut times = [Series::default(), Series::default()];
    for _ in 0..ASKED {
        for (series, (what, path)) in times.iter_mut().zip(PAGES) {
            let start = Instant::now();
            let response = admin.get(path, "")?;
            series.push(start.elapsed().as_secs_f64() * 1e3);
            ensure!(response.status == 200 && response.length > 0, "{what} is answered with {}", response.status);
        }
    }
    Ok(times)
}

/// The latency of requests without and with followers, while sessions come and go.
fn follow(bench: &Bench, daemon: &Served, rounds: usize, seconds: u32) -> Result<[Latency; 2]> {
    let enough = AtomicBool::new(false);
    thread::scope(|scope| {
        let churn = scope.spawn(|| come_and_go(daemon, &enough));
        let measured = latencies(bench, daemon, rounds, seconds);
        enough.store(true, Ordering::Relaxed);
        let Ok(done) = churn.join() else { bail!("the thread that starts and ends sessions has panicked") };
        let measured = measured?;
        done?;
        Ok(measured)
    })
}

fn latencies(bench: &Bench, daemon: &Served, rounds: usize, seconds: u32) -> Result<[Latency; 2]> {
    let mut measured = [Latency::default(), Latency::default()];
    load(bench, daemon.address, 1, 1)?;
    for round in 0..rounds {
        for turn in turns(2, round) {
            let followers = (turn == 1).then(|| Followers::start(daemon.admin, FOLLOWERS)).transpose()?;
            let load = load(bench, daemon.address, 1, seconds)?;
            ensure!(load.failures == 0, "{} requests have failed", load.failures);
            measured[turn].p50.push(load.p50);
            measured[turn].p99.push(load.p99);
            if let Some(followers) = followers {
                let bytes = followers.stop()?;
                ensure!(bytes > 1000, "a follower was sent {bytes} bytes: the events did not come");
            }
        }
    }
    Ok(measured)
}

fn come_and_go(daemon: &Served, enough: &AtomicBool) -> Result<()> {
    let (mut gateway, mut admin) = (Client::connect(daemon.address)?, Client::connect(daemon.admin)?);
    for number in 0.. {
        if enough.load(Ordering::Relaxed) {
            break;
        }
        let session = format!("guest-{number}");
        let response = gateway.get("/", &session)?;
        ensure!(response.status == 200, "{session} is answered with {}: {}", response.status, response.body());
        let ended = admin.request("DELETE", &format!("/v1/sessions/{session}"), "", 0)?;
        ensure!(ended.status == 200, "ending {session} is answered with {}: {}", ended.status, ended.body());
        pause(SESSION_EVERY);
    }
    Ok(())
}
