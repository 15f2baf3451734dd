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
    /// Follows a stream of events at `path`, from behind the event with the ID `after` if there is one. What is no ID of
    /// the daemon's is not sent.
    ///
    /// # Errors
    /// If the daemon does not answer, and [`Refused`](super::Refused) if it answers anything but 200.
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
        if let Some(after) = after.filter(|after| is_number(after)) {
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

/// Whether an event's ID is one of the daemon's, which are numbers.
pub(super) fn is_number(id: &str) -> bool {
    !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_digit())
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

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::UnixListener,
        time::sleep,
    };

    use super::*;

    const HEAD: &[u8] = b"HTTP/1.1 200 OK\r\nserver: herd/0\r\ncontent-type: text/event-stream\r\n\r\n";

    /// A daemon that sends these pieces, each after so many seconds, and then nothing more.
    fn daemon_sending(pieces: Vec<(u64, &'static [u8])>) -> (Daemon, tempfile::TempDir) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("herd.sock");
        let listener = UnixListener::bind(&path).unwrap();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            assert!(stream.read(&mut [0; 1024]).await.unwrap() > 0);
            for (seconds, bytes) in pieces {
                sleep(Duration::from_secs(seconds)).await;
                stream.write_all(bytes).await.unwrap();
            }
            // It keeps the connection, and takes the next one, by which a command finds out who is silent.
            let _next = listener.accept().await;
            std::future::pending::<()>().await;
        });
        (Daemon::find(Some(path)).unwrap(), directory)
    }

    #[tokio::test(start_paused = true)]
    async fn signs_of_life_keep_a_quiet_stream_and_silence_ends_it() {
        let pieces = vec![(0, HEAD), (40, b":\n\n"), (40, b"data: {\"a\""), (40, b": 1}\n\n")];
        let (daemon, _directory) = daemon_sending(pieces);
        let mut stream = daemon.stream("/v1/events", None).await.unwrap();
        let frame = stream.next().await.unwrap().unwrap();
        assert_eq!(frame.json::<serde_json::Value>().unwrap()["a"], 1);
        let before = Instant::now();
        let error = stream.next().await.unwrap_err().to_string();
        assert!(error.contains("says nothing for 45 s; if its process"), "{error}");
        assert!(before.elapsed() >= QUIET);
    }

    #[tokio::test(start_paused = true)]
    async fn giving_up_on_a_frame_loses_nothing_and_does_not_make_silence_shorter() {
        let (daemon, _directory) = daemon_sending(vec![(0, HEAD), (10, b"data: 1\n"), (10, b"\ndata: 2\n\n")]);
        let mut stream = daemon.stream("/v1/events", None).await.unwrap();
        let mut heard = Vec::new();
        let error = loop {
            match timeout(Duration::from_secs(1), stream.next()).await {
                Ok(Ok(Some(frame))) => heard.push(frame.data),
                Ok(other) => break other.unwrap_err().to_string(),
                Err(_) => {}
            }
        };
        assert_eq!(heard, ["1", "2"]);
        assert!(error.contains("says nothing for 45 s"), "{error}");
    }

    #[tokio::test]
    async fn an_id_that_is_no_number_is_not_asked_for() {
        for (id, is_sent) in [("17", true), ("", false), ("1\u{1}", false), ("1\r\nx: y", false), ("²", false)] {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("herd.sock");
            let listener = UnixListener::bind(&path).unwrap();
            let daemon = Daemon::find(Some(path)).unwrap();
            let serving = async {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = [0; 1024];
                let length = stream.read(&mut request).await.unwrap();
                stream.write_all(HEAD).await.unwrap();
                String::from_utf8(request[..length].to_vec()).unwrap()
            };
            let (request, stream) = tokio::join!(serving, daemon.stream("/v1/events", Some(id)));
            stream.unwrap();
            assert_eq!(request.contains("last-event-id: 17\r\n"), is_sent, "{request}");
            assert_eq!(request.contains("last-event-id"), is_sent, "{request}");
        }
    }

    #[tokio::test]
    async fn a_stream_that_is_cut_is_an_error_and_one_that_ends_is_not() {
        const CHUNKED: &[u8] = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n9\r\ndata: 1\n\n\r\n";
        for (end, is_whole) in [(&b""[..], false), (b"0\r\n\r\n", true)] {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("herd.sock");
            let listener = UnixListener::bind(&path).unwrap();
            let daemon = Daemon::find(Some(path)).unwrap();
            let serving = async {
                let (mut stream, _) = listener.accept().await.unwrap();
                assert!(stream.read(&mut [0; 1024]).await.unwrap() > 0);
                stream.write_all(&[CHUNKED, end].concat()).await.unwrap();
            };
            let reading = async {
                let mut stream = daemon.stream("/v1/events", None).await.unwrap();
                assert_eq!(stream.next().await.unwrap().unwrap().data, "1");
                stream.next().await
            };
            let ((), last) = tokio::join!(serving, reading);
            assert_eq!(last.is_ok_and(|frame| frame.is_none()), is_whole);
        }
    }
}
