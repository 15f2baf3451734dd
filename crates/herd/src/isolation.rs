//! What isolation this version gives, what was asked for, and what becomes of the difference.
//!
//! The rule: what an operator wrote is done or refused, never skipped in silence. Defaults that cannot be had are named
//! in one line at start.

use crate::config::{
    mistake::{Mistake, Origin},
    raw::{RawResources, RawSandbox},
    settings::{NetworkMode, SandboxMode, Seccomp},
};

/// What `sandbox.mode` means where nobody wrote it.
pub(crate) const DEFAULT_MODE: SandboxMode = SandboxMode::BestEffort;

/// What every worker gets, whatever the mode: none of it needs a privilege.
const LAYERS: &str =
    "own session and process group, closed descriptors, clean environment, rlimits, no_new_privs, child subreaper";

/// What the whole sandbox has beyond that.
const MISSING: &str = "namespaces, private network, read-only root, seccomp, Landlock, cgroup limits";

/// What was decided about the sandbox.
#[derive(Clone, Debug)]
pub(crate) struct Isolation {
    pub(crate) mode: SandboxMode,
    /// What was asked for and cannot be had.
    pub(crate) mistakes: Vec<Mistake>,
    /// What was asked for and is skipped because the mode is `off`.
    pub(crate) skipped: Vec<String>,
}

/// Compares what was asked for with what this version can do.
pub(crate) fn judge(resources: &RawResources, sandbox: &RawSandbox) -> Isolation {
    let mut mistakes = Vec::new();
    let insecure = resources.insecure_sandbox.as_ref().filter(|insecure| insecure.value);
    let mode = match (&sandbox.mode, insecure) {
        (Some(mode), Some(insecure)) if mode.value != SandboxMode::Off => {
            let problem = format!("contradicts `{}`, which wants a sandbox", mode.origin.name);
            mistakes.push(Mistake::new(insecure.origin.clone(), problem, "keep one of the two"));
            mode.value
        }
        (Some(mode), _) => mode.value,
        (None, Some(_)) => SandboxMode::Off,
        (None, None) => DEFAULT_MODE,
    };
    if let Some(mode) = sandbox.mode.as_ref().filter(|mode| mode.value == SandboxMode::Required) {
        let problem = format!("cannot be had: this version has no {MISSING}");
        let remedy = "write best-effort to run without these, or off";
        mistakes.push(Mistake::new(mode.origin.clone(), problem, remedy).found("required").unavailable());
    }
    let mut skipped = Vec::new();
    for (origin, what) in wishes(resources, sandbox) {
        if mode == SandboxMode::Off {
            skipped.push(format!("{}: {what} is skipped because the sandbox is off", origin.name));
        } else {
            let problem = format!("asks for {what}, which this version cannot give");
            let off = if origin.position.is_some() { "sandbox.mode: off" } else { "--sandbox off" };
            let remedy = format!("leave it out, or write `{off}` to have it skipped");
            mistakes.push(Mistake::new(origin, problem, remedy).unavailable());
        }
    }
    Isolation { mode, mistakes, skipped }
}

/// One line on what is on, what is not, and how to get the rest.
pub(crate) fn summary(mode: SandboxMode) -> String {
    match mode {
        SandboxMode::Off => format!("off, as asked for; on all the same: {LAYERS}"),
        SandboxMode::BestEffort | SandboxMode::Required => format!(
            "best-effort; on: {LAYERS}; not in this version: {MISSING} (to have these, run herd in a \
             container or virtual machine)"
        ),
    }
}

/// Everything that was written and needs a layer that is missing.
fn wishes(resources: &RawResources, sandbox: &RawSandbox) -> Vec<(Origin, &'static str)> {
    let mut wishes = Vec::new();
    let mut wish = |origin: Option<&Origin>, what| wishes.extend(origin.map(|origin| (origin.clone(), what)));
    wish(resources.memory_limit.as_ref().filter(|w| w.value > 0).map(|w| &w.origin), "a memory limit");
    wish(resources.cpu_limit_cores.as_ref().filter(|w| w.value > 0.0).map(|w| &w.origin), "a CPU limit");
    wish(resources.pids_limit.as_ref().filter(|w| w.value.is_some()).map(|w| &w.origin), "a limit of processes");
    wish(resources.tmp_limit_mb.as_ref().map(|w| &w.origin), "a private /tmp");
    wish(resources.shm_limit_mb.as_ref().map(|w| &w.origin), "a private /dev/shm");
    let private = sandbox.network.as_ref().filter(|w| w.value == NetworkMode::Private);
    wish(private.map(|w| &w.origin), "a private network");
    wish(sandbox.read_only.as_ref().filter(|w| !w.value.is_empty()).map(|w| &w.origin), "read-only paths");
    wish(sandbox.writable.as_ref().filter(|w| !w.value.is_empty()).map(|w| &w.origin), "writable paths");
    wish(sandbox.hidden.as_ref().filter(|w| !w.value.is_empty()).map(|w| &w.origin), "hidden paths");
    let filter = sandbox.seccomp.as_ref().filter(|w| w.value == Seccomp::Default);
    wish(filter.map(|w| &w.origin), "a seccomp filter");
    wishes
}
