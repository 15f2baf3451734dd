//! A daemon with many sandboxed workers that do nothing, and requests into private networks.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};

use super::{
    accounting::{CpuTime, Memory},
    child::{Running, pause},
    client::Client,
    proxy::{Bench, SESSION, free_address, herd_arguments, start},
    report::{Aim, Section, Table, progress},
    requests::load,
    sandbox::CROWD,
    series::{Series, figure},
    sessions::spares,
    turns,
};

/// Of one core, in per cent.
const IDLE_AIM: f64 = 1.0;
/// The health of each worker is asked for every five seconds: each is, several times.
const IDLE_TIME: Duration = Duration::from_secs(20);
/// How long the workers may take to be there.
const PATIENCE: Duration = Duration::from_secs(120);
const CONNECTIONS: [usize; 2] = [1, 64];
/// Costs that differ by less are the same.
const SAME: f64 = 1.05;
const MIB: f64 = 1_048_576.0;

/// One network in front of which herd stands.
#[derive(Debug)]
struct Network {
    name: &'static str,
    address: SocketAddr,
    running: Running,
}

/// What was measured of a network with one number of connections.
#[derive(Debug, Default)]
struct Cell {
    rate: Series,
    p50: Series,
    /// Microseconds of processor time per request.
    cpu: Series,
}

pub(crate) fn measure_networks(bench: &Bench, rounds: usize, seconds: u32) -> Result<(Section, Vec<Aim>)> {
    let networks = [Network::start(bench, "private")?, Network::start(bench, "host")?];
    let mut table = Table::new(&["connections", "network", "requests/s", "p50 µs", "CPU µs/request"]);
    let mut aims = Vec::new();
    for connections in CONNECTIONS {
        progress(&format!("networks: {connections} connections"));
        let mut cells = [Cell::default(), Cell::default()];
        for network in &networks {
            load(bench, network.address, connections, 1)?;
        }
        for round in 0..rounds {
            for turn in turns(networks.len(), round) {
                let before = CpuTime::of(networks[turn].running.pid())?;
                let load = load(bench, networks[turn].address, connections, seconds)?;
                let spent = CpuTime::of(networks[turn].running.pid())? - before;
                ensure!(load.failures == 0, "{} requests have failed", load.failures);
                cells[turn].rate.push(load.rate);
                cells[turn].p50.push(load.p50);
                cells[turn].cpu.push(spent.total().as_secs_f64() * 1e6 / load.requests);
            }
        }
        for (network, cell) in networks.iter().zip(&cells) {
            let spreads = [&cell.rate, &cell.p50, &cell.cpu].map(Series::spread);
            table.row([connections.to_string(), network.name.to_owned()].into_iter().chain(spreads));
        }
        let [private, host] = [&cells[0], &cells[1]].map(|cell| cell.cpu.median());
        aims.push(Aim {
            what: format!("CPU µs/request into a private network, {connections} connections"),
            aim: format!("as into the host's (≤ {SAME})"),
            measured: format!("{} : {} = {:.2}", figure(private), figure(host), private / host),
            met: private <= host * SAME,
        });
    }
    let text = format!(
        "As in \"Small requests\", with workers in sandboxes: `--network private` beside `--network host`, in turns of \
         {seconds} s, connections to the worker kept alive."
    );
    Ok((Section { title: "Private network".to_owned(), text, table }, aims))
}

impl Network {
    fn start(bench: &Bench, name: &'static str) -> Result<Self> {
        let address = free_address()?;
        let socket = bench.directory.join(format!("herd-{name}.sock")).display().to_string();
        let flags = [
            ["--sandbox", "required"],
            ["--network", name],
            ["--pids", "-1"],
            ["--admin", "off"],
            ["--control-socket", &socket],
            ["--workers", "1..4"],
            ["--spare", "1"],
        ];
        let args = herd_arguments(bench, address, flags.as_flattened());
        let mut running = start(bench, &format!("herd-{name}"), &bench.herd, args)?;
        running.wait_for("the first answer", || {
            let response = Client::connect(address)?.get("/", SESSION)?;
            ensure!(response.status == 200, "it answers {}: {}", response.status, response.body());
            Ok(Some(()))
        })?;
        Ok(Self { name, address, running })
    }
}

/// A daemon all of whose workers wait for sessions.
#[derive(Debug)]
struct Crowd {
    running: Running,
    /// From the start of the daemon until all its workers were ready.
    took: Duration,
}

#[expect(clippy::cast_precision_loss, reason = "sizes and numbers are far below 2^52")]
pub(crate) fn measure(bench: &Bench) -> Result<(Section, Vec<Aim>)> {
    progress(&format!("crowd: {CROWD} sandboxed workers"));
    let crowd = Crowd::start(bench, "5s")?;
    let idle = crowd.idle()?;
    let memory = Memory::of(crowd.running.pid()).private()? as f64 / MIB;
    let rate = CROWD as f64 / crowd.took.as_secs_f64();
    drop(crowd);
    progress("crowd: without a look at their health");
    let unasked = Crowd::start(bench, "1h")?.idle()?;
    let mut table = Table::new(&["what", "measured"]);
    let rows = [
        ("workers ready", format!("{} a second", figure(rate))),
        ("CPU of the idle daemon", format!("{} % of a core", figure(idle))),
        ("the same with `--health-interval 1h`", format!("{} % of a core", figure(unasked))),
        ("daemon, private", format!("{} MiB", figure(memory))),
    ];
    for (what, measured) in rows {
        table.row([what.to_owned(), measured]);
    }
    let aim = Aim {
        what: format!("CPU of the daemon with {CROWD} idle sandboxed workers"),
        aim: format!("≤ {IDLE_AIM} % of a core"),
        measured: format!("{} %", figure(idle)),
        met: idle <= IDLE_AIM,
    };
    let text = format!(
        "`herd run --workers {CROWD}..{CROWD}` on one core, with the small native worker in sandboxes on the other, from \
         the start of the daemon until all are ready, each by an answer over HTTP; then {} s without a request, in which \
         the health of each is asked for every five seconds, over a connection of its own.",
        IDLE_TIME.as_secs()
    );
    Ok((Section { title: format!("{CROWD} sandboxed workers"), text, table }, vec![aim]))
}

impl Crowd {
    fn start(bench: &Bench, health_interval: &str) -> Result<Self> {
        let (address, admin) = (free_address()?, free_address()?);
        let socket = bench.directory.join("herd-crowd.sock").display().to_string();
        let (admin_text, range, spare) = (admin.to_string(), format!("{CROWD}..{CROWD}"), CROWD.to_string());
        let flags = [
            ["--sandbox", "required"],
            ["--pids", "-1"],
            ["--admin", &admin_text],
            ["--control-socket", &socket],
            ["--workers", &range],
            ["--spare", &spare],
            ["--health-interval", health_interval],
        ];
        let began = Instant::now();
        let mut running =
            start(bench, "herd-crowd", &bench.herd, herd_arguments(bench, address, flags.as_flattened()))?;
        running.wait_for("the metrics", || spares(admin).map(Some))?;
        while spares(admin)? < CROWD as u64 {
            ensure!(began.elapsed() < PATIENCE, "of {CROWD} workers {} are ready", spares(admin)?);
            pause(Duration::from_millis(20));
        }
        Ok(Self { running, took: began.elapsed() })
    }

    /// How much of a core the daemon takes, in per cent.
    fn idle(&self) -> Result<f64> {
        // What follows the last start is no part of doing nothing.
        pause(Duration::from_secs(2));
        let before = CpuTime::of(self.running.pid())?;
        let since = Instant::now();
        pause(IDLE_TIME);
        let spent = (CpuTime::of(self.running.pid())? - before).total();
        Ok(spent.as_secs_f64() / since.elapsed().as_secs_f64() * 100.0)
    }
}
