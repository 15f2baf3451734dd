//! `acquire` of a session that exists, without processes and HTTP.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::{
    child::Program,
    proxy::{Bench, which},
    report::{Aim, Section, Table, progress},
    series::figure,
};

const LATENCY_AIM_NS: f64 = 200.0;
const MEMORY_AIM_BYTES: f64 = 1024.0;
/// More than this, from one session to a million, is not flat.
const FLAT: f64 = 1.5;

#[derive(Debug, PartialEq)]
enum Line {
    /// `None`: the threads never ran at once.
    Acquire {
        sessions: u64,
        /// Among how many the sessions are divided; 0: nobody's.
        tenants: u64,
        threads: u64,
        nanoseconds: Option<f64>,
    },
    /// What the admin API and the metrics ask a pool for.
    Asked {
        sessions: u64,
        page_microseconds: f64,
        stats_microseconds: f64,
    },
    Memory {
        bytes: f64,
    },
    /// What this machine takes for one read at random, for comparison.
    Read {
        mebibytes: u64,
        nanoseconds: f64,
    },
}

/// Runs the pool's own benchmark, which prints one JSON object a line.
pub(crate) fn measure(bench: &Bench, repository: &Path) -> Result<(Section, Vec<Aim>)> {
    progress("hit path");
    let manifest = repository.join("Cargo.toml").display().to_string();
    let args =
        ["run", "--quiet", "--release", "--manifest-path", &manifest, "-p", "herd-pool", "--example", "hit_path"];
    let text = Program {
        name: "hit_path",
        path: &which("cargo")?,
        args: args.map(Into::into).into(),
        cores: &bench.layout.all,
    }
    .output(&bench.directory)?;
    let lines: Vec<Line> = text
        .lines()
        .filter(|line| line.starts_with('{'))
        .map(|line| Line::parse(line).with_context(|| format!("cannot read `{line}` of hit_path")))
        .collect::<Result<_>>()?;
    ensure!(lines.iter().any(|line| matches!(line, Line::Acquire { .. })), "hit_path measured nothing:\n{text}");
    Ok((section(&lines), aims(&lines)))
}

impl Line {
    fn parse(line: &str) -> Result<Self> {
        let value: Value = serde_json::from_str(line)?;
        if let Some(bytes) = value.get("bytes_per_session") {
            return Ok(Self::Memory { bytes: bytes.as_f64().context("it is no number")? });
        }
        let whole = |name| value.get(name).and_then(Value::as_u64).with_context(|| format!("there is no {name}"));
        if let Some(read) = value.get("ns_per_random_read") {
            let nanoseconds = read.as_f64().context("ns_per_random_read is no number")?;
            return Ok(Self::Read { mebibytes: whole("mib")?, nanoseconds });
        }
        if let (Some(page), Some(stats)) = (value.get("us_per_page"), value.get("us_per_stats")) {
            return Ok(Self::Asked {
                sessions: whole("sessions")?,
                page_microseconds: page.as_f64().context("us_per_page is no number")?,
                stats_microseconds: stats.as_f64().context("us_per_stats is no number")?,
            });
        }
        let nanoseconds = value.get("ns_per_acquire").context("there is no ns_per_acquire")?.as_f64();
        let tenants = value.get("tenants").map_or(Some(0), Value::as_u64).context("tenants is no number")?;
        Ok(Self::Acquire { sessions: whole("sessions")?, tenants, threads: whole("threads")?, nanoseconds })
    }
}

fn shown(nanoseconds: Option<f64>) -> String {
    nanoseconds.map_or("none: the threads never ran at once".to_owned(), |ns| format!("{} ns", figure(ns)))
}

#[expect(clippy::cast_precision_loss, reason = "it is at most a million")]
fn whole(number: u64) -> String {
    figure(number as f64).trim_end_matches(".00").to_owned()
}

fn section(lines: &[Line]) -> Section {
    let mut table = Table::new(&["what", "sessions", "threads", "measured"]);
    for line in lines {
        match *line {
            Line::Acquire { sessions, tenants, threads, nanoseconds } => table.row([
                match tenants {
                    0 => "acquire and drop of the lease".to_owned(),
                    _ => format!("the same, sessions of {tenants} tenants with limits"),
                },
                whole(sessions),
                threads.to_string(),
                shown(nanoseconds),
            ]),
            Line::Asked { sessions, page_microseconds, stats_microseconds } => {
                for (what, time) in [("the first 100 sessions", page_microseconds), ("the figures", stats_microseconds)]
                {
                    let what = format!("{what} of a pool");
                    table.row([what, whole(sessions), "1".to_owned(), format!("{} µs", figure(time))]);
                }
            }
            Line::Read { mebibytes, nanoseconds } => table.row([
                format!("for comparison: one read at random in {mebibytes} MiB"),
                String::new(),
                "1".to_owned(),
                shown(Some(nanoseconds)),
            ]),
            Line::Memory { bytes } => table.row([
                "memory of a session".to_owned(),
                String::new(),
                String::new(),
                format!("{} bytes", figure(bytes)),
            ]),
        }
    }
    Section {
        title: "Hit path".to_owned(),
        text: "`cargo run --release -p herd-pool --example hit_path`: the pool alone, with fake workers. Nanoseconds \
               are wall time for each call of one thread, over sessions in random order."
            .to_owned(),
        table,
    }
}

fn aims(lines: &[Line]) -> Vec<Aim> {
    let mut aims = Vec::new();
    for line in lines {
        match *line {
            Line::Acquire { sessions, tenants, threads, nanoseconds } => aims.push(Aim {
                what: match tenants {
                    0 => format!("acquire, sessions: {sessions}, threads: {threads}"),
                    _ => format!("acquire, sessions: {sessions}, tenants: {tenants}, threads: {threads}"),
                },
                aim: format!("≤ {} ns", figure(LATENCY_AIM_NS)),
                measured: shown(nanoseconds),
                met: nanoseconds.is_some_and(|nanoseconds| nanoseconds <= LATENCY_AIM_NS),
            }),
            Line::Read { .. } | Line::Asked { .. } => {}
            Line::Memory { bytes } => aims.push(Aim {
                what: "memory per session".to_owned(),
                aim: "≤ 1 KiB".to_owned(),
                measured: format!("{} bytes", figure(bytes)),
                met: bytes <= MEMORY_AIM_BYTES,
            }),
        }
    }
    let single = |wanted| {
        lines.iter().find_map(|line| match *line {
            Line::Acquire { sessions, tenants: 0, threads: 1, nanoseconds } if sessions == wanted => nanoseconds,
            _ => None,
        })
    };
    if let (Some(one), Some(million)) = (single(1), single(1_000_000)) {
        let ratio = million / one;
        aims.push(Aim {
            what: "acquire, a million sessions to one".to_owned(),
            aim: format!("flat (≤ {FLAT})"),
            measured: format!("{} : {} = {ratio:.2}", figure(million), figure(one)),
            met: ratio <= FLAT,
        });
    }
    aims
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_line_is_read() {
        assert_eq!(
            Line::parse(r#"{"sessions":1000,"threads":2,"ns_per_acquire":81.5}"#).unwrap(),
            Line::Acquire { sessions: 1000, tenants: 0, threads: 2, nanoseconds: Some(81.5) }
        );
        assert_eq!(
            Line::parse(r#"{"sessions":10,"tenants":5,"threads":1,"ns_per_acquire":81.5}"#).unwrap(),
            Line::Acquire { sessions: 10, tenants: 5, threads: 1, nanoseconds: Some(81.5) }
        );
        assert_eq!(
            Line::parse(r#"{"sessions":10,"us_per_page":1.5,"us_per_stats":2.5}"#).unwrap(),
            Line::Asked { sessions: 10, page_microseconds: 1.5, stats_microseconds: 2.5 }
        );
        assert_eq!(
            Line::parse(r#"{"mib":32,"ns_per_random_read":80.5}"#).unwrap(),
            Line::Read { mebibytes: 32, nanoseconds: 80.5 }
        );
        assert_eq!(Line::parse(r#"{"bytes_per_session":512}"#).unwrap(), Line::Memory { bytes: 512.0 });
        assert!(Line::parse(r#"{"sessions":1000}"#).is_err());
    }
}
