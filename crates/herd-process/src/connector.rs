use std::{
    fmt,
    future::Future,
    io,
    net::{Ipv4Addr, SocketAddr},
    os::fd::{AsRawFd as _, OwnedFd},
    path::{Path, PathBuf},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use herd_pool::{Connect, Protocol};
use hyper::{
    Uri,
    rt::{Read, ReadBufCursor, Write},
};
use hyper_util::{
    client::legacy::connect::{Connected, Connection},
    rt::TokioIo,
};
use rustix::fs::{FileType, Mode, OFlags, fstat, openat};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpSocket, TcpStream, UnixStream},
    time::{Instant, sleep},
};
use tower_service::Service;

use crate::{
    directory::SOCKET,
    listener::{Holder, OwnPort},
    stock::Stock,
};

/// How long a connection to a Unix socket whose queue is full is tried again.
const QUEUE_PATIENCE: Duration = Duration::from_secs(10);

/// How often a connection is opened anew because the worker has replaced its listener meanwhile.
const CONNECT_TRIES: usize = 3;

/// Opens connections to one worker. Cheap to clone.
///
/// Where the worker has a port that others could take, a connection is handed out only if it is certain that the worker
/// listens there; otherwise connecting fails.
///
/// It is a [`Connect`] and also a [`Service`] over [`Uri`] that answers hyper-util and tonic clients: whatever URI they
/// ask for, they reach this worker and nothing else.
#[derive(Clone, Debug)]
pub struct Connector {
    target: Target,
    protocol: Protocol,
}

#[derive(Clone, Debug)]
enum Target {
    /// A port that the worker binds itself.
    Port(Arc<OwnPort>),
    /// A socket that the worker was given: nobody else can have it.
    Inherited(SocketAddr),
    /// A port of the worker's own network, in which nobody else is.
    Private(SocketAddr, Arc<Stock>),
    Unix(Arc<UnixSocket>),
}

/// The Unix socket that a worker makes in a directory which it can change as it likes.
#[derive(Debug)]
struct UnixSocket {
    /// Where the directory is on the host, for people.
    directory: PathBuf,
    run: Arc<OwnedFd>,
}

impl Connector {
    pub(crate) fn port(port: Arc<OwnPort>, protocol: Protocol) -> Self {
        Self { target: Target::Port(port), protocol }
    }

    pub(crate) fn inherited(port: u16, protocol: Protocol) -> Self {
        Self { target: Target::Inherited((Ipv4Addr::LOCALHOST, port).into()), protocol }
    }

    pub(crate) fn private(port: u16, stock: Arc<Stock>, protocol: Protocol) -> Self {
        Self { target: Target::Private((Ipv4Addr::LOCALHOST, port).into(), stock), protocol }
    }

    pub(crate) fn unix(directory: PathBuf, run: Arc<OwnedFd>, protocol: Protocol) -> Self {
        Self { target: Target::Unix(UnixSocket { directory, run }.into()), protocol }
    }

    /// The host to name in requests: the worker's address, or `localhost` for a Unix socket, which has none.
    #[must_use]
    pub fn authority(&self) -> String {
        match &self.target {
            Target::Port(port) => port.address().to_string(),
            Target::Inherited(address) | Target::Private(address, _) => address.to_string(),
            Target::Unix(_) => "localhost".to_owned(),
        }
    }

    /// The worker's port, if it is one that others could take.
    pub(crate) fn own_port(&self) -> Option<&Arc<OwnPort>> {
        match &self.target {
            Target::Port(port) => Some(port),
            Target::Inherited(_) | Target::Private(..) | Target::Unix(_) => None,
        }
    }

    /// Connects to whoever listens, for a caller that finds out itself who that is.
    pub(crate) async fn connect_to_anybody(&self) -> io::Result<Stream> {
        match &self.target {
            Target::Port(port) => connect_tcp(port.address()).await,
            Target::Inherited(address) => connect_tcp(*address).await,
            Target::Private(address, stock) => connect_private(*address, stock).await,
            Target::Unix(socket) => Ok(Stream(Inner::Unix(socket.connect().await?))),
        }
    }
}

impl fmt::Display for Connector {
    /// The worker's internal URI: `http://127.0.0.1:20001`, in its own network for a worker that has one, or
    /// `unix:/run/user/1000/herd-3fa1/worker-1/socket`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.target {
            Target::Port(port) => write!(f, "http://{}", port.address()),
            Target::Inherited(address) | Target::Private(address, _) => write!(f, "http://{address}"),
            Target::Unix(socket) => write!(f, "unix:{}", socket.directory.join(SOCKET).display()),
        }
    }
}

impl Connect for Connector {
    type Stream = Stream;

    async fn connect(&self) -> io::Result<Stream> {
        match &self.target {
            Target::Port(port) => connect_own(port).await,
            Target::Inherited(_) | Target::Private(..) | Target::Unix(_) => self.connect_to_anybody().await,
        }
    }

    fn protocol(&self) -> Protocol {
        self.protocol
    }
}

async fn connect_tcp(address: SocketAddr) -> io::Result<Stream> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(Stream(Inner::Tcp(stream)))
}

/// Connects to a worker's own port and makes sure that it is the worker who listens there.
///
/// Who listens is asked after connecting: the connection belongs to the one who listened while it was opened, and an
/// answer from before says nothing about that moment. An answer from after alone does not either, since another program
/// could have been followed by the worker again. So the sockets that were the worker's before must also be those that
/// listen after: then they have listened all the time. A port can be shared while it has these (SO_REUSEPORT) only if
/// the worker allows it.
async fn connect_own(port: &Arc<OwnPort>) -> io::Result<Stream> {
    let number = port.number();
    for _ in 0..CONNECT_TRIES {
        let trusted = port.trusted();
        let stream = connect_tcp(port.address()).await?;
        match port.holder().await {
            Ok(Holder::Worker) if Arc::ptr_eq(&trusted, &port.trusted()) => return Ok(stream),
            Ok(Holder::Worker) => {}
            Ok(Holder::Nobody) => {
                let problem = format!("the worker does not listen on its port {number} any more");
                return Err(io::Error::new(io::ErrorKind::ConnectionRefused, problem));
            }
            Ok(Holder::Somebody) => {
                let problem = format!("another program listens on the worker's port {number}");
                return Err(io::Error::new(io::ErrorKind::PermissionDenied, problem));
            }
            Err(error) => {
                let problem = format!("who listens on the worker's port {number} cannot be told: {error}");
                return Err(io::Error::new(error.kind(), problem));
            }
        }
    }
    Err(io::Error::other(format!("the worker keeps replacing its listener on port {number}")))
}

/// Connects to the worker's own loopback, with a socket from there.
async fn connect_private(address: SocketAddr, stock: &Arc<Stock>) -> io::Result<Stream> {
    let socket = stock.take().await?;
    let stream = TcpSocket::from_std_stream(socket.into()).connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(Stream(Inner::Tcp(stream)))
}

impl UnixSocket {
    /// Connects to what is a socket in the worker's directory, and never to where a symbolic link leads: what a worker
    /// can put there is a way to nobody but itself.
    async fn connect(&self) -> io::Result<UnixStream> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let socket = openat(&*self.run, SOCKET, flags, Mode::empty())?;
        if FileType::from_raw_mode(fstat(&socket)?.st_mode) != FileType::Socket {
            return Err(io::Error::new(
                io::ErrorKind::ConnectionRefused,
                "the worker made something else of its socket",
            ));
        }
        connect_unix(Path::new(&format!("/proc/self/fd/{}", socket.as_raw_fd()))).await
    }
}

/// A TCP connection waits while the listener's queue is full; a Unix socket refuses with `EAGAIN` (connect(2)), so the
/// waiting is done here.
async fn connect_unix(path: &Path) -> io::Result<UnixStream> {
    let started = Instant::now();
    let mut pause = Duration::from_millis(1);
    loop {
        match UnixStream::connect(path).await {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && started.elapsed() < QUEUE_PATIENCE => {
                sleep(pause).await;
                pause = (pause * 2).min(Duration::from_millis(20));
            }
            result => return result,
        }
    }
}

impl Service<Uri> for Connector {
    type Response = Stream;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Stream>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let connector = self.clone();
        Box::pin(async move { connector.connect().await })
    }
}

/// One connection to a worker: over TCP, without Nagle's delay, or over a Unix socket.
#[derive(Debug)]
pub struct Stream(Inner);

#[derive(Debug)]
enum Inner {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// Calls the same method on whatever the connection is.
macro_rules! delegate {
    ($self:ident.$method:ident($($argument:expr),*)) => {
        match &mut $self.get_mut().0 {
            Inner::Tcp(stream) => Pin::new(stream).$method($($argument),*),
            Inner::Unix(stream) => Pin::new(stream).$method($($argument),*),
        }
    };
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        delegate!(self.poll_read(cx, buffer))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        delegate!(self.poll_write(cx, bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        delegate!(self.poll_write_vectored(cx, buffers))
    }

    fn is_write_vectored(&self) -> bool {
        match &self.0 {
            Inner::Tcp(stream) => stream.is_write_vectored(),
            Inner::Unix(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        delegate!(self.poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        delegate!(self.poll_shutdown(cx))
    }
}

// hyper has read and write traits of its own; this lets its clients use the connection as it is.
impl Read for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        Read::poll_read(Pin::new(&mut TokioIo::new(self.get_mut())), cx, buffer)
    }
}

impl Write for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        AsyncWrite::poll_write(self, cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        AsyncWrite::poll_flush(self, cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        AsyncWrite::poll_shutdown(self, cx)
    }

    fn is_write_vectored(&self) -> bool {
        AsyncWrite::is_write_vectored(self)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        AsyncWrite::poll_write_vectored(self, cx, buffers)
    }
}

impl Connection for Stream {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}
