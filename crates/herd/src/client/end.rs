//! `herd end SESSION…`.

use std::{
    io::{self, BufRead as _, IsTerminal as _, Write as _},
    pin::pin,
    time::Duration,
};

use anyhow::{bail, ensure};
use futures_util::{StreamExt as _, stream};
use herd_pool::SessionId;
use hyper::{Method, StatusCode};
use serde_json::Value;
use tokio::{select, time::sleep};

use super::{Answer, Daemon, block_on, named::Named, ps};
use crate::{
    admin::model::{Ended, Session},
    cli::{EndArgs, SessionChoice},
    console::{self, Progress},
};

/// How many sessions are ended at once. The daemon answers when a worker is gone, and a grace may be long.
const AT_ONCE: usize = 16;
/// After how long somebody who waits is told for what.
const NOTICE: Duration = Duration::from_secs(2);

/// Ends sessions of a running daemon and waits until their workers are gone.
///
/// # Errors
/// If one of them cannot be ended, or there is no daemon to ask.
pub(crate) fn run(args: EndArgs) -> anyhow::Result<()> {
    let EndArgs { sessions, all, yes, choice, force, json, daemon } = args;
    let daemon = Daemon::find(daemon.socket)?;
    if let [id] = &sessions[..] {
        let waiting = format!("the worker of {id} is being ended, which goes on also if nobody waits for it");
        let named = Named { id, choice: &choice };
        let answer = block_on(daemon.request_at_length(Method::DELETE, &path(named, force), &waiting))?;
        if json {
            answer.print()?;
        }
        let ended = read(&daemon, named, answer)?;
        return if json { Ok(()) } else { console::print(told(&ended)) };
    }
    let sessions = if all { block_on(found(&daemon, &choice))? } else { typed(sessions, &choice) };
    if all && !yes && !sessions.is_empty() && !is_confirmed(sessions.len())? {
        bail!("nothing was ended");
    }
    let outcomes = block_on(end(&daemon, &sessions, force, json))?;
    if json {
        let list: Vec<_> = outcomes.iter().map(|outcome| &outcome.document).collect();
        console::print_json(&list)?;
    } else if sessions.is_empty() {
        console::print("there are no sessions\n")?;
    }
    let failed = outcomes.iter().filter(|outcome| outcome.failed).count();
    ensure!(failed == 0, "{failed} of {} sessions could not be ended", sessions.len());
    Ok(())
}

/// What became of one of several.
#[derive(Debug)]
struct Outcome {
    /// What the daemon answered.
    document: Value,
    failed: bool,
}

/// Several sessions of the same choice. One that is named twice can be ended once.
fn typed(mut ids: Vec<SessionId>, choice: &SessionChoice) -> Vec<(SessionId, SessionChoice)> {
    ids.sort();
    ids.dedup();
    ids.into_iter().map(|id| (id, choice.clone())).collect()
}

/// All sessions there are of a pool or tenant.
async fn found(daemon: &Daemon, choice: &SessionChoice) -> anyhow::Result<Vec<(SessionId, SessionChoice)>> {
    let sessions = ps::sessions(daemon, choice).await?;
    let exactly = |session: Session| {
        let choice = SessionChoice { pool: Some(session.pool), tenant: Some(session.tenant.unwrap_or_default()) };
        Ok((SessionId::new(session.id)?, choice))
    };
    sessions.into_iter().map(exactly).collect()
}

/// Asks at the terminal.
fn is_confirmed(count: usize) -> anyhow::Result<bool> {
    ensure!(
        io::stdin().is_terminal() && io::stderr().is_terminal(),
        "herd end --all would end {count} session(s) and cannot ask you without a terminal; add --yes if that is wanted"
    );
    let s = if count == 1 { "" } else { "s" };
    write!(io::stderr().lock(), "End {count} session{s}? What their workers hold is lost. [y/N] ")?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

/// Ends them, some at once, and tells each as it ends.
async fn end(
    daemon: &Daemon,
    sessions: &[(SessionId, SessionChoice)],
    force: bool,
    json: bool,
) -> anyhow::Result<Vec<Outcome>> {
    let progress = Progress::new();
    let one = async |(id, choice): &(SessionId, SessionChoice)| {
        let named = Named { id, choice };
        let answer = daemon.request_at_length(Method::DELETE, &path(named, force), "").await?;
        let document = serde_json::from_slice(&answer.body).unwrap_or(Value::Null);
        Ok::<_, anyhow::Error>((document, read(daemon, named, answer)))
    };
    let mut ending = stream::iter(sessions).map(one).buffer_unordered(AT_ONCE);
    let mut outcomes = Vec::with_capacity(sessions.len());
    let mut notice = pin!(sleep(NOTICE));
    let mut is_noticed = false;
    loop {
        let next = select! {
            biased;
            next = ending.next() => next,
            () = &mut notice, if !is_noticed => {
                is_noticed = true;
                if !progress.is_shown() {
                    console::complain("the workers are being ended, which goes on also if nobody waits for it");
                }
                continue;
            }
        };
        let Some(outcome) = next else { break };
        let (document, ended) = outcome?;
        progress.clear();
        let failed = ended.is_err();
        match ended {
            Ok(ended) if !json => console::print(told(&ended))?,
            Ok(_) => {}
            Err(error) => console::complain(format_args!("{error:#}")),
        }
        outcomes.push(Outcome { document, failed });
        progress.say(format_args!("{} of {} have ended", outcomes.len(), sessions.len()));
    }
    Ok(outcomes)
}

fn path(named: Named<'_>, force: bool) -> String {
    let path = named.path();
    let separator = if path.contains('?') { '&' } else { '?' };
    format!("{path}{separator}force={force}")
}

fn read(daemon: &Daemon, named: Named<'_>, answer: Answer) -> anyhow::Result<Ended> {
    match named.explain(&answer) {
        Some(error) if answer.status != StatusCode::OK => Err(error),
        _ => daemon.read("/v1/sessions/ID", answer),
    }
}

fn told(ended: &Ended) -> String {
    console::printable(&format!("{} ended ({})", ended.id, ended.reason)) + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_that_is_named_twice_is_ended_once() {
        let ids = ["b", "a", "b"].map(|id| SessionId::new(id).unwrap()).to_vec();
        let typed = typed(ids, &SessionChoice { pool: None, tenant: None });
        assert_eq!(typed.iter().map(|(id, _)| id.as_str()).collect::<Vec<_>>(), ["a", "b"]);
    }

    #[test]
    fn force_is_added_to_what_names_the_session() {
        let id = SessionId::new("alice").unwrap();
        let choice = SessionChoice { pool: None, tenant: None };
        assert_eq!(path(Named { id: &id, choice: &choice }, true), "/v1/sessions/alice?force=true");
        let choice = SessionChoice { pool: Some("a".to_owned()), tenant: None };
        assert_eq!(path(Named { id: &id, choice: &choice }, false), "/v1/sessions/alice?pool=a&force=false");
    }
}
