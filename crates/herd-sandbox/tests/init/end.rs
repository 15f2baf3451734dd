use std::{
    io,
    os::unix::process::ExitStatusExt,
    time::{Duration, Instant},
};

use herd_sandbox::Signal;

use crate::stage::{
    PATIENCE, command, eventually, exited, gone, launch, launch_piped, readable, ready, report, role, script, stat,
};

/// Longer than any test waits: what ends earlier was ended.
const LONG: Duration = Duration::from_secs(3600);

pub(crate) fn an_exit_code_is_reported() {
    for code in [0, 3, 255] {
        let init = launch(script(&format!("exit {code}")));
        ready(&init);
        assert_eq!(exited(&init).0.code(), Some(code));
        gone(&init);
    }
}

pub(crate) fn a_signal_is_reported() {
    for signal in [libc_signal("KILL"), libc_signal("SEGV"), libc_signal("USR1")] {
        let init = launch(script(&format!("kill -{} $$", signal.number())));
        ready(&init);
        assert_eq!(exited(&init).0.signal(), Some(signal.number()));
        gone(&init);
    }
}

pub(crate) fn what_the_worker_used_is_reported() {
    // 100 ms of CPU time at least: the limit of one second would end it otherwise.
    let init = launch(script("i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done"));
    ready(&init);
    let (status, usage) = exited(&init);
    assert!(status.success());
    assert!(usage.user + usage.system > Duration::from_millis(10), "{usage:?}");
    assert!(usage.user + usage.system < PATIENCE, "{usage:?}");
    assert!((100 << 10..1 << 30).contains(&usage.max_rss), "{usage:?}");
    gone(&init);
}

pub(crate) fn stop_is_obeyed_within_its_grace() {
    let (init, mut lines) = launch_piped(script("trap 'exit 7' TERM; echo up; while :; do sleep 1000 & wait; done"));
    ready(&init);
    lines.roll_call(&["up"]);
    init.stop(Signal::TERM, LONG).expect("init listens");
    assert_eq!(exited(&init).0.code(), Some(7));
    gone(&init);
}

pub(crate) fn stop_wakes_a_stopped_worker() {
    let init = launch(script("trap 'exit 7' TERM; kill -STOP $$; sleep 1000"));
    let worker = ready(&init);
    eventually("the worker to stop", || (stat(worker)?.state == 'T').then_some(()));
    init.stop(Signal::TERM, LONG).expect("init listens");
    assert_eq!(exited(&init).0.code(), Some(7));
    gone(&init);
}

pub(crate) fn stop_kills_after_its_grace() {
    let (init, mut lines) = launch_piped(script("trap '' TERM; echo up; while :; do sleep 1000; done"));
    ready(&init);
    lines.roll_call(&["up"]);
    let begin = Instant::now();
    let grace = Duration::from_millis(100);
    init.stop(Signal::TERM, grace).expect("init listens");
    assert_eq!(exited(&init).0.signal(), Some(Signal::KILL.number()));
    assert!(begin.elapsed() >= grace);
    gone(&init);
    assert_eq!(lines.rest(), "", "all that held the pipe are gone");
}

pub(crate) fn a_second_stop_shortens_the_grace_and_never_extends_it() {
    for graces in [[LONG, Duration::ZERO], [Duration::from_millis(50), LONG], [Duration::MAX, Duration::ZERO]] {
        let (init, mut lines) = launch_piped(script("trap '' TERM; echo up; while :; do sleep 1000; done"));
        ready(&init);
        lines.roll_call(&["up"]);
        for grace in graces {
            init.stop(Signal::TERM, grace).expect("init listens");
        }
        assert_eq!(exited(&init).0.signal(), Some(Signal::KILL.number()));
        gone(&init);
    }
}

pub(crate) fn a_stop_right_after_the_launch_is_not_lost() {
    for _ in 0..20 {
        let init = launch(command("sleep", &["1000"]));
        init.stop(Signal::TERM, LONG).expect("init listens");
        // Whether the program ran already is a matter of luck; that the signal ends it is not.
        ready(&init);
        assert_eq!(exited(&init).0.signal(), Some(Signal::TERM.number()));
        gone(&init);
    }
}

pub(crate) fn a_signal_reaches_the_whole_group() {
    let text = "(trap 'echo child; exit' USR1; echo up; while :; do sleep 1000 & wait; done) & \
                trap 'wait; echo parent; exit' USR1; echo up; while :; do wait; done";
    let (init, mut lines) = launch_piped(script(text));
    ready(&init);
    lines.roll_call(&["up", "up"]);
    // The sleeping grandchildren die of it, which is what a group is for.
    init.signal(Signal::USR1).expect("init listens");
    lines.roll_call(&["child", "parent"]);
    exited(&init);
    gone(&init);
}

pub(crate) fn kill_ends_the_worker_at_once() {
    let (init, mut lines) = launch_piped(role("nasty", &[]));
    ready(&init);
    lines.roll_call(crate::role::NASTY);
    init.kill();
    assert_eq!(exited(&init).0.signal(), Some(Signal::KILL.number()));
    gone(&init);
    assert_eq!(lines.rest(), "");
}

pub(crate) fn reports_wait_for_a_launcher_that_does_not_read() {
    let init = launch(script("exit 5"));
    assert!(readable(init.pidfd(), Instant::now() + PATIENCE), "init waits for its launcher");
    ready(&init);
    assert_eq!(exited(&init).0.code(), Some(5));
    gone(&init);
    // The answers stay the same.
    assert!(report(&init).is_none());
    assert!(init.reap().expect("it is known").success());
    let error = init.signal(Signal::TERM).expect_err("init is gone");
    assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
}

pub(crate) fn requests_never_block() {
    let init = launch(command("sleep", &["1000"]));
    ready(&init);
    let pid = crate::stage::pid_of(&init);
    rustix::process::kill_process(pid, rustix::process::Signal::STOP).expect("init is ours");
    // Init reads nothing now, so its buffer fills.
    let full = (0..1_000_000).find_map(|_| init.signal(Signal::CONT).err()).expect("no buffer is that large");
    assert_eq!(full.kind(), io::ErrorKind::WouldBlock);
    // Even then a kill gets through.
    init.kill();
    rustix::process::kill_process(pid, rustix::process::Signal::CONT).expect("init is ours");
    exited(&init);
    gone(&init);
}

fn libc_signal(name: &str) -> Signal {
    name.parse().expect("a signal")
}
