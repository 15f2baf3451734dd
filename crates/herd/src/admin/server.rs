//! Serves HTTP/1.1 and HTTP/2 on one listener: the admin API on its address, and beside gRPC on the control socket.
//!
//! Whoever connects can make the daemon hold only so much: connections are bounded in all and for each peer, a request
//! head and a TLS handshake have to come in time, and a peer that takes nothing of its answers is cut.

mod connections;
mod room;
mod stream;

use std::{
    convert::Infallible,
    future::Future,
    io,
    net::{IpAddr, SocketAddr},
    pin::pin,
    time::Duration,
};

use axum::{body::Body, response::Response};
use hyper::{
    Request,
    body::Incoming as IncomingBody,
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustix::net::sockopt;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    select,
    task::JoinSet,
    time::{sleep, timeout},
};
use tower_service::Service;

use self::{
    connections::{Activity, Connections, WatchedBody},
    stream::{Protocol, ServedStream},
};
pub(crate) use self::{
    room::{Bounds, Room, Throttle},
    stream::PREFACE,
};

/// How many connections one listener has at once.
const CONNECTIONS: Bounds = Bounds { most: 512, most_of_one: 128, reserve: 64 };
/// How long a handshake, the first bytes that tell the protocol, and each head of an HTTP/1.1 request may take. It is
/// also how long such a connection may wait for its next request.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// How long to wait after a connection could not be accepted, as when no descriptors are left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How often a peer that speaks HTTP/2 is asked whether it is still there, and how long it may take to say so.
const PING_INTERVAL: Duration = Duration::from_secs(30);
/// For how long an HTTP/2 connection may be open while there is nothing to do for it. Its peer may go on to open streams
/// for a moment, and is told not to.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);
/// The longest list of fields of an HTTP/2 request, in bytes.
const MOST_FIELD_BYTES: u32 = 16 * 1024;
/// How much of an HTTP/2 request's body may be on its way, in bytes: requests are small.
const STREAM_WINDOW: u32 = 64 * 1024;
/// The same for all requests of a connection.
const CONNECTION_WINDOW: u32 = 1024 * 1024;
/// How much of an answer is kept for an HTTP/1.1 peer that does not take it, in bytes, beside one piece of the answer. A
/// longer head of a request is refused.
const HTTP1_BUFFER: usize = 64 * 1024;
/// How much the kernel keeps for a peer that does not take it, in bytes; Linux doubles it for its own bookkeeping.
const SEND_BUFFER: usize = 64 * 1024;
/// The same as [`HTTP1_BUFFER`] for each answer to an HTTP/2 peer, which may ask for many at once.
const HTTP2_SEND_BUFFER: usize = 16 * 1024;

/// Where connections come from.
pub(crate) trait Accept: Send + 'static {
    type Incoming: Incoming;

    /// Takes the next connection, without waiting for anything that its peer has to do.
    ///
    /// Cancel safe.
    fn accept(&self) -> impl Future<Output = io::Result<Self::Incoming>> + Send;

    /// How many requests one HTTP/2 connection may have open at once.
    fn most_streams(&self) -> u32 {
        100
    }
}

/// A connection that was accepted.
pub(crate) trait Incoming: Send + 'static {
    type Stream: AsyncRead + AsyncWrite + Send + Unpin + 'static;

    /// Who is at the other end.
    fn peer(&self) -> Peer;

    /// Does what comes before the first byte of HTTP, such as a TLS handshake, in the connection's own task. The server
    /// gives it [`HEADER_TIMEOUT`].
    fn establish(self) -> impl Future<Output = io::Result<Self::Stream>> + Send;
}

/// Who is at the other end of a connection. Each request carries it among its extensions.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Peer {
    /// A process of this host.
    Process {
        /// The ID that it has here; 0 if it has none here.
        pid: i32,
        /// Its user.
        uid: u32,
    },
    Address(SocketAddr),
}

/// What is counted together.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(crate) enum PeerKey {
    Process(i32),
    Host(IpAddr),
}

impl Peer {
    /// `None` where nobody can be told from anybody else: all of loopback is one address.
    pub(crate) fn key(self) -> Option<PeerKey> {
        match self {
            Self::Process { pid, .. } => Some(PeerKey::Process(pid)),
            Self::Address(address) if address.ip().is_loopback() => None,
            Self::Address(address) => Some(PeerKey::Host(address.ip().to_canonical())),
        }
    }
}

impl Accept for TcpListener {
    type Incoming = (TcpStream, SocketAddr);

    async fn accept(&self) -> io::Result<Self::Incoming> {
        TcpListener::accept(self).await
    }
}

impl Incoming for (TcpStream, SocketAddr) {
    type Stream = TcpStream;

    fn peer(&self) -> Peer {
        Peer::Address(self.1)
    }

    async fn establish(self) -> io::Result<TcpStream> {
        // What is told of this moment is of no use if it waits in a large buffer until a slow reader takes it.
        sockopt::set_socket_send_buffer_size(&self.0, SEND_BUFFER)?;
        Ok(self.0)
    }
}

/// Serves for ever. Dropping the future breaks off all its connections.
pub(crate) async fn serve<S>(listener: impl Accept, service: S)
where
    S: Service<Request<IncomingBody>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    let all = Connections::new(Room::new(CONNECTIONS));
    let refusals = Throttle::default();
    let most_streams = listener.most_streams();
    let mut connections = JoinSet::new();
    loop {
        let incoming = listener.accept().await;
        while connections.try_join_next().is_some() {}
        let incoming = match incoming {
            Ok(incoming) => incoming,
            Err(error) => {
                tracing::warn!(%error, "an admin or control connection could not be accepted");
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let peer = incoming.peer();
        // Who finds no room is turned away and does not wait: those behind may be others, for whom there is some.
        let Some(connection) = all.enter(peer.key()) else {
            if let Some(times) = refusals.admit() {
                tracing::warn!(?peer, times, "an admin or control connection was refused: there are too many");
            }
            continue;
        };
        let service = service.clone();
        connections.spawn(async move {
            select! {
                // A connection that breaks is its client's business.
                _ = converse(incoming, peer, service, most_streams, connection.activity.clone()) => {}
                () = connection.evicted() => {}
            }
        });
    }
}

async fn converse<S>(
    incoming: impl Incoming,
    peer: Peer,
    service: S,
    most_streams: u32,
    activity: Activity,
) -> io::Result<()>
where
    S: Service<Request<IncomingBody>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    let established = async { ServedStream::detect(incoming.establish().await?).await };
    let (stream, protocol) = timeout(HEADER_TIMEOUT, established).await??;
    let doing = activity.clone();
    let service = service_fn(move |mut request: Request<IncomingBody>| {
        request.extensions_mut().insert(peer);
        // A clone of routes is always ready, and so is what is made of them.
        let (busy, doing, answer) = (doing.begin(), doing.clone(), service.clone().call(request));
        async move {
            let answer = answer.await?;
            drop(busy);
            Ok::<_, Infallible>(answer.map(|body| WatchedBody::new(body, doing)))
        }
    });
    let stream = TokioIo::new(stream);
    let served = match protocol {
        Protocol::Http1 => {
            let mut server = http1::Builder::new();
            server.timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT).max_buf_size(HTTP1_BUFFER);
            server.serve_connection(stream, service).await
        }
        Protocol::Http2 => {
            let mut server = http2::Builder::new(TokioExecutor::new());
            server
                .timer(TokioTimer::new())
                .keep_alive_interval(PING_INTERVAL)
                .keep_alive_timeout(PING_INTERVAL)
                .max_concurrent_streams(most_streams)
                .max_header_list_size(MOST_FIELD_BYTES)
                .initial_stream_window_size(STREAM_WINDOW)
                .initial_connection_window_size(CONNECTION_WINDOW)
                .max_send_buf_size(HTTP2_SEND_BUFFER);
            let mut connection = pin!(server.serve_connection(stream, service));
            select! {
                served = connection.as_mut() => served,
                () = activity.idle_for(IDLE_TIMEOUT) => {
                    connection.as_mut().graceful_shutdown();
                    timeout(HEADER_TIMEOUT, connection).await?
                }
            }
        }
    };
    served.map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use std::{
        convert::Infallible,
        sync::{
            Arc,
            atomic::{AtomicUsize, Ordering},
        },
    };

    use axum::{Router, body::Bytes, routing::get};
    use futures_util::stream;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};

    use super::*;

    /// What the connection itself holds.
    const PIPE: usize = 1024;
    /// What the service gives at once.
    const PIECE: usize = 16 * 1024;

    impl Incoming for DuplexStream {
        type Stream = Self;

        fn peer(&self) -> Peer {
            Peer::Process { pid: 1, uid: 0 }
        }

        async fn establish(self) -> io::Result<Self> {
            Ok(self)
        }
    }

    /// Sends a request to a service that answers without an end, and counts what it gave.
    async fn asked(head: &str) -> (DuplexStream, Arc<AtomicUsize>, JoinSet<io::Result<()>>) {
        let given = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&given);
        let endless = async move || {
            Body::from_stream(stream::repeat_with(move || {
                counted.fetch_add(PIECE, Ordering::Relaxed);
                Ok::<_, Infallible>(Bytes::from_static(&[b'x'; PIECE]))
            }))
        };
        let (mut peer, ours) = duplex(PIPE);
        let mut served = JoinSet::new();
        served.spawn(converse(
            ours,
            Peer::Process { pid: 1, uid: 0 },
            Router::new().route("/", get(endless)),
            100,
            Activity::default(),
        ));
        // A head that is too long is not read to its end.
        let _ = peer.write_all(head.as_bytes()).await;
        (peer, given, served)
    }

    #[tokio::test(start_paused = true)]
    async fn little_is_kept_for_a_peer_that_takes_nothing_and_then_it_is_cut() {
        let (_peer, given, mut served) = asked("GET / HTTP/1.1\r\nhost: h\r\n\r\n").await;
        // The clock only goes on when nobody has anything left to do.
        sleep(Duration::from_secs(1)).await;
        let kept = given.load(Ordering::Relaxed);
        assert!((HTTP1_BUFFER..=HTTP1_BUFFER + 2 * PIECE).contains(&kept), "{kept}");
        assert!(served.join_next().await.unwrap().unwrap().is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn a_head_that_is_longer_than_the_buffer_is_refused() {
        let fits = format!("GET / HTTP/1.1\r\nhost: h\r\nx: {}\r\n\r\n", "x".repeat(HTTP1_BUFFER - PIPE));
        let too_long = format!("GET / HTTP/1.1\r\nhost: h\r\nx: {}\r\n\r\n", "x".repeat(HTTP1_BUFFER));
        for (head, status) in [(fits, "200"), (too_long, "431")] {
            let (mut peer, _given, _served) = asked(&head).await;
            let mut answer = [0; 12];
            peer.read_exact(&mut answer).await.unwrap();
            assert_eq!(std::str::from_utf8(&answer).unwrap(), format!("HTTP/1.1 {status}"));
        }
    }

    /// Speaks HTTP/2 with a service, and asks for `path` once; how long the connection lasts after that.
    async fn lasts(path: &str, window: u32) -> Duration {
        let never = || async { Body::from_stream(stream::pending::<Result<Bytes, Infallible>>()) };
        let routes = Router::new().route("/", get(|| async { "ok" })).route("/never", get(never));
        let (peer, ours) = duplex(64 * 1024);
        let mut tasks = JoinSet::new();
        tasks.spawn(converse(ours, Peer::Process { pid: 1, uid: 0 }, routes, 100, Activity::default()));
        let client = hyper::client::conn::http2::Builder::new(TokioExecutor::new())
            .initial_stream_window_size(window)
            .handshake::<_, Body>(TokioIo::new(peer));
        let (mut sender, connection) = client.await.unwrap();
        tokio::spawn(connection);
        let request = Request::builder().uri(format!("http://h{path}")).body(Body::empty()).unwrap();
        let answer = sender.send_request(request).await.unwrap();
        let asked = tokio::time::Instant::now();
        let _ = timeout(Duration::from_secs(600), tasks.join_next()).await;
        drop((answer, sender));
        asked.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn an_http2_connection_goes_when_nothing_is_to_be_done_for_it() {
        let (most, least) = (IDLE_TIMEOUT + HEADER_TIMEOUT, IDLE_TIMEOUT);
        let idle = lasts("/", 65535).await;
        assert!((least..=most + Duration::from_secs(1)).contains(&idle), "{idle:?}");
        let takes_nothing = lasts("/", 0).await;
        assert!((least..=most + Duration::from_secs(1)).contains(&takes_nothing), "{takes_nothing:?}");
        assert_eq!(lasts("/never", 65535).await.as_secs(), 600, "a stream that waits for news is held");
    }
}
