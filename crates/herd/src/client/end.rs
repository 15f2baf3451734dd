//! `herd end SESSION`.

use anyhow::{bail, ensure};
use hyper::{Method, StatusCode};
use serde::Deserialize;
use serde_json::json;

use super::{Answer, Daemon, block_on};
use crate::{
    admin::{escape, model::Ended},
    cli::EndArgs,
    console,
};

/// Ends a session of a running daemon and waits until its worker is gone.
///
/// # Errors
/// If there is no such session, or no daemon to ask.
pub(crate) fn run(args: EndArgs) -> anyhow::Result<()> {
    let id = args.sessions[0].clone();
    let daemon = Daemon::find(args.daemon.socket)?;
    let mut path = format!("/v1/sessions/{}?force={}", escape(id.as_str()), args.force);
    let mut named = String::new();
    for (name, value) in [("pool", args.choice.pool), ("tenant", args.choice.tenant)] {
        let Some(value) = value else { continue };
        path += &format!("&{name}={}", escape(&value));
        named += &format!(" --{name} {}", quote(&value));
    }
    let named = if named.is_empty() { named } else { format!(" with{named}") };
    let waiting = format!("the worker of {id} is being ended, which goes on also if nobody waits for it");
    let answer = block_on(daemon.request_at_length(Method::DELETE, &path, &waiting))?;
    if answer.status != StatusCode::OK && args.json {
        answer.print()?;
    }
    match answer.kind().as_str() {
        "no-such-session" => bail!("there is no session {id}{named}; `herd ps` lists those that live"),
        "no-such-pool" => bail!("there is no session {id}{named}, for there is no such pool; {}", answer.detail()),
        "invalid-tenant" => bail!("there is no session {id}{named}: {}", answer.detail()),
        "ambiguous-session" => bail!("there are several sessions {id}; choose one with {}", choices(&answer)?),
        _ => {}
    }
    ensure!(answer.status == StatusCode::OK, "the daemon answered {}: {}", answer.status, answer.detail());
    let ended: Ended = serde_json::from_slice(&answer.body)?;
    if args.json {
        return console::print(format_args!("{:#}\n", json!(ended)));
    }
    console::print(format_args!("{} ended ({})\n", ended.id, ended.reason))
}

/// The flags that name one of several sessions.
fn choices(answer: &Answer) -> anyhow::Result<String> {
    #[derive(Deserialize)]
    struct Ambiguous {
        candidates: Vec<Candidate>,
    }
    #[derive(Deserialize)]
    struct Candidate {
        pool: String,
        tenant: Option<String>,
    }
    let Ambiguous { candidates } = serde_json::from_slice(&answer.body)?;
    let tenants = candidates.iter().any(|candidate| candidate.tenant.is_some());
    let flags = |Candidate { pool, tenant }: Candidate| match tenant {
        Some(tenant) => format!("--pool {} --tenant {}", quote(&pool), quote(&tenant)),
        None if tenants => format!("--pool {} --tenant ''", quote(&pool)),
        None => format!("--pool {}", quote(&pool)),
    };
    Ok(candidates.into_iter().map(flags).collect::<Vec<_>>().join(", or "))
}

/// As one word of a shell: what is suggested is pasted, and a tenant may be called `$(reboot)`.
fn quote(text: &str) -> String {
    // Arguments hold no zero byte, which is all that it refuses.
    shlex::try_quote(text).map_or_else(|_| format!("{text:?}"), std::borrow::Cow::into_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_suggested_is_safe_to_paste() {
        assert_eq!(["acme", "", "$(id)", "it's"].map(quote), ["acme", "''", "'$(id)'", "\"it's\""]);
    }

    #[test]
    fn hostile_ids_stay_in_their_segment_of_the_path() {
        assert_eq!(escape("a/../b?c#d%e"), "a%2F..%2Fb%3Fc%23d%25e");
        assert_eq!(escape("Alice-1_2.3~"), "Alice-1_2.3~");
    }
}
