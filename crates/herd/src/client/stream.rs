//! Streams of events from the daemon.

use std::{fmt, future::poll_fn, pin::Pin, time::Duration};

use anyhow::ensure;
use http_body_util::Empty;
use hyper::{
    Method, Request, StatusCode,
    body::{Body as _, Bytes, Incoming},
    client::conn::http1::Connection,
};
use hyper_util::rt::TokioIo;
use tokio::{
    net::UnixStream,
    time::{Instant, timeout, timeout_at},
};

use super::{
    Answer,
    daemon::{Daemon, MOST_BYTES, PATIENCE},
    sse::{Frame, Parser},
};

/// How long a daemon may send nothing on a stream: it says every 15 seconds that it is there.
const QUIET: Duration = Duration::from_secs(45);

/// A stream of server-sent events. Dropping it closes its connection.
#[derive(Debug)]
pub(crate) struct Stream<'a> {
    daemon: &'a Daemon,
    connection: Wire,
    body: Incoming,
    parser: Parser,
    /// When the last bytes came.
    heard: Instant,
}

/// A connection, which does nothing unless it is polled; `None` once it is over.
struct Wire(Option<Connection<TokioIo<UnixStream>, Empty<Bytes>>>);

impl fmt::Debug for Wire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Wire").field(&self.0.is_some()).finish()
    }
}

impl Daemon {
    /// Follows a stream of events at `path`, from behind the event with the ID `after` if there is one.
    ///
    /// # Errors
    /// If the daemon does not answer, and [`Refused`] if it answers anything but 200.
    pub(crate) async fn stream(&self, path: &str, after: Option<&str>) -> anyhow::Result<Stream<'_>> {
        match timeout(PATIENCE, self.open(path, after)).await {
            Ok(stream) => stream,
            Err(_) => Err(self.mute(PATIENCE).await),
        }
    }

    async fn open(&self, path: &str, after: Option<&str>) -> anyhow::Result<Stream<'_>> {
        let (mut sender, connection) = self.connect().await?;
        let mut request = Request::builder()
            .method(Method::GET)
            .uri(path)
            .header("host", "herd")
            .header("accept", "text/event-stream");
        if let Some(after) = after {
            request = request.header("last-event-id", after);
        }
        let mut connection = Wire(Some(connection));
        let mut answer = std::pin::pin!(sender.send_request(request.body(Empty::new())?));
        let response = poll_fn(|cx| {
            connection.poll(cx);
            answer.as_mut().poll(cx)
        });
        let response = response.await.map_err(|error| self.broken(&error))?;
        self.meet(response.headers());
        let (status, body) = (response.status(), response.into_body());
        let mut stream = Stream { daemon: self, connection, body, parser: Parser::default(), heard: Instant::now() };
        if status == StatusCode::OK {
            return Ok(stream);
        }
        let mut body = Vec::new();
        while let Some(bytes) = stream.bytes().await? {
            body.extend_from_slice(&bytes);
            ensure!(body.len() < MOST_BYTES, "what answers on the socket sends more than {MOST_BYTES} bytes");
        }
        Err(self.refused(path, Answer { status, body: body.into() }).into())
    }
}

impl Wire {
    /// What goes wrong with it, the body or the answer gets to know as well.
    fn poll(&mut self, cx: &mut std::task::Context<'_>) {
        if self.0.as_mut().is_some_and(|connection| Pin::new(connection).poll(cx).is_ready()) {
            self.0 = None;
        }
    }
}

impl Stream<'_> {
    /// The next event; `None` when the daemon has ended the stream.
    ///
    /// Cancel safe: dropping the future loses nothing, and the daemon's silence is counted on.
    ///
    /// # Errors
    /// If the connection breaks, nothing comes for too long, not even the daemon's signs of life, or what comes is no
    /// stream of events.
    pub(crate) async fn next(&mut self) -> anyhow::Result<Option<Frame>> {
        loop {
            if let Some(frame) = self.parser.next() {
                return Ok(Some(frame));
            }
            match timeout_at(self.heard + QUIET, self.bytes()).await {
                Ok(Ok(Some(bytes))) => {
                    self.heard = Instant::now();
                    self.parser.feed(&bytes)?;
                }
                Ok(Ok(None)) => return Ok(None),
                Ok(Err(error)) => return Err(error),
                Err(_) => return Err(self.daemon.mute(QUIET).await),
            }
        }
    }

    async fn bytes(&mut self) -> anyhow::Result<Option<Bytes>> {
        loop {
            let frame = poll_fn(|cx| {
                self.connection.poll(cx);
                Pin::new(&mut self.body).poll_frame(cx)
            });
            let Some(frame) = frame.await else { return Ok(None) };
            if let Ok(bytes) = frame.map_err(|error| self.daemon.broken(&error))?.into_data() {
                return Ok(Some(bytes));
            }
        }
    }
}
