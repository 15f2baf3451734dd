//! The signals that the daemon minds.

use std::{future::pending, io};

use tokio::{
    select,
    signal::unix::{Signal, SignalKind, signal},
};

/// SIGTERM and SIGINT, which stop the daemon.
#[derive(Debug)]
pub(crate) struct StopSignals {
    terminate: Signal,
    interrupt: Signal,
}

/// SIGHUP, which has the daemon read its configuration again.
#[derive(Debug)]
pub(crate) struct HangUps(Signal);

impl StopSignals {
    pub(crate) fn listen() -> io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// Resolves with the name of the next signal that asks to stop.
    ///
    /// Cancel safe: dropping the future loses no signal.
    pub(crate) async fn next(&mut self) -> &'static str {
        select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

impl HangUps {
    pub(crate) fn listen() -> io::Result<Self> {
        Ok(Self(signal(SignalKind::hangup())?))
    }

    /// Resolves at the next one. Those that come while nobody waits are one.
    ///
    /// Cancel safe: dropping the future loses none.
    pub(crate) async fn next(&mut self) {
        if self.0.recv().await.is_none() {
            // There will be no more.
            pending::<()>().await;
        }
    }
}
