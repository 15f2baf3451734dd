use std::{
    convert::Infallible,
    fmt,
    net::IpAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use herd_pool::{Connect, SessionId, WorkerFactory};
use hyper::{
    Request, Response,
    body::Incoming,
    header::{HeaderName, HeaderValue},
};
use tokio::sync::Semaphore;
use tower_service::Service;

use crate::{
    GatewayOptions, GatewayStats, PoolLatencies, Routes,
    account::Account,
    admit::{self, Survey},
    client::{self, Client},
    decide::Decision,
    exchange::Exchange,
    failure::Failure,
    response_body::{Content, InFlight, ResponseBody},
    setup::Setups,
    upstream::Upstreams,
};

const HERD_POOL: HeaderName = HeaderName::from_static("herd-pool");

/// The HTTP front door of one or more pools.
///
/// It is a [`Service`], so whatever a deployment needs besides (limits, logs) can be layered around it. A request passes
/// these phases, in this order: *access* (who sends it?), *route* (which pool?), *key* (which session?), *lease* (hold
/// it), *connect* (to its worker), *rewrite* (the head), *send*, and then *relay* (the response) or *splice* (an upgraded
/// connection).
///
/// Clones share the connections that are kept to workers. [`serve`](Self::serve) makes its own, so that several serving
/// threads do not disturb each other.
pub struct Gateway<F: WorkerFactory>
where
    F::Worker: Connect,
{
    pub(crate) shared: Arc<Shared<F>>,
    pub(crate) upstreams: Arc<Upstreams<F>>,
}

/// What all serving threads share.
pub(crate) struct Shared<F: WorkerFactory> {
    /// What concerns clients' connections, as it was when the gateway was made.
    pub(crate) options: GatewayOptions,
    pub(crate) room: Arc<Semaphore>,
    setups: Setups<F>,
}

impl<F: WorkerFactory> Gateway<F>
where
    F::Worker: Connect,
{
    /// A gateway in front of a [`Pool`](herd_pool::Pool), or of several by [`Routes`].
    ///
    /// # Panics
    /// If `max_header_bytes` is below 8 KiB, which the HTTP/1.1 parser needs.
    pub fn new(routes: impl Into<Routes<F>>, options: GatewayOptions) -> Self {
        assert!(options.max_header_bytes >= 8192, "max_header_bytes must be at least 8192");
        let room = Arc::new(Semaphore::new(options.max_connections.min(Semaphore::MAX_PERMITS)));
        // Connections know nothing of requests, and must not keep what those are answered by when it is exchanged.
        let of_connections = GatewayOptions { access: None, metrics: None, tracer: None, ..options.clone() };
        let setups = Setups::new(routes.into(), options);
        let upstreams = Arc::new(Upstreams::new(setups.add_thread()));
        Self { shared: Arc::new(Shared { options: of_connections, room, setups }), upstreams }
    }

    /// From now on, new requests are answered by these routes and options, on all serving threads and by all clones.
    ///
    /// Requests that are being answered go on with what they began with, and keep their pool from being dropped. A pool
    /// that was in the routes before keeps the connections to its workers. Those to workers of a pool that is in the
    /// routes no more are closed when they have been idle for a while, or when its workers end. Options of clients'
    /// connections do not change: see [`GatewayOptions`].
    pub fn configure(&self, routes: impl Into<Routes<F>>, options: GatewayOptions) {
        self.shared.setups.exchange(routes.into(), options);
    }

    /// What all clones of this gateway have done so far and do now, on all serving threads.
    #[must_use]
    pub fn stats(&self) -> GatewayStats {
        self.shared.setups.stats()
    }

    /// What requests took so far, for each pool in the routes, on all serving threads. A pool that takes the place of
    /// another one of the same name goes on with its numbers.
    #[must_use]
    pub fn latencies(&self) -> Vec<PoolLatencies> {
        self.shared.setups.latencies()
    }

    /// The same gateway with connections to workers of its own.
    pub(crate) fn on_this_thread(&self) -> Self {
        let upstreams = Arc::new(Upstreams::new(self.shared.setups.add_thread()));
        Self { shared: self.shared.clone(), upstreams }
    }

    /// Answers one request. Errors are answers too.
    pub(crate) async fn answer(&self, mut request: Request<Incoming>, from: Origin<'_>) -> Response<ResponseBody<F>> {
        let mut open = InFlight::begin(self.upstreams.clone(), from.client.map(Client::begin));
        let account = &mut open.account;
        let survey = Survey::of(request.headers());
        let response = match self.decide(&mut request, &survey, from, account) {
            Ok(Decision::Page(page)) => page.map(Content::from),
            Ok(Decision::Session { mut named, seat, wish }) => {
                if from.client.is_some_and(|client| client.is_tls()) {
                    named.keep_secure();
                }
                let exchange =
                    Exchange { upstreams: &self.upstreams, seat: &seat, survey: &survey, wish, from, account };
                let result = exchange.run(request, &mut named).await;
                let mut response =
                    result.unwrap_or_else(|failure| self.tell(failure, Some(&named.session), from, &open.account));
                if let Some(name) = &seat.shown {
                    response.headers_mut().insert(HERD_POOL, name.clone());
                }
                response
            }
            Err(failure) => self.tell(failure, None, from, account),
        };
        self.upstreams.counters.responded(response.status());
        open.account.respond(response.status());
        response.map(|content| ResponseBody::new(content, open))
    }

    /// Tells the client, and whoever looks after the gateway, that there is no answer from a worker.
    fn tell(
        &self,
        failure: Failure,
        session: Option<&SessionId>,
        from: Origin<'_>,
        account: &Account<F>,
    ) -> Response<Content<F>> {
        let counters = &self.upstreams.counters;
        counters.failed(failure.kind());
        counters.refusals.tell(&failure, from.address, account.caller.as_ref());
        failure.into_response(session).map(Content::from)
    }

    fn decide(
        &self,
        request: &mut Request<Incoming>,
        survey: &Survey,
        from: Origin<'_>,
        account: &mut Account<F>,
    ) -> Result<Decision<F>, Failure> {
        admit::check(request, survey, || from.client.is_some_and(|client| client.sent_field("content-length")))?;
        self.upstreams.thread.setup().decide(request, survey, account)
    }
}

/// Who sent a request.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Origin<'a> {
    pub(crate) client: Option<&'a Arc<Client>>,
    /// The client's address as `x-forwarded-for` tells it.
    pub(crate) address: Option<&'a HeaderValue>,
}

/// The address of the client from which a request comes.
///
/// Whoever calls the gateway as a [`Service`] may add this to a request's extensions; it becomes `x-forwarded-for`.
/// [`Gateway::serve`] knows it anyway.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ClientAddress(pub IpAddr);

impl<F: WorkerFactory> Service<Request<Incoming>> for Gateway<F>
where
    F::Worker: Connect,
{
    type Response = Response<ResponseBody<F>>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<Incoming>) -> Self::Future {
        let gateway = self.clone();
        gateway.upstreams.sweep_if_due();
        let address = request.extensions_mut().remove::<ClientAddress>();
        Box::pin(async move {
            let address = address.map(|ClientAddress(ip)| client::address_value(ip));
            Ok(gateway.answer(request, Origin { client: None, address: address.as_ref() }).await)
        })
    }
}

impl<F: WorkerFactory> Clone for Gateway<F>
where
    F::Worker: Connect,
{
    fn clone(&self) -> Self {
        Self { shared: self.shared.clone(), upstreams: self.upstreams.clone() }
    }
}

impl<F: WorkerFactory> fmt::Debug for Gateway<F>
where
    F::Worker: Connect,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gateway").field("options", &self.shared.options).finish_non_exhaustive()
    }
}
