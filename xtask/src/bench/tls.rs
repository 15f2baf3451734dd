//! TLS and HTTP/2 beside nginx's, with the same certificate.

use std::{
    net::{SocketAddr, TcpStream},
    path::PathBuf,
};

use anyhow::Result;

use super::{
    accounting::running_time,
    child::{Program, Running},
    h2load::{Amount, Done, Protocol, load},
    proxy::{Bench, Kind, Upstream, free_address, nginx_worker, start_nginx, which},
    report::{Aim, Section, Table, progress},
    series::{Series, figure},
    served::{Served, Settings},
    turns,
};

/// Connections, and requests at once on each.
const LOADS: [(Protocol, [usize; 2]); 8] = [
    (Protocol::Https1, [1, 1]),
    (Protocol::Https1, [16, 1]),
    (Protocol::Https1, [64, 1]),
    (Protocol::H2, [1, 1]),
    (Protocol::H2, [16, 1]),
    (Protocol::H2, [64, 1]),
    (Protocol::H2, [4, 16]),
    (Protocol::H2c, [64, 1]),
];
/// So many connections at once have their handshakes.
const HANDSHAKES: usize = 500;

#[derive(Debug)]
struct Server {
    kind: Kind,
    tls: SocketAddr,
    plain: SocketAddr,
    /// The processes whose time counts: one for TLS, and the one without, which may be the same.
    processes: [u32; 2],
    // What is dropped ends.
    _herds: Vec<Served>,
    _nginx: Option<Running>,
}

/// What was measured of one server under one load.
#[derive(Debug)]
struct Cell {
    what: String,
    kind: Kind,
    rate: Series,
    mean: Series,
    /// Microseconds of processor time per request.
    cpu: Series,
    failures: u64,
}

/// The certificate that both show: ECDSA with P-256.
#[derive(Debug)]
struct Certificate {
    certificate: PathBuf,
    key: PathBuf,
}

pub(crate) fn measure(
    bench: &Bench,
    kinds: &[Kind],
    upstreams: &[Upstream],
    rounds: usize,
    seconds: u32,
) -> Result<(Section, Vec<Aim>)> {
    let certificate = Certificate::make(bench)?;
    let servers: Vec<Server> = kinds
        .iter()
        .filter_map(|kind| match kind {
            Kind::Herd => Some(Server::herd(bench, &certificate)),
            Kind::Nginx => Some(Server::nginx(bench, &certificate, upstreams)),
            Kind::Haproxy => None,
        })
        .collect::<Result<_>>()?;
    let mut cells = Vec::new();
    for (protocol, [connections, streams]) in LOADS {
        let what = match streams {
            1 => format!("{}, connections: {connections}", protocol.name()),
            _ => format!("{}, connections: {connections}, {streams} requests at once on each", protocol.name()),
        };
        let amount = Amount::Seconds(seconds);
        cells.append(&mut compare(bench, &servers, &what, protocol, [connections, streams], amount, rounds)?);
    }
    let handshakes = format!("handshake and first request, {HANDSHAKES} connections");
    let amount = Amount::OneEach;
    cells.append(&mut compare(bench, &servers, &handshakes, Protocol::Https1, [HANDSHAKES, 1], amount, rounds)?);
    Ok((section(&cells, seconds), aims(&cells)))
}

/// Has all servers take turns under one load.
fn compare(
    bench: &Bench,
    servers: &[Server],
    what: &str,
    protocol: Protocol,
    at_once: [usize; 2],
    amount: Amount,
    rounds: usize,
) -> Result<Vec<Cell>> {
    progress(&format!("TLS and HTTP/2: {what}"));
    let mut cells: Vec<Cell> = servers.iter().map(|server| Cell::new(what.to_owned(), server.kind)).collect();
    for server in servers {
        load(bench, server.at(protocol).0, protocol, at_once, Amount::OneEach)?;
    }
    for round in 0..rounds {
        for turn in turns(servers.len(), round) {
            let (address, process) = servers[turn].at(protocol);
            let before = running_time(process)?;
            let done = load(bench, address, protocol, at_once, amount)?;
            let cpu = (running_time(process)? - before).as_secs_f64() * 1e6 / done.requests;
            cells[turn].add(&done, cpu);
        }
    }
    Ok(cells)
}

impl Certificate {
    fn make(bench: &Bench) -> Result<Self> {
        let [certificate, key] = ["certificate.pem", "key.pem"].map(|name| bench.directory.join(name));
        let args =
            ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-noenc", "-days", "2"]
                .into_iter()
                .chain(["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"])
                .map(Into::into)
                .chain(["-keyout".into(), key.clone().into(), "-out".into(), certificate.clone().into()]);
        Program { name: "openssl", path: &which("openssl")?, args: args.collect(), cores: &bench.layout.load }
            .output(&bench.directory)?;
        Ok(Self { certificate, key })
    }
}

impl Server {
    fn herd(bench: &Bench, Certificate { certificate, key }: &Certificate) -> Result<Self> {
        let network = format!("tls: {{cert_file: '{}', key_file: '{}'}}", certificate.display(), key.display());
        let settings = Settings { resources: "max_workers: 4", ..Settings::default() };
        let tls = Served::start(bench, "herd-tls", Settings { network: &network, ..settings })?;
        let plain = Served::start(bench, "herd-h2c", settings)?;
        Ok(Self {
            kind: Kind::Herd,
            tls: tls.address,
            plain: plain.address,
            processes: [tls.pid(), plain.pid()],
            _herds: vec![tls, plain],
            _nginx: None,
        })
    }

    fn nginx(bench: &Bench, certificate: &Certificate, upstreams: &[Upstream]) -> Result<Self> {
        let (tls, plain) = (free_address()?, free_address()?);
        let listen = format!(
            "listen {tls} ssl http2 backlog=4096;
        listen {plain} http2 backlog=4096;
        ssl_certificate {};
        ssl_certificate_key {};
        ssl_protocols TLSv1.2 TLSv1.3;",
            certificate.certificate.display(),
            certificate.key.display()
        );
        let mut running = start_nginx(bench, &listen, upstreams)?;
        running.wait_for("its first connection", || Ok(Some(TcpStream::connect(tls)?)))?;
        let process = nginx_worker(&running)?;
        Ok(Self { kind: Kind::Nginx, tls, plain, processes: [process; 2], _herds: Vec::new(), _nginx: Some(running) })
    }

    /// Where it speaks the protocol, and which of its processes does.
    fn at(&self, protocol: Protocol) -> (SocketAddr, u32) {
        let [tls, plain] = self.processes;
        match protocol {
            Protocol::Https1 | Protocol::H2 => (self.tls, tls),
            Protocol::H2c => (self.plain, plain),
        }
    }
}

impl Cell {
    fn new(what: String, kind: Kind) -> Self {
        let [rate, mean, cpu] = std::array::from_fn(|_| Series::default());
        Self { what, kind, rate, mean, cpu, failures: 0 }
    }

    fn add(&mut self, done: &Done, cpu: f64) {
        self.rate.push(done.rate);
        self.mean.push(done.mean);
        self.cpu.push(cpu);
        self.failures += done.failures;
    }
}

fn section(cells: &[Cell], seconds: u32) -> Section {
    let mut table = Table::new(&["load", "server", "requests/s", "mean µs", "CPU µs/request", "failed"]);
    for Cell { what, kind, rate, mean, cpu, failures } in cells {
        let spreads = [rate, mean, cpu].map(Series::spread);
        table.row([what.clone(), kind.to_string()].into_iter().chain(spreads).chain([failures.to_string()]));
    }
    Section {
        title: "TLS and HTTP/2".to_owned(),
        text: format!(
            "`h2load -D{seconds}` sends `GET /` in one session over connections that are kept; all speak TLS 1.3 with \
             X25519, AES-128-GCM, and the same self-signed ECDSA certificate on P-256. The last rows are \
             {HANDSHAKES} connections that are opened at once, each with a full handshake and one request; no session \
             is resumed, and the client's half of the work, which is larger, limits the rate. CPU is what the server's \
             threads have run (`/proc/PID/task/*/schedstat`), the handshakes of kept connections included. Times are \
             h2load's means: it knows no median."
        ),
        table,
    }
}

fn aims(cells: &[Cell]) -> Vec<Aim> {
    let mut aims = Vec::new();
    for herd in cells.iter().filter(|cell| cell.kind == Kind::Herd) {
        let Some(nginx) = cells.iter().find(|cell| cell.kind == Kind::Nginx && cell.what == herd.what) else {
            continue;
        };
        let ratio = |of: &Series, to: &Series| {
            let ratio = of.median() / to.median();
            (format!("{} : {} = {ratio:.2}", figure(of.median()), figure(to.median())), ratio)
        };
        let (measured, rate) = ratio(&herd.rate, &nginx.rate);
        let (aim, what) = ("at or above nginx".to_owned(), format!("requests/s, {}", herd.what));
        aims.push(Aim { what, aim, measured, met: rate >= 1.0 });
        let (measured, cpu) = ratio(&herd.cpu, &nginx.cpu);
        let (aim, what) = ("no higher than nginx".to_owned(), format!("CPU µs/request, {}", herd.what));
        aims.push(Aim { what, aim, measured, met: cpu <= 1.0 });
    }
    aims
}
