//! Who listens on a TCP port: the worker or somebody else.
//!
//! Between the choice of a port and the worker's `bind` anybody may take it, another tenant's worker included. So what
//! answers there is not taken for the worker until its listening socket is found among the worker's descriptors.

use std::{
    collections::{HashSet, VecDeque},
    fs::{self, File},
    io::{self, BufRead as _, BufReader},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use crate::sock_diag;

/// The state of a listening socket in /proc/net/tcp.
const LISTEN: &str = "0A";

/// How often a process tree is walked before its listener counts as foreign: a process whose parent ends during the
/// walk can escape it once.
const WALKS: usize = 3;

/// Who listens on a port.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Holder {
    Nobody,
    /// A process of the tree that was asked about.
    Worker,
    Somebody,
}

/// Tells who listens on a loopback port: nobody, a process of the tree below one of `roots`, or somebody else.
///
/// # Errors
/// `/proc` cannot be read. A process whose descriptors may not be looked at counts as one that does not listen.
pub(crate) fn holder(port: u16, roots: &[u32]) -> io::Result<Holder> {
    for _ in 0..WALKS {
        let mut sockets = listeners(port)?;
        if sockets.is_empty() {
            return Ok(Holder::Nobody);
        }
        // Several sockets can share a port (SO_REUSEPORT); the kernel picks one for each connection, so all of them
        // must be the worker's.
        remove_sockets_of_tree(&mut sockets, roots);
        if sockets.is_empty() {
            return Ok(Holder::Worker);
        }
    }
    Ok(Holder::Somebody)
}

/// The inodes of the sockets that would get a connection to 127.0.0.1 on this port.
fn listeners(port: u16) -> io::Result<HashSet<u64>> {
    let Ok(listening) = sock_diag::listening(port) else { return listeners_in_proc(port) };
    Ok(listening.iter().filter(|socket| takes_loopback(socket.address)).map(|socket| socket.inode).collect())
}

/// Whether a socket bound to this address gets connections to 127.0.0.1.
fn takes_loopback(address: IpAddr) -> bool {
    match address {
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => true,
        address => matches!(address.to_canonical(), IpAddr::V4(Ipv4Addr::LOCALHOST | Ipv4Addr::UNSPECIFIED)),
    }
}

/// The same as [`listeners`] where the kernel has no sock_diag, and slower.
fn listeners_in_proc(port: u16) -> io::Result<HashSet<u64>> {
    let mut inodes = HashSet::new();
    for table in ["/proc/self/net/tcp", "/proc/self/net/tcp6"] {
        let table = match File::open(table) {
            Ok(table) => table,
            // Without IPv6 there is no such table.
            Err(error) if error.kind() == io::ErrorKind::NotFound && table.ends_with('6') => continue,
            Err(error) => return Err(error),
        };
        for line in BufReader::new(table).lines().skip(1) {
            let line = line?;
            let Some(entry) = Entry::parse(&line) else { continue };
            // All listening sockets come first (the kernel's proc_net_tcp document): what follows may be many
            // thousands of connections.
            if !entry.listens {
                break;
            }
            if entry.port == port && takes_loopback(entry.address) {
                inodes.insert(entry.inode);
            }
        }
    }
    Ok(inodes)
}

#[derive(Debug, Eq, PartialEq)]
struct Entry {
    port: u16,
    address: IpAddr,
    listens: bool,
    inode: u64,
}

impl Entry {
    /// Reads a line such as `0: 0100007F:4E21 00000000:0000 0A 00000000:00000000 00:00000000 00000000 0 0 12345 1 …`.
    fn parse(line: &str) -> Option<Self> {
        let mut fields = line.split_ascii_whitespace();
        let (bound, port) = fields.nth(1)?.split_once(':')?;
        let state = fields.nth(1)?;
        let inode = fields.nth(5)?.parse().ok()?;
        Some(Self {
            port: u16::from_str_radix(port, 16).ok()?,
            address: address(bound)?,
            listens: state == LISTEN,
            inode,
        })
    }
}

/// Reads an address that is written as 32-bit words, each in the machine's order.
fn address(text: &str) -> Option<IpAddr> {
    let words = text.as_bytes().chunks(8).map(|word| u32::from_str_radix(str::from_utf8(word).ok()?, 16).ok());
    let bytes: Vec<u8> = words.map(|word| word.map(u32::to_ne_bytes)).collect::<Option<Vec<_>>>()?.concat();
    match (<[u8; 4]>::try_from(&*bytes), <[u8; 16]>::try_from(&*bytes)) {
        (Ok(v4), _) => Some(Ipv4Addr::from(v4).into()),
        (_, Ok(v6)) => Some(Ipv6Addr::from(v6).into()),
        _ => None,
    }
}

/// Takes out of `sockets` those that a process of the tree has open.
fn remove_sockets_of_tree(sockets: &mut HashSet<u64>, roots: &[u32]) {
    let mut waiting: VecDeque<u32> = roots.iter().copied().collect();
    let mut seen: HashSet<u32> = roots.iter().copied().collect();
    while let Some(pid) = waiting.pop_front() {
        for inode in open_sockets(pid) {
            sockets.remove(&inode);
        }
        if sockets.is_empty() {
            return;
        }
        waiting.extend(children(pid).into_iter().filter(|child| seen.insert(*child)));
    }
}

/// The sockets that a process has open; none if it is gone or may not be looked at.
fn open_sockets(pid: u32) -> Vec<u64> {
    let Ok(descriptors) = fs::read_dir(format!("/proc/{pid}/fd")) else { return Vec::new() };
    let links = descriptors.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
    links.filter_map(|link| link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()).collect()
}

/// The children of all threads of a process; none if it is gone.
fn children(pid: u32) -> Vec<u32> {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else { return Vec::new() };
    let lists = threads.filter_map(|thread| fs::read_to_string(thread.ok()?.path().join("children")).ok());
    lists
        .flat_map(|list| list.split_ascii_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>())
        .collect()
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv6Addr, TcpListener};

    use super::*;

    fn own_port(listener: &TcpListener) -> u16 {
        listener.local_addr().expect("a bound socket has an address").port()
    }

    #[test]
    fn a_listener_is_found_in_the_process_that_holds_it_and_nowhere_else() {
        let me = std::process::id();
        for address in [Ipv4Addr::LOCALHOST, Ipv4Addr::UNSPECIFIED] {
            let listener = TcpListener::bind((address, 0)).expect("a port");
            let port = own_port(&listener);
            assert_eq!(holder(port, &[me]).expect("/proc is there"), Holder::Worker);
            assert_eq!(holder(port, &[]).expect("/proc is there"), Holder::Somebody);
            drop(listener);
            assert_eq!(holder(port, &[me]).expect("/proc is there"), Holder::Nobody);
        }
    }

    #[test]
    fn a_listener_on_both_families_is_found() {
        let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, 0)).expect("a port");
        assert_eq!(holder(own_port(&listener), &[std::process::id()]).expect("/proc is there"), Holder::Worker);
    }

    #[test]
    fn the_kernels_two_answers_agree() {
        for bound in ["127.0.0.1:0", "127.0.0.2:0", "0.0.0.0:0", "[::1]:0", "[::]:0", "[::ffff:127.0.0.1]:0"] {
            let listener = TcpListener::bind(bound).expect("a port");
            let port = own_port(&listener);
            let expected = !matches!(bound, "127.0.0.2:0" | "[::1]:0");
            assert_eq!(!listeners(port).expect("sock_diag is there").is_empty(), expected, "{bound}");
            assert_eq!(listeners(port).expect("sock_diag is there"), listeners_in_proc(port).expect("/proc is there"));
        }
    }

    #[test]
    fn a_line_that_is_no_entry_is_passed_over() {
        let line = "   0: 0100007F:4E21 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 12345 1";
        let entry = Entry {
            port: 20_001,
            address: Ipv4Addr::from(0x0100_007f_u32.to_ne_bytes()).into(),
            listens: true,
            inode: 12_345,
        };
        assert_eq!(Entry::parse(line), Some(entry));
        assert_eq!(Entry::parse("nonsense"), None);
        assert_eq!(Entry::parse(""), None);
    }
}
