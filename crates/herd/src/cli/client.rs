//! The arguments of the commands that talk to a running daemon.

use std::path::PathBuf;

use clap::{ArgAction, Args, ValueEnum};
use clap_complete::engine::ArgValueCompleter;
use herd_pool::{EventKind, SessionId};

use crate::client::complete;

/// Which daemon to talk to.
#[derive(Args, Debug)]
pub(crate) struct DaemonChoice {
    /// The control socket of the daemon [default: $HERD_SOCKET, else the one daemon that runs]
    #[arg(long, value_name = "PATH")]
    pub(crate) socket: Option<PathBuf>,
}

/// Which of several sessions of one ID.
#[derive(Args, Clone, Debug)]
pub(crate) struct SessionChoice {
    /// The pool that the session is in, if several pools have a session of that ID
    #[arg(long, value_name = "POOL", add = ArgValueCompleter::new(complete::pools))]
    pub(crate) pool: Option<String>,
    /// The tenant to whom it belongs, if several have a session of that ID; "" is nobody
    #[arg(long, value_name = "TENANT", add = ArgValueCompleter::new(complete::tenants))]
    pub(crate) tenant: Option<String>,
}

#[derive(Args, Debug)]
pub(crate) struct PsArgs {
    /// Only what is in this pool
    #[arg(long, value_name = "POOL", add = ArgValueCompleter::new(complete::pools))]
    pub(crate) pool: Option<String>,
    /// Only what belongs to this tenant; "" is nobody
    #[arg(long, value_name = "TENANT", add = ArgValueCompleter::new(complete::tenants))]
    pub(crate) tenant: Option<String>,
    /// Only what is in this state
    #[arg(long, value_name = "STATE")]
    pub(crate) state: Option<State>,
    /// Print JSON: {"sessions": […], "workers": […], "pools": […]}
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) daemon: DaemonChoice,
}

/// Where a session or worker is in its life. Workers are never `live`, and sessions neither `spare` nor `in-session`.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum State {
    Starting,
    Live,
    Spare,
    InSession,
    Ending,
}

impl State {
    /// As the daemon has it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Live => "live",
            Self::Spare => "spare",
            Self::InSession => "in-session",
            Self::Ending => "ending",
        }
    }
}

#[derive(Args, Debug)]
#[command(after_help = "With --all, --pool and --tenant say of which pool and tenant. On a terminal you are asked \
                        first; elsewhere --yes is needed.")]
pub(crate) struct EndArgs {
    /// The IDs of the sessions
    #[arg(value_name = "SESSION", required_unless_present = "all", value_parser = session_id,
          add = ArgValueCompleter::new(complete::sessions))]
    pub(crate) sessions: Vec<SessionId>,
    /// End all sessions
    #[arg(long, conflicts_with = "sessions")]
    pub(crate) all: bool,
    /// Do not ask
    #[arg(long, short, requires = "all")]
    pub(crate) yes: bool,
    #[command(flatten)]
    pub(crate) choice: SessionChoice,
    /// Kill the workers at once instead of asking them to stop
    #[arg(long, short)]
    pub(crate) force: bool,
    /// Print JSON: {"id": …, "reason": …, …}; of several sessions and with --all a list of such
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) daemon: DaemonChoice,
}

#[derive(Args, Debug)]
#[command(after_help = "The last 1,000 lines and 256 KiB of each worker are kept while it lives. Control characters \
                        are written as \\u{1b}, wherever the lines go to.")]
pub(crate) struct LogsArgs {
    /// A session's ID, or the ID of a worker, such as worker-3
    #[arg(value_name = "SESSION|WORKER", value_parser = session_id,
          add = ArgValueCompleter::new(complete::sessions_and_workers))]
    pub(crate) name: SessionId,
    /// Go on with new lines as they come, until the worker is gone
    #[arg(long, short)]
    pub(crate) follow: bool,
    /// Begin with the last lines, this many [default: all that are kept]
    #[arg(long, short = 'n', value_name = "LINES")]
    pub(crate) lines: Option<usize>,
    /// Only lines of standard output
    #[arg(long, conflicts_with = "stderr")]
    pub(crate) stdout: bool,
    /// Only lines of standard error
    #[arg(long)]
    pub(crate) stderr: bool,
    /// Begin each line with the time at which it was read
    #[arg(long, short)]
    pub(crate) timestamps: bool,
    /// Print one JSON object a line: {"sequence": …, "at": …, "stream": …, "text": …}
    #[arg(long, conflicts_with = "timestamps")]
    pub(crate) json: bool,
    /// It is a session's ID, although it looks like a worker's
    #[arg(long)]
    pub(crate) session: bool,
    #[command(flatten)]
    pub(crate) choice: SessionChoice,
    #[command(flatten)]
    pub(crate) daemon: DaemonChoice,
}

#[derive(Args, Debug)]
#[command(after_help = "The last 1,024 events are kept while the daemon runs.")]
pub(crate) struct EventsArgs {
    /// Go on with new events as they happen, until the daemon stops
    #[arg(long, short)]
    pub(crate) follow: bool,
    /// Only events of this session; those of its worker before it began and after it ended are not among them
    #[arg(long, value_name = "SESSION", value_parser = session_id,
          add = ArgValueCompleter::new(complete::sessions))]
    pub(crate) session: Option<SessionId>,
    /// Only events of this worker
    #[arg(long, value_name = "WORKER", add = ArgValueCompleter::new(complete::workers))]
    pub(crate) worker: Option<String>,
    /// Only events in this pool
    #[arg(long, value_name = "POOL", add = ArgValueCompleter::new(complete::pools))]
    pub(crate) pool: Option<String>,
    /// Only events of sessions of this tenant; "" is nobody
    #[arg(long, value_name = "TENANT", add = ArgValueCompleter::new(complete::tenants))]
    pub(crate) tenant: Option<String>,
    /// Only events of these kinds, separated by commas
    #[arg(long, value_name = "KIND", value_delimiter = ',', action = ArgAction::Append,
          value_parser = EventKind::NAMES)]
    pub(crate) kind: Vec<String>,
    /// Only events behind the one with this number, or since this time or as long ago: 41, 2026-01-31T12:00:00Z, 10m
    #[arg(long, value_name = "WHEN", value_parser = Since::parse)]
    pub(crate) since: Option<Since>,
    /// Print one JSON object a line
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) daemon: DaemonChoice,
}

/// With which event to begin.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Since {
    /// Behind the one with this number.
    Sequence(u64),
    Time(std::time::SystemTime),
    Ago(std::time::Duration),
}

impl Since {
    fn parse(text: &str) -> Result<Self, String> {
        if let Ok(sequence) = text.parse() {
            return Ok(Self::Sequence(sequence));
        }
        if let Ok(ago) = humantime::parse_duration(text) {
            return Ok(Self::Ago(ago));
        }
        humantime::parse_rfc3339_weak(text).map(Self::Time).map_err(|_| {
            "write an event's number (41), a time in UTC (2026-01-31T12:00:00Z), or how long ago (10m)".to_owned()
        })
    }
}

#[derive(Args, Debug)]
pub(crate) struct StatsArgs {
    /// Print JSON, as the daemon answers /v1/stats
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) daemon: DaemonChoice,
}

#[derive(Args, Debug)]
#[command(after_help = "Either all of the file is applied or nothing. Sessions keep their workers, and new ones get \
                        workers by the new settings.\nSIGHUP does the same, and says in the log what is wrong.")]
pub(crate) struct ReloadArgs {
    /// Print JSON: {"pools": [{"pool": …, "change": …}, …], "settings": […]}, or the problem
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) daemon: DaemonChoice,
}

fn session_id(text: &str) -> Result<SessionId, herd_pool::InvalidSessionId> {
    SessionId::new(text)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn since_is_a_number_a_time_or_how_long_ago() {
        assert_eq!(Since::parse("41"), Ok(Since::Sequence(41)));
        assert_eq!(Since::parse("10m"), Ok(Since::Ago(Duration::from_secs(600))));
        let at = std::time::UNIX_EPOCH + Duration::from_secs(1_769_860_800);
        assert_eq!(Since::parse("2026-01-31T12:00:00Z"), Ok(Since::Time(at)));
        assert!(Since::parse("yesterday").unwrap_err().contains("10m"));
    }

    #[test]
    fn states_are_called_as_the_daemon_calls_them() {
        for state in State::value_variants() {
            assert_eq!(state.to_possible_value().unwrap().get_name(), state.name());
        }
    }
}
