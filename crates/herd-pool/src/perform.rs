//! Performs what the state decided.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, PoisonError},
    time::Duration,
};

use tokio::time::timeout;

use crate::{
    Crash, Event, EventKind, Exit, ExitStatus, HealthError, Lease, SessionId, SpawnError, Worker, WorkerFactory,
    WorkerId,
    caught::caught,
    setup::Setup,
    shared::{Reply, Shared, WorkerOf},
    slot::Home,
    state::{Action, Force, Input},
};

/// How long the check of a worker before it is handed out may take.
const CHECK_TIMEOUT: Duration = Duration::from_secs(1);

/// How long a liveness probe may take.
const PROBE_TIMEOUT: Duration = Duration::from_secs(5);

impl<F: WorkerFactory> Home for Shared<F> {
    fn last_lease_returned(self: Arc<Self>, worker: WorkerId) {
        self.feed(Input::LastLease { worker });
    }
}

impl<F: WorkerFactory> Shared<F> {
    /// Performs one action. Runs without the core's lock and never blocks.
    pub(crate) fn perform(self: &Arc<Self>, action: Action<WorkerOf<F>>) {
        match action {
            Action::Spawn { worker, session, generation } => {
                let setup = self.setup();
                if setup.generation == generation {
                    self.spawn(spawn_worker(Arc::clone(self), setup, worker, session));
                } else {
                    // It was decided on before the configuration changed, and is to be given up already.
                    self.feed(Input::SpawnCancelled { worker });
                }
            }
            Action::CancelSpawns { except } => {
                self.starting.send_replace(except);
            }
            Action::Check { worker, handle } => self.spawn(check(Arc::clone(self), worker, handle)),
            Action::Probe { worker, handle } => self.spawn(probe(Arc::clone(self), worker, handle)),
            Action::End { worker, handle, force } => self.spawn(end(Arc::clone(self), worker, handle, force)),
            Action::Grant { ticket, slot, is_new } => {
                let lease = Lease::new(slot, is_new);
                if let Some(Reply::Acquire(reply)) = self.take_reply(ticket) {
                    // If the caller has gone, the lease comes back in the error and is dropped, which gives it back.
                    let _ = reply.send(Ok(lease));
                }
            }
            Action::Deny { ticket, error } => {
                if let Some(Reply::Acquire(reply)) = self.take_reply(ticket) {
                    let _ = reply.send(Err(error));
                }
            }
            Action::Answer { ticket, outcome } => {
                if let Some(Reply::End(reply)) = self.take_reply(ticket) {
                    let _ = reply.send(outcome);
                }
            }
            Action::Tell(slot) => slot.tell(),
            Action::Crashed(crash) => self.report(crash),
            Action::Publish(event) => {
                self.span.in_scope(|| log(&event));
                if let Some(callback) = &self.on_event
                    && catch_unwind(AssertUnwindSafe(|| callback(&event))).is_err()
                {
                    tracing::error!(sequence = event.sequence, "the event callback panicked");
                }
                // An error means that nobody listens.
                let _ = self.events.send(event);
            }
            Action::Discard(worker, ending) => {
                if let Some(watch) = self.watches.lock().unwrap_or_else(PoisonError::into_inner).remove(&worker) {
                    watch.abort();
                }
                drop(ending);
            }
            Action::Emptied => {
                self.emptied.send_replace(true);
                // The driver has nothing left to do.
                self.alarm.notify_one();
            }
        }
    }

    fn report(self: &Arc<Self>, crash: Crash) {
        let Some(callback) = self.setup().on_crash.clone() else { return };
        self.spawn(async move {
            if catch_unwind(AssertUnwindSafe(|| callback(&crash))).is_err() {
                tracing::error!(worker = %crash.worker, "the crash callback panicked");
            }
        });
    }
}

async fn spawn_worker<F: WorkerFactory>(
    shared: Arc<Shared<F>>,
    setup: Arc<Setup<F>>,
    worker: WorkerId,
    session: Option<SessionId>,
) {
    let mut starting = shared.starting.subscribe();
    let ours = Some(setup.generation);
    let outcome = tokio::select! {
        biased;
        outcome = start(&setup, worker, session.as_ref()) => outcome,
        // The sender lives in `shared`, so this ends only when the starts of this generation are given up.
        _ = starting.wait_for(|starting| *starting != ours) => return shared.feed(Input::SpawnCancelled { worker }),
    };
    // A factory may be gone as soon as nothing starts any more.
    drop(setup);
    let outcome = outcome.map(Arc::new);
    let handle = outcome.as_ref().ok().map(Arc::clone);
    shared.feed(Input::Spawned { worker, outcome });
    if let Some(handle) = handle {
        // Not before the state knows the worker: it would not know whose exit it is told of.
        let home = Arc::downgrade(&shared);
        shared.watch(worker, async move {
            let exited = caught(async move {
                let exited = handle.exited();
                drop(handle);
                exited.await
            });
            let exit = exited.await.unwrap_or_else(|panic| {
                tracing::error!(%worker, panic, "waiting for the worker's exit panicked");
                Exit::with_status(ExitStatus::Unknown)
            });
            if let Some(shared) = home.upgrade() {
                shared.feed(Input::Exited { worker, exit });
            }
        });
    }
}

async fn start<F: WorkerFactory>(
    setup: &Setup<F>,
    worker: WorkerId,
    session: Option<&SessionId>,
) -> Result<F::Worker, SpawnError> {
    let limit = setup.options.spawn_timeout;
    // In a block of its own, because the call itself may panic and not only the future that it returns.
    let attempt = caught(async {
        match session {
            Some(session) => setup.factory.spawn_for(worker, session).await,
            None => setup.factory.spawn(worker).await,
        }
    });
    let outcome = match limit {
        Some(limit) => timeout(limit, attempt).await,
        None => Ok(attempt.await),
    };
    match outcome {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(panic)) => Err(SpawnError::new(format!("the factory panicked: {panic}"))),
        Err(_) => Err(SpawnError::new(format!("the worker was not ready within {:?}", limit.unwrap_or_default()))),
    }
}

async fn check<F: WorkerFactory>(shared: Arc<Shared<F>>, worker: WorkerId, handle: WorkerOf<F>) {
    let outcome = ask::<F>(worker, &handle, CHECK_TIMEOUT).await;
    drop(handle);
    shared.feed(Input::Checked { worker, outcome });
}

async fn probe<F: WorkerFactory>(shared: Arc<Shared<F>>, worker: WorkerId, handle: WorkerOf<F>) {
    let outcome = ask::<F>(worker, &handle, PROBE_TIMEOUT).await;
    drop(handle);
    shared.feed(Input::Probed { worker, outcome });
}

/// Asks a worker whether it is healthy.
async fn ask<F: WorkerFactory>(worker: WorkerId, handle: &F::Worker, limit: Duration) -> Result<(), HealthError> {
    match timeout(limit, caught(handle.healthy())).await {
        Ok(Ok(outcome)) => outcome.inspect_err(|error| tracing::debug!(%worker, %error, "health check failed")),
        Ok(Err(panic)) => {
            tracing::error!(%worker, panic, "health check panicked");
            Err(HealthError::new("the check panicked"))
        }
        Err(_) => {
            tracing::debug!(%worker, ?limit, "health check took too long");
            Err(HealthError::new(format_args!("no answer within {limit:?}")))
        }
    }
}

async fn end<F: WorkerFactory>(shared: Arc<Shared<F>>, worker: WorkerId, handle: WorkerOf<F>, force: Force) {
    let outcome = match force {
        Force::Close => caught(handle.close()).await,
        Force::Kill => caught(handle.kill()).await,
    };
    if let Err(panic) = outcome {
        tracing::error!(%worker, panic, "ending the worker panicked");
    }
    drop(handle);
    shared.feed(Input::Closed { worker });
}

fn log(event: &Event) {
    match &event.kind {
        EventKind::WorkerStarting { worker } => tracing::debug!(%worker, "worker starting"),
        EventKind::WorkerReady { worker, after } => tracing::debug!(%worker, ?after, "worker ready"),
        EventKind::SpawnFailed { worker, error } => {
            let error = format_args!("{error:#}");
            tracing::warn!(%worker, %error, "worker could not be started");
        }
        EventKind::WorkerCrashed { worker, exit } => tracing::warn!(%worker, %exit, "worker ended by itself"),
        EventKind::WorkerUnhealthy { worker, finding } => tracing::warn!(%worker, %finding, "worker unhealthy"),
        EventKind::WorkerGone { worker } => tracing::debug!(%worker, "worker gone"),
        EventKind::SessionStarted { session, worker } => {
            tracing::debug!(%session, %worker, "session started");
        }
        EventKind::SessionEnded { session, worker, reason } => {
            tracing::debug!(%session, %worker, %reason, "session ended");
        }
        EventKind::Draining => tracing::info!("draining"),
        EventKind::ShuttingDown => tracing::info!("shutting down"),
    }
}
