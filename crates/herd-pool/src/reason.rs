use std::fmt;

use crate::ExitStatus;

/// Why a session ended. Every session ends with exactly one of these.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum EndReason {
    /// Somebody who had the right to ended it.
    Released,
    /// Nobody used it for the pool's `ttl`.
    Idle,
    /// It reached the pool's `max_lifetime`.
    MaxLifetime,
    /// It was the longest idle session when another one needed room (`when_full: evict-idle`).
    Evicted,
    /// Somebody killed it.
    Killed,
    /// Its worker ended by itself.
    Crashed(ExitStatus),
    /// Its worker went over the memory limit.
    OutOfMemory,
    /// Its worker failed its liveness check.
    Unhealthy,
    /// The client stream that owned it ended.
    ClientStreamClosed,
    /// It ended while the pool was draining.
    Drained,
    /// The pool shut down.
    Shutdown,
}

impl EndReason {
    /// The reason's name in metrics, events and WebSocket close frames: lower case, words joined by `-`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Released => "released",
            Self::Idle => "idle",
            Self::MaxLifetime => "max-lifetime",
            Self::Evicted => "evicted",
            Self::Killed => "killed",
            Self::Crashed(_) => "crashed",
            Self::OutOfMemory => "out-of-memory",
            Self::Unhealthy => "unhealthy",
            Self::ClientStreamClosed => "client-stream-closed",
            Self::Drained => "drained",
            Self::Shutdown => "shutdown",
        }
    }

    /// Whether the worker failed, as opposed to somebody having ended the session.
    #[must_use]
    pub fn is_failure(self) -> bool {
        matches!(self, Self::Crashed(_) | Self::OutOfMemory | Self::Unhealthy)
    }
}

impl fmt::Display for EndReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Crashed(status) => write!(f, "crashed ({status})"),
            other => f.write_str(&other.name().replace('-', " ")),
        }
    }
}
