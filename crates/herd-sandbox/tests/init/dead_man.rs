use std::{
    os::{fd::OwnedFd, unix::process::CommandExt},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use rustix::{
    io::write,
    net::{AddressFamily, SocketFlags, SocketType, socketpair},
    process::{Pid, Signal, kill_process},
};

use crate::{
    role::{NASTY, outside},
    stage::{
        Lines, MARK, PATIENCE, children, command, eventually, exited, gone, hold, launch, launch_piped, mark, marked,
        pid_of, readable, ready, report, role, stat, survivors,
    },
};

/// What is promised: kill -9 of the daemon leaves no process of any worker after 200 ms.
const PROMISE: Duration = Duration::from_millis(200);

pub(crate) fn a_killed_daemon_leaves_no_process() {
    const WORKERS: usize = 3;
    let mark = mark();
    let mut daemon = outside("daemon", &[&WORKERS.to_string(), &mark]).stdout(Stdio::piped()).spawn().expect("it runs");
    let mut lines = Lines::new(daemon.stdout.take().expect("a pipe").into());
    lines.roll_call(&[NASTY; WORKERS].concat());
    let stopped = || marked(&mark).into_iter().filter_map(stat).filter(|stat| stat.state == 'T').count();
    eventually("one of each worker's processes to be stopped", || (stopped() == WORKERS).then_some(()));
    // One more for each than answer the roll call: the stubborn shell sleeps by another program.
    let full = WORKERS * (NASTY.len() + 1);
    let workers = eventually("all to be there", || Some(marked(&mark)).filter(|found| found.len() >= full));
    let inits = children(Pid::from_child(&daemon));
    assert_eq!(inits.len(), WORKERS);
    let everyone = hold(&[workers, inits].concat());

    daemon.kill().expect("it runs");
    let deadline = Instant::now() + PROMISE;
    assert_eq!(survivors(&everyone, deadline), 0);
    assert_eq!(marked(&mark), []);
    daemon.wait().expect("it is our child");
}

pub(crate) fn dropping_the_hold_kills_the_tree() {
    let mark = mark();
    let mut spec = role("nasty", &[]);
    spec.env.push((MARK.into(), mark.clone().into()));
    let (init, mut lines) = launch_piped(spec);
    ready(&init);
    lines.roll_call(NASTY);
    let everyone = hold(&[marked(&mark), vec![pid_of(&init)]].concat());
    drop(init);
    assert_eq!(survivors(&everyone, Instant::now() + PATIENCE), 0);
    assert_eq!(marked(&mark), []);
}

/// A worker of the same user can stop its init.
pub(crate) fn a_stopped_init_is_continued_to_kill() {
    let stop = |init: Pid| {
        kill_process(init, Signal::STOP).expect("init runs");
        eventually("init to stop", || (stat(init)?.state == 'T').then_some(()));
    };

    let (init, mut lines) = launch_piped(command("sleep", &["1000"]));
    ready(&init);
    stop(pid_of(&init));
    init.kill();
    exited(&init);
    gone(&init);
    assert_eq!(lines.rest(), "", "nothing holds the pipe any more");

    let (init, mut lines) = launch_piped(command("sleep", &["1000"]));
    ready(&init);
    stop(pid_of(&init));
    drop(init);
    assert_eq!(lines.rest(), "", "nothing holds the pipe any more");

    // And when the launching process is killed.
    let mut daemon = outside("idle", &[]).stdout(Stdio::piped()).spawn().expect("it runs");
    let line = Lines::new(daemon.stdout.take().expect("a pipe").into()).next();
    let pids: Vec<Pid> = line.split(' ').filter_map(|pid| Pid::from_raw(pid.parse().ok()?)).collect();
    stop(pids[0]);
    let everyone = hold(&pids);
    daemon.kill().expect("it runs");
    daemon.wait().expect("it is our child");
    assert_eq!(survivors(&everyone, Instant::now() + PATIENCE), 0);
}

/// Nobody can look after the worker then; what is left of the promise is that its main process dies.
pub(crate) fn a_killed_init_takes_the_main_process_along() {
    let init = launch(command("sleep", &["1000"]));
    let worker = hold(&[ready(&init)]);
    kill_process(pid_of(&init), Signal::KILL).expect("init is ours");
    assert_eq!(survivors(&worker, Instant::now() + PATIENCE), 0);
    assert!(report(&init).is_none());
    assert!(!init.reap().expect("it is our child").success(), "the caller learns that the promise was broken");
}

/// The daemon dies after it has started init and before it has sent the plan.
pub(crate) fn a_hang_up_before_the_plan_ends_init() {
    let (mut init, socket) = bare_init();
    assert!(readable(&socket, Instant::now() + PATIENCE), "init says hello");
    drop(socket);
    ends(&mut init);
}

pub(crate) fn nonsense_on_the_socket_ends_init() {
    for nonsense in
        [&b"\xff\xff\xff\xff"[..], b"\x01", b"\x02\x00\x00\x00\x00", b"\x01\x00\x00\x00\x00\x00\x00\x00\x01"]
    {
        let (mut init, socket) = bare_init();
        write(&socket, nonsense).expect("init listens");
        ends(&mut init);
    }
}

/// A service manager or a terminal signals every process that it knows. Init waits for its launcher's word instead.
pub(crate) fn a_terminal_signal_does_not_reach_init() {
    let init = launch(command("sleep", &["1000"]));
    ready(&init);
    for signal in [Signal::INT, Signal::QUIT, Signal::HUP, Signal::TERM, Signal::PIPE, Signal::USR1] {
        kill_process(pid_of(&init), signal).expect("init runs");
    }
    // Requests come after signals that were sent before: init is still there to act on one.
    init.kill();
    exited(&init);
    gone(&init);
}

/// An init without anybody who speaks its protocol.
fn bare_init() -> (Child, OwnedFd) {
    let (ours, theirs) =
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).expect("sockets");
    let init = Command::new("/proc/self/exe").arg0("herd-init").env_clear().stdin(theirs).spawn().expect("it starts");
    (init, ours)
}

fn ends(init: &mut Child) {
    let pidfd = hold(&[Pid::from_child(init)]);
    assert_eq!(survivors(&pidfd, Instant::now() + PATIENCE), 0);
    init.wait().expect("it is our child");
}
