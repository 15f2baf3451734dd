use std::{future::Future, io};

use tokio::io::{AsyncRead, AsyncWrite};

/// What a worker speaks on the byte streams that [`Connect`] opens to it.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub enum Protocol {
    /// HTTP/1.1 (RFC 9112).
    #[default]
    Http1,
    /// HTTP/2 with prior knowledge (RFC 9113 §3.3), which gRPC needs.
    Http2,
}

/// Opens byte streams to a worker.
///
/// The pool never calls this; whoever talks to workers (the gateway, a typed client) does.
pub trait Connect: Send + Sync {
    /// One connection to the worker.
    type Stream: AsyncRead + AsyncWrite + Send + Unpin + 'static;

    /// Opens a new connection.
    ///
    /// Cancel safe: dropping the future abandons the connection.
    ///
    /// # Errors
    /// Whatever the operating system says of the attempt, for example that nothing listens.
    fn connect(&self) -> impl Future<Output = io::Result<Self::Stream>> + Send;

    /// What is spoken on the connections. The default is [`Protocol::Http1`].
    fn protocol(&self) -> Protocol {
        Protocol::Http1
    }
}
