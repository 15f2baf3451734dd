//! What this binary does when a test starts it as something else than the tests.

use std::{
    env, fs, hint, io,
    os::unix::process::CommandExt as _,
    path::Path,
    process::{Command, ExitCode, Stdio},
};

use herd_sandbox::cgroup::{CgroupRoot, Limits};
use rustix::process::{Signal, getpid, kill_process, setsid};

use crate::{
    birth, place,
    stage::{self, NO_LIMITS, THIS_PROGRAM, USER, say},
};

/// Plays the role that the first argument names, if it names one.
pub(crate) fn play() -> Option<ExitCode> {
    let args: Vec<String> = env::args_os().map(|arg| arg.to_string_lossy().into_owned()).collect();
    let args: Vec<&str> = args.iter().skip(1).map(String::as_str).collect();
    args.first()?.strip_prefix("role:")?;
    act(&args);
    Some(ExitCode::SUCCESS)
}

fn act(args: &[&str]) {
    match args {
        ["role:in", cgroup, role @ ..] => {
            stage::write(Path::new(cgroup), "cgroup.procs", "0");
            act(role);
        }
        ["role:user", cgroup, role @ ..] => {
            stage::write(Path::new(cgroup), "cgroup.procs", "0");
            let error = Command::new(THIS_PROGRAM).args(role).uid(USER).gid(USER).exec();
            panic!("this binary cannot be executed by a user: {error}");
        }
        ["role:idle"] => idle(),
        ["role:until-told"] => {
            say("here");
            await_end_of_input();
        }
        ["role:eat", bytes] => eat(bytes.parse().expect("a number")),
        ["role:burn", milliseconds] => burn(milliseconds.parse().expect("a number")),
        ["role:multiply", most] => multiply(most.parse().expect("a number")),
        ["role:keep-forking"] => keep_forking(),
        ["role:nothing"] => {}
        ["role:family"] => family(),
        ["role:detach"] => {
            setsid().expect("a new session");
            spawn(&["role:idle"]);
        }
        ["role:stopped"] => {
            say("here");
            kill_process(getpid(), Signal::STOP).expect("a signal to itself");
        }
        ["role:daemon"] => daemon(),
        ["role:sweep"] => sweep(),
        ["role:birth"] => birth::play(),
        ["role:place", scene @ ..] => place::play(scene),
        ["role:container", scene @ ..] => contain(scene),
        other => panic!("no role: {other:?}"),
    }
}

/// Says that it is there, and stays until it is killed.
fn idle() {
    say("here");
    let (reader, _writer) = io::pipe().expect("a pipe");
    let _ = io::read_to_string(reader);
}

fn await_end_of_input() {
    let _ = io::read_to_string(io::stdin());
}

/// Uses so much memory, all of it for real, and stays.
fn eat(bytes: usize) {
    const PAGE: usize = 4096;
    let mut eaten = vec![0_u8; bytes];
    eaten.iter_mut().step_by(PAGE).for_each(|byte| *byte = 1);
    hint::black_box(&mut eaten);
    say("eaten");
    idle();
    drop(eaten);
}

/// Computes until it has had so much CPU time from now on, and ends.
fn burn(milliseconds: u64) {
    let used = || {
        // The first number: nanoseconds on a CPU; see proc_pid_schedstat(5).
        let text = fs::read_to_string("/proc/self/schedstat").expect("/proc");
        text.split(' ').next().and_then(|time| time.parse::<u64>().ok()).expect("a number") / 1_000_000
    };
    let end = used() + milliseconds;
    while used() < end {
        hint::black_box((0..50_000_u64).fold(0, u64::wrapping_add));
    }
}

/// Starts children that stay until there are so many, or one cannot be started; says what happened.
fn multiply(most: usize) {
    let mut children = Vec::new();
    for _ in 0..most {
        match silent(&["role:idle"]).spawn() {
            Ok(child) => children.push(child),
            Err(error) => {
                say(&format!("{} then {:?}", children.len(), error.kind()));
                idle();
            }
        }
    }
    say(&format!("{} and no end", children.len()));
    idle();
}

/// Starts children that end, one after the other, for as long as it lives.
fn keep_forking() {
    say("here");
    loop {
        let _ = silent(&["role:nothing"]).spawn().and_then(|mut child| child.wait());
    }
}

/// Has a child, one in a session of its own, and one whose parent has ended; each says when it is there.
fn family() {
    spawn(&["role:idle"]);
    spawn(&["role:detach"]);
    idle();
}

/// Divides the cgroup that it is in, has a worker there, and stays. The worker outlives it.
fn daemon() {
    let root = CgroupRoot::open().expect("a delegated cgroup");
    let limits = Limits { pids: Some(50), ..NO_LIMITS };
    let cgroup = root.create("worker-1", &limits).expect("a cgroup");
    let mut worker = stage::role(cgroup.path(), &["role:idle"]);
    worker.expect("here");
    say(root.path().to_str().expect("a plain path"));
    await_end_of_input();
}

/// Waits for the end of its input, sweeps, and says what it has removed.
fn sweep() {
    let root = CgroupRoot::open().expect("a delegated cgroup");
    say("here");
    await_end_of_input();
    say(&root.sweep().expect("everything can be removed").to_string());
}

/// Plays a scene in a cgroup namespace and a mount namespace of its own.
fn contain(scene: &[&str]) {
    let program = env::current_exe().expect("/proc");
    let mut command = Command::new("unshare");
    let error = command.args(["--cgroup", "--mount", "--"]).arg(program).arg("role:place").args(scene).exec();
    panic!("unshare, of the package util-linux, cannot be executed: {error}");
}

#[expect(clippy::zombie_processes, reason = "the child outlives this process or is killed with it")]
pub(crate) fn spawn(args: &[&str]) {
    Command::new(THIS_PROGRAM).args(args).stdin(Stdio::null()).spawn().expect("this binary again");
}

fn silent(args: &[&str]) -> Command {
    let mut command = Command::new(THIS_PROGRAM);
    command.args(args).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}
