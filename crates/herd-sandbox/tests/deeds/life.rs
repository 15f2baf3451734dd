//! Staying when all should be over.

use std::{
    path::Path,
    process::{Command, Stdio},
};

use rustix::process::{Pid, Signal, getpid, kill_process, setsid};

use crate::{
    attempt::{Attempt, absent},
    lines::{Lines, eventually},
    place::{Means, Place},
    role::block,
    scene::{Scene, with_argument},
    worker::{Job, Worker, say},
};

/// What a worker leaves in the world: each says its name once it is there.
const NASTY: &[&str] = &["nasty", "detached", "lingering", "stopped", "stubborn"];

/// The worker is killed as by a daemon that has lost patience.
pub(crate) fn outlive_the_end_of_the_session(scene: &mut Scene) -> Attempt {
    let mark = scene.target.text("mark");
    let mut worker = start_nasty(scene.place, &scene.assets, &scene.workspace(), mark);
    worker.kill();
    left(scene)
}

/// Init is killed from outside, as by an administrator.
pub(crate) fn outlive_init(scene: &mut Scene) -> Attempt {
    let mark = scene.target.text("mark");
    let worker = start_nasty(scene.place, &scene.assets, &scene.workspace(), mark);
    kill(worker.pid());
    left(scene)
}

/// The daemon is killed with -9.
pub(crate) fn outlive_the_daemon(scene: &mut Scene) -> Attempt {
    let mark = scene.target.text("mark");
    let mut daemon = Command::new(scene.assets.join("program"));
    daemon.args(["role:daemon", scene.place.name(), mark]).arg(&scene.assets).arg(scene.workspace());
    let mut daemon = daemon.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("this program again");
    let started = Lines::new(daemon.stdout.take().expect("a pipe").into()).next();
    daemon.kill().expect("it is our child");
    daemon.wait().expect("it is our child");
    assert_eq!(started, "started");
    left(scene)
}

/// Starts one worker that is nasty, says so, and waits to be killed.
pub(crate) fn play_daemon(place: Place, mark: &str, assets: &Path, workspace: &Path) {
    let _worker = start_nasty(place, assets, workspace, mark);
    say("started");
    block();
}

fn start_nasty(place: Place, assets: &Path, workspace: &Path, mark: &str) -> Worker {
    let job = Job {
        place,
        means: Means::Worker,
        assets,
        workspace: workspace.to_owned(),
        program: Job::assets_inside(place, assets).join("program"),
        args: vec!["role:nasty".to_owned(), mark.to_owned()],
        stderr: None,
    };
    let mut worker = job.start();
    if let Some(failure) = worker.failure() {
        panic!("it does not start: {failure}");
    }
    let mut missing = NASTY.to_vec();
    while !missing.is_empty() {
        let line = worker.stdout.next();
        missing.retain(|name| *name != line);
    }
    worker
}

/// Waits for the end of all that have the mark. Those that stay are killed here.
fn left(scene: &Scene) -> Attempt {
    let mark = scene.target.text("mark");
    let roles = ["role:nasty", "role:linger", "role:stopped"];
    let alive = || -> Vec<i32> { roles.iter().flat_map(|role| with_argument(role, mark)).collect() };
    // Without a sandbox there is nothing to wait for: they stay.
    let gone = if scene.place.is_confined() { eventually(|| alive().is_empty().then_some(())) } else { None };
    let survivors = alive();
    survivors.iter().for_each(|pid| kill(*pid));
    match gone {
        Some(()) => Err(absent("nothing is left")),
        None => Ok(format!("{survivors:?} are left")),
    }
}

fn kill(pid: i32) {
    // It may have ended.
    let _ = kill_process(Pid::from_raw(pid).expect("a process ID"), Signal::KILL);
}

#[expect(clippy::zombie_processes, reason = "the children outlive this process or are killed with it")]
/// A worker with descendants that are hard to kill, which stops itself in the end.
pub(crate) fn play_nasty(mark: &str) {
    say("nasty");
    for role in ["detached", "stopped"] {
        spawn(role, mark);
    }
    let stubborn = "$| = 1; $SIG{$_} = 'IGNORE' for qw(TERM HUP INT QUIT); print qq(stubborn\n); sleep 1000 while 1";
    Command::new("perl").args(["-e", stubborn, "role:linger", mark]).stdin(Stdio::null()).spawn().expect("Perl");
    block();
}

/// Leaves the session, starts another process and ends: what a daemonizing program does.
pub(crate) fn play_detached(mark: &str) {
    setsid().expect("a new session");
    say("detached");
    spawn("linger", mark);
}

pub(crate) fn play_lingering(_: &str) {
    say("lingering");
    block();
}

pub(crate) fn play_stopped(_: &str) {
    say("stopped");
    kill_process(getpid(), Signal::STOP).expect("a signal to itself");
    block();
}

#[expect(clippy::zombie_processes, reason = "the child outlives this process or is killed with it")]
fn spawn(role: &str, mark: &str) {
    let program = std::env::current_exe().expect("this program");
    let mut command = Command::new(program);
    command.args([&format!("role:{role}"), mark]).stdin(Stdio::null()).spawn().expect("this program again");
}
