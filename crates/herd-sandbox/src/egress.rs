//! The way out of a worker's network, and what it does not lead to.
//!
//! ```text
//! worker's network            router's network                   host's network
//!   eth0 .2 ── veth pair ── .1 up0        pasta0 .6 ── tap ── pasta (.5) ── TCP sockets
//!                               DNS at .1:53 ─────────────────── the launching process
//! ```
//! The worker's packets pass through a second network namespace, in which there is no process, and which alone decides
//! where they go. In the worker's own, routes would not bind it: a socket that is bound to an interface, or that names
//! one with each packet (`IP_PKTINFO`, see ip(7)), ignores what routes forbid.
//!
//! IPv4 and TCP alone, and DNS. Datagrams are not passed on: pasta sends them from a port of the host that has the
//! number which the worker chose, and on that two workers could take each other's answers.

use std::{fmt, net::Ipv4Addr, path::PathBuf, str::FromStr};

use crate::{Host, Identity, Isolation, Mode, Network, Spec};

/// What a worker with [`Network::Egress`](crate::Network::Egress) reaches beyond public addresses.
///
/// Without further words these stay closed: [`Reach::Private`], [`Reach::Metadata`], [`Reach::Loopback`],
/// [`Reach::Host`], and all that is no address of one machine in the public network, see RFC 6890. IPv6 is closed
/// altogether.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct Egress {
    /// What is open all the same. Default: nothing.
    pub allow: Vec<Reach>,
    /// The host's own addresses, on which its services listen: see [`host_addresses`](crate::host_addresses).
    /// Default: none.
    pub host: Vec<Ipv4Addr>,
}

/// The program that leads out of a worker's network: pasta(1), of the Debian package passt.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Pasta {
    program: PathBuf,
    /// Whom it runs as, where that is not the launching user.
    identity: Option<Identity>,
    loopback: bool,
}

/// Something beyond public addresses that a worker may be allowed to reach. It is written as its name, `private`, or as
/// an address with or without the length of a prefix, `10.1.2.0/24`.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Reach {
    /// `private`: 10.0.0.0/8, 100.64.0.0/10, 172.16.0.0/12 and 192.168.0.0/16, but for the host's own addresses.
    Private,
    /// `metadata`: 169.254.0.0/16, where clouds tell a machine its secrets.
    Metadata,
    /// `loopback`: what listens on the host's 127.0.0.1. The worker reaches it at [`Egress::LOOPBACK`].
    Loopback,
    /// `host`: the host's own addresses other than the loopback.
    Host,
    /// These addresses, but for the host's own; one of these has to be named alone.
    Subnet(Subnet),
}

/// Neighbouring IPv4 addresses: those that begin with the same bits.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Subnet {
    address: Ipv4Addr,
    prefix: u8,
}

/// A text names nothing that a worker could be allowed to reach.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error(
    "{0:?} cannot be; allowed are `private`, `metadata`, `loopback`, `host`, an IPv4 address, and addresses such as \
     10.1.2.0/24, whose bits after the prefix are 0; names of hosts are not looked up"
)]
pub struct InvalidReach(String);

/// What is no address of one machine in the public network, see the registry of RFC 6890 and RFC 5771, and what the
/// links below take.
const CLOSED: [Subnet; 12] = [
    Subnet::new(Ipv4Addr::new(0, 0, 0, 0), 8),
    Subnet::new(Ipv4Addr::new(10, 0, 0, 0), 8),
    Subnet::new(Ipv4Addr::new(100, 64, 0, 0), 10),
    Subnet::new(Ipv4Addr::new(127, 0, 0, 0), 8),
    METADATA,
    Subnet::new(Ipv4Addr::new(172, 16, 0, 0), 12),
    Subnet::new(Ipv4Addr::new(192, 0, 0, 0), 24),
    Subnet::new(Ipv4Addr::new(192, 168, 0, 0), 16),
    Subnet::new(Ipv4Addr::new(198, 18, 0, 0), 15),
    Subnet::new(Ipv4Addr::new(198, 51, 100, 0), 24),
    Subnet::new(Ipv4Addr::new(224, 0, 0, 0), 4),
    Subnet::new(Ipv4Addr::new(240, 0, 0, 0), 4),
];

const METADATA: Subnet = Subnet::new(Ipv4Addr::new(169, 254, 0, 0), 16);

const PRIVATE: [Subnet; 4] = [
    Subnet::new(Ipv4Addr::new(10, 0, 0, 0), 8),
    Subnet::new(Ipv4Addr::new(100, 64, 0, 0), 10),
    Subnet::new(Ipv4Addr::new(172, 16, 0, 0), 12),
    Subnet::new(Ipv4Addr::new(192, 168, 0, 0), 16),
];

/// The addresses of the two links, from a block that is kept for documentation (RFC 5737), so that no host is in need of
/// it. Each link takes four addresses.
pub(crate) mod link {
    use std::net::Ipv4Addr;

    pub(crate) const PREFIX: u8 = 30;
    /// The worker's end of the first link, and the router's, where it is asked for names, too.
    pub(crate) const WORKER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);
    pub(crate) const ROUTER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
    /// The router's end of the second link, and what pasta plays.
    pub(crate) const OUTLET: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 6);
    pub(crate) const GATEWAY: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 5);
    /// In bytes. The most that pasta can take.
    pub(crate) const MTU: u32 = 65520;
}

/// The user that no file belongs to.
const NOBODY: Identity = Identity { uid: 65534, gid: 65534 };

impl Egress {
    /// Where a worker finds the host's loopback, if it may reach it.
    pub const LOOPBACK: Ipv4Addr = link::GATEWAY;

    /// What the router refuses to pass on.
    pub(crate) fn closed(&self) -> Vec<Subnet> {
        let open = self.open();
        let ranges = CLOSED.into_iter().filter(|range| !open.iter().any(|subnet| subnet.contains(range)));
        let host = self.host.iter().filter(|address| !address.is_loopback()).map(|address| Subnet::from(*address));
        let is_allowed = |address: &Subnet| self.allow.contains(&Reach::Host) || open.contains(address);
        ranges.chain(host.filter(|address| !is_allowed(address))).collect()
    }

    /// What it passes on whatever is closed around it.
    pub(crate) fn open(&self) -> Vec<Subnet> {
        let subnets = |reach: &Reach| match reach {
            Reach::Private => PRIVATE.to_vec(),
            Reach::Metadata => vec![METADATA],
            Reach::Subnet(subnet) => vec![*subnet],
            Reach::Host => self.host.iter().map(|address| Subnet::from(*address)).collect(),
            Reach::Loopback => Vec::new(),
        };
        let mut open: Vec<_> = self.allow.iter().flat_map(subnets).collect();
        open.sort_unstable();
        open.dedup();
        open
    }
}

impl Isolation {
    /// The way out of the network of a worker with this isolation, if it has one and this host has the program for it.
    #[must_use]
    pub fn pasta(&self, host: &Host) -> Option<Pasta> {
        let is_wanted = self.mode != Mode::Off && self.network == Network::Egress;
        let program = host.pasta.clone().filter(|_| is_wanted)?;
        let loopback = self.egress.allow.contains(&Reach::Loopback);
        Some(Pasta { program, identity: self.owner(host), loopback })
    }

    /// Whom pasta runs as, where that is not the launching user: it deals with all that the worker sends, so it is never
    /// root.
    pub(crate) fn owner(&self, host: &Host) -> Option<Identity> {
        host.root.then(|| self.identity.unwrap_or(NOBODY))
    }
}

impl Pasta {
    /// What to launch, with [`Mode::Off`], for the process that [`Report::Router`](crate::Report::Router) named. It ends
    /// with the launching process, as all that an init starts, and should be ended with the worker.
    ///
    /// Why it cannot do its work it says to its standard error.
    #[must_use]
    pub fn spec(&self, process: u32) -> Spec {
        let mut spec = Spec::new(&self.program);
        let (address, gateway) = (link::OUTLET.to_string(), link::GATEWAY.to_string());
        let (prefix, mtu) = (link::PREFIX.to_string(), link::MTU.to_string());
        let mut args =
            vec!["--foreground", "--quiet", "--stderr", "--config-net", "--ns-ifname", "pasta0", "--ipv4-only"];
        args.extend(["--address", &address, "--netmask", &prefix, "--gateway", &gateway, "--mtu", &mtu]);
        // No datagrams, see above; and nothing comes in, not even by way of the loopback.
        args.extend(["--no-udp", "--no-icmp", "--no-dhcp", "--no-dhcpv6", "--no-ndp", "--no-ra"]);
        args.extend(["--tcp-ports", "none", "--udp-ports", "none", "--tcp-ns", "none", "--udp-ns", "none"]);
        // The process is gone when the network is set up; what ends pasta is its own init.
        args.push("--no-netns-quit");
        if !self.loopback {
            args.push("--no-map-gw");
        }
        spec.args = args.into_iter().map(Into::into).collect();
        if let Some(Identity { uid, gid }) = self.identity {
            spec.args.extend(["--runas".into(), format!("{uid}:{gid}").into()]);
        }
        spec.args.push(process.to_string().into());
        spec.cwd = Some("/".into());
        spec
    }
}

impl Subnet {
    /// All addresses.
    pub const EVERYTHING: Self = Self::new(Ipv4Addr::UNSPECIFIED, 0);

    /// The bits of the address after the prefix are zero.
    const fn new(address: Ipv4Addr, prefix: u8) -> Self {
        Self { address, prefix }
    }

    /// Those that share this many leading bits with the address, 0 to 32. `None` if a bit after them is set, or there
    /// are not that many.
    #[must_use]
    pub fn with_prefix(address: Ipv4Addr, prefix: u8) -> Option<Self> {
        let is_plain = prefix <= 32 && address.to_bits() & !mask(prefix) == 0;
        is_plain.then(|| Self::new(address, prefix))
    }

    /// The first address.
    #[must_use]
    pub fn address(&self) -> Ipv4Addr {
        self.address
    }

    /// How many leading bits the addresses share.
    #[must_use]
    pub fn prefix(&self) -> u8 {
        self.prefix
    }

    /// Whether all of the other's addresses are among these.
    #[must_use]
    pub fn contains(&self, other: &Self) -> bool {
        self.prefix <= other.prefix && other.address.to_bits() & mask(self.prefix) == self.address.to_bits()
    }
}

fn mask(prefix: u8) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0)
}

impl From<Ipv4Addr> for Subnet {
    /// This address alone.
    fn from(address: Ipv4Addr) -> Self {
        Self::new(address, 32)
    }
}

impl FromStr for Reach {
    type Err = InvalidReach;

    fn from_str(text: &str) -> Result<Self, InvalidReach> {
        Ok(match text {
            "private" => Self::Private,
            "metadata" => Self::Metadata,
            "loopback" => Self::Loopback,
            "host" => Self::Host,
            _ => Self::Subnet(subnet(text).ok_or_else(|| InvalidReach(text.to_owned()))?),
        })
    }
}

fn subnet(text: &str) -> Option<Subnet> {
    let (address, prefix) = match text.split_once('/') {
        Some((address, prefix)) => (address, prefix.parse().ok()?),
        None => (text, 32),
    };
    Subnet::with_prefix(address.parse().ok()?, prefix)
}

impl fmt::Display for Reach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Private => f.write_str("private"),
            Self::Metadata => f.write_str("metadata"),
            Self::Loopback => f.write_str("loopback"),
            Self::Host => f.write_str("host"),
            Self::Subnet(subnet) => subnet.fmt(f),
        }
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn egress(allow: &[&str]) -> Egress {
        let allow = allow.iter().map(|text| text.parse().expect("it can be reached")).collect();
        Egress { allow, host: vec![Ipv4Addr::LOCALHOST, Ipv4Addr::new(10, 1, 2, 5), Ipv4Addr::new(203, 0, 113, 7)] }
    }

    /// What the kernel does with routes: the longest prefix that matches decides.
    fn passes(egress: &Egress, address: &str) -> bool {
        let address = Subnet::new(address.parse().expect("it is an address"), 32);
        let longest = |subnets: Vec<Subnet>| {
            subnets.iter().filter(|subnet| subnet.contains(&address)).map(|subnet| subnet.prefix).max()
        };
        longest(egress.open()) >= longest(egress.closed())
    }

    #[test]
    fn public_addresses_alone_are_open() {
        let egress = egress(&[]);
        for open in ["1.1.1.1", "9.255.255.255", "11.0.0.0", "100.63.0.1", "172.32.0.1", "203.0.113.8", "223.1.1.1"] {
            assert!(passes(&egress, open), "{open}");
        }
        let closed = [
            "0.0.0.0",
            "10.0.0.1",
            "100.127.255.255",
            "127.0.0.1",
            "169.254.169.254",
            "172.31.255.255",
            "192.0.0.8",
            "192.168.0.1",
            "198.18.0.1",
            "198.51.100.5",
            "203.0.113.7",
            "224.0.0.251",
            "239.255.255.250",
            "255.255.255.255",
        ];
        for closed in closed {
            assert!(!passes(&egress, closed), "{closed}");
        }
    }

    #[test]
    fn what_is_allowed_opens_itself_alone() {
        let one = egress(&["10.1.2.0/24"]);
        assert!(passes(&one, "10.1.2.4") && !passes(&one, "10.1.3.4") && !passes(&one, "169.254.169.254"));
        assert!(!passes(&one, "10.1.2.5"), "the host itself is not meant");
        assert!(passes(&egress(&["10.1.2.5"]), "10.1.2.5"), "it is when it is named alone");
        let metadata = egress(&["metadata"]);
        assert!(passes(&metadata, "169.254.169.254") && !passes(&metadata, "10.1.2.4"));
        let private = egress(&["private"]);
        assert!(passes(&private, "192.168.1.1") && passes(&private, "100.64.0.1") && !passes(&private, "10.1.2.5"));
        let host = egress(&["host"]);
        assert!(passes(&host, "203.0.113.7") && passes(&host, "10.1.2.5") && !passes(&host, "10.1.2.4"));
        assert!(passes(&egress(&["8.0.0.0/5"]), "10.9.9.9"), "a wider range opens what is in it");
    }

    #[test]
    fn only_what_can_be_reached_has_a_name() {
        for text in ["private", "metadata", "loopback", "host", "10.1.2.0/24", "0.0.0.0/0"] {
            assert_eq!(text.parse::<Reach>().expect(text).to_string(), text);
        }
        assert_eq!("192.0.2.9".parse::<Reach>().expect("one address").to_string(), "192.0.2.9/32");
        for text in
            ["", "10.1.2.3/24", "10.0.0.0/33", "10.0.0.0/-1", "example.com", "::1", "fc00::/7", "Private", "10.1"]
        {
            assert!(text.parse::<Reach>().is_err(), "{text}");
        }
    }

    #[test]
    fn the_hosts_loopback_is_mapped_only_when_it_is_allowed() {
        let args = |loopback| {
            let pasta = Pasta { program: "/usr/bin/pasta".into(), identity: None, loopback };
            format!("{:?}", pasta.spec(7).args)
        };
        assert!(args(false).contains("--no-map-gw"));
        assert!(!args(true).contains("--no-map-gw"));
    }

    #[test]
    fn pasta_is_never_root() {
        let host = Host { root: true, pasta: Some("/usr/bin/pasta".into()), ..Host::unknown() };
        let mut isolation = Isolation::new(Mode::Required);
        assert_eq!(isolation.pasta(&host), None, "a private network has no way out");
        isolation.network = Network::Egress;
        let runs_as = |isolation: &Isolation| isolation.pasta(&host).expect("there is a way").identity;
        assert_eq!(runs_as(&isolation), Some(NOBODY));
        isolation.identity = Some(Identity { uid: 7, gid: 8 });
        assert_eq!(runs_as(&isolation), isolation.identity);
        isolation.mode = Mode::Off;
        assert_eq!(isolation.pasta(&host), None);
    }
}
