//! The way to the collector: the daemon's own HTTP client behind what the exporter asks for.

use std::{error::Error, fmt, pin::Pin, time::Duration};

use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{Request, Response, Uri, body::Bytes};
use opentelemetry_http::{HttpClient, HttpError};
use tokio::time::timeout;

use crate::webhooks::{self, Client};

/// How much of an answer is read; a collector has little to say.
const MOST_OF_ANSWER: usize = 64 * 1024;
/// Where OTLP over HTTP has traces, below the collector's address.
/// <https://opentelemetry.io/docs/specs/otlp/#otlphttp-request>
const TRACES: &str = "/v1/traces";

/// Where spans are posted.
#[derive(Clone)]
pub(super) struct Address(Uri);

/// Only the origin: the rest may hold a secret.
impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Address({})", self.origin())
    }
}

impl Address {
    /// An endpoint names the place as a whole, or only the collector.
    ///
    /// # Errors
    /// If it is no absolute URL.
    pub(super) fn of(endpoint: &str) -> anyhow::Result<Self> {
        let mut parts = endpoint.parse::<Uri>()?.into_parts();
        let (path, query) = match &parts.path_and_query {
            Some(both) => (both.path().trim_end_matches('/'), both.query()),
            None => ("", None),
        };
        let path = path.strip_suffix(TRACES).unwrap_or(path);
        let query = query.map_or(String::new(), |query| format!("?{query}"));
        parts.path_and_query = Some(format!("{path}{TRACES}{query}").parse()?);
        Ok(Self(Uri::from_parts(parts)?))
    }

    /// Without its user, its path and its query, which may hold a secret.
    pub(super) fn origin(&self) -> String {
        let authority = self.0.authority().map_or("", |authority| authority.as_str());
        let authority = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
        format!("{}://{authority}", self.0.scheme_str().unwrap_or("http"))
    }

    pub(super) fn url(&self) -> String {
        self.0.to_string()
    }
}

/// A client for one collector.
#[derive(Debug)]
pub(super) struct Collector {
    client: Client,
    patience: Duration,
}

impl Collector {
    /// # Errors
    /// If the address wants TLS, and this host trusts no certificates.
    pub(super) fn new(address: &Address, patience: Duration) -> anyhow::Result<Self> {
        let tls = address.0.scheme_str() == Some("https");
        Ok(Self { client: webhooks::client(tls)?, patience })
    }

    async fn post(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let answered = async {
            let (head, body) = self.client.request(request.map(Full::new)).await?.into_parts();
            let body = Limited::new(body, MOST_OF_ANSWER).collect().await?.to_bytes();
            Ok::<_, HttpError>(Response::from_parts(head, body))
        };
        timeout(self.patience, answered).await.map_err(|elapsed| Box::new(elapsed) as Box<dyn Error + Send + Sync>)?
    }
}

impl HttpClient for Collector {
    // As `async_trait` would have it, with which the trait is written.
    fn send_bytes<'life, 'future>(
        &'life self,
        request: Request<Bytes>,
    ) -> Pin<Box<dyn Future<Output = Result<Response<Bytes>, HttpError>> + Send + 'future>>
    where
        'life: 'future,
        Self: 'future,
    {
        Box::pin(self.post(request))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_an_address_that_may_be_secret_is_shown() {
        let address = Address::of("https://user:secret@host:1/secret/?key=secret").unwrap();
        assert_eq!((&*address.origin(), &*format!("{address:?}")), ("https://host:1", "Address(https://host:1)"));
        assert_eq!(address.url(), "https://user:secret@host:1/secret/v1/traces?key=secret");
    }
}
