use std::{
    io::{BufRead as _, BufReader},
    process::Stdio,
    time::Duration,
};

use herd_pool::{ExitStatus, Worker as _, WorkerFactory as _, WorkerId};
use herd_process::Signal;
use rustix::process::{Pid, Signal as UnixSignal, kill_process};

use tokio::task::spawn_blocking;

use crate::fixture::{
    NEVER, Roll, Running, exists, files_of_workers, get, patiently, role, sandboxed_role, script, shell, start, timed,
};

const TERM: i32 = 15;
const KILL: i32 = 9;

/// A shell that has a worker as its child and says farewell when it is asked to stop.
const POLITE: &str = r#"trap 'echo farewell >&2; exit 7' TERM; "$0" worker serve & while :; do wait; done"#;

/// A worker that ignores the signal: a shell's ignored signals stay ignored after exec.
const STUBBORN: &str = r#"trap '' TERM; exec "$0" worker serve"#;

fn send(pid: u32, signal: UnixSignal) {
    kill_process(Pid::from_raw(pid.cast_signed()).expect("not 0"), signal).expect("it runs");
}

pub(crate) async fn close_asks_first_and_grants_the_grace() {
    let worker = start(script(POLITE).stop_grace(NEVER)).await;
    patiently(worker.close()).await;
    let exit = patiently(worker.exited()).await;
    assert_eq!((exit.status, &*exit.stderr_tail), (ExitStatus::Code(7), &["farewell".to_owned()][..]));
}

pub(crate) async fn a_worker_that_ignores_the_stop_signal_is_killed_after_its_grace() {
    let grace = Duration::from_millis(300);
    let worker = start(script(STUBBORN).stop_grace(grace)).await;
    let ((), took) = timed(patiently(worker.close())).await;
    assert!(took >= grace, "{took:?}");
    assert_eq!(patiently(worker.exited()).await.status, ExitStatus::Signal(KILL));
}

pub(crate) async fn kill_asks_nobody() {
    let worker = start(script(STUBBORN).stop_grace(NEVER)).await;
    patiently(worker.kill()).await;
    assert_eq!(patiently(worker.exited()).await.status, ExitStatus::Signal(KILL));
}

pub(crate) async fn another_stop_signal_can_be_chosen() {
    let worker = start(script(STUBBORN).stop_signal(Signal::USR1).stop_grace(NEVER)).await;
    patiently(worker.close()).await;
    assert_eq!(patiently(worker.exited()).await.status, ExitStatus::Signal(UnixSignal::USR1.as_raw()));
}

pub(crate) async fn close_ends_descendants_that_left_the_session() {
    let roll = Roll::new();
    // A grandchild with a session of its own, whose parent has ended.
    let text = r#"(setsid "$0" worker sleep & ); exec "$0" worker serve"#;
    let worker = start(script(text).env("ROLL", roll.path())).await;
    let processes = [roll.next().await, roll.next().await];
    assert!(processes.iter().any(|process| process.pid != worker.pid()));
    patiently(worker.close()).await;
    for process in processes {
        process.gone().await;
    }
}

pub(crate) async fn everything_is_reaped_and_removed_when_close_returns() {
    let base = tempfile::tempdir().expect("a directory");
    let options = script(r#""$0" worker sleep & exec "$0" worker serve"#).state_dir(base.path());
    let roll = Roll::new();
    let factory = options.env("ROLL", roll.path()).build().expect("the options are valid");
    let worker = patiently(factory.spawn(WorkerId::new(1))).await.expect("the worker starts");
    let [one, other] = [roll.next().await, roll.next().await];
    patiently(worker.close()).await;
    for pid in [worker.init_pid(), one.pid, other.pid] {
        assert!(!exists(pid), "{pid} of {:?}", [worker.init_pid(), one.pid, other.pid]);
    }
    assert_eq!(files_of_workers(base.path()), [""; 0]);
    drop((worker, factory));
    assert_eq!(std::fs::read_dir(base.path()).expect("it is there").count(), 0);
}

pub(crate) async fn a_dropped_worker_is_killed_and_reaped() {
    let roll = Roll::new();
    let factory = script(STUBBORN).env("ROLL", roll.path()).build().expect("the options are valid");
    let worker = patiently(factory.spawn(WorkerId::new(1))).await.expect("the worker starts");
    let process = roll.next().await;
    let (exited, init) = (worker.exited(), worker.init_pid());
    drop(worker);
    process.gone().await;
    assert_eq!(patiently(exited).await.status, ExitStatus::Signal(KILL));
    patiently(factory.none_left()).await;
    assert!(!exists(init));
}

pub(crate) async fn a_dropped_close_still_ends_the_worker() {
    let worker = start(role(&["serve"]).stop_grace(NEVER)).await;
    let close = worker.close();
    // It gets as far as its first wait.
    assert!(tokio::time::timeout(Duration::ZERO, close).await.is_err());
    assert_eq!(patiently(worker.exited()).await.status, ExitStatus::Signal(TERM));
}

pub(crate) async fn a_crash_while_idle_is_told_with_its_last_words() {
    let worker = start(role(&["serve"])).await;
    let exited = worker.exited();
    let _ = patiently(worker.client().get("/abort")).await;
    let exit = patiently(exited).await;
    assert_eq!(exit.status, ExitStatus::Signal(UnixSignal::ABORT.as_raw()));
    assert_eq!(*exit.stderr_tail, ["about to abort"]);
    assert!(!exit.out_of_memory);
}

pub(crate) async fn exited_gives_the_same_answer_again_and_after_the_end() {
    let worker = start(role(&["serve"])).await;
    let early = [worker.exited(), worker.exited()];
    send(worker.pid(), UnixSignal::HUP);
    for exited in early {
        assert_eq!(patiently(exited).await.status, ExitStatus::Signal(UnixSignal::HUP.as_raw()));
    }
    let late = worker.exited();
    patiently(worker.close()).await;
    drop(worker);
    assert_eq!(patiently(late).await.status, ExitStatus::Signal(UnixSignal::HUP.as_raw()));
}

pub(crate) async fn a_worker_that_stops_its_init_is_killed_unasked() {
    let roll = Roll::new();
    // With a descendant that only init would find.
    let text =
        r#"(setsid "$0" worker sleep & ); trap 'kill -STOP $PPID' USR1; "$0" worker serve & while :; do wait; done"#;
    let worker = start(script(text).env("ROLL", roll.path())).await;
    let processes = [roll.next().await, roll.next().await];
    send(worker.pid(), UnixSignal::USR1);
    assert_eq!(patiently(worker.exited()).await.status, ExitStatus::Signal(KILL));
    assert!(!exists(worker.init_pid()));
    for process in processes {
        process.gone().await;
    }
}

pub(crate) async fn a_worker_that_keeps_its_init_stopped_is_killed_all_the_same() {
    let stopper = "while :; do kill -STOP $PPID; done";
    let text = format!(r#"trap '({stopper}) & ({stopper}) &' USR1; "$0" worker serve & while :; do wait; done"#);
    let worker = start(script(&text)).await;
    send(worker.pid(), UnixSignal::USR1);
    patiently(worker.exited()).await;
    patiently(worker.kill()).await;
    assert!(!exists(worker.init_pid()) && !exists(worker.pid()));
}

/// Stops a process as only a tracer can, so that nothing but `SIGKILL` moves it, and waits for its end.
const HOLD: &str = r#"
import ctypes, os, sys
libc, pid = ctypes.CDLL(None, use_errno=True), int(sys.argv[1])
PTRACE_SEIZE, PTRACE_INTERRUPT, WALL = 0x4206, 0x4207, 0x40000000
for request in PTRACE_SEIZE, PTRACE_INTERRUPT:
    assert libc.ptrace(request, pid, None, None) == 0, os.strerror(ctypes.get_errno())
os.waitpid(pid, WALL)
print("held", flush=True)
os.waitpid(pid, WALL)
"#;

pub(crate) async fn a_worker_in_a_sandbox_ends_though_its_init_obeys_nothing() {
    assert!(rustix::process::geteuid().is_root(), "init lets only root trace it; run the tests as root");
    let worker = start(sandboxed_role(&["serve"]).stop_grace(NEVER)).await;
    shell(&worker, "setsid sleep 1000 >/dev/null 2>&1 &").await;
    // A kill that fails would wait for ever, and the tracer with it.
    let mut tracer = std::process::Command::new("timeout");
    tracer.args(["--kill-after=1", "60", "python3", "-c", HOLD]).arg(worker.init_pid().to_string());
    let mut tracer = tracer.stdout(Stdio::piped()).spawn().expect("timeout is installed");
    let mut said = BufReader::new(tracer.stdout.take().expect("a pipe")).lines();
    let said = patiently(spawn_blocking(move || said.next())).await.expect("no panic");
    assert_eq!(said.expect("python3 is installed").expect("text"), "held");

    let ((), took) = timed(patiently(worker.kill())).await;
    assert!(!exists(worker.init_pid()) && !exists(worker.pid()));
    assert!(took < Duration::from_secs(30), "it has not waited for the tracer's end: {took:?}");
    assert!(patiently(spawn_blocking(move || tracer.wait())).await.expect("no panic").expect("a child").success());
}

pub(crate) async fn a_killed_init_leaves_nothing_of_the_workers_group() {
    let roll = Roll::new();
    let text = r#"trap '' TERM; "$0" worker sleep & exec "$0" worker serve"#;
    let worker = start(script(text).env("ROLL", roll.path())).await;
    assert_eq!(get(&worker, "/pid").await, worker.pid().to_string());
    let [one, other] = [roll.next().await, roll.next().await];
    let main = Running::new(worker.pid());
    send(worker.init_pid(), UnixSignal::KILL);
    assert_eq!(patiently(worker.exited()).await.status, ExitStatus::Unknown);
    assert!(main.has_ended());
    one.gone().await;
    other.gone().await;
}
