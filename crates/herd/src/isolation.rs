//! What workers get of the sandbox on this host, and what they must never see of herd.
//!
//! The rule: what an operator wrote is done or refused, never skipped in silence. With `required` that is every layer;
//! with `best-effort` it is every limit, and a missing layer is named once at start and in `herd ps`.

use std::{
    env,
    ffi::OsStr,
    fmt::{self, Display},
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf, absolute},
};

use herd_process::{Limits, path_in};
use herd_sandbox::{Files, Layer, real_path};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    config::{
        self, Mistakes, Settings,
        mistake::{Mistake, Origin, Written},
        settings::{Command, Pool, SandboxMode},
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

    /// What to say if nothing keeps workers from the files that are herd's alone, although a sandbox was asked for.
    pub(crate) fn unsealed(&self, settings: &Pool) -> Option<String> {
        let seals = [Layer::Files, Layer::Landlock, Layer::Identity];
        let is_sealed = self.mode == SandboxMode::Off || seals.iter().any(|layer| self.layers.contains(layer));
        (!is_sealed && !settings.secrets.is_empty()).then(|| {
            format!(
                "on this host workers run as herd's own user and see all of its files, and can read what is herd's alone: \
                 {}; see `herd doctor` for what is missing",
                settings.secrets.join(", ")
            )
        })
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

/// A file of herd's own that no worker may read, or put another one in the place of.
struct Secret {
    /// Without symbolic links.
    real: PathBuf,
    /// Where its name stands, which may be a symbolic link to it.
    name: PathBuf,
    origin: Origin,
    kind: SecretKind,
}

#[derive(Clone, Copy, Eq, PartialEq)]
enum SecretKind {
    /// It holds a key or a token.
    Key,
    /// Its content is a value of the configuration.
    Filled,
    Configuration,
}

impl Secret {
    /// `None` if it is no file: nothing is there to hide, and whoever needs it says so.
    fn find(path: &Path, origin: Origin, kind: SecretKind) -> Option<Self> {
        let real = fs::canonicalize(path).ok().filter(|real| real.is_file())?;
        let name = match (path.parent(), path.file_name()) {
            (Some(directory), Some(name)) => real_path(directory).join(name),
            _ => real.clone(),
        };
        Some(Self { real, name, origin, kind })
    }

    /// What it is called in sentences.
    fn what(&self) -> String {
        match self.kind {
            SecretKind::Key => format!("what `{}` names", self.origin.name),
            SecretKind::Filled => format!("a file whose content `{}` is filled with", self.origin.name),
            SecretKind::Configuration => "herd's configuration".to_owned(),
        }
    }

    /// Whether the path leads to it, by whatever name, or is another name of it in the file system.
    fn is(&self, path: &Path) -> bool {
        let (Ok(own), Ok(other)) = (fs::metadata(&self.real), fs::metadata(path)) else { return false };
        (own.dev(), own.ino()) == (other.dev(), other.ino())
    }
}

/// Keeps from workers what is herd's: hides its files where they would see them, and refuses to show them the rest, by
/// whatever name.
///
/// # Errors
/// Every path that would show it.
pub(crate) fn guard(settings: &mut Settings) -> Result<(), Mistakes> {
    let own = own_places(settings);
    let secrets = secrets(settings);
    let mut mistakes = Mistakes { file: settings.file.clone(), all: Vec::new() };
    for pool in settings.pools.iter_mut().filter(|pool| pool.sandbox.mode != SandboxMode::Off) {
        guard_pool(pool, &own, &mut mistakes);
        for secret in &secrets {
            settings.warnings.extend(guard_secret(pool, secret, &mut mistakes));
        }
    }
    mistakes.sort();
    if mistakes.is_empty() { Ok(()) } else { Err(mistakes) }
}

/// Every file that is herd's alone. The configuration may hold what is not the workers' to know, and may lie where they
/// see it, beside their program for example.
fn secrets(settings: &Settings) -> Vec<Secret> {
    let keys = config::secrets(&settings.raw).into_iter();
    let keys = keys.filter_map(|(path, origin)| Secret::find(path, origin.clone(), SecretKind::Key));
    let filled = settings.raw.filled.iter();
    let filled = filled.filter_map(|file| Secret::find(&file.value, file.origin.clone(), SecretKind::Filled));
    let file = settings.file.as_deref().and_then(|file| {
        let path = absolute(file).ok()?;
        Secret::find(&path, Origin::flag("the configuration"), SecretKind::Configuration)
    });
    keys.chain(filled).chain(file).collect()
}

fn guard_pool(settings: &Pool, own: &[OwnPlace], mistakes: &mut Mistakes) {
    let files = shown(settings);
    for (path, origin) in listed(settings) {
        let shows = |own: &&OwnPlace| files.sights(&own.path).iter().any(|sight| sight.source == *path);
        if let Some(own) = own.iter().find(shows) {
            refuse(&origin, path, format!("would show workers {}", own.what), "name something narrower", mistakes);
        }
    }
    for OwnPlace { path, what, origin } in own {
        if let Some(sight) = files.sights(path).iter().find(|sight| sight.system) {
            let problem = format!("lies in {}, which every worker sees, with {what}", sight.source.display());
            refuse(origin, path, problem, "choose a place elsewhere", mistakes);
        }
    }
}

/// Hides the file where workers would see it, and answers with what hiding it does not do. Refuses what would show it all
/// the same, or let a worker put another file in its place.
fn guard_secret(settings: &mut Pool, secret: &Secret, mistakes: &mut Mistakes) -> Option<Mistake> {
    let files = shown(settings);
    let before = mistakes.all.len();
    let sights = files.sights(&secret.real);
    let named = files.sights(&secret.name);
    for (path, origin) in listed(settings) {
        let is_seen = sights.iter().any(|sight| sight.source == path) || secret.is(path);
        let is_writable = sights.iter().chain(&named).any(|sight| sight.writable && sight.source == path);
        if is_seen && secret.kind == SecretKind::Key {
            mistakes.push(config::shows(&origin, path, &secret.origin).unavailable());
        } else if is_writable {
            let problem = format!("holds {}, which one worker could move to where others see it", secret.what());
            let remedy = "keep that elsewhere, or name something narrower";
            refuse(&origin, path, problem, remedy, mistakes);
        } else if secret.is(path) {
            let problem = format!("is {}, which no worker may see", secret.what());
            refuse(&origin, path, problem, "leave it out", mistakes);
        }
    }
    for (word, origin) in words(settings) {
        let path = path_in(word);
        let path = settings.worker.cwd.as_deref().map_or_else(|| path.to_owned(), |cwd| cwd.join(path));
        if path.is_absolute() && secret.is(&path) {
            let problem = format!("names {}, which no worker may see", secret.what());
            let mistake = Mistake::new(origin, problem, "give workers a file of their own");
            mistakes.push(mistake.found(word.to_string_lossy()).unavailable());
        }
    }
    let is_seen = !sights.is_empty() || surroundings(settings).iter().any(|path| secret.real.starts_with(path));
    if mistakes.all.len() > before || !is_seen || settings.sandbox.hidden.contains(&secret.real) {
        return None;
    }
    settings.sandbox.hidden.push(secret.real.clone());
    // What cannot be hidden is told with its place.
    let written = settings
        .raw
        .sandbox
        .hidden
        .get_or_insert_with(|| Written { value: Vec::new(), origin: Origin::flag("sandbox.hidden") });
    written.value.push(Written { value: secret.real.clone(), origin: secret.origin.clone() });
    let is_closed = CLOSED.iter().any(|directory| secret.real.starts_with(directory));
    (secret.kind == SecretKind::Key && !is_closed).then(|| {
        let problem = format!(
            "{} is hidden from workers, and lies where they see its directory: a file that is renamed to its name is \
             visible to workers that run by then",
            secret.real.display()
        );
        Mistake::warning(secret.origin.clone(), problem, "keep it where workers see nothing, such as /etc/herd")
    })
}

/// Directories in places of the system that no worker sees anything of.
const CLOSED: [&str; 3] = ["/etc/pki/CA/private", "/etc/pki/tls/private", "/etc/ssl/private"];

fn refuse(origin: &Origin, path: &Path, problem: String, remedy: &str, mistakes: &mut Mistakes) {
    let mistake = Mistake::new(origin.clone(), problem, remedy);
    mistakes.push(mistake.found(path.display().to_string()).unavailable());
}

/// What the operator shows workers, and where it is written.
fn listed(settings: &Pool) -> Vec<(&Path, Origin)> {
    let raw = &settings.raw;
    let lists = [&raw.sandbox.read_only, &raw.sandbox.writable].into_iter().flatten().flat_map(|list| &list.value);
    let listed = lists.map(|path| (path.value.as_path(), path.origin.clone()));
    let cwd = raw.worker.cwd.iter().filter_map(|cwd| Some((cwd.value.as_deref()?, cwd.origin.clone())));
    listed.chain(cwd).collect()
}

/// The words of the command, and where they are written.
fn words(settings: &Pool) -> Vec<(&OsStr, Origin)> {
    let words = settings.raw.worker.command.iter().flat_map(|command| &command.value);
    words.map(|word| (word.value.as_os_str(), word.origin.clone())).collect()
}

/// Where workers may see more than is listed: what belongs to their program, and working directories that depend on the
/// worker.
fn surroundings(settings: &Pool) -> Vec<PathBuf> {
    let mut found = Vec::new();
    if let Command::Program { program, .. } = &settings.worker.command {
        let paths = env::var_os("PATH").unwrap_or_default();
        let in_path = env::split_paths(&paths).map(|directory| directory.join(program));
        for file in in_path.chain(absolute(program)).filter(|file| file.is_absolute() && file.is_file()) {
            // What a program in `PREFIX/bin` needs lies in `PREFIX`, see herd-process.
            for name in [&file, &real_path(&file)] {
                let prefix = name.parent().filter(|directory| directory.ends_with("bin")).and_then(Path::parent);
                found.extend(prefix.map(real_path));
            }
        }
    }
    if let Some(cwd) = settings.worker.cwd.as_deref().filter(|cwd| cwd.is_absolute() && has_template(cwd)) {
        let fixed = cwd.ancestors().find(|above| !has_template(above));
        found.extend(fixed.map(real_path));
    }
    // The whole host is nothing that belongs to a program.
    found.retain(|path| path.parent().is_some());
    found
}

fn has_template(path: &Path) -> bool {
    path.as_os_str().as_encoded_bytes().windows(2).any(|pair| pair == b"{{")
}

/// What workers are shown of the host.
fn shown(settings: &Pool) -> Files {
    let mut files = Files::default();
    files.read_only.clone_from(&settings.sandbox.read_only);
    files.writable.clone_from(&settings.sandbox.writable);
    // One that depends on the worker is looked at when there is one.
    files.read_only.extend(settings.worker.cwd.clone().filter(|cwd| !has_template(cwd)));
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
