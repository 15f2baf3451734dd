//! Who has a port that somebody else wants.

use std::{
    fmt, fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::Path,
};

/// The state of a socket that listens, as the tables below have it.
const LISTENING: &str = "0A";

/// A process that listens on a port.
#[derive(Debug, Eq, PartialEq)]
pub(crate) struct Holder {
    pid: u32,
    /// The name of its program, as far as its own /proc directory tells.
    program: String,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A process may call itself anything.
        write!(f, "{} (process {})", self.program.escape_default(), self.pid)
    }
}

/// The process because of which nobody else can listen on `address`, if it can be known: the descriptors of other users'
/// processes are theirs, and those in other namespaces are not seen at all.
///
/// The sockets are in proc_pid_net(5), and whose they are is told by the links in /proc/PID/fd, proc_pid_fd(5).
pub(crate) fn of(address: SocketAddr) -> Option<Holder> {
    let tables = ["/proc/self/net/tcp", "/proc/self/net/tcp6"].map(|path| fs::read_to_string(path).unwrap_or_default());
    let links: Vec<_> =
        tables.iter().flat_map(|table| inodes(table, address)).map(|i| format!("socket:[{i}]")).collect();
    if links.is_empty() {
        return None;
    }
    let processes = fs::read_dir("/proc").ok()?.flatten();
    let mut pids: Vec<u32> = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    // The parent of those that share the socket is most likely what an operator knows.
    pids.sort_unstable();
    let pid = pids.into_iter().find(|pid| has_one(*pid, &links))?;
    let program = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
    Some(Holder { pid, program: program.trim_end().to_owned() })
}

fn has_one(pid: u32, links: &[String]) -> bool {
    let Ok(descriptors) = fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
    let is_one = |link: &Path| link.to_str().is_some_and(|link| links.iter().any(|wanted| wanted == link));
    descriptors.flatten().any(|descriptor| fs::read_link(descriptor.path()).is_ok_and(|link| is_one(&link)))
}

/// The sockets of a table that listen where `address` is, or everywhere.
fn inodes(table: &str, address: SocketAddr) -> Vec<&str> {
    let inode = |line: &'_ str| -> Option<(SocketAddr, bool)> {
        let mut fields = line.split_ascii_whitespace();
        let local = parse_address(fields.nth(1)?)?;
        Some((local, fields.nth(1)? == LISTENING))
    };
    let is_in_the_way = |local: SocketAddr| {
        let (theirs, ours) = (local.ip().to_canonical(), address.ip().to_canonical());
        local.port() == address.port() && (theirs == ours || theirs.is_unspecified() || ours.is_unspecified())
    };
    let lines =
        table.lines().filter(|line| inode(line).is_some_and(|(local, listens)| listens && is_in_the_way(local)));
    lines.filter_map(|line| line.split_ascii_whitespace().nth(9)).collect()
}

/// An address as the tables have it: words of 32 bits in hexadecimal digits and in the host's order, a colon, the port.
fn parse_address(text: &str) -> Option<SocketAddr> {
    let (ip, port) = text.split_once(':')?;
    let words = ip.as_bytes().chunks(8).map(|word| u32::from_str_radix(std::str::from_utf8(word).ok()?, 16).ok());
    let bytes: Vec<u8> = words.collect::<Option<Vec<_>>>()?.into_iter().flat_map(u32::to_ne_bytes).collect();
    let ip = match bytes.len() {
        4 => IpAddr::from(Ipv4Addr::from(<[u8; 4]>::try_from(bytes).ok()?)),
        16 => IpAddr::from(Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?)),
        _ => return None,
    };
    Some(SocketAddr::new(ip, u16::from_str_radix(port, 16).ok()?))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn the_process_that_listens_on_a_port_is_found() {
        let us = std::process::id();
        for here in ["127.0.0.1:0", "[::1]:0", "0.0.0.0:0"] {
            let listener = TcpListener::bind(here).unwrap();
            let port = listener.local_addr().unwrap().port();
            let wanted = if here.starts_with('[') { "::1" } else { "127.0.0.1" };
            let holder = of(SocketAddr::new(wanted.parse().unwrap(), port)).expect("it is this process");
            assert_eq!(holder.pid, us, "{here}: {holder}");
            let everywhere = of(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port));
            assert_eq!(everywhere.map(|holder| holder.pid), Some(us), "{here} is in the way of 0.0.0.0 as well");
        }
    }

    #[test]
    fn a_port_that_nobody_listens_on_has_no_holder() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        // A connection has the same address as the listener, and is none.
        let _client = std::net::TcpStream::connect(address).unwrap();
        let (_server, _) = listener.accept().unwrap();
        drop(listener);
        assert_eq!(of(address), None);
    }

    #[test]
    fn another_address_of_the_same_port_is_not_in_the_way() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        assert_eq!(of(SocketAddr::new("127.0.0.2".parse().unwrap(), port)), None);
    }
}
