use std::{
    future::poll_fn,
    pin::{Pin, pin},
    sync::Arc,
    task::Poll,
    time::Duration,
};

use herd_pool::{Connect, Lease, WorkerFactory};
use hyper::{
    body::Bytes,
    upgrade::{OnUpgrade, Upgraded},
};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncReadExt, AsyncWrite, AsyncWriteExt},
    time::{Instant, interval, sleep_until, timeout},
};

use crate::{
    client::OpenRequest,
    counters::Counters,
    pipe::{Broken, Pipe},
    setup::Seat,
    upstream::{SWEEP_EVERY, StreamOf},
    websocket::{self, Frames},
};

/// How long a client may take to read the goodbye and to close.
const GOODBYE: Duration = Duration::from_secs(1);

/// An upgraded connection: bytes from the client to the worker and back until one of them, or the session, ends.
pub(crate) struct Splice<F: WorkerFactory>
where
    F::Worker: Connect,
{
    /// The client's side, once the response that accepts the upgrade is written.
    pub(crate) upgrade: OnUpgrade,
    pub(crate) upstream: StreamOf<F>,
    /// What the worker sent right after the head of its response.
    pub(crate) early: Bytes,
    pub(crate) lease: Arc<Lease<F>>,
    pub(crate) is_websocket: bool,
    /// How long the connection may go on after its session.
    pub(crate) grace: Duration,
    /// How long to wait for the reason when the worker's side ends.
    pub(crate) reason_within: Duration,
    pub(crate) counters: Arc<Counters>,
    /// Keeps the client's connection busy.
    pub(crate) open: Option<OpenRequest>,
    /// Keeps the pool from being dropped.
    pub(crate) _seat: Arc<Seat<F>>,
}

/// How the relaying ended.
enum End {
    /// Both sides closed in good order, or the client is gone: there is nobody to tell.
    Over,
    /// The worker's side ended, or its session did.
    Worker,
}

impl<F: WorkerFactory> Splice<F>
where
    F::Worker: Connect,
{
    /// Relays until the end. The lease, and the worker's connection, are held until then.
    pub(crate) async fn run(mut self) {
        let counters = self.counters.clone();
        counters.upgrades.begin();
        if let Ok(client) = (&mut self.upgrade).await {
            let mut client = TokioIo::new(client);
            let mut frames = Frames::default();
            frames.read(&self.early);
            let mut down = Pipe::starting_with(&self.early);
            if let End::Worker = self.relay(&mut client, &mut down, &mut frames).await {
                self.say_goodbye(&mut client, down.is_clear() && frames.at_boundary()).await;
            }
        }
        counters.upgrades.end();
    }

    async fn relay(&mut self, client: &mut TokioIo<Upgraded>, down: &mut Pipe, frames: &mut Frames) -> End {
        let Self { upstream, lease, is_websocket, grace, counters, open, .. } = self;
        let mut up = Pipe::default();
        let (mut client_ended, mut worker_ended) = (false, false);
        let mut ended = pin!(lease.ended());
        let mut session_ended = false;
        let mut cut = None;
        let mut look = interval(SWEEP_EVERY);
        let arm = |cut: &mut Option<_>| {
            cut.get_or_insert_with(|| Box::pin(sleep_until(Instant::now() + *grace)));
        };
        poll_fn(|cx| {
            if !client_ended {
                let seen = |bytes: &[u8]| {
                    lease.record_bytes(bytes.len() as u64, 0);
                    counters.received(bytes.len());
                };
                match up.poll(cx, client, upstream, seen) {
                    Poll::Ready(Ok(())) => {
                        client_ended = true;
                        // A WebSocket has no half-closed state: the worker has to answer, and soon.
                        if *is_websocket {
                            arm(&mut cut);
                        }
                    }
                    Poll::Ready(Err(Broken::Reader)) => return Poll::Ready(End::Over),
                    // The worker reads no more, but may have said why.
                    Poll::Ready(Err(Broken::Writer)) => {
                        client_ended = true;
                        arm(&mut cut);
                    }
                    Poll::Pending => {}
                }
            }
            // A client whose bytes wait for the worker is not read from, so nothing else tells that it is gone.
            while !up.is_clear() && look.poll_tick(cx).is_ready() {
                if open.as_ref().is_some_and(|open| open.client().is_cut()) {
                    return Poll::Ready(End::Over);
                }
            }
            if client_ended && Pin::new(&mut *upstream).poll_shutdown(cx).is_ready() && worker_ended {
                return Poll::Ready(End::Over);
            }
            if !worker_ended {
                let seen = |bytes: &[u8]| {
                    lease.record_bytes(0, bytes.len() as u64);
                    counters.sent(bytes.len());
                    if *is_websocket {
                        frames.read(bytes);
                    }
                };
                match down.poll(cx, upstream, client, seen) {
                    Poll::Ready(Ok(())) if *is_websocket => return Poll::Ready(End::Worker),
                    Poll::Ready(Ok(())) => worker_ended = true,
                    Poll::Ready(Err(Broken::Reader)) => return Poll::Ready(End::Worker),
                    Poll::Ready(Err(Broken::Writer)) => return Poll::Ready(End::Over),
                    Poll::Pending => {}
                }
            }
            if worker_ended && Pin::new(&mut *client).poll_shutdown(cx).is_ready() && client_ended {
                return Poll::Ready(End::Over);
            }
            if !session_ended && ended.as_mut().poll(cx).is_ready() {
                session_ended = true;
                arm(&mut cut);
            }
            match &mut cut {
                Some(timer) => timer.as_mut().poll(cx).map(|()| End::Worker),
                None => Poll::Pending,
            }
        })
        .await
    }

    /// Tells a WebSocket client why its session ended, if it did and the worker has not said anything itself, then
    /// closes the connection.
    async fn say_goodbye(&mut self, client: &mut TokioIo<Upgraded>, may_speak: bool) {
        let reason = match self.lease.end_reason() {
            Some(reason) => Some(reason),
            None => timeout(self.reason_within, self.lease.ended()).await.ok(),
        };
        let speak = async {
            if let Some(reason) = reason.filter(|_| self.is_websocket && may_speak) {
                client.write_all(&websocket::close_frame(reason)).await?;
            }
            client.shutdown().await?;
            // Closing while the client's bytes are unread would reset the connection, and could take the goodbye away.
            let mut rest = [0; 1024];
            while client.read(&mut rest).await? > 0 {}
            Ok::<_, std::io::Error>(())
        };
        // Whether the client hears it is the client's concern.
        let _ = timeout(GOODBYE, speak).await;
    }
}
