//! TLS: what handshakes need, handshakes, and the stream that comes of one.

use std::{
    fmt, io,
    pin::Pin,
    sync::{Arc, PoisonError, RwLock},
    task::{Context, Poll, ready},
};

use hyper::StatusCode;
use rustls::{
    ServerConfig,
    crypto::aws_lc_rs,
    server::NoServerSessionStorage,
    sign::{CertifiedKey, SingleCertAndKey},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf},
    net::TcpStream,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use crate::{failure_kind::FailureKind, stream};

const HTTP2: &[u8] = b"h2";
const HTTP1: &[u8] = b"http/1.1";

/// A certificate with its key, and what else handshakes need. The certificate can be replaced while it is in use.
///
/// TLS 1.2 and 1.3 are spoken, as rustls with aws-lc-rs does it: there is no renegotiation and no early data, and
/// sessions are resumed by tickets whose keys are made anew every six hours and with every certificate. HTTP/2 and
/// HTTP/1.1 are offered by ALPN (RFC 7301). The server's name that a client asks for is not looked at: everybody gets
/// the same certificate.
pub struct Tls {
    current: RwLock<Arc<ServerConfig>>,
}

impl Tls {
    /// TLS with this certificate, for [`Gateway::serve_tls`](crate::Gateway::serve_tls). The certificate's chain begins with that of the server itself, and the key belongs to that one.
    ///
    /// # Errors
    /// If the system gives no random bytes for the keys of tickets.
    pub fn new(certificate: CertifiedKey) -> Result<Self, rustls::Error> {
        Ok(Self { current: RwLock::new(config(certificate)?) })
    }

    /// Uses another certificate for handshakes that begin from now on. Connections that are there go on, but cannot be
    /// resumed: whoever connects again sees the new certificate.
    ///
    /// # Errors
    /// As [`new`](Self::new); then the certificate stays what it was.
    pub fn replace(&self, certificate: CertifiedKey) -> Result<(), rustls::Error> {
        let config = config(certificate)?;
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = config;
        Ok(())
    }

    /// What a handshake that begins now uses, for servers other than the gateway.
    #[must_use]
    pub fn config(&self) -> Arc<ServerConfig> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").finish_non_exhaustive()
    }
}

fn config(certificate: CertifiedKey) -> Result<Arc<ServerConfig>, rustls::Error> {
    let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(certificate)));
    config.alpn_protocols = vec![HTTP2.to_vec(), HTTP1.to_vec()];
    // The clients keep the sessions, sealed, so that however many there are, they take no memory here.
    config.ticketer = aws_lc_rs::Ticketer::new()?;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    Ok(Arc::new(config))
}

/// A client's connection after its first bytes.
pub(crate) enum Greeted {
    /// The handshake is done.
    Tls(Box<TlsStream<Wire>>),
    /// The client does not speak TLS, and was told that it must.
    Plain(TcpStream),
    /// The handshake failed, and the client was told why.
    Refused { socket: TcpStream, error: io::Error },
}

/// Whether the client has chosen HTTP/2.
pub(crate) fn speaks_http2(stream: &TlsStream<Wire>) -> bool {
    stream.get_ref().1.alpn_protocol() == Some(HTTP2)
}

/// Shakes hands.
///
/// # Errors
/// If the connection broke.
pub(crate) async fn greet(mut socket: TcpStream, config: Arc<ServerConfig>) -> io::Result<Greeted> {
    let mut first = [0];
    socket.peek(&mut first).await?;
    // A handshake begins with 22 (RFC 8446 §5.1), a method with a letter.
    if first[0].is_ascii_alphabetic() {
        socket.write_all(plain_refusal().as_bytes()).await?;
        return Ok(Greeted::Plain(socket));
    }
    let wire = Wire { tcp: socket, moved: false };
    Ok(match TlsAcceptor::from(config).accept(wire).into_fallible().await {
        Ok(stream) => Greeted::Tls(Box::new(stream)),
        Err((error, wire)) => Greeted::Refused { socket: wire.tcp, error },
    })
}

/// What a client hears that speaks HTTP without TLS.
fn plain_refusal() -> String {
    let detail = "this address speaks HTTP over TLS only: use https:// (or wss://)";
    stream::refusal(StatusCode::BAD_REQUEST, FailureKind::TlsRequired, detail)
}

/// The socket of a client.
#[derive(Debug)]
pub(crate) enum Socket {
    Plain(TcpStream),
    Tls(Box<TlsStream<Wire>>),
}

impl Socket {
    pub(crate) fn tcp(&self) -> &TcpStream {
        match self {
            Self::Plain(tcp) => tcp,
            Self::Tls(stream) => &stream.get_ref().0.tcp,
        }
    }

    pub(crate) fn tcp_mut(&mut self) -> &mut TcpStream {
        match self {
            Self::Plain(tcp) => tcp,
            Self::Tls(stream) => &mut stream.get_mut().0.tcp,
        }
    }

    /// Whether bytes have moved below TLS since this was last asked.
    pub(crate) fn has_moved(&mut self) -> bool {
        match self {
            Self::Plain(_) => false,
            Self::Tls(stream) => std::mem::take(&mut stream.get_mut().0.moved),
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_read(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_write(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_write_vectored(cx, bufs),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

/// What lies below TLS. It notes that bytes move: a record that comes or goes slowly, but does, is no standstill.
#[derive(Debug)]
pub(crate) struct Wire {
    tcp: TcpStream,
    moved: bool,
}

impl AsyncRead for Wire {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.tcp).poll_read(cx, buf))?;
        self.moved = true;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.tcp).poll_write(cx, buf))?;
        self.moved = true;
        Poll::Ready(Ok(written))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.tcp).poll_write_vectored(cx, bufs))?;
        self.moved = true;
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        self.tcp.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_shutdown(cx)
    }
}
