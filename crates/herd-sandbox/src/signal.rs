use std::{fmt, str::FromStr};

/// A signal to send to a worker: a number between 1 and 64, see signal(7).
#[derive(Clone, Copy, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Signal(i32);

impl Signal {
    /// Hang-up.
    pub const HUP: Self = Self(libc::SIGHUP);
    /// Interrupt from the keyboard.
    pub const INT: Self = Self(libc::SIGINT);
    /// Quit from the keyboard.
    pub const QUIT: Self = Self(libc::SIGQUIT);
    /// Kill; cannot be caught.
    pub const KILL: Self = Self(libc::SIGKILL);
    /// The first that programs may use as they like.
    pub const USR1: Self = Self(libc::SIGUSR1);
    /// The second that programs may use as they like.
    pub const USR2: Self = Self(libc::SIGUSR2);
    /// Terminate: the usual way to ask a program to end.
    pub const TERM: Self = Self(libc::SIGTERM);
    /// Continue after a stop.
    pub const CONT: Self = Self(libc::SIGCONT);
    /// Stop; cannot be caught.
    pub const STOP: Self = Self(libc::SIGSTOP);

    /// The highest number of a signal on Linux.
    const MAX: i32 = 64;

    /// The signal with this number, or `None` if there is none: 0 and what is beyond 64.
    #[must_use]
    pub fn new(number: i32) -> Option<Self> {
        (1..=Self::MAX).contains(&number).then_some(Self(number))
    }

    /// The signal's number.
    #[must_use]
    pub fn number(self) -> i32 {
        self.0
    }

    fn name(self) -> Option<&'static str> {
        NAMES.iter().find(|(_, number)| *number == self.0).map(|(name, _)| *name)
    }
}

const NAMES: &[(&str, i32)] = &[
    ("HUP", libc::SIGHUP),
    ("INT", libc::SIGINT),
    ("QUIT", libc::SIGQUIT),
    ("ILL", libc::SIGILL),
    ("TRAP", libc::SIGTRAP),
    ("ABRT", libc::SIGABRT),
    ("BUS", libc::SIGBUS),
    ("FPE", libc::SIGFPE),
    ("KILL", libc::SIGKILL),
    ("USR1", libc::SIGUSR1),
    ("SEGV", libc::SIGSEGV),
    ("USR2", libc::SIGUSR2),
    ("PIPE", libc::SIGPIPE),
    ("ALRM", libc::SIGALRM),
    ("TERM", libc::SIGTERM),
    ("CHLD", libc::SIGCHLD),
    ("CONT", libc::SIGCONT),
    ("STOP", libc::SIGSTOP),
    ("TSTP", libc::SIGTSTP),
    ("TTIN", libc::SIGTTIN),
    ("TTOU", libc::SIGTTOU),
    ("URG", libc::SIGURG),
    ("XCPU", libc::SIGXCPU),
    ("XFSZ", libc::SIGXFSZ),
    ("VTALRM", libc::SIGVTALRM),
    ("PROF", libc::SIGPROF),
    ("WINCH", libc::SIGWINCH),
    ("IO", libc::SIGIO),
    ("PWR", libc::SIGPWR),
    ("SYS", libc::SIGSYS),
];

impl fmt::Display for Signal {
    /// `SIGTERM`, or the number where there is no name.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => write!(f, "SIG{name}"),
            None => write!(f, "signal {}", self.0),
        }
    }
}

impl fmt::Debug for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Signal({self})")
    }
}

impl FromStr for Signal {
    type Err = InvalidSignal;

    /// Takes `TERM`, `SIGTERM` and `15`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Ok(number) = text.parse() {
            return Self::new(number).ok_or(InvalidSignal);
        }
        let name = text.strip_prefix("SIG").unwrap_or(text);
        NAMES.iter().find(|(known, _)| *known == name).map(|(_, number)| Self(*number)).ok_or(InvalidSignal)
    }
}

/// Some text names no signal.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("a signal is written as TERM, SIGTERM or 15, a number between 1 and 64")]
pub struct InvalidSignal;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_are_read_by_name_and_by_number() {
        for text in ["TERM", "SIGTERM", "15"] {
            assert_eq!(text.parse(), Ok(Signal::TERM), "{text}");
        }
        assert_eq!(Signal::TERM.to_string(), "SIGTERM");
        assert_eq!("64".parse::<Signal>().unwrap().to_string(), "signal 64");
        for text in ["", "0", "65", "-1", "term", "SIG", "SIGNOPE"] {
            assert_eq!(text.parse::<Signal>(), Err(InvalidSignal), "{text:?}");
        }
    }
}
