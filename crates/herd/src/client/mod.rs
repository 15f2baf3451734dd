//! The commands that talk to a running daemon, over its control socket.

mod daemon;
pub(crate) mod end;
pub(crate) mod ps;
pub(crate) mod reload;
mod sse;
mod stream;
mod table;

use self::{
    daemon::{Answer, Daemon, Refused, block_on},
    sse::Frame,
    stream::Stream,
};
