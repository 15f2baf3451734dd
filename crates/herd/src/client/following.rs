//! Streams that go on where they broke off.

use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use serde::Deserialize;
use tokio::time::sleep;

use super::{Daemon, Frame, Stream, stream::is_number};

/// How often in a row a connection may break off without anything new on it.
const ATTEMPTS: u32 = 5;
/// Between two of these.
const PAUSE: Duration = Duration::from_secs(1);

/// A stream with numbered events. Where its connection breaks off or was read too slowly, it is opened again behind the
/// last event that came.
#[derive(Debug)]
pub(super) struct Following<'a> {
    daemon: &'a Daemon,
    path: String,
    /// When the daemon was started: another one counts anew.
    started: String,
    stream: Option<Stream<'a>>,
    /// The ID of the last event that came.
    last: Option<String>,
    /// How often it was opened since.
    attempts: u32,
}

/// What a stream says.
#[derive(Debug)]
pub(super) enum Told {
    Frame(Frame),
    /// So many are not kept any more.
    Missed(u64),
    /// It is over, for this reason of the daemon's: `worker-gone` or `stopping`.
    End(String),
}

/// The part of the stats that tells one daemon from another.
#[derive(Deserialize)]
struct Identity {
    started: String,
}

impl<'a> Following<'a> {
    /// Follows `path`, from behind the event with the ID `after` if there is one.
    ///
    /// # Errors
    /// As [`Daemon::stream`].
    pub(super) async fn begin(daemon: &'a Daemon, path: String, after: Option<String>) -> anyhow::Result<Self> {
        let Identity { started } = daemon.get("/v1/stats").await?;
        let stream = daemon.stream(&path, after.as_deref()).await?;
        Ok(Self { daemon, path, started, stream: Some(stream), last: after, attempts: 0 })
    }

    /// What comes next; waits for it.
    ///
    /// # Errors
    /// If the daemon is gone, or was started anew.
    pub(super) async fn next(&mut self) -> anyhow::Result<Told> {
        #[derive(Deserialize)]
        struct Missed {
            count: u64,
        }
        #[derive(Deserialize)]
        struct End {
            reason: String,
        }
        let mut broken = None;
        loop {
            let stream = match &mut self.stream {
                Some(stream) => stream,
                None => {
                    let opened = self.reopen(broken.take()).await?;
                    self.stream.insert(opened)
                }
            };
            let frame = match stream.next().await {
                Ok(Some(frame)) => frame,
                Ok(None) => {
                    self.stream = None;
                    continue;
                }
                Err(error) => {
                    (self.stream, broken) = (None, Some(error));
                    continue;
                }
            };
            match frame.name.as_str() {
                "missed" => return Ok(Told::Missed(frame.json::<Missed>()?.count)),
                "end" => return Ok(Told::End(frame.json::<End>()?.reason)),
                // What is gone by now is told when the stream goes on.
                "dropped" => self.stream = None,
                _ => {
                    self.attempts = 0;
                    self.last = Some(frame.id.clone()).filter(|id| is_number(id)).or(self.last.take());
                    return Ok(Told::Frame(frame));
                }
            }
        }
    }

    async fn reopen(&mut self, broken: Option<anyhow::Error>) -> anyhow::Result<Stream<'a>> {
        self.attempts += 1;
        if self.attempts > ATTEMPTS {
            return Err(broken.unwrap_or_else(|| anyhow!("the daemon ends the stream again and again; see its log")));
        }
        if self.attempts > 1 {
            sleep(PAUSE).await;
        }
        let now: Identity = self.daemon.get("/v1/stats").await.context("the daemon went away")?;
        if now.started != self.started {
            bail!("the daemon was started anew meanwhile, and its sessions and workers are others; ask again");
        }
        self.daemon.stream(&self.path, self.last.as_deref()).await
    }
}
