//! From valid options to what a factory needs on this host, or to what this host cannot give.

use std::{
    fs::{self, File},
    os::{fd::OwnedFd, unix::fs::PermissionsExt as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use herd_sandbox::{Layer, Limit, Missing, Mode, Plan, Spec, cgroup};

use crate::{
    accounts,
    builder::RawOptions,
    cgroups::{self, Cgroups},
    directory::{self, MAX_SOCKET_PATH, StateDirectory},
    error::{Mistake, OptionsError},
    factory::Shared,
    identity::{Identities, Range},
    live::Live,
    options::{Limits, Listen, Options, Ready},
    sandbox::{Inside, Sandbox, Unavailable},
    template::Variable,
    workspace::PersistentWorkspaces,
};

impl RawOptions {
    /// Checks everything, then makes what all workers share.
    pub(crate) fn validate(&self) -> Result<Shared, OptionsError> {
        let (options, sandbox, limited) = self.judge()?;
        let swept = sandbox.identities().map_or(Ok(()), Identities::sweep).map_err(Unavailable::Identities);
        swept.map_err(|unavailable| OptionsError::new(told(&unavailable)))?;
        let state = Arc::new(state_directory(&self.state_base(), &options, &sandbox)?);
        let cgroups = match limited.cgroups {
            Some(limits) => {
                Some(Cgroups::open(limits, state.name()).map_err(|error| one("sandbox", error.obstacle()))?)
            }
            None => None,
        };
        let sandbox = if cgroups.is_some() { sandbox.in_cgroups() } else { sandbox };
        let workspaces = options.sandbox.persistent_workspaces.as_deref();
        let workspaces = workspaces.map(|base| PersistentWorkspaces::open(base, sandbox.identities())).transpose();
        let workspaces = workspaces.map_err(|error| {
            let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
            one("persistent_workspaces", format!("{error}{cause}"))
        })?;
        let missing = sandbox.missing().iter().cloned().chain(limited.missing).collect();
        let limits = limited.limits;
        Ok(Shared { options, sandbox, limits, missing, cgroups, workspaces, state, live: Live::new() })
    }

    /// The plan of a worker, or all that stands in its way.
    pub(crate) fn plan(&self) -> Result<Plan<'static>, OptionsError> {
        let (options, sandbox, limited) = self.judge()?;
        let mut sample = sample(&options);
        if limited.cgroups.is_none() {
            sample.limits.extend(limited.limits.pids.map(|pids| (Limit::Processes, pids)));
        }
        // What it is open to is not looked at: only whether there is one.
        let cgroup = limited.cgroups.map(|_| File::open("/dev/null")).transpose();
        let cgroup = cgroup.map_err(|error| one("sandbox", error))?.map(OwnedFd::from);
        let plan = sandbox.example(sample, cgroup, self.init_program.as_deref());
        plan.map_err(|unavailable| OptionsError::new(told(&unavailable)))
    }

    /// Finds out what this host can give, or all that stands in the way.
    fn judge(&self) -> Result<(Options, Sandbox, Limited), OptionsError> {
        let options = self.check()?;
        let mut mistakes = missing_paths(&options);
        let sandbox = self.sandbox(&options).map_err(|unavailable| mistakes.extend(told(&unavailable))).ok();
        mistakes.extend(sandbox.iter().flat_map(|sandbox| self.exposures(&options, sandbox)));
        mistakes.extend(sandbox.iter().flat_map(|sandbox| of_users(&options, sandbox)));
        let limited = self.limited(&options, sandbox.as_ref(), &mut mistakes);
        let (Some(sandbox), true) = (sandbox, mistakes.is_empty()) else { return Err(OptionsError::new(mistakes)) };
        Ok((options, sandbox, limited))
    }

    fn state_base(&self) -> PathBuf {
        self.state_dir.clone().unwrap_or_else(directory::default_base)
    }

    /// What workers would see and must not, before any of it is made.
    fn exposures(&self, options: &Options, sandbox: &Sandbox) -> Vec<Mistake> {
        let state = self.state_base();
        let kept = options.sandbox.persistent_workspaces.as_deref();
        let own =
            std::iter::once(("state_dir", state.as_path())).chain(kept.map(|kept| ("persistent_workspaces", kept)));
        sandbox.exposures(own, &sample(options))
    }

    fn sandbox(&self, options: &Options) -> Result<Sandbox, Unavailable> {
        Sandbox::new(options.sandbox.clone(), sample(options), self.init_program.as_deref())
    }

    /// Finds out which limits can be kept, and how. One that was asked for and cannot be kept is a mistake.
    fn limited(&self, options: &Options, sandbox: Option<&Sandbox>, mistakes: &mut Vec<Mistake>) -> Limited {
        let none = Limits { memory: None, cpu: None, pids: None, ..options.limits };
        if options.sandbox.mode == Mode::Off {
            for option in self.limits_asked_for() {
                tracing::warn!(option, program = ?self.program, "the limit is skipped: there is no sandbox");
            }
            return Limited { limits: none, cgroups: None, missing: None };
        }
        let error = match cgroups::look() {
            Ok(()) => {
                let Limits { memory, cpu, pids, .. } = options.limits;
                let cgroups = Some(cgroup::Limits { memory, cpu, pids });
                return Limited { limits: options.limits, cgroups, missing: None };
            }
            Err(error) => error.obstacle(),
        };
        for option in self.limits_asked_for() {
            mistakes.push(Mistake { option: option.to_owned(), problem: format!("it cannot be kept: {error}") });
        }
        // Where each worker has a user of its own, the processes of its user are its own.
        let has_users = sandbox.is_some_and(|sandbox| sandbox.identities().is_some());
        let pids = options.limits.pids.filter(|_| has_users);
        let missing = Some(Missing { layer: Layer::Cgroup, obstacle: error });
        Limited { limits: Limits { pids, ..none }, cgroups: None, missing }
    }
}

/// What a worker is that shows what all others will be like, without its isolation.
fn sample(options: &Options) -> Spec {
    let values = options.values(herd_pool::WorkerId::new(1), options.sandbox.port, &Inside::example());
    options.spec(&values, None)
}

/// Which limits are kept.
struct Limited {
    limits: Limits,
    /// Those to be kept by cgroups, where there are some.
    cgroups: Option<cgroup::Limits>,
    missing: Option<Missing>,
}

fn one(option: &str, problem: impl std::fmt::Display) -> OptionsError {
    OptionsError::new(vec![Mistake { option: option.to_owned(), problem: problem.to_string() }])
}

/// One mistake for each layer that cannot be had.
fn told(unavailable: &Unavailable) -> Vec<Mistake> {
    let mistake = |option: &str, problem: String| Mistake { option: option.to_owned(), problem };
    match unavailable {
        Unavailable::Missing(missing) => {
            missing.iter().map(|missing| mistake("sandbox", missing.to_string())).collect()
        }
        Unavailable::Unmapped(_) | Unavailable::Identities(_) => vec![mistake("uid_range", unavailable.to_string())],
        Unavailable::Spec(_) => vec![mistake("worker", unavailable.to_string())],
        Unavailable::Host(_) => vec![mistake("sandbox", unavailable.to_string())],
    }
}

/// Paths for the sandbox that are not there.
fn missing_paths(options: &Options) -> Vec<Mistake> {
    if options.sandbox.mode == Mode::Off {
        return Vec::new();
    }
    let lists = [("read_only", &options.sandbox.read_only), ("writable", &options.sandbox.writable)];
    let listed = lists.into_iter().flat_map(|(option, paths)| {
        paths.iter().enumerate().map(move |(index, path)| (format!("{option}[{index}]"), path))
    });
    let missing = listed.filter_map(|(option, path)| {
        let error = fs::metadata(path).err()?;
        Some(Mistake { option, problem: format!("{} cannot be shown: {error}", path.display()) })
    });
    missing.collect()
}

/// Where each worker has a user of its own: users that others have, too, and a working directory that none of them may
/// enter.
fn of_users(options: &Options, sandbox: &Sandbox) -> Vec<Mistake> {
    if sandbox.identities().is_none() {
        return Vec::new();
    }
    let mistake = |option: &str, problem| Mistake { option: option.to_owned(), problem };
    let clash = accounts::clash(&options.sandbox.uid_range).map(|clash| mistake("uid_range", clash));
    // A workspace is its worker's own.
    let named = options.cwd.as_ref().filter(|cwd| !cwd.begins_with(Variable::Workspace));
    let cwd = named.and_then(|_| sample(options).cwd);
    // In a root of the worker's own everybody may pass through the directories above.
    let steps = if sandbox.has(Layer::Files) { 1 } else { usize::MAX };
    let closed = cwd.as_deref().and_then(|cwd| cwd.ancestors().take(steps).find(|directory| is_closed(directory)));
    let closed = closed.map(|directory| {
        let users = Range(&options.sandbox.uid_range);
        let problem = format!(
            "the workers' users ({users}) need execute permission on {0}; give it (chmod o+x {0}), or name another directory",
            directory.display()
        );
        mistake("cwd", problem)
    });
    clash.into_iter().chain(closed).collect()
}

/// Whether only some users of the host may enter a directory. What cannot be found is told when a worker needs it.
fn is_closed(directory: &Path) -> bool {
    fs::metadata(directory).is_ok_and(|meta| meta.is_dir() && meta.permissions().mode() & 0o001 == 0)
}

fn state_directory(base: &Path, options: &Options, sandbox: &Sandbox) -> Result<StateDirectory, OptionsError> {
    let state = StateDirectory::create(base, sandbox.needs_passage())
        .map_err(|error| one("state_dir", format!("no directory can be made in {}: {error}", base.display())))?;
    let needs_socket =
        options.listen == Listen::Socket || matches!(options.ready, Ready::Notify) || options.uses(Variable::Socket);
    let longest = state.longest_socket_path().as_os_str().len();
    // A worker with a root of its own has a short path to its sockets.
    if needs_socket && !sandbox.has(Layer::Files) && longest > MAX_SOCKET_PATH {
        return Err(one(
            "state_dir",
            format!(
                "the path of a worker's Unix socket in {} can have {longest} bytes; allowed are {MAX_SOCKET_PATH}, so \
                 name a directory whose path is shorter",
                base.display()
            ),
        ));
    }
    Ok(state)
}
