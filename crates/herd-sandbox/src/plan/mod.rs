//! What is done between the spawn of init and the worker's program, in order, as pure data.
//!
//! This module is the one place that decides the order; [`step`] says of each step who does it and why.

mod encoding;
mod execution;
mod files;
mod sight;
mod step;

use std::{
    ffi::{CString, OsStr},
    fmt,
    os::unix::ffi::OsStrExt,
    path::PathBuf,
};

pub(crate) use self::{
    execution::Blueprint,
    step::{Access, Step, Text, layer_of},
};
pub use self::{
    sight::{Sight, real_path},
    step::Place,
};
use crate::{
    Host, Identity, Layer, Mode, Network, Obstacle, Reach, Seccomp, Spec, SpecError,
    codec::{Decoder, Encoder, Malformed},
    landlock,
};

/// The steps from a fresh init to the worker's program, and what they leave out.
///
/// Made from what is wanted ([`Spec`]) and what can be had ([`Host`]) and nothing else: the same two give the same plan.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Plan<'a> {
    pub(crate) steps: Vec<Step<'a>>,
    missing: Vec<Missing>,
}

/// A layer that was wanted and cannot be had.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Missing {
    /// Which.
    pub layer: Layer,
    /// Why, and what to do.
    pub obstacle: Obstacle,
}

/// One step in a person's words.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Explanation {
    /// Who does it.
    pub place: Place,
    /// What it is called, in errors too.
    pub step: &'static str,
    /// The layer that it builds; `None` for what every worker gets.
    pub layer: Option<Layer>,
    /// What exactly it does. Tells nothing of the environment.
    pub detail: String,
    /// Why it is done, and why there.
    pub reason: &'static str,
}

/// There is no plan for this worker on this host.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum PlanError {
    /// The spec asks for something that cannot be.
    #[error(transparent)]
    Spec(#[from] SpecError),
    /// Layers that are required cannot be had. At least one is named.
    #[error("{}", Self::list(.0))]
    Missing(Vec<Missing>),
}

impl PlanError {
    /// One sentence for all; layers that are missing for the same reason are named together.
    pub(crate) fn list(missing: &[Missing]) -> String {
        let mut texts: Vec<String> = Vec::new();
        for (index, Missing { obstacle, .. }) in missing.iter().enumerate() {
            if missing[..index].iter().any(|earlier| earlier.obstacle == *obstacle) {
                continue;
            }
            let layers = missing.iter().filter(|other| other.obstacle == *obstacle);
            let layers: Vec<_> = layers.map(|missing| missing.layer.name()).collect();
            texts.push(format!("{}: {obstacle}", layers.join(", ")));
        }
        format!("the sandbox cannot be had: {}", texts.join("; "))
    }
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.layer, self.obstacle)
    }
}

impl Plan<'static> {
    /// Decides the steps and their order.
    ///
    /// # Errors
    /// [`PlanError::Spec`] if the spec asks for something that cannot be anywhere, [`PlanError::Missing`] if it requires
    /// what cannot be had here.
    pub fn new(spec: &Spec, host: &Host) -> Result<Self, PlanError> {
        spec.validate()?;
        let cwd = match (&spec.cwd, spec.isolation.mode) {
            (Some(cwd), _) => cwd.clone(),
            (None, Mode::Off) => {
                std::env::current_dir().map_err(|error| SpecError::NoDirectory { reason: error.to_string() })?
            }
            (None, _) => PathBuf::from("/"),
        };
        let layers = Layers::new(spec, host);
        if spec.isolation.mode == Mode::Required && !layers.missing.is_empty() {
            return Err(PlanError::Missing(layers.missing));
        }
        let mut steps = Vec::new();
        outer(spec, host, &layers, &mut steps);
        init(spec, host, &layers, &mut steps)?;
        worker(spec, host, &layers, &cwd, &mut steps)?;
        steps.push(Step::Execute {
            program: c_string("the program", &spec.program)?,
            args: spec.args.iter().map(|arg| c_string("an argument", arg)).collect::<Result<_, _>>()?,
            env: spec.env.iter().map(|(name, value)| variable(name, value)).collect::<Result<_, _>>()?,
            listen: listening(spec),
        });
        Ok(Self { steps, missing: layers.missing })
    }

    /// The same without the program: everything is tried and nothing is executed.
    pub(crate) fn rehearsal(mut self) -> Self {
        self.steps.pop();
        // That takes somebody outside.
        self.steps.retain(|step| !matches!(step, Step::Outlet { .. }));
        self.steps.push(Step::Rehearse {});
        self
    }

    /// What the worker is started without, because this host cannot give it.
    #[must_use]
    pub fn missing(&self) -> &[Missing] {
        &self.missing
    }

    /// The layers of the sandbox that it builds, from the outermost.
    #[must_use]
    pub fn layers(&self) -> Vec<Layer> {
        let builds = |step: &Step<'_>, layer| match step {
            Step::Birth { namespaces, cgroup } => namespaces.contains(&layer) || (*cgroup && layer == Layer::Cgroup),
            step => step.layer() == Some(layer),
        };
        Layer::ALL.into_iter().filter(|layer| self.steps.iter().any(|step| builds(step, *layer))).collect()
    }

    /// The steps in their order.
    #[must_use]
    pub fn explain(&self) -> Vec<Explanation> {
        let explain = |step: &Step<'_>| Explanation {
            place: step.place(),
            step: step.name(),
            layer: step.layer(),
            detail: step.detail(),
            reason: step.reason(),
        };
        self.steps.iter().map(explain).collect()
    }
}

impl<'a> Plan<'a> {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Encoder::default();
        out.length(self.steps.len());
        for step in &self.steps {
            step.encode(&mut out);
        }
        out.finish()
    }

    pub(crate) fn decode(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let mut bytes = Decoder::new(bytes);
        let steps = (0..bytes.length()?).map(|_| Step::decode(&mut bytes)).collect::<Result<_, _>>()?;
        bytes.finish()?;
        Ok(Self { steps, missing: Vec::new() })
    }

    /// Whether the worker is sealed off at all.
    pub(crate) fn is_isolated(&self) -> bool {
        self.steps.iter().any(|step| step.layer().is_some())
    }

    /// The steps of one process.
    pub(crate) fn steps_of(&self, place: Place) -> impl Iterator<Item = &Step<'a>> {
        self.steps.iter().filter(move |step| step.place() == place)
    }
}

/// Which layers there will be, and which will be missing.
struct Layers {
    on: Vec<Layer>,
    missing: Vec<Missing>,
}

impl Layers {
    fn new(spec: &Spec, host: &Host) -> Self {
        let mut layers = Self { on: Vec::new(), missing: Vec::new() };
        if spec.isolation.mode == Mode::Off {
            return layers;
        }
        // Without root every namespace needs the user namespace, in which its capabilities are.
        let ground = if host.root { None } else { host.obstacles.get(&Layer::UserNamespace) };
        let processes = ground.or_else(|| host.obstacles.get(&Layer::PidNamespace));
        let files = processes.or_else(|| host.obstacles.get(&Layer::Files));
        // As root, init maps the worker's user through the /proc of the new root.
        layers.want(Layer::UserNamespace, host, if host.root { files } else { ground });
        layers.want(Layer::PidNamespace, host, ground);
        // The new root has a /proc of the PID namespace.
        layers.want(Layer::Files, host, processes);
        for layer in [Layer::Ipc, Layer::HostName, Layer::CgroupNamespace] {
            layers.want(layer, host, ground);
        }
        if spec.isolation.network != Network::Host {
            layers.want(Layer::Network, host, ground);
        }
        if spec.isolation.network == Network::Egress {
            // As root, too: pasta joins the router's network by a user namespace that belongs to another user.
            let ground = host.obstacles.get(&Layer::UserNamespace);
            layers.want(Layer::Egress, host, ground.or_else(|| host.obstacles.get(&Layer::Network)));
        }
        // Without it a worker would be root of the host, whatever it may not do.
        if host.root || host.uid == 0 {
            let nobody = Obstacle {
                step: "own user".to_owned(),
                errno: None,
                reason: "no user is named for a worker that root starts".to_owned(),
                remedy: "give each worker an identity of its own".to_owned(),
            };
            let obstacle = if spec.isolation.identity.is_some() { None } else { Some(&nobody) };
            layers.want(Layer::Identity, host, obstacle);
        }
        if host.root || layers.has(Layer::UserNamespace) {
            layers.want(Layer::Capabilities, host, None);
        }
        if spec.isolation.seccomp != Seccomp::Off {
            layers.want(Layer::Seccomp, host, None);
        }
        // A second wall: only where the first is missing does its own absence count.
        if host.landlock >= landlock::OLDEST {
            layers.want(Layer::Landlock, host, None);
        } else if !layers.has(Layer::Files) {
            layers.want(Layer::Landlock, host, Some(&no_landlock(host)));
        }
        layers
    }

    fn want(&mut self, layer: Layer, host: &Host, other: Option<&Obstacle>) {
        match other.or_else(|| host.obstacles.get(&layer)) {
            Some(obstacle) => self.missing.push(Missing { layer, obstacle: obstacle.clone() }),
            None => self.on.push(layer),
        }
    }

    fn has(&self, layer: Layer) -> bool {
        self.on.contains(&layer)
    }

    /// Those of the namespaces that init is born into.
    fn namespaces(&self) -> Vec<Layer> {
        let born = [Layer::PidNamespace, Layer::Files, Layer::Ipc, Layer::HostName, Layer::Network];
        born.into_iter().filter(|layer| self.has(*layer)).collect()
    }
}

fn no_landlock(host: &Host) -> Obstacle {
    Obstacle {
        step: "Landlock".to_owned(),
        errno: None,
        reason: format!("the kernel offers version {} of Landlock, and {} is needed", host.landlock, landlock::OLDEST),
        remedy: "use Linux 5.19 or newer with Landlock among its security modules (kernel parameter lsm=)".to_owned(),
    }
}

/// Whom the worker runs as, in its own eyes.
fn identity(spec: &Spec, host: &Host, layers: &Layers) -> Identity {
    let own = Identity { uid: host.uid, gid: host.gid };
    spec.isolation.identity.filter(|_| layers.has(Layer::Identity)).unwrap_or(own)
}

fn outer(spec: &Spec, host: &Host, layers: &Layers, steps: &mut Vec<Step<'static>>) {
    if !host.root && layers.has(Layer::UserNamespace) {
        steps.push(Step::UserNamespace { uid: host.uid, gid: host.gid });
    }
    let namespaces = layers.namespaces();
    let cgroup = spec.isolation.cgroup.is_some();
    if !namespaces.is_empty() || cgroup {
        steps.push(Step::Birth { namespaces, cgroup });
    }
}

fn init(spec: &Spec, host: &Host, layers: &Layers, steps: &mut Vec<Step<'static>>) -> Result<(), SpecError> {
    if layers.has(Layer::CgroupNamespace) {
        steps.push(Step::CgroupNamespace {});
    }
    if layers.has(Layer::Network) {
        steps.push(Step::Loopback {});
    }
    if layers.has(Layer::Egress) {
        let egress = &spec.isolation.egress;
        let own = spec.isolation.owner(host);
        let Identity { uid, gid } = own.unwrap_or(Identity { uid: host.uid, gid: host.gid });
        let loopback = egress.allow.contains(&Reach::Loopback);
        let (closed, open) = (egress.closed(), egress.open());
        steps.push(Step::Router { uid, gid, own: own.is_some(), closed, open, loopback });
        steps.push(Step::Outlet {});
    }
    if layers.has(Layer::HostName) {
        steps.push(Step::HostName { name: c_string("the host name", OsStr::new(&spec.isolation.host_name))? });
    }
    if layers.has(Layer::Files) {
        steps.extend(files::steps(spec, identity(spec, host, layers))?);
    }
    Ok(())
}

fn worker(
    spec: &Spec,
    host: &Host,
    layers: &Layers,
    cwd: &std::path::Path,
    steps: &mut Vec<Step<'static>>,
) -> Result<(), SpecError> {
    let Identity { uid, gid } = identity(spec, host, layers);
    if host.root && layers.has(Layer::UserNamespace) {
        steps.push(Step::WorkerUserNamespace { uid, gid });
    }
    steps.push(Step::Session {});
    if layers.has(Layer::PidNamespace) {
        steps.push(Step::Announce {});
    }
    if !spec.listen_ports.is_empty() {
        steps.push(Step::Listen { ports: spec.listen_ports.iter().map(|port| u32::from(*port)).collect() });
    }
    steps.push(Step::Descriptors { listen: listening(spec) });
    steps.extend([Step::Umask { mask: spec.umask }, Step::OpenFiles { number: spec.open_files }]);
    steps.extend(spec.limits.iter().map(|(limit, value)| Step::Limit { limit: *limit, value: *value }));
    if layers.has(Layer::Capabilities) {
        steps.push(Step::BoundingSet {});
    }
    if layers.has(Layer::Identity) {
        steps.push(Step::Identity { uid, gid });
    }
    if spec.isolation.mode != Mode::Off {
        steps.push(Step::Capabilities {});
    }
    steps.extend([Step::ParentDeath {}, Step::Keyring {}, Step::NoNewPrivileges {}]);
    steps.push(Step::Directory { path: c_string("the working directory", cwd.as_os_str())? });
    if layers.has(Layer::Landlock) {
        steps.push(landlock(spec, host, layers)?);
    }
    steps.push(Step::Signals {});
    if layers.has(Layer::Seccomp) {
        steps.push(seccomp(spec));
    }
    Ok(())
}

/// Everything that the worker may see can be read; what is its own can be changed.
fn landlock(spec: &Spec, host: &Host, layers: &Layers) -> Result<Step<'static>, SpecError> {
    let files = &spec.isolation.files;
    let fixed = |paths: &[&str]| paths.iter().map(|path| PathBuf::from(*path)).collect::<Vec<_>>();
    let (read, write) = if layers.has(Layer::Files) {
        let mounts = files.mounts.iter().filter(|mount| mount.writable).map(|mount| mount.target.clone());
        // In /proc a process changes what is its own; the settings of the kernel are read-only mounts.
        let mut write = fixed(&["/dev", "/proc", "/tmp"]);
        write.extend(mounts.chain(files.writable.iter().cloned()));
        (fixed(&["/"]), write)
    } else {
        // The host's own paths: nothing is mounted anywhere else.
        let mut read = files::readable();
        read.extend(files.mounts.iter().filter(|mount| !mount.writable).map(|mount| mount.source.clone()));
        read.extend(files.read_only.iter().cloned());
        let mut write = fixed(&["/dev/null", "/dev/zero", "/dev/full", "/dev/tty"]);
        write.extend(files.mounts.iter().filter(|mount| mount.writable).map(|mount| mount.source.clone()));
        write.extend(files.writable.iter().cloned());
        (read, write)
    };
    let texts = |paths: Vec<PathBuf>| -> Result<Vec<Text<'static>>, SpecError> {
        paths.iter().map(|path| c_string("a path", path.as_os_str())).collect()
    };
    // With a loopback of its own the worker may use all of its ports. On the host's, it may serve and reach its own
    // alone, if that is what was wanted.
    let confine_tcp =
        spec.isolation.network != Network::Host && !layers.has(Layer::Network) && host.landlock >= landlock::TCP;
    let tcp = if confine_tcp { spec.tcp_ports.iter().map(|port| u32::from(*port)).collect() } else { Vec::new() };
    Ok(Step::Landlock { read: texts(read)?, write: texts(write)?, tcp, confine_tcp, follow: true })
}

fn seccomp(spec: &Spec) -> Step<'static> {
    let filters = crate::seccomp::filters(spec.isolation.seccomp, spec.isolation.seccomp_log);
    let filters = filters.iter().map(|filter| filter.as_slice().into()).collect();
    Step::Seccomp { filters, log: spec.isolation.seccomp_log }
}

fn listening(spec: &Spec) -> u32 {
    u32::try_from(spec.listen.len() + spec.listen_ports.len()).unwrap_or(u32::MAX)
}

fn c_string(field: &str, text: &OsStr) -> Result<Text<'static>, SpecError> {
    let nul = |_| SpecError::NulByte { field: field.to_owned() };
    CString::new(text.as_bytes()).map(Text::Owned).map_err(nul)
}

fn variable(name: &OsStr, value: &OsStr) -> Result<Text<'static>, SpecError> {
    let text = [name.as_bytes(), b"=", value.as_bytes()].concat();
    c_string("an environment variable", OsStr::from_bytes(&text))
}

#[cfg(test)]
mod tests;
