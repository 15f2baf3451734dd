//! `cargo xtask bench`: herd beside nginx and HAProxy, in one run and in turns.

mod access;
mod accounting;
mod bodies;
mod child;
mod client;
mod control;
mod cores;
mod crowd;
mod followers;
mod frame;
mod h2load;
mod hit_path;
mod idle;
mod live;
mod machine;
mod proxy;
mod report;
mod requests;
mod sandbox;
mod series;
mod served;
mod sessions;
mod syscalls;
mod tls;
mod websocket;
mod worker;

use std::{
    fs,
    io::{self, Write},
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::{Path, PathBuf},
    process::Command,
    sync::mpsc,
    thread,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};

use self::{
    cores::{Layout, Placement},
    machine::Quiet,
    proxy::{Bench, Kind, Upstream},
    report::{Aim, Section, progress},
};
use crate::packages::{self, Need};

/// What is asked of the benchmark, and of the processes that it starts from its own program.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Task {
    /// Measure herd beside nginx and HAProxy, and write bench/results.md
    Bench(Options),
    #[command(hide = true)]
    BenchWorker(worker::Options),
    #[command(hide = true)]
    BenchExec(child::ExecOptions),
}

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Measure for a shorter time; the figures are less steady and are printed only
    #[arg(long)]
    quick: bool,
    /// Measure this part only, may be given again; the figures are printed only
    #[arg(long, value_enum, value_name = "PART")]
    only: Vec<Part>,
    /// How many times each proxy has its turn
    #[arg(long)]
    rounds: Option<usize>,
    /// Compare these proxies
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Kind::Herd, Kind::Nginx, Kind::Haproxy])]
    proxies: Vec<Kind>,
    /// Measure this build of herd, and build none
    #[arg(long, value_name = "FILE")]
    herd: Option<PathBuf>,
    /// Which cores run what
    #[arg(long, value_enum, default_value_t = Placement::Apart)]
    placement: Placement,
    /// Write the report to this file too
    #[arg(long, value_name = "FILE")]
    write: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, clap::ValueEnum)]
enum Part {
    /// Requests a second, latency, CPU for each request
    Requests,
    /// Bodies of 64 MiB
    Bodies,
    /// WebSocket echoes
    Websocket,
    /// The first request of a new session
    Sessions,
    /// `acquire` without processes and HTTP
    HitPath,
    /// Memory of the idle daemon
    Idle,
    /// The start of sandboxed workers beside bubblewrap's, and dials into their networks
    Sandbox,
    /// Requests into private networks
    Networks,
    /// A daemon with many sandboxed workers
    Crowd,
    /// What tokens, and tenants with limits, cost a request
    Access,
    /// TLS and HTTP/2 beside nginx's
    Tls,
    /// gRPC and reloads
    Control,
    /// The admin API with ten thousand sessions, and many who follow the events
    Live,
    /// System calls for each request, by perf; only when it is asked for, because it needs root
    Syscalls,
}

/// How long to measure what.
#[derive(Clone, Copy, Debug)]
struct Effort {
    rounds: usize,
    requests_seconds: u32,
    tls_seconds: u32,
    other: Duration,
    new_sessions: usize,
    live_sessions: usize,
    /// The whole run ends after this, whatever happens.
    limit: Duration,
}

/// What herd is compared with, and what makes the load.
const PROGRAMS: [Need; 3] =
    [Need::program("nginx", "nginx"), Need::program("haproxy", "haproxy"), Need::program("wrk", "wrk")];

/// What the report in the repository consists of.
const REPORT: [Part; 13] = [
    Part::Requests,
    Part::Bodies,
    Part::Websocket,
    Part::Sessions,
    Part::HitPath,
    Part::Idle,
    Part::Sandbox,
    Part::Networks,
    Part::Crowd,
    Part::Access,
    Part::Tls,
    Part::Control,
    Part::Live,
];

pub(crate) fn run(task: &Task) -> Result<()> {
    match task {
        Task::Bench(_) if cfg!(debug_assertions) => run_optimized(),
        Task::Bench(options) => measure(options),
        Task::BenchWorker(options) => worker::run(options),
        Task::BenchExec(options) => child::exec(options),
    }
}

/// The load generator and the worker must not be what limits a proxy: this program becomes its own release build.
fn run_optimized() -> Result<()> {
    progress("builds the benchmark");
    build(&["--package", "xtask"])?;
    let program = target_directory()?.join("xtask");
    let error = Command::new(&program).args(std::env::args_os().skip(1)).exec();
    Err(error).with_context(|| format!("cannot start {}", program.display()))
}

fn measure(options: &Options) -> Result<()> {
    let parts = if options.only.is_empty() { REPORT.to_vec() } else { options.only.clone() };
    let effort = Effort::of(options);
    ensure!(effort.rounds > 0, "at least one round is needed");
    packages::provide(&PROGRAMS)?;
    if parts.contains(&Part::Syscalls) {
        packages::provide(&[Need::program("perf", "linux-perf")])?;
    }
    // Whoever compares the others alone needs no herd that builds.
    let with_herd = options.proxies.contains(&Kind::Herd) || parts.iter().any(|part| part.is_of_herd_alone());
    if with_herd && options.herd.is_none() {
        progress("builds herd");
        build(&["--package", "herd", "--bin", "herd"])?;
    }
    if parts.contains(&Part::Sandbox) {
        packages::provide(&[Need::program("bwrap", "bubblewrap"), Need::program("setpriv", "util-linux")])?;
        build(&["--package", "herd-sandbox", "--example", "spawn"])?;
    }
    if parts.contains(&Part::Tls) {
        packages::provide(&[Need::program("h2load", "nghttp2-client"), Need::program("openssl", "openssl")])?;
    }
    if parts.contains(&Part::HitPath) {
        build(&["--package", "herd-pool", "--example", "hit_path"])?;
    }
    let _alarm = end_after(effort.limit);
    let scratch = Scratch::new()?;
    let target = target_directory()?;
    let herd = options.herd.clone().unwrap_or_else(|| target.join("herd"));
    let bench = Bench {
        herd: if with_herd { scratch.copy(&herd)? } else { PathBuf::new() },
        worker: scratch.copy(&std::env::current_exe()?)?,
        directory: scratch.0.clone(),
        layout: Layout::of_this_machine(options.placement)?,
    };
    bench.layout.load.pin_this_thread()?;
    let quiet = Quiet::start()?;
    let mut sections = Vec::new();
    let mut aims = Vec::new();
    for part in &parts {
        let (section, mut more) =
            part.measure(&bench, &options.proxies, effort).with_context(|| format!("{part:?} failed"))?;
        sections.push(section);
        aims.append(&mut more);
    }
    let preamble = format!(
        "# Benchmark\n\n`cargo xtask bench` writes this page. Every figure is the median of {} turns (min–max), unless \
         it says otherwise; the proxies take turns in one run, in another order each round.\n\n{}\
         - other programs used {:.1} % of the machine meanwhile; the figures are steady only if that is next to \
         nothing\n\n{DUTIES}",
        effort.rounds,
        machine::facts(&bench.layout, &repository()),
        quiet.disturbance(bench.layout.all.count())?,
    );
    let text = report::write(&preamble, &sections, &aims);
    io::stdout().write_all(text.as_bytes())?;
    let complete = !options.quick && options.only.is_empty() && options.proxies.len() == 3 && options.herd.is_none();
    let results = complete.then(|| repository().join("bench/results.md"));
    for file in results.iter().chain(&options.write) {
        fs::create_dir_all(file.parent().context("it is in no directory")?)?;
        fs::write(file, &text).with_context(|| format!("cannot write {}", file.display()))?;
        progress(&format!("wrote {}", file.display()));
    }
    Ok(())
}

const DUTIES: &str = "\
All proxies do the same: HTTP/1.1 on loopback, one thread (nginx `worker_processes 1`, HAProxy `nbthread 1`, herd \
`--threads 1`), connections to the worker kept alive, the worker chosen by the header `X-Session-ID` (nginx `hash … \
consistent`, HAProxy `balance hdr` with `hash-type consistent`; two workers each), `x-forwarded-for`, `-host` and \
`-proto` set, no access log. herd also adds `herd-worker` and `herd-session` to each response, and started the worker \
itself.
";

impl Part {
    fn is_of_herd_alone(self) -> bool {
        matches!(
            self,
            Self::Sessions | Self::Idle | Self::Networks | Self::Crowd | Self::Access | Self::Control | Self::Live
        )
    }

    fn measure(self, bench: &Bench, kinds: &[Kind], effort: Effort) -> Result<(Section, Vec<Aim>)> {
        let upstreams = [Upstream::start(bench, "worker-a")?, Upstream::start(bench, "worker-b")?];
        match self {
            Self::Requests => requests::measure(bench, kinds, &upstreams, effort.rounds, effort.requests_seconds),
            Self::Bodies => bodies::measure(bench, kinds, &upstreams, effort.rounds, effort.other),
            Self::Websocket => websocket::measure(bench, kinds, &upstreams, effort.rounds, effort.other),
            Self::Sessions => sessions::measure(bench, effort.new_sessions),
            Self::HitPath => hit_path::measure(bench, &repository()),
            Self::Idle => idle::measure(bench),
            Self::Sandbox => {
                let example = target_directory()?.join("examples/spawn");
                sandbox::measure(bench, copy(&example, &bench.directory)?, effort.new_sessions)
            }
            Self::Networks => crowd::measure_networks(bench, effort.rounds, effort.requests_seconds),
            Self::Crowd => crowd::measure(bench),
            // What is looked for is small: short turns, and many.
            Self::Access => access::measure(bench, 2 * effort.rounds),
            Self::Tls => tls::measure(bench, kinds, &upstreams, effort.rounds, effort.tls_seconds),
            Self::Control => control::measure(bench, effort.new_sessions),
            Self::Live => live::measure(bench, effort.live_sessions, effort.rounds, effort.requests_seconds),
            Self::Syscalls => {
                let section = syscalls::measure(bench, kinds, &upstreams, effort.requests_seconds)?;
                Ok((section, Vec::new()))
            }
        }
    }
}

impl Effort {
    fn of(options: &Options) -> Self {
        let mut effort = if options.quick {
            Self {
                rounds: 2,
                requests_seconds: 1,
                tls_seconds: 1,
                other: Duration::from_millis(300),
                new_sessions: 20,
                live_sessions: 1000,
                limit: Duration::from_mins(10),
            }
        } else {
            Self {
                rounds: 5,
                requests_seconds: 3,
                tls_seconds: 1,
                other: Duration::from_secs(1),
                new_sessions: 200,
                live_sessions: 10_000,
                limit: Duration::from_mins(30),
            }
        };
        if let Some(rounds) = options.rounds {
            effort.rounds = rounds;
        }
        effort
    }
}

/// In which order the proxies have their turns in a round: each is the first one equally often.
fn turns(count: usize, round: usize) -> impl Iterator<Item = usize> {
    (0..count).map(move |turn| (turn + round) % count)
}

/// A directory of the run's own, removed at its end.
#[derive(Debug)]
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Result<Self> {
        let path = std::env::temp_dir().join(format!("herd-bench-{}", std::process::id()));
        fs::create_dir(&path).with_context(|| format!("cannot make {}", path.display()))?;
        // A worker may run as another user, and must be able to start.
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
        Ok(Self(path))
    }

    fn copy(&self, program: &Path) -> Result<PathBuf> {
        copy(program, &self.0)
    }
}

fn copy(program: &Path, directory: &Path) -> Result<PathBuf> {
    let name = program.file_name().context("a program without a name")?;
    let copy = directory.join(name);
    fs::copy(program, &copy).with_context(|| format!("cannot copy {}", program.display()))?;
    Ok(copy)
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Ends this process after some time, unless what is returned is dropped before. The programs that it has started end
/// with it.
fn end_after(limit: Duration) -> mpsc::Sender<()> {
    let (alive, alarm) = mpsc::channel();
    thread::spawn(move || {
        if alarm.recv_timeout(limit) == Err(mpsc::RecvTimeoutError::Timeout) {
            progress(&format!("gives up after {limit:?}"));
            std::process::exit(1);
        }
    });
    alive
}

fn build(what: &[&str]) -> Result<()> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo)
        .args(["build", "--quiet", "--release"])
        .args(what)
        .current_dir(repository())
        .stdout(io::stderr())
        .status()
        .context("cannot start cargo")?;
    if !status.success() {
        bail!("cargo build --release {} has failed", what.join(" "));
    }
    Ok(())
}

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask is in the repository").to_owned()
}

/// Where release builds are put. This program is itself in the target directory, next to them or in a profile beside.
fn target_directory() -> Result<PathBuf> {
    let program = std::env::current_exe()?;
    let target = program.ancestors().nth(2).context("this program is in no target directory")?;
    Ok(target.join("release"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_proxy_has_one_turn_a_round_and_is_the_first_equally_often() {
        let rounds: Vec<Vec<usize>> = (0..3).map(|round| turns(3, round).collect()).collect();
        assert_eq!(rounds, [[0, 1, 2], [1, 2, 0], [2, 0, 1]]);
    }
}
