//! From what options ask for, and what this host can give, to the isolation of each worker.

use std::{
    ffi::OsStr,
    fs, io,
    ops::RangeInclusive,
    os::{fd::OwnedFd, unix::fs::PermissionsExt as _},
    path::{Path, PathBuf},
};

use herd_sandbox::{
    Files, Host, Identity, Isolation, LaunchError, Layer, Missing, Mode, Mount, Network, Obstacle, Plan, PlanError,
    Reach, Seccomp, Spec, SpecError, real_path,
};

use crate::{
    directory::{NOTIFY, SOCKET, WorkerDirectory},
    error::Mistake,
    exposure,
    identity::{DEFAULT_RANGE, DIRECTORY, Identities, IdentityError, TakenIdentity, is_mapped},
    needs,
};

/// Where a worker that has a root of its own finds its workspace and its sockets.
const WORKSPACE: &str = "/workspace";
const RUN: &str = "/run/herd";

/// What options say about the sandbox, checked as far as that depends on nothing else.
#[derive(Clone, Debug)]
pub(crate) struct SandboxOptions {
    pub(crate) mode: Mode,
    pub(crate) network: Network,
    pub(crate) egress_allow: Vec<Reach>,
    /// The port of all workers with a network of their own.
    pub(crate) port: u16,
    pub(crate) seccomp: Seccomp,
    pub(crate) seccomp_log: bool,
    pub(crate) read_only: Vec<PathBuf>,
    pub(crate) writable: Vec<PathBuf>,
    pub(crate) hidden: Vec<PathBuf>,
    pub(crate) tmp_limit: u64,
    pub(crate) shm_limit: u64,
    pub(crate) uid_range: RangeInclusive<u32>,
    pub(crate) persistent_workspaces: Option<PathBuf>,
}

impl Default for SandboxOptions {
    fn default() -> Self {
        Self {
            mode: Mode::Required,
            network: Network::Private,
            egress_allow: Vec::new(),
            port: 8000,
            seccomp: Seccomp::Default,
            seccomp_log: false,
            read_only: Vec::new(),
            writable: Vec::new(),
            hidden: Vec::new(),
            tmp_limit: Files::DEFAULT_LIMIT,
            shm_limit: Files::DEFAULT_LIMIT,
            uid_range: DEFAULT_RANGE,
            persistent_workspaces: None,
        }
    }
}

/// The sandbox of a factory's workers on this host.
#[derive(Debug)]
pub(crate) struct Sandbox {
    pub(crate) options: SandboxOptions,
    layers: Vec<Layer>,
    missing: Vec<Missing>,
    /// Where root starts workers that each have a user of their own.
    identities: Option<Identities>,
    /// The user that a worker has who shows what all others will be like.
    example: Option<Identity>,
    /// The working directory of the sample.
    cwd: Option<PathBuf>,
}

/// The sandbox cannot be had.
#[derive(Debug)]
pub(crate) enum Unavailable {
    /// Layers that are required. At least one.
    Missing(Vec<Missing>),
    Spec(SpecError),
    /// What the host can give could not be found out.
    Host(LaunchError),
    /// This process does not know the users of the range.
    Unmapped(RangeInclusive<u32>),
    Identities(IdentityError),
}

/// How a worker sees its own places.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Inside {
    pub(crate) workspace: PathBuf,
    pub(crate) socket: PathBuf,
    pub(crate) notify: PathBuf,
}

impl Sandbox {
    /// Finds out what this host can give to a worker like the sample, which has no isolation yet.
    pub(crate) fn new(options: SandboxOptions, sample: Spec, init: Option<&Path>) -> Result<Self, Unavailable> {
        let (layers, missing, cwd) = (Vec::new(), Vec::new(), sample.cwd.clone());
        let mut sandbox = Self { options, layers, missing, identities: None, example: None, cwd };
        if sandbox.options.mode == Mode::Off {
            return Ok(sandbox);
        }
        let host = init.map_or_else(Host::current, Host::current_with).map_err(Unavailable::Host)?;
        let mut nobody = None;
        if host.root {
            match users(sandbox.options.uid_range.clone()) {
                Ok(users) => {
                    let first = *sandbox.options.uid_range.start();
                    sandbox.example = Some(Identity { uid: first, gid: first });
                    sandbox.identities = Some(users);
                }
                Err(unavailable) if sandbox.options.mode == Mode::BestEffort => nobody = Some(unavailable.obstacle()),
                Err(unavailable) => return Err(unavailable),
            }
        }
        let plan = sandbox.plan(sample, host)?;
        sandbox.layers = plan.layers();
        if !sandbox.has(Layer::Identity) {
            (sandbox.identities, sandbox.example) = (None, None);
        }
        sandbox.missing = plan.missing().to_vec();
        for missing in &mut sandbox.missing {
            if let (Layer::Identity, Some(nobody)) = (missing.layer, &nobody) {
                missing.obstacle = nobody.clone();
            }
        }
        Ok(sandbox)
    }

    /// The plan of a worker like the sample, for people to read.
    pub(crate) fn example(
        &self,
        sample: Spec,
        cgroup: Option<OwnedFd>,
        init: Option<&Path>,
    ) -> Result<Plan<'static>, Unavailable> {
        let host = init.map_or_else(Host::current, Host::current_with).map_err(Unavailable::Host)?;
        self.plan_in(sample, cgroup, host)
    }

    /// The plan of a worker like the sample, which has no isolation yet.
    fn plan(&self, sample: Spec, host: &Host) -> Result<Plan<'static>, Unavailable> {
        self.plan_in(sample, None, host)
    }

    fn plan_in(&self, mut sample: Spec, cgroup: Option<OwnedFd>, host: &Host) -> Result<Plan<'static>, Unavailable> {
        let own = |source: &str, target: &str| Mount { source: source.into(), target: target.into(), writable: true };
        let mounts = vec![own("/…/worker-1/run", RUN), own("/…/worker-1/workspace", WORKSPACE)];
        sample.isolation = self.describe(self.example, mounts, &sample);
        sample.isolation.cgroup = cgroup;
        Plan::new(&sample, host).map_err(|error| match error {
            PlanError::Missing(missing) => Unavailable::Missing(missing),
            PlanError::Spec(error) => Unavailable::Spec(error),
        })
    }

    pub(crate) fn has(&self, layer: Layer) -> bool {
        self.layers.contains(&layer)
    }

    /// The same for workers that each have a cgroup, which is made when they are.
    pub(crate) fn in_cgroups(mut self) -> Self {
        self.layers.push(Layer::Cgroup);
        // In the order of `Layer::ALL`.
        self.layers.sort_unstable();
        self
    }

    /// The layers that are on, from the outermost.
    pub(crate) fn layers(&self) -> &[Layer] {
        &self.layers
    }

    /// What was wanted and this host cannot give.
    pub(crate) fn missing(&self) -> &[Missing] {
        &self.missing
    }

    pub(crate) fn identities(&self) -> Option<&Identities> {
        self.identities.as_ref()
    }

    /// A user for one worker, where each has one.
    pub(crate) fn take_identity(&self) -> Result<Option<TakenIdentity>, IdentityError> {
        self.identities.as_ref().map(Identities::take).transpose()
    }

    /// Whether workers run as other users and find their own directories by the host's paths.
    pub(crate) fn needs_passage(&self) -> bool {
        self.identities.is_some() && !self.has(Layer::Files)
    }

    /// The port on which every worker listens, where each has a network of its own.
    pub(crate) fn private_port(&self) -> Option<u16> {
        self.has(Layer::Network).then_some(self.options.port)
    }

    /// How a worker sees its places.
    pub(crate) fn inside(&self, directory: &WorkerDirectory, workspace: &Path) -> Inside {
        if self.has(Layer::Files) {
            return Inside::example();
        }
        let run = directory.run();
        Inside { workspace: workspace.to_owned(), socket: run.join(SOCKET), notify: run.join(NOTIFY) }
    }

    /// The isolation of one worker.
    ///
    /// # Errors
    /// If its working directory, which is its own, would show what no worker may see.
    pub(crate) fn isolation(
        &self,
        spec: &Spec,
        directory: &WorkerDirectory,
        workspace: &Path,
        identity: Option<Identity>,
        cgroup: Option<OwnedFd>,
    ) -> io::Result<Isolation> {
        let own =
            |source: &Path, target: &str| Mount { source: source.to_owned(), target: target.into(), writable: true };
        let mounts = vec![own(workspace, WORKSPACE), own(directory.run(), RUN)];
        let mut isolation = self.describe(identity, mounts, spec);
        let is_sample = spec.cwd == self.cwd || self.options.mode == Mode::Off;
        if !is_sample && spec.cwd.as_ref().is_some_and(|cwd| isolation.files.read_only.contains(cwd)) {
            // This worker sees something that the sample did not.
            let own = [directory.state(), self.options.persistent_workspaces.as_deref()];
            let mistakes = self.exposed(own.into_iter().flatten().map(|own| ("cwd", own)), &isolation.files);
            if let Some(mistake) = mistakes.first() {
                return Err(io::Error::other(mistake.to_string()));
            }
        }
        isolation.cgroup = cgroup;
        Ok(isolation)
    }

    /// What of herd's own, or of what is to be hidden, a worker like the sample would see, and by which paths it could be
    /// led elsewhere.
    pub(crate) fn exposures<'a>(
        &self,
        own: impl IntoIterator<Item = (&'a str, &'a Path)>,
        sample: &Spec,
    ) -> Vec<Mistake> {
        if self.options.mode == Mode::Off {
            return Vec::new();
        }
        self.exposed(own, &self.describe(self.example, Vec::new(), sample).files)
    }

    fn exposed<'a>(&self, own: impl IntoIterator<Item = (&'a str, &'a Path)>, files: &Files) -> Vec<Mistake> {
        let mut mistakes = exposure::of_own(own, files);
        mistakes.extend(exposure::of_hidden(&self.options.hidden, files, self));
        mistakes.extend(exposure::of_links(files, &self.options.read_only));
        mistakes
    }

    fn describe(&self, identity: Option<Identity>, mounts: Vec<Mount>, spec: &Spec) -> Isolation {
        let options = &self.options;
        let mut isolation = Isolation::new(options.mode);
        isolation.identity = identity;
        isolation.network = options.network;
        isolation.egress.allow.clone_from(&options.egress_allow);
        isolation.seccomp = options.seccomp;
        isolation.seccomp_log = options.seccomp_log;
        let mut files = Files::default();
        files.read_only.clone_from(&options.read_only);
        files.writable.clone_from(&options.writable);
        files.tmp_limit = options.tmp_limit;
        files.shm_limit = options.shm_limit;
        files.mounts = mounts;
        for needed in needs::of_command(spec, program_file(&spec.program, path_of(spec), &files)) {
            // Nor is anything shown that the worker may have put a link in the place of.
            let is_own = files.mounts.iter().any(|mount| needed.starts_with(&mount.source));
            if !is_own && !is_visible(&needed, &files) {
                files.read_only.push(needed);
            }
        }
        // Whatever name a worker has for it.
        for hidden in &options.hidden {
            let others = files.sights(hidden).into_iter().map(|sight| sight.path).chain([real_path(hidden)]);
            for path in std::iter::once(hidden.clone()).chain(others) {
                if !files.hidden.contains(&path) {
                    files.hidden.push(path);
                }
            }
        }
        isolation.files = files;
        isolation
    }
}

/// The users of workers, where this process can hand them out.
fn users(range: RangeInclusive<u32>) -> Result<Identities, Unavailable> {
    if !is_mapped(&range) {
        return Err(Unavailable::Unmapped(range));
    }
    Identities::examine(range).map_err(Unavailable::Identities)
}

impl Unavailable {
    /// The same of workers' users, as something that is missing.
    fn obstacle(&self) -> Obstacle {
        let text = self.to_string();
        let (reason, told) = text.split_once("; ").unwrap_or((&text, ""));
        let remedy = match self {
            Self::Unmapped(_) => "name a range of users that it knows (uid_range), see /proc/self/uid_map".to_owned(),
            _ if told.is_empty() => format!("make {DIRECTORY} a directory that this user alone can write to"),
            _ => told.to_owned(),
        };
        Obstacle { step: "own user".to_owned(), errno: None, reason: reason.to_owned(), remedy }
    }
}

impl Inside {
    /// How a worker with a root of its own sees its places.
    pub(crate) fn example() -> Self {
        let run = Path::new(RUN);
        Self { workspace: WORKSPACE.into(), socket: run.join(SOCKET), notify: run.join(NOTIFY) }
    }
}

/// The variable `PATH` of a worker.
fn path_of(spec: &Spec) -> &OsStr {
    let path = spec.env.iter().find(|(name, _)| name == "PATH");
    path.map_or(OsStr::new("/usr/local/bin:/usr/bin:/bin"), |(_, path)| path)
}

/// The file that has to be shown for a program's name, found as execvp(3) does; `None` if the sandbox shows one anyway, or
/// if there is none.
fn program_file(program: &OsStr, path: &OsStr, files: &Files) -> Option<PathBuf> {
    let program = Path::new(program);
    if program.components().count() > 1 || program.is_absolute() {
        return program.is_absolute().then(|| program.to_owned());
    }
    let is_program = |file: &PathBuf| {
        file.is_absolute()
            && fs::metadata(file).is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
    };
    let mut found = std::env::split_paths(path).map(|directory| directory.join(program)).filter(is_program);
    let first = found.next()?;
    // What a directory of the user's own has is often no more than a way to the rest, which the worker does not see.
    // What it sees whole goes first, wherever it stands in the path: its own search finds that.
    if is_visible(&first, files) || found.any(|other| is_visible(&other, files)) { None } else { Some(first) }
}

/// Whether the sandbox shows a path already.
fn is_visible(path: &Path, files: &Files) -> bool {
    let fixed = Files::SYSTEM.iter().chain(&[WORKSPACE, RUN]).map(Path::new);
    let named = files.read_only.iter().chain(&files.writable).map(PathBuf::as_path);
    let is_root = path == Path::new("/");
    is_root || fixed.chain(named).any(|shown| path.starts_with(shown))
}

impl std::fmt::Display for Unavailable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Missing(missing) => PlanError::Missing(missing.clone()).fmt(f),
            Self::Spec(error) => error.fmt(f),
            Self::Host(error) => error.fmt(f),
            Self::Unmapped(range) => write!(
                f,
                "this user namespace does not know all users from {} to {}; name a range that it knows (/proc/self/uid_map)",
                range.start(),
                range.end()
            ),
            Self::Identities(error) => match std::error::Error::source(error) {
                Some(source) => write!(f, "{error}: {source}"),
                None => error.fmt(f),
            },
        }
    }
}
