//! `herd events`.

use std::{pin::pin, time::SystemTime};

use serde::Deserialize;
use serde_json::{Value, json};
use tokio::select;

use super::{
    Daemon, block_on,
    following::{Following, Told},
    problem_as_json,
};
use crate::{
    admin::{escape, model::Page},
    cli::{EventsArgs, Since},
    console::{self, Reader, alarming, dim, escape_line},
    prose::{terminal_width, wrapped},
};

/// From this width on a line has the event's number and the date.
const WIDE: usize = 80;
/// As many characters as the longest kind has.
const KIND_WIDTH: usize = 16;

/// An event, with what its kind has.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Event {
    sequence: u64,
    at: String,
    pool: String,
    kind: String,
    session: Option<String>,
    tenant: Option<String>,
    worker: Option<String>,
    ready_after_ms: Option<f64>,
    error: Option<String>,
    exit: Option<String>,
    out_of_memory: Option<bool>,
    stderr_tail: Vec<String>,
    detail: Option<String>,
}

/// How events are told.
#[derive(Debug)]
struct Telling {
    json: bool,
    wide: bool,
    /// How many columns a line has; `None`: as many as it needs.
    width: Option<usize>,
    /// Whether the pools are told.
    pools: bool,
}

/// Shows what happened to sessions and workers.
///
/// # Errors
/// If there is no daemon to ask.
pub(crate) fn run(args: &EventsArgs) -> anyhow::Result<()> {
    let daemon = Daemon::find(args.daemon.socket.clone())?;
    problem_as_json(args.json, block_on(show(&daemon, args)))
}

async fn show(daemon: &Daemon, args: &EventsArgs) -> anyhow::Result<()> {
    let pools: Page<Value> = daemon.get("/v1/pools").await?;
    let width = terminal_width();
    let wide = width.is_none_or(|width| width >= WIDE);
    let telling = Telling { json: args.json, wide, width, pools: pools.items.len() > 1 };
    let (query, after) = args.query(SystemTime::now());
    if !args.follow {
        let after = after.map(|after| format!("&last_event_id={after}")).unwrap_or_default();
        let kept: Page<Value> = daemon.get(&format!("/v1/events?follow=false{query}{after}")).await?;
        for event in kept.items {
            if telling.tell(event)? == Reader::Gone {
                break;
            }
        }
        return Ok(());
    }
    let path = format!("/v1/events?follow=true{query}");
    let mut gone = pin!(console::reader_gone());
    select! {
        over = follow(daemon, path, after, &telling) => over,
        () = &mut gone => Ok(()),
    }
}

async fn follow(daemon: &Daemon, path: String, after: Option<String>, telling: &Telling) -> anyhow::Result<()> {
    let mut following = Following::begin(daemon, path, after).await?;
    loop {
        let reader = match following.next().await? {
            Told::Frame(frame) => telling.tell(frame.json()?)?,
            Told::Missed(count) if telling.json => console::tell_json(&json!({ "missed": count }))?,
            Told::Missed(count) => {
                let s = if count == 1 { "" } else { "s" };
                console::complain(format_args!("missed {count} event{s}, which the daemon does not keep any more"));
                Reader::There
            }
            Told::End(reason) => {
                match reason.as_str() {
                    "stopping" => console::complain("the daemon stops"),
                    other => console::complain(format_args!("the daemon ended the stream ({other})")),
                }
                return Ok(());
            }
        };
        if reader == Reader::Gone {
            return Ok(());
        }
    }
}

impl EventsArgs {
    /// What is asked for, each parameter with `&` before it, and behind which event.
    fn query(&self, now: SystemTime) -> (String, Option<String>) {
        let mut query = String::new();
        let mut add = |name: &str, value: &str| query += &format!("&{name}={}", escape(value));
        for (name, value) in [("worker", &self.worker), ("pool", &self.pool), ("tenant", &self.tenant)] {
            value.iter().for_each(|value| add(name, value));
        }
        self.session.iter().for_each(|session| add("session", session.as_str()));
        if !self.kind.is_empty() {
            add("kind", &self.kind.join(","));
        }
        let since = match self.since {
            Some(Since::Sequence(sequence)) => return (query, Some(sequence.to_string())),
            Some(Since::Time(time)) => time,
            Some(Since::Ago(ago)) => now.checked_sub(ago).unwrap_or(SystemTime::UNIX_EPOCH),
            // All that are kept. Whoever does not say what they know already has not missed any.
            None => SystemTime::UNIX_EPOCH,
        };
        add("since", &humantime::format_rfc3339_millis(since).to_string());
        (query, None)
    }
}

impl Telling {
    fn tell(&self, event: Value) -> anyhow::Result<Reader> {
        if self.json {
            return console::tell_json(&event);
        }
        let event: Event = serde_json::from_value(event)?;
        console::tell(self.line(&event))
    }

    fn line(&self, event: &Event) -> String {
        let at = escape_line(&event.at);
        let head = match at.get(11..) {
            // The time of day.
            Some(time) if !self.wide => time.to_owned(),
            _ => format!("{:>5}  {at}", event.sequence),
        };
        let is_alarming = matches!(event.kind.as_str(), "worker-crashed" | "worker-unhealthy" | "spawn-failed");
        let kind = escape_line(&event.kind);
        let space = " ".repeat(KIND_WIDTH.saturating_sub(kind.chars().count()));
        let kind = format!("{}{space}", if is_alarming { alarming(&kind) } else { kind });
        let pool = if self.pools { format!("  [{}]", escape_line(&event.pool)) } else { String::new() };
        let mut line = format!("{}  {kind}  {}{pool}", dim(&head), escape_line(&event.told()));
        line.truncate(line.trim_end().len());
        line = wrapped(&line, 4, self.width) + "\n";
        for said in &event.stderr_tail {
            line += &wrapped(&format!("    {} {}\n", dim("|"), escape_line(said)), 6, self.width);
        }
        line
    }
}

impl Event {
    /// Whom it is about, and how it came.
    fn told(&self) -> String {
        let mut told = match (&self.session, &self.tenant) {
            (Some(session), Some(tenant)) => format!("{session} of {tenant}"),
            (Some(session), None) => session.clone(),
            (None, _) => String::new(),
        };
        if let Some(worker) = &self.worker {
            told += if told.is_empty() { "" } else { " on " };
            told += worker;
        }
        if let Some(ms) = self.ready_after_ms {
            told += &format!(" after {ms:.0}ms");
        }
        let why = self.error.as_ref().or(self.exit.as_ref()).or(self.detail.as_ref());
        if let Some(why) = why {
            told += &format!(": {why}");
        }
        if self.out_of_memory == Some(true) {
            told += " (out of memory)";
        }
        told
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(wide: bool, event: Value) -> String {
        let telling = Telling { json: false, wide, width: None, pools: !wide };
        let line = telling.line(&serde_json::from_value(event).unwrap());
        anstream::adapter::strip_str(&line).to_string()
    }

    #[test]
    fn an_event_is_a_line_and_a_crash_shows_the_last_words() {
        let event = json!({
            "sequence": 41, "at": "2026-01-31T12:00:00.000Z", "pool": "default", "kind": "worker-crashed",
            "worker": "worker-3", "exit": "exit code 3", "out_of_memory": false, "stderr_tail": ["no\u{1b} license"],
        });
        let expected = "   41  2026-01-31T12:00:00.000Z  worker-crashed    worker-3: exit code 3\n    \
                        | no\\u{1b} license\n";
        assert_eq!(told(true, event.clone()), expected);
        assert!(told(false, event).starts_with("12:00:00.000Z  worker-crashed    worker-3: exit code 3  [default]\n"));
    }

    #[test]
    fn on_a_narrow_terminal_no_word_is_broken() {
        let event = json!({
            "sequence": 41, "at": "2026-01-31T12:00:00.000Z", "pool": "default", "kind": "spawn-failed",
            "worker": "worker-3", "error": "the program ended before it was ready: exit code 3",
            "stderr_tail": ["there is no license for this host"],
        });
        let telling = Telling { json: false, wide: false, width: Some(40), pools: false };
        let line = telling.line(&serde_json::from_value(event).unwrap());
        let line = anstream::adapter::strip_str(&line).to_string();
        let expected = "12:00:00.000Z  spawn-failed\n    worker-3: the program ended before\n    it was ready: exit code \
                        3\n    | there is no license for this host\n";
        assert_eq!(line, expected);
    }

    #[test]
    fn kinds_of_a_later_version_are_told_as_far_as_they_are_known() {
        let event = json!({ "sequence": 1, "at": "?", "kind": "moved", "session": "alice", "tenant": "acme", "x": 1 });
        assert_eq!(told(true, event), "    1  ?  moved             alice of acme\n");
    }
}
