//! Where a deed is tried.

use std::str::FromStr;

/// One of the sandboxes, or none.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Place {
    /// herd's sandbox, started by root: the worker has a user of its own.
    Root,
    /// herd's sandbox, started by an unprivileged user.
    Rootless,
    /// herd's sandbox without the filter of system calls, started by an unprivileged user: the other layers alone.
    Unfiltered,
    /// What herd's sandbox is where user namespaces are forbidden: the filter and Landlock.
    Fallback,
    /// bubblewrap, started by an unprivileged user.
    Bwrap,
    /// No sandbox, as root.
    Host,
    /// No sandbox, as an unprivileged user.
    User,
    /// No sandbox, as root in namespaces of its own: what it does is done, and touches nobody.
    Apart,
}

/// What does the deed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Means {
    /// A worker.
    Worker,
    /// A further command in the sandbox of a worker that does nothing.
    Command,
}

impl Means {
    const NAMES: [(Self, &str); 2] = [(Self::Worker, "worker"), (Self::Command, "command")];

    pub(crate) fn name(self) -> &'static str {
        Self::NAMES.iter().find(|(means, _)| *means == self).expect("both have names").1
    }
}

impl FromStr for Means {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::NAMES.iter().find(|(_, name)| *name == text);
        found.map(|(means, _)| *means).ok_or_else(|| format!("no means is called {text}"))
    }
}

impl Place {
    const NAMES: [(Self, &str); 8] = [
        (Self::Root, "root"),
        (Self::Rootless, "rootless"),
        (Self::Unfiltered, "unfiltered"),
        (Self::Fallback, "fallback"),
        (Self::Bwrap, "bwrap"),
        (Self::Host, "host"),
        (Self::User, "user"),
        (Self::Apart, "apart"),
    ];

    pub(crate) fn name(self) -> &'static str {
        Self::NAMES.iter().find(|(place, _)| *place == self).expect("all have names").1
    }

    /// Whether a sandbox is between the deed and the host.
    pub(crate) fn is_confined(self) -> bool {
        !matches!(self, Self::Host | Self::User | Self::Apart)
    }

    /// Whether the sandbox is herd's.
    pub(crate) fn is_herds(self) -> bool {
        self.is_confined() && self != Self::Bwrap
    }

    /// Whether the sandbox has a root of its own.
    pub(crate) fn has_own_root(self) -> bool {
        self.is_confined() && self != Self::Fallback
    }

    /// Whether the sandbox, or what stands for it, is started by root.
    pub(crate) fn needs_root(self) -> bool {
        matches!(self, Self::Root | Self::Host | Self::Apart)
    }
}

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::NAMES.iter().find(|(_, name)| *name == text);
        found.map(|(place, _)| *place).ok_or_else(|| format!("no place is called {text}"))
    }
}
