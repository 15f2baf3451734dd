//! The steps: what each is called, who does it, which layer it belongs to, and why it is done.

use std::{borrow::Cow, ffi::CStr};

use super::encoding::Field;
use crate::{
    Layer, Limit, Subnet,
    codec::{Decoder, Encoder, Malformed},
};

/// A text for the kernel. In init it is borrowed from the received plan, so that no copy of a secret stays there.
pub(crate) type Text<'a> = Cow<'a, CStr>;

/// Bytes, borrowed in init like a [`Text`].
pub(crate) type Bytes<'a> = Cow<'a, [u8]>;

/// Which process does a step. They follow each other in this order.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Place {
    /// The process that was spawned, which still is where the launching process is.
    Outer,
    /// Init, in the namespaces that it was born into.
    Init,
    /// The worker's process, before it executes the program.
    Worker,
}

/// What a worker may do with what it sees.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Access {
    /// Read, and execute.
    ReadOnly,
    /// What permissions allow; but no set-user-ID programs and no device nodes.
    Writable,
    /// Use a device node; see null(4), for example.
    Device,
}

/// Defines the enum of steps, and with it the table of what is known about each.
macro_rules! steps {
    ($($code:literal $name:literal $place:ident $layer:expr, $reason:literal =>
        $variant:ident { $($field:ident: $type:ty),* })*) => {
        /// One step of a plan.
        #[derive(Clone, Debug, Eq, PartialEq)]
        pub(crate) enum Step<'a> {
            $(#[doc = $reason] $variant { $($field: $type),* },)*
        }

        impl<'a> Step<'a> {
            /// How reports call it.
            pub(crate) fn name(&self) -> &'static str {
                match self { $(Self::$variant { .. } => $name),* }
            }

            /// Who does it.
            pub(crate) fn place(&self) -> Place {
                match self { $(Self::$variant { .. } => Place::$place),* }
            }

            /// The layer that it builds; `None` for what every worker gets.
            pub(crate) fn layer(&self) -> Option<Layer> {
                match self { $(Self::$variant { .. } => $layer),* }
            }

            /// Why it is done, and why there.
            pub(crate) fn reason(&self) -> &'static str {
                match self { $(Self::$variant { .. } => $reason),* }
            }

            pub(super) fn encode(&self, out: &mut Encoder) {
                match self { $(Self::$variant { $($field),* } => {
                    out.u8($code);
                    $($field.encode(out);)*
                })* }
            }

            pub(super) fn decode(bytes: &mut Decoder<'a>) -> Result<Self, Malformed> {
                Ok(match bytes.u8()? {
                    $($code => Self::$variant { $($field: Field::decode(bytes)?),* },)*
                    _ => return Err(Malformed),
                })
            }
        }

        /// The layer of the step that a failure names.
        pub(crate) fn layer_of(step: &str) -> Option<Layer> {
            match step { $($name => $layer,)* _ => None }
        }
    };
}

steps! {
    1 "user namespace" Outer Some(Layer::UserNamespace),
    "Without root: the capabilities to build the sandbox with exist only inside a user namespace. It knows one user and \
     one group, those of the launching process." =>
    UserNamespace { uid: u32, gid: u32 }

    2 "namespaces" Outer Some(Layer::PidNamespace),
    "Init is born into its namespaces, as PID 1, and into its cgroup, so that nothing of it was ever outside; as a child \
     of the launching process, which reaps it." =>
    Birth { namespaces: Vec<Layer>, cgroup: bool }

    3 "cgroup namespace" Init Some(Layer::CgroupNamespace),
    "After the birth into the cgroup: what is the own cgroup at this moment becomes the root of all that the worker \
     sees." =>
    CgroupNamespace {}

    4 "loopback" Init Some(Layer::Network),
    "A new network namespace has a loopback that is down." =>
    Loopback {}

    40 "router" Init Some(Layer::Egress),
    "A network between the worker's and the host's, in which the worker has no say: in its own, a socket could be told to \
     ignore routes." =>
    Router { uid: u32, gid: u32, own: bool, closed: Vec<Subnet>, open: Vec<Subnet>, loopback: bool }

    41 "outlet" Init Some(Layer::Egress),
    "Waits until pasta leads out of the router's network, while the host's /proc is still there, by which it finds that \
     network." =>
    Outlet {}

    5 "host name" Init Some(Layer::HostName),
    "The host's name is nobody's business." =>
    HostName { name: Text<'a> }

    6 "private mounts" Init Some(Layer::Files),
    "No mount or unmount made from here on reaches the host, and none of the host's reaches the worker." =>
    PrivateMounts {}

    7 "new root" Init Some(Layer::Files),
    "An empty file system in memory, onto which only what is named is put." =>
    NewRoot {}

    8 "directory" Init Some(Layer::Files),
    "A place that is the same in every sandbox." =>
    MakeDirectory { path: Text<'a> }

    9 "link" Init Some(Layer::Files),
    "A name that programs expect." =>
    Link { path: Text<'a>, target: Text<'a> }

    10 "file" Init Some(Layer::Files),
    "The sandbox's own, so that nothing of the host's users and names is told." =>
    WriteFile { path: Text<'a>, text: Text<'a> }

    11 "system directory" Init Some(Layer::Files),
    "Programs and libraries of the host, readable and not to be changed. Left out where the host has none; where it has a \
     symbolic link, so has the sandbox." =>
    System { path: Text<'a> }

    12 "mount" Init Some(Layer::Files),
    "Asked for by the configuration, or needed by the program." =>
    Bind { source: Text<'a>, target: Text<'a>, access: Access, follow: bool }

    13 "memory file system" Init Some(Layer::Files),
    "The worker's own, with a size and a number of files that it cannot exceed." =>
    Memory { path: Text<'a>, size: u64, files: u64 }

    14 "terminals" Init Some(Layer::Files),
    "Pseudo-terminals of the worker's own: none of the host's can be opened." =>
    Terminals {}

    15 "/proc" Init Some(Layer::Files),
    "Shows the processes of the PID namespace, so it is mounted by one of them. Before the host's root is left: the kernel \
     lets a user namespace mount it only where one can be seen whole already." =>
    Processes {}

    16 "read-only" Init Some(Layer::Files),
    "Kernel settings can be read and not changed." =>
    Freeze { path: Text<'a> }

    17 "hide" Init Some(Layer::Files),
    "After everything is mounted, so that nothing covers it again: what tells of the host, or was named as hidden, is \
     empty." =>
    Hide { path: Text<'a> }

    18 "pivot root" Init Some(Layer::Files),
    "The new root becomes the root, and the host's is let go of: from here on no path leads there." =>
    Pivot {}

    19 "freeze root" Init Some(Layer::Files),
    "Nothing can be created but in the places that are the worker's own." =>
    FreezeRoot {}

    20 "session" Worker None,
    "First of all, so that from its first moment no signal to init's group or from a terminal reaches it, and all that it \
     starts can be found by its session." =>
    Session {}

    21 "parent death signal" Worker None,
    "The worker's main process dies with init. After the user is set: the kernel forgets this when a process becomes \
     another user, see prctl(2)." =>
    ParentDeath {}

    22 "announcement" Worker Some(Layer::PidNamespace),
    "Tells the launching process the number that the worker's process has outside, which nobody inside knows." =>
    Announce {}

    23 "listening sockets" Worker Some(Layer::Network),
    "In the worker's network namespace: the launching process cannot make them." =>
    Listen { ports: Vec<u32> }

    24 "descriptors" Worker None,
    "Standard streams, then listening sockets, then nothing. Before the limits: a low limit of open files would forbid \
     the numbers that descriptors pass through." =>
    Descriptors { listen: u32 }

    25 "umask" Worker None,
    "What a worker writes is its user's alone." =>
    Umask { mask: u32 }

    26 "open files" Worker None,
    "Late, so that it binds the worker and not the steps before." =>
    OpenFiles { number: u64 }

    27 "limit" Worker None,
    "Late, for the same reason." =>
    Limit { limit: Limit, value: u64 }

    28 "worker's user namespace" Worker Some(Layer::UserNamespace),
    "As root: the worker is born into a user namespace that knows its user and group alone, and has no say over the \
     namespaces that init made as root." =>
    WorkerUserNamespace { uid: u32, gid: u32 }

    29 "bounding set" Worker Some(Layer::Capabilities),
    "No program gives capabilities to the worker, and no user ID does. While there are capabilities that allow to say \
     so." =>
    BoundingSet {}

    30 "own user" Worker Some(Layer::Identity),
    "A user and a group of the host that no other live worker has, and no further groups." =>
    Identity { uid: u32, gid: u32 }

    31 "capabilities" Worker None,
    "All sets are empty, whoever launched this. After all that needed them." =>
    Capabilities {}

    32 "no new privileges" Worker None,
    "No program that the worker starts gains privileges, see prctl(2). Needed by Landlock and seccomp." =>
    NoNewPrivileges {}

    33 "working directory" Worker None,
    "As the worker's user: it has to be one that the worker may enter." =>
    Directory { path: Text<'a> }

    34 "Landlock" Worker Some(Layer::Landlock),
    "A second wall for files, should the first one have a hole; the only one where there are no namespaces." =>
    Landlock { read: Vec<Text<'a>>, write: Vec<Text<'a>>, tcp: Vec<u32>, confine_tcp: bool, follow: bool }

    35 "signals" Worker None,
    "Default dispositions, nothing blocked. Up to here all are blocked, so that none is lost or handled by init's \
     code." =>
    Signals {}

    36 "seccomp" Worker Some(Layer::Seccomp),
    "Last but for execve(2): the filter forbids what the steps above need." =>
    Seccomp { filters: Vec<Bytes<'a>>, log: bool }

    37 "exec" Worker None,
    "There is no code of ours after it." =>
    Execute { program: Text<'a>, args: Vec<Text<'a>>, env: Vec<Text<'a>>, listen: u32 }

    39 "session keyring" Worker None,
    "A new one, of the worker's user: keys that the launching process holds are not the worker's, see keyrings(7). Where \
     the kernel has no keyrings there is nothing to part from." =>
    Keyring {}

    42 "joined user namespace" Worker Some(Layer::UserNamespace),
    "For a further command, where root gave the worker a user namespace of its own: the very same, and not one that the \
     worker may have made since." =>
    JoinUserNamespace {}

    43 "terminal" Worker None,
    "For a further command: of the worker's own terminals, and as the worker's user, whose it then is." =>
    Terminal { multiplexer: Text<'a>, columns: u32, rows: u32 }

    44 "command's announcement" Worker None,
    "For a further command: tells the launching process its number outside, and hands over the other side of its \
     terminal. Before the control socket is closed." =>
    Begin {}

    38 "rehearsal" Worker None,
    "Everything was tried and nothing is executed." =>
    Rehearse {}
}

impl Step<'_> {
    /// What exactly it does, for a person. Holds no environment, which may hold secrets.
    pub(crate) fn detail(&self) -> String {
        let shown = |text: &CStr| text.to_string_lossy().into_owned();
        match self {
            Self::UserNamespace { uid, gid } | Self::WorkerUserNamespace { uid, gid } | Self::Identity { uid, gid } => {
                format!("user {uid}, group {gid}")
            }
            Self::Birth { namespaces, cgroup } => {
                let names: Vec<_> = namespaces.iter().map(|layer| layer.name()).collect();
                format!("{}{}", names.join(", "), if *cgroup { ", in its cgroup" } else { "" })
            }
            Self::Router { closed, open, loopback, .. } => {
                let loopback = if *loopback { ", the host's loopback" } else { "" };
                format!(
                    "open: public addresses{}{loopback}; closed: {}",
                    subnets(open),
                    subnets(closed).trim_start_matches(", ")
                )
            }
            Self::HostName { name } => shown(name),
            Self::MakeDirectory { path }
            | Self::System { path }
            | Self::Freeze { path }
            | Self::Hide { path }
            | Self::Directory { path }
            | Self::WriteFile { path, .. } => shown(path),
            Self::Link { path, target } => format!("{} -> {}", shown(path), shown(target)),
            Self::Bind { source, target, access, .. } => {
                let access = match access {
                    Access::ReadOnly => "read-only",
                    Access::Writable => "writable",
                    Access::Device => "device",
                };
                if source == target {
                    format!("{}, {access}", shown(target))
                } else {
                    format!("{} as {}, {access}", shown(source), shown(target))
                }
            }
            Self::Memory { path, size, files } => {
                format!("{}, at most {} KiB in {files} files", shown(path), size / 1024)
            }
            Self::Landlock { read, write, tcp, confine_tcp, .. } => {
                let list = |paths: &[Text<'_>]| paths.iter().map(|path| shown(path)).collect::<Vec<_>>().join(" ");
                let tcp = if *confine_tcp { format!("; TCP ports {tcp:?} alone") } else { String::new() };
                format!("read {}; write {}{tcp}", list(read), list(write))
            }
            Self::Listen { ports } => format!("ports {ports:?} of the loopback"),
            Self::Descriptors { listen: 0 } => "standard streams and nothing else".to_owned(),
            Self::Descriptors { listen } => format!("standard streams and {listen} listening sockets"),
            Self::Terminal { multiplexer, columns, rows } => {
                format!("{columns} columns, {rows} rows, by {}", shown(multiplexer))
            }
            Self::Umask { mask } => format!("{mask:04o}"),
            Self::OpenFiles { number } => number.to_string(),
            Self::Limit { limit, value } => format!("{limit:?} {value}"),
            Self::Seccomp { filters, log } => {
                let instructions: usize = filters.iter().map(|filter| filter.len() / 8).sum();
                format!("{instructions} instructions{}", if *log { ", refusals are logged" } else { "" })
            }
            Self::Execute { program, args, .. } => {
                [program].into_iter().chain(args).map(|word| shown(word)).collect::<Vec<_>>().join(" ")
            }
            _ => String::new(),
        }
    }
}

fn subnets(subnets: &[Subnet]) -> String {
    subnets.iter().map(|subnet| format!(", {subnet}")).collect()
}
