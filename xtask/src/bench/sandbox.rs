//! What the sandbox costs: the start of a worker in it beside bubblewrap, many at once, and a dial into its network.

use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};
use rustix::process::geteuid;
use serde_json::Value;

use super::{
    child::Program,
    proxy::{Bench, which},
    report::{Aim, Section, Table, progress},
    series::{Series, figure},
};

const START_AIM_MS: f64 = 5.0;
/// What two measurements of the same differ by.
const NO_WAIT_MS: f64 = 0.1;
const DIAL_AIM_US: f64 = 100.0;
const RATE_AIM: f64 = 100.0;
const INIT_AIM_MIB: f64 = 1.0;
/// How many workers live at once.
pub(crate) const CROWD: usize = 500;
/// The user for the turns without root, where the benchmark has root: any that is nobody's.
const USER: &str = "--reuid=2090000000";
const GROUP: &str = "--regid=2090000000";
const MIB: f64 = 1_048_576.0;

/// A line that the example prints.
#[derive(Debug, PartialEq)]
enum Line {
    Start { how: String, ready_ms: f64, ended_ms: f64 },
    Dial { us: f64, asked_us: f64 },
    Rate(f64),
    Churn(f64),
    InitPrivate { mib: f64 },
    EndOfAll { ms: f64 },
}

/// Milliseconds of one way to start a worker.
#[derive(Debug, Default)]
struct Times {
    ready: Series,
    ended: Series,
}

/// What was measured as one user.
#[derive(Debug)]
struct Starts {
    user: &'static str,
    off: Times,
    required: Times,
    bubblewrap: Times,
}

/// Microseconds until there is a connection.
#[derive(Debug)]
struct Dials {
    /// With a socket that is at hand.
    stocked: Series,
    /// From the request for a socket.
    asked: Series,
}

/// Many at once.
#[derive(Debug)]
struct Crowd {
    rate: f64,
    churn: f64,
    init_mib: f64,
    end_ms: f64,
}

/// The example of `herd-sandbox` that does the work.
#[derive(Debug)]
struct Example<'a> {
    bench: &'a Bench,
    program: PathBuf,
}

pub(crate) fn measure(bench: &Bench, program: PathBuf, rounds: usize) -> Result<(Section, Vec<Aim>)> {
    let example = Example { bench, program };
    let is_root = geteuid().is_root();
    let mut starts = Vec::new();
    for user in if is_root { ["root", "another user"].as_slice() } else { ["this user"].as_slice() } {
        progress(&format!("sandbox: starts as {user}"));
        starts.push(Starts::read(user, &example.run(*user == "another user", &["turns", &rounds.to_string()])?)?);
    }
    progress("sandbox: dials");
    let dials = example.run(false, &["dial", &(rounds * 10).to_string()])?;
    let dials = Dials::read(&dials)?;
    progress(&format!("sandbox: {CROWD} at once"));
    let crowd = Crowd::read(&example.run(false, &["alive", &CROWD.to_string()])?)?;
    Ok((section(&starts, &dials, &crowd), aims(&starts, &dials, &crowd)))
}

impl Example<'_> {
    fn run(&self, as_other: bool, args: &[&str]) -> Result<Vec<Line>> {
        let mut words: Vec<_> = args.iter().map(Into::into).collect();
        let mut path = self.program.clone();
        if as_other {
            let switch = [USER, GROUP, "--clear-groups", "--"].map(Into::into);
            words.splice(..0, switch.into_iter().chain([path.into_os_string()]));
            path = which("setpriv")?;
        }
        let program = Program { name: "spawn", path: &path, args: words, cores: &self.bench.layout.all };
        let text = program.output(&self.bench.directory)?;
        let parse = |line| Line::parse(line).with_context(|| format!("cannot read `{line}` of the example"));
        text.lines().map(parse).collect()
    }
}

impl Line {
    fn parse(line: &str) -> Result<Self> {
        let value: Value = serde_json::from_str(line)?;
        let number = |name: &str| value.get(name).and_then(Value::as_f64);
        if let Some(how) = value.get("how").and_then(Value::as_str) {
            let milliseconds = |name| number(name).map(|us| us / 1e3).with_context(|| format!("there is no {name}"));
            let (ready_ms, ended_ms) = (milliseconds("ready_us")?, milliseconds("ended_us")?);
            return Ok(Self::Start { how: how.to_owned(), ready_ms, ended_ms });
        }
        let found = number("dial_us")
            .zip(number("asked_us"))
            .map(|(us, asked_us)| Self::Dial { us, asked_us })
            .or_else(|| number("per_second").map(Self::Rate))
            .or_else(|| number("churn_per_second").map(Self::Churn))
            .or_else(|| number("init_private_bytes").map(|bytes| Self::InitPrivate { mib: bytes / MIB }))
            .or_else(|| number("ended_ms").map(|ms| Self::EndOfAll { ms }));
        found.context("it tells nothing that is known")
    }
}

impl Dials {
    fn read(lines: &[Line]) -> Result<Self> {
        let dials = lines.iter().filter_map(|line| match line {
            Line::Dial { us, asked_us } => Some((*us, *asked_us)),
            _ => None,
        });
        let (stocked, asked): (Vec<f64>, Vec<f64>) = dials.unzip();
        ensure!(!stocked.is_empty(), "the example dialled nobody");
        Ok(Self { stocked: stocked.into_iter().collect(), asked: asked.into_iter().collect() })
    }
}

impl Starts {
    fn read(user: &'static str, lines: &[Line]) -> Result<Self> {
        let [off, required, bubblewrap] = std::array::from_fn(|_| Times::default());
        let mut starts = Self { user, off, required, bubblewrap };
        for line in lines {
            let Line::Start { how, ready_ms, ended_ms } = line else { bail!("{line:?} is about no start") };
            let times = match how.as_str() {
                "off" => &mut starts.off,
                "required" => &mut starts.required,
                "bwrap" => &mut starts.bubblewrap,
                other => bail!("`{other}` is no known way to start a worker"),
            };
            times.ready.push(*ready_ms);
            times.ended.push(*ended_ms);
        }
        ensure!(starts.bubblewrap.ready.len() > 0, "bubblewrap had no turn");
        Ok(starts)
    }
}

impl Crowd {
    fn read(lines: &[Line]) -> Result<Self> {
        let find = |what: &str, pick: fn(&Line) -> Option<f64>| {
            lines.iter().find_map(pick).with_context(|| format!("the example does not tell {what}"))
        };
        Ok(Self {
            rate: find("the rate", |line| if let Line::Rate(rate) = line { Some(*rate) } else { None })?,
            churn: find("the churn", |line| if let Line::Churn(rate) = line { Some(*rate) } else { None })?,
            init_mib: find("memory", |line| if let Line::InitPrivate { mib } = line { Some(*mib) } else { None })?,
            end_ms: find("the end", |line| if let Line::EndOfAll { ms } = line { Some(*ms) } else { None })?,
        })
    }
}

fn section(starts: &[Starts], dials: &Dials, crowd: &Crowd) -> Section {
    let mut table = Table::new(&["what", "as", "median", "p99", "min–max"]);
    let mut row = |what: &str, user: &str, series: &Series, unit: &str| {
        table.row([
            what.to_owned(),
            user.to_owned(),
            format!("{} {unit}", figure(series.median())),
            figure(series.percentile(99)),
            format!("{}–{}", figure(series.min()), figure(series.max())),
        ]);
    };
    for Starts { user, off, required, bubblewrap } in starts {
        row("start without a sandbox", user, &off.ready, "ms");
        row("start in a sandbox", user, &required.ready, "ms");
        row("start by bubblewrap", user, &bubblewrap.ready, "ms");
        row("end without a sandbox", user, &off.ended, "ms");
        row("end in a sandbox", user, &required.ended, "ms");
        row("end by bubblewrap", user, &bubblewrap.ended, "ms");
    }
    row("dial into a private network", "", &dials.stocked, "µs");
    row("dial, with a socket asked for first", "", &dials.asked, "µs");
    let mut single = |what: String, measured: String| {
        table.row([what, String::new(), measured, String::new(), String::new()]);
    };
    single(format!("{CROWD} at once: started"), format!("{} a second", figure(crowd.rate)));
    single(format!("{CROWD} at once: ended and replaced"), format!("{} a second", figure(crowd.churn)));
    single(format!("{CROWD} at once: all ended within"), format!("{} ms", figure(crowd.end_ms)));
    single(format!("{CROWD} at once: init, private"), format!("{} MiB", figure(crowd.init_mib)));
    Section {
        title: "Sandbox".to_owned(),
        text: format!(
            "`cargo run --release -p herd-sandbox --example spawn`: without daemon and HTTP. A start is the time from \
               the launch until the first byte of a trivial native worker; an end is the time from then, when it exits, \
               until it is known that nothing of it is left. The three take {} turns; bubblewrap runs with `--unshare-all` \
               and the same mounts, without a filter of system calls and without Landlock, which herd also sets up. \
               A dial connects a socket of the worker's network; the daemon keeps two of each worker in stock and asks init \
               for new ones beside, so that a dial has to wait for init only if it finds none. Of many \
               at once, four are on their way at any moment; then one after the other is killed and replaced, and waited \
               for; then all are killed.",
            starts.first().map_or(0, |starts| starts.off.ready.len())
        ),
        table,
    }
}

fn aims(starts: &[Starts], dials: &Dials, crowd: &Crowd) -> Vec<Aim> {
    let mut aims = Vec::new();
    for Starts { user, off, required, bubblewrap } in starts {
        let [plain, sandboxed, other] = [off, required, bubblewrap].map(|times| times.ready.median());
        aims.push(Aim {
            what: format!("start in a sandbox, beyond one without, as {user}"),
            aim: format!("≤ {START_AIM_MS} ms"),
            measured: format!("{} − {} = {} ms", figure(sandboxed), figure(plain), figure(sandboxed - plain)),
            met: sandboxed - plain <= START_AIM_MS,
        });
        aims.push(Aim {
            what: format!("start in a sandbox, as {user}"),
            aim: "no more than bubblewrap".to_owned(),
            measured: format!("{} : {} = {:.2}", figure(sandboxed), figure(other), sandboxed / other),
            met: sandboxed <= other,
        });
        let wait = required.ended.median() - off.ended.median();
        aims.push(Aim {
            what: format!("waiting for the teardown of namespaces, as {user}"),
            aim: format!("none (≤ {NO_WAIT_MS} ms)"),
            measured: format!("{} ms", figure(wait)),
            met: wait <= NO_WAIT_MS,
        });
    }
    aims.push(Aim {
        what: "dial into a private network".to_owned(),
        aim: format!("≤ {} µs", figure(DIAL_AIM_US)),
        measured: format!("{} µs", figure(dials.stocked.median())),
        met: dials.stocked.median() <= DIAL_AIM_US,
    });
    aims.push(Aim {
        what: format!("sandboxed workers started, until {CROWD} live"),
        aim: format!("≥ {} a second", figure(RATE_AIM)),
        measured: format!("{} a second", figure(crowd.rate)),
        met: crowd.rate >= RATE_AIM,
    });
    aims.push(Aim {
        what: format!("private memory of each of {CROWD} inits"),
        aim: format!("≤ {INIT_AIM_MIB} MiB"),
        measured: format!("{} MiB", figure(crowd.init_mib)),
        met: crowd.init_mib <= INIT_AIM_MIB,
    });
    aims
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_line_is_read() {
        let start = Line::parse(r#"{"how":"off","ready_us":2500.0,"ended_us":100.0}"#).unwrap();
        assert_eq!(start, Line::Start { how: "off".to_owned(), ready_ms: 2.5, ended_ms: 0.1 });
        assert_eq!(Line::parse(r#"{"dial_us":55.5,"asked_us":99}"#).unwrap(), Line::Dial { us: 55.5, asked_us: 99.0 });
        assert_eq!(Line::parse(r#"{"alive":500,"per_second":250.5}"#).unwrap(), Line::Rate(250.5));
        assert_eq!(Line::parse(r#"{"churn_per_second":100}"#).unwrap(), Line::Churn(100.0));
        assert_eq!(Line::parse(r#"{"init_private_bytes":524288}"#).unwrap(), Line::InitPrivate { mib: 0.5 });
        assert_eq!(Line::parse(r#"{"ended_ms":61.5}"#).unwrap(), Line::EndOfAll { ms: 61.5 });
        assert!(Line::parse(r#"{"sessions":1}"#).is_err());
    }

    #[test]
    fn starts_without_a_turn_of_bubblewrap_are_refused() {
        let lines = ["off", "required"].map(|how| Line::Start { how: how.to_owned(), ready_ms: 1.0, ended_ms: 1.0 });
        assert!(Starts::read("root", &lines).is_err());
    }
}
