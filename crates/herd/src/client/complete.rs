//! What a shell offers as the next word: names that the running daemon knows.

use std::{ffi::OsStr, path::PathBuf, time::Duration};

use clap_complete::CompletionCandidate;
use serde::de::DeserializeOwned;
use tokio::time::timeout;

use super::{Daemon, block_on};
use crate::admin::{
    escape,
    model::{Page, Session, Worker},
};

/// How long somebody who pressed a key waits. Without an answer nothing is offered.
const PATIENCE: Duration = Duration::from_secs(1);
/// The most that are asked for: nobody reads through more.
const MOST: usize = 200;

pub(crate) fn sessions(begun: &OsStr) -> Vec<CompletionCandidate> {
    let Some(begun) = begun.to_str() else { return Vec::new() };
    let found = items::<Session>(&format!("/v1/sessions?limit={MOST}&prefix={}", escape(begun)));
    let state = |session: &Session| match &session.worker {
        Some(worker) => format!("session, {} on {worker}", session.state),
        None => format!("session, {}", session.state),
    };
    offer(begun, found.iter().map(|session| (session.id.as_str(), state(session))))
}

pub(crate) fn workers(begun: &OsStr) -> Vec<CompletionCandidate> {
    let Some(begun) = begun.to_str() else { return Vec::new() };
    let found = items::<Worker>(&format!("/v1/workers?limit={MOST}"));
    offer(begun, found.iter().map(|worker| (worker.id.as_str(), format!("worker, {}", worker.state))))
}

pub(crate) fn sessions_and_workers(begun: &OsStr) -> Vec<CompletionCandidate> {
    let mut offered = sessions(begun);
    offered.extend(workers(begun));
    offered
}

pub(crate) fn pools(begun: &OsStr) -> Vec<CompletionCandidate> {
    #[derive(serde::Deserialize)]
    struct Named {
        pool: String,
    }
    let Some(begun) = begun.to_str() else { return Vec::new() };
    let found = items::<Named>("/v1/pools");
    offer(begun, found.iter().map(|pool| (pool.pool.as_str(), "pool".to_owned())))
}

pub(crate) fn tenants(begun: &OsStr) -> Vec<CompletionCandidate> {
    let Some(begun) = begun.to_str() else { return Vec::new() };
    let mut found: Vec<_> =
        items::<Session>("/v1/sessions?limit=1000").into_iter().filter_map(|session| session.tenant).collect();
    found.sort();
    found.dedup();
    offer(begun, found.iter().map(|tenant| (tenant.as_str(), "tenant".to_owned())))
}

fn items<T: DeserializeOwned>(path: &str) -> Vec<T> {
    let socket = socket_of(std::env::args_os().filter_map(|word| word.into_string().ok()));
    let asked = Daemon::find(socket)
        .and_then(|daemon| block_on(async { Ok(timeout(PATIENCE, daemon.get::<Page<T>>(path)).await??.items) }));
    asked.unwrap_or_default()
}

/// What the command line says so far of the daemon.
fn socket_of(words: impl Iterator<Item = String>) -> Option<PathBuf> {
    let words: Vec<_> = words.collect();
    let after = |at: usize| words.get(at + 1).cloned();
    let mut found = words.iter().enumerate().filter_map(|(at, word)| match word.as_str() {
        "--socket" => after(at),
        _ => word.strip_prefix("--socket=").map(str::to_owned),
    });
    found.next_back().filter(|path| !path.is_empty()).map(PathBuf::from)
}

fn offer<'a>(begun: &str, names: impl Iterator<Item = (&'a str, String)>) -> Vec<CompletionCandidate> {
    names
        .filter(|(name, _)| name.starts_with(begun) && is_plain(name))
        .map(|(name, what)| CompletionCandidate::new(name).help(Some(what.into())))
        .collect()
}

/// Shells put into the command line what is offered, as it is. A client may call its session `$(reboot)`, or `--force`.
fn is_plain(name: &str) -> bool {
    !name.starts_with('-') && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.,@%+/".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_offered_that_a_shell_would_run_or_take_for_a_flag() {
        let names = ["alice", "$(reboot)", "a;b", "--force", "`x`", "a'b", "~", "a|b", "a*", "u-1@acme.example", "!1"];
        let offered = offer("", names.into_iter().map(|name| (name, String::new())));
        let offered: Vec<_> = offered.iter().map(|candidate| candidate.get_value().to_str().unwrap()).collect();
        assert_eq!(offered, ["alice", "u-1@acme.example"]);
    }

    #[test]
    fn the_daemon_is_the_one_that_was_typed() {
        let typed = |words: &[&str]| socket_of(words.iter().map(ToString::to_string));
        assert_eq!(typed(&["herd", "end", "--socket", "/a", ""]), Some("/a".into()));
        assert_eq!(typed(&["herd", "end", "--socket=/b", ""]), Some("/b".into()));
        assert_eq!(typed(&["herd", "end", "--socket"]), None);
    }
}
