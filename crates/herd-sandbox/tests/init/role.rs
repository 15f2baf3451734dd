//! What this binary does when a test starts it as something else than the tests.

use std::{
    env, fs, io,
    net::{Ipv4Addr, TcpListener},
    process::{Command, ExitCode, Stdio},
};

use herd_sandbox::{Host, Init, Isolation, Mode, Plan, Spec};
use rustix::process::{Signal, getpid, kill_process, setsid};

use crate::sealed::sealed;
use crate::stage::{self, MARK, PATH, exited, gone, launch, ready};

/// Plays the role that the first argument names, if it names one.
pub(crate) fn play() -> Option<ExitCode> {
    let args: Vec<String> = env::args_os().map(|arg| arg.to_string_lossy().into_owned()).collect();
    let role = args.get(1)?.strip_prefix("role:")?;
    let rest: Vec<&str> = args[2..].iter().map(String::as_str).collect();
    match role {
        "daemon" => daemon(&rest, bare),
        "sealed-daemon" => daemon(&rest, sealed),
        "nasty" => nasty(),
        "detach" => detach(&rest),
        "linger" => linger(),
        "stopped" => stopped(),
        "removed" => removed(),
        "cycles" => cycles(bare),
        "sealed-cycles" => cycles(sealed),
        "drops" => drops(bare),
        "sealed-drops" => drops(sealed),
        "echo" => echo(&rest),
        "accept" => accept(),
        "fallback" => fallback(&rest),
        "idle" => idle(),
        _ => return Some(ExitCode::from(99)),
    }
    Some(ExitCode::SUCCESS)
}

/// How a role's workers are started.
type Dress = fn(Spec) -> Spec;

fn bare(spec: Spec) -> Spec {
    spec
}

/// Echoes what comes on the first connection to this port.
fn echo(args: &[&str]) {
    let [port] = args else { panic!("echo PORT") };
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port.parse().expect("a number"))).expect("its own port");
    say("listening");
    let (stream, _) = listener.accept().expect("a connection");
    io::copy(&mut &stream, &mut &stream).expect("the other side is there");
    block();
}

/// Says how many listening sockets it was given, and greets the first connection to the first one.
fn accept() {
    let listeners = herd_sandbox::inherited_listeners().expect("they are announced");
    say(&format!("{} socket", listeners.len()));
    let listener: TcpListener = listeners.into_iter().next().expect("one").into();
    let (mut stream, _) = listener.accept().expect("a connection");
    io::Write::write_all(&mut stream, b"accepted").expect("the other side is there");
}

/// Where there are no user namespaces: says what is missing, then runs a script with what is left of the sandbox.
fn fallback(args: &[&str]) {
    let [text] = args else { panic!("fallback SCRIPT") };
    let dressed = |mode| {
        let mut spec = stage::script(text);
        spec.isolation = Isolation::new(mode);
        spec.isolation.files.writable.push(env::temp_dir());
        spec.tcp_ports = vec![8000];
        spec
    };
    let refused = Init::launch(dressed(Mode::Required)).expect_err("it cannot be had");
    say(&refused.to_string());
    let host = Host::current().expect("it can be probed");
    let plan = Plan::new(&dressed(Mode::BestEffort), host).expect("there is always something");
    say(&plan.layers().iter().map(|layer| layer.name()).collect::<Vec<_>>().join(", "));
    say(&stage::output(dressed(Mode::BestEffort)));
}

/// What every process of [`nasty`] says once it is there.
pub(crate) const NASTY: &[&str] = &["nasty", "linger", "stubborn", "stopped"];

/// Launches so many nasty workers with the mark, all with its own standard output, then waits to be killed.
fn daemon(args: &[&str], dress: Dress) {
    let [count, mark] = args else { panic!("daemon COUNT MARK") };
    let count = count.parse().expect("a number");
    let launch_one = |_| {
        let mut spec = stage::role("nasty", &[]);
        spec.env.push((MARK.into(), mark.into()));
        spec.stdout = Some(rustix::io::dup(rustix::stdio::stdout()).expect("a duplicate"));
        launch(dress(spec))
    };
    let inits: Vec<Init> = (0..count).map(launch_one).collect();
    for init in &inits {
        ready(init);
    }
    block();
}

#[expect(clippy::zombie_processes, reason = "the child outlives this process or is killed with it")]
/// A worker with descendants that are hard to kill: a daemonized one, one that ignores signals, one that is stopped.
fn nasty() {
    say("nasty");
    spawn(&["role:detach", "role:linger"]);
    spawn(&["role:stopped"]);
    let stubborn = "trap '' TERM HUP INT QUIT; echo stubborn; while :; do sleep 1000; done";
    Command::new("sh").args(["-c", stubborn]).stdin(Stdio::null()).spawn().expect("a shell");
    block();
}

/// Leaves the session, starts another process and ends: what a daemonizing program does.
fn detach(args: &[&str]) {
    setsid().expect("a new session");
    spawn(args);
}

/// Stays until it is killed.
fn linger() {
    say("linger");
    block();
}

/// Stops itself.
fn stopped() {
    say("stopped");
    kill_process(getpid(), Signal::STOP).expect("a signal to itself");
    block();
}

/// Removes its own file and launches all the same.
fn removed() {
    fs::remove_file(stage::this_program()).expect("the file is ours");
    let init = launch(stage::command("true", &[]));
    ready(&init);
    assert!(exited(&init).0.success());
    gone(&init);
    say("launched");
}

/// Launches 200 workers one after the other, ending them in different ways, and says what it has before and after.
fn cycles(dress: Dress) {
    let life = |number: u32| {
        let init = launch(dress(if number.is_multiple_of(2) {
            stage::command("true", &[])
        } else {
            stage::command("sleep", &["1000"])
        }));
        match number % 4 {
            // It ends by itself, and all is read.
            0 => {
                ready(&init);
                exited(&init);
                gone(&init);
            }
            1 => {
                ready(&init);
                init.kill();
                exited(&init);
                gone(&init);
            }
            // It is dropped, ended or not.
            _ => drop(init),
        }
    };
    // The first ones may open what the process keeps.
    (0..4).for_each(life);
    let before = quiescent_descriptors();
    (0..200).for_each(life);
    let after = quiescent_descriptors();
    say(&format!("before {before} after {after} zombies {}", stage::children(getpid()).len()));
}

/// Drops inits in all phases of their lives, then waits until they are reaped, which nobody but the crate does.
fn drops(dress: Dress) {
    for number in 0..20_u32 {
        let init = launch(dress(stage::command("sleep", &["1000"])));
        if number.is_multiple_of(2) {
            ready(&init);
        }
    }
    stage::eventually("the last init to be reaped", || stage::children(getpid()).is_empty().then_some(()));
    say("reaped");
}

/// Launches one worker that does nothing, says the process IDs of init and of the worker, and waits to be killed.
fn idle() {
    let init = launch(stage::command("sleep", &["1000"]));
    let worker = ready(&init);
    say(&format!("{} {}", init.pid(), worker.as_raw_pid()));
    block();
}

/// The number of open descriptors once all children are reaped.
fn quiescent_descriptors() -> usize {
    stage::eventually("the children to be reaped and the reaper to end", || {
        let alone = fs::read_dir("/proc/self/task").expect("/proc").count() == 1;
        (alone && stage::children(getpid()).is_empty()).then_some(())
    });
    fs::read_dir("/proc/self/fd").expect("/proc").count()
}

#[expect(clippy::zombie_processes, reason = "the child outlives this process or is killed with it")]
fn spawn(args: &[&str]) {
    Command::new(stage::this_program()).args(args).stdin(Stdio::null()).spawn().expect("this binary again");
}

/// One write, so that lines of several processes do not mix.
fn say(line: &str) {
    rustix::io::write(rustix::stdio::stdout(), format!("{line}\n").as_bytes()).expect("somebody listens");
}

/// For ever.
fn block() {
    let (reader, _writer) = io::pipe().expect("a pipe");
    let _ = io::read_to_string(reader);
}

/// The environment that roles are started with, for those that tests start without an init.
pub(crate) fn outside(name: &str, args: &[&str]) -> Command {
    let Spec { program, args: role, .. } = stage::role(name, args);
    let mut command = Command::new(program);
    command.args(role).env_clear().env("PATH", PATH).stdin(Stdio::null());
    command
}
