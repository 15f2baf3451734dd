//! The control plane: sessions over gRPC, and reloads.

use std::{convert::Infallible, path::Path, time::Instant};

use anyhow::{Context, Result, ensure};
use futures_util::{StreamExt as _, future, stream};
use http_body_util::{BodyExt as _, StreamBody, combinators::BoxBody};
use hyper::{
    Request,
    body::{Bytes, Frame, Incoming},
    client::conn::http2::{self, SendRequest},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    net::UnixStream,
    runtime::{self, Runtime},
    sync::oneshot,
};

use super::{
    child::pause,
    client::Client,
    proxy::Bench,
    report::{Aim, Section, Table, progress},
    series::{Series, figure},
    served::{Served, Settings},
    sessions::spares_by,
};

const ACQUIRE_AIM_MS: f64 = 2.0;
/// How many sessions live while the daemon reads its configuration again.
const LIVE: usize = 100;
const RELOADS: usize = 20;
const RESOURCES: &str = "max_workers: 110, spare: 1, ttl: 1h";

/// A connection to the control socket.
struct Plane {
    runtime: Runtime,
    sender: SendRequest<BoxBody<Bytes, Infallible>>,
}

/// A session that lives for as long as this does.
struct Stream {
    _answers: Incoming,
    /// The client's side of the stream is open as long as this is.
    _open: oneshot::Sender<Infallible>,
}

pub(crate) fn measure(bench: &Bench, count: usize) -> Result<(Section, Vec<Aim>)> {
    let mut daemon = Served::start(bench, "herd-control", Settings { resources: RESOURCES, ..Settings::default() })?;
    progress("control plane: sessions over gRPC");
    let acquired = acquire(&daemon, count)?;
    progress("control plane: reloads");
    let [same, other] = reload(bench, &mut daemon)?;
    let mut table = Table::new(&["what", "median ms", "p99 ms", "min–max ms"]);
    let rows = [
        ("Acquire with a spare".to_owned(), &acquired),
        (format!("reload with {LIVE} sessions, nothing has changed"), &same),
        (format!("reload with {LIVE} sessions, their pool has changed"), &other),
    ];
    for (what, times) in rows {
        let [median, p99] = [times.median(), times.percentile(99)].map(figure);
        table.row([what, median, p99, format!("{}–{}", figure(times.min()), figure(times.max()))]);
    }
    let text = format!(
        "Acquire: {count} sessions one after another over one HTTP/2 connection to the control socket, each from \
         opening the stream until the session's message, once a spare is there; each is ended with its stream. Reload: \
         {RELOADS} times `POST /v1/reload`, which `herd reload` asks for as well, until all is read, checked and \
         applied. Before the next one there is a spare with the new settings, and the sessions are the same still."
    );
    let aim = Aim {
        what: "Acquire over gRPC, with a spare".to_owned(),
        aim: format!("≤ {ACQUIRE_AIM_MS} ms"),
        measured: format!("{} ms, p99 {} ms", figure(acquired.median()), figure(acquired.percentile(99))),
        met: acquired.median() <= ACQUIRE_AIM_MS,
    };
    Ok((Section { title: "Control plane".to_owned(), text, table }, vec![aim]))
}

fn acquire(daemon: &Served, count: usize) -> Result<Series> {
    let mut plane = Plane::connect(&daemon.socket)?;
    let mut admin = Client::connect(daemon.admin)?;
    (0..count)
        .map(|_| {
            await_spare(&mut admin)?;
            let start = Instant::now();
            let stream = plane.acquire()?;
            let milliseconds = start.elapsed().as_secs_f64() * 1e3;
            drop(stream);
            Ok(milliseconds)
        })
        .collect()
}

/// How long a reload takes that finds the file as it was, and one that finds another worker.
fn reload(bench: &Bench, daemon: &mut Served) -> Result<[Series; 2]> {
    let mut gateway = Client::connect(daemon.address)?;
    let mut admin = Client::connect(daemon.admin)?;
    for number in 0..LIVE {
        let response = gateway.get("/", &format!("live-{number}"))?;
        ensure!(response.status == 200, "a session is answered with {}: {}", response.status, response.body());
    }
    let mut times = [Series::default(), Series::default()];
    for turn in 0..RELOADS {
        let worker = format!("env: ['TURN={turn}']");
        daemon.rewrite(bench, Settings { worker: &worker, resources: RESOURCES, ..Settings::default() })?;
        for (series, expected) in times.iter_mut().rev().zip(["\"changed\"", "\"unchanged\""]) {
            await_spare(&mut admin)?;
            let start = Instant::now();
            let reloaded = admin.request("POST", "/v1/reload", "", 0)?;
            series.push(start.elapsed().as_secs_f64() * 1e3);
            let body = reloaded.body();
            ensure!(reloaded.status == 200, "a reload is answered with {}: {body}", reloaded.status);
            ensure!(body.contains(expected), "a reload finds {body} and not {expected}");
        }
        let session = format!("live-{}", turn % LIVE);
        let found = gateway.get("/", &session)?;
        ensure!(found.field("herd-session") == Some("resumed"), "the reload has ended {session}");
    }
    Ok(times)
}

fn await_spare(admin: &mut Client) -> Result<()> {
    while spares_by(admin)? < 1 {
        pause(std::time::Duration::from_millis(1));
    }
    Ok(())
}

impl Plane {
    fn connect(socket: &Path) -> Result<Self> {
        // A thread of its own tells the daemon at once that a stream was dropped.
        let runtime = runtime::Builder::new_multi_thread().worker_threads(1).enable_io().build()?;
        let sender = runtime.block_on(async {
            let stream = UnixStream::connect(socket).await.context("cannot connect to the control socket")?;
            let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
            // How it ends, the next call tells.
            tokio::spawn(async move { drop(connection.await) });
            anyhow::Ok(sender)
        })?;
        Ok(Self { runtime, sender })
    }

    /// Opens a stream of `Acquire` and waits for its session.
    fn acquire(&mut self) -> Result<Stream> {
        let Self { runtime, sender } = self;
        runtime.block_on(async {
            // A message that is not compressed and has no bytes: the default pool, and the default time-out.
            let first = Ok(Frame::data(Bytes::from_static(&[0; 5])));
            // The client's side of the stream ends with what is dropped, and nothing else would tell the daemon.
            let (open, ended) = oneshot::channel::<Infallible>();
            let rest = stream::once(ended).filter_map(|_| future::ready(None));
            let body = BoxBody::new(StreamBody::new(stream::once(future::ready(first)).chain(rest)));
            let request = Request::post("http://herd/herd.v1.HerdService/Acquire")
                .header("content-type", "application/grpc")
                .header("te", "trailers")
                .body(body)?;
            sender.ready().await?;
            let mut response = sender.send_request(request).await?;
            let frame = response.body_mut().frame().await;
            let message = match frame {
                Some(frame) => frame?.into_data().ok(),
                None => None,
            };
            // Behind five bytes of prefix is field 1, the session's ID.
            ensure!(
                message.is_some_and(|message| message.get(5) == Some(&0x0a)),
                "there is no session: {:?}",
                response.headers()
            );
            Ok(Stream { _answers: response.into_body(), _open: open })
        })
    }
}
