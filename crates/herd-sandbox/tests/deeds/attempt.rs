//! How an attempt at a deed ends.

use std::{fmt, io};

use rustix::io::Errno;

/// What was got by it, or why it failed.
pub(crate) type Attempt = Result<String, Refusal>;

/// One deed may be tried in several ways; it has failed if each of them has.
#[derive(Debug)]
pub(crate) struct Refusal(Vec<(String, Reason)>);

#[derive(Debug)]
enum Reason {
    Errno(Errno),
    Absent,
}

/// There is nothing that the deed could be done to: no process to be seen, for example.
pub(crate) fn absent(what: impl Into<String>) -> Refusal {
    Refusal(vec![(what.into(), Reason::Absent)])
}

/// Tries everything; the deed is done by the first attempt that succeeds.
pub(crate) fn any<T: fmt::Display>(attempts: impl IntoIterator<Item = (T, Attempt)>) -> Attempt {
    let mut refusals = Vec::new();
    for (what, attempt) in attempts {
        match attempt {
            Ok(got) => return Ok(format!("{what}: {got}")),
            Err(Refusal(reasons)) => {
                let inner = |(detail, reason): (String, Reason)| (format!("{what} {detail}").trim().to_owned(), reason);
                refusals.extend(reasons.into_iter().map(inner));
            }
        }
    }
    assert!(!refusals.is_empty(), "nothing was tried");
    Err(Refusal(refusals))
}

impl Refusal {
    /// The attempts that have failed for another reason than one of these.
    pub(crate) fn unexpected(&self, expected: &[Errno]) -> Option<String> {
        let other = |(what, reason): &(String, Reason)| match reason {
            Reason::Errno(errno) if !expected.contains(errno) => Some(format!("{what}: {}", io::Error::from(*errno))),
            Reason::Errno(_) | Reason::Absent => None,
        };
        let others: Vec<_> = self.0.iter().filter_map(other).collect();
        (!others.is_empty()).then(|| others.join("; "))
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 8;
        for (what, reason) in self.0.iter().take(SHOWN) {
            match reason {
                Reason::Errno(errno) => write!(f, "{what}: {}; ", io::Error::from(*errno))?,
                Reason::Absent => write!(f, "{what}; ")?,
            }
        }
        write!(f, "{} in all", self.0.len())
    }
}

impl From<Errno> for Refusal {
    fn from(errno: Errno) -> Self {
        Self(vec![(String::new(), Reason::Errno(errno))])
    }
}

impl From<io::Error> for Refusal {
    fn from(error: io::Error) -> Self {
        match Errno::from_io_error(&error) {
            Some(errno) => errno.into(),
            None => panic!("no refusal: {error}"),
        }
    }
}
