//! `herd logs`.

use std::{pin::pin, time::Duration};

use anyhow::{Context as _, bail};
use herd_pool::WorkerId;
use hyper::{Method, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::{select, time::timeout};

use super::{
    Daemon, Refused, block_on,
    following::{Following, Told},
    named::Named,
    problem_as_json,
};
use crate::{
    admin::model::Session,
    cli::LogsArgs,
    console::{self, Reader, dim, escape_line},
};

/// How long the end of a session is waited for once its worker says no more: nothing but the daemon's account of it.
const ACCOUNT: Duration = Duration::from_secs(3);
/// After these kinds of events a worker may have a log, or never get one.
const BIRTHS: &str = "worker-ready,spawn-failed,worker-gone,session-started,session-ended";

/// A line as the daemon sends it.
#[derive(Debug, Deserialize, Serialize)]
struct Line {
    sequence: u64,
    at: String,
    stream: String,
    text: String,
}

#[derive(Debug, Deserialize)]
struct Lines {
    items: Vec<Line>,
}

/// Shows what a worker says.
///
/// # Errors
/// If there is no such session or worker, or no daemon to ask.
pub(crate) fn run(args: &LogsArgs) -> anyhow::Result<()> {
    let daemon = Daemon::find(args.daemon.socket.clone())?;
    problem_as_json(args.json, block_on(show(&daemon, args)))
}

async fn show(daemon: &Daemon, args: &LogsArgs) -> anyhow::Result<()> {
    let mut gone = pin!(console::reader_gone());
    let found = select! {
        found = kept(daemon, args) => found?,
        () = &mut gone => return Ok(()),
    };
    let (worker, Lines { items }) = found;
    let last = items.last().map(|line| line.sequence.to_string());
    let wanted: Vec<_> = items.into_iter().filter(|line| args.wants(line)).collect();
    let skipped = wanted.len().saturating_sub(args.lines.unwrap_or(wanted.len()));
    for line in &wanted[skipped..] {
        if args.print(line)? == Reader::Gone {
            return Ok(());
        }
    }
    if !args.follow {
        return Ok(());
    }
    let path = format!("/v1/workers/{worker}/logs?follow=true");
    select! {
        over = follow(daemon, args, &worker, path, last) => over,
        () = gone => Ok(()),
    }
}

async fn follow(
    daemon: &Daemon,
    args: &LogsArgs,
    worker: &str,
    path: String,
    last: Option<String>,
) -> anyhow::Result<()> {
    let reason = match lines(daemon, args, path, last).await {
        Ok(Some(reason)) => reason,
        Ok(None) => return Ok(()),
        // It went while nobody listened.
        Err(error) if kind(&error).as_deref() == Some("no-such-worker") => "worker-gone".to_owned(),
        Err(error) => return Err(error),
    };
    match reason.as_str() {
        "worker-gone" => console::complain(account(daemon, worker).await),
        "stopping" => console::complain("the daemon stops, and its workers with it"),
        other => console::complain(format_args!("the daemon ended the stream ({other})")),
    }
    Ok(())
}

/// Prints lines as they come, until there are no more, and says why; `None`: nobody reads them.
async fn lines(daemon: &Daemon, args: &LogsArgs, path: String, last: Option<String>) -> anyhow::Result<Option<String>> {
    let mut following = Following::begin(daemon, path, last).await?;
    loop {
        let reader = match following.next().await? {
            Told::Frame(frame) if frame.name == "line" => {
                let line: Line = frame.json()?;
                if args.wants(&line) { args.print(&line)? } else { Reader::There }
            }
            Told::Frame(_) => Reader::There,
            Told::Missed(count) if args.json => console::tell_json(&json!({ "missed": count }))?,
            Told::Missed(count) => {
                let s = if count == 1 { "" } else { "s" };
                console::complain(format_args!("missed {count} line{s}, which the daemon does not keep any more"));
                Reader::There
            }
            Told::End(reason) => return Ok(Some(reason)),
        };
        if reader == Reader::Gone {
            return Ok(None);
        }
    }
}

/// The worker that is meant and the lines that are kept of it. Whoever follows waits for it to have a log.
async fn kept(daemon: &Daemon, args: &LogsArgs) -> anyhow::Result<(String, Lines)> {
    let path = format!("/v1/events?kind={BIRTHS}");
    let mut births = if args.follow { Some(daemon.stream(&path, None).await?) } else { None };
    loop {
        if let Some(found) = look(daemon, args).await? {
            return Ok(found);
        }
        let name = args.name.as_str();
        let Some(births) = &mut births else {
            bail!("{name} is still being started and has no log yet; `herd logs --follow {name}` waits for it");
        };
        births.next().await?.with_context(|| format!("the daemon stopped before {name} had a worker"))?;
    }
}

/// The same, if there is a log.
async fn look(daemon: &Daemon, args: &LogsArgs) -> anyhow::Result<Option<(String, Lines)>> {
    let worker = match args.worker() {
        Some(worker) => worker.to_string(),
        None => {
            let named = Named { id: &args.name, choice: &args.choice };
            let path = named.path();
            let answer = daemon.request(Method::GET, &path).await?;
            if let Some(error) = named.explain(&answer) {
                if args.json {
                    answer.print()?;
                }
                return Err(error);
            }
            match daemon.read::<Session>(&path, answer)?.worker {
                Some(worker) => worker,
                None => return Ok(None),
            }
        }
    };
    let path = format!("/v1/workers/{worker}/logs");
    let answer = daemon.request(Method::GET, &path).await?;
    match (answer.status, answer.kind().as_str()) {
        (StatusCode::CONFLICT, "no-log-yet") => Ok(None),
        (StatusCode::NOT_FOUND, "no-such-worker") => {
            if args.json {
                answer.print()?;
            }
            let or_session = if args.worker().is_some() { "; a session that is called so takes --session" } else { "" };
            bail!("there is no worker {worker}; `herd ps` lists those that live{or_session}")
        }
        _ => Ok(Some((worker, daemon.read(&path, answer)?))),
    }
}

/// What became of a worker that says no more.
async fn account(daemon: &Daemon, worker: &str) -> String {
    let mut told = format!("{worker} is gone");
    // Whatever is known by then: the log has ended well, whether or not anybody can say why.
    let _ = timeout(ACCOUNT, recall(daemon, worker, &mut told)).await;
    told
}

async fn recall(daemon: &Daemon, worker: &str, told: &mut String) -> anyhow::Result<()> {
    #[derive(Deserialize)]
    struct Ended {
        session: String,
        detail: String,
    }
    let path = format!("/v1/events?worker={worker}&kind=session-ended,worker-gone&last_event_id=0");
    let mut events = daemon.stream(&path, None).await?;
    while let Some(frame) = events.next().await? {
        match frame.name.as_str() {
            "session-ended" => {
                let Ended { session, detail } = frame.json()?;
                *told = format!("{worker} is gone, and session {session} ended: {detail}");
            }
            "worker-gone" => break,
            _ => {}
        }
    }
    Ok(())
}

fn kind(error: &anyhow::Error) -> Option<String> {
    Some(error.downcast_ref::<Refused>()?.answer.kind())
}

impl LogsArgs {
    /// The worker, if it is a worker that was named.
    fn worker(&self) -> Option<WorkerId> {
        let is_session = self.session || self.choice.pool.is_some() || self.choice.tenant.is_some();
        self.name.as_str().parse().ok().filter(|_| !is_session)
    }

    fn wants(&self, line: &Line) -> bool {
        match line.stream.as_str() {
            "stdout" => !self.stderr,
            "stderr" => !self.stdout,
            _ => true,
        }
    }

    fn print(&self, line: &Line) -> anyhow::Result<Reader> {
        if self.json {
            return console::tell_json(line);
        }
        let text = escape_line(&line.text);
        if self.timestamps {
            return console::tell(format_args!("{} {text}\n", dim(&escape_line(&line.at))));
        }
        console::tell(text + "\n")
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::cli::{Cli, Command};

    fn args(words: &[&str]) -> LogsArgs {
        match Cli::parse_from([&["herd", "logs"], words].concat()).command {
            Some(Command::Logs(args)) => args,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_name_that_looks_like_a_workers_is_a_workers_unless_it_is_said_to_be_a_sessions() {
        assert_eq!(args(&["worker-3"]).worker(), Some(WorkerId::new(3)));
        for words in [&["alice"][..], &["worker-03"], &["--session", "worker-3"], &["--pool", "a", "worker-3"]] {
            assert_eq!(args(words).worker(), None, "{words:?}");
        }
    }
}
