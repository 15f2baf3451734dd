//! All wiring of the daemon in one place: settings → listeners → pool → gateway and admin → signal → drain.
//!
//! The main thread runs the control plane: the pool's tasks, the workers' processes and output, the admin API, signals.
//! Each gateway thread has a runtime of its own and accepts for itself, so that no request crosses threads.

use std::{
    io,
    net::{SocketAddr, TcpListener},
    num::NonZero,
    sync::Arc,
    thread,
    time::Duration,
};

use anyhow::{Context as _, bail};
use herd_gateway::{Gateway, GatewayOptions, MetricsPage, Sessions};
use herd_pool::{Crash, EndReason, Pool, Worker as _};
use herd_sandbox::Layer;
use rustix::{
    net::listen,
    process::{Resource, Rlimit, getrlimit, setrlimit},
};
use tokio::{
    join, runtime,
    sync::{mpsc, watch},
    task::JoinSet,
    time::timeout,
};

use crate::{
    admin::{self, Admin, Draining},
    banner::Banner,
    cli::{RunArgs, ServeArgs},
    config::{
        self, Mistakes, Settings,
        settings::{self, IdleBy, Pids, SandboxMode, WhenFull},
    },
    console,
    control::{self, ControlSocket},
    isolation::{self, Isolation, grouped},
    journal::Journal,
    logs,
    metrics::Metrics,
    sight,
    signals::Signals,
    workers::{self, Factory, WorkerPool},
};

/// How many connections may wait to be accepted.
const BACKLOG: i32 = 4096;
/// Enough for hyper's and the pool's deepest calls; the default of 2 MiB would be address space for nothing.
const GATEWAY_STACK: usize = 1 << 20;
/// Threads for what blocks: file systems, and launching processes. Idle ones end after some seconds.
const BLOCKING_THREADS: usize = 32;
/// How long connections may take to close, once nothing is left that they could serve.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// How much longer than its own timeout the pool lets the start of a worker take: the factory, which can say what it
/// waited for, comes first, and has to end the worker that was not ready.
const START_MARGIN: Duration = Duration::from_secs(60);

/// `herd` and `herd serve`.
///
/// # Errors
/// If the configuration has mistakes, or the daemon cannot do its work.
pub(crate) fn serve(args: ServeArgs) -> anyhow::Result<()> {
    let (mut raw, mistakes) = match &args.config {
        Some(path) => config::read(path)?,
        None => Default::default(),
    };
    args.daemon.apply(&mut raw);
    let settings = config::settle(raw, mistakes)?;
    Daemon::open(settings)?.run(args.config.is_none())
}

/// `herd run -- COMMAND ARG…`.
///
/// # Errors
/// If the flags contradict each other, or the daemon cannot do its work.
pub(crate) fn run(args: RunArgs) -> anyhow::Result<()> {
    let settings = config::settle(args.into_raw(), Mistakes::default())?;
    Daemon::open(settings)?.run(true)
}

/// A daemon that has got everything it needs from the system, and serves nothing yet.
#[derive(Debug)]
struct Daemon {
    settings: Settings,
    isolation: Isolation,
    factory: Factory,
    gateway: TcpListener,
    admin: Option<TcpListener>,
    control: ControlSocket,
}

impl Daemon {
    fn open(mut settings: Settings) -> anyhow::Result<Self> {
        logs::start(&settings.telemetry);
        let only = &mut settings.pools[0];
        only.resources.open_files = raise_open_files(only.resources.open_files);
        isolation::guard(&mut settings)?;
        let only = &settings.pools[0];
        let factory = workers::factory(only)?;
        let isolation = Isolation::of(&factory, only.sandbox.mode);
        let network = &settings.network;
        let gateway = bind(network.data_bind, "--listen or network.data_bind")?;
        let admin = network.admin_bind.map(|address| bind(address, "--admin or network.admin_bind")).transpose()?;
        let control = control::open(network.control_socket.as_deref(), gateway.local_addr()?.port())?;
        Ok(Self { settings, isolation, factory, gateway, admin, control })
    }

    /// Serves until a signal says to stop, then drains.
    fn run(self, for_a_person: bool) -> anyhow::Result<()> {
        let mut builder = runtime::Builder::new_current_thread();
        let runtime = builder.enable_all().max_blocking_threads(BLOCKING_THREADS).build();
        let runtime = runtime.context("cannot start the runtime")?;
        let done = runtime.block_on(self.serve(for_a_person));
        // What still blocks (a file system that hangs) must not keep the daemon from ending.
        runtime.shutdown_background();
        done
    }

    async fn serve(self, for_a_person: bool) -> anyhow::Result<()> {
        let Self { settings, isolation, factory, gateway, admin, control } = self;
        let mut signals = Signals::listen().context("cannot listen for signals")?;
        let pool = pool(factory.clone(), &settings.pools[0])?;
        let journal = Journal::new();
        let metrics = Metrics::new(pool.clone(), journal.clone());
        let draining = Draining::default();

        let front_door = Gateway::new(pool.clone(), gateway_options(&settings, metrics.clone()));
        let numbers = front_door.clone();
        metrics.watch_gateway(move || numbers.stats());

        let mut tasks = JoinSet::new();
        tasks.spawn(journal.clone().record(pool.subscribe()));
        let isolation = Arc::new(isolation);
        let state = Admin {
            pool: pool.clone(),
            journal,
            metrics: metrics.clone(),
            draining: draining.clone(),
            isolation: Arc::clone(&isolation),
        };
        let admin_address = admin.as_ref().map(TcpListener::local_addr).transpose()?;
        if let Some(listener) = admin {
            let listener = tokio::net::TcpListener::from_std(listener)?;
            tasks.spawn(admin::server::serve(listener, admin::guarded_routes(state.clone())));
        }
        let listener = tokio::net::UnixListener::from_std(control.listener()?)?;
        tasks.spawn(admin::server::serve(listener, admin::routes(state)));

        let address = gateway.local_addr()?;
        let mut threads = GatewayThreads::start(&front_door, &gateway, thread_count(&settings.network))?;
        let banner = Banner::new(&settings, &isolation, address, admin_address, control.path().to_owned());
        announce(&settings, &isolation, &banner, for_a_person)?;

        let failure = tokio::select! {
            signal = signals.stop() => {
                tracing::info!(signal, timeout = ?settings.network.drain_timeout, "stopping; a second signal ends it at once");
                None
            }
            () = threads.one_ended() => Some(anyhow::anyhow!("a gateway thread ended by itself; see the log")),
            // The set is never empty, and none of them ends while all is well.
            _ = tasks.join_next() => Some(anyhow::anyhow!("the admin API ended by itself; see the log")),
        };
        draining.begin();
        let cut_short = tokio::select! {
            () = pool.drain(settings.network.drain_timeout) => None,
            signal = signals.stop() => {
                end_all(&pool).await;
                Some(anyhow::anyhow!("a second signal ({signal}) cut the drain short; what was running was killed"))
            }
        };
        let cut = pool.stats().sessions_ended.by(EndReason::Shutdown);
        if cut > 0 && cut_short.is_none() {
            tracing::warn!(sessions = cut, "the drain timeout passed, and sessions that were still in use were cut");
        }
        threads.stop().await;
        // Workers that were still starting, and the files of all of them.
        if timeout(LAST_WORDS, factory.close()).await.is_err() {
            tracing::warn!("some workers take long to end; their inits see to it");
        }
        // Only now: until the last worker is gone, `herd ps` can tell what is being waited for.
        tasks.shutdown().await;
        metrics.forget_gateway();
        // Nothing is left to end. The pool says this when it is dropped as well, but that would be after the last line.
        pool.shutdown().await;
        tracing::info!("stopped");
        failure.or(cut_short).map_or(Ok(()), Err)
    }
}

fn pool(factory: Factory, settings: &settings::Pool) -> anyhow::Result<WorkerPool> {
    let settings::Resources {
        min_workers,
        max_workers,
        spare,
        ttl,
        idle_by,
        max_lifetime,
        acquire_timeout,
        max_waiting,
        when_full,
        worker_reuse,
        health_interval,
        open_files: _,
    } = settings.resources;
    Pool::builder(factory)
        .min_workers(min_workers)
        .max_workers(max_workers)
        .spare(spare)
        .ttl(ttl)
        .idle_by(match idle_by {
            IdleBy::Lease => herd_pool::IdleBy::Lease,
            IdleBy::Bytes => herd_pool::IdleBy::Bytes,
        })
        .max_lifetime(max_lifetime)
        .acquire_timeout(acquire_timeout)
        .max_waiting(max_waiting)
        .when_full(match when_full {
            WhenFull::Wait => herd_pool::WhenFull::Wait,
            WhenFull::EvictIdle => herd_pool::WhenFull::EvictIdle,
        })
        .worker_reuse(worker_reuse)
        .spawn_timeout(settings.worker.start_timeout + START_MARGIN)
        .health_interval(health_interval)
        .on_crash(log_crash)
        .build()
        .context("cannot set up the pool")
}

fn log_crash(crash: &Crash) {
    // The pool itself logs every crash; what it does not say is that it hit a session. Which one is not written: whoever
    // knows a session's ID is in that session.
    if let Crash { session: Some(_), worker, exit } = crash {
        let last_line = exit.stderr_tail.last().map(String::as_str);
        tracing::warn!(%worker, %exit, last_line, "a session lost its worker");
    }
}

fn gateway_options(settings: &Settings, metrics: Metrics) -> GatewayOptions {
    let network = &settings.network;
    GatewayOptions {
        session_key: network.session_key.clone(),
        sessions: if network.lookup_only { Sessions::LookUpOnly } else { Sessions::Start },
        metrics: Some(MetricsPage {
            path: settings.telemetry.metrics_path.clone(),
            render: Arc::new(move || metrics.render()),
        }),
        max_connections: network.max_connections,
        response_timeout: network.response_timeout,
        ..GatewayOptions::default()
    }
}

fn announce(settings: &Settings, isolation: &Isolation, banner: &Banner, for_a_person: bool) -> anyhow::Result<()> {
    let admin = banner.admin.map(tracing::field::display);
    let (gateway, control) = (banner.gateway, banner.control.display());
    tracing::info!(%gateway, admin, %control, "serving");
    if !gateway.ip().is_loopback() {
        tracing::warn!(%gateway, "the gateway asks nobody who they are, and is open to the network");
    }
    for sentence in settings.warnings() {
        tracing::warn!("{sentence}");
    }
    for sentence in sight::unseen(&settings.pools[0], &isolation.layers) {
        tracing::warn!("{sentence}");
    }
    for missing in grouped(isolation.absent()) {
        tracing::warn!("the sandbox has no {missing}");
    }
    announce_limits(settings, isolation);
    if for_a_person {
        console::print(banner)
    } else {
        tracing::info!("sandbox: {isolation}");
        Ok(())
    }
}

/// Says which limits are not kept. Whoever asked for one that cannot be has been refused, so that for most it is no matter.
fn announce_limits(settings: &Settings, isolation: &Isolation) {
    let sandbox = &settings.pools[0].sandbox;
    if sandbox.mode == SandboxMode::Off || isolation.layers.contains(&Layer::Cgroup) {
        return;
    }
    tracing::info!(
        "no limits of memory and CPU time are asked for, and none could be had here (`herd doctor` says why)"
    );
    // The default is what everybody counts on who says nothing.
    if isolation.limits.pids.is_none() && sandbox.limits.pids == Pids::Default {
        tracing::warn!(
            "workers may have any number of processes: the default of 100 cannot be kept here (`herd doctor` says why)"
        );
    }
}

/// The threads that serve the gateway.
#[derive(Debug)]
struct GatewayThreads {
    stop: watch::Sender<bool>,
    /// Each thread holds a sender until it ends, and says nothing.
    ended: mpsc::Receiver<()>,
    count: usize,
}

impl GatewayThreads {
    fn start(gateway: &Gateway<Factory>, listener: &TcpListener, count: usize) -> anyhow::Result<Self> {
        let (stop, stopped) = watch::channel(false);
        let (end, ended) = mpsc::channel(count);
        for number in 0..count {
            let gateway = gateway.clone();
            let listener = listener.try_clone().context("cannot share the gateway's listener")?;
            let mut stopped = stopped.clone();
            let end = EndNotice(end.clone());
            let serve = move || {
                let _end = end;
                let runtime = runtime::Builder::new_current_thread().enable_all().max_blocking_threads(1).build();
                let served = runtime.and_then(|runtime| {
                    runtime.block_on(async {
                        let listener = tokio::net::TcpListener::from_std(listener)?;
                        let stop = async {
                            // An error means that the daemon is gone, and is as good a reason to stop.
                            let _ = stopped.wait_for(|stop| *stop).await;
                        };
                        gateway.serve(listener, stop).await;
                        Ok(())
                    })
                });
                if let Err(error) = served {
                    tracing::error!(%error, "a gateway thread could not serve");
                }
            };
            let thread = thread::Builder::new().name(format!("gateway-{number}")).stack_size(GATEWAY_STACK);
            thread.spawn(serve).context("cannot start a gateway thread")?;
        }
        Ok(Self { stop, ended, count })
    }

    /// Resolves when a thread has ended though nobody stopped it.
    async fn one_ended(&mut self) {
        self.ended.recv().await;
        self.count = self.count.saturating_sub(1);
    }

    /// Stops them and waits until they have, within reason.
    async fn stop(mut self) {
        self.stop.send_replace(true);
        let all = async {
            for _ in 0..self.count {
                self.ended.recv().await;
            }
        };
        if timeout(LAST_WORDS, all).await.is_err() {
            tracing::info!("clients kept connections open; they are cut");
        }
    }
}

/// Says that a thread has ended, also if it panicked.
#[derive(Debug)]
struct EndNotice(mpsc::Sender<()>);

impl Drop for EndNotice {
    fn drop(&mut self) {
        // There is room for one notice of each thread.
        let _ = self.0.try_send(());
    }
}

/// Ends all sessions, and leaves nothing of any worker behind without asking them.
async fn end_all(pool: &WorkerPool) {
    let kill_all = async {
        let mut kills = JoinSet::new();
        for worker in pool.workers().into_iter().filter_map(|info| info.worker) {
            kills.spawn(async move { worker.kill().await });
        }
        kills.join_all().await;
    };
    // The order counts: once polled, the shutdown has ended every session for that reason. A worker that is killed
    // before would look like one that crashed.
    join!(biased; pool.shutdown(), kill_all);
}

fn thread_count(network: &settings::Network) -> usize {
    network.threads.unwrap_or_else(|| thread::available_parallelism().map_or(1, NonZero::get))
}

fn bind(address: SocketAddr, setting: &str) -> anyhow::Result<TcpListener> {
    let listener = TcpListener::bind(address).and_then(|listener| {
        listener.set_nonblocking(true)?;
        listen(&listener, BACKLOG)?;
        Ok(listener)
    });
    match listener {
        Ok(listener) => Ok(listener),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => bail!(
            "cannot listen on {address}: another program has that port; stop it, or choose another address with {setting}"
        ),
        Err(error) => {
            Err(error).with_context(|| format!("cannot listen on {address}; choose another address with {setting}"))
        }
    }
}

/// Lets the daemon open as many files as it may, and says how many of the `wanted` a worker can have.
fn raise_open_files(wanted: u64) -> u64 {
    let limit = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }) {
        tracing::warn!(%error, "the limit of open files could not be raised");
    }
    match limit.maximum {
        Some(most) if most < wanted => {
            tracing::warn!(wanted, most, "workers can have fewer files open than configured: the hard limit is lower");
            most
        }
        _ => wanted,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::raw::Raw;

    #[tokio::test]
    async fn the_pool_is_more_patient_with_a_start_than_the_factory() {
        let mut settings = config::settle(Raw::default(), Mistakes::default()).unwrap();
        let only = &mut settings.pools[0];
        (only.resources.min_workers, only.resources.spare) = (0, 0);
        only.worker.start_timeout = Duration::from_secs(3600);
        // What this host offers cannot be tried here: init needs the first call in `main`.
        only.sandbox.mode = settings::SandboxMode::Off;
        let pool = pool(workers::factory(only).unwrap(), only).unwrap();
        assert!(format!("{pool:?}").contains("spawn_timeout: Some(3660s)"), "{pool:?}");
    }
}
