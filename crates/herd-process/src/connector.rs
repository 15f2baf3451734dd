use std::{
    fmt,
    future::Future,
    io,
    net::{Ipv4Addr, SocketAddr},
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
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpStream, UnixStream},
    time::{Instant, sleep},
};
use tower_service::Service;

/// How long a connection to a Unix socket whose queue is full is tried again.
const QUEUE_PATIENCE: Duration = Duration::from_secs(10);

/// Opens connections to one worker. Cheap to clone.
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
    Tcp(SocketAddr),
    Unix(Arc<Path>),
}

impl Connector {
    pub(crate) fn tcp(port: u16, protocol: Protocol) -> Self {
        Self { target: Target::Tcp((Ipv4Addr::LOCALHOST, port).into()), protocol }
    }

    pub(crate) fn unix(path: PathBuf, protocol: Protocol) -> Self {
        Self { target: Target::Unix(path.into()), protocol }
    }

    /// The host to name in requests: the worker's address, or `localhost` for a Unix socket, which has none.
    #[must_use]
    pub fn authority(&self) -> String {
        match &self.target {
            Target::Tcp(address) => address.to_string(),
            Target::Unix(_) => "localhost".to_owned(),
        }
    }
}

impl fmt::Display for Connector {
    /// The worker's internal URI: `http://127.0.0.1:20001` or `unix:/run/user/1000/herd-3fa1/worker-1/socket`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.target {
            Target::Tcp(address) => write!(f, "http://{address}"),
            Target::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl Connect for Connector {
    type Stream = Stream;

    async fn connect(&self) -> io::Result<Stream> {
        match &self.target {
            Target::Tcp(address) => {
                let stream = TcpStream::connect(address).await?;
                stream.set_nodelay(true)?;
                Ok(Stream(Inner::Tcp(stream)))
            }
            Target::Unix(path) => Ok(Stream(Inner::Unix(connect_unix(path).await?))),
        }
    }

    fn protocol(&self) -> Protocol {
        self.protocol
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
