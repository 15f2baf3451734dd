//! The network through which a worker's packets go out, see [`egress`](crate::egress).
//!
//! A child of init makes it and waits in it until pasta(1), which the launching process starts, has joined. That child is
//! what pasta joins: unlike init it can be looked at by a process of its own user, and it ends before the worker begins.

use std::{
    io,
    net::SocketAddrV4,
    os::fd::{AsFd, OwnedFd},
    panic::{AssertUnwindSafe, catch_unwind},
};

use rustix::{
    event::{PollFd, PollFlags, poll},
    net::{AddressFamily, SocketFlags, SocketType, bind, listen, socket_with, sockopt::set_socket_reuseaddr},
    process::{
        DumpableBehavior, Pid, WaitOptions, getpid, getppid, set_dumpable_behavior, set_parent_process_death_signal,
        waitpid,
    },
    thread::{CapabilitySet, set_keep_capabilities},
};

use super::{DONE, FAILED, birth::enter_user_namespace, failed, failure, order, privilege, worker::become_user};
use crate::{
    Failure, Identity, Report, Subnet,
    channel::{Channel, Packet},
    egress::link,
    netlink::{End, Netlink, RouteEvents, Way},
    protocol::Reply,
    sys::process::{Forked, exit_now, fork, unshare},
};

/// The ends of the first link. Their numbers are beyond those that the kernel gives by itself, so that no other interface
/// has them. They differ, since only then the kernel sees that one end depends on the other, and lets packets pass as
/// soon as both are up instead of up to a second later.
const NEAR: End<'static> = End { name: "eth0", index: 100 };
const FAR: End<'static> = End { name: "up0", index: 101 };

/// Where names are asked for.
const NAMES: SocketAddrV4 = SocketAddrV4::new(link::ROUTER, 53);

/// What init and its child tell each other, in this order: the network is there; so is the link to it; it knows its
/// routes; a way out is open.
const MADE: u8 = 1;
const LINKED: u8 = 2;
const ROUTED: u8 = 3;
const OPENED: u8 = 4;

const STEP: &str = "router";
const OUTLET: &str = "outlet";

/// What a router is made from.
#[derive(Clone, Copy, Debug)]
pub(super) struct Design<'a> {
    /// Whom pasta runs as, where that is another user than the one who made this network namespace.
    pub(super) owner: Option<Identity>,
    pub(super) closed: &'a [Subnet],
    /// What is open whatever is closed around it.
    pub(super) open: &'a [Subnet],
    /// Whether the gateway stands for the host's loopback.
    pub(super) loopback: bool,
}

/// A router that has no way out yet.
#[derive(Debug)]
pub(super) struct Router {
    keeper: Pid,
    talk: Channel,
}

impl Router {
    /// Makes it, connects this network with it, and tells the launching process. `None` if that wants nothing any more.
    pub(super) fn make(design: Design<'_>, launcher: &Channel) -> Result<Option<Self>, Failure> {
        let init = getpid();
        let made = Channel::pair().and_then(|(talk, theirs)| Ok((talk, theirs, fork()?)));
        let (talk, theirs, forked) = made.map_err(|error| failed(STEP, &error, "init cannot start a keeper for it"))?;
        match forked {
            Forked::Parent { child: keeper } => {
                drop(theirs);
                let router = Self { keeper, talk };
                if !router.heard(MADE, launcher)? {
                    return Ok(None);
                }
                router.connect(design).map_err(|error| failed(STEP, &error, hint(&error)))?;
                router.say(LINKED)?;
                Ok(router.heard(ROUTED, launcher)?.then_some(router))
            }
            Forked::Child => {
                drop(talk);
                // A panic must not unwind into what the parent does.
                let keeper = Keeper { init, talk: Channel::from_descriptor(theirs) };
                let kept = catch_unwind(AssertUnwindSafe(|| keeper.run(design, launcher)));
                exit_now(if matches!(kept, Ok(Ok(()))) { DONE } else { FAILED });
            }
        }
    }

    /// Waits until there is a way out, and opens it. `false` if the launching process wants nothing any more.
    pub(super) fn open(self, launcher: &Channel) -> Result<bool, Failure> {
        self.say(OPENED)?;
        if !self.heard(OPENED, launcher)? {
            return Ok(false);
        }
        // It has nothing to do any more.
        waitpid(Some(self.keeper), WaitOptions::empty())
            .map_err(|errno| failed(OUTLET, &errno.into(), "its keeper was taken away"))?;
        Ok(true)
    }

    /// The link, and this end of it. What is closed is closed here, too: not to hold the worker up, but to tell it at
    /// once.
    fn connect(&self, design: Design<'_>) -> io::Result<()> {
        let netlink = Netlink::open()?;
        netlink.connect(NEAR, FAR, self.keeper, link::MTU)?;
        netlink.add_address(NEAR.index, link::WORKER, link::PREFIX)?;
        netlink.raise(NEAR.index)?;
        let way = Way::Via { gateway: link::ROUTER, interface: NEAR.index };
        netlink.add_route(Subnet::EVERYTHING, way)?;
        close(&netlink, design)?;
        open(&netlink, design, way)
    }

    fn say(&self, word: u8) -> Result<(), Failure> {
        self.talk.send(&[word], &[]).map_err(|error| failed(STEP, &error, "its keeper is gone"))
    }

    /// Waits for the keeper's word. `false` if the launching process is gone or has changed its mind.
    fn heard(&self, word: u8, launcher: &Channel) -> Result<bool, Failure> {
        loop {
            match self.talk.recv() {
                Ok(Some(Packet { bytes, .. })) if bytes == [word] => return Ok(true),
                Ok(Some(Packet { bytes, .. })) => {
                    return Err(match Reply::decode(&bytes) {
                        Ok(Reply::Report(Report::Failed(failure))) => failure,
                        _ => failure(STEP, None, "its keeper sent no sense"),
                    });
                }
                Ok(None) => return Err(failure(STEP, None, "its keeper was ended")),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(failed(STEP, &error, "its keeper cannot be heard")),
            }
            if !order::is_wanted(launcher) {
                return Ok(false);
            }
            // An interrupted wait is followed by another look.
            let mut sources = [PollFd::new(&self.talk, PollFlags::IN), PollFd::new(launcher, PollFlags::IN)];
            let _ = poll(&mut sources, None);
        }
    }
}

/// The child of init that is in the router's network.
#[derive(Debug)]
struct Keeper {
    init: Pid,
    talk: Channel,
}

impl Keeper {
    fn run(&self, design: Design<'_>, launcher: &Channel) -> Result<(), ()> {
        let told = |failure: Failure| {
            // Init reads it, or is gone.
            let _ = self.talk.send(&Reply::Report(Report::Failed(failure)).encode(), &[]);
        };
        self.settle(design.owner).map_err(|error| {
            told(failed(STEP, &error, "a network namespace of its own cannot be made"));
        })?;
        self.say(MADE)?;
        self.wait(LINKED)?;
        let events = self.route(design, launcher).map_err(|error| told(failed(STEP, &error, hint(&error))))?;
        self.say(ROUTED)?;
        self.wait(OPENED)?;
        let opened = self.await_outlet(&events).map_err(|error| told(failed(OUTLET, &error, "it cannot be seen")))?;
        // Init is gone.
        let Some(interface) = opened else { return Err(()) };
        let_out(interface, design).map_err(|error| told(failed(OUTLET, &error, "it cannot be opened")))?;
        self.say(OPENED)
    }

    /// Into a network namespace of its own, which this process's user may join.
    fn settle(&self, owner: Option<Identity>) -> io::Result<()> {
        if let Some(Identity { uid, gid }) = owner {
            // A user namespace belongs to the user who makes it. Making one may take a capability, which would go with
            // root.
            set_keep_capabilities(true)?;
            become_user(uid, gid)?;
            privilege::keep(CapabilitySet::SYS_ADMIN)?;
            enter_user_namespace(uid, gid)?;
        }
        unshare(libc::CLONE_NEWNET)?;
        // A change of users clears it, see PR_SET_PDEATHSIG(2const).
        set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
        // Init may have died before.
        if getppid() != Some(self.init) {
            return Err(io::Error::from_raw_os_error(libc::ESRCH));
        }
        // Pasta finds the namespaces through /proc, for which it has to be allowed to look into this process.
        Ok(set_dumpable_behavior(DumpableBehavior::Dumpable)?)
    }

    /// Sets the network up, but for the way out, and tells the launching process.
    fn route(&self, design: Design<'_>, launcher: &Channel) -> io::Result<RouteEvents> {
        let netlink = Netlink::open()?;
        // Before there is any way to go.
        close(&netlink, design)?;
        netlink.add_address(FAR.index, link::ROUTER, link::PREFIX)?;
        netlink.raise(FAR.index)?;
        netlink.forward(FAR.index)?;
        let events = RouteEvents::open()?;
        let (datagrams, streams) = (names(SocketType::DGRAM)?, names(SocketType::STREAM)?);
        listen(&streams, 16)?;
        launcher.send(&Reply::Router.encode(), &[datagrams.as_fd(), streams.as_fd()])?;
        Ok(events)
    }

    /// Waits for the interface by which pasta leads out: its last deed is to add the default route. `None` if init is
    /// gone.
    fn await_outlet(&self, events: &RouteEvents) -> io::Result<Option<u32>> {
        let netlink = Netlink::open()?;
        loop {
            events.drain();
            if let Some(interface) = netlink.default_interface()? {
                return Ok(Some(interface));
            }
            let mut sources = [PollFd::new(events, PollFlags::IN), PollFd::new(&self.talk, PollFlags::IN)];
            // An interrupted wait is followed by another look.
            let _ = poll(&mut sources, None);
            if matches!(self.talk.recv(), Ok(None)) {
                return Ok(None);
            }
        }
    }

    fn say(&self, word: u8) -> Result<(), ()> {
        self.talk.send(&[word], &[]).map_err(drop)
    }

    /// Waits for init's word.
    fn wait(&self, word: u8) -> Result<(), ()> {
        loop {
            match self.talk.recv() {
                Ok(Some(Packet { bytes, .. })) if bytes == [word] => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let _ = poll(&mut [PollFd::new(&self.talk, PollFlags::IN)], None);
                }
                _ => return Err(()),
            }
        }
    }
}

/// Lets packets out through this interface, and their answers in.
fn let_out(interface: u32, design: Design<'_>) -> io::Result<()> {
    let netlink = Netlink::open()?;
    if !design.loopback {
        // Nobody is there; but were the address one of the host's network, pasta would connect to it.
        netlink.add_route(Subnet::from(link::GATEWAY), Way::Prohibited)?;
    }
    open(&netlink, design, Way::Via { gateway: link::GATEWAY, interface })?;
    netlink.forward(interface)
}

fn close(netlink: &Netlink, design: Design<'_>) -> io::Result<()> {
    design.closed.iter().try_for_each(|subnet| netlink.add_route(*subnet, Way::Prohibited))
}

fn open(netlink: &Netlink, design: Design<'_>, way: Way) -> io::Result<()> {
    let gateway = design.loopback.then(|| Subnet::from(link::GATEWAY));
    // For the router itself the gateway is a neighbour.
    let gateway = gateway.filter(|_| !matches!(way, Way::Via { gateway, .. } if gateway == link::GATEWAY));
    design.open.iter().copied().chain(gateway).try_for_each(|subnet| netlink.add_route(subnet, way))
}

/// A socket of this network on which names are asked for.
fn names(kind: SocketType) -> io::Result<OwnedFd> {
    let socket = socket_with(AddressFamily::INET, kind, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None)?;
    set_socket_reuseaddr(&socket, true)?;
    bind(&socket, &NAMES)?;
    Ok(socket)
}

fn hint(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(libc::EOPNOTSUPP) => "the kernel has no pairs of virtual interfaces: load its module veth",
        _ => "its network cannot be set up",
    }
}
