//! Large bodies: how fast they pass, what they cost, and how much the proxy grows.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::{
    accounting::{CpuTime, Memory},
    client::Client,
    proxy::{Bench, Kind, Proxy, SESSION, Upstream},
    report::{Aim, Section, Table, progress},
    series::{Series, figure},
    turns,
    worker::LARGE,
};

const MIB: f64 = 1_048_576.0;
const GROWTH_AIM_MIB: f64 = 4.0;

#[derive(Clone, Copy, Debug)]
enum Direction {
    Upload,
    Download,
}

#[derive(Debug)]
struct Cell {
    direction: Direction,
    kind: Kind,
    /// Gigabytes (10⁹ bytes) a second.
    rate: Series,
    /// Milliseconds of processor time for each body.
    cpu: Series,
    resident_before: f64,
    growth: f64,
}

pub(crate) fn measure(
    bench: &Bench,
    kinds: &[Kind],
    upstreams: &[Upstream],
    rounds: usize,
    time: Duration,
) -> Result<(Section, Vec<Aim>)> {
    let mut cells = Vec::new();
    for direction in [Direction::Upload, Direction::Download] {
        progress(&format!("bodies: {}", direction.name()));
        // New proxies, because memory that an earlier part left behind would hide that a body needs some.
        let proxies = Proxy::start_all(kinds, bench, upstreams)?;
        let mut group = proxies.iter().map(|proxy| Cell::new(direction, proxy)).collect::<Result<Vec<_>>>()?;
        for round in 0..rounds {
            for turn in turns(proxies.len(), round) {
                group[turn].add(&proxies[turn], time)?;
            }
        }
        cells.append(&mut group);
    }
    Ok((section(&cells), aims(&cells)))
}

impl Direction {
    fn name(self) -> &'static str {
        match self {
            Self::Upload => "upload",
            Self::Download => "download",
        }
    }

    fn transfer(self, client: &mut Client) -> Result<()> {
        match self {
            Self::Upload => {
                let response = client.request("POST", "/upload", SESSION, LARGE)?;
                let body = response.body();
                ensure!(body == LARGE.to_string(), "the upload was answered with {} {body}", response.status);
            }
            Self::Download => {
                let response = client.get("/download", SESSION)?;
                ensure!(response.length == LARGE, "{} bytes came with status {}", response.length, response.status);
            }
        }
        Ok(())
    }
}

impl Cell {
    #[expect(clippy::cast_precision_loss, reason = "sizes of memory are far below 2^52")]
    fn new(direction: Direction, proxy: &Proxy) -> Result<Self> {
        let memory = Memory::of(proxy.process);
        memory.reset_peak()?;
        let resident_before = memory.peak()? as f64 / MIB;
        let [rate, cpu] = std::array::from_fn(|_| Series::default());
        Ok(Self { direction, kind: proxy.kind, rate, cpu, resident_before, growth: 0.0 })
    }

    /// Moves bodies one after another for `time`.
    #[expect(clippy::cast_precision_loss, reason = "sizes of memory are far below 2^52")]
    fn add(&mut self, proxy: &Proxy, time: Duration) -> Result<()> {
        let mut client = Client::connect(proxy.address)?;
        let before = CpuTime::of(proxy.process)?;
        let start = Instant::now();
        let mut bodies = 0.0;
        while bodies < 2.0 || start.elapsed() < time {
            self.direction.transfer(&mut client)?;
            bodies += 1.0;
        }
        self.rate.push(bodies * LARGE as f64 / start.elapsed().as_secs_f64() / 1e9);
        self.cpu.push((CpuTime::of(proxy.process)? - before).total().as_secs_f64() * 1e3 / bodies);
        self.growth = Memory::of(proxy.process).peak()? as f64 / MIB - self.resident_before;
        Ok(())
    }
}

fn section(cells: &[Cell]) -> Section {
    let mut table =
        Table::new(&["direction", "proxy", "GB/s", "CPU ms/body", "resident before MiB", "peak growth MiB"]);
    for cell in cells {
        table.row([
            cell.direction.name().to_owned(),
            cell.kind.to_string(),
            cell.rate.spread(),
            cell.cpu.spread(),
            figure(cell.resident_before),
            figure(cell.growth),
        ]);
    }
    Section {
        title: "Large bodies".to_owned(),
        text: "Bodies of 64 MiB one after another over one connection, to and from the worker. The growth is the peak \
               of resident memory (`VmHWM`, reset before the first body) over what was resident before. The buffers of \
               nginx and HAProxy are of their default sizes; neither may use temporary files."
            .to_owned(),
        table,
    }
}

fn aims(cells: &[Cell]) -> Vec<Aim> {
    cells
        .iter()
        .filter(|cell| cell.kind == Kind::Herd)
        .map(|cell| Aim {
            what: format!("growth by a 64 MiB {}", cell.direction.name()),
            aim: format!("≤ {} MiB", figure(GROWTH_AIM_MIB)),
            measured: format!("{} MiB", figure(cell.growth)),
            met: cell.growth <= GROWTH_AIM_MIB,
        })
        .collect()
}
