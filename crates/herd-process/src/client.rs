use bytes::Bytes;
use herd_pool::{Connect as _, Protocol};
use http_body_util::{BodyExt as _, Empty, combinators::UnsyncBoxBody};
use hyper::{
    Request, Response, Uri,
    body::{Body, Incoming},
    http::uri,
};
use hyper_util::{
    client::legacy::{self, Client},
    rt::{TokioExecutor, TokioTimer},
};

use crate::Connector;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// An HTTP client for one worker: the client that a [`ProcessFactory`](crate::ProcessFactory) builds by default.
///
/// It speaks HTTP/2 where the worker was said to, else HTTP/1.1, and keeps connections alive. Cheap to clone.
/// Its connections are driven by tasks on the tokio runtime in which a request is sent.
#[derive(Clone, Debug)]
pub struct HttpClient {
    client: Client<Connector, UnsyncBoxBody<Bytes, BoxError>>,
    authority: uri::Authority,
}

impl HttpClient {
    /// A client over the worker's connector.
    #[must_use]
    pub fn new(connector: Connector) -> Self {
        let authority = connector.authority().parse().expect("a socket address and `localhost` are authorities");
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .http2_only(connector.protocol() == Protocol::Http2)
            .build(connector);
        Self { client, authority }
    }

    /// Sends a GET request for a path, for example `/eval?x=1`, and returns once the head of the response is there.
    ///
    /// Cancel safe: dropping the future abandons the request.
    ///
    /// # Errors
    /// [`ClientError`], also if the path is not one.
    pub async fn get(&self, path: &str) -> Result<Response<Incoming>, ClientError> {
        let path = path.parse::<uri::PathAndQuery>().map_err(|source| ClientError::Path(source.into()))?;
        let mut request = Request::new(Empty::<Bytes>::new());
        *request.uri_mut() = path.into();
        self.request(request).await
    }

    /// Sends a request and returns once the head of the response is there. The request goes to the worker whatever
    /// host its URI names; where it names none, the worker's address is filled in.
    ///
    /// Cancel safe: dropping the future abandons the request.
    ///
    /// # Errors
    /// [`ClientError`]; an answer of any status is no error.
    pub async fn request<B>(&self, request: Request<B>) -> Result<Response<Incoming>, ClientError>
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let (mut head, body) = request.into_parts();
        if head.uri.authority().is_none() {
            let mut parts = head.uri.into_parts();
            parts.scheme = Some(uri::Scheme::HTTP);
            parts.authority = Some(self.authority.clone());
            parts.path_and_query.get_or_insert_with(|| uri::PathAndQuery::from_static("/"));
            head.uri = Uri::from_parts(parts).map_err(|source| ClientError::Path(source.into()))?;
        }
        let body = body.map_err(Into::into).boxed_unsync();
        self.client.request(Request::from_parts(head, body)).await.map_err(|source| {
            if source.is_connect() { ClientError::Connect(source) } else { ClientError::Exchange(source) }
        })
    }
}

/// A request to a worker failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// What was to be requested is not a path.
    #[error("not a path that can be requested")]
    Path(#[source] hyper::http::Error),
    /// No connection to the worker could be opened: it is gone, or does not listen.
    #[error("cannot connect to the worker")]
    Connect(#[source] legacy::Error),
    /// The connection broke, or the worker's answer is not HTTP.
    #[error("the exchange with the worker failed")]
    Exchange(#[source] legacy::Error),
}
