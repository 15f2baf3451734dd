//! From options as they were given to options that can be, or to the list of mistakes.

use std::{
    ffi::{OsStr, OsString},
    fmt,
    os::unix::ffi::OsStrExt as _,
    path::Path,
    time::Duration,
};

use herd_pool::Protocol;
use hyper::http::uri::PathAndQuery;
use regex::Regex;

use crate::{
    builder::RawOptions,
    directory::{self, MAX_SOCKET_PATH, StateDirectory},
    error::{Mistake, OptionsError},
    options::{Limits, Listen, Options, Ready},
    readiness::Readiness,
    template::{Template, Values, Variable},
};

/// The longest time that an option can be. Longer ones are mistakes, and some clocks cannot count them.
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

/// Variables that tell a worker of its sockets, which only the launch itself can do.
const RESERVED: [&str; 3] = ["LISTEN_FDS", "LISTEN_PID", "NOTIFY_SOCKET"];

impl RawOptions {
    /// Checks everything, then makes the state directory.
    pub(crate) fn validate(&self) -> Result<(Options, StateDirectory), OptionsError> {
        let options = self.check()?;
        let base = self.state_dir.clone().unwrap_or_else(directory::default_base);
        let state = state_directory(&base, &options)?;
        Ok((options, state))
    }

    /// Checks everything that depends on nothing but the options.
    pub(crate) fn check(&self) -> Result<Options, OptionsError> {
        let mut check = Check::default();
        let options = Options {
            program: check.program(&self.program),
            args: check.templates("args", &self.args),
            env: check.env(&self.env),
            cwd: self.cwd.as_deref().and_then(|cwd| check.cwd(cwd)),
            listen: self.listen,
            ready: check.ready(&self.ready, self.listen, &self.health_path),
            protocol: if self.http2 { Protocol::Http2 } else { Protocol::Http1 },
            start_timeout: self.start_timeout,
            start_health_check_delay: self.start_health_check_delay,
            stop_signal: self.stop_signal,
            stop_grace: self.stop_grace,
            limits: check.limits(self),
            init_program: self
                .init_program
                .as_ref()
                .map(|path| check.absolute("init_program", path.as_os_str()).into()),
        };
        check.times(&options);
        check.spec(&options);
        check.finish()?;
        Ok(options)
    }
}

fn state_directory(base: &Path, options: &Options) -> Result<StateDirectory, OptionsError> {
    let wrong = |problem| OptionsError::new(vec![Mistake { option: "state_dir".to_owned(), problem }]);
    let state = StateDirectory::create(base)
        .map_err(|error| wrong(format!("no directory can be made in {}: {error}", base.display())))?;
    let needs_socket =
        options.listen == Listen::Socket || matches!(options.ready, Ready::Notify) || options.uses(Variable::Socket);
    let longest = state.longest_socket_path().as_os_str().len();
    if needs_socket && longest > MAX_SOCKET_PATH {
        return Err(wrong(format!(
            "the path of a worker's Unix socket in {} can have {longest} bytes; allowed are {MAX_SOCKET_PATH}, so name \
             a directory whose path is shorter",
            base.display()
        )));
    }
    Ok(state)
}

/// Collects mistakes.
#[derive(Default)]
struct Check(Vec<Mistake>);

impl Check {
    fn mistake(&mut self, option: impl Into<String>, problem: impl fmt::Display) {
        self.0.push(Mistake { option: option.into(), problem: problem.to_string() });
    }

    fn finish(&mut self) -> Result<(), OptionsError> {
        if self.0.is_empty() { Ok(()) } else { Err(OptionsError::new(std::mem::take(&mut self.0))) }
    }

    /// A program with a slash in its name is a path, which must not depend on the worker's working directory.
    fn program(&mut self, program: &OsStr) -> OsString {
        if program.is_empty() {
            self.mistake("program", "it is empty; allowed is a path or a name to search in PATH");
        }
        self.no_nul("program", program);
        if program.as_bytes().contains(&b'/') { self.absolute("program", program) } else { program.to_owned() }
    }

    fn absolute(&mut self, option: &str, path: &OsStr) -> OsString {
        match std::path::absolute(path) {
            Ok(path) => path.into(),
            Err(error) => {
                self.mistake(option, format!("it cannot be made an absolute path: {error}"));
                path.to_owned()
            }
        }
    }

    fn templates(&mut self, option: &str, texts: &[OsString]) -> Vec<Template> {
        let parse = |(index, text): (usize, &OsString)| self.template(&format!("{option}[{index}]"), text);
        texts.iter().enumerate().filter_map(parse).collect()
    }

    fn template(&mut self, option: &str, text: &OsStr) -> Option<Template> {
        self.no_nul(option, text);
        Template::parse(text).map_err(|error| self.mistake(option, error)).ok()
    }

    fn no_nul(&mut self, option: &str, text: &OsStr) {
        if text.as_bytes().contains(&0) {
            self.mistake(option, "it holds a NUL byte, which no program can be given");
        }
    }

    fn env(&mut self, env: &[(OsString, OsString)]) -> Vec<(OsString, Template)> {
        let mut checked = Vec::with_capacity(env.len());
        for (name, value) in env {
            let option = format!("env[{}]", name.to_string_lossy().escape_debug());
            if name.is_empty() || name.as_bytes().contains(&b'=') {
                self.mistake(&option, "a variable's name is not empty and holds no `=`");
            }
            self.no_nul(&option, name);
            if RESERVED.iter().any(|reserved| name == reserved) {
                self.mistake(&option, "herd sets it; use `listen: inherit` or the readiness `notify`");
            }
            let Some(value) = self.template(&option, value) else { continue };
            if name == "PORT" && !value.uses(Variable::Port) {
                self.mistake(&option, "herd sets it to the worker's own port; leave it out");
            }
            checked.push((name.clone(), value));
        }
        checked
    }

    fn cwd(&mut self, cwd: &OsStr) -> Option<Template> {
        if cwd.is_empty() {
            self.mistake("cwd", "it is empty; allowed is the path of a directory");
            return None;
        }
        let template = self.template("cwd", cwd)?;
        if template.begins_with(Variable::Workspace) {
            return Some(template);
        }
        let absolute = self.absolute("cwd", cwd);
        self.template("cwd", &absolute)
    }

    fn ready(&mut self, ready: &Readiness, listen: Listen, health_path: &str) -> Ready {
        self.path("health_path", health_path);
        match (ready, listen) {
            (Readiness::Tcp, Listen::Socket) => {
                self.mistake("ready", "`tcp` needs a port, and the worker listens on a socket; use `socket`");
            }
            (Readiness::Socket, Listen::Port | Listen::Inherit) => {
                self.mistake("ready", "`socket` needs `listen: socket`; use `tcp`");
            }
            _ => {}
        }
        match ready {
            Readiness::Http { path: None } => Ready::Http(health_path.to_owned()),
            Readiness::Http { path: Some(path) } => {
                self.path("ready", path);
                Ready::Http(path.clone())
            }
            Readiness::Tcp => Ready::Tcp,
            Readiness::Socket => Ready::Socket,
            Readiness::Notify => Ready::Notify,
            Readiness::Stdout { pattern } => match Regex::new(pattern) {
                Ok(pattern) => Ready::Stdout(pattern),
                Err(error) => {
                    self.mistake("ready", format!("the regular expression cannot be used: {error}"));
                    Ready::Tcp
                }
            },
            Readiness::Command { command } => {
                if command.first().is_none_or(String::is_empty) {
                    self.mistake("ready", "the command is empty; allowed is a program and its arguments");
                }
                let words: Vec<_> = command.iter().map(OsString::from).collect();
                Ready::Command(self.templates("ready.command", &words))
            }
        }
    }

    fn path(&mut self, option: &str, path: &str) {
        if !path.starts_with('/') || path.parse::<PathAndQuery>().is_err() {
            let problem = format!("`{}` is not a path; it begins with `/` and has no spaces", path.escape_debug());
            self.mistake(option, problem);
        }
    }

    fn times(&mut self, options: &Options) {
        let Options { start_timeout, start_health_check_delay, stop_grace, .. } = *options;
        if start_timeout.is_zero() || start_timeout > LONGEST {
            self.mistake("start_timeout", format!("{start_timeout:?} cannot be; allowed is more than 0, up to 24 h"));
        }
        if start_health_check_delay >= start_timeout {
            let problem = format!("{start_health_check_delay:?} cannot be; allowed is less than start_timeout");
            self.mistake("start_health_check_delay", problem);
        }
        if stop_grace > LONGEST {
            self.mistake("stop_grace", format!("{stop_grace:?} cannot be; allowed is up to 24 h"));
        }
    }

    fn limits(&mut self, raw: &RawOptions) -> Limits {
        let mut asked = Vec::new();
        if raw.memory_limit > 0 {
            asked.push("memory_limit");
        }
        let cpu = raw.cpu_limit;
        if cpu.is_nan() || cpu.is_infinite() || cpu < 0.0 {
            self.mistake("cpu_limit", format!("{cpu} cannot be; allowed is a number of cores, and 0 for no limit"));
        } else if cpu > 0.0 {
            asked.push("cpu_limit");
        }
        match raw.pids_limit {
            None | Some(-1) => {}
            Some(count) if count < 1 => {
                self.mistake("pids_limit", format!("{count} cannot be; allowed is 1 or more, and -1 for no limit"));
            }
            Some(_) => asked.push("pids_limit"),
        }
        for option in asked {
            if raw.insecure_sandbox {
                tracing::warn!(option, program = ?raw.program, "the limit is skipped: the sandbox is insecure");
            } else {
                let problem = "it cannot be enforced: limits by cgroup are not supported yet; leave it out, or accept \
                               workers without limits (insecure_sandbox)";
                self.mistake(option, problem);
            }
        }
        Limits { memory: None, cpu: None, pids: None, open_files: raw.open_files }
    }

    /// Has the sandbox look at what it would be given, so that nothing it refuses is found out at the first spawn only.
    fn spec(&mut self, options: &Options) {
        if !self.0.is_empty() {
            return;
        }
        let values = Values { port: 1, socket: "/s".into(), worker_id: "worker-1".to_owned(), workspace: "/w".into() };
        if let Err(error) = options.spec(&values, None).validate() {
            self.mistake("worker", error);
        }
    }
}
