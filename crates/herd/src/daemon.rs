//! All wiring of the daemon in one place: settings → listeners → pools → gateway, control and admin → signal → drain.
//!
//! The main thread runs the control plane: the pools' tasks, the workers' processes and output, the admin API, signals.

use std::{
    io,
    net::{SocketAddr, TcpListener},
    path::absolute,
    time::Duration,
};

use anyhow::{Context as _, bail};
use herd_gateway::Gateway;
use herd_pool::EndReason;
use rustix::net::listen;
use tokio::{runtime, task::JoinSet};

use crate::{
    access::{Access, Tenants},
    admin::{self, Admin, Guard, Live, Rules, Streams},
    banner::Banner,
    certificates::Certificates,
    cli::{RunArgs, ServeArgs},
    config::{self, Mistakes, Settings},
    console,
    control::{self, Control, ControlPlane, ControlSocket},
    draining::Draining,
    front_door,
    gateway_threads::GatewayThreads,
    holder, isolation,
    journal::Journal,
    logs,
    metrics::{Metrics, Others},
    own_program,
    pools::Pools,
    reload::{self, Parts, Reloader, Source},
    service_manager::{ServiceManager, Sockets},
    setup::{self, Setup},
    signals::{HangUps, StopSignals},
    tls::TlsListener,
    traces::Traces,
    webhooks::{self, Webhooks},
    workers,
};

/// How many connections may wait to be accepted.
const BACKLOG: i32 = 4096;
/// Threads for what blocks: file systems, and launching processes. Idle ones end after some seconds.
const BLOCKING_THREADS: usize = 32;
/// How long connections may take to close, once nothing is left that they could serve.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// How long the receivers of webhooks may take for what waits for them.
const LAST_EVENTS: Duration = Duration::from_secs(5);

/// `herd` and `herd serve`.
///
/// # Errors
/// If the configuration has mistakes, or the daemon cannot do its work.
pub(crate) fn serve(args: ServeArgs) -> anyhow::Result<()> {
    let ServeArgs { config: file, daemon: flags, mode } = args;
    let (mut raw, mistakes) = match &file {
        Some(path) => config::read_as(path, mode)?,
        None => Default::default(),
    };
    flags.clone().apply(&mut raw);
    let settings = config::settle(raw, mistakes)?;
    let for_a_person = file.is_none();
    let source = file.map(|file| anyhow::Ok(Source { file: absolute(file)?, flags, mode }));
    Daemon::open(settings, source.transpose()?)?.run(for_a_person)
}

/// `herd run -- COMMAND ARG…`.
///
/// # Errors
/// If the flags contradict each other, or the daemon cannot do its work.
pub(crate) fn run(args: RunArgs) -> anyhow::Result<()> {
    let settings = config::settle(args.into_raw(), Mistakes::default())?;
    Daemon::open(settings, None)?.run(true)
}

/// A daemon that has got everything it needs from the system, and serves nothing yet.
#[derive(Debug)]
struct Daemon {
    /// Where the settings are written, to be read again.
    source: Option<Source>,
    settings: Settings,
    setups: Vec<Setup>,
    tenants: Tenants,
    access: Option<Access>,
    certificates: Certificates,
    webhooks: webhooks::Prepared,
    guard: Guard,
    gateway: TcpListener,
    admin: Option<TcpListener>,
    control: ControlSocket,
    service_manager: ServiceManager,
}

impl Daemon {
    fn open(mut settings: Settings, source: Option<Source>) -> anyhow::Result<Self> {
        logs::start(&settings.telemetry);
        let sockets = Sockets::inherit()?;
        let service_manager = ServiceManager::from_environment()?;
        // Now, while it is surely there: a pool that a reload adds may run this program as its REPL.
        own_program::path().context("cannot tell the path of this program")?;
        setup::raise_open_files();
        isolation::guard(&mut settings)?;
        let setups = workers::all_or_refusal(settings.pools.iter().cloned().map(Setup::prepare))?;
        let tenants = Tenants::new(&settings.tenants);
        let access = settings.access.as_ref().map(|access| Access::open(access, &tenants)).transpose()?;
        let certificates = Certificates::open(&settings.network)?;
        let webhooks = webhooks::Prepared::new(&settings.webhooks)?;
        let network = &settings.network;
        let guard = Guard::new(Rules::read(network)?);
        sockets.check(network)?;
        let gateway = match sockets.gateway {
            Some(inherited) => inherited,
            None => bind(network.data_bind, "--listen or network.data_bind")?,
        };
        let admin = match (sockets.admin, network.admin_bind) {
            (Some(inherited), _) => Some(inherited),
            (None, Some(address)) => Some(bind(address, "--admin or network.admin_bind")?),
            (None, None) => None,
        };
        let control = match sockets.control {
            Some(inherited) => ControlSocket::inherit(inherited)?,
            None => control::open(network.control_socket.as_deref(), gateway.local_addr()?.port())?,
        };
        Ok(Self {
            source,
            settings,
            setups,
            tenants,
            access,
            certificates,
            webhooks,
            guard,
            gateway,
            admin,
            control,
            service_manager,
        })
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
        let Self {
            source,
            settings,
            setups,
            tenants,
            access,
            certificates,
            webhooks,
            guard,
            gateway,
            admin,
            control,
            service_manager,
        } = self;
        let mut signals = StopSignals::listen().context("cannot listen for signals")?;
        let hang_ups = HangUps::listen().context("cannot listen for signals")?;
        let mut tasks = JoinSet::new();

        let journal = Journal::new();
        let webhooks = Webhooks::start(&journal, webhooks);
        let pools = Pools::start(setups, journal.clone())?;
        let metrics = Metrics::new(pools.clone(), journal.clone());
        let traces = Traces::start(&settings.telemetry)?;
        let draining = Draining::default();

        let routes = front_door::routes(&pools.iter().collect::<Vec<_>>(), &settings)?;
        let front_door = Gateway::new(routes, front_door::options(&settings, access, metrics.clone(), &traces));
        metrics.watch(Others {
            gateway: front_door.clone(),
            tenants: tenants.clone(),
            certificates: certificates.clone(),
            webhooks: webhooks.clone(),
            traces: traces.clone(),
        });
        let address = gateway.local_addr()?;
        let mut threads =
            GatewayThreads::start(&front_door, &gateway, certificates.gateway().as_ref(), settings.network.threads)?;

        let parts = Parts {
            pools: pools.clone(),
            gateway: front_door,
            metrics: metrics.clone(),
            tenants: tenants.clone(),
            certificates: certificates.clone(),
            webhooks: webhooks.clone(),
            traces: traces.clone(),
            guard: guard.clone(),
            draining: draining.clone(),
            service_manager: service_manager.clone(),
        };
        let reloader = Reloader::new(source, settings.clone(), parts);
        tasks.spawn(reload::on_hang_up(hang_ups, reloader.clone()));
        tasks.spawn(certificates.clone().watch());

        let plane = Control::new(pools.clone(), tenants.clone(), draining.clone(), reloader.clone(), address);
        let streams = Streams::default();
        let state = Admin {
            pools: pools.clone(),
            journal,
            metrics: metrics.clone(),
            draining: draining.clone(),
            tenants,
            gateway: plane.gateway().into(),
            streams: streams.clone(),
            live: Live::default(),
            reloader: reloader.clone(),
        };
        let admin_address = admin.as_ref().map(TcpListener::local_addr).transpose()?;
        if let Some(listener) = admin {
            let listener = tokio::net::TcpListener::from_std(listener)?;
            let routes = admin::guarded_routes(state.clone(), guard);
            match certificates.admin() {
                Some(tls) => tasks.spawn(admin::server::serve(TlsListener::new(listener, tls), routes)),
                None => tasks.spawn(admin::server::serve(listener, routes)),
            };
        }
        let plane = ControlPlane::new(plane, admin::routes(state))?;
        let (control_path, listener) = (control.path().to_owned(), control.listener()?);
        tasks.spawn(plane.serve(control, tokio::net::UnixListener::from_std(listener)?));

        let banner = Banner::new(&settings, &pools, address, admin_address, control_path);
        announce(&settings, &pools, &banner, for_a_person)?;
        service_manager.ready(&pools);
        tasks.spawn(service_manager.clone().attend(pools.clone(), threads.pulse(), draining.clone()));

        let failure = tokio::select! {
            signal = signals.next() => {
                let timeout = reloader.settings().network.drain_timeout;
                tracing::info!(signal, ?timeout, "stopping; a second signal ends it at once");
                None
            }
            () = threads.one_ended() => Some(anyhow::anyhow!("a gateway thread ended by itself; see the log")),
            // The set is never empty, and none of them ends while all is well.
            _ = tasks.join_next() => Some(anyhow::anyhow!("the control plane ended by itself; see the log")),
        };
        draining.begin();
        service_manager.stopping(&pools);
        let cut_short = tokio::select! {
            () = pools.drain(reloader.settings().network.drain_timeout) => None,
            signal = signals.next() => {
                pools.end_all().await;
                Some(anyhow::anyhow!("a second signal ({signal}) cut the drain short; what was running was killed"))
            }
        };
        let cut = pools.stats().sessions_ended.by(EndReason::Shutdown);
        if cut > 0 && cut_short.is_none() {
            tracing::warn!(sessions = cut, "the drain timeout passed, and sessions that were still in use were cut");
        }
        threads.stop(LAST_WORDS).await;
        // Workers that were still starting, and the files of all of them.
        if !pools.close(LAST_WORDS).await {
            tracing::warn!("some workers take long to end; their inits see to it");
        }
        tokio::join!(webhooks.flush(LAST_EVENTS), traces.flush(LAST_WORDS));
        // Only now: until the last worker is gone, `herd ps` can tell what is being waited for.
        streams.end().await;
        tasks.shutdown().await;
        metrics.forget();
        pools.finish().await;
        tracing::info!("stopped");
        failure.or(cut_short).map_or(Ok(()), Err)
    }
}

fn announce(settings: &Settings, pools: &Pools, banner: &Banner, for_a_person: bool) -> anyhow::Result<()> {
    let admin = banner.admin.map(tracing::field::display);
    let (gateway, control) = (banner.gateway, banner.control.display());
    tracing::info!(%gateway, admin, %control, "serving");
    front_door::warn(settings);
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
            bail!(
                "cannot listen on {address}: {holder} has that port; stop it, or choose another address with {setting}"
            )
        }
        Err(error) => {
            Err(error).with_context(|| format!("cannot listen on {address}; choose another address with {setting}"))
        }
    }
}
