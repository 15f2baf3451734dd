use std::{
    convert::Infallible,
    fmt,
    net::IpAddr,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use herd_pool::{AcquireError, Connect, Lease, Pool, Protocol, SessionId, WorkerFactory};
use hyper::{
    Request, Response, StatusCode,
    body::Incoming,
    header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue, UPGRADE},
    upgrade::OnUpgrade,
};
use tokio::{sync::Semaphore, time::timeout};
use tower_service::Service;

use crate::{
    GatewayOptions, GatewayStats, Sessions,
    admit::{self, Survey},
    client::{self, Client},
    counters::Counters,
    failure::Failure,
    http1::Broken,
    request_body::{ClientBodyError, Permission, RequestBody},
    response_body::{Content, InFlight, ResponseBody},
    rewrite::{self, Route},
    session_key::{Found, KeyError, Named, asks_for},
    splice::Splice,
    upstream::{Http1Of, Http2, Upstreams, worker_name},
};

/// How long to wait for the pool to say why a session ended after its worker's connection broke, so that a crash can be
/// told from a worker that merely closed the connection. The pool learns of a crash within milliseconds.
const REASON_WITHIN: Duration = Duration::from_millis(250);

/// How much earlier than the worker has announced a kept connection is given up.
const KEEP_ALIVE_MARGIN: Duration = Duration::from_secs(1);

/// The HTTP front door of a pool.
///
/// It is a [`Service`], so whatever a deployment needs besides (authentication, limits, logs) can be layered around it.
/// A request passes these phases, in this order: *key* (which session?), *lease* (hold it), *connect* (to its worker),
/// *rewrite* (the head), *send*, and then *relay* (the response) or *splice* (an upgraded connection).
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
    pool: Pool<F>,
    pub(crate) options: GatewayOptions,
    pub(crate) room: Arc<Semaphore>,
    counters: Mutex<Vec<Arc<Counters>>>,
}

impl<F: WorkerFactory> Shared<F> {
    fn new_counters(&self) -> Arc<Counters> {
        let counters = Arc::new(Counters::default());
        self.counters.lock().unwrap_or_else(PoisonError::into_inner).push(counters.clone());
        counters
    }
}

impl<F: WorkerFactory> Gateway<F>
where
    F::Worker: Connect,
{
    /// A gateway in front of `pool`.
    ///
    /// # Panics
    /// If `max_header_bytes` is below 8 KiB, which the HTTP/1.1 parser needs.
    pub fn new(pool: Pool<F>, options: GatewayOptions) -> Self {
        assert!(options.max_header_bytes >= 8192, "max_header_bytes must be at least 8192");
        let room = Arc::new(Semaphore::new(options.max_connections.min(Semaphore::MAX_PERMITS)));
        let shared = Arc::new(Shared { pool, options, room, counters: Mutex::default() });
        let upstreams = Arc::new(Upstreams::new(shared.new_counters()));
        Self { shared, upstreams }
    }

    /// What all clones of this gateway have done so far and do now, on all serving threads.
    #[must_use]
    pub fn stats(&self) -> GatewayStats {
        let counters = self.shared.counters.lock().unwrap_or_else(PoisonError::into_inner);
        counters.iter().map(|counters| counters.stats()).sum()
    }

    /// The same gateway with connections to workers of its own.
    pub(crate) fn on_this_thread(&self) -> Self {
        let upstreams = Arc::new(Upstreams::new(self.shared.new_counters()));
        Self { shared: self.shared.clone(), upstreams }
    }

    /// Answers one request. Errors are answers too.
    pub(crate) async fn answer(&self, request: Request<Incoming>, from: Origin<'_>) -> Response<ResponseBody<F>> {
        let open = InFlight::begin(self.upstreams.clone(), from.client.map(Client::begin));
        let survey = Survey::of(request.headers());
        let response = match self.key(&request, &survey, from) {
            Ok(Key::Page(page)) => page.map(Content::from),
            Ok(Key::Session(mut named)) => match self.proxy(request, &survey, from, &mut named).await {
                Ok(response) => response,
                Err(failure) => failure.into_response(Some(&named.session)).map(Content::from),
            },
            Err(failure) => failure.into_response(None).map(Content::from),
        };
        self.upstreams.counters.responded(response.status());
        response.map(|content| ResponseBody::new(content, open))
    }

    /// The life of a request.
    async fn proxy(
        &self,
        request: Request<Incoming>,
        survey: &Survey,
        from: Origin<'_>,
        named: &mut Named,
    ) -> Result<Response<Content<F>>, Failure> {
        let mut lease = self.lease(&named.session).await?;
        if lease.worker().protocol() == Protocol::Http2 {
            return self.proxy_http2(request, survey, from, named, lease).await;
        }
        let connection = match self.connect(&lease).await {
            // The worker has seen nothing of the request, so the session can start anew without anyone being fooled.
            Err(Failure::Ended(_)) => {
                lease = self.lease(&named.session).await?;
                self.connect(&lease).await?
            }
            other => other?,
        };
        let lease = Arc::new(lease);
        let (mut request, upgrade) = self.rewrite(request, survey, from, named, &lease);
        let permission = if survey.expect { request.body_mut().hold_back() } else { None };
        let (mut connection, mut response) = self.send(connection, request, permission, &lease).await?;
        let keep_for = self.shared.options.upstream_idle_timeout;
        let switches = response.status() == StatusCode::SWITCHING_PROTOCOLS;
        let protocol = if switches { response.headers().get(UPGRADE).cloned() } else { None };
        connection.keep_for = rewrite::response(&mut response, connection.name.clone(), lease.is_new(), named)
            .map_or(keep_for, |announced| announced.saturating_sub(KEEP_ALIVE_MARGIN).min(keep_for));
        if !switches {
            return Ok(response.map(|()| Content::Http1 { connection, lease }));
        }
        let (Some(upgrade), Some(protocol)) = (upgrade, protocol) else {
            return Err(Failure::Answer("it changed the protocol without being asked to"));
        };
        self.splice(upgrade, *connection, lease, &protocol, from);
        rewrite::switching(&mut response, protocol);
        Ok(response.map(|()| Content::Nothing))
    }

    /// *key*: which session is it?
    fn key(&self, request: &Request<Incoming>, survey: &Survey, from: Origin<'_>) -> Result<Key, Failure> {
        admit::check(request, survey, || from.client.is_some_and(|client| client.sent_field("content-length")))?;
        let options = &self.shared.options;
        let metrics = options.metrics.as_ref().filter(|page| asks_for(request, &page.path));
        let is_health = asks_for(request, "/healthz");
        let found = options.session_key.find(request, is_health || metrics.is_some())?;
        Ok(match found {
            Found::Session(named) => Key::Session(named),
            Found::Cookieless(_) | Found::Nothing if metrics.is_some() => {
                Key::Page(page(metrics.map(|page| (page.render)()).unwrap_or_default(), "text/plain; version=0.0.4"))
            }
            Found::Cookieless(_) | Found::Nothing if is_health => Key::Page(page("ok".into(), "text/plain")),
            Found::Cookieless(name) => Key::Session(Named::in_new_cookie(new_session_id()?, &name)),
            Found::Nothing => return Err(Failure::NoKey(options.session_key.clone())),
        })
    }

    /// *lease*: hold the session.
    async fn lease(&self, session: &SessionId) -> Result<Lease<F>, Failure> {
        match self.shared.options.sessions {
            Sessions::Start => Ok(self.shared.pool.acquire(session).await?),
            Sessions::LookUpOnly => match self.shared.pool.get(session) {
                Some(lease) => Ok(lease),
                None if self.shared.pool.is_accepting() => Err(Failure::NoSession),
                // The session may be there still, but takes no more requests.
                None => Err(AcquireError::Draining.into()),
            },
        }
    }

    /// *connect*: a connection to the session's worker, kept from an earlier request or new.
    async fn connect(&self, lease: &Lease<F>) -> Result<Box<Http1Of<F>>, Failure> {
        while let Some(mut connection) = self.upstreams.take(lease.worker_id()) {
            if connection.is_quiet() {
                return Ok(connection);
            }
        }
        self.open(lease).await
    }

    async fn open(&self, lease: &Lease<F>) -> Result<Box<Http1Of<F>>, Failure> {
        match self.upstreams.connect(lease, self.shared.options.connect_timeout).await {
            Ok(connection) => Ok(connection),
            Err(error) => Err(reason(lease).await.unwrap_or(Failure::Connect(error))),
        }
    }

    /// *rewrite*: the client's request becomes the worker's.
    fn rewrite(
        &self,
        mut request: Request<Incoming>,
        survey: &Survey,
        from: Origin<'_>,
        named: &mut Named,
        lease: &Arc<Lease<F>>,
    ) -> (Request<RequestBody<F>>, Option<OnUpgrade>) {
        let protocol = lease.worker().protocol();
        let switch = admit::wanted_upgrade(&request, survey).filter(|_| protocol == Protocol::Http1).cloned();
        let upgrade = switch.as_ref().map(|_| hyper::upgrade::on(&mut request));
        let mut route = Route {
            protocol,
            named,
            client: from.address,
            forwarded: self.shared.options.forwarded,
            upgrade: switch.as_ref(),
        };
        rewrite::request(&mut request, survey, &mut route);
        // What layers outside noted down, and the right to take the connection over, end here.
        request.extensions_mut().clear();
        let request =
            request.map(|incoming| RequestBody::new(incoming, lease, from.client.cloned(), &self.upstreams.counters));
        (request, upgrade)
    }

    /// *send*: the request goes to the worker, and the head of its response comes back.
    ///
    /// A kept connection may close just as a request is sent on it. The request is sent again, on a new connection,
    /// only if the worker saw nothing of it, or if sending it twice is the same as once and it has no body.
    async fn send(
        &self,
        mut connection: Box<Http1Of<F>>,
        request: Request<RequestBody<F>>,
        permission: Option<Permission>,
        lease: &Lease<F>,
    ) -> Result<(Box<Http1Of<F>>, Response<()>), Failure> {
        let is_idempotent = request.method().is_idempotent();
        let error = match self.in_time(connection.send(request, permission)).await? {
            Ok(response) => return Ok((connection, response)),
            Err(error) => error,
        };
        let may_repeat = connection.was_used() && matches!(error, Broken::Unanswered);
        let sent = connection.into_head().filter(|sent| may_repeat && (is_idempotent || sent.is_unseen));
        let Some(sent) = sent else { return Err(explain(error, lease).await) };
        let mut connection = self.open(lease).await?;
        match self.in_time(connection.send_again(sent)).await? {
            Ok(response) => Ok((connection, response)),
            Err(error) => Err(explain(error, lease).await),
        }
    }

    async fn in_time<T>(&self, sending: impl Future<Output = T>) -> Result<T, Failure> {
        match self.shared.options.response_timeout {
            Some(limit) => timeout(limit, sending).await.map_err(|_| Failure::TimedOut(limit)),
            None => Ok(sending.await),
        }
    }

    /// *splice*: from now on, bytes go back and forth.
    fn splice(
        &self,
        upgrade: OnUpgrade,
        connection: Http1Of<F>,
        lease: Arc<Lease<F>>,
        protocol: &HeaderValue,
        from: Origin<'_>,
    ) {
        let (upstream, early) = connection.into_stream();
        let splice = Splice {
            upgrade,
            upstream,
            early,
            lease,
            is_websocket: admit::has_token(protocol, "websocket"),
            grace: self.shared.options.upgrade_grace,
            reason_within: REASON_WITHIN,
            counters: self.upstreams.counters.clone(),
            open: from.client.map(Client::begin),
        };
        self.upstreams.tasks.spawn(splice.run());
    }

    /// The same phases for a worker that speaks HTTP/2: one connection carries all requests, and nothing is upgraded.
    async fn proxy_http2(
        &self,
        request: Request<Incoming>,
        survey: &Survey,
        from: Origin<'_>,
        named: &mut Named,
        mut lease: Lease<F>,
    ) -> Result<Response<Content<F>>, Failure> {
        let mut connection = match self.connect_http2(&lease).await {
            // As above: the worker has seen nothing of the request.
            Err(Failure::Ended(_)) => {
                lease = self.lease(&named.session).await?;
                self.connect_http2(&lease).await?
            }
            other => other?,
        };
        let lease = Arc::new(lease);
        let mut request = self.rewrite(request, survey, from, named, &lease).0;
        for attempt in 0.. {
            match self.in_time(connection.try_send_request(request)).await? {
                Ok(response) => {
                    let (mut response, incoming) = split(response);
                    rewrite::response(&mut response, worker_name(lease.worker_id()), lease.is_new(), named);
                    return Ok(response.map(|()| Content::Http2 { incoming, lease }));
                }
                Err(mut error) => match error.take_message() {
                    // The worker closed the connection in good order before it took the request.
                    Some(unsent) if attempt == 0 => {
                        request = unsent;
                        connection = self.connect_http2(&lease).await?;
                    }
                    _ => return Err(explain(broken(error.error()), &lease).await),
                },
            }
        }
        unreachable!("the loop ends with its second round")
    }

    async fn connect_http2(&self, lease: &Lease<F>) -> Result<Http2<F>, Failure> {
        match self.upstreams.connect_http2(lease, self.shared.options.connect_timeout).await {
            Ok(connection) => Ok(connection),
            Err(error) => Err(reason(lease).await.unwrap_or(Failure::Connect(error))),
        }
    }
}

/// Who sent a request.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Origin<'a> {
    pub(crate) client: Option<&'a Arc<Client>>,
    /// The client's address as `x-forwarded-for` tells it.
    pub(crate) address: Option<&'a HeaderValue>,
}

/// What the first phase found.
enum Key {
    Session(Named),
    /// The request is for the gateway itself.
    Page(Response<String>),
}

fn page(text: String, kind: &'static str) -> Response<String> {
    let mut page = Response::new(text);
    page.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    page.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    page
}

fn new_session_id() -> Result<SessionId, Failure> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|_| Failure::Random)?;
    let session = SessionId::new(format!("{:032x}", u128::from_be_bytes(bytes)));
    Ok(session.map_err(KeyError::from)?)
}

/// A response to be rewritten, apart from its body.
fn split(response: Response<Incoming>) -> (Response<()>, Incoming) {
    let (parts, incoming) = response.into_parts();
    (Response::from_parts(parts, ()), incoming)
}

/// Why the session ended, if it did: the pool may need a moment to notice.
async fn reason<F: WorkerFactory>(lease: &Lease<F>) -> Option<Failure> {
    if let Some(reason) = lease.end_reason() {
        return Some(Failure::Ended(reason));
    }
    timeout(REASON_WITHIN, lease.ended()).await.ok().map(Failure::Ended)
}

/// Tells what went wrong between gateway and worker.
async fn explain<F: WorkerFactory>(error: Broken, lease: &Lease<F>) -> Failure {
    match error {
        Broken::Client(_) => Failure::ClientBody,
        Broken::NotHttp => Failure::Answer("what it sent is not HTTP"),
        Broken::Unanswered | Broken::Incomplete => {
            reason(lease).await.unwrap_or(Failure::Answer("it closed the connection before it had answered"))
        }
    }
}

/// What an error of an HTTP/2 connection to a worker means.
fn broken(error: &hyper::Error) -> Broken {
    match ClientBodyError::caused(error) {
        true => Broken::Client(ClientBodyError::wrong_length()),
        false => Broken::Unanswered,
    }
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
