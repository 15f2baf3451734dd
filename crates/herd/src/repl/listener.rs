use std::{io, net::Ipv4Addr, path::Path};

use anyhow::{Context as _, bail};
use herd_sandbox::inherited_listeners;
use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, UnixListener},
    task::JoinSet,
};

use super::{
    evaluator::Evaluator,
    service::{Upgrade, respond},
    websocket,
};

/// Where the REPL listens.
pub(super) enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Listener {
    /// Listens on `127.0.0.1:$PORT`.
    pub(super) async fn loopback(port: Option<&str>) -> anyhow::Result<Self> {
        let Some(port) = port else {
            bail!("the REPL does not know where to listen; set PORT, or let `herd` start it");
        };
        let port: u16 = port.parse().with_context(|| format!("PORT is {port:?}; it must be a number up to 65535"))?;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await;
        listener.map(Self::Tcp).with_context(|| format!("cannot listen on 127.0.0.1:{port}"))
    }

    /// Listens on a Unix socket at `path`, which must not exist yet.
    pub(super) fn unix(path: &Path) -> anyhow::Result<Self> {
        UnixListener::bind(path).map(Self::Unix).with_context(|| format!("cannot listen on {}", path.display()))
    }

    /// The socket that whoever started this process opened for it, if there is one.
    pub(super) fn inherited() -> anyhow::Result<Option<Self>> {
        let sockets = inherited_listeners().context("LISTEN_FDS is set, but the socket cannot be taken over")?;
        let count = sockets.len();
        let mut sockets = sockets.into_iter();
        let socket = match (sockets.next(), count) {
            (None, _) => return Ok(None),
            (Some(socket), 1) => socket,
            (Some(_), _) => bail!("LISTEN_FDS is {count}; the REPL listens on exactly one socket"),
        };
        let unix = rustix::net::getsockname(&socket).context("descriptor 3 is not a socket")?.address_family()
            == rustix::net::AddressFamily::UNIX;
        let listener = if unix {
            let listener = std::os::unix::net::UnixListener::from(socket);
            listener.set_nonblocking(true).and_then(|()| UnixListener::from_std(listener)).map(Self::Unix)
        } else {
            let listener = std::net::TcpListener::from(socket);
            listener.set_nonblocking(true).and_then(|()| TcpListener::from_std(listener)).map(Self::Tcp)
        };
        listener.map(Some).context("cannot listen on the inherited descriptor 3")
    }

    /// Serves connections for good. Dropping the future closes all of them.
    ///
    /// # Errors
    /// If the thread that evaluates scripts is gone.
    pub(super) async fn serve(self, evaluator: Evaluator) -> anyhow::Result<()> {
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                accepted = self.accept() => match accepted {
                    Ok(stream) => {
                        connections.spawn(serve_connection(stream, evaluator.clone()));
                    }
                    // accept(2) reports errors of the one connection, or of a descriptor limit. The REPL goes on as soon
                    // as a connection of its own ends, which is what gives descriptors back.
                    Err(_) => {
                        if connections.join_next().await.is_none() {
                            tokio::task::yield_now().await;
                        }
                    }
                },
                Some(_) = connections.join_next() => {}
                () = evaluator.died() => bail!("the thread that evaluates scripts died"),
            }
        }
    }

    async fn accept(&self) -> io::Result<Box<dyn Stream>> {
        match self {
            Self::Tcp(listener) => {
                let (stream, _) = listener.accept().await?;
                stream.set_nodelay(true)?;
                Ok(Box::new(stream))
            }
            Self::Unix(listener) => Ok(Box::new(listener.accept().await?.0)),
        }
    }
}

/// A connection of either kind.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// Serves one connection: HTTP requests, and then perhaps a WebSocket.
async fn serve_connection(stream: Box<dyn Stream>, evaluator: Evaluator) {
    let upgrade = Upgrade::default();
    let service = service_fn(|request| respond(request, &evaluator, &upgrade));
    // What goes wrong on a connection is known to the client, and nobody else cares.
    let served = http1::Builder::new().serve_connection(TokioIo::new(stream), service).with_upgrades().await;
    if served.is_ok()
        && let Some(upgrade) = upgrade.take()
        && let Ok(stream) = upgrade.await
    {
        websocket::converse(TokioIo::new(stream), &evaluator).await;
    }
}
