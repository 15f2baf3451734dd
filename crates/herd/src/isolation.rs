//! What workers get of the sandbox on this host, and what they must never see of herd.
//!
//! The rule: what an operator wrote is done or refused, never skipped in silence. With `required` that is every layer;
//! with `best-effort` it is every limit, and a missing layer is named once at start and in `herd ps`.

use std::{
    env,
    fmt::{self, Display},
    fs, io,
    path::{Path, PathBuf},
};

use herd_process::Limits;
use herd_sandbox::{Files, Layer};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    config::{
        Mistakes, Settings,
        mistake::{Mistake, Origin},
        settings::{Pool, SandboxMode},
    },
    control,
    workers::{self, Factory},
};

/// What every worker gets, whatever the mode and the host: none of it needs a privilege.
const ALWAYS: &str = "own session, closed descriptors, clean environment, rlimits, no_new_privs";

/// The sandbox of all workers of a daemon.
#[derive(Clone, Debug)]
pub(crate) struct Isolation {
    mode: SandboxMode,
    /// The layers that are on.
    pub(crate) layers: Vec<Layer>,
    /// Those that are wanted and cannot be had, and cgroups even if nothing is wanted of them.
    pub(crate) missing: Vec<Missing>,
    /// What is enforced.
    pub(crate) limits: Limits,
}

/// A layer that cannot be had.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize, ToSchema)]
pub(crate) struct Missing {
    /// Its name in lists.
    pub(crate) layer: String,
    #[serde(flatten)]
    pub(crate) obstacle: Obstacle,
}

/// Why, and what to do about it.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize, ToSchema)]
pub(crate) struct Obstacle {
    /// The step that failed.
    pub(crate) step: String,
    pub(crate) errno: Option<i32>,
    pub(crate) reason: String,
    pub(crate) remedy: String,
}

impl From<&herd_sandbox::Obstacle> for Obstacle {
    fn from(obstacle: &herd_sandbox::Obstacle) -> Self {
        let herd_sandbox::Obstacle { step, errno, reason, remedy } = obstacle.clone();
        Self { step, errno, reason, remedy }
    }
}

impl Obstacle {
    /// At which step, with which error and why, without what to do.
    pub(crate) fn why(&self) -> impl Display {
        fmt::from_fn(|f| {
            write!(f, "step '{}' fails", self.step)?;
            if let Some(errno) = self.errno {
                write!(f, " with {}", io::Error::from_raw_os_error(errno))?;
            }
            write!(f, ": {}", self.reason)
        })
    }
}

impl Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}; {}", self.layer, self.obstacle.why(), self.obstacle.remedy)
    }
}

/// The same with one entry for each obstacle, under the names of all layers that it takes away.
pub(crate) fn grouped<'a>(missing: impl IntoIterator<Item = &'a Missing>) -> Vec<Missing> {
    let mut groups: Vec<Missing> = Vec::new();
    for Missing { layer, obstacle } in missing {
        match groups.iter_mut().find(|group| group.obstacle == *obstacle) {
            Some(group) => group.layer = format!("{}, {layer}", group.layer),
            None => groups.push(Missing { layer: layer.clone(), obstacle: obstacle.clone() }),
        }
    }
    groups
}

impl Isolation {
    /// What the factory's workers get.
    pub(crate) fn of(factory: &Factory, mode: SandboxMode) -> Self {
        let missing = |missing: &herd_sandbox::Missing| {
            let layer = missing.layer.name().to_owned();
            Missing { layer, obstacle: Obstacle::from(&missing.obstacle) }
        };
        let missing = factory.missing().iter().map(missing).collect();
        Self { mode, layers: factory.layers().to_vec(), missing, limits: factory.limits() }
    }

    /// The layers that were asked for and are not there. A limit that was asked for is kept or refused, so without
    /// cgroups nothing is missing.
    pub(crate) fn absent(&self) -> impl Iterator<Item = &Missing> {
        self.missing.iter().filter(|missing| missing.layer != Layer::Cgroup.name())
    }

    /// The mode in the configuration's words.
    pub(crate) fn mode(&self) -> &'static str {
        match self.mode {
            SandboxMode::Off => "off",
            SandboxMode::BestEffort => "best-effort",
            SandboxMode::Required => "required",
        }
    }
}

impl Display for Isolation {
    /// One line on what is on, what is not, and how to get the rest.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.mode == SandboxMode::Off {
            return write!(f, "off, as asked for; on all the same: {ALWAYS}");
        }
        write!(f, "{}; on: ", self.mode())?;
        for layer in &self.layers {
            write!(f, "{layer}, ")?;
        }
        f.write_str(ALWAYS)?;
        let missing: Vec<_> = self.absent().map(|missing| missing.layer.as_str()).collect();
        if !missing.is_empty() {
            write!(f, "; missing: {} (`herd doctor` says why, and what to do)", missing.join(", "))?;
        }
        Ok(())
    }
}

/// A place of herd's own, what workers would see there, and where it was written.
struct OwnPlace {
    path: PathBuf,
    what: &'static str,
    origin: Origin,
}

/// Keeps from workers what is herd's: hides the configuration where they would see it, and refuses to show them the rest,
/// by whatever name.
///
/// # Errors
/// Every path that would show it.
pub(crate) fn guard(settings: &mut Settings) -> Result<(), Mistakes> {
    let own = own_places(settings);
    let mut mistakes = Mistakes { file: settings.file.clone(), all: Vec::new() };
    for pool in settings.pools.iter_mut().filter(|pool| pool.sandbox.mode != SandboxMode::Off) {
        guard_pool(pool, &own, &mut mistakes);
    }
    mistakes.sort();
    if mistakes.is_empty() { Ok(()) } else { Err(mistakes) }
}

fn guard_pool(settings: &mut Pool, own: &[OwnPlace], mistakes: &mut Mistakes) {
    let files = shown(settings);
    let raw = &settings.raw;
    let lists = [&raw.sandbox.read_only, &raw.sandbox.writable].into_iter().flatten().flat_map(|list| &list.value);
    let listed = lists.map(|path| (path.value.as_path(), &path.origin));
    let cwd = raw.worker.cwd.iter().filter_map(|cwd| Some((cwd.value.as_deref()?, &cwd.origin)));
    let listed: Vec<_> = listed.chain(cwd).collect();
    let before = mistakes.all.len();
    let mut refuse = |origin: &Origin, path: &Path, problem: String, remedy: &str| {
        let mistake = Mistake::new(origin.clone(), problem, remedy);
        mistakes.push(mistake.found(path.display().to_string()).unavailable());
    };
    for (path, origin) in &listed {
        let shows = |own: &&OwnPlace| files.sights(&own.path).iter().any(|sight| sight.source == *path);
        if let Some(own) = own.iter().find(shows) {
            refuse(origin, path, format!("would show workers {}", own.what), "name something narrower");
        }
    }
    for OwnPlace { path, what, origin } in own {
        if let Some(sight) = files.sights(path).iter().find(|sight| sight.system) {
            let problem = format!("lies in {}, which every worker sees, with {what}", sight.source.display());
            refuse(origin, path, problem, "choose a place elsewhere");
        }
    }
    // It may hold what is not the workers' to know, and may lie where they see it, beside their program for example.
    let configuration = settings.file.as_ref().and_then(|file| fs::canonicalize(file).ok());
    let configuration = configuration.filter(|file| file.is_file());
    let sights = configuration.as_deref().map_or_else(Vec::new, |file| files.sights(file));
    for sight in sights.iter().filter(|sight| sight.writable) {
        if let Some((path, origin)) = listed.iter().find(|(path, _)| *path == sight.source) {
            let problem = "holds herd's configuration, which one worker could move to where others see it".to_owned();
            refuse(origin, path, problem, "keep that elsewhere, or name something narrower");
        }
    }
    if mistakes.all.len() == before && !sights.is_empty() {
        settings.sandbox.hidden.extend(configuration);
    }
}

/// What workers are shown of the host.
fn shown(settings: &Pool) -> Files {
    let mut files = Files::default();
    files.read_only.clone_from(&settings.sandbox.read_only);
    files.writable.clone_from(&settings.sandbox.writable);
    // One that depends on the worker is looked at when there is one.
    files.read_only.extend(settings.worker.cwd.clone().filter(|cwd| !cwd.to_string_lossy().contains("{{")));
    files
}

/// Where the daemon keeps what no worker may see.
fn own_places(settings: &Settings) -> Vec<OwnPlace> {
    let written = &settings.raw.network.control_socket;
    let runtime = Origin::flag(if env::var_os("XDG_RUNTIME_DIR").is_some() { "XDG_RUNTIME_DIR" } else { "TMPDIR" });
    let control = OwnPlace {
        path: settings.network.control_socket.clone().unwrap_or_else(control::directory),
        what: "herd's control socket",
        origin: written.as_ref().map_or_else(|| runtime.clone(), |socket| socket.origin.clone()),
    };
    let state = OwnPlace { path: workers::state_directory(), what: "the workspaces of other workers", origin: runtime };
    let kept = settings.pools.iter().filter_map(|pool| {
        let path = workers::kept_workspaces(pool)?;
        let raw = &pool.raw;
        let written = raw.sandbox.workspace_dir.as_ref().map(|directory| &directory.origin);
        let origin = written.or(raw.sandbox.workspace.as_ref().map(|workspace| &workspace.origin)).cloned();
        let origin = origin.unwrap_or_else(|| Origin::flag("sandbox.workspace_dir"));
        Some(OwnPlace { path, what: "the workspaces of all sessions", origin })
    });
    [control, state].into_iter().chain(kept).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn missing(layer: Layer, reason: &str) -> Missing {
        let (reason, remedy) = (reason.to_owned(), "do something".to_owned());
        let obstacle = Obstacle { step: "birth".to_owned(), errno: None, reason, remedy };
        Missing { layer: layer.name().to_owned(), obstacle }
    }

    #[test]
    fn layers_that_one_obstacle_takes_away_are_named_in_one_line() {
        let all = [
            missing(Layer::UserNamespace, "there are too many"),
            missing(Layer::Landlock, "the kernel is old"),
            missing(Layer::Files, "there are too many"),
        ];
        let told: Vec<_> = grouped(&all).iter().map(ToString::to_string).collect();
        assert_eq!(
            told,
            [
                "user namespace, own root: step 'birth' fails: there are too many; do something",
                "Landlock: step 'birth' fails: the kernel is old; do something",
            ]
        );
    }

    #[test]
    fn cgroups_that_nobody_asked_for_are_not_called_missing() {
        let wish = |missing| {
            let limits = crate::workers::factory(&off().pools[0]).unwrap().limits();
            Isolation { mode: SandboxMode::Required, layers: vec![Layer::Seccomp], missing, limits }.to_string()
        };
        let told = wish(vec![missing(Layer::Cgroup, "cgroup v1")]);
        assert!(told.starts_with("required; on: seccomp, ") && !told.contains("missing"), "{told}");
        let told = wish(vec![missing(Layer::Cgroup, "cgroup v1"), missing(Layer::Landlock, "old")]);
        assert!(told.contains("; missing: Landlock (`herd doctor`"), "{told}");
    }

    /// What this host offers cannot be tried here: init needs the first call in `main`.
    fn off() -> Settings {
        let mut settings = crate::config::settle(Default::default(), Mistakes::default()).unwrap();
        settings.pools[0].sandbox.mode = SandboxMode::Off;
        settings
    }
}
