//! What this binary does when it is started as something else than the tests.

use std::{
    env, io,
    os::unix::process::CommandExt,
    path::Path,
    process::{Command, ExitCode},
};

use crate::{
    life, scene,
    stage::{self, Verdict},
    table::{self, Act},
    target::Target,
    worker::say,
};

/// Plays the role that the first argument names, if it names one.
pub(crate) fn play() -> Option<ExitCode> {
    let args: Vec<String> = env::args_os().map(|arg| arg.to_string_lossy().into_owned()).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let role = args.get(1)?.strip_prefix("role:")?;
    Some(play_role(role, &args[2..]))
}

fn play_role(role: &str, args: &[&str]) -> ExitCode {
    match (role, args) {
        ("stage", [place, means, name, assets]) => {
            let (place, means) = (place.parse().expect("a place"), means.parse().expect("means"));
            stage::perform(place, means, table::deed(name), Path::new(assets));
        }
        ("deed", [place, name, target @ ..]) => try_deed(place, name, target),
        // By a script whose interpreter is this program: its first argument is the script.
        ("script", [_, "role:deed", place, name, target @ ..]) => try_deed(place, name, target),
        ("exec", [script, args @ ..]) => panic!("{script}: {}", Command::new(script).args(args).exec()),
        ("victim", [mark]) => scene::play_victim(mark),
        ("daemon", [place, mark, assets, workspace]) => {
            life::play_daemon(place.parse().expect("a place"), mark, Path::new(assets), Path::new(workspace));
        }
        ("nasty", [mark]) => life::play_nasty(mark),
        ("detached", [mark]) => life::play_detached(mark),
        ("linger", [mark]) => life::play_lingering(mark),
        ("stopped", [mark]) => life::play_stopped(mark),
        ("nothing", []) => {}
        _ => panic!("no role is {role} {args:?}"),
    }
    ExitCode::SUCCESS
}

fn try_deed(place: &str, name: &str, target: &[&str]) {
    let deed = table::deed(name);
    let target = Target::from_args(target.iter().copied());
    let attempt = match deed.act {
        Act::Inside(act) | Act::AtTerminal(act) | Act::OnProgram { act, .. } => act(&target),
        Act::Around(_) => panic!("{name} is not done inside"),
    };
    say(&Verdict::new(attempt, deed, place.parse().expect("a place")).to_line());
}

/// For ever.
pub(crate) fn block() {
    let (reader, _writer) = io::pipe().expect("a pipe");
    let _ = io::read_to_string(reader);
}
