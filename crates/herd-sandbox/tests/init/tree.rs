use std::{os::unix::process::ExitStatusExt, time::Instant};

use herd_sandbox::Signal;

use crate::{
    role::NASTY,
    stage::{
        MARK, children, eventually, exited, gone, hold, launch_piped, mark, marked, pid_of, ready, role, script, stat,
        survivors,
    },
};

pub(crate) fn descendants_die_with_the_main_process() {
    let mark = mark();
    let mut spec = script("(setsid sh -c 'echo up; sleep 1000' &); (sleep 1000 &); read go < \"$FIFO\"; exit 3");
    let directory = tempfile::tempdir().expect("a directory");
    let fifo = directory.path().join("fifo");
    rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, rustix::fs::Mode::RWXU).expect("a named pipe");
    spec.env.push(("FIFO".into(), fifo.clone().into()));
    spec.env.push((MARK.into(), mark.clone().into()));
    let (init, mut lines) = launch_piped(spec);
    ready(&init);
    lines.roll_call(&["up"]);
    eventually("both sleeps", || (marked(&mark).len() >= 4).then_some(()));
    let members = hold(&marked(&mark));
    std::fs::write(&fifo, "go\n").expect("the worker reads");
    // Its own exit is reported, and not that of what was killed after it.
    assert_eq!(exited(&init).0.code(), Some(3));
    gone(&init);
    assert_eq!(survivors(&members, Instant::now()), 0, "init said that nothing is left");
    assert_eq!(marked(&mark), []);
}

pub(crate) fn kill_finds_those_that_left_the_session() {
    let mark = mark();
    let mut spec = role("nasty", &[]);
    spec.env.push((MARK.into(), mark.clone().into()));
    let (init, mut lines) = launch_piped(spec);
    ready(&init);
    lines.roll_call(NASTY);
    // One more than answer the roll call: the stubborn shell sleeps by another program.
    let members = eventually("all to be there", || Some(marked(&mark)).filter(|found| found.len() > NASTY.len()));
    let sessions = members.iter().filter_map(|pid| stat(*pid)).map(|stat| stat.session);
    assert!(sessions.collect::<std::collections::HashSet<_>>().len() > 1, "one of them left the session");
    let members = hold(&members);
    init.kill();
    assert_eq!(exited(&init).0.signal(), Some(Signal::KILL.number()));
    gone(&init);
    assert_eq!(survivors(&members, Instant::now()), 0, "init said that nothing is left");
    assert_eq!(marked(&mark), []);
}

/// Some hundred shells that start others as fast as they can, in a session of their own.
pub(crate) fn a_fork_bomb_is_killed() {
    let bomb = "b() { while :; do if [ $1 -gt 0 ]; then b $(($1-1)) & b $(($1-1)) & else (:) & fi; wait; done; }; \
                echo off; b 5";
    killed_for_good(bomb);
}

/// At any moment there is one process, or two, and never for long the same.
pub(crate) fn a_chain_of_forks_is_killed() {
    killed_for_good("i=0; b() { i=$((i+1)); if [ $i = 20 ]; then echo off; fi; b & }; b");
}

fn killed_for_good(bomb: &str) {
    let mut spec = script("setsid sh -c \"$BOMB\" & sleep 1000");
    spec.env.push(("BOMB".into(), bomb.into()));
    let (init, mut lines) = launch_piped(spec);
    ready(&init);
    lines.roll_call(&["off"]);
    init.kill();
    exited(&init);
    gone(&init);
    // A look at the processes could miss those that come and go. All of them hold the pipe.
    assert_eq!(lines.rest(), "");
}

pub(crate) fn orphans_are_reaped_as_they_die() {
    let (init, mut lines) = launch_piped(script("for i in $(seq 50); do (true &); done; echo up; exec sleep 1000"));
    let worker = ready(&init);
    lines.roll_call(&["up"]);
    eventually("the orphans to be reaped", || (children(pid_of(&init)) == [worker]).then_some(()));
}
