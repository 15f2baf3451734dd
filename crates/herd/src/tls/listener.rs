use std::{io, net::SocketAddr, sync::Arc};

use herd_gateway::Tls;
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use crate::admin::server::{Accept, Incoming, Peer};

/// A listener of the admin API whose connections speak TLS.
#[derive(Debug)]
pub(crate) struct TlsListener {
    listener: TcpListener,
    tls: Arc<Tls>,
}

impl TlsListener {
    pub(crate) fn new(listener: TcpListener, tls: Arc<Tls>) -> Self {
        Self { listener, tls }
    }
}

impl Accept for TlsListener {
    type Incoming = TlsIncoming;

    async fn accept(&self) -> io::Result<TlsIncoming> {
        let (stream, address) = self.listener.accept().await?;
        Ok(TlsIncoming { stream, address, config: self.tls.config() })
    }
}

/// A connection before its handshake.
#[derive(Debug)]
pub(crate) struct TlsIncoming {
    stream: TcpStream,
    address: SocketAddr,
    config: Arc<ServerConfig>,
}

impl Incoming for TlsIncoming {
    type Stream = TlsStream<TcpStream>;

    fn peer(&self) -> Peer {
        Peer::Address(self.address)
    }

    async fn establish(self) -> io::Result<Self::Stream> {
        let stream = (self.stream, self.address).establish().await?;
        TlsAcceptor::from(self.config).accept(stream).await
    }
}
