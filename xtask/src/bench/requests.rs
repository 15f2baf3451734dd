//! Small requests: how many a second, how soon answered, and what each costs the proxy.

use std::net::SocketAddr;

use anyhow::{Context, Result, bail};

use super::{
    accounting::CpuTime,
    child::Program,
    proxy::{Bench, Kind, Proxy, SESSION, Upstream, which},
    report::{Aim, Section, Table, progress},
    series::{Series, figure},
    turns,
};

/// How many connections load the proxy at once.
const CONNECTIONS: [usize; 4] = [1, 16, 64, 256];

/// What was measured of one proxy with one number of connections.
#[derive(Debug)]
struct Cell {
    connections: usize,
    /// `None`: the worker alone.
    proxy: Option<Kind>,
    rate: Series,
    p50: Series,
    p99: Series,
    /// Microseconds of processor time per request.
    cpu: Series,
    /// The part of `cpu` that was spent in the kernel.
    system: Series,
    failures: u64,
}

/// What wrk says of one run. Times are in microseconds.
#[derive(Debug, PartialEq)]
pub(crate) struct Load {
    pub(crate) requests: f64,
    pub(crate) rate: f64,
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    pub(crate) failures: u64,
}

pub(crate) fn measure(
    bench: &Bench,
    kinds: &[Kind],
    upstreams: &[Upstream],
    rounds: usize,
    seconds: u32,
) -> Result<(Section, Vec<Aim>)> {
    let proxies = Proxy::start_all(kinds, bench, upstreams)?;
    let worker = upstreams.first().context("there is no worker")?.address;
    let mut cells = Vec::new();
    for connections in CONNECTIONS {
        progress(&format!("requests: {connections} connections"));
        let mut group: Vec<Cell> = proxies.iter().map(|proxy| Cell::new(connections, Some(proxy.kind))).collect();
        for proxy in &proxies {
            load(bench, proxy.address, connections, 1)?;
        }
        for round in 0..rounds {
            for turn in turns(proxies.len(), round) {
                let proxy = &proxies[turn];
                let before = CpuTime::of(proxy.process)?;
                let load = load(bench, proxy.address, connections, seconds)?;
                group[turn].add(&load, Some(CpuTime::of(proxy.process)? - before));
            }
        }
        let mut alone = Cell::new(connections, None);
        alone.add(&load(bench, worker, connections, seconds)?, None);
        group.push(alone);
        cells.append(&mut group);
    }
    Ok((section(&cells, seconds), aims(&cells)))
}

impl Cell {
    fn new(connections: usize, proxy: Option<Kind>) -> Self {
        let [rate, p50, p99, cpu, system] = std::array::from_fn(|_| Series::default());
        Self { connections, proxy, rate, p50, p99, cpu, system, failures: 0 }
    }

    fn add(&mut self, load: &Load, cpu: Option<CpuTime>) {
        self.rate.push(load.rate);
        self.p50.push(load.p50);
        self.p99.push(load.p99);
        if let Some(cpu) = cpu {
            self.cpu.push(cpu.total().as_secs_f64() * 1e6 / load.requests);
            self.system.push(cpu.system.as_secs_f64() * 1e6 / load.requests);
        }
        self.failures += load.failures;
    }
}

fn section(cells: &[Cell], seconds: u32) -> Section {
    let mut table = Table::new(&[
        "connections",
        "proxy",
        "requests/s",
        "p50 µs",
        "p99 µs",
        "CPU µs/request",
        "of it kernel",
        "failed",
    ]);
    for cell in cells {
        table.row([
            cell.connections.to_string(),
            cell.proxy.map_or("(worker alone)".to_owned(), |kind| kind.to_string()),
            cell.rate.spread(),
            cell.p50.spread(),
            cell.p99.spread(),
            cell.cpu.spread(),
            figure(cell.system.median()),
            cell.failures.to_string(),
        ]);
    }
    Section {
        title: "Small requests".to_owned(),
        text: format!(
            "`wrk -t1 -cN -d{seconds}s --latency` sends `GET /` in one session; the worker answers with 100 bytes. \
             CPU is the user and system time of the proxy's process with all its threads, from `/proc/PID/stat`, \
             per request. \"Worker alone\" is wrk on the worker without any proxy: the ceiling of the load, once."
        ),
        table,
    }
}

fn aims(cells: &[Cell]) -> Vec<Aim> {
    let find =
        |connections, kind| cells.iter().find(move |cell| cell.connections == connections && cell.proxy == Some(kind));
    let mut aims = Vec::new();
    for connections in CONNECTIONS {
        let Some(herd) = find(connections, Kind::Herd) else { continue };
        for rival in [Kind::Nginx, Kind::Haproxy] {
            let Some(other) = find(connections, rival) else { continue };
            let rate = herd.rate.median() / other.rate.median();
            aims.push(Aim {
                what: format!("requests/s, {connections} connections"),
                aim: format!("at or above {rival}"),
                measured: format!("{} : {} = {rate:.2}", figure(herd.rate.median()), figure(other.rate.median())),
                met: rate >= 1.0,
            });
            let cpu = herd.cpu.median() / other.cpu.median();
            aims.push(Aim {
                what: format!("CPU µs/request, {connections} connections"),
                aim: format!("no higher than {rival}"),
                measured: format!("{} : {} = {cpu:.2}", figure(herd.cpu.median()), figure(other.cpu.median())),
                met: cpu <= 1.0,
            });
        }
    }
    aims
}

/// Loads what listens on `address` for some seconds.
pub(crate) fn load(bench: &Bench, address: SocketAddr, connections: usize, seconds: u32) -> Result<Load> {
    load_with(bench, address, connections, seconds, &[])
}

/// The same with more header fields, `name: value`.
pub(crate) fn load_with(
    bench: &Bench,
    address: SocketAddr,
    connections: usize,
    seconds: u32,
    fields: &[&str],
) -> Result<Load> {
    let mut args: Vec<_> = wrk_arguments(address, connections, seconds).into();
    args.extend(fields.iter().flat_map(|&field| ["-H".to_owned(), field.to_owned()]));
    let program = Program {
        name: "wrk",
        path: &which("wrk")?,
        args: args.into_iter().map(Into::into).collect(),
        cores: &bench.layout.load,
    };
    let text = program.output(&bench.directory)?;
    Load::parse(&text).with_context(|| format!("cannot read what wrk printed:\n{text}"))
}

pub(crate) fn wrk_arguments(address: SocketAddr, connections: usize, seconds: u32) -> [String; 7] {
    [
        "-t1".to_owned(),
        format!("-c{connections}"),
        format!("-d{seconds}s"),
        "--latency".to_owned(),
        "-H".to_owned(),
        format!("X-Session-ID: {SESSION}"),
        format!("http://{address}/"),
    ]
}

impl Load {
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let mut load = Self { requests: 0.0, rate: 0.0, p50: f64::NAN, p99: f64::NAN, failures: 0 };
        for line in text.lines().map(str::trim) {
            let words: Vec<&str> = line.split_whitespace().collect();
            match words.as_slice() {
                ["50%", time] => load.p50 = microseconds(time)?,
                ["99%", time] => load.p99 = microseconds(time)?,
                [requests, "requests", "in", ..] => load.requests = requests.parse()?,
                ["Requests/sec:", rate] => load.rate = rate.parse()?,
                ["Non-2xx", "or", "3xx", "responses:", count] => load.failures += count.parse::<u64>()?,
                ["Socket", "errors:", counts @ ..] => {
                    for word in counts {
                        load.failures += word.trim_end_matches(',').parse().unwrap_or(0);
                    }
                }
                _ => {}
            }
        }
        if load.requests < 1.0 {
            bail!("no request was answered");
        }
        Ok(load)
    }
}

fn microseconds(text: &str) -> Result<f64> {
    let split = text.find(|letter: char| letter.is_alphabetic()).context("a time without a unit")?;
    let (number, unit) = text.split_at(split);
    let factor = match unit {
        "us" => 1.0,
        "ms" => 1e3,
        "s" => 1e6,
        "m" => 60e6,
        other => bail!("`{other}` is no unit of time"),
    };
    Ok(number.parse::<f64>()? * factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_output_of_wrk_is_read_with_its_failures() {
        let text = "Running 3s test @ http://127.0.0.1:1/
  1 threads and 64 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency     1.33ms    5.20ms 101.02ms   98.51%
    Req/Sec    88.53k     6.45k   94.20k    87.10%
  Latency Distribution
     50%  656.00us
     75%  729.00us
     90%    1.12ms
     99%    1.20s
  272842 requests in 3.10s, 44.49MB read
  Socket errors: connect 0, read 3, write 0, timeout 2
  Non-2xx or 3xx responses: 7
Requests/sec:  88012.20
Transfer/sec:     14.35MB
";
        let expected = Load { requests: 272_842.0, rate: 88_012.2, p50: 656.0, p99: 1_200_000.0, failures: 12 };
        assert_eq!(Load::parse(text).unwrap(), expected);
    }
}
