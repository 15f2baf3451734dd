//! What workers get of the sandbox on this host, and what they must never see of herd.
//!
//! The rule: what an operator wrote is done or refused, never skipped in silence. With `required` that is every layer;
//! with `best-effort` it is every limit, and a missing layer is named once at start and in `herd ps`.

use std::{
    fmt::{self, Display},
    fs, io,
    path::{Path, PathBuf},
};

use herd_sandbox::Layer;
use serde::{Deserialize, Serialize};

use crate::{
    config::{Mistakes, Settings, mistake::Mistake, sandbox::SYSTEM, settings::SandboxMode},
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
    /// Those that are wanted and cannot be had.
    pub(crate) missing: Vec<Missing>,
}

/// A layer that cannot be had.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) struct Missing {
    /// Its name in lists.
    pub(crate) layer: String,
    #[serde(flatten)]
    pub(crate) obstacle: Obstacle,
}

/// Why, and what to do about it.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
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

impl Isolation {
    /// What the factory's workers get.
    pub(crate) fn of(factory: &Factory, mode: SandboxMode) -> Self {
        let missing = |missing: &herd_sandbox::Missing| {
            let layer = missing.layer.name().to_owned();
            Missing { layer, obstacle: Obstacle::from(&missing.obstacle) }
        };
        Self { mode, layers: factory.layers().to_vec(), missing: factory.missing().iter().map(missing).collect() }
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
        if !self.missing.is_empty() {
            let missing: Vec<_> = self.missing.iter().map(|missing| missing.layer.as_str()).collect();
            write!(f, "; missing: {} (`herd doctor` says why, and what to do)", missing.join(", "))?;
        }
        Ok(())
    }
}

/// Keeps from workers what is herd's: hides the configuration where they would see it, and refuses to show them the rest.
///
/// # Errors
/// Every path that would show it.
pub(crate) fn guard(settings: &mut Settings) -> Result<(), Mistakes> {
    if settings.sandbox.mode == SandboxMode::Off {
        return Ok(());
    }
    let own = own_directories(settings);
    let raw = &settings.written.raw;
    let lists = [&raw.sandbox.read_only, &raw.sandbox.writable].into_iter().flatten().flat_map(|list| &list.value);
    let listed = lists.map(|path| (path.value.as_path(), &path.origin));
    let cwd = raw.worker.cwd.iter().filter_map(|cwd| Some((cwd.value.as_deref()?, &cwd.origin)));
    let mut mistakes = Mistakes { file: settings.written.file.clone(), all: Vec::new() };
    for (path, origin) in listed.chain(cwd) {
        if let Some((_, what)) = own.iter().find(|(own, _)| covers(path, own)) {
            let mistake = Mistake::new(origin.clone(), format!("would show workers {what}"), "name something narrower");
            mistakes.push(mistake.found(path.display().to_string()).unavailable());
        }
    }
    if !mistakes.is_empty() {
        mistakes.sort();
        return Err(mistakes);
    }
    let visible: Vec<_> = own.into_iter().map(|(own, _)| own).filter(|own| is_visible(own, settings)).collect();
    settings.sandbox.hidden.extend(visible);
    hide_configuration(settings);
    Ok(())
}

/// The configuration may hold what is not the workers' to know, and may lie where they see it, beside their program for
/// example.
fn hide_configuration(settings: &mut Settings) {
    let Some(file) = settings.written.file.as_ref().and_then(|file| fs::canonicalize(file).ok()) else { return };
    if file.is_file() && is_visible(&file, settings) {
        settings.sandbox.hidden.push(file);
    }
}

/// Whether a worker sees this path, unless it is hidden.
fn is_visible(path: &Path, settings: &Settings) -> bool {
    let sandbox = &settings.sandbox;
    let shown = sandbox.read_only.iter().chain(&sandbox.writable).chain(&settings.worker.cwd).map(PathBuf::as_path);
    shown.chain(SYSTEM.map(Path::new)).any(|shown| covers(shown, path))
}

/// Whether who sees `shown` sees `own`, by whatever name.
fn covers(shown: &Path, own: &Path) -> bool {
    let real = |path: &Path| fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    own.starts_with(shown) || real(own).starts_with(real(shown))
}

/// Where the daemon keeps what no worker may see.
fn own_directories(settings: &Settings) -> [(PathBuf, &'static str); 2] {
    let control = settings.network.control_socket.clone().unwrap_or_else(control::directory);
    [(control, "herd's control socket"), (workers::state_directory(), "the workspaces of other workers")]
}
