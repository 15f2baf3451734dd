//! A gateway in front of one server that runs already: `proxy LISTEN UPSTREAM`, for example
//! `proxy 127.0.0.1:8080 127.0.0.1:9000`.
//!
//! Every session is served by that server. It shows how to put the gateway in front of workers of your own, and
//! measures what the gateway itself costs.
#![forbid(unsafe_code)]

use std::{future::pending, io, net::SocketAddr};

use herd_gateway::{Gateway, GatewayOptions};
use herd_pool::{Connect, Exit, HealthError, Pool, SpawnError, Worker, WorkerFactory, WorkerId};
use tokio::net::{TcpListener, TcpStream};

/// A worker that is a server at some address, and that nobody started or will end.
struct Server {
    id: WorkerId,
    address: SocketAddr,
    uri: String,
}

impl Worker for Server {
    type Client = SocketAddr;

    fn id(&self) -> WorkerId {
        self.id
    }

    fn address(&self) -> &str {
        &self.uri
    }

    fn client(&self) -> &SocketAddr {
        &self.address
    }

    async fn healthy(&self) -> Result<(), HealthError> {
        TcpStream::connect(self.address).await.map(drop).map_err(HealthError::new)
    }

    fn exited(&self) -> impl Future<Output = Exit> + Send + 'static {
        pending()
    }

    async fn close(&self) {}
}

impl Connect for Server {
    type Stream = TcpStream;

    async fn connect(&self) -> io::Result<TcpStream> {
        let stream = TcpStream::connect(self.address).await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }
}

/// "Starts" servers at one address.
struct Servers(SocketAddr);

impl WorkerFactory for Servers {
    type Worker = Server;

    async fn spawn(&self, id: WorkerId) -> Result<Server, SpawnError> {
        Ok(Server { id, address: self.0, uri: format!("http://{}", self.0) })
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut addresses = std::env::args().skip(1).map(|address| address.parse::<SocketAddr>());
    let (Some(listen), Some(upstream)) = (addresses.next(), addresses.next()) else {
        return Err("usage: proxy LISTEN UPSTREAM".into());
    };
    let pool = Pool::builder(Servers(upstream?)).max_workers(1000).build()?;
    let listener = TcpListener::bind(listen?).await?;
    Gateway::new(pool, GatewayOptions::default()).serve(listener, pending()).await;
    Ok(())
}
