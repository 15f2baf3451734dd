//! Talks to a running daemon over its control socket.

use std::{
    io,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, anyhow, bail};
use http_body_util::{BodyExt as _, Empty};
use hyper::{Method, Request, StatusCode, body::Bytes, client::conn::http1};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::{net::UnixStream, runtime};

use super::{RuntimeDir, socket::is_live};

/// The variable that names the control socket.
const VARIABLE: &str = "HERD_SOCKET";

/// A running daemon.
#[derive(Debug)]
pub(crate) struct Daemon {
    socket: PathBuf,
}

/// What a daemon answered.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) body: Bytes,
}

impl Daemon {
    /// The daemon at `socket`, else at `$HERD_SOCKET`, else the only one of this user that runs.
    ///
    /// # Errors
    /// If none runs, or several do and none was named.
    pub(crate) fn find(socket: Option<PathBuf>) -> anyhow::Result<Self> {
        let named = socket.or_else(|| std::env::var_os(VARIABLE).filter(|v| !v.is_empty()).map(PathBuf::from));
        if let Some(socket) = named {
            return Ok(Self { socket });
        }
        let directories = RuntimeDir::candidates();
        // Somebody else's directory could hold a socket that only claims to be the daemon's.
        let trusted = directories.iter().filter(|directory| directory.verify().is_ok());
        let mut live = trusted.flat_map(RuntimeDir::sockets).filter(|path| is_live(path).unwrap_or(false));
        let Some(first) = live.next() else {
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
        Ok(Self { socket: first })
    }

    /// Gets `path` and reads the answer as JSON.
    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str) -> anyhow::Result<T> {
        let answer = self.request(Method::GET, path).await?;
        if answer.status != StatusCode::OK {
            bail!("the daemon answered {} to {path}: {}", answer.status, answer.detail());
        }
        serde_json::from_slice(&answer.body).with_context(|| {
            format!("cannot read the daemon's answer to {path}; is it of another version than this command?")
        })
    }

    /// Sends a request without a body.
    pub(crate) async fn request(&self, method: Method, path: &str) -> anyhow::Result<Answer> {
        let stream = UnixStream::connect(&self.socket).await.map_err(|error| explain(&self.socket, error))?;
        let broken = || format!("the daemon at {} broke the connection off", self.socket.display());
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.with_context(broken)?;
        let request = Request::builder().method(method).uri(path).header("host", "herd").body(Empty::<Bytes>::new())?;
        // The sender goes with this block, and with it the connection.
        let exchange = async move {
            let response = sender.send_request(request).await?;
            let status = response.status();
            let body = response.into_body().collect().await?.to_bytes();
            Ok::<_, hyper::Error>(Answer { status, body })
        };
        // What goes wrong with the connection, the exchange gets to know as well.
        let (answer, _) = tokio::join!(exchange, connection);
        answer.with_context(broken)
    }
}

/// Runs a command's conversation with the daemon.
///
/// # Errors
/// What the conversation ends with.
pub(crate) fn block_on<T>(conversation: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    runtime::Builder::new_current_thread().enable_io().build()?.block_on(conversation)
}

impl Answer {
    /// What a problem document says, or nothing.
    pub(crate) fn detail(&self) -> String {
        let problem: Option<serde_json::Value> = serde_json::from_slice(&self.body).ok();
        let detail = problem.as_ref().and_then(|problem| problem.get("detail")).and_then(serde_json::Value::as_str);
        detail.unwrap_or("it gives no reason").to_owned()
    }
}

fn explain(socket: &Path, error: io::Error) -> anyhow::Error {
    let socket = socket.display();
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
            anyhow!("no daemon answers on {socket}; start one with `herd`, or name another socket with --socket PATH")
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
