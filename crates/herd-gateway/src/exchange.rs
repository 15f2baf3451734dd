//! One request's way to its worker and back: *lease*, *connect*, *rewrite*, *send*, and *relay* or *splice*; or the *end* of
//! its session.

use std::{
    future::poll_fn,
    pin::{Pin, pin},
    sync::Arc,
    task::Poll,
    time::Duration,
};

use herd_pool::{AcquireError, Connect, Lease, NoSuchSession, Protocol, SessionId, WorkerFactory};
use hyper::{
    Request, Response, StatusCode,
    body::Incoming,
    header::{HeaderValue, UPGRADE},
    upgrade::OnUpgrade,
};
use tokio::time::timeout;

use crate::{
    GatewayOptions, Sessions,
    account::Account,
    admit::{self, Survey},
    client::Client,
    failure::Failure,
    gateway::Origin,
    http1::Broken,
    latency::Phase,
    request_body::{ClientBodyError, Permission, RequestBody},
    response_body::Content,
    rewrite::{self, Rewrite},
    session_key::Named,
    setup::Seat,
    splice::Splice,
    trace::TRACEPARENT,
    upstream::{Http1Of, Http2, Upstreams, WorkerKey, worker_name},
    wish::{HERD_SESSION, Wish},
};

/// How long to wait for the pool to say why a session ended after its worker's connection broke, so that a crash can be
/// told from a worker that merely closed the connection. The pool learns of a crash within milliseconds.
const REASON_WITHIN: Duration = Duration::from_millis(250);

/// How much earlier than the worker has announced a kept connection is given up.
const KEEP_ALIVE_MARGIN: Duration = Duration::from_secs(1);

/// What a request needs on its way.
pub(crate) struct Exchange<'a, F: WorkerFactory>
where
    F::Worker: Connect,
{
    pub(crate) upstreams: &'a Upstreams<F>,
    pub(crate) seat: &'a Arc<Seat<F>>,
    pub(crate) survey: &'a Survey,
    pub(crate) wish: Wish,
    pub(crate) from: Origin<'a>,
    pub(crate) account: &'a mut Account<F>,
}

impl<F: WorkerFactory> Exchange<'_, F>
where
    F::Worker: Connect,
{
    /// Has the session's worker answer the request, or ends the session if that is what the request wants.
    pub(crate) async fn run(
        mut self,
        request: Request<Incoming>,
        named: &mut Named,
    ) -> Result<Response<Content<F>>, Failure> {
        if self.wish == Wish::End {
            return self.end(&named.session).await;
        }
        let mut lease = self.lease(&named.session).await?;
        if lease.worker().protocol() == Protocol::Http2 {
            return self.run_http2(request, named, lease).await;
        }
        let connection = match self.connect(&lease).await {
            // The worker has seen nothing of the request, so the session can start anew without anyone being fooled.
            Err(Failure::Ended(_)) if self.starts() => {
                self.account.enter(Phase::Lease);
                lease = self.lease(&named.session).await?;
                self.connect(&lease).await?
            }
            other => other?,
        };
        let lease = Arc::new(lease);
        let (mut request, upgrade) = self.rewrite(request, named, &lease);
        let permission = if self.survey.expect { request.body_mut().hold_back() } else { None };
        let (mut connection, mut response) = self.send(connection, request, permission, &lease).await?;
        self.account.answered(lease.is_new());
        let keep_for = self.options().upstream_idle_timeout;
        let switches = response.status() == StatusCode::SWITCHING_PROTOCOLS;
        let protocol = if switches { response.headers().get(UPGRADE).cloned() } else { None };
        connection.keep_for = rewrite::response(&mut response, connection.name.clone(), lease.is_new(), named)
            .map_or(keep_for, |announced| announced.saturating_sub(KEEP_ALIVE_MARGIN).min(keep_for));
        if !switches {
            let key = WorkerKey::of(self.seat, &lease);
            return Ok(response.map(|()| Content::Http1 { connection, lease, key }));
        }
        let (Some(upgrade), Some(protocol)) = (upgrade, protocol) else {
            return Err(Failure::Answer("it changed the protocol without being asked to"));
        };
        self.splice(upgrade, *connection, lease, &protocol);
        rewrite::switching(&mut response, protocol);
        Ok(response.map(|()| Content::Nothing))
    }

    fn options(&self) -> &GatewayOptions {
        &self.seat.options
    }

    /// *lease*: hold the session.
    async fn lease(&mut self, session: &SessionId) -> Result<Lease<F>, Failure> {
        let pool = &self.seat.pool;
        if self.starts() {
            let mut acquire = pin!(pool.acquire(session));
            if let Some(lease) = at_once(acquire.as_mut()).await {
                let lease = lease?;
                self.account.pass(Phase::Connect);
                return Ok(lease);
            }
            let lease = acquire.await?;
            self.account.enter(Phase::Connect);
            return Ok(lease);
        }
        match pool.get(session) {
            Some(lease) => {
                self.account.pass(Phase::Connect);
                Ok(lease)
            }
            None if pool.is_accepting() => Err(Failure::NoSession(self.wish)),
            // The session may be there still, but takes no more requests.
            None => Err(AcquireError::Draining.into()),
        }
    }

    /// Whether the session is started if there is none.
    fn starts(&self) -> bool {
        self.wish == Wish::Serve && self.options().sessions == Sessions::Start
    }

    /// *end*: the session ends, and the client is told so when its worker is gone.
    ///
    /// Cancel safe: once this was polled, the session ends whether or not the client stays to hear of it.
    async fn end(self, session: &SessionId) -> Result<Response<Content<F>>, Failure> {
        if self.options().sessions == Sessions::LookUpOnly {
            return Err(Failure::ForbiddenEnd);
        }
        self.account.pass(Phase::End);
        self.seat.pool.end(session).await.map_err(|NoSuchSession| Failure::NoSession(self.wish))?;
        let mut response = Response::new(Content::Nothing);
        *response.status_mut() = StatusCode::NO_CONTENT;
        response.headers_mut().insert(HERD_SESSION, HeaderValue::from_static("ended"));
        Ok(response)
    }

    /// *connect*: a connection to the session's worker, kept from an earlier request or new.
    async fn connect(&mut self, lease: &Lease<F>) -> Result<Box<Http1Of<F>>, Failure> {
        while let Some(mut connection) = self.upstreams.take(WorkerKey::of(self.seat, lease)) {
            if connection.is_quiet() {
                self.account.pass(Phase::Send);
                return Ok(connection);
            }
        }
        let connection = self.open(lease).await?;
        self.account.enter(Phase::Send);
        Ok(connection)
    }

    async fn open(&self, lease: &Lease<F>) -> Result<Box<Http1Of<F>>, Failure> {
        match self.upstreams.connect(lease, self.options().connect_timeout).await {
            Ok(connection) => Ok(connection),
            Err(error) => Err(reason(lease).await.unwrap_or(Failure::Connect(error))),
        }
    }

    /// *rewrite*: the client's request becomes the worker's.
    fn rewrite(
        &self,
        mut request: Request<Incoming>,
        named: &mut Named,
        lease: &Arc<Lease<F>>,
    ) -> (Request<RequestBody<F>>, Option<OnUpgrade>) {
        let protocol = lease.worker().protocol();
        let switch = admit::wanted_upgrade(&request, self.survey).filter(|_| protocol == Protocol::Http1).cloned();
        let upgrade = switch.as_ref().map(|_| hyper::upgrade::on(&mut request));
        let mut to = Rewrite {
            protocol,
            named,
            client: self.from.address,
            forwarded: self.options().forwarded,
            scheme: self.from.client.map_or("http", |client| client.scheme()),
            upgrade: switch.as_ref(),
        };
        rewrite::request(&mut request, self.survey, &mut to);
        if let Some(traceparent) = self.account.traceparent() {
            request.headers_mut().insert(TRACEPARENT, traceparent);
        }
        // What layers outside noted down, and the right to take the connection over, end here.
        request.extensions_mut().clear();
        let (client, counters) = (self.from.client.cloned(), &self.upstreams.counters);
        (request.map(|incoming| RequestBody::new(incoming, lease, client, counters)), upgrade)
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
        match self.options().response_timeout {
            Some(limit) => timeout(limit, sending).await.map_err(|_| Failure::TimedOut(limit)),
            None => Ok(sending.await),
        }
    }

    /// *splice*: from now on, bytes go back and forth.
    fn splice(&self, upgrade: OnUpgrade, connection: Http1Of<F>, lease: Arc<Lease<F>>, protocol: &HeaderValue) {
        let (upstream, early) = connection.into_stream();
        let splice = Splice {
            upgrade,
            upstream,
            early,
            lease,
            is_websocket: admit::has_token(protocol, "websocket"),
            grace: self.options().upgrade_grace,
            reason_within: REASON_WITHIN,
            counters: self.upstreams.counters.clone(),
            open: self.from.client.map(Client::begin),
            _seat: self.seat.clone(),
        };
        self.upstreams.tasks.spawn(splice.run());
    }

    /// The same phases for a worker that speaks HTTP/2: one connection carries all requests, and nothing is upgraded.
    async fn run_http2(
        mut self,
        request: Request<Incoming>,
        named: &mut Named,
        mut lease: Lease<F>,
    ) -> Result<Response<Content<F>>, Failure> {
        let mut connection = match self.connect_http2(&lease).await {
            // As above: the worker has seen nothing of the request.
            Err(Failure::Ended(_)) if self.starts() => {
                self.account.enter(Phase::Lease);
                lease = self.lease(&named.session).await?;
                self.connect_http2(&lease).await?
            }
            other => other?,
        };
        let lease = Arc::new(lease);
        let mut request = self.rewrite(request, named, &lease).0;
        for attempt in 0.. {
            match self.in_time(connection.try_send_request(request)).await? {
                Ok(response) => {
                    self.account.answered(lease.is_new());
                    let (mut response, incoming) = split(response);
                    rewrite::response(&mut response, worker_name(lease.worker_id()), lease.is_new(), named);
                    return Ok(response.map(|()| Content::Http2 { incoming, lease }));
                }
                Err(mut error) => match error.take_message() {
                    // The worker closed the connection in good order before it took the request.
                    Some(unsent) if attempt == 0 => {
                        request = unsent;
                        self.account.enter(Phase::Connect);
                        connection = self.connect_http2(&lease).await?;
                    }
                    _ => return Err(explain(broken(error.error()), &lease).await),
                },
            }
        }
        unreachable!("the loop ends with its second round")
    }

    async fn connect_http2(&mut self, lease: &Lease<F>) -> Result<Http2<F>, Failure> {
        let worker = WorkerKey::of(self.seat, lease);
        if let Some(connection) = self.upstreams.http2(worker) {
            self.account.pass(Phase::Send);
            return Ok(connection);
        }
        match self.upstreams.connect_http2(worker, lease, self.options().connect_timeout).await {
            Ok(connection) => {
                self.account.enter(Phase::Send);
                Ok(connection)
            }
            Err(error) => Err(reason(lease).await.unwrap_or(Failure::Connect(error))),
        }
    }
}

/// What the future gives if it does not have to wait.
async fn at_once<T>(mut future: Pin<&mut impl Future<Output = T>>) -> Option<T> {
    poll_fn(|cx| match future.as_mut().poll(cx) {
        Poll::Ready(done) => Poll::Ready(Some(done)),
        Poll::Pending => Poll::Ready(None),
    })
    .await
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
