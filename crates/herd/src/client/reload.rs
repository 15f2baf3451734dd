//! `herd reload`.

use anyhow::bail;
use hyper::{Method, StatusCode};
use serde_json::Value;

use super::{Answer, Daemon, block_on, problem_as_json};
use crate::{
    cli::ReloadArgs,
    console,
    reload::{Change, Reloaded},
};

/// Has a running daemon read its configuration again, and says what has changed.
///
/// # Errors
/// If nothing was changed, with everything that is wrong.
pub(crate) fn run(args: ReloadArgs) -> anyhow::Result<()> {
    let ReloadArgs { json, daemon } = args;
    let daemon = Daemon::find(daemon.socket)?;
    let answer = block_on(daemon.request_at_length(
        Method::POST,
        "/v1/reload",
        "the daemon looks at the configuration and at what it needs of the host",
    ))?;
    if answer.status == StatusCode::UNPROCESSABLE_ENTITY {
        if json {
            answer.print()?;
        }
        return refused(&answer, json);
    }
    let reloaded: Reloaded = problem_as_json(json, daemon.read("/v1/reload", answer))?;
    if json { console::print_json(&reloaded) } else { console::print(told(&reloaded)) }
}

/// Lists what is wrong, as `herd check` does.
fn refused(answer: &Answer, json: bool) -> anyhow::Result<()> {
    let problem: Value = serde_json::from_slice(&answer.body)?;
    let mistakes = problem["mistakes"].as_array().map_or(&[][..], Vec::as_slice);
    let mistakes: Vec<_> = mistakes.iter().filter_map(Value::as_str).collect();
    if mistakes.is_empty() {
        bail!("{}", answer.detail());
    }
    if !json {
        console::print(format_args!("{}\n", mistakes.join("\n")))?;
    }
    bail!("the configuration was not reloaded, and nothing has changed")
}

fn told(reloaded: &Reloaded) -> String {
    let Reloaded { pools, settings } = reloaded;
    if settings.is_empty() && pools.iter().all(|pool| pool.change == Change::Unchanged) {
        return "nothing has changed\n".to_owned();
    }
    let pools = pools.iter().map(|pool| format!("pool {}: {}\n", pool.pool, pool.change.name()));
    pools.chain(settings.iter().map(|setting| format!("{setting}: changed\n"))).collect()
}
