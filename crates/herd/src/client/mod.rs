//! The commands that talk to a running daemon, over its control socket.

mod answer;
pub(crate) mod complete;
mod daemon;
pub(crate) mod end;
pub(crate) mod events;
pub(crate) mod exec;
mod following;
pub(crate) mod logs;
mod named;
pub(crate) mod ps;
pub(crate) mod reload;
mod sse;
pub(crate) mod stats;
mod stream;
mod table;
mod terminal;
pub(crate) mod top;

use self::{
    answer::{Answer, Refused},
    daemon::{Daemon, block_on},
    sse::Frame,
    stream::Stream,
};

/// Prints the problem for programs that read standard output, if the daemon answered one. People read the error.
fn problem_as_json<T>(json: bool, asked: anyhow::Result<T>) -> anyhow::Result<T> {
    if let (true, Some(refused)) = (json, asked.as_ref().err().and_then(|error| error.downcast_ref::<Refused>())) {
        refused.answer.print()?;
    }
    asked
}
