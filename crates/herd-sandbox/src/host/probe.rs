//! Finds out what this host can give: facts are read, and everything that can only be tried is tried, by an init that
//! does every step of a plan and then executes nothing.

use std::{
    env, fs, io,
    path::{Path, PathBuf},
    sync::{Mutex, OnceLock, PoisonError},
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, poll},
    fs::{Access, AtFlags, CWD, accessat},
    process::{getegid, geteuid},
    system::uname,
    thread::{CapabilitySet, capabilities},
};

use super::{Host, Layer, Obstacle, remedy};
use crate::{
    Failure, Identity, Isolation, LaunchError, Mode, Network, Plan, Report, Spec, entry, landlock, launch,
    plan::layer_of,
};

/// How long one rehearsal may take. It takes some ten milliseconds; the rest is for a machine under heavy load.
const PATIENCE: Duration = Duration::from_secs(30);

/// By which a program makes a network interface of its own, see the kernel's networking/tuntap.rst.
const TUN: &str = "/dev/net/tun";

/// The user of a rehearsal, by which root's own are not touched: `nobody`.
const NOBODY: Identity = Identity { uid: 65534, gid: 65534 };

/// What root needs to build a sandbox. A container's root often lacks the first.
const NEEDED: CapabilitySet = CapabilitySet::SYS_ADMIN
    .union(CapabilitySet::SETUID)
    .union(CapabilitySet::SETGID)
    .union(CapabilitySet::SETPCAP)
    .union(CapabilitySet::KILL)
    .union(CapabilitySet::NET_ADMIN);

impl Host {
    /// What this host offers to this process. Found out by the first call and remembered: it takes some ten
    /// milliseconds, and as many more for each layer that cannot be had.
    ///
    /// # Errors
    /// [`LaunchError`] if no init can be started at all, because this program never called
    /// [`enter_init`](crate::enter_init), for example.
    pub fn current() -> Result<&'static Self, LaunchError> {
        if !entry::was_called() {
            return Err(LaunchError::EnterInitMissing);
        }
        Self::current_with(&launch::own_program().map_err(LaunchError::Copy)?)
    }

    /// Like [`current`](Self::current), with this program as init.
    ///
    /// # Errors
    /// [`LaunchError`] if it cannot be started as init.
    pub fn current_with(program: &Path) -> Result<&'static Self, LaunchError> {
        static CURRENT: OnceLock<Host> = OnceLock::new();
        static PROBING: Mutex<()> = Mutex::new(());
        if let Some(host) = CURRENT.get() {
            return Ok(host);
        }
        // Many workers may be the first one at once.
        let _probing = PROBING.lock().unwrap_or_else(PoisonError::into_inner);
        match CURRENT.get() {
            Some(host) => Ok(host),
            None => {
                let host = Self::probe(program)?;
                Ok(CURRENT.get_or_init(|| host))
            }
        }
    }

    fn probe(program: &Path) -> Result<Self, LaunchError> {
        let mut host = Self::facts();
        // Each try finds at most one obstacle, and no layer has more than one.
        for _ in 0..=Layer::ALL.len() {
            let Some(failure) = rehearse(&host, program)? else { return Ok(host) };
            let Some(layer) = layer_of(&failure.step) else {
                return Err(LaunchError::Rehearsal(failure));
            };
            let layer = remedy::culprit(layer, &failure, &host);
            let obstacle = remedy::obstacle(layer, &failure);
            if host.obstacles.insert(layer, obstacle).is_some() {
                return Err(LaunchError::Rehearsal(failure));
            }
        }
        Ok(host)
    }

    /// What can be told without trying.
    fn facts() -> Self {
        let mut host = Self::unknown();
        host.landlock = landlock::version();
        let missing = remedy::kernel(host.kernel);
        host.obstacles.extend(missing);
        if host.uid == 0 {
            host.obstacles.extend(remedy::lone_root(&uid_map()).or_else(|| remedy::weak_root(lacking())));
        }
        host.pasta = pasta();
        host.obstacles.extend(remedy::egress(host.pasta.as_deref(), fs::exists(TUN).unwrap_or(false)));
        host
    }

    /// A host of which nothing is known but who asks.
    pub(crate) fn unknown() -> Self {
        let is_root = geteuid().is_root() && lacking().is_empty();
        Self {
            kernel: kernel(),
            uid: geteuid().as_raw(),
            gid: getegid().as_raw(),
            root: is_root,
            landlock: 0,
            pasta: None,
            obstacles: Default::default(),
        }
    }
}

/// Whether this process can give each worker a user of its own, so that no worker runs as this process's user.
pub(crate) fn has_users() -> bool {
    geteuid().is_root() && lacking().is_empty() && remedy::lone_root(&uid_map()).is_none()
}

/// Which of the capabilities that root needs this process lacks.
fn lacking() -> CapabilitySet {
    NEEDED.difference(capabilities(None).map_or(CapabilitySet::empty(), |sets| sets.effective))
}

fn uid_map() -> String {
    fs::read_to_string("/proc/self/uid_map").unwrap_or_default()
}

/// The first program of that name in this process's `PATH`, and where distributions put it.
fn pasta() -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let is_program = |file: &PathBuf| {
        file.is_absolute() && file.is_file() && accessat(CWD, file, Access::EXEC_OK, AtFlags::EACCESS).is_ok()
    };
    let directories = env::split_paths(&path).chain(["/usr/bin".into(), "/usr/local/bin".into()]);
    directories.map(|directory| directory.join("pasta")).find(is_program)
}

fn kernel() -> (u32, u32) {
    let name = uname();
    let release = name.release().to_string_lossy().into_owned();
    let mut numbers = release.split(['.', '-', '+']).map(|number| number.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

/// Does every step of the plan for this host, and tells what failed.
fn rehearse(host: &Host, program: &Path) -> Result<Option<Failure>, LaunchError> {
    let mut spec = Spec::new("rehearsal");
    spec.isolation = Isolation::new(Mode::BestEffort);
    // As far as that goes without somebody outside.
    spec.isolation.network = Network::Egress;
    spec.isolation.identity = host.root.then_some(NOBODY);
    let plan = Plan::new(&spec, host)?.rehearsal();
    let init = launch::carry_out(&plan, spec, program)?;
    let deadline = Instant::now() + PATIENCE;
    let mut failure = None;
    loop {
        match init.recv() {
            Ok(Some(Report::Failed(failed))) => failure = Some(failed),
            Ok(Some(_)) => {}
            Ok(None) => break,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                let Some(left) = deadline.checked_duration_since(Instant::now()) else {
                    return Err(LaunchError::Rehearsal(Failure {
                        step: "rehearsal".to_owned(),
                        errno: None,
                        hint: format!("it did not end within {PATIENCE:?}"),
                    }));
                };
                // An interrupted wait is followed by another look.
                let _ = poll(&mut [PollFd::new(&init, PollFlags::IN)], left.try_into().ok().as_ref());
            }
            Err(error) => return Err(LaunchError::Send(error)),
        }
    }
    Ok(failure)
}

impl Obstacle {
    /// For what was read and not tried.
    pub(super) fn known(step: &str, reason: String, remedy: &str) -> Self {
        Self { step: step.to_owned(), errno: None, reason, remedy: remedy.to_owned() }
    }
}
