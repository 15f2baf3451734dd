//! The built-in worker: a REPL on an embedded script engine (rhai), so that herd shows what it does with nothing else
//! installed.
//!
//! | request | answer |
//! | --- | --- |
//! | `POST /eval` | evaluates the body (a script of up to 1 MiB) and answers with what it printed, line by line, then its value, as `text/plain`; 422 with the message if it fails |
//! | `GET /ws` | the same over a WebSocket: one script per text message, one text message each; failures start with `error: ` |
//! | `GET /` | a page with a prompt |
//! | `GET /health` | 200 at once, also while a script runs |
//!
//! Variables and functions live as long as the worker does. Scripts run one after the other on a thread of their own; a
//! client that goes away takes its script with it. Scripts reach neither files nor the network nor other processes.

mod evaluator;
mod interpreter;
mod listener;
mod page;
mod service;
mod websocket;

use std::{env, path::Path};

use anyhow::Context as _;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::runtime;

use self::{evaluator::Evaluator, listener::Listener};

/// The largest script, in bytes.
const MAX_SCRIPT: usize = 1 << 20;

/// How much memory a worker's own data may take, in bytes. The engine's limits turn most scripts that ask for too much
/// into errors, but they leave gaps (what is assigned into a map is not counted); a script that finds one ends its own
/// session at this limit, and the host does not notice.
const MAX_DATA: u64 = 256 << 20;

/// Serves the REPL until the process is ended.
///
/// It listens on `socket` (a Unix socket) if one is given, else on the socket it inherited (`LISTEN_FDS`, see
/// sd_listen_fds(3)), else on `127.0.0.1:$PORT`.
///
/// # Errors
/// If it cannot listen, or if the thread that evaluates scripts died.
pub(crate) fn run(socket: Option<&Path>) -> anyhow::Result<()> {
    let limit = getrlimit(Resource::Data).maximum.map_or(MAX_DATA, |maximum| maximum.min(MAX_DATA));
    setrlimit(Resource::Data, Rlimit { current: Some(limit), maximum: Some(limit) }).context("cannot limit memory")?;
    // The worker's few connections need no second thread, and one that is not there starts faster.
    let runtime = runtime::Builder::new_current_thread().enable_io().build().context("cannot start the runtime")?;
    runtime.block_on(async {
        let listener = match socket {
            Some(path) => Listener::unix(path)?,
            None => match Listener::inherited()? {
                Some(listener) => listener,
                None => Listener::loopback(env::var("PORT").ok().as_deref()).await?,
            },
        };
        // Only now, so that the engine is built while the first connections already come in.
        let evaluator = Evaluator::start().context("cannot start the thread that evaluates scripts")?;
        listener.serve(evaluator).await
    })
}
