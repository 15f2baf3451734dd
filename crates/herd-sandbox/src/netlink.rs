//! Links, addresses and routes of a network namespace: rtnetlink(7).

use std::{
    io,
    net::Ipv4Addr,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use rustix::{
    io::Errno,
    net::{
        AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, bind, netlink::SocketAddrNetlink, recv, sendto,
        socket_with,
    },
    process::Pid,
};

use crate::Subnet;

/// `RTMGRP_IPV4_ROUTE` in linux/rtnetlink.h.
const ROUTE_EVENTS: u32 = 0x40;

/// From linux/if_link.h, linux/veth.h and linux/ip.h.
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const VETH_INFO_PEER: u16 = 1;
const IFLA_INET_CONF: u16 = 1;
const DEVCONF_FORWARDING: u16 = 1;
/// `NLA_F_NESTED` in linux/netlink.h.
const NESTED: u16 = 0x8000;

/// The sizes of `nlmsghdr`, `ifinfomsg`, `ifaddrmsg` and `rtmsg`.
const HEADER: usize = 16;
const LINK: usize = 16;
const ADDRESS: usize = 8;
const ROUTE: usize = 12;

/// The kernel fills at most 32 KiB at a time.
const BUFFER: usize = 32 * 1024;

/// The network namespace in which it was opened.
#[derive(Debug)]
pub(crate) struct Netlink {
    socket: OwnedFd,
}

/// Tells when a route comes or goes.
#[derive(Debug)]
pub(crate) struct RouteEvents(OwnedFd);

/// Where packets go.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Way {
    /// Nowhere; who sent one is told.
    Prohibited,
    Via {
        gateway: Ipv4Addr,
        interface: u32,
    },
}

/// One end of a pair of interfaces that are connected with each other, see veth(4).
#[derive(Clone, Copy, Debug)]
pub(crate) struct End<'a> {
    pub(crate) name: &'a str,
    /// Its number in its network namespace.
    pub(crate) index: u32,
}

impl Netlink {
    pub(crate) fn open() -> io::Result<Self> {
        Ok(Self { socket: socket()? })
    }

    /// Makes one end here and the other in the network namespace of this process.
    pub(crate) fn connect(&self, near: End<'_>, far: End<'_>, process: Pid, mtu: u32) -> io::Result<()> {
        let exclusive = (libc::NLM_F_CREATE | libc::NLM_F_EXCL) as u16;
        let mut message = Message::new(libc::RTM_NEWLINK, exclusive, &link(near.index, false));
        message.text(libc::IFLA_IFNAME, near.name);
        message.number(libc::IFLA_MTU, mtu);
        message.nested(libc::IFLA_LINKINFO, |info| {
            info.text(IFLA_INFO_KIND, "veth");
            info.nested(IFLA_INFO_DATA, |data| {
                data.nested(VETH_INFO_PEER, |peer| {
                    peer.0.extend_from_slice(&link(far.index, false));
                    peer.text(libc::IFLA_IFNAME, far.name);
                    peer.number(libc::IFLA_MTU, mtu);
                    peer.number(libc::IFLA_NET_NS_PID, process.as_raw_pid().cast_unsigned());
                });
            });
        });
        self.ask(message)
    }

    /// Brings an interface up.
    pub(crate) fn raise(&self, interface: u32) -> io::Result<()> {
        self.ask(Message::new(libc::RTM_NEWLINK, 0, &link(interface, true)))
    }

    /// Lets packets that come in here go on elsewhere.
    pub(crate) fn forward(&self, interface: u32) -> io::Result<()> {
        let mut message = Message::new(libc::RTM_NEWLINK, 0, &link(interface, false));
        message.nested(libc::IFLA_AF_SPEC, |families| {
            families.nested(libc::AF_INET as u16, |family| {
                family.nested(IFLA_INET_CONF, |settings| settings.number(DEVCONF_FORWARDING, 1));
            });
        });
        self.ask(message)
    }

    pub(crate) fn add_address(&self, interface: u32, address: Ipv4Addr, prefix: u8) -> io::Result<()> {
        let mut body = [0; ADDRESS];
        body[0] = libc::AF_INET as u8;
        body[1] = prefix;
        body[4..].copy_from_slice(&interface.to_ne_bytes());
        let mut message = Message::new(libc::RTM_NEWADDR, (libc::NLM_F_CREATE | libc::NLM_F_EXCL) as u16, &body);
        message.attribute(libc::IFA_LOCAL, &address.octets());
        message.attribute(libc::IFA_ADDRESS, &address.octets());
        self.ask(message)
    }

    /// Adds a route, or changes the one that there is for the same addresses.
    pub(crate) fn add_route(&self, to: Subnet, way: Way) -> io::Result<()> {
        let mut body = [0; ROUTE];
        body[0] = libc::AF_INET as u8;
        body[1] = to.prefix();
        body[4] = libc::RT_TABLE_MAIN;
        body[5] = libc::RTPROT_STATIC;
        body[6] = libc::RT_SCOPE_UNIVERSE;
        body[7] = match way {
            Way::Prohibited => libc::RTN_PROHIBIT,
            Way::Via { .. } => libc::RTN_UNICAST,
        };
        let mut message = Message::new(libc::RTM_NEWROUTE, (libc::NLM_F_CREATE | libc::NLM_F_REPLACE) as u16, &body);
        if to.prefix() > 0 {
            message.attribute(libc::RTA_DST, &to.address().octets());
        }
        if let Way::Via { gateway, interface } = way {
            message.attribute(libc::RTA_GATEWAY, &gateway.octets());
            message.number(libc::RTA_OIF, interface);
        }
        self.ask(message)
    }

    /// The interface through which the default route leads, if there is one.
    pub(crate) fn default_interface(&self) -> io::Result<Option<u32>> {
        let mut body = [0; ROUTE];
        body[0] = libc::AF_INET as u8;
        let mut found = None;
        self.dump(Message::new(libc::RTM_GETROUTE, libc::NLM_F_DUMP as u16, &body), |kind, message| {
            let Some((head, rest)) = message.split_first_chunk::<ROUTE>() else { return };
            let is_default = head[1] == 0 && head[4] == libc::RT_TABLE_MAIN && head[7] == libc::RTN_UNICAST;
            if kind == libc::RTM_NEWROUTE && is_default {
                found = attributes(rest)
                    .find(|(kind, _)| *kind == libc::RTA_OIF)
                    .and_then(|(_, value)| Some(u32::from_ne_bytes(value.try_into().ok()?)));
            }
        })?;
        Ok(found)
    }

    fn addresses(&self) -> io::Result<Vec<Ipv4Addr>> {
        let mut body = [0; ADDRESS];
        body[0] = libc::AF_INET as u8;
        let mut found = Vec::new();
        self.dump(Message::new(libc::RTM_GETADDR, libc::NLM_F_DUMP as u16, &body), |kind, message| {
            let Some((_, rest)) = message.split_first_chunk::<ADDRESS>() else { return };
            if kind == libc::RTM_NEWADDR {
                let local = attributes(rest).filter(|(kind, _)| *kind == libc::IFA_LOCAL);
                found.extend(local.filter_map(|(_, value)| Some(Ipv4Addr::from(<[u8; 4]>::try_from(value).ok()?))));
            }
        })?;
        found.sort_unstable();
        found.dedup();
        Ok(found)
    }

    /// Has something done.
    fn ask(&self, message: Message) -> io::Result<()> {
        self.send(&message.finish(libc::NLM_F_ACK as u16))?;
        self.answers(|_, _| {})
    }

    /// Has something listed.
    fn dump(&self, message: Message, each: impl FnMut(u16, &[u8])) -> io::Result<()> {
        self.send(&message.finish(0))?;
        self.answers(each)
    }

    fn send(&self, message: &[u8]) -> io::Result<()> {
        sendto(&self.socket, message, SendFlags::empty(), &SocketAddrNetlink::new(0, 0))?;
        Ok(())
    }

    /// Reads up to the message that ends an answer. The kernel answers before `sendto` returns, so nothing here waits
    /// for long.
    fn answers(&self, mut each: impl FnMut(u16, &[u8])) -> io::Result<()> {
        let mut buffer = vec![0; BUFFER];
        loop {
            let length = match recv(&self.socket, &mut buffer[..], RecvFlags::empty()) {
                Err(Errno::INTR) => continue,
                received => received?.1,
            };
            let mut rest = buffer.get(..length).ok_or(io::ErrorKind::InvalidData)?;
            if rest.is_empty() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            while let Some((kind, body, after)) = split(rest) {
                match i32::from(kind) {
                    libc::NLMSG_ERROR => return acknowledged(body),
                    libc::NLMSG_DONE => return Ok(()),
                    _ => each(kind, body),
                }
                rest = after;
            }
        }
    }
}

impl RouteEvents {
    pub(crate) fn open() -> io::Result<Self> {
        let socket = socket()?;
        bind(&socket, &SocketAddrNetlink::new(0, ROUTE_EVENTS))?;
        Ok(Self(socket))
    }

    /// Forgets what has been told.
    pub(crate) fn drain(&self) {
        let mut buffer = [0; 1024];
        while recv(&self.0, &mut buffer[..], RecvFlags::DONTWAIT).is_ok() {}
    }
}

impl AsFd for RouteEvents {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// The IPv4 addresses of all interfaces of this process's network, those of the loopback included. They are looked up
/// anew by each call.
///
/// # Errors
/// As socket(2), for `NETLINK_ROUTE`.
pub fn host_addresses() -> io::Result<Vec<Ipv4Addr>> {
    Netlink::open()?.addresses()
}

fn socket() -> io::Result<OwnedFd> {
    // Protocol 0 is NETLINK_ROUTE.
    Ok(socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None)?)
}

/// An `ifinfomsg`.
fn link(index: u32, up: bool) -> [u8; LINK] {
    let mut body = [0; LINK];
    let flags = if up { libc::IFF_UP.cast_unsigned() } else { 0 };
    body[4..8].copy_from_slice(&index.to_ne_bytes());
    body[8..12].copy_from_slice(&flags.to_ne_bytes());
    body[12..16].copy_from_slice(&flags.to_ne_bytes());
    body
}

/// A request, or the inside of an attribute.
struct Message(Vec<u8>);

impl Message {
    fn new(kind: u16, flags: u16, body: &[u8]) -> Self {
        let mut message = vec![0; HEADER];
        message[4..6].copy_from_slice(&kind.to_ne_bytes());
        message[6..8].copy_from_slice(&(flags | libc::NLM_F_REQUEST as u16).to_ne_bytes());
        message.extend_from_slice(body);
        Self(message)
    }

    fn number(&mut self, kind: u16, value: u32) {
        self.attribute(kind, &value.to_ne_bytes());
    }

    fn text(&mut self, kind: u16, value: &str) {
        self.attribute(kind, &[value.as_bytes(), b"\0"].concat());
    }

    fn nested(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) {
        let mut inside = Self(Vec::new());
        fill(&mut inside);
        self.attribute(kind | NESTED, &inside.0);
    }

    fn attribute(&mut self, kind: u16, value: &[u8]) {
        // No value here is longer than some hundred bytes.
        let length = u16::try_from(4 + value.len()).unwrap_or(u16::MAX);
        self.0.extend_from_slice(&length.to_ne_bytes());
        self.0.extend_from_slice(&kind.to_ne_bytes());
        self.0.extend_from_slice(value);
        // Attributes begin at multiples of four.
        self.0.resize(self.0.len().next_multiple_of(4), 0);
    }

    fn finish(mut self, flags: u16) -> Vec<u8> {
        let length = u32::try_from(self.0.len()).unwrap_or(u32::MAX);
        self.0[..4].copy_from_slice(&length.to_ne_bytes());
        let flags = flags | u16::from_ne_bytes([self.0[6], self.0[7]]);
        self.0[6..8].copy_from_slice(&flags.to_ne_bytes());
        self.0
    }
}

/// The type and the body of the first message, and what comes after it.
fn split(bytes: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let length = usize::try_from(u32::from_ne_bytes(bytes.get(..4)?.try_into().ok()?)).ok()?;
    let kind = u16::from_ne_bytes(bytes.get(4..6)?.try_into().ok()?);
    let body = bytes.get(HEADER..length)?;
    Some((kind, body, bytes.get(length.next_multiple_of(4)..).unwrap_or_default()))
}

fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16::from_ne_bytes(bytes.get(..2)?.try_into().ok()?));
        let kind = u16::from_ne_bytes(bytes.get(2..4)?.try_into().ok()?);
        let value = bytes.get(4..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind & !NESTED, value))
    })
}

/// An answer that is an error, or the error 0.
fn acknowledged(body: &[u8]) -> io::Result<()> {
    match body.first_chunk().map(|code| i32::from_ne_bytes(*code)) {
        Some(0) => Ok(()),
        Some(code) => Err(io::Error::from_raw_os_error(-code)),
        None => Err(io::ErrorKind::InvalidData.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hosts_addresses_are_all_told() {
        let addresses = host_addresses().expect("they are listed");
        // Whatever the network, its loopback is up where tests run.
        assert!(addresses.contains(&Ipv4Addr::LOCALHOST), "{addresses:?}");
    }

    #[test]
    fn what_the_kernel_refuses_is_an_error() {
        let nowhere = Netlink::open().expect("a socket").raise(u32::MAX >> 1).expect_err("there is no such interface");
        assert!(matches!(nowhere.raw_os_error(), Some(libc::ENODEV | libc::EPERM)), "{nowhere}");
    }

    #[test]
    fn no_bytes_make_a_reader_panic() {
        for length in 0..64 {
            for fill in [0_u8, 1, 4, 16, 255] {
                let bytes = vec![fill; length];
                let _ = split(&bytes);
                assert!(attributes(&bytes).count() <= length);
            }
        }
    }
}
