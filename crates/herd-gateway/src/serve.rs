use std::{
    collections::HashMap,
    convert::Infallible,
    future::poll_fn,
    io::{self, ErrorKind},
    net::IpAddr,
    pin::pin,
    sync::{Arc, atomic::Ordering::Relaxed},
    task::Poll,
    time::Duration,
};

use herd_pool::{Connect, WorkerFactory};
use hyper::{
    Request,
    body::Incoming,
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use rustix::net::sockopt;
use rustls::ServerConfig;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    task::{Id, JoinError, JoinSet},
    time::{sleep, timeout},
};

use crate::{
    Gateway,
    client::{Client, Order, Phase},
    counters::Counters,
    failure_kind::FailureKind,
    gateway::Origin,
    stream::{ClientStream, Spoken},
    tasks::Streams,
    tls::{self, Greeted, Socket, Tls},
    upstream::{BUFFER, SWEEP_EVERY},
};

/// How long to wait after the system could not give a connection, for example because no descriptors were left.
const ACCEPT_AGAIN: Duration = Duration::from_millis(50);

/// How long a client may take to read the last response and to close, after the gateway has closed its side.
const LINGER: Duration = Duration::from_secs(1);

/// How many bytes of a request that nobody wants are read away meanwhile.
const LINGER_BYTES: usize = 1 << 20;

/// How many bytes of a response wait for an HTTP/2 client that does not take them, at most.
const HTTP2_SEND_BUFFER: usize = 64 * 1024;

/// How often a client that speaks HTTP/2 and has been silent is asked whether it is still there.
const PING_EVERY: Duration = Duration::from_secs(30);

/// After how much silence the kernel asks a client whether it is there, and how often before it gives up.
const PEER_SILENT_FOR: Duration = Duration::from_secs(60);
const PEER_ASKED_EVERY: Duration = Duration::from_secs(15);
const PEER_ASKED_TIMES: u32 = 4;

impl<F: WorkerFactory> Gateway<F>
where
    F::Worker: Connect,
{
    /// Serves the connections of `listener` until `shutdown` resolves, then until the last one is done.
    ///
    /// After `shutdown`, no connection is accepted, those without a request are closed at once, and the others after
    /// their current response. Upgraded connections go on until one of their sides or their session ends, so drain the
    /// pool at the same time. Dropping the future cuts whatever is left.
    ///
    /// All connections are served by the runtime this is polled in, with connections to workers of their own: for
    /// several serving threads, call it on each of them, with a runtime of its own and a clone of the listener.
    pub async fn serve(&self, listener: TcpListener, shutdown: impl Future<Output = ()>) {
        self.serve_all(listener, None, shutdown).await;
    }

    /// As [`serve`](Self::serve), over TLS. HTTP/2 is spoken with clients that choose it by ALPN (RFC 7301), HTTP/1.1
    /// with all others.
    ///
    /// A handshake is part of the time that a client has for its first request's head, and its connection counts among
    /// all others from the start. A client that speaks HTTP without TLS is told so, by a problem document with the
    /// name `tls-required`.
    pub async fn serve_tls(&self, listener: TcpListener, tls: Arc<Tls>, shutdown: impl Future<Output = ()>) {
        self.serve_all(listener, Some(tls), shutdown).await;
    }

    async fn serve_all(&self, listener: TcpListener, tls: Option<Arc<Tls>>, shutdown: impl Future<Output = ()>) {
        watch_peers(&listener);
        let mut server = Server {
            gateway: self.on_this_thread(),
            connections: JoinSet::new(),
            clients: HashMap::new(),
            tls,
            is_failing: false,
        };
        server.accept_until(&listener, shutdown).await;
        drop(listener);
        server.finish().await;
    }
}

/// One serving thread's connections.
struct Server<F: WorkerFactory>
where
    F::Worker: Connect,
{
    gateway: Gateway<F>,
    connections: JoinSet<()>,
    clients: HashMap<Id, Arc<Client>>,
    /// `None`: plain text is spoken.
    tls: Option<Arc<Tls>>,
    /// Accepting fails at the moment, and that was logged.
    is_failing: bool,
}

impl<F: WorkerFactory> Server<F>
where
    F::Worker: Connect,
{
    async fn accept_until(&mut self, listener: &TcpListener, shutdown: impl Future<Output = ()>) {
        let mut shutdown = pin!(shutdown);
        let room = self.gateway.shared.room.clone();
        let mut accepted = pin!(accept(listener, room.clone(), None));
        let mut tick = pin!(sleep(SWEEP_EVERY));
        loop {
            let sweeps = !self.clients.is_empty() || !self.gateway.upstreams.is_empty();
            tokio::select! {
                () = &mut shutdown => return,
                result = &mut accepted => {
                    if !sweeps {
                        tick.set(sleep(SWEEP_EVERY));
                    }
                    let pause = self.take(result);
                    accepted.set(accept(listener, room.clone(), pause));
                }
                Some(done) = self.connections.join_next_with_id() => self.forget(done),
                () = &mut tick, if sweeps => {
                    self.sweep();
                    tick.set(sleep(SWEEP_EVERY));
                }
            }
        }
    }

    /// Serves an accepted connection, or tells for how long not to accept another one.
    fn take(&mut self, accepted: io::Result<(TcpStream, IpAddr, OwnedSemaphorePermit)>) -> Option<Duration> {
        match accepted {
            Ok((stream, address, permit)) => {
                self.is_failing = false;
                self.gateway.upstreams.clock.refresh();
                let client = Arc::new(Client::new(stream, address, self.gateway.upstreams.clock.clone(), permit));
                let tls = self.tls.as_ref().map(|tls| tls.config());
                let task = self.connections.spawn(connection(self.gateway.clone(), client.clone(), tls));
                self.clients.insert(task.id(), client);
                None
            }
            Err(error) => {
                self.gateway.upstreams.counters.accept_failures.fetch_add(1, Relaxed);
                // These concern the one connection that was to be accepted.
                if matches!(
                    error.kind(),
                    ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset | ErrorKind::Interrupted
                ) {
                    return None;
                }
                if !self.is_failing {
                    tracing::warn!(%error, "no connection can be accepted at the moment; others are served on");
                }
                self.is_failing = true;
                Some(ACCEPT_AGAIN)
            }
        }
    }

    fn sweep(&self) {
        self.gateway.upstreams.clock.refresh();
        self.gateway.upstreams.sweep();
        for client in self.clients.values() {
            client.enforce(&self.gateway.shared.options);
        }
    }

    fn forget(&mut self, done: Result<(Id, ()), JoinError>) {
        let id = match done {
            Ok((id, ())) => id,
            Err(error) => {
                if error.is_panic() {
                    tracing::error!(%error, "the task of a client connection panicked");
                }
                error.id()
            }
        };
        self.clients.remove(&id);
    }

    /// Waits for what is still going on.
    async fn finish(&mut self) {
        for client in self.clients.values() {
            client.give(Order::Finish);
        }
        let mut tick = tokio::time::interval(SWEEP_EVERY);
        while !self.connections.is_empty() {
            tokio::select! {
                Some(done) = self.connections.join_next_with_id() => self.forget(done),
                _ = tick.tick() => self.sweep(),
            }
        }
        self.gateway.upstreams.close_idle();
        self.gateway.upstreams.tasks.finished().await;
    }
}

/// Has the kernel look after clients that vanish without a word, such as a computer that was put to sleep: they would
/// keep their sessions for ever. Accepted sockets take these settings over from their listener (tcp(7)).
fn watch_peers(listener: &TcpListener) {
    let set = || {
        sockopt::set_socket_keepalive(listener, true)?;
        sockopt::set_tcp_keepidle(listener, PEER_SILENT_FOR)?;
        sockopt::set_tcp_keepintvl(listener, PEER_ASKED_EVERY)?;
        sockopt::set_tcp_keepcnt(listener, PEER_ASKED_TIMES)?;
        // What was sent and is not acknowledged is another matter, with a clock of its own.
        sockopt::set_tcp_user_timeout(listener, millis(PEER_SILENT_FOR + PEER_ASKED_EVERY * PEER_ASKED_TIMES))
    };
    if let Err(error) = set() {
        tracing::warn!(%error, "clients that vanish without a word will not be noticed");
    }
}

fn millis(duration: Duration) -> u32 {
    u32::try_from(duration.as_millis()).unwrap_or(u32::MAX)
}

/// Waits, after a pause, until there is room for a connection and one to take it.
async fn accept(
    listener: &TcpListener,
    room: Arc<Semaphore>,
    pause: Option<Duration>,
) -> io::Result<(TcpStream, IpAddr, OwnedSemaphorePermit)> {
    if let Some(pause) = pause {
        sleep(pause).await;
    }
    let permit = room.acquire_owned().await.map_err(io::Error::other)?;
    let (stream, address) = listener.accept().await?;
    // A response is written as a whole, so there is nothing to gain from waiting for more of it.
    stream.set_nodelay(true)?;
    Ok((stream, address.ip(), permit))
}

/// Serves one client connection.
async fn connection<F: WorkerFactory>(gateway: Gateway<F>, client: Arc<Client>, tls: Option<Arc<ServerConfig>>)
where
    F::Worker: Connect,
{
    let counters = gateway.upstreams.counters.clone();
    counters.connections.begin();
    poll_fn(|cx| {
        client.register(cx.waker());
        Poll::Ready(())
    })
    .await;
    let chosen = match tls {
        None => None,
        // A handshake takes much room, and for a short time. Without a result, it was too slow, or the gateway stops.
        Some(config) => {
            Some(unless_ordered(&client, Box::pin(shake_hands(&client, config, &counters))).await.flatten())
        }
    };
    if let Some(None) = chosen {
        counters.handshake_failures.fetch_add(1, Relaxed);
    } else {
        serve(gateway, &client, chosen.flatten()).await;
    }
    if client.order() != Order::Abort
        && let Some(socket) = client.take_back()
    {
        linger(socket).await;
    }
    counters.connections.end();
}

/// Shakes hands, and tells what the client has chosen to speak.
async fn shake_hands(client: &Client, config: Arc<ServerConfig>, counters: &Counters) -> Option<Spoken> {
    let socket = client.begin_handshake()?;
    match tls::greet(socket, config).await {
        Ok(Greeted::Tls(stream)) => {
            let spoken = if tls::speaks_http2(&stream) { Spoken::Http2 } else { Spoken::Http1 };
            client.secure(stream);
            Some(spoken)
        }
        Ok(Greeted::Plain(socket)) => {
            tracing::debug!(client = ?client.address, "a client spoke plain HTTP where TLS is asked for");
            counters.failed(FailureKind::TlsRequired);
            client.refuse(socket);
            None
        }
        Ok(Greeted::Refused { socket, error }) => {
            tracing::debug!(client = ?client.address, %error, "a TLS handshake failed");
            client.refuse(socket);
            None
        }
        Err(error) => {
            tracing::debug!(client = ?client.address, %error, "a connection broke before its TLS handshake");
            None
        }
    }
}

/// Serves a client that has chosen what to speak, or shows it by its first bytes.
async fn serve<F: WorkerFactory>(gateway: Gateway<F>, client: &Arc<Client>, chosen: Option<Spoken>)
where
    F::Worker: Connect,
{
    let mut stream =
        ClientStream::new(client.clone(), gateway.upstreams.counters.clone(), gateway.shared.options.max_header_bytes);
    let spoken = match chosen {
        // What such a client sends is HTTP/1.1 or nothing, whatever it looks like.
        Some(Spoken::Http1) => Some(Ok(Spoken::Http1)),
        // Waiting for the preface here gives it a time limit, and tells those apart who send something else.
        None | Some(Spoken::Http2) => unless_ordered(client, stream.detect()).await,
    };
    match spoken {
        Some(Ok(Spoken::Http1)) if chosen == Some(Spoken::Http2) => drop(stream),
        Some(Ok(Spoken::Http1)) => serve_http1(&gateway, stream, client).await,
        Some(Ok(Spoken::Http2)) => serve_http2(gateway, stream, client).await,
        Some(Err(_)) | None => drop(stream),
    }
}

async fn serve_http1<F: WorkerFactory>(gateway: &Gateway<F>, stream: ClientStream, client: &Arc<Client>)
where
    F::Worker: Connect,
{
    let service = service_fn(|request: Request<Incoming>| async {
        let from = Origin { client: Some(client), address: Some(&client.address) };
        Ok::<_, Infallible>(gateway.answer(request, from).await)
    });
    let mut served = pin!(
        http1::Builder::new()
            // The sweep watches the clock for all connections at once.
            .header_read_timeout(None)
            .max_header_size(gateway.shared.options.max_header_bytes)
            .max_buf_size(BUFFER.max(gateway.shared.options.max_header_bytes))
            .serve_connection(TokioIo::new(stream), service)
            .with_upgrades()
    );
    let mut is_finishing = false;
    poll_fn(|cx| {
        match client.order() {
            Order::Serve => {}
            Order::Finish | Order::CloseIdle if client.phase() == Phase::Idle => return Poll::Ready(()),
            Order::Finish if !is_finishing => {
                is_finishing = true;
                served.as_mut().graceful_shutdown();
            }
            Order::Finish => {}
            // The request came just in time.
            Order::CloseIdle => client.withdraw(Order::CloseIdle),
            Order::HeadTimedOut if client.phase() != Phase::Head => client.withdraw(Order::HeadTimedOut),
            Order::HeadTimedOut => {}
            Order::Abort => return Poll::Ready(()),
        }
        // The client was told what it can be told, and its requests know what became of them.
        served.as_mut().poll(cx).map(drop)
    })
    .await;
}

async fn serve_http2<F: WorkerFactory>(gateway: Gateway<F>, stream: ClientStream, client: &Arc<Client>)
where
    F::Worker: Connect,
{
    let options = gateway.shared.options.clone();
    let service = service_fn(|request: Request<Incoming>| {
        let (gateway, client) = (gateway.clone(), client.clone());
        async move {
            let from = Origin { client: Some(&client), address: Some(&client.address) };
            Ok::<_, Infallible>(gateway.answer(request, from).await)
        }
    });
    let mut served = pin!(
        http2::Builder::new(Streams::default())
            .timer(TokioTimer::new())
            .max_concurrent_streams(options.max_concurrent_streams)
            .max_header_list_size(u32::try_from(options.max_header_bytes).unwrap_or(u32::MAX))
            // What the client does not take is bounded by this, times the streams it may have.
            .max_send_buf_size(HTTP2_SEND_BUFFER)
            .keep_alive_interval(PING_EVERY)
            .serve_connection(TokioIo::new(stream), service)
    );
    let mut is_finishing = false;
    poll_fn(|cx| {
        match client.order() {
            Order::Serve => {}
            Order::Abort => return Poll::Ready(()),
            // In HTTP/2, a client is told to send no further requests before the connection is closed.
            _ if !is_finishing => {
                is_finishing = true;
                served.as_mut().graceful_shutdown();
            }
            _ => {}
        }
        served.as_mut().poll(cx).map(drop)
    })
    .await;
}

/// Waits for the future unless the connection is ordered to do something else before.
async fn unless_ordered<T>(client: &Client, future: impl Future<Output = T>) -> Option<T> {
    let mut future = pin!(future);
    poll_fn(|cx| match client.order() {
        Order::Serve => future.as_mut().poll(cx).map(Some),
        _ => Poll::Ready(None),
    })
    .await
}

/// Closes the gateway's side and reads the client's rest away: a socket that is closed with unread bytes is reset, and
/// the reset may overtake the response.
async fn linger(mut socket: Socket) {
    let read_away = async {
        socket.shutdown().await?;
        // What it says now is of no interest, so it need not be deciphered.
        let stream = socket.tcp_mut();
        let mut rest = vec![0; 16 * 1024];
        let mut left = LINGER_BYTES;
        while left > 0 {
            match stream.read(&mut rest).await? {
                0 => break,
                read => left = left.saturating_sub(read),
            }
        }
        Ok::<_, io::Error>(())
    };
    // The response is on its way; what becomes of the connection after that matters to nobody.
    let _ = timeout(LINGER, read_away).await;
}
