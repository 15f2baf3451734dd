//! Which system calls a small request costs the proxy. They are most of its time.

use std::{collections::BTreeMap, fs};

use anyhow::{Result, ensure};

use super::{
    child::Program,
    proxy::{Bench, Kind, Proxy, Upstream, which},
    report::{Section, Table, progress},
    requests::{Load, wrk_arguments},
    series::figure,
};

const CONNECTIONS: [usize; 2] = [1, 64];
const ALL: &str = "raw_syscalls:sys_enter";
/// What a proxy has reason to call for each request. Every tracepoint takes perf a while to open.
const NAMED: [&str; 20] = [
    "epoll_wait",
    "epoll_pwait",
    "epoll_ctl",
    "read",
    "readv",
    "recvfrom",
    "recvmsg",
    "write",
    "writev",
    "sendto",
    "sendmsg",
    "futex",
    "accept4",
    "close",
    "splice",
    "timerfd_settime",
    "getrusage",
    "clock_gettime",
    "setsockopt",
    "getsockopt",
];

pub(crate) fn measure(bench: &Bench, kinds: &[Kind], upstreams: &[Upstream], seconds: u32) -> Result<Section> {
    let proxies = Proxy::start_all(kinds, bench, upstreams)?;
    let mut table = Table::new(&["connections", "proxy", "calls/request", "of them"]);
    for connections in CONNECTIONS {
        progress(&format!("system calls: {connections} connections"));
        for proxy in &proxies {
            let counts = count(bench, proxy, connections, seconds)?;
            let mut named: Vec<_> = counts.iter().filter(|&(name, &each)| name != ALL && each >= 0.005).collect();
            named.sort_by(|a, b| b.1.total_cmp(a.1));
            let named: Vec<String> = named.into_iter().map(|(name, each)| format!("{name} {each:.2}")).collect();
            let all = counts.get(ALL).copied().unwrap_or(f64::NAN);
            table.row([connections.to_string(), proxy.kind.to_string(), figure(all), named.join(", ")]);
        }
    }
    Ok(Section {
        title: "System calls".to_owned(),
        text: "Calls of the proxy's process for each request of wrk, counted by `perf stat`, once.".to_owned(),
        table,
    })
}

/// Calls for each request by name, and of all names together.
fn count(bench: &Bench, proxy: &Proxy, connections: usize, seconds: u32) -> Result<BTreeMap<String, f64>> {
    let file = bench.directory.join("perf.txt");
    let events: Vec<String> =
        NAMED.iter().map(|name| format!("syscalls:sys_enter_{name}")).chain([ALL.into()]).collect();
    let mut args: Vec<String> = ["stat", "-x,", "-o"].map(str::to_owned).into();
    args.extend([file.display().to_string(), "-e".to_owned(), events.join(",")]);
    args.extend(["-p".to_owned(), proxy.process.to_string(), "--".to_owned(), which("wrk")?.display().to_string()]);
    args.extend(wrk_arguments(proxy.address, connections, seconds));
    let program = Program {
        name: "perf",
        path: &which("perf")?,
        args: args.into_iter().map(Into::into).collect(),
        cores: &bench.layout.load,
    };
    let requests = Load::parse(&program.output(&bench.directory)?)?.requests;
    let text = fs::read_to_string(&file)?;
    let counts: BTreeMap<String, f64> = text
        .lines()
        .filter_map(|line| {
            // count, unit, event, …; events that never happened have `<not counted>`.
            let mut fields = line.split(',');
            let count: f64 = fields.next()?.parse().ok()?;
            let event = fields.nth(1)?;
            Some((event.trim_start_matches("syscalls:sys_enter_").to_owned(), count / requests))
        })
        .collect();
    ensure!(counts.contains_key(ALL), "perf has counted nothing: {text}");
    Ok(counts)
}
