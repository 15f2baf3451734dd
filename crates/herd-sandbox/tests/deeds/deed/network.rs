//! Sockets of the host and of other workers.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream},
    os::{linux::net::SocketAddrExt, unix::net},
    time::Duration,
};

use crate::{
    attempt::{Attempt, any},
    raw::{Arg, Call, call, calls},
    target::Target,
};

/// A connection in a network of its own is refused at once, without a route too.
const PATIENCE: Duration = Duration::from_secs(5);

pub(crate) fn connect_to_ports_of_the_host(target: &Target) -> Attempt {
    any([
        ("gateway", connect(Ipv4Addr::LOCALHOST.into(), target.port("gateway_port"))),
        ("admin", connect(Ipv4Addr::LOCALHOST.into(), target.port("admin_port"))),
        ("admin by IPv6", connect(Ipv6Addr::LOCALHOST.into(), target.port("admin_port"))),
        ("any address", connect(Ipv4Addr::UNSPECIFIED.into(), target.port("gateway_port"))),
    ])
}

pub(crate) fn connect_to_a_port_of_another_worker(target: &Target) -> Attempt {
    connect(Ipv4Addr::LOCALHOST.into(), target.port("neighbour_port"))
}

pub(crate) fn reach_the_internet(_: &Target) -> Attempt {
    // Addresses for documentation (RFC 5737, RFC 3849), which nobody has, and that of the metadata services of clouds.
    let addresses = ["192.0.2.1", "2001:db8::1", "169.254.169.254", "10.0.0.1"];
    any(addresses.map(|address| (address, connect(address.parse().expect("an address"), 80))))
}

fn connect(address: IpAddr, port: u16) -> Attempt {
    let stream = TcpStream::connect_timeout(&SocketAddr::new(address, port), PATIENCE)?;
    Ok(format!("{stream:?}"))
}

pub(crate) fn connect_to_the_control_socket(target: &Target) -> Attempt {
    Ok(format!("{:?}", net::UnixStream::connect(target.path("control_socket"))?))
}

pub(crate) fn connect_to_an_abstract_socket_of_the_host(target: &Target) -> Attempt {
    abstract_socket(target.text("host_abstract"))
}

pub(crate) fn connect_to_an_abstract_socket_of_another_worker(target: &Target) -> Attempt {
    abstract_socket(target.text("neighbour_abstract"))
}

fn abstract_socket(name: &str) -> Attempt {
    let address = net::SocketAddr::from_abstract_name(name)?;
    Ok(format!("{:?}", net::UnixStream::connect_addr(&address)?))
}

pub(crate) fn open_a_raw_socket(_: &Target) -> Attempt {
    any([
        ("raw", socket(libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_TCP)),
        ("raw by IPv6", socket(libc::AF_INET6, libc::SOCK_RAW, libc::IPPROTO_TCP)),
        ("packet", socket(libc::AF_PACKET, libc::SOCK_RAW, 0)),
        ("packet without header", socket(libc::AF_PACKET, libc::SOCK_DGRAM, 0)),
    ])
}

fn socket(family: i32, kind: i32, protocol: i32) -> Attempt {
    let args = [family, kind, protocol].map(|number| Arg::Int(number.into()));
    Ok(format!("{:?}", call(libc::SYS_socket, &args)?))
}

/// Of families that have no network namespace, lead into the kernel's depths, or to the machine that this one runs in.
pub(crate) fn open_a_socket_of_another_kind(_: &Target) -> Attempt {
    let kinds = [
        ("vsock", libc::AF_VSOCK, libc::SOCK_STREAM, 0),
        ("crypto", libc::AF_ALG, libc::SOCK_SEQPACKET, 0),
        ("events of devices", libc::AF_NETLINK, libc::SOCK_DGRAM, libc::NETLINK_KOBJECT_UEVENT),
        ("netfilter", libc::AF_NETLINK, libc::SOCK_DGRAM, libc::NETLINK_NETFILTER),
        ("XDP", libc::AF_XDP, libc::SOCK_RAW, 0),
        ("CAN", libc::AF_CAN, libc::SOCK_RAW, 1),
        ("Bluetooth", libc::AF_BLUETOOTH, libc::SOCK_RAW, 1),
        ("TIPC", libc::AF_TIPC, libc::SOCK_RDM, 0),
        ("RDS", libc::AF_RDS, libc::SOCK_SEQPACKET, 0),
    ];
    any(kinds.map(|(name, family, kind, protocol)| (name, socket(family, kind, protocol))))
}

/// Takes the loopback down.
pub(crate) fn change_the_network(_: &Target) -> Attempt {
    // struct ifreq: a name of 16 bytes, then the flags, none of which is IFF_UP.
    let mut request = [0; 40];
    request[..2].copy_from_slice(b"lo");
    let socket = [libc::AF_INET, libc::SOCK_DGRAM, 0].map(|number| Arg::Int(number.into()));
    let ioctl = [Arg::Last, Arg::Int(libc::SIOCSIFFLAGS.cast_signed()), Arg::Bytes(&request)];
    let down = [Call { number: libc::SYS_socket, args: &socket }, Call { number: libc::SYS_ioctl, args: &ioctl }];
    Ok(format!("{:?}", calls(&down)?))
}
