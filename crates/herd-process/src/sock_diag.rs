//! Asks the kernel for listening sockets: sock_diag(7).
//!
//! `/proc/net/tcp` says the same, but reading it walks the kernel's whole table of connections, which takes
//! milliseconds even when the table is empty.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType,
    netlink::{self, SocketAddrNetlink},
    recv, sendto, socket_with,
};

/// `SOCK_DIAG_BY_FAMILY` in linux/sock_diag.h.
const SOCK_DIAG_BY_FAMILY: u16 = 20;
/// `NLM_F_REQUEST | NLM_F_DUMP` in linux/netlink.h.
const REQUEST_DUMP: u16 = 0x301;
/// `NLMSG_ERROR` and `NLMSG_DONE` in linux/netlink.h.
const ERROR: u16 = 2;
const DONE: u16 = 3;
const IPPROTO_TCP: u8 = 6;
/// `TCP_LISTEN` in linux/tcp_states.h, as a bit.
const LISTEN: u32 = 1 << 10;

/// The sizes of `nlmsghdr`, `inet_diag_req_v2` and `inet_diag_msg`.
const HEADER: usize = 16;
const REQUEST: usize = 56;
const MESSAGE: usize = 72;

/// After how many sockets the kernel is asked for no more: many can share a port, and each takes time.
pub(crate) const MAX_LISTENING: usize = 4_096;

/// One listening TCP socket.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Listening {
    pub(crate) address: IpAddr,
    pub(crate) inode: u64,
}

/// All TCP sockets, of both families, that listen on this port in this network namespace; some of them if there are
/// more than [`MAX_LISTENING`].
///
/// # Errors
/// The kernel has no sock_diag for TCP, or does not let this process use it.
pub(crate) fn listening(port: u16) -> io::Result<Vec<Listening>> {
    let mut found = Vec::new();
    for family in [AddressFamily::INET, AddressFamily::INET6] {
        dump(family, port, &mut found)?;
    }
    Ok(found)
}

fn dump(family: AddressFamily, port: u16, found: &mut Vec<Listening>) -> io::Result<()> {
    let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, Some(netlink::SOCK_DIAG))?;
    sendto(&socket, &request(family, port), SendFlags::empty(), &SocketAddrNetlink::new(0, 0))?;
    // The kernel fills at most 32 KiB at a time; messages have no other sender.
    let mut buffer = vec![0; 32 * 1024];
    while found.len() <= MAX_LISTENING {
        let (length, _) = recv(&socket, &mut buffer[..], RecvFlags::empty())?;
        let mut rest = &buffer[..length];
        if rest.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        while let Some((kind, body, after)) = split(rest) {
            match kind {
                DONE => return Ok(()),
                ERROR => return Err(error(body)),
                SOCK_DIAG_BY_FAMILY => found.extend(parse(body, port)),
                _ => {}
            }
            rest = after;
        }
    }
    Ok(())
}

fn request(family: AddressFamily, port: u16) -> [u8; HEADER + REQUEST] {
    let mut bytes = [0; HEADER + REQUEST];
    bytes[..4].copy_from_slice(&u32::try_from(HEADER + REQUEST).expect("it is short").to_ne_bytes());
    bytes[4..6].copy_from_slice(&SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    bytes[6..8].copy_from_slice(&REQUEST_DUMP.to_ne_bytes());
    let body = &mut bytes[HEADER..];
    body[0] = u8::try_from(family.as_raw()).expect("families are small numbers");
    body[1] = IPPROTO_TCP;
    body[4..8].copy_from_slice(&LISTEN.to_ne_bytes());
    body[8..10].copy_from_slice(&port.to_be_bytes());
    bytes
}

/// The type and the body of the first message, and what comes after it.
fn split(bytes: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let length = usize::try_from(u32::from_ne_bytes(bytes.get(..4)?.try_into().ok()?)).ok()?;
    let kind = u16::from_ne_bytes(bytes.get(4..6)?.try_into().ok()?);
    let body = bytes.get(HEADER..length)?;
    // Messages begin at multiples of four.
    Some((kind, body, bytes.get(length.next_multiple_of(4)..).unwrap_or_default()))
}

fn error(body: &[u8]) -> io::Error {
    let code = body.first_chunk().map(|code| i32::from_ne_bytes(*code));
    code.map_or_else(|| io::ErrorKind::InvalidData.into(), |code| io::Error::from_raw_os_error(-code))
}

fn parse(body: &[u8], port: u16) -> Option<Listening> {
    let message: &[u8; MESSAGE] = body.first_chunk()?;
    if u16::from_be_bytes([message[4], message[5]]) != port {
        return None;
    }
    let source: [u8; 16] = message[8..24].try_into().ok()?;
    let address = match AddressFamily::from_raw(message[0].into()) {
        AddressFamily::INET => Ipv4Addr::from(*source.first_chunk()?).into(),
        AddressFamily::INET6 => Ipv6Addr::from(source).into(),
        _ => return None,
    };
    let inode = u32::from_ne_bytes(message[68..72].try_into().ok()?);
    Some(Listening { address, inode: inode.into() })
}

#[cfg(test)]
mod tests {
    use std::{net::TcpListener, os::unix::fs::MetadataExt as _};

    use super::*;

    #[test]
    fn listeners_of_both_families_are_found_with_address_and_inode() {
        for address in ["127.0.0.1:0", "0.0.0.0:0", "[::1]:0", "[::]:0"] {
            let listener = TcpListener::bind(address).expect("a port");
            let bound = listener.local_addr().expect("a bound socket has an address");
            let fd = std::os::fd::AsRawFd::as_raw_fd(&listener);
            let inode = std::fs::metadata(format!("/proc/self/fd/{fd}")).expect("it is open").ino();
            let expected = Listening { address: bound.ip(), inode };
            assert_eq!(listening(bound.port()).expect("sock_diag is there"), [expected]);
            drop(listener);
            assert_eq!(listening(bound.port()).expect("sock_diag is there"), []);
        }
    }

    #[test]
    fn a_truncated_message_is_no_message() {
        assert!(split(&[]).is_none());
        assert!(split(&[80, 0, 0, 0, 20, 0]).is_none());
        assert!(split(&[4, 0, 0, 0, 20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]).is_none(), "shorter than its head");
        assert!(parse(&[0; MESSAGE - 1], 0).is_none());
    }
}
