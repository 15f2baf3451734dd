//! The steps of a further command in a worker's sandbox.

use std::{ffi::OsStr, fmt, fs, os::unix::ffi::OsStrExt};

use super::{
    Place, Plan, c_string,
    step::{Step, Text},
    variable,
};
use crate::{ExecSpec, ExecStreams, SpecError, TerminalSize};

/// What further commands in one worker's sandbox have in common: the steps of the worker's own process, and its
/// environment.
pub(crate) struct Blueprint {
    /// Before its streams are in place.
    before: Vec<Step<'static>>,
    /// After that.
    after: Vec<Step<'static>>,
    env: Vec<Text<'static>>,
    /// Whether the worker has terminals of its own.
    own_terminals: bool,
}

impl Blueprint {
    /// The order is another than the worker's: the terminal is opened by the worker's user, so descriptors are put in
    /// place after that one is set, and the limit of descriptors after that. The limit of processes has to be there before:
    /// the kernel looks at it when a process becomes a user, see execve(2), `EAGAIN`.
    pub(crate) fn new(plan: &Plan<'static>) -> Self {
        let (mut before, mut after, mut env) = (Vec::new(), Vec::new(), Vec::new());
        for step in plan.steps_of(Place::Worker) {
            match step {
                Step::WorkerUserNamespace { .. } => before.push(Step::JoinUserNamespace {}),
                Step::Session {}
                | Step::Limit { .. }
                | Step::BoundingSet {}
                | Step::Identity { .. }
                | Step::Capabilities {} => before.push(step.clone()),
                Step::Execute { env: own, .. } => env.clone_from(own),
                // What the worker alone has, and what takes its place below.
                Step::Announce {} | Step::Listen { .. } | Step::Descriptors { .. } | Step::Rehearse {} => {}
                step => after.push(step.clone()),
            }
        }
        let own_terminals = plan.steps.iter().any(|step| matches!(step, Step::Terminals {}));
        after.iter_mut().for_each(|step| settle(step, own_terminals));
        Self { before, after, env, own_terminals }
    }

    /// The plan of one command.
    pub(crate) fn plan(&self, spec: &ExecSpec) -> Result<Plan<'static>, SpecError> {
        spec.validate()?;
        let mut steps = self.before.clone();
        if let ExecStreams::Terminal(TerminalSize { columns, rows }) = spec.streams {
            // In a root of its own the one is a link to the other, and the worker could not replace that. Elsewhere the
            // first is the only one that is there for certain.
            let multiplexer = if self.own_terminals { "/dev/pts/ptmx" } else { "/dev/ptmx" };
            let multiplexer = c_string("the multiplexer", OsStr::new(multiplexer))?;
            steps.push(Step::Terminal { multiplexer, columns: columns.into(), rows: rows.into() });
        }
        steps.extend([Step::Begin {}, Step::Descriptors { listen: 0 }]);
        for step in &self.after {
            match (step, &spec.directory) {
                (Step::Directory { .. }, Some(directory)) => {
                    let path = c_string("the working directory", directory.as_os_str())?;
                    steps.push(Step::Directory { path });
                }
                (step, _) => steps.push(step.clone()),
            }
        }
        steps.push(Step::Execute {
            program: c_string("the program", &spec.program)?,
            args: spec.args.iter().map(|arg| c_string("an argument", arg)).collect::<Result<_, _>>()?,
            env: self.environment(spec)?,
            listen: 0,
        });
        Ok(Plan { steps, missing: Vec::new() })
    }

    /// The worker's, with what is new at its end.
    fn environment(&self, spec: &ExecSpec) -> Result<Vec<Text<'static>>, SpecError> {
        let is_named = |variable: &Text<'_>| {
            let name = variable.to_bytes().split(|byte| *byte == b'=').next().unwrap_or_default();
            spec.env.iter().any(|(other, _)| other.as_bytes() == name)
        };
        let mut env: Vec<_> = self.env.iter().filter(|variable| !is_named(variable)).cloned().collect();
        for (name, value) in &spec.env {
            env.push(variable(name, value)?);
        }
        Ok(env)
    }
}

/// The worker can make symbolic links where paths lead through what it may write, and rename what was there. So its fence
/// is fixed before it runs: where the paths lead now, and no other way. In a root of its own there are no links on the
/// way to what is mounted; elsewhere there may be some of the host's.
fn settle(step: &mut Step<'static>, own_root: bool) {
    let Step::Landlock { read, write, follow, .. } = step else { return };
    *follow = false;
    if own_root {
        return;
    }
    for paths in [read, write] {
        let settled = paths.iter().filter_map(|path| {
            let real = fs::canonicalize(OsStr::from_bytes(path.to_bytes())).ok()?;
            c_string("a path", real.as_os_str()).ok()
        });
        // What does not exist allows nothing.
        *paths = settled.collect();
    }
}

impl fmt::Debug for Blueprint {
    /// Nothing of the environment, which may hold secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Blueprint").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Host, Identity, Isolation, Layer, Limit, Mode, Spec};

    fn worker(isolation: Isolation) -> Spec {
        let mut spec = Spec::new("server");
        spec.env = vec![("A".into(), "1".into()), ("AB".into(), "2".into())];
        spec.limits.push((Limit::Processes, 9));
        spec.listen_ports = vec![8000];
        spec.isolation = isolation;
        spec
    }

    fn command(size: Option<TerminalSize>) -> ExecSpec {
        let null = || std::fs::File::open("/dev/null").expect("it is there").into();
        let pipes = ExecStreams::Descriptors { stdin: null(), stdout: null(), stderr: null() };
        ExecSpec::new("sh", size.map_or(pipes, ExecStreams::Terminal))
    }

    fn names(plan: &Plan<'_>) -> Vec<&'static str> {
        plan.steps.iter().map(Step::name).collect()
    }

    #[test]
    fn a_command_has_every_wall_of_the_worker_and_nothing_that_is_the_workers_alone() {
        let mut host = Host::unknown();
        (host.root, host.landlock) = (true, 6);
        let mut isolation = Isolation::new(Mode::Required);
        isolation.identity = Some(Identity { uid: 7, gid: 7 });
        let spec = worker(isolation);
        let plan = Plan::new(&spec, &host).expect("nothing is missing");
        let further = Blueprint::new(&plan).plan(&command(None)).expect("it can be");
        let layers = |plan: &Plan<'_>| -> Vec<Layer> {
            let mut layers: Vec<_> = plan.steps_of(Place::Worker).filter_map(Step::layer).collect();
            // Told and listened is by the worker alone.
            layers.retain(|layer| !matches!(layer, Layer::PidNamespace | Layer::Network));
            layers.sort();
            layers
        };
        assert_eq!(layers(&further), layers(&plan));
        let follows = |plan: &Plan<'_>| {
            let follow = |step: &Step<'_>| if let Step::Landlock { follow, .. } = step { Some(*follow) } else { None };
            plan.steps.iter().find_map(follow)
        };
        // When the first one comes there is nobody who could have made a link.
        assert_eq!((follows(&plan), follows(&further)), (Some(true), Some(false)));
        let order = names(&further);
        let place = |name: &str| order.iter().position(|other| *other == name).unwrap_or_else(|| panic!("no {name}"));
        for (earlier, later) in [
            ("joined user namespace", "own user"),
            ("limit", "own user"),
            ("bounding set", "own user"),
            ("own user", "capabilities"),
            ("capabilities", "command's announcement"),
            ("command's announcement", "descriptors"),
            ("descriptors", "open files"),
            ("no new privileges", "Landlock"),
            ("Landlock", "seccomp"),
            ("seccomp", "exec"),
        ] {
            assert!(place(earlier) < place(later), "{earlier} before {later}: {order:?}");
        }
        for alone in ["announcement", "listening sockets", "worker's user namespace"] {
            assert!(!order.contains(&alone), "{order:?}");
        }
        assert_eq!(Plan::decode(&further.encode()), Ok(further));
    }

    #[test]
    fn a_variable_replaces_the_workers_of_the_same_name_alone() {
        let plan = Plan::new(&worker(Isolation::off()), &Host::unknown()).expect("nothing is asked for");
        let mut spec = command(None);
        spec.env = vec![("A".into(), "3".into()), ("B".into(), "4".into())];
        let plan = Blueprint::new(&plan).plan(&spec).expect("it can be");
        let Some(Step::Execute { env, listen: 0, .. }) = plan.steps.last() else { panic!("{:?}", plan.steps) };
        let env: Vec<_> = env.iter().map(|text| text.to_str().expect("a text")).collect();
        assert_eq!(env, ["AB=2", "A=3", "B=4"]);
    }

    #[test]
    fn a_terminal_is_opened_by_the_workers_user_before_descriptors_are_closed() {
        let plan = Plan::new(&worker(Isolation::off()), &Host::unknown()).expect("nothing is asked for");
        let size = TerminalSize { columns: 80, rows: 24 };
        let order = names(&Blueprint::new(&plan).plan(&command(Some(size))).expect("it can be"));
        let found: Vec<_> = order.iter().filter(|name| ["terminal", "command's announcement"].contains(name)).collect();
        assert_eq!(found, [&"terminal", &"command's announcement"], "{order:?}");
    }
}
