//! `herd doctor`: what this host can isolate and limit, and what to do about the rest.

use std::fmt::Write as _;

use anyhow::Context as _;
use herd_sandbox::{Explanation, Host, Layer, Place, Plan, cgroup::Delegation};
use serde::Serialize;
use serde_json::{Value, json};

use crate::{
    cli::{self, DoctorArgs},
    config::{
        self, Mistakes, Settings,
        mistake::{Origin, Written},
        raw::Raw,
        settings::{self, NetworkMode, SandboxMode},
    },
    console,
    isolation::{self, Obstacle},
    prose::{terminal_width, wrapped},
    sight, workers,
};

/// Says what the host offers, line by line, and whether the configuration can be had on it; without one, whether the
/// sandbox `required` can. Or explains what is done to start a worker.
///
/// # Errors
/// If it cannot be had, or if the configuration has mistakes.
pub(crate) fn run(args: DoctorArgs) -> anyhow::Result<()> {
    let (json, explain) = (args.json, args.explain);
    let file = args.config.clone();
    let mut settings = settings(args)?;
    if explain {
        isolation::guard(&mut settings)?;
        return self::explain(&settings.pools, json);
    }
    let examination = Examination::new(&settings)?;
    let plans =
        isolation::guard(&mut settings).map_err(anyhow::Error::from).and_then(|()| workers::plans(&settings.pools));
    if json {
        let mut report = json!(examination);
        report["possible"] = plans.is_ok().into();
        report["mistakes"] = plans.as_ref().err().map_or_else(|| json!([]), workers::refusal_to_json);
        console::print(format_args!("{report:#}\n"))?;
    } else {
        console::print(wrapped(&examination.to_text(), 7, terminal_width()))?;
    }
    let missing: usize = plans?.iter().map(|plan| plan.missing().len()).sum();
    if !json {
        let what = match &file {
            Some(file) => format!("{} can be had here", file.display()),
            None => "The sandbox `required` can be had here".to_owned(),
        };
        let layers = if missing == 0 { "" } else { ", without the layers that are missing" };
        let Limits { memory, pids, .. } = &examination.limits;
        let limits = match (memory, pids) {
            (Some(_), _) => "",
            (None, Some(_)) => {
                ", but no limit of memory or CPU time, and of processes only the default: asking for one is refused"
            }
            (None, None) => ", but no limit of memory, CPU time or processes: asking for one is refused",
        };
        console::print(wrapped(&format!("\n{what}{layers}{limits}.\n"), 0, terminal_width()))?;
    }
    Ok(())
}

/// Prints what is done to start a worker of each pool.
fn explain(pools: &[settings::Pool], json: bool) -> anyhow::Result<()> {
    let plans = workers::plans(pools)?;
    let several = pools.len() > 1;
    for (pool, plan) in pools.iter().zip(&plans) {
        let of = if several { format!("pool {}: ", pool.name) } else { String::new() };
        for sentence in sight::unseen(pool, &plan.layers()) {
            console::complain(format_args!("warning: {of}{sentence}"));
        }
    }
    let all = pools.iter().map(|pool| pool.name.as_str()).zip(plans.iter().map(Plan::explain));
    if !json {
        for (number, (name, steps)) in all.enumerate() {
            let gap = if number > 0 { "\n" } else { "" };
            let title = if several { format!("{gap}pool {name}\n\n") } else { String::new() };
            console::print(format_args!("{title}{}", wrapped(&told(&steps), 6, terminal_width())))?;
        }
        return Ok(());
    }
    // A list of steps where there is one pool, and an object with one for each where there are several.
    let mut lists: Vec<_> = all.map(|(name, steps)| (name.to_owned(), steps_to_json(&steps))).collect();
    let report = if several { Value::Object(lists.into_iter().collect()) } else { lists.remove(0).1 };
    console::print(format_args!("{report:#}\n"))
}

/// The file's settings, or the defaults with everything required; in both, for the command if there is one.
fn settings(args: DoctorArgs) -> anyhow::Result<Settings> {
    let (mut raw, mistakes) = match &args.config {
        Some(path) => config::read(path)?,
        None => {
            let mut raw = Raw::default();
            raw.pool.sandbox.mode = Some(Written { value: SandboxMode::Required, origin: Origin::flag("required") });
            (raw, Mistakes::default())
        }
    };
    if !args.command.is_empty() {
        let command = cli::words("COMMAND", args.command);
        for (_, pool) in &mut raw.pools {
            pool.worker.command.clone_from(&command);
        }
        raw.pool.worker.command = command;
    }
    Ok(config::settle(raw, mistakes)?)
}

/// What was found.
#[derive(Debug, Serialize)]
struct Examination {
    version: &'static str,
    kernel: String,
    user: u32,
    root: bool,
    /// The version of Landlock's interface.
    landlock: u32,
    layers: Vec<Row>,
    limits: Limits,
}

/// One layer.
#[derive(Debug, Serialize)]
struct Row {
    layer: &'static str,
    available: bool,
    #[serde(flatten)]
    obstacle: Option<Obstacle>,
    /// Why no worker gets it here though nothing is missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    note: Option<&'static str>,
}

/// What keeps the default limit of processes where there are no cgroups. Users are what it counts by, so each worker
/// needs one of its own.
const PIDS_BY_USER: &str =
    "only the default of 100, by RLIMIT_NPROC of the worker's own user; a written pids_limit is refused";

/// What enforces each limit here, if anything does.
#[derive(Debug, Serialize)]
struct Limits {
    memory: Option<&'static str>,
    cpu: Option<&'static str>,
    pids: Option<&'static str>,
    open_files: Option<&'static str>,
    tmp: Option<&'static str>,
    shm: Option<&'static str>,
}

impl Examination {
    fn new(settings: &Settings) -> anyhow::Result<Self> {
        let host = Host::current().context("cannot find out what this host offers")?;
        let plan = survey(settings).context("cannot find out what workers get on this host")?;
        let layers = Layer::ALL.into_iter().map(|layer| Row::new(layer, host, &plan)).collect::<Vec<_>>();
        let has = |layer: Layer| layers.iter().any(|row| row.layer == layer.name() && row.available);
        let cgroup = has(Layer::Cgroup).then_some("cgroup v2");
        let own_file_system = has(Layer::Files).then_some("a file system of the worker's own");
        let by_user = has(Layer::Identity).then_some(PIDS_BY_USER);
        let limits = Limits {
            memory: cgroup,
            cpu: cgroup,
            pids: cgroup.or(by_user),
            open_files: Some("RLIMIT_NOFILE"),
            tmp: own_file_system,
            shm: own_file_system,
        };
        Ok(Self {
            version: env!("CARGO_PKG_VERSION"),
            kernel: format!("{}.{}", host.kernel.0, host.kernel.1),
            user: host.uid,
            root: host.root,
            landlock: host.landlock,
            layers,
            limits,
        })
    }

    fn to_text(&self) -> String {
        let mut text = String::new();
        let user = if self.root { "root".to_owned() } else { format!("user {}", self.user) };
        // Writing to a string cannot fail.
        let _ = writeln!(text, "Linux {}, as {user}\n\nlayers", self.kernel);
        let mut told = Vec::new();
        for Row { layer, obstacle, note, .. } in &self.layers {
            let _ = match (obstacle, note) {
                (None, None) => writeln!(text, "  yes  {layer}"),
                (None, Some(note)) => writeln!(text, "  -    {layer}: {note}"),
                // What one obstacle takes away is told together, where the first of it stands.
                (Some(obstacle), _) if told.contains(&obstacle) => Ok(()),
                (Some(obstacle), _) => {
                    told.push(obstacle);
                    let same = self.layers.iter().filter(|row| row.obstacle.as_ref() == Some(obstacle));
                    let names = same.map(|row| row.layer).collect::<Vec<_>>().join(", ");
                    writeln!(text, "  no   {names}: {}\n       to do: {}", obstacle.why(), obstacle.remedy)
                }
            };
        }
        let _ = writeln!(text, "\nlimits");
        for (limit, by) in self.limits.rows() {
            let _ = match by {
                Some(by) => writeln!(text, "  yes  {limit} ({by})"),
                None => writeln!(text, "  no   {limit}"),
            };
        }
        text
    }
}

/// What workers would get here if they wanted everything and insisted on nothing.
fn survey(settings: &Settings) -> anyhow::Result<Plan<'static>> {
    let mut wishes = config::settle(Raw::default(), Mistakes::default())?;
    let pool = &mut wishes.pools[0];
    pool.sandbox.mode = SandboxMode::BestEffort;
    pool.sandbox.network = NetworkMode::Egress;
    pool.sandbox.uid_range.clone_from(&settings.pools[0].sandbox.uid_range);
    workers::plan(pool)
}

impl Row {
    fn new(layer: Layer, host: &Host, plan: &Plan<'static>) -> Self {
        let missing = plan.missing().iter().find(|missing| missing.layer == layer);
        let obstacle = match missing {
            Some(missing) => Some(Obstacle::from(&missing.obstacle)),
            // Its cgroup is made with the worker.
            None if layer == Layer::Cgroup => Delegation::find().err().map(|error| Obstacle::from(&error.obstacle())),
            None => None,
        };
        let is_on = plan.layers().contains(&layer) || layer == Layer::Cgroup;
        let note = (obstacle.is_none() && !is_on).then(|| not_wanted(layer, host));
        Self { layer: layer.name(), available: obstacle.is_none() && note.is_none(), obstacle, note }
    }
}

/// Why no plan asks for a layer on this host.
fn not_wanted(layer: Layer, host: &Host) -> &'static str {
    match layer {
        Layer::Identity if !host.root => {
            "only root can give each worker a user of its own; without root all are the daemon's user"
        }
        Layer::Capabilities => "without root and without a user namespace a worker has none to lose",
        Layer::Landlock => "the kernel has none that would do; it is a second wall behind the worker's own root",
        _ => "workers do not need it here",
    }
}

impl Limits {
    fn rows(&self) -> [(&'static str, Option<&'static str>); 6] {
        let Self { memory, cpu, pids, open_files, tmp, shm } = *self;
        [
            ("memory", memory),
            ("CPU time", cpu),
            ("processes", pids),
            ("open files", open_files),
            ("size of /tmp", tmp),
            ("size of /dev/shm", shm),
        ]
    }
}

fn place(place: Place) -> &'static str {
    match place {
        Place::Outer => "the process that herd spawns",
        Place::Init => "init, in the namespaces that it is born into",
        Place::Worker => "the worker's process, before its program",
    }
}

fn steps_to_json(steps: &[Explanation]) -> Value {
    let step = |step: &Explanation| {
        json!({
            "step": step.step,
            "by": place(step.place),
            "layer": step.layer.map(Layer::name),
            "detail": step.detail,
            "reason": step.reason,
        })
    };
    steps.iter().map(step).collect()
}

/// The steps under who does them. A reason that is the same as that of the step before is not told twice.
fn told(steps: &[Explanation]) -> String {
    let mut text = String::new();
    let mut last: Option<&Explanation> = None;
    for (number, step) in (1..).zip(steps) {
        if last.is_none_or(|last| last.place != step.place) {
            let gap = if last.is_some() { "\n" } else { "" };
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{gap}{}", place(step.place));
        }
        let detail = if step.detail.is_empty() { String::new() } else { format!(": {}", step.detail) };
        let _ = writeln!(text, "{number:4}. {}{detail}", step.step);
        if last.is_none_or(|last| last.reason != step.reason) {
            let layer = step.layer.map_or(String::new(), |layer| format!("[{layer}] "));
            let _ = writeln!(text, "      {layer}{}", step.reason);
        }
        last = Some(step);
    }
    text
}
