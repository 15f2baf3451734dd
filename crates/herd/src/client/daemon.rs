//! Talks to a running daemon over its control socket.

use std::{
    io,
    path::{Path, PathBuf},
    pin::pin,
    sync::OnceLock,
    time::Duration,
};

use anyhow::{anyhow, bail};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::{HeaderMap, Method, Request, StatusCode, body::Bytes, client::conn::http1, header};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::{net::UnixStream, runtime, select, time::timeout};

use super::{Answer, Refused};
use crate::{
    console,
    control::{RuntimeDir, SocketError, is_live},
};

/// The variable that names the control socket.
const VARIABLE: &str = "HERD_SOCKET";

/// The most that is read of an answer. The longest are lists of a thousand rows.
pub(super) const MOST_BYTES: usize = 64 << 20;
/// How long an answer may take that has nothing to wait for. A daemon that is stopped takes connections all the same.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);
/// After how long somebody who waits is told for what.
const NOTICE: Duration = Duration::from_secs(2);

/// A running daemon.
#[derive(Debug)]
pub(crate) struct Daemon {
    socket: PathBuf,
    /// What it said in its first answer of who it is; `None`: nothing.
    signature: OnceLock<Option<String>>,
}

/// What sends on a connection, and the connection, which has to be polled.
type Exchange = (http1::SendRequest<Empty<Bytes>>, http1::Connection<TokioIo<UnixStream>, Empty<Bytes>>);

impl Daemon {
    /// The daemon at `socket`, else at `$HERD_SOCKET`, else the only one of this user that runs.
    ///
    /// # Errors
    /// If none runs, or several do and none was named.
    pub(crate) fn find(socket: Option<PathBuf>) -> anyhow::Result<Self> {
        let named = socket.or_else(|| std::env::var_os(VARIABLE).filter(|v| !v.is_empty()).map(PathBuf::from));
        if let Some(socket) = named {
            return Ok(Self::at(socket));
        }
        let directories = RuntimeDir::candidates();
        // Somebody else's directory could hold a socket that only claims to be the daemon's.
        let trusted = directories.iter().filter(|directory| directory.distrust().is_none());
        let sockets: Vec<_> = trusted.flat_map(RuntimeDir::sockets).map(|path| (is_live(&path), path)).collect();
        let mut live = sockets.iter().filter(|(live, _)| matches!(live, Ok(true))).map(|(_, path)| path.clone());
        let Some(first) = live.next() else {
            if let Some((_, path)) = sockets.iter().find(|(live, _)| live.as_ref().is_err_and(SocketError::is_denied)) {
                bail!(
                    "this user may not use {}, the control socket of another user's daemon; run the command with sudo, or \
                     name the socket of an own daemon with --socket PATH",
                    path.display()
                );
            }
            if let Some(ignored) = ignored(&directories) {
                return Err(ignored);
            }
            let places: Vec<_> = directories.iter().map(|directory| directory.path().display().to_string()).collect();
            bail!(
                "no daemon of this user runs (there is no live control socket in {}); start one with `herd`, or name its \
                 socket with --socket PATH",
                places.join(" or ")
            );
        };
        let others: Vec<_> = live.map(|path| path.display().to_string()).collect();
        if !others.is_empty() {
            bail!("several daemons run; choose one with --socket: {}, {}", first.display(), others.join(", "));
        }
        Ok(Self::at(first))
    }

    fn at(socket: PathBuf) -> Self {
        Self { socket, signature: OnceLock::new() }
    }

    /// Gets `path` and reads the answer as JSON. Any status but 200 is the error [`Refused`].
    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str) -> anyhow::Result<T> {
        let answer = self.request(Method::GET, path).await?;
        self.read(path, answer)
    }

    /// Reads the answer to a request for `path` as JSON.
    pub(super) fn read<T: DeserializeOwned>(&self, path: &str, answer: Answer) -> anyhow::Result<T> {
        if answer.status != StatusCode::OK {
            return Err(self.refused(path, answer).into());
        }
        serde_json::from_slice(&answer.body).map_err(|error| match self.doubt() {
            Some(doubt) => anyhow!("cannot read what was answered to {path} ({error}): {doubt}"),
            None => anyhow!("cannot read the daemon's answer to {path} ({error}), which is a mistake in herd"),
        })
    }

    pub(super) fn refused(&self, path: &str, answer: Answer) -> Refused {
        Refused { path: path.to_owned(), doubt: self.doubt(), answer }
    }

    /// Remembers who answered.
    pub(super) fn meet(&self, headers: &HeaderMap) {
        self.signature
            .get_or_init(|| headers.get(header::SERVER).and_then(|value| value.to_str().ok()).map(str::to_owned));
    }

    /// Why it may not understand what is asked, or not be understood; `None`: it is of this version.
    pub(super) fn doubt(&self) -> Option<String> {
        const OWN: &str = env!("CARGO_PKG_VERSION");
        let socket = self.socket.display();
        match self.signature.get().and_then(Option::as_deref).and_then(|name| name.strip_prefix("herd/")) {
            Some(OWN) => None,
            Some(version) => Some(format!(
                "the daemon at {socket} is herd {version} and this is herd {OWN}; use the `herd` of the daemon's version, \
                 or restart the daemon with this one"
            )),
            None => Some(format!(
                "what answers on {socket} is no daemon of herd {OWN}; name another socket with --socket PATH, or use the \
                 `herd` of the daemon's version"
            )),
        }
    }

    /// Sends a request without a body, which has nothing to wait for but the daemon.
    pub(crate) async fn request(&self, method: Method, path: &str) -> anyhow::Result<Answer> {
        match timeout(PATIENCE, self.exchange(method, path)).await {
            Ok(answer) => answer,
            Err(_) => Err(self.mute(PATIENCE).await),
        }
    }

    /// The same where the answer may take as long as it likes. It is waited for while the daemon answers anything at
    /// all; `waiting` says on standard error what there is to wait for, unless it is empty.
    pub(crate) async fn request_at_length(&self, method: Method, path: &str, waiting: &str) -> anyhow::Result<Answer> {
        let mut answer = pin!(self.exchange(method, path));
        if let Ok(answer) = timeout(NOTICE, &mut answer).await {
            return answer;
        }
        if !waiting.is_empty() {
            console::complain(waiting);
        }
        loop {
            select! {
                biased;
                answer = &mut answer => return answer,
                alive = self.request(Method::GET, "/healthz") => alive?,
            };
            if let Ok(answer) = timeout(PATIENCE, &mut answer).await {
                return answer;
            }
        }
    }

    /// Why nothing came for that long.
    pub(super) async fn mute(&self, silence: Duration) -> anyhow::Error {
        let peer = UnixStream::connect(&self.socket).await.and_then(|stream| stream.peer_cred());
        let (socket, seconds) = (self.socket.display(), silence.as_secs());
        // Where the service manager made the socket, it is the peer.
        let remedy = match peer.ok().and_then(|peer| peer.pid()).filter(|pid| *pid > 1) {
            Some(pid) => format!("if its process {pid} is stopped, `kill -CONT {pid}` lets it go on; else see its log"),
            None => "see whether its process is stopped, and its log".to_owned(),
        };
        anyhow!("the daemon at {socket} says nothing for {seconds} s; {remedy}")
    }

    pub(super) async fn exchange(&self, method: Method, path: &str) -> anyhow::Result<Answer> {
        let (mut sender, connection) = self.connect().await?;
        let request = Request::builder().method(method).uri(path).header("host", "herd").body(Empty::<Bytes>::new())?;
        // The sender goes with this block, and with it the connection.
        let exchange = async move {
            let response = sender.send_request(request).await.map_err(|error| self.broken(&error))?;
            self.meet(response.headers());
            let status = response.status();
            let body = Limited::new(response.into_body(), MOST_BYTES).collect().await;
            let body = body.map_err(|error| match error.downcast::<hyper::Error>() {
                Ok(error) => self.broken(&error),
                Err(_) => anyhow!("what answers on {} sends more than {MOST_BYTES} bytes", self.socket.display()),
            })?;
            Ok(Answer { status, body: body.to_bytes() })
        };
        // What goes wrong with the connection, the exchange gets to know as well.
        let (answer, _) = tokio::join!(exchange, connection);
        answer
    }

    pub(super) async fn connect(&self) -> anyhow::Result<Exchange> {
        http1::handshake(TokioIo::new(self.dial().await?)).await.map_err(|error| self.broken(&error))
    }

    pub(super) async fn dial(&self) -> anyhow::Result<UnixStream> {
        UnixStream::connect(&self.socket).await.map_err(|error| explain(&self.socket, error))
    }

    /// Why there is no answer, or no more of it.
    pub(super) fn broken(&self, error: &hyper::Error) -> anyhow::Error {
        let socket = self.socket.display();
        if error.is_parse() {
            return anyhow!(
                "what answers on {socket} does not speak HTTP, so it is no herd daemon; name the daemon's socket with \
                 --socket PATH"
            );
        }
        anyhow!("the daemon at {socket} broke the connection off ({error}); see whether it still runs, and its log")
    }
}

/// Runs a command's conversation with the daemon.
///
/// # Errors
/// What the conversation ends with.
pub(crate) fn block_on<T>(conversation: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    runtime::Builder::new_current_thread().enable_all().build()?.block_on(conversation)
}

/// That there is a live socket where it cannot be believed.
fn ignored(directories: &[RuntimeDir]) -> Option<anyhow::Error> {
    directories.iter().find_map(|directory| {
        let distrust = directory.distrust()?;
        let socket = directory.sockets().into_iter().find(|path| matches!(is_live(path), Ok(true)))?;
        let remedy =
            distrust.with(&format!("name the socket with --socket {} if it is the daemon's", socket.display()));
        Some(anyhow!("the live control socket {} is ignored: {remedy}", socket.display()))
    })
}

fn explain(socket: &Path, error: io::Error) -> anyhow::Error {
    let socket = socket.display();
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
            anyhow!("no daemon answers on {socket}; start one with `herd`, or name another socket with --socket PATH")
        }
        io::ErrorKind::WouldBlock => {
            anyhow!(
                "the daemon at {socket} takes no connections: too many wait; see whether it is stopped, and its log"
            )
        }
        io::ErrorKind::PermissionDenied => {
            anyhow!("no permission to use {socket}; run this as the daemon's user or as root")
        }
        _ => anyhow::Error::new(error).context(format!("cannot connect to the daemon at {socket}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_why_no_daemon_answers_has_its_remedy() {
        let said = |kind: io::ErrorKind| explain(Path::new("/run/herd.sock"), kind.into()).to_string();
        let denied = said(io::ErrorKind::PermissionDenied);
        assert_eq!(denied, "no permission to use /run/herd.sock; run this as the daemon's user or as root");
        for kind in [io::ErrorKind::NotFound, io::ErrorKind::ConnectionRefused] {
            assert!(said(kind).contains("start one with `herd`"));
        }
    }
}
