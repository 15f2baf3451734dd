//! The init process: it hardens itself, starts one worker, tells what becomes of it, and ends when nothing of the
//! worker is left.
//!
//! One thread, no runtime, and it waits in one place only.

mod program;
mod supervisor;
mod tree;
mod worker;

use std::{
    io,
    panic::{AssertUnwindSafe, catch_unwind},
};

use rustix::{
    io::{FdFlags, fcntl_setfd},
    process::{
        DumpableBehavior, Signal, getpid, set_child_subreaper, set_dumpable_behavior, set_parent_process_death_signal,
        setsid,
    },
    thread::set_name,
};

use self::supervisor::Supervisor;
use crate::{
    Failure, Report,
    channel::Channel,
    protocol::{Reply, VERSION},
    sys::{descriptor, process, signal},
};

/// Nothing of the worker is left.
const DONE: i32 = 0;
/// Init could not even begin: nothing was started.
const FAILED: i32 = 1;

/// What a process does that was started as init.
pub(crate) fn run() -> ! {
    let channel = Channel::from_descriptor(descriptor::take_standard_input());
    if let Err((step, error)) = harden(&channel) {
        report(&channel, Report::Failed(init_failure(step, &error)));
        process::exit_now(FAILED);
    }
    // Who sends the plan learns first that this is an init. If it is gone already there is nothing to do, and nothing
    // may be started: it takes the absence of this message as a promise of that.
    if channel.send(&Reply::Hello { version: VERSION }.encode(), &[]).is_err() {
        process::exit_now(FAILED);
    }
    let mut supervisor = match Supervisor::new(channel) {
        Ok(supervisor) => supervisor,
        Err((channel, error)) => {
            report(&channel, Report::Failed(init_failure("child events", &error)));
            process::exit_now(FAILED);
        }
    };
    // Whatever happens in there, even a panic: the worker does not outlive its init.
    let _ = catch_unwind(AssertUnwindSafe(|| supervisor.supervise()));
    supervisor.end();
    process::exit_now(DONE);
}

/// Makes this process one that needs nothing, holds nothing and cannot be reached but through its socket.
fn harden(channel: &Channel) -> Result<(), (&'static str, io::Error)> {
    let step = |name| move |error: io::Error| (name, error);
    // First, so that no signal finds it half-way. None is wanted but SIGCHLD, which is read from a descriptor: a
    // service manager that sends SIGTERM to every process means the daemon, which will end its workers in order.
    signal::block_all().map_err(step("signal mask"))?;
    // An ignored SIGCHLD, inherited through exec, would reap children behind init's back.
    signal::reset_dispositions();
    // Signals of the daemon's terminal are not for init, nor for the worker below it.
    setsid().map_err(io::Error::from).map_err(step("session"))?;
    // Nothing of the daemon, not even what it holds without close-on-exec, reaches the worker through init.
    descriptor::close_from(3, None).map_err(step("descriptors"))?;
    fcntl_setfd(channel, FdFlags::CLOEXEC).map_err(io::Error::from).map_err(step("descriptors"))?;
    // A worker of the same user can stop init. Let it go on at least when the launching thread or process ends, so that
    // it notices; where it was not stopped the signal does nothing.
    set_parent_process_death_signal(Some(Signal::CONT))
        .map_err(io::Error::from)
        .map_err(step("parent death signal"))?;
    // It keeps no file system busy.
    rustix::process::chdir("/").map_err(io::Error::from).map_err(step("root directory"))?;
    // Orphans of the worker become children of init, so that no daemonizing escapes it.
    set_child_subreaper(Some(getpid())).map_err(io::Error::from).map_err(step("subreaper"))?;
    // No core dump, no ptrace and no /proc/PID/mem for others of the same user.
    set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(io::Error::from).map_err(step("dumpable"))?;
    set_name(c"herd-init").map_err(io::Error::from).map_err(step("name"))?;
    match process::has_threads() {
        Ok(false) => Ok(()),
        Ok(true) => Err(step("single thread")(io::Error::other("the program had started threads already"))),
        Err(error) => Err(step("/proc")(error)),
    }
}

/// Tells the launching process. It may be gone or not reading; init goes on all the same.
fn report(channel: &Channel, report: Report) {
    let _ = channel.send(&Reply::Report(report).encode(), &[]);
}

fn init_failure(step: &str, error: &io::Error) -> Failure {
    let hint = match step {
        "single thread" => "call herd_sandbox::enter_init() first in main, before any thread is started",
        "/proc" => "init finds the worker's processes in /proc: mount it",
        "descriptors" => "Linux 5.9 or newer is needed, for close_range(2)",
        _ => "init could not prepare itself",
    };
    Failure { step: step.to_owned(), errno: error.raw_os_error(), hint: hint.to_owned() }
}
