//! One stream of `Acquire`: a dead-man's switch.

use std::{
    future::{Future, pending},
    pin::Pin,
    time::Duration,
};

use futures_util::{FutureExt as _, Stream, future::OptionFuture, stream};
use herd_pool::{EndReason, Lease, SessionId, Tenant};
use tokio::time::{sleep, timeout};
use tonic::{Status, Streaming};

use super::{
    refusal,
    service::Control,
    wire::{AcquireRequest, AcquireResponse},
};
use crate::{
    config::settings::IdleBy,
    draining::Draining,
    pools::NamedPool,
    workers::{Factory, WorkerPool},
};

/// How long a stream may be open before its first request comes.
pub(super) const FIRST_REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// How long the holder of a session may go on when the daemon drains. What is under way in the gateway ends in peace.
pub(super) const DRAIN_MOMENT: Duration = Duration::from_secs(1);
/// How long the end of a stream waits for the end of its session's worker.
const KILL_PATIENCE: Duration = Duration::from_secs(5);

/// A stream's requests, and the session that it holds.
pub(super) struct Conversation {
    control: Control,
    requests: Streaming<AcquireRequest>,
    tenant: Option<Tenant>,
    held: Option<Held>,
}

impl Conversation {
    pub(super) fn new(control: Control, requests: Streaming<AcquireRequest>, tenant: Option<Tenant>) -> Self {
        Self { control, requests, tenant, held: None }
    }

    /// What is said to the client. Dropping it, as the server does when the connection or the stream breaks, kills the
    /// session's worker.
    pub(super) fn answers(self) -> impl Stream<Item = Result<AcquireResponse, Status>> + Send {
        stream::try_unfold(self, Self::answer)
    }

    /// The next answer; `None` when the client has ended the stream.
    async fn answer(mut self) -> Result<Option<(AcquireResponse, Self)>, Status> {
        let held = match self.held.take() {
            None => match self.first_request().await? {
                Some(request) => Held::acquire(&self.control, &request, self.tenant.as_ref()).await?,
                None => return Ok(None),
            },
            Some(held) => match held.until_asked(&mut self.requests).await? {
                Some(held) => held,
                None => return Ok(None),
            },
        };
        let answer = held.answer.clone();
        self.held = Some(held);
        Ok(Some((answer, self)))
    }

    async fn first_request(&mut self) -> Result<Option<AcquireRequest>, Status> {
        timeout(FIRST_REQUEST_TIMEOUT, self.requests.message()).await.unwrap_or_else(|_| {
            Err(Status::deadline_exceeded(format!("no request came on the stream within {FIRST_REQUEST_TIMEOUT:?}")))
        })
    }
}

/// The session of a stream.
struct Held {
    owner: Owner,
    /// Keeps the session from being idle.
    lease: Option<Lease<Factory>>,
    answer: AcquireResponse,
    ended: Pin<Box<dyn Future<Output = EndReason> + Send>>,
    /// Resolves when it is time to give the lease back.
    let_go: Pin<Box<dyn Future<Output = ()> + Send>>,
    /// How often to reset the idle clock, where a lease alone does not stop it.
    touch_every: Option<Duration>,
}

impl Held {
    async fn acquire(control: &Control, request: &AcquireRequest, tenant: Option<&Tenant>) -> Result<Self, Status> {
        let named = control.pool(&request.worker_type)?;
        let patience = patience(&named, request.timeout_seconds)?;
        if control.draining.has_begun() {
            return Err(Status::unavailable("the daemon is draining"));
        }
        // Before the session is asked for: whoever goes away at the very moment in which it starts leaves it to nobody.
        let owner = Owner::of_a_new_session(named.pool.clone(), tenant)?;
        let acquired = timeout(patience, named.pool.acquire(&owner.session)).await;
        let lease = match acquired {
            Ok(acquired) => acquired.map_err(|error| refusal::of_acquire(&error))?,
            Err(_) => return Err(Status::resource_exhausted(format!("no worker was free within {patience:?}"))),
        };
        let answer = AcquireResponse {
            session_id: owner.session.to_string(),
            proxy_address: control.gateway.to_string(),
            worker_pid: i32::try_from(lease.worker().pid()).unwrap_or_default(),
        };
        let resources = &named.setup().settings.resources;
        let touch_every =
            (resources.idle_by == IdleBy::Bytes).then(|| (resources.ttl / 4).max(Duration::from_millis(1)));
        let ended = Box::pin(lease.ended());
        let let_go = Box::pin(let_go(control.draining.clone()));
        Ok(Self { owner, lease: Some(lease), answer, ended, let_go, touch_every })
    }

    /// Holds the session until the client asks again; `None` if the client ends the stream instead.
    async fn until_asked(mut self, requests: &mut Streaming<AcquireRequest>) -> Result<Option<Self>, Status> {
        loop {
            let touch = OptionFuture::from(self.touch_every.map(sleep)).then(|due| async move {
                if due.is_none() {
                    pending::<()>().await;
                }
            });
            tokio::select! {
                biased;
                reason = &mut self.ended => {
                    self.owner.leave();
                    return Err(refusal::of_end(reason));
                }
                request = requests.message() => {
                    if request?.is_some() {
                        return Ok(Some(self));
                    }
                    drop(self.lease);
                    self.owner.kill().await;
                    return Ok(None);
                }
                () = &mut self.let_go, if self.lease.is_some() => self.lease = None,
                () = touch, if self.lease.is_some() => {
                    if let Some(lease) = &self.lease {
                        lease.touch();
                    }
                }
            }
        }
    }
}

/// Whose end is the end of a session.
struct Owner {
    pool: WorkerPool,
    session: SessionId,
    /// Whether the session has ended in another way.
    left: bool,
}

impl Owner {
    /// Makes the ID of a session that nobody can guess.
    fn of_a_new_session(pool: WorkerPool, tenant: Option<&Tenant>) -> Result<Self, Status> {
        let failed = |_| Status::internal("no random bytes for a session ID are to be had");
        let session = herd_gateway::random_session_id().map_err(failed)?;
        let session = tenant.map_or(session.clone(), |tenant| session.of(tenant));
        Ok(Self { pool, session, left: false })
    }

    /// The session has ended for another reason, and its worker is given the time that this reason gives it.
    fn leave(&mut self) {
        self.left = true;
    }

    /// Kills the session's worker and waits, within reason, until nothing of it is left.
    async fn kill(mut self) {
        self.left = true;
        let killed = self.pool.kill_with(&self.session, EndReason::ClientStreamClosed);
        // It may have ended by itself meanwhile. Its init sees to a worker that takes longer.
        let _ = timeout(KILL_PATIENCE, killed).await;
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        if !self.left {
            // Polled once, it happens whether anybody waits for it or not.
            let _ = self.pool.kill_with(&self.session, EndReason::ClientStreamClosed).now_or_never();
        }
    }
}

/// How long to wait for a worker: as long as the pool lets callers wait, or less.
fn patience(pool: &NamedPool, timeout_seconds: i32) -> Result<Duration, Status> {
    let most = pool.setup().settings.resources.acquire_timeout;
    let asked = u64::try_from(timeout_seconds)
        .map_err(|_| Status::invalid_argument("timeout_seconds is negative; 0 means the pool's acquire_timeout"))?;
    let asked = Duration::from_secs(asked);
    let is_sooner = !asked.is_zero() && asked < most;
    // The pool's own timeout says more about the reason, so that it comes first.
    Ok(if is_sooner { asked } else { most.saturating_add(Duration::from_secs(1)) })
}

async fn let_go(draining: Draining) {
    draining.begun().await;
    sleep(DRAIN_MOMENT).await;
}
