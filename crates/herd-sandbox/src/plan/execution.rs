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
        if !own_terminals {
            after.iter_mut().for_each(settle);
        }
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

/// Without a root of its own the worker can make symbolic links where the host's paths lead through what it may write. So
/// its fence is fixed before it runs: where the paths lead now, and no other way.
fn settle(step: &mut Step<'static>) {
    let Step::Landlock { read, write, follow, .. } = step else { return };
    *follow = false;
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
