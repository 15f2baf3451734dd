//! The control plane: a Unix socket on which a daemon answers gRPC (`herd.v1`) and the admin API.
//!
//! It is also where `herd ps` and `herd end` find a running daemon.
//!
//! By default it is `herd.sock` in the user's runtime directory: `$XDG_RUNTIME_DIR/herd`, else `/run/herd` for root (or
//! `/run/herd-0` where the first belongs to another user), else `/tmp/herd-UID`. A second daemon of the same user takes
//! `herd-PORT.sock` with its data plane's port. A path that the operator configured is taken as it is or refused.

mod authority;
mod conversation;
mod exec;
mod front;
mod peer;
mod refusal;
mod runtime_dir;
mod service;
mod socket;
mod upkeep;
pub(crate) mod wire;

use std::path::{Path, PathBuf};

use axum::Router;
use tokio::{join, net::UnixListener, sync::watch};

use self::{front::Health, peer::ControlListener};
pub(crate) use self::{
    front::MOST_EXEC_MESSAGE_BYTES,
    runtime_dir::RuntimeDir,
    service::Control,
    socket::{ControlSocket, SocketError, is_live},
};
use crate::{
    admin::server,
    config::settings::{Access, Settings},
    draining::Draining,
};

/// Why no session is started for a tenant.
pub(crate) const NO_TENANTS: &str = "the gateway admits nobody of a tenant, so that nobody could reach the session; \
                                     configure `access` with tokens that have a `tenant`, or with a `jwt` that has a \
                                     `tenant_claim`, or name no tenant";

/// Whether some credentials that the gateway takes are a tenant's.
pub(crate) fn admits_tenants(settings: &Settings) -> bool {
    settings.access.as_ref().is_some_and(|Access { tokens, jwt, .. }| {
        tokens.iter().any(|token| token.tenant.is_some()) || jwt.as_ref().is_some_and(|jwt| jwt.tenant_claim.is_some())
    })
}

/// Where this user's daemons have their control sockets unless they are told otherwise.
pub(crate) fn directory() -> PathBuf {
    RuntimeDir::of_daemons().path().to_owned()
}

/// Makes the control socket of a daemon whose data plane has this port.
///
/// # Errors
/// One sentence for the operator.
pub(crate) fn open(configured: Option<&Path>, port: u16) -> anyhow::Result<ControlSocket> {
    if let Some(path) = configured {
        return ControlSocket::bind(path).map_err(|error| error.explain(path));
    }
    let directory = RuntimeDir::of_daemons();
    directory.prepare()?;
    let path = directory.path().join("herd.sock");
    match ControlSocket::bind(&path) {
        Err(SocketError::Live) => {
            let path = directory.path().join(format!("herd-{port}.sock"));
            ControlSocket::bind(&path).map_err(|error| error.explain(&path))
        }
        other => other.map_err(|error| error.explain(&path)),
    }
}

/// What a daemon answers on its control socket.
#[derive(Debug)]
pub(crate) struct ControlPlane {
    routes: Router,
    health: Health,
    draining: Draining,
}

impl ControlPlane {
    /// gRPC, and for whatever else is asked the admin API.
    ///
    /// # Errors
    /// If the services cannot be described, which no input brings about.
    pub(crate) fn new(control: Control, admin: Router) -> anyhow::Result<Self> {
        let draining = control.draining.clone();
        let (routes, health) = front::routes(control, admin)?;
        Ok(Self { routes, health, draining })
    }

    /// Serves for ever on the socket, whose listener is given, and makes its file anew when it is gone. Dropping the
    /// future breaks off all connections, and so kills the workers of the sessions that streams hold.
    pub(crate) async fn serve(self, socket: ControlSocket, listener: UnixListener) {
        let Self { routes, health, draining } = self;
        let (replace, listener) = watch::channel(listener.into());
        // The services have a status before anybody can ask for it.
        join!(
            biased;
            health.follow(draining),
            server::serve(ControlListener::new(listener), routes),
            upkeep::keep(socket, replace),
        );
    }
}
