use std::{ffi::OsString, fmt, path::PathBuf, str::FromStr, time::Duration};

use herd_pool::{Protocol, WorkerId};
use herd_sandbox::{Mode, Signal, Spec};
use regex::Regex;

use crate::{
    readiness::Readiness,
    sandbox::{Inside, SandboxOptions},
    template::{Template, Values, Variable},
};

/// Where a worker listens.
///
/// As text, for a flag or a configuration: `port`, `socket`, `inherit`.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub enum Listen {
    /// On a TCP port that herd tells it: `{{.Port}}`, or the environment variable `PORT`. It may bind 127.0.0.1 or all
    /// addresses.
    ///
    /// In a network of its own every worker has the same port, see
    /// [`port`](crate::ProcessFactoryBuilder::port). In the host's network no two live workers have the same one, and
    /// what listens there is taken for the worker only if it is one of its processes; if it is not, another port is
    /// tried.
    #[default]
    Port,
    /// On a Unix socket that it makes itself, at the path that herd tells it: `{{.Socket}}`. No other user can reach
    /// it.
    Socket,
    /// On a TCP socket of 127.0.0.1 that is bound for it and passed on as descriptor 3, announced by `LISTEN_FDS` and `LISTEN_PID`,
    /// see sd_listen_fds(3). In a network of its own it is bound there, to the same port for every worker. Requests that come before the worker accepts wait in the socket's queue.
    Inherit,
}

impl FromStr for Listen {
    type Err = InvalidListen;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "port" => Ok(Self::Port),
            "socket" => Ok(Self::Socket),
            "inherit" => Ok(Self::Inherit),
            _ => Err(InvalidListen(text.to_owned())),
        }
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Port => "port",
            Self::Socket => "socket",
            Self::Inherit => "inherit",
        })
    }
}

/// Some text names no way to listen.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("`{0}` is not a way to listen; allowed are port, socket and inherit")]
pub struct InvalidListen(String);

/// What a worker may use at most, as far as it is enforced. `None` is no limit.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Limits {
    /// Memory of all its processes, in bytes.
    pub memory: Option<u64>,
    /// CPU time per time, of all its processes: 0.5 is half a core.
    pub cpu: Option<f64>,
    /// How many processes and threads it may have.
    pub pids: Option<u64>,
    /// How many descriptors each of its processes may have open.
    pub open_files: u64,
}

/// Validated options: everything that is the same for all workers of a factory.
#[derive(Debug)]
pub(crate) struct Options {
    pub(crate) program: OsString,
    pub(crate) args: Vec<Template>,
    pub(crate) env: Vec<(OsString, Template)>,
    pub(crate) cwd: Option<Template>,
    pub(crate) listen: Listen,
    pub(crate) ready: Ready,
    pub(crate) protocol: Protocol,
    pub(crate) start_timeout: Duration,
    pub(crate) start_health_check_delay: Duration,
    pub(crate) stop_signal: Signal,
    pub(crate) stop_grace: Duration,
    /// The limits that were asked for, and with them the default ones.
    pub(crate) limits: Limits,
    pub(crate) sandbox: SandboxOptions,
    pub(crate) init_program: Option<PathBuf>,
}

/// A [`Readiness`] whose parts are understood.
#[derive(Clone, Debug)]
pub(crate) enum Ready {
    Http(String),
    Tcp,
    Socket,
    Stdout(Regex),
    Notify,
    Command(Vec<Template>),
}

impl Ready {
    /// The option that it came from, for errors.
    pub(crate) fn describe(&self) -> Readiness {
        match self {
            Self::Http(path) => Readiness::Http { path: Some(path.clone()) },
            Self::Tcp => Readiness::Tcp,
            Self::Socket => Readiness::Socket,
            Self::Stdout(pattern) => Readiness::Stdout { pattern: pattern.as_str().to_owned() },
            Self::Notify => Readiness::Notify,
            Self::Command(command) => Readiness::Command { command: command.iter().map(Template::to_string).collect() },
        }
    }
}

impl Options {
    /// The program's name, for errors.
    pub(crate) fn program_name(&self) -> String {
        self.program.to_string_lossy().escape_debug().to_string()
    }

    /// Whether some text of the worker tells it this value.
    pub(crate) fn uses(&self, variable: Variable) -> bool {
        let command = match &self.ready {
            Ready::Command(command) => command.as_slice(),
            _ => &[],
        };
        let values = self.env.iter().map(|(_, value)| value);
        self.args.iter().chain(values).chain(&self.cwd).chain(command).any(|template| template.uses(variable))
    }

    /// The values of one worker.
    pub(crate) fn values(&self, id: WorkerId, port: u16, inside: &Inside) -> Values {
        Values {
            port,
            socket: inside.socket.clone().into(),
            worker_id: id.to_string(),
            workspace: inside.workspace.clone().into(),
        }
    }

    /// What init is to start for one worker, without descriptors and isolation.
    pub(crate) fn spec(&self, values: &Values, notify: Option<OsString>) -> Spec {
        let mut spec = Spec::new(&self.program);
        spec.args = self.args.iter().map(|arg| arg.expand(values)).collect();
        self.fill_in(spec, values, notify)
    }

    fn fill_in(&self, mut spec: Spec, values: &Values, notify: Option<OsString>) -> Spec {
        let mut env = vec![
            ("PATH".into(), worker_path()),
            ("HOME".into(), values.workspace.clone()),
            ("LANG".into(), "C.UTF-8".into()),
            ("PORT".into(), values.port.to_string().into()),
        ];
        env.extend(notify.map(|path| ("NOTIFY_SOCKET".into(), path)));
        for (name, value) in &self.env {
            let value = value.expand(values);
            match env.iter_mut().find(|(known, _)| known == name) {
                Some((_, default)) => *default = value,
                None => env.push((name.clone(), value)),
            }
        }
        spec.env = env;
        spec.cwd = match &self.cwd {
            Some(cwd) => Some(cwd.expand(values).into()),
            None if self.sandbox.mode == Mode::Off => None,
            // The daemon's own directory is nothing to a worker that is sealed off.
            None => Some(values.workspace.clone().into()),
        };
        spec.open_files = self.limits.open_files;
        spec.tcp_ports = vec![values.port];
        spec
    }
}

/// Where workers find programs: where the daemon does.
fn worker_path() -> OsString {
    std::env::var_os("PATH")
        .filter(|path| !path.is_empty())
        .unwrap_or_else(|| "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".into())
}
