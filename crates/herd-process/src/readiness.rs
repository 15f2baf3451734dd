use std::{fmt, str::FromStr};

/// How a worker shows that it is ready for requests.
///
/// As text, for a flag or a configuration: `http`, `http:/ready`, `tcp`, `socket`, `stdout:REGEX`, `notify`,
/// `command:TEXT`.
///
/// Whatever shows it, a worker that listens on a port counts as ready only once the socket that listens there belongs
/// to one of its processes.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Readiness {
    /// A GET of this path answers with a status from 200 to 299; without a path, of the factory's health path.
    ///
    /// The same path is asked by [`healthy`](herd_pool::Worker::healthy), where any status below 500 will do: then the
    /// question is no longer whether the worker has all that it needs, but whether it lives.
    Http {
        /// The path, which begins with `/`.
        path: Option<String>,
    },
    /// Its port accepts a connection. A worker that inherits its listening socket is ready at once by this measure,
    /// since the kernel accepts on its behalf.
    Tcp,
    /// Its Unix socket accepts a connection.
    Socket,
    /// A line of its standard output matches this regular expression (of the `regex` crate).
    Stdout {
        /// The expression, which may match anywhere in the line.
        pattern: String,
    },
    /// It sends `READY=1` to the socket that `NOTIFY_SOCKET` names, see sd_notify(3).
    Notify,
    /// A command ends with exit code 0. It runs under an init of its own, with the worker's environment, working
    /// directory, user and files, again and again until then, each time for at most 10 s.
    ///
    /// In a sandbox it has processes and a network of its own, too: it sees what the worker writes into its workspace
    /// and reaches its Unix socket, and not its port, for which [`Http`](Self::Http) and [`Tcp`](Self::Tcp) are there.
    Command {
        /// The program and its arguments, in which the templates of the worker's arguments expand.
        command: Vec<String>,
    },
}

impl Default for Readiness {
    fn default() -> Self {
        Self::Http { path: None }
    }
}

impl FromStr for Readiness {
    type Err = InvalidReadiness;

    /// The text of `command:` is run by `/bin/sh -c`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once(':').unwrap_or((text, "")) {
            ("http", "") => Ok(Self::Http { path: None }),
            ("http", path) if path.starts_with('/') => Ok(Self::Http { path: Some(path.to_owned()) }),
            ("tcp", "") => Ok(Self::Tcp),
            ("socket", "") => Ok(Self::Socket),
            ("stdout", pattern) if !pattern.is_empty() => Ok(Self::Stdout { pattern: pattern.to_owned() }),
            ("notify", "") => Ok(Self::Notify),
            ("command", line) if !line.trim().is_empty() => {
                Ok(Self::Command { command: vec!["/bin/sh".to_owned(), "-c".to_owned(), line.to_owned()] })
            }
            _ => Err(InvalidReadiness(text.to_owned())),
        }
    }
}

impl fmt::Display for Readiness {
    /// What is waited for, as an error tells it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Http { path: Some(path) } => write!(f, "a 2xx answer to GET {path}"),
            Self::Http { path: None } => f.write_str("a 2xx answer to GET of the health path"),
            Self::Tcp => f.write_str("a connection to its port"),
            Self::Socket => f.write_str("a connection to its Unix socket"),
            Self::Stdout { pattern } => write!(f, "a line on stdout that matches `{pattern}`"),
            Self::Notify => f.write_str("READY=1 on its notification socket"),
            Self::Command { command } => {
                write!(f, "exit code 0 of the command `{}`", command.first().map_or("", String::as_str))
            }
        }
    }
}

/// Some text names no way to be ready.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error(
    "`{0}` is not a way to be ready; allowed are http, http:/PATH, tcp, socket, stdout:REGEX, notify and command:TEXT"
)]
pub struct InvalidReadiness(String);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_is_read_from_text() {
        let shell = ["/bin/sh", "-c", "test -e a:b"].map(str::to_owned).to_vec();
        for (text, expected) in [
            ("http", Readiness::default()),
            ("http:/a:b?c", Readiness::Http { path: Some("/a:b?c".to_owned()) }),
            ("tcp", Readiness::Tcp),
            ("socket", Readiness::Socket),
            ("stdout:on: [0-9]+", Readiness::Stdout { pattern: "on: [0-9]+".to_owned() }),
            ("notify", Readiness::Notify),
            ("command:test -e a:b", Readiness::Command { command: shell }),
        ] {
            assert_eq!(text.parse(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn anything_else_is_an_error_that_says_what_is_allowed() {
        for text in ["", "HTTP", "http:health", "tcp:1", "stdout", "stdout:", "command: ", "notify:1", "exec"] {
            let error = text.parse::<Readiness>().expect_err(text).to_string();
            assert!(error.contains("allowed are http, http:/PATH"), "{error}");
        }
    }
}
