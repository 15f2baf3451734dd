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
use herd_pool::EndReason;
use rustix::net::listen;
use tokio::{
    runtime,
    sync::{mpsc, watch},
    task::JoinSet,
    time::timeout,
};

use crate::{
    access::Tenants,
    admin::{self, Admin, Draining},
    banner::Banner,
    cli::{RunArgs, ServeArgs},
    config::{self, Mistakes, Settings, settings},
    console,
    control::{self, Control, ControlPlane, ControlSocket},
    holder, isolation,
    journal::Journal,
    logs,
    metrics::Metrics,
    pools::Pools,
    setup::{Setup, raise_open_files},
    signals::Signals,
    workers::{Factory, WorkerPool},
};

/// How many connections may wait to be accepted.
const BACKLOG: i32 = 4096;
/// Enough for hyper's and the pool's deepest calls; the default of 2 MiB would be address space for nothing.
const GATEWAY_STACK: usize = 1 << 20;
/// Threads for what blocks: file systems, and launching processes. Idle ones end after some seconds.
const BLOCKING_THREADS: usize = 32;
/// How long connections may take to close, once nothing is left that they could serve.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// `herd` and `herd serve`.
///
/// # Errors
/// If the configuration has mistakes, or the daemon cannot do its work.
pub(crate) fn serve(args: ServeArgs) -> anyhow::Result<()> {
    let (mut raw, mistakes) = match &args.config {
        Some(path) => config::read_as(path, args.mode)?,
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
    setups: Vec<Setup>,
    gateway: TcpListener,
    admin: Option<TcpListener>,
    control: ControlSocket,
}

impl Daemon {
    fn open(mut settings: Settings) -> anyhow::Result<Self> {
        logs::start(&settings.telemetry);
        raise_open_files();
        isolation::guard(&mut settings)?;
        let setups = settings.pools.iter().cloned().map(Setup::prepare).collect::<Result<_, _>>()?;
        let network = &settings.network;
        let gateway = bind(network.data_bind, "--listen or network.data_bind")?;
        let admin = network.admin_bind.map(|address| bind(address, "--admin or network.admin_bind")).transpose()?;
        let control = control::open(network.control_socket.as_deref(), gateway.local_addr()?.port())?;
        Ok(Self { settings, setups, gateway, admin, control })
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
        let Self { settings, setups, gateway, admin, control } = self;
        let mut signals = Signals::listen().context("cannot listen for signals")?;
        let journal = Journal::new();
        let pools = Pools::start(setups, journal.clone())?;
        let metrics = Metrics::new(pools.clone(), journal.clone());
        let draining = Draining::default();

        let front_door = Gateway::new(first_pool(&pools), gateway_options(&settings, metrics.clone()));
        let numbers = front_door.clone();
        metrics.watch_gateway(move || numbers.stats());

        let mut tasks = JoinSet::new();
        let state =
            Admin { pools: pools.clone(), journal, metrics: metrics.clone(), draining: draining.clone() };
        let admin_address = admin.as_ref().map(TcpListener::local_addr).transpose()?;
        if let Some(listener) = admin {
            let listener = tokio::net::TcpListener::from_std(listener)?;
            tasks.spawn(admin::server::serve(listener, admin::guarded_routes(state.clone())));
        }
        let address = gateway.local_addr()?;
        let tenants = Tenants::new(&settings.tenants);
        let plane = Control::new(pools.clone(), tenants, draining.clone(), address, settings.network.tls.is_some());
        let plane = ControlPlane::new(plane, admin::routes(state))?;
        tasks.spawn(plane.serve(tokio::net::UnixListener::from_std(control.listener()?)?));

        let mut threads = GatewayThreads::start(&front_door, &gateway, thread_count(&settings.network))?;
        let banner = Banner::new(&settings, &pools, address, admin_address, control.path().to_owned());
        announce(&settings, &pools, &banner, for_a_person)?;

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
            () = pools.drain(settings.network.drain_timeout) => None,
            signal = signals.stop() => {
                pools.end_all().await;
                Some(anyhow::anyhow!("a second signal ({signal}) cut the drain short; what was running was killed"))
            }
        };
        let cut = pools.stats().sessions_ended.by(EndReason::Shutdown);
        if cut > 0 && cut_short.is_none() {
            tracing::warn!(sessions = cut, "the drain timeout passed, and sessions that were still in use were cut");
        }
        threads.stop().await;
        // Workers that were still starting, and the files of all of them.
        if !pools.close(LAST_WORDS).await {
            tracing::warn!("some workers take long to end; their inits see to it");
        }
        // Only now: until the last worker is gone, `herd ps` can tell what is being waited for.
        tasks.shutdown().await;
        metrics.forget_gateway();
        pools.finish().await;
        tracing::info!("stopped");
        failure.or(cut_short).map_or(Ok(()), Err)
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

fn first_pool(pools: &Pools) -> WorkerPool {
    pools.iter().next().expect("settings have a pool").pool.clone()
}

fn announce(settings: &Settings, pools: &Pools, banner: &Banner, for_a_person: bool) -> anyhow::Result<()> {
    let admin = banner.admin.map(tracing::field::display);
    let (gateway, control) = (banner.gateway, banner.control.display());
    tracing::info!(%gateway, admin, %control, "serving");
    if !gateway.ip().is_loopback() {
        tracing::warn!(%gateway, "the gateway asks nobody who they are, and is open to the network");
    }
    for sentence in settings.warnings() {
        tracing::warn!("{sentence}");
    }
    let several = settings.pools.len() > 1;
    for pool in pools.iter() {
        pool.setup().announce(several);
    }
    if for_a_person {
        return console::print(banner);
    }
    for pool in pools.iter() {
        pool.setup().announce_sandbox(several);
    }
    Ok(())
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
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            let holder = holder::of(address).map_or_else(|| "another program".to_owned(), |holder| holder.to_string());
            bail!("cannot listen on {address}: {holder} has that port; stop it, or choose another address with {setting}")
        }
        Err(error) => {
            Err(error).with_context(|| format!("cannot listen on {address}; choose another address with {setting}"))
        }
    }
}
