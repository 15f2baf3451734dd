use std::{
    env,
    net::{IpAddr, SocketAddr, TcpListener},
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::net::UnixListener,
    },
};

use anyhow::{Context as _, bail, ensure};
use herd_sandbox::inherited_listeners;
use rustix::net::{AddressFamily, SocketType, getsockname, sockopt};

use crate::config::settings::Network;

/// Listening sockets that a service manager has opened for the daemon. See sd_listen_fds(3).
#[derive(Debug, Default)]
pub(crate) struct Sockets {
    pub(crate) gateway: Option<TcpListener>,
    pub(crate) admin: Option<TcpListener>,
    pub(crate) control: Option<UnixListener>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Place {
    Gateway,
    Admin,
    Control,
}

impl Sockets {
    /// Takes those over that were passed on to this process.
    ///
    /// Sockets with the names `gateway`, `admin` and `control` (`LISTEN_FDNAMES`) are those. Where none has one of these
    /// names, the first TCP socket is the gateway's, the second one the admin API's, and a Unix socket the control
    /// socket.
    ///
    /// # Errors
    /// If one of them is of no use.
    pub(crate) fn inherit() -> anyhow::Result<Self> {
        let sockets = inherited_listeners().context("the sockets that LISTEN_FDS announces cannot be taken over")?;
        let names = env::var_os("LISTEN_FDNAMES").filter(|_| !sockets.is_empty());
        let names = names.map(|names| names.into_string().map_err(|_| anyhow::anyhow!("LISTEN_FDNAMES is no text")));
        Self::sort(sockets, names.transpose()?.as_deref())
    }

    fn sort(sockets: Vec<OwnedFd>, names: Option<&str>) -> anyhow::Result<Self> {
        let names: Vec<_> = names.map_or_else(Vec::new, |names| names.split(':').collect());
        ensure!(
            names.is_empty() || names.len() == sockets.len(),
            "LISTEN_FDNAMES has {} names for {} sockets; start the daemon through its socket unit",
            names.len(),
            sockets.len()
        );
        let are_named = names.iter().any(|name| Place::named(name).is_some());
        let mut sorted = Self::default();
        for (number, socket) in sockets.into_iter().enumerate() {
            let which = format!("the inherited socket {} (descriptor {})", number + 1, number + 3);
            let family = listener_family(&socket).with_context(|| format!("{which} is of no use"))?;
            let place = match names.get(number) {
                Some(name) if are_named => Place::named(name).with_context(|| {
                    format!("{which} is named `{name}`; name it gateway, admin or control with FileDescriptorName=")
                })?,
                _ => sorted.next(family).with_context(|| format!("{which} is one too many"))?,
            };
            sorted.put(place, family, socket).with_context(|| format!("{which} is of no use"))?;
        }
        Ok(sorted)
    }

    /// Where an unnamed socket goes.
    fn next(&self, family: AddressFamily) -> anyhow::Result<Place> {
        match family {
            AddressFamily::UNIX if self.control.is_none() => Ok(Place::Control),
            AddressFamily::UNIX => bail!("one Unix socket is enough, for control"),
            _ if self.gateway.is_none() => Ok(Place::Gateway),
            _ if self.admin.is_none() => Ok(Place::Admin),
            _ => bail!("two TCP sockets are enough, for the gateway and the admin API"),
        }
    }

    fn put(&mut self, place: Place, family: AddressFamily, socket: OwnedFd) -> anyhow::Result<()> {
        let is_tcp = matches!(family, AddressFamily::INET | AddressFamily::INET6);
        let taken = match place {
            Place::Gateway | Place::Admin if !is_tcp => bail!("the {} needs a TCP socket", place.name()),
            Place::Control if family != AddressFamily::UNIX => bail!("the control socket has to be a Unix socket"),
            Place::Gateway => self.gateway.replace(tcp(socket)?).is_some(),
            Place::Admin => self.admin.replace(tcp(socket)?).is_some(),
            Place::Control => {
                let listener = UnixListener::from(socket);
                listener.set_nonblocking(true)?;
                self.control.replace(listener).is_some()
            }
        };
        ensure!(!taken, "there is another one for the {}", place.name());
        Ok(())
    }

    /// Whether they are where the settings say. What is refused and what is warned of goes by the addresses there, so a
    /// socket elsewhere would go past that.
    ///
    /// # Errors
    /// If one is somewhere else.
    pub(crate) fn check(&self, network: &Network) -> anyhow::Result<()> {
        agree(self.gateway.as_ref(), Some(network.data_bind), Place::Gateway, "network.data_bind")?;
        agree(self.admin.as_ref(), network.admin_bind, Place::Admin, "network.admin_bind")
    }
}

fn agree(
    socket: Option<&TcpListener>,
    configured: Option<SocketAddr>,
    place: Place,
    setting: &str,
) -> anyhow::Result<()> {
    let Some(found) = socket.map(TcpListener::local_addr).transpose()? else { return Ok(()) };
    let name = place.name();
    match configured {
        None => {
            bail!("a socket for the {name} was passed on, and {setting} is off; leave the socket out, or set {setting}")
        }
        // A socket of IPv6 that is bound to all addresses takes IPv4 too.
        Some(configured) if covers(found.ip(), configured.ip()) => Ok(()),
        Some(configured) => bail!(
            "the socket for the {name} that was passed on listens on {found}, and {setting} is {configured}; give both the \
             same address"
        ),
    }
}

fn covers(found: IpAddr, configured: IpAddr) -> bool {
    found == configured || (found.is_unspecified() && configured.is_unspecified())
}

fn tcp(socket: OwnedFd) -> anyhow::Result<TcpListener> {
    let listener = TcpListener::from(socket);
    listener.set_nonblocking(true)?;
    Ok(listener)
}

fn listener_family(socket: &OwnedFd) -> anyhow::Result<AddressFamily> {
    let kind = sockopt::socket_type(socket.as_fd()).context("it is no socket")?;
    ensure!(kind == SocketType::STREAM, "it is no stream socket; write ListenStream= in the socket unit");
    ensure!(sockopt::socket_acceptconn(socket.as_fd())?, "it does not listen; write Accept=no in the socket unit");
    Ok(getsockname(socket)?.address_family())
}

impl Place {
    fn named(name: &str) -> Option<Self> {
        [Self::Gateway, Self::Admin, Self::Control].into_iter().find(|place| place.name() == name)
    }

    fn name(self) -> &'static str {
        match self {
            Self::Gateway => "gateway",
            Self::Admin => "admin",
            Self::Control => "control",
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{net::UdpSocket, os::unix::net::UnixDatagram};

    use super::*;

    fn listener() -> OwnedFd {
        TcpListener::bind(("127.0.0.1", 0)).unwrap().into()
    }

    fn unix() -> (tempfile::TempDir, OwnedFd) {
        let directory = tempfile::tempdir().unwrap();
        let socket = UnixListener::bind(directory.path().join("herd.sock")).unwrap();
        (directory, socket.into())
    }

    fn port(listener: Option<&TcpListener>) -> u16 {
        listener.unwrap().local_addr().unwrap().port()
    }

    #[test]
    fn names_win_over_the_order_and_without_them_the_order_counts() {
        let (first, second) = (TcpListener::bind("127.0.0.1:0").unwrap(), TcpListener::bind("127.0.0.1:0").unwrap());
        let ports = [first.local_addr().unwrap().port(), second.local_addr().unwrap().port()];
        let pair = || vec![first.try_clone().unwrap().into(), second.try_clone().unwrap().into()];
        let named = Sockets::sort(pair(), Some("admin:gateway")).unwrap();
        assert_eq!([port(named.admin.as_ref()), port(named.gateway.as_ref())], ports);
        for names in [None, Some("herd.socket:herd.socket"), Some("unknown:unknown")] {
            let unnamed = Sockets::sort(pair(), names).unwrap();
            assert_eq!([port(unnamed.gateway.as_ref()), port(unnamed.admin.as_ref())], ports);
        }
    }

    #[test]
    fn a_unix_socket_is_for_control_wherever_it_comes() {
        let (_directory, socket) = unix();
        let sorted = Sockets::sort(vec![socket, listener()], None).unwrap();
        assert!(sorted.control.is_some() && sorted.gateway.is_some() && sorted.admin.is_none());
    }

    #[test]
    fn sockets_of_no_use_are_refused_with_the_reason() {
        let (_directory, socket) = unix();
        let udp = || UdpSocket::bind("127.0.0.1:0").unwrap().into();
        let file = || tempfile::tempfile().unwrap().into();
        let pair = || UnixDatagram::pair().unwrap().0.into();
        let connected = || std::os::unix::net::UnixStream::pair().unwrap().0.into();
        let cases: Vec<(Vec<OwnedFd>, Option<&str>, &str)> = vec![
            (vec![udp()], None, "the inherited socket 1 (descriptor 3) is of no use: it is no stream socket"),
            (vec![file()], None, "it is no socket"),
            (vec![pair()], Some("control"), "it is no stream socket"),
            (vec![connected()], Some("control"), "it does not listen; write Accept=no"),
            (vec![listener()], Some("control"), "the control socket has to be a Unix socket"),
            (vec![socket], Some("gateway"), "the gateway needs a TCP socket"),
            (
                vec![listener(), listener()],
                Some("gateway:gateway"),
                "socket 2 (descriptor 4) is of no use: there is another",
            ),
            (vec![listener(), listener()], Some("gateway:web"), "is named `web`; name it gateway, admin or control"),
            (vec![listener(), listener()], Some("gateway"), "LISTEN_FDNAMES has 1 names for 2 sockets"),
            (vec![listener(), listener(), listener()], None, "is one too many: two TCP sockets are enough"),
        ];
        for (sockets, names, wanted) in cases {
            let error = format!("{:#}", Sockets::sort(sockets, names).unwrap_err());
            assert!(error.contains(wanted), "{wanted}: {error}");
        }
    }

    #[test]
    fn a_socket_has_to_be_where_the_settings_say() {
        let inherited = TcpListener::bind("127.0.0.1:0").unwrap();
        let agrees = |configured: Option<&str>| {
            let configured = configured.map(|address| address.parse().unwrap());
            agree(Some(&inherited), configured, Place::Admin, "network.admin_bind")
        };
        // The port is the socket's.
        agrees(Some("127.0.0.1:8081")).unwrap();
        let error = agrees(Some("10.0.0.1:8081")).unwrap_err().to_string();
        assert!(error.contains("network.admin_bind is 10.0.0.1:8081; give both the same address"), "{error}");
        let error = agrees(None).unwrap_err().to_string();
        assert!(error.contains("network.admin_bind is off; leave the socket out"), "{error}");
        assert!(covers("::".parse().unwrap(), "0.0.0.0".parse().unwrap()));
        assert!(!covers("::".parse().unwrap(), "127.0.0.1".parse().unwrap()));
    }
}
