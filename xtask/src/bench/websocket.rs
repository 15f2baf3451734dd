//! WebSocket echoes: one text message at a time on each of some connections.

use std::{
    io::{ErrorKind, Read, Write},
    net::TcpStream,
    os::fd::OwnedFd,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use rustix::{
    buffer::spare_capacity,
    event::{
        Timespec,
        epoll::{self, CreateFlags, EventData, EventFlags},
    },
};

use super::{
    accounting::CpuTime,
    client::Client,
    frame::{self, NONCE, TEXT},
    proxy::{Bench, Kind, Proxy, SESSION, Upstream},
    report::{Aim, Section, Table, progress},
    series::Series,
    turns,
};

const CONNECTIONS: usize = 16;
const MESSAGE: &[u8] = b"a message of sixty-four bytes, as short as a terminal sends them";
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

#[derive(Debug)]
struct Cell {
    kind: Kind,
    rate: Series,
    cpu: Series,
    p50: Series,
    p99: Series,
}

pub(crate) fn measure(
    bench: &Bench,
    kinds: &[Kind],
    upstreams: &[Upstream],
    rounds: usize,
    time: Duration,
) -> Result<(Section, Vec<Aim>)> {
    progress("WebSocket");
    let proxies = Proxy::start_all(kinds, bench, upstreams)?;
    let mut cells: Vec<Cell> = proxies.iter().map(|proxy| Cell::new(proxy.kind)).collect();
    for round in 0..rounds {
        for turn in turns(proxies.len(), round) {
            cells[turn].add(&proxies[turn], time)?;
        }
    }
    Ok((section(&cells), Vec::new()))
}

impl Cell {
    fn new(kind: Kind) -> Self {
        let [rate, cpu, p50, p99] = std::array::from_fn(|_| Series::default());
        Self { kind, rate, cpu, p50, p99 }
    }

    fn add(&mut self, proxy: &Proxy, time: Duration) -> Result<()> {
        let mut talk = Talk::open(proxy)?;
        let before = CpuTime::of(proxy.process)?;
        let start = Instant::now();
        let latencies = talk.echo_until(start + time)?;
        let messages = latencies.len() as f64;
        self.rate.push(messages / start.elapsed().as_secs_f64());
        self.cpu.push((CpuTime::of(proxy.process)? - before).total().as_secs_f64() * 1e6 / messages);
        self.p50.push(latencies.percentile(50));
        self.p99.push(latencies.percentile(99));
        Ok(())
    }
}

/// Connections that each have one message under way.
struct Talk {
    epoll: OwnedFd,
    connections: Vec<Connection>,
    frame: Vec<u8>,
}

struct Connection {
    stream: TcpStream,
    unread: Vec<u8>,
    sent: Instant,
}

impl Talk {
    fn open(proxy: &Proxy) -> Result<Self> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        let connections = (0..CONNECTIONS)
            .map(|number| {
                let stream = Client::connect(proxy.address)?.upgrade("/ws", SESSION, NONCE)?;
                stream.set_nonblocking(true)?;
                epoll::add(&epoll, &stream, EventData::new_u64(number as u64), EventFlags::IN)?;
                Ok(Connection { stream, unread: Vec::new(), sent: Instant::now() })
            })
            .collect::<Result<_>>()
            .with_context(|| format!("cannot open a WebSocket through {}", proxy.kind))?;
        let mut frame = Vec::new();
        frame::write(&mut frame, TEXT, MESSAGE, Some(MASK));
        Ok(Self { epoll, connections, frame })
    }

    /// Exchanges messages until then and returns how long each took, in microseconds.
    fn echo_until(&mut self, end: Instant) -> Result<Series> {
        let mut latencies = Series::default();
        for connection in &mut self.connections {
            connection.send(&self.frame)?;
        }
        let patience = Timespec { tv_sec: 10, tv_nsec: 0 };
        let mut events = Vec::with_capacity(CONNECTIONS);
        while Instant::now() < end {
            epoll::wait(&self.epoll, spare_capacity(&mut events), Some(&patience))?;
            ensure!(!events.is_empty(), "no echo came for ten seconds");
            for event in events.drain(..) {
                let connection = &mut self.connections[usize::try_from(event.data.u64())?];
                if connection.receive()? {
                    latencies.push(connection.sent.elapsed().as_secs_f64() * 1e6);
                    connection.send(&self.frame)?;
                }
            }
        }
        Ok(latencies)
    }
}

impl Connection {
    fn send(&mut self, frame: &[u8]) -> Result<()> {
        self.sent = Instant::now();
        // The socket's buffer is empty: the echo of what was sent before has come.
        self.stream.write_all(frame).context("cannot send a message")
    }

    /// Whether the whole echo has come.
    fn receive(&mut self) -> Result<bool> {
        let mut buffer = [0; 4096];
        match self.stream.read(&mut buffer) {
            Ok(0) => bail!("the WebSocket was closed"),
            Ok(read) => self.unread.extend_from_slice(&buffer[..read]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
            Err(error) => return Err(error.into()),
        }
        let Some(frame) = frame::read(&self.unread)? else { return Ok(false) };
        ensure!(frame.opcode == TEXT && frame.payload == MESSAGE, "the echo is not what was sent");
        self.unread.drain(..frame.length);
        Ok(true)
    }
}

fn section(cells: &[Cell]) -> Section {
    let mut table = Table::new(&["proxy", "messages/s", "p50 µs", "p99 µs", "CPU µs/message"]);
    for cell in cells {
        table.row([cell.kind.to_string(), cell.rate.spread(), cell.p50.spread(), cell.p99.spread(), cell.cpu.spread()]);
    }
    Section {
        title: "WebSocket echo".to_owned(),
        text: format!(
            "A text message of {} bytes there and back, one at a time on each of {CONNECTIONS} connections of one \
             session. A message is counted once, when its echo has come.",
            MESSAGE.len()
        ),
        table,
    }
}
