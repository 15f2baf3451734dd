//! `herd end SESSION`.

use anyhow::{bail, ensure};
use hyper::{Method, StatusCode};
use serde::Deserialize;
use serde_json::json;

use crate::{
    admin::model::Ended,
    cli::EndArgs,
    console,
    control::client::{self, Answer, Daemon},
};

/// Ends a session of a running daemon and waits until its worker is gone.
///
/// # Errors
/// If there is no such session, or no daemon to ask.
pub(crate) fn run(args: EndArgs) -> anyhow::Result<()> {
    let id = args.session;
    let daemon = Daemon::find(args.daemon.socket)?;
    let mut path = format!("/v1/sessions/{}?force={}", escape(id.as_str()), args.force);
    for (name, value) in [("pool", args.pool), ("tenant", args.tenant)] {
        path.extend(value.map(|value| format!("&{name}={}", escape(&value))));
    }
    let answer = client::block_on(daemon.request(Method::DELETE, &path))?;
    match answer.status {
        StatusCode::NOT_FOUND => bail!("there is no session {id}; `herd ps` lists those that live"),
        StatusCode::CONFLICT => bail!("there are several sessions {id}; choose one with {}", choices(&answer)?),
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
        Some(tenant) => format!("--pool {pool} --tenant {tenant}"),
        None if tenants => format!("--pool {pool} --tenant ''"),
        None => format!("--pool {pool}"),
    };
    Ok(candidates.into_iter().map(flags).collect::<Vec<_>>().join(", or "))
}

/// Percent-encodes all but the unreserved characters of RFC 3986 §2.3.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            escaped.push_str(&format!("%{byte:02X}"));
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_ids_stay_in_their_segment_of_the_path() {
        assert_eq!(escape("a/../b?c#d%e"), "a%2F..%2Fb%3Fc%23d%25e");
        assert_eq!(escape("Alice-1_2.3~"), "Alice-1_2.3~");
    }
}
