//! One question to a worker over one connection.

use std::{error::Error, io, pin::pin};

use bytes::Bytes;
use herd_pool::{Connect as _, Protocol};
use http_body_util::Empty;
use hyper::{Request, StatusCode, client::conn, header};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::select;

use crate::{Connector, connector::Stream};

/// The longest head of an answer, in bytes.
const MAX_HEAD: usize = 64 * 1024;

/// Asks for a path and returns the status of the answer, or what went wrong instead. The connection is closed after.
pub(crate) async fn status(connector: &Connector, stream: Stream, path: &str) -> Result<StatusCode, String> {
    let authority = connector.authority();
    let request = Request::get(match connector.protocol() {
        Protocol::Http1 => path.to_owned(),
        Protocol::Http2 => format!("http://{authority}{path}"),
    });
    let request = request.header(header::USER_AGENT, concat!("herd/", env!("CARGO_PKG_VERSION")));
    match connector.protocol() {
        Protocol::Http1 => {
            let request = request.header(header::HOST, authority).header(header::CONNECTION, "close");
            let request = request.body(Empty::<Bytes>::new()).map_err(|error| error.to_string())?;
            let handshake = conn::http1::Builder::new().max_buf_size(MAX_HEAD).handshake(stream).await;
            let (mut sender, connection) = handshake.map_err(|error| describe_exchange(&error))?;
            drive(sender.send_request(request), connection).await
        }
        Protocol::Http2 => {
            let request = request.body(Empty::<Bytes>::new()).map_err(|error| error.to_string())?;
            let mut builder = conn::http2::Builder::new(TokioExecutor::new());
            let handshake = builder.timer(TokioTimer::new()).max_header_list_size(MAX_HEAD as u32).handshake(stream);
            let (mut sender, connection) = handshake.await.map_err(|error| describe_exchange(&error))?;
            drive(sender.send_request(request), connection).await
        }
    }
}

/// Lets an exchange and its connection make progress together. Both end here, so nothing is left to run elsewhere.
async fn drive<B>(
    exchange: impl Future<Output = hyper::Result<hyper::Response<B>>>,
    connection: impl Future<Output = hyper::Result<()>>,
) -> Result<StatusCode, String> {
    let (mut exchange, mut connection) = (pin!(exchange), pin!(connection));
    let response = select! {
        biased;
        response = &mut exchange => response,
        // A connection that ended has told the exchange how.
        _ = &mut connection => exchange.await,
    };
    response.map(|response| response.status()).map_err(|error| describe_exchange(&error))
}

fn describe_exchange(error: &hyper::Error) -> String {
    let mut text = format!("no HTTP answer: {error}");
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

/// Nobody listens on the worker's port.
pub(crate) const REFUSED: &str = "connection refused";
/// There is no file at the path of the worker's socket.
pub(crate) const NO_SOCKET: &str = "no socket yet";

/// What a failed connection attempt says about the worker, in a few words.
pub(crate) fn describe_connect(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => REFUSED.to_owned(),
        io::ErrorKind::NotFound => NO_SOCKET.to_owned(),
        _ => format!("no connection: {error}"),
    }
}
