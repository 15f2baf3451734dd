use std::{
    collections::VecDeque,
    fs,
    hash::{BuildHasher as _, RandomState},
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddrV4, SocketAddrV6},
    ops::RangeInclusive,
    sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError},
};

use rustix::{
    io::Errno,
    net::{AddressFamily, SocketFlags, SocketType, bind, socket_with, sockopt},
};

/// Where ports for workers begin: below are those that well-known services use.
const LOWEST: u16 = 10_000;

/// With fewer ports than this outside of the kernel's ephemeral range, that range is used too.
const FEWEST: usize = 1_000;

/// How many busy ports are passed over before giving up. Other programs hold a few ports, not hundreds in a row.
const MAX_BUSY: usize = 1_000;

/// All factories of this process share one set of ports, so that no two live workers have the same one.
static SHARED: LazyLock<Arc<Ports>> = LazyLock::new(|| Arc::new(Ports::new(candidates())));

/// The ports that no live worker has.
///
/// They lie outside of the range from which the kernel hands out ports on its own, so a client's connection or another
/// program's `bind` to port 0 does not take one. The one that was given back longest ago is handed out first: for as
/// long as possible nobody who still remembers a worker's port can reach another worker there.
#[derive(Debug)]
pub(crate) struct Ports {
    free: Mutex<VecDeque<u16>>,
}

/// A port that belongs to one worker until this is dropped.
#[derive(Debug)]
pub(crate) struct Port {
    number: u16,
    ports: Arc<Ports>,
}

impl Port {
    /// Takes a port that no other worker has and nobody holds right now.
    ///
    /// Somebody else may take it before the worker does; whoever uses the port has to look who listens there.
    pub(crate) fn reserve() -> Result<Self, ReserveError> {
        SHARED.reserve()
    }

    pub(crate) fn number(&self) -> u16 {
        self.number
    }
}

impl Drop for Port {
    fn drop(&mut self) {
        self.ports.lock().push_back(self.number);
    }
}

/// No port could be reserved.
#[derive(Debug)]
pub(crate) enum ReserveError {
    /// Live workers and other programs hold all of them.
    AllTaken,
    /// Whether one is free could not be tried, for example because there are no descriptors left.
    Io(io::Error),
}

impl Ports {
    fn new(ports: impl IntoIterator<Item = u16>) -> Self {
        Self { free: Mutex::new(ports.into_iter().collect()) }
    }

    fn reserve(self: &Arc<Self>) -> Result<Port, ReserveError> {
        for _ in 0..MAX_BUSY {
            let number = self.lock().pop_front().ok_or(ReserveError::AllTaken)?;
            // From here on the guard gives the port back, to the end of the queue.
            let port = Port { number, ports: Arc::clone(self) };
            match is_free(number) {
                Ok(true) => return Ok(port),
                Ok(false) => {}
                Err(error) => return Err(ReserveError::Io(error)),
            }
        }
        Err(ReserveError::AllTaken)
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<u16>> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a program could bind the port on any address. It is tried without `SO_REUSEADDR` and without listening: what
/// this finds free is free for every program, and nobody can connect meanwhile.
pub(crate) fn is_free(port: u16) -> io::Result<bool> {
    let bound = (|| {
        let socket = socket_with(AddressFamily::INET6, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
        sockopt::set_ipv6_v6only(&socket, false)?;
        bind(&socket, &SocketAddrV6::new(Ipv6Addr::UNSPECIFIED, port, 0, 0))
    })();
    let bound = match bound {
        // Without IPv6 the other family is all there is.
        Err(Errno::AFNOSUPPORT | Errno::ADDRNOTAVAIL) => {
            socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None)
                .and_then(|socket| bind(&socket, &SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, port)))
        }
        bound => bound,
    };
    match bound {
        Ok(()) => Ok(true),
        Err(Errno::ADDRINUSE | Errno::ACCESS) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// All ports for workers, beginning at a random one so that two daemons on one host do not try the same ones.
fn candidates() -> VecDeque<u16> {
    let ephemeral = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").ok().and_then(|text| range(&text));
    let reserved = fs::read_to_string("/proc/sys/net/ipv4/ip_local_reserved_ports").unwrap_or_default();
    let mut ports = outside(ephemeral.as_ref(), &reserved);
    if !ports.is_empty() {
        let start = RandomState::new().hash_one(std::process::id()) % ports.len() as u64;
        ports.rotate_left(usize::try_from(start).unwrap_or(0));
    }
    ports
}

/// What is left of the ports without the kernel's ephemeral range and without those that the administrator keeps for
/// known programs (ip_local_reserved_ports, in the kernel's ip-sysctl document).
fn outside(ephemeral: Option<&RangeInclusive<u16>>, reserved: &str) -> VecDeque<u16> {
    let reserved: Vec<_> = reserved.trim().split(',').filter_map(range).collect();
    let usable = |port: &u16| !reserved.iter().any(|range| range.contains(port));
    let is_ephemeral = |port: &u16| ephemeral.is_some_and(|range| range.contains(port));
    let outside: VecDeque<u16> = (LOWEST..=u16::MAX).filter(usable).filter(|port| !is_ephemeral(port)).collect();
    if outside.len() >= FEWEST { outside } else { (LOWEST..=u16::MAX).filter(usable).collect() }
}

/// Reads `32768 60999`, `8080-8090` or `9148`.
fn range(text: &str) -> Option<RangeInclusive<u16>> {
    let mut numbers = text.split(['-', ' ', '\t', '\n']).filter(|number| !number.is_empty()).map(str::parse);
    let first = numbers.next()?.ok()?;
    let last = numbers.next().unwrap_or(Ok(first)).ok()?;
    Some(first..=last)
}

#[cfg(test)]
mod tests {
    use std::{
        collections::HashSet,
        net::{TcpListener, TcpStream},
    };

    use super::*;

    /// Some ports that are free now; other tests and programs may take one, so there are many.
    fn some_ports() -> Arc<Ports> {
        Arc::new(Ports::new(candidates().into_iter().take(50)))
    }

    #[test]
    fn no_two_live_workers_have_the_same_port() {
        let ports = some_ports();
        let held: Vec<_> = (0..20).map(|_| ports.reserve().expect("there are 50")).collect();
        let distinct: HashSet<_> = held.iter().map(Port::number).collect();
        assert_eq!(distinct.len(), held.len());
    }

    #[test]
    fn a_port_that_was_given_back_is_used_again_last() {
        let ports = some_ports();
        let first = ports.reserve().expect("a port").number();
        // Other programs may hold some of the 50, which are passed over.
        for _ in 0..25 {
            assert_ne!(ports.reserve().expect("a port").number(), first);
        }
    }

    #[test]
    fn a_port_that_somebody_listens_on_is_passed_over() {
        let free = SHARED.reserve().expect("a port").number();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, free)).expect("it was free");
        let ports = Arc::new(Ports::new([free]));
        assert!(matches!(ports.reserve(), Err(ReserveError::AllTaken)));
        drop(listener);
        assert_eq!(ports.reserve().expect("it is free again").number(), free);
    }

    #[test]
    fn a_port_with_connections_that_linger_is_passed_over() {
        let free = SHARED.reserve().expect("a port").number();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, free)).expect("it was free");
        let client = TcpStream::connect((Ipv4Addr::LOCALHOST, free)).expect("it listens");
        // The side that closes first is left in TIME_WAIT, which a bind without SO_REUSEADDR runs into.
        drop(listener.accept().expect("the connection"));
        drop(client);
        drop(listener);
        let ports = Arc::new(Ports::new([free]));
        assert!(matches!(ports.reserve(), Err(ReserveError::AllTaken)));
    }

    #[test]
    fn ports_lie_outside_of_what_the_kernel_hands_out() {
        let ports = outside(Some(&(32_768..=60_999)), "20000-29999,30001\n");
        assert!(ports.contains(&10_000) && ports.contains(&61_000) && ports.contains(&30_000));
        for port in [9_999, 20_000, 29_999, 30_001, 32_768, 60_999] {
            assert!(!ports.contains(&port), "{port}");
        }
    }

    #[test]
    fn where_the_kernel_hands_out_everything_its_range_is_used() {
        let ports = outside(Some(&(1_024..=65_535)), "");
        assert_eq!((ports.front(), ports.len()), (Some(&LOWEST), 55_536));
    }

    #[test]
    fn ranges_are_read_as_the_kernel_writes_them() {
        assert_eq!(range("32768\t60999\n"), Some(32_768..=60_999));
        assert_eq!(range("8080-8090"), Some(8_080..=8_090));
        assert_eq!(range("9148"), Some(9_148..=9_148));
        assert_eq!(range(""), None);
    }
}
