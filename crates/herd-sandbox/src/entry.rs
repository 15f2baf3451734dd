use std::{
    io::stdin,
    sync::atomic::{AtomicBool, Ordering},
};

use rustix::net::{AddressFamily, SocketType, sockopt};

use crate::{init, launch::INIT_NAME};

static CALLED: AtomicBool = AtomicBool::new(false);

/// Lets this program serve as init. Call it first in `main`, before any thread and any runtime is started.
///
/// In an ordinary process it does nothing and returns at once. In a process that [`Init::launch`](crate::Init::launch)
/// started as init it never returns: the process supervises its worker until nothing of it is left, then exits.
///
/// A process was started as init if its name (`argv[0]`) is `herd-init` and its standard input is a Unix socket of type
/// `SOCK_SEQPACKET`; neither happens by chance, and nobody gains anything by imitating it.
pub fn enter_init() {
    if is_init() {
        init::run();
    }
    CALLED.store(true, Ordering::Release);
}

pub(crate) fn was_called() -> bool {
    CALLED.load(Ordering::Acquire)
}

pub(crate) fn is_init() -> bool {
    std::env::args_os().next().is_some_and(|name| name == INIT_NAME)
        && sockopt::socket_type(stdin()).is_ok_and(|kind| kind == SocketType::SEQPACKET)
        && sockopt::socket_domain(stdin()).is_ok_and(|family| family == AddressFamily::UNIX)
}
