//! The control socket: where `herd ps` and `herd end` find a running daemon.
//!
//! By default it is `herd.sock` in the user's runtime directory: `$XDG_RUNTIME_DIR/herd`, else `/run/herd` for root,
//! else `/tmp/herd-UID`. A second daemon of the same user takes `herd-PORT.sock` with its data plane's port. A path that
//! the operator configured is taken as it is or refused.

pub(crate) mod client;
mod peer;
mod runtime_dir;
mod socket;

use std::path::{Path, PathBuf};

pub(crate) use self::{peer::ControlListener, socket::ControlSocket};
use self::{runtime_dir::RuntimeDir, socket::SocketError};

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
