//! From options as they were given to options that can be, or to the list of mistakes.

use std::{
    ffi::{OsStr, OsString},
    fmt,
    os::unix::ffi::OsStrExt as _,
    path::{Component, Path},
    time::Duration,
};

use herd_pool::Protocol;
use hyper::http::uri::PathAndQuery;
use regex::Regex;

use crate::{
    builder::RawOptions,
    error::{Mistake, OptionsError},
    identity::Range,
    options::{Limits, Listen, Options, Ready},
    readiness::Readiness,
    sandbox::SandboxOptions,
    template::{Template, Values, Variable},
};

/// The longest time that an option can be. Longer ones are mistakes, and some clocks cannot count them.
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

/// What a limit of processes is when there shall be none, and when nothing is said.
const NO_LIMIT: i64 = -1;
const DEFAULT_PIDS: i64 = 100;

/// The least CPU time that the kernel can limit a worker to, in cores.
const LEAST_CPU: f64 = 0.01;

/// Variables that tell a worker of its sockets, which only the launch itself can do.
const RESERVED: [&str; 3] = ["LISTEN_FDS", "LISTEN_PID", "NOTIFY_SOCKET"];

impl RawOptions {
    /// The limits that need a cgroup and were asked for. The default of `pids_limit` was not.
    pub(crate) fn limits_asked_for(&self) -> impl Iterator<Item = &'static str> {
        let asked = [
            ("memory_limit", self.memory_limit > 0),
            ("cpu_limit", self.cpu_limit > 0.0 && self.cpu_limit.is_finite()),
            ("pids_limit", self.pids_limit.is_some_and(|count| count > 0)),
        ];
        asked.into_iter().filter_map(|(option, asked)| asked.then_some(option))
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
            sandbox: check.sandbox(&self.sandbox),
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
        let cpu = raw.cpu_limit;
        if cpu.is_nan() || cpu.is_infinite() || cpu < 0.0 {
            self.mistake("cpu_limit", format!("{cpu} cannot be; allowed is a number of cores, and 0 for no limit"));
        }
        if let Some(count) = raw.pids_limit.filter(|count| *count < 1 && *count != NO_LIMIT) {
            self.mistake("pids_limit", format!("{count} cannot be; allowed is 1 or more, and -1 for no limit"));
        }
        if cpu > 0.0 && cpu < LEAST_CPU {
            self.mistake(
                "cpu_limit",
                format!("{cpu} cannot be; the least that the kernel can do is {LEAST_CPU} cores"),
            );
        }
        Limits {
            memory: Some(raw.memory_limit).filter(|bytes| *bytes > 0),
            cpu: Some(cpu).filter(|cores| *cores > 0.0),
            pids: u64::try_from(raw.pids_limit.unwrap_or(DEFAULT_PIDS)).ok(),
            open_files: raw.open_files,
        }
    }

    fn sandbox(&mut self, options: &SandboxOptions) -> SandboxOptions {
        let range = &options.uid_range;
        if range.is_empty() || *range.start() == 0 || *range.end() >= u32::MAX - 1 {
            let problem = format!("{} cannot be; allowed is A-B with A at least 1 and B at least A", Range(range));
            self.mistake("uid_range", problem);
        }
        if options.port == 0 {
            self.mistake("port", "0 cannot be; allowed is 1 to 65535");
        }
        let lists = [("read_only", &options.read_only), ("writable", &options.writable), ("hidden", &options.hidden)];
        for (option, paths) in lists {
            for (index, path) in paths.iter().enumerate() {
                self.sandbox_path(&format!("{option}[{index}]"), path);
            }
        }
        let mut options = options.clone();
        if let Some(base) = &mut options.persistent_workspaces {
            self.no_nul("persistent_workspaces", base.as_os_str());
            *base = self.absolute("persistent_workspaces", base.as_os_str()).into();
        }
        options
    }

    /// A path of the host that is named for the sandbox: it means the same wherever it is read.
    fn sandbox_path(&mut self, option: &str, path: &Path) {
        self.no_nul(option, path.as_os_str());
        let is_plain = path.components().all(|part| !matches!(part, Component::ParentDir));
        if !path.is_absolute() || !is_plain {
            self.mistake(option, format!("{} cannot be; allowed is an absolute path without `..`", path.display()));
        }
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

#[cfg(test)]
mod tests {
    use herd_sandbox::Signal;

    use super::*;
    use crate::{ProcessFactory, ProcessFactoryBuilder};

    fn program() -> ProcessFactoryBuilder {
        ProcessFactory::new("true")
    }

    /// The mistakes of some options, as `option: problem`.
    fn mistakes(options: ProcessFactoryBuilder) -> Vec<String> {
        // Without a sandbox nothing depends on this host.
        let built = options.check().and_then(|()| options.insecure_sandbox().build());
        let error = built.err();
        error.iter().flat_map(OptionsError::mistakes).map(Mistake::to_string).collect()
    }

    #[track_caller]
    fn assert_mistake(options: ProcessFactoryBuilder, option: &str, problem: &str) {
        let mistakes = mistakes(options);
        let [mistake] = &mistakes[..] else { panic!("{mistakes:?}") };
        let prefix = format!("{option}: ");
        assert!(mistake.starts_with(&prefix) && mistake.contains(problem), "{mistake}");
    }

    #[test]
    fn every_option_can_be_set() {
        let every = program()
            .arg("{{.Port}}")
            .args(["a", "b"])
            .env("TOKEN", "{{.WorkerID}}")
            .cwd("{{.Workspace}}")
            .listen(Listen::Inherit)
            .ready("http:/ready".parse().expect("it is one"))
            .health_path("/live")
            .http2()
            .start_timeout(Duration::from_secs(1))
            .start_health_check_delay(Duration::from_millis(999))
            .stop_signal(Signal::INT)
            .stop_grace(Duration::ZERO)
            .memory_limit(0)
            .cpu_limit(0.0)
            .pids_limit(-1)
            .open_files(64)
            .state_dir(std::env::temp_dir());
        assert_eq!(mistakes(every), [""; 0]);
    }

    #[test]
    fn a_template_that_is_not_known_is_an_error_wherever_it_stands() {
        assert_mistake(
            program().args(["a", "{{.Prot}}"]),
            "args[1]",
            "`{{.Prot}}` is not known; allowed are `{{.Port}}`",
        );
        assert_mistake(program().env("A", "{{.port}}"), "env[A]", "`{{.port}}` is not known");
        assert_mistake(program().cwd("/{{.Home}}"), "cwd", "`{{.Home}}` is not known");
        let command = Readiness::Command { command: vec!["test".to_owned(), "{{.X}}".to_owned()] };
        assert_mistake(program().ready(command), "ready.command[1]", "`{{.X}}` is not known");
    }

    #[test]
    fn all_mistakes_are_told_at_once() {
        let options = program().arg("{{.A}}").env("", "x").health_path("health").start_timeout(Duration::ZERO);
        let mistakes = mistakes(options);
        let options: Vec<_> = mistakes.iter().filter_map(|mistake| Some(mistake.split_once(": ")?.0)).collect();
        assert_eq!(options, ["args[0]", "env[]", "health_path", "start_timeout", "start_health_check_delay"]);
    }

    #[test]
    fn limits_that_were_asked_for_are_skipped_without_a_sandbox() {
        let options = program().memory_limit(1).cpu_limit(0.5).pids_limit(100).insecure_sandbox();
        let factory = options.build().expect("they are skipped");
        let Limits { memory, cpu, pids, open_files: 4096 } = factory.limits() else { panic!("the default") };
        assert_eq!((memory, cpu, pids), (None, None, None));
    }

    #[test]
    fn paths_for_the_sandbox_mean_the_same_wherever_they_are_read() {
        for (option, options) in [
            ("read_only[0]", program().read_only("data")),
            ("writable[0]", program().writable("/data/../etc")),
            ("hidden[0]", program().hidden("")),
        ] {
            assert_mistake(options, option, "allowed is an absolute path without `..`");
        }
    }

    #[test]
    fn users_and_ports_that_cannot_be_are_errors() {
        #[expect(clippy::reversed_empty_ranges, reason = "it is the mistake")]
        let ranges = [0..=10, 10..=9, 1..=u32::MAX];
        for range in ranges {
            assert_mistake(program().uid_range(range), "uid_range", "allowed is A-B");
        }
        assert_mistake(program().port(0), "port", "allowed is 1 to 65535");
    }

    #[test]
    fn limits_that_make_no_sense_are_errors_in_any_sandbox() {
        for count in [0, -2, i64::MIN] {
            let problem = "allowed is 1 or more, and -1 for no limit";
            assert_mistake(program().pids_limit(count).insecure_sandbox(), "pids_limit", problem);
        }
        for cores in [-0.5, f64::NAN, f64::INFINITY] {
            let problem = "allowed is a number of cores, and 0 for no limit";
            assert_mistake(program().cpu_limit(cores).insecure_sandbox(), "cpu_limit", problem);
        }
        assert_mistake(program().cpu_limit(0.009), "cpu_limit", "the least that the kernel can do is 0.01 cores");
        assert_mistake(program().open_files(2), "worker", "a limit of 2 open files is too low");
    }

    #[test]
    fn names_and_values_that_no_program_can_be_given_are_errors() {
        assert_mistake(ProcessFactory::new(""), "program", "it is empty");
        assert_mistake(program().arg("a\0b"), "args[0]", "NUL");
        assert_mistake(program().env("A=B", "x"), "env[A=B]", "holds no `=`");
        assert_mistake(program().env("A", "a\0b"), "env[A]", "NUL");
        for name in RESERVED {
            assert_mistake(program().env(name, "1"), &format!("env[{name}]"), "herd sets it");
        }
        assert_mistake(program().env("PORT", "8080"), "env[PORT]", "the worker's own port");
    }

    #[test]
    fn readiness_must_fit_to_where_the_worker_listens() {
        assert_mistake(program().ready(Readiness::Socket), "ready", "needs `listen: socket`");
        assert_mistake(program().ready(Readiness::Tcp).listen(Listen::Socket), "ready", "needs a port");
        assert_mistake(program().ready(Readiness::Stdout { pattern: "(".to_owned() }), "ready", "regular expression");
        assert_mistake(program().ready(Readiness::Command { command: Vec::new() }), "ready", "the command is empty");
        for path in ["", "health", "/a b", "http://a/"] {
            assert_mistake(program().health_path(path), "health_path", "is not a path");
        }
        let relative = Readiness::Http { path: Some("ready".to_owned()) };
        assert_mistake(program().ready(relative), "ready", "is not a path");
    }

    #[test]
    fn times_are_bounded() {
        let second = Duration::from_secs(1);
        assert_mistake(program().start_timeout(LONGEST + second), "start_timeout", "up to 24 h");
        assert_mistake(program().stop_grace(Duration::MAX), "stop_grace", "up to 24 h");
        let delayed = program().start_timeout(second).start_health_check_delay(second);
        assert_mistake(delayed, "start_health_check_delay", "allowed is less than start_timeout");
    }

    #[test]
    fn a_state_directory_that_cannot_be_is_told() {
        assert_mistake(program().state_dir("/proc/nowhere"), "state_dir", "no directory can be made in /proc/nowhere");
    }

    #[test]
    fn a_path_too_long_for_a_socket_is_found_before_a_worker_needs_it() {
        let base = tempfile::tempdir().expect("a directory");
        let long = base.path().join("x".repeat(80));
        let needs = [
            program().listen(Listen::Socket),
            program().ready(Readiness::Notify),
            program().arg("--socket={{.Socket}}"),
        ];
        for options in needs {
            assert_mistake(options.state_dir(&long), "state_dir", "allowed are 107");
        }
        assert_eq!(mistakes(program().state_dir(&long)), [""; 0], "no socket, no bound");
    }

    #[test]
    fn what_is_printed_of_a_factory_holds_no_secrets() {
        let options = program().arg("--token=hunter2").env("TOKEN", "hunter2");
        let text = format!("{options:?}");
        let factory = options.insecure_sandbox().build().expect("the options are valid");
        assert!(!format!("{text}{factory:?}").contains("hunter2"));
    }
}
