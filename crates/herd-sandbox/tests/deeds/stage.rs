//! One deed in one place, from the outside: everything is set up, the deed is tried, and how it ended is judged.

use std::{
    fs::{self, Permissions},
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::Path,
};

use rustix::io::Errno;

use crate::{
    attempt::Attempt,
    place::{Means, Place},
    scene::Scene,
    table::{Act, Deed},
    worker::{Worker, say, shown},
};

/// The size of `/tmp` of a worker here, in bytes.
pub(crate) const TMP_LIMIT: u64 = 4 << 20;

/// The size of `/dev/shm`.
pub(crate) const SHM_LIMIT: u64 = TMP_LIMIT;

/// How many files a worker may have open.
pub(crate) const OPEN_FILES: u64 = 256;

/// How many processes a worker may have.
pub(crate) const PROCESSES: u64 = 64;

/// A variable in the environment of what launches the workers.
pub(crate) const SECRET_VARIABLE: &str = "HERD_DEEDS_SECRET";

/// How an attempt ended.
#[derive(Debug)]
pub(crate) enum Verdict {
    Done(String),
    Refused(String),
    /// It failed, but not for what was to stop it.
    Unexpected(String),
}

/// Tries the deed.
///
/// # Panics
/// If it ends differently than it has to in this place.
pub(crate) fn perform(place: Place, means: Means, deed: &Deed, assets: &Path) {
    let mut scene = Scene::new(place, assets);
    scene.means = means;
    let verdict = match deed.act {
        Act::Inside(_) => inside(&mut scene, deed),
        Act::AtTerminal(_) => {
            scene.open_terminal();
            inside(&mut scene, deed)
        }
        Act::OnProgram { by_script, .. } => on_program(&mut scene, deed, by_script),
        Act::Around(act) => Verdict::new(act(&mut scene), deed, place),
    };
    let name = deed.name;
    say(&verdict.to_line());
    match verdict {
        Verdict::Done(_) if !place.is_confined() => {}
        Verdict::Refused(_) if place.is_confined() => {}
        Verdict::Done(got) => panic!("{name} is DONE: {got}"),
        Verdict::Refused(why) => panic!("{name} cannot be done even without a sandbox: {why}"),
        Verdict::Unexpected(why) => panic!("{name} failed, but not as it has to: {why}"),
    }
}

fn inside(scene: &mut Scene, deed: &Deed) -> Verdict {
    scene.populate();
    let args = arguments(scene, deed);
    let args: Vec<_> = args.iter().map(String::as_str).collect();
    conclude(scene.job(scene.place, "workspace", &args).start())
}

fn arguments(scene: &Scene, deed: &Deed) -> Vec<String> {
    let mut args = vec!["role:deed".to_owned(), scene.place.name().to_owned(), deed.name.to_owned()];
    args.extend(scene.target.to_args());
    args
}

/// What the deed itself says at its end.
fn conclude(worker: Worker) -> Verdict {
    if let Some(failure) = worker.failure() {
        return Verdict::Unexpected(failure);
    }
    let (output, status) = worker.finish();
    let last = output.lines().last().unwrap_or_default();
    Verdict::from_line(last).unwrap_or_else(|| panic!("the deed was not tried: {}: {output}", shown(status)))
}

/// It counts whether the program is what it was and starts workers as before.
fn on_program(scene: &mut Scene, deed: &Deed, by_script: bool) -> Verdict {
    let program = scene.assets.join("program");
    let state = || {
        let metadata = fs::metadata(&program).expect("the program is there");
        let attribute = rustix::fs::getxattr(&program, "user.herd", &mut [0_u8; 8][..]).is_ok();
        let links = metadata.nlink();
        (metadata.mode(), metadata.len(), metadata.mtime(), metadata.mtime_nsec(), links, attribute)
    };
    let before = state();
    let args = arguments(scene, deed);
    let mut args: Vec<_> = args.iter().map(String::as_str).collect();
    let script = scene.workspace().join("script");
    let started = if by_script {
        fs::write(&script, "#!/proc/self/exe role:script\n").expect("it is ours");
        fs::set_permissions(&script, Permissions::from_mode(0o777)).expect("it is ours");
        if scene.place.is_confined() {
            let mut job = scene.job(scene.place, "workspace", &args);
            job.program = if scene.place.has_own_root() { "/workspace/script".into() } else { script.clone() };
            job.start()
        } else {
            // Here it is this program that starts a worker.
            let exec = ["role:exec", script.to_str().expect("a text")];
            args.splice(0..0, exec);
            scene.job(scene.place, "workspace", &args).start()
        }
    } else {
        scene.job(scene.place, "workspace", &args).start()
    };
    let told = match started.failure() {
        Some(failure) => failure,
        None => format!("{:?}", started.finish()),
    };
    let after = state();
    if before != after {
        return Verdict::Done(format!("{before:?} became {after:?}: {told}"));
    }
    if !scene.place.is_confined() {
        return Verdict::Refused(told);
    }
    let next = scene.job(scene.place, "workspace", &["role:nothing"]).start();
    match next.failure() {
        Some(failure) => Verdict::Done(format!("no worker starts any more: {failure}; {told}")),
        None if !next.finish().1.success() => Verdict::Done(format!("the next worker is another program; {told}")),
        None => Verdict::Refused(told),
    }
}

impl Verdict {
    pub(crate) fn new(attempt: Attempt, deed: &Deed, place: Place) -> Self {
        // Without a root and namespaces of its own a worker is denied what otherwise would not be there.
        let denied: &[Errno] = if place == Place::Fallback { &[Errno::ACCESS, Errno::PERM] } else { &[] };
        match attempt {
            Ok(got) => Self::Done(got),
            Err(refusal) => match refusal.unexpected(&[deed.refusals, denied].concat()) {
                Some(why) => Self::Unexpected(why),
                None => Self::Refused(refusal.to_string()),
            },
        }
    }

    pub(crate) fn to_line(&self) -> String {
        let (word, text) = match self {
            Self::Done(text) => ("done", text),
            Self::Refused(text) => ("refused", text),
            Self::Unexpected(text) => ("unexpected", text),
        };
        format!("{word}: {}", text.replace('\n', " "))
    }

    fn from_line(line: &str) -> Option<Self> {
        let (word, text) = line.split_once(": ")?;
        match word {
            "done" => Some(Self::Done(text.to_owned())),
            "refused" => Some(Self::Refused(text.to_owned())),
            "unexpected" => Some(Self::Unexpected(text.to_owned())),
            _ => None,
        }
    }
}
