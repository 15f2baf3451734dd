//! Reads a configuration file: from YAML nodes to [`Raw`], with every mistake on the way.

use std::fmt::Display;

use super::{
    mistake::{Mistake, Mistakes, Origin, Position, Written},
    raw::{Maybe, Raw, RawNetwork, RawResources, RawSandbox, RawTelemetry, RawWorker},
    value::{self, Refusal, Word, nearest},
    yaml::{self, Entry, Kind, Node},
};

/// Larger files, in bytes, are refused before they are parsed.
pub(super) const LARGEST_FILE: usize = 1 << 20;

/// Reads the text of a configuration file. What could be read is in the answer, what could not is in `mistakes`.
pub(crate) fn read(text: &[u8], mistakes: &mut Mistakes) -> Raw {
    let mut raw = Raw::default();
    let start = Position { line: 1, column: 1 };
    if text.len() > LARGEST_FILE {
        mistakes.push(Mistake::new(
            Origin::key("", start),
            format!("the file has more than {LARGEST_FILE} bytes"),
            "is it the right file?",
        ));
        return raw;
    }
    let text = match std::str::from_utf8(text) {
        Ok(text) => text.strip_prefix('\u{feff}').unwrap_or(text),
        Err(error) => {
            let before = String::from_utf8_lossy(&text[..error.valid_up_to()]);
            let line = before.matches('\n').count() + 1;
            let column = before.rsplit('\n').next().map_or(0, |last| last.chars().count()) + 1;
            mistakes.push(Mistake::new(
                Origin::key("", Position { line, column }),
                "the file is not UTF-8 text",
                "save it as UTF-8",
            ));
            return raw;
        }
    };
    let root = match yaml::parse(text) {
        Ok(Some(root)) => root,
        Ok(None) => return raw,
        Err(error) => {
            let remedy = match bare_template(text, error.at.line) {
                Some(template) => format!("quote the template: \"{template}\"; the rest is checked afterwards"),
                None => "correct it; the rest is checked afterwards".to_owned(),
            };
            mistakes.push(Mistake::new(Origin::key("", error.at), format!("the file {}", error.problem), remedy));
            return raw;
        }
    };
    let Some(mut fields) = Fields::of(root, "", mistakes) else { return raw };
    fields.section("network", |f| raw.network = network(f));
    fields.section("worker", |f| raw.pool.worker = worker(f));
    fields.section("resources", |f| raw.pool.resources = resources(f));
    fields.section("sandbox", |f| raw.pool.sandbox = sandbox(f));
    fields.section("telemetry", |f| raw.telemetry = telemetry(f));
    if let Some(pools) = fields.take("pools")
        && !pools.value.is_null()
    {
        fields.mistakes.push(
            Mistake::new(
                Origin::key("pools", pools.key_at),
                "several pools in one daemon are not supported in this version",
                "leave out `pools`, and start one daemon for each kind of worker",
            )
            .unavailable(),
        );
    }
    fields.finish();
    raw
}

fn network(f: &mut Fields<'_>) -> RawNetwork {
    RawNetwork {
        data_bind: f.text("data_bind", value::address),
        admin_bind: f.nullable("admin_bind", value::admin_address).map(flatten),
        control_socket: f.text("control_socket", value::socket_path),
        session_key: f.list_or_one("session_key", value::session_key),
        lookup_only: f.boolean("lookup_only"),
        drain_timeout: f.text("drain_timeout", value::duration),
        response_timeout: f.nullable("response_timeout", value::positive_duration),
        max_connections: f.plain("max_connections", value::positive_number),
        threads: f.plain("threads", value::positive_number),
    }
}

fn worker(f: &mut Fields<'_>) -> RawWorker {
    RawWorker {
        command: f.list("command", |text| Ok(text.into())),
        env: f.list("env", value::variable),
        cwd: f.nullable("cwd", value::worker_directory),
        listen: f.word("listen"),
        ready: f.text("ready", value::ready),
        health_path: f.text("health_path", value::http_path),
        start_timeout: f.text("start_timeout", value::positive_duration),
        start_health_check_delay: f.text("start_health_check_delay", value::duration),
        stop_signal: f.text("stop_signal", value::signal),
        stop_grace: f.text("stop_grace", value::duration),
        http2: f.boolean("http2"),
        port: f.plain("port", value::worker_port),
    }
}

fn resources(f: &mut Fields<'_>) -> RawResources {
    RawResources {
        min_workers: f.plain("min_workers", value::number),
        max_workers: f.plain("max_workers", value::positive_number),
        spare: f.plain("spare", value::number),
        ttl: f.text("ttl", value::positive_duration),
        idle_by: f.word("idle_by"),
        max_lifetime: f.nullable("max_lifetime", value::positive_duration),
        acquire_timeout: f.text("acquire_timeout", value::positive_duration),
        max_waiting: f.plain("max_waiting", value::positive_number),
        when_full: f.word("when_full"),
        worker_reuse: f.boolean("worker_reuse"),
        health_interval: f.text("health_interval", value::positive_duration),
        open_files: f.plain("open_files", value::open_files),
        memory_limit: f.plain("memory_limit_mb", value::mebibytes),
        cpu_limit_cores: f.plain("cpu_limit_cores", value::cores),
        pids_limit: f.plain("pids_limit", value::pids),
        tmp_limit: f.plain("tmp_limit_mb", value::positive_mebibytes),
        shm_limit: f.plain("shm_limit_mb", value::positive_mebibytes),
        insecure_sandbox: f.boolean("insecure_sandbox"),
    }
}

fn sandbox(f: &mut Fields<'_>) -> RawSandbox {
    RawSandbox {
        mode: f.word("mode"),
        network: f.word("network"),
        read_only: f.list("read_only", value::mounted_path),
        writable: f.list("writable", value::mounted_path),
        hidden: f.list("hidden", value::mounted_path),
        seccomp: f.word("seccomp"),
        seccomp_log: f.boolean("seccomp_log"),
        egress_allow: f.list("egress_allow", value::reach),
        workspace: f.word("workspace"),
        workspace_dir: f.text("workspace_dir", value::plain_path),
        uid_range: f.text("uid_range", value::uid_range),
    }
}

fn telemetry(f: &mut Fields<'_>) -> RawTelemetry {
    RawTelemetry {
        log_format: f.word("log_format"),
        log_level: f.word("log_level"),
        metrics_path: f.text("metrics_path", value::http_path),
    }
}

/// The word of this line (from 1) that has a template such as `{{.Port}}` in it and stands outside of quotes: for YAML
/// its brackets are maps.
fn bare_template(text: &str, line: usize) -> Option<&str> {
    let line = text.lines().nth(line.checked_sub(1)?)?;
    let mut quote = None;
    let mut word = 0;
    for (at, char) in line.char_indices() {
        match quote {
            Some(open) if char == open => quote = None,
            Some(_) => {}
            None if line[at..].starts_with("{{.") => {
                let end = at + line[at..].find("}}")? + "}}".len();
                let rest = line[end..].find([' ', ',', ']', '\t']).unwrap_or(line.len() - end);
                return Some(&line[word..end + rest]);
            }
            None if char == '"' || char == '\'' => quote = Some(char),
            None if " \t,[".contains(char) => word = at + char.len_utf8(),
            None => {}
        }
    }
    None
}

/// `null` and the word for "none" mean the same.
fn flatten<T>(written: Written<Option<Option<T>>>) -> Written<Option<T>> {
    Written { value: written.value.flatten(), origin: written.origin }
}

/// The mistake of a node that is something else than `wanted`. A single value is quoted; of the rest it is said what it
/// is.
fn wrong_kind(name: &str, node: &Node, wanted: &str, remedy: &str) -> Mistake {
    let origin = Origin::key(name, node.at);
    let is = match &node.kind {
        Kind::Scalar { text, .. } => return Mistake::new(origin, format!("is not {wanted}"), remedy).found(text),
        Kind::List(_) => "a list",
        Kind::Map(_) => "a map",
    };
    Mistake::new(origin, format!("is {is} and not {wanted}"), remedy)
}

/// One map of the file, from which keys are taken one by one. What is left at the end is unknown.
#[derive(Debug)]
struct Fields<'a> {
    /// The key of the map itself; empty for the document.
    path: &'a str,
    entries: Vec<Entry>,
    known: Vec<&'static str>,
    mistakes: &'a mut Mistakes,
}

impl<'a> Fields<'a> {
    fn of(node: Node, path: &'a str, mistakes: &'a mut Mistakes) -> Option<Self> {
        let entries = match node.kind {
            Kind::Map(entries) => entries,
            _ if node.is_null() => Vec::new(),
            _ => {
                mistakes.push(wrong_kind(path, &node, "a map of settings", "write `key: value` lines"));
                return None;
            }
        };
        Some(Self { path, entries, known: Vec::new(), mistakes })
    }

    fn name(&self, key: impl Display) -> String {
        if self.path.is_empty() { key.to_string() } else { format!("{}.{key}", self.path) }
    }

    /// Takes the entry with this key; a second one is a mistake.
    fn take(&mut self, key: &'static str) -> Option<Entry> {
        self.known.push(key);
        let (mut found, rest): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.entries).into_iter().partition(|e| e.key == key);
        self.entries = rest;
        let first = found.first().map(|entry| entry.key_at.line)?;
        for twice in found.drain(1..) {
            self.mistakes.push(Mistake::new(
                Origin::key(self.name(key), twice.key_at),
                format!("is written twice, first on line {first}"),
                "keep one of them",
            ));
        }
        found.pop()
    }

    fn section(&mut self, key: &'static str, read: impl FnOnce(&mut Fields<'_>)) {
        if let Some(entry) = self.take(key)
            && let Some(mut fields) = Fields::of(entry.value, key, self.mistakes)
        {
            read(&mut fields);
            fields.finish();
        }
    }

    /// A value that may be written with or without quotes.
    fn text<T>(&mut self, key: &'static str, read: impl Fn(&str) -> Result<T, Refusal>) -> Maybe<T> {
        let entry = self.take(key)?;
        self.scalar(self.name(key), &entry.value, false, read)
    }

    /// A value that is no text, so that quotes are a mistake.
    fn plain<T>(&mut self, key: &'static str, read: impl Fn(&str) -> Result<T, Refusal>) -> Maybe<T> {
        let entry = self.take(key)?;
        self.scalar(self.name(key), &entry.value, true, read)
    }

    fn boolean(&mut self, key: &'static str) -> Maybe<bool> {
        self.plain(key, |text| match text {
            "true" | "True" | "TRUE" => Ok(true),
            "false" | "False" | "FALSE" => Ok(false),
            _ => Err(Refusal::new("is neither true nor false", "write true or false")),
        })
    }

    fn word<T: Word>(&mut self, key: &'static str) -> Maybe<T> {
        self.text(key, T::read)
    }

    fn nullable<T>(&mut self, key: &'static str, read: impl Fn(&str) -> Result<T, Refusal>) -> Maybe<Option<T>> {
        let entry = self.take(key)?;
        let name = self.name(key);
        if entry.value.is_null() {
            return Some(Written { value: None, origin: Origin::key(name, entry.value.at) });
        }
        let written = self.scalar(name, &entry.value, false, read)?;
        Some(Written { value: Some(written.value), origin: written.origin })
    }

    fn list<T>(&mut self, key: &'static str, read: impl Fn(&str) -> Result<T, Refusal>) -> Maybe<Vec<Written<T>>> {
        let entry = self.take(key)?;
        let name = self.name(key);
        let Kind::List(items) = &entry.value.kind else {
            let remedy = "write [one, two] or a line `- one` for each";
            self.mistakes.push(wrong_kind(&name, &entry.value, "a list", remedy));
            return None;
        };
        self.items(&name, items, read).map(|value| Written { value, origin: Origin::key(name, entry.value.at) })
    }

    /// A list, or one value that stands for a list of one.
    fn list_or_one<T>(
        &mut self,
        key: &'static str,
        read: impl Fn(&str) -> Result<T, Refusal>,
    ) -> Maybe<Vec<Written<T>>> {
        let entry = self.take(key)?;
        let name = self.name(key);
        if let Kind::List(items) = &entry.value.kind {
            return self
                .items(&name, items, read)
                .map(|value| Written { value, origin: Origin::key(name, entry.value.at) });
        }
        let one = self.scalar(name.clone(), &entry.value, false, read)?;
        Some(Written { value: vec![one], origin: Origin::key(name, entry.value.at) })
    }

    /// `None` if nothing of a list that is not empty could be read: what is left of it would be another mistake.
    fn items<T>(
        &mut self,
        name: &str,
        items: &[Node],
        read: impl Fn(&str) -> Result<T, Refusal>,
    ) -> Option<Vec<Written<T>>> {
        let one = |(index, item): (usize, &Node)| self.scalar(format!("{name}[{index}]"), item, false, &read);
        let values: Vec<_> = items.iter().enumerate().filter_map(one).collect();
        (items.is_empty() || !values.is_empty()).then_some(values)
    }

    fn scalar<T>(
        &mut self,
        name: String,
        node: &Node,
        must_be_plain: bool,
        read: impl Fn(&str) -> Result<T, Refusal>,
    ) -> Maybe<T> {
        let origin = Origin::key(name, node.at);
        let mistake = match &node.kind {
            _ if node.is_null() => {
                Mistake::new(origin, "has no value", "write one, or leave the key out to get its default")
            }
            Kind::Scalar { text, plain: false } if must_be_plain => match read(text) {
                Ok(_) => Mistake::new(origin, "is a quoted text", "write it without quotes").found(text),
                // What is written without quotes then shall be right at once.
                Err(Refusal { problem, remedy, quoted }) => {
                    Mistake::new(origin, problem, format!("{remedy}, without quotes"))
                        .found(quoted.as_deref().unwrap_or(text))
                }
            },
            Kind::Scalar { text, .. } => match read(text) {
                Ok(value) => return Some(Written { value, origin: origin.text(text) }),
                Err(refusal) => Mistake::new(origin, refusal.problem, refusal.remedy)
                    .found(refusal.quoted.as_deref().unwrap_or(text)),
            },
            Kind::List(_) | Kind::Map(_) => wrong_kind(&origin.name, node, "a single value", "write one value"),
        };
        self.mistakes.push(mistake);
        None
    }

    /// Everything that nobody took is unknown.
    fn finish(self) {
        for entry in &self.entries {
            let place = if self.path.is_empty() { "at the top level" } else { &format!("in `{}`", self.path) };
            let hint =
                nearest(&entry.key, &self.known).map_or(String::new(), |word| format!("did you mean `{word}`? "));
            let remedy = format!("{hint}known {place}: {}", self.known.join(", "));
            let origin = Origin::key(self.name(&entry.key), entry.key_at);
            self.mistakes.push(Mistake::new(origin, "is an unknown key", remedy));
        }
    }
}
