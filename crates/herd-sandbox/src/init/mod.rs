//! The init process: it hardens itself, starts one worker, tells what becomes of it, and ends when nothing of the
//! worker is left.
//!
//! One thread, no runtime. The process that was spawned reads the order, and goes on as a process born into the worker's
//! namespaces where the plan says so; that one builds the sandbox, starts the worker, and stays.

mod birth;
mod execution;
mod order;
mod privilege;
mod program;
mod root;
mod router;
mod setup;
mod supervisor;
mod tree;
mod worker;

use std::{
    ffi::CStr,
    io,
    os::fd::AsFd,
    panic::{AssertUnwindSafe, catch_unwind},
};

use rustix::{
    fs::Mode,
    io::{FdFlags, fcntl_setfd},
    process::{
        DumpableBehavior, Signal, getpid, set_child_subreaper, set_dumpable_behavior, set_parent_process_death_signal,
        setsid,
    },
    thread::set_name,
};

use self::{
    order::{Belongings, Order},
    supervisor::Supervisor,
};
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
    // A panic must not unwind into the program's own main.
    let begun = catch_unwind(AssertUnwindSafe(|| begin(channel)));
    let mut supervisor = match begun.unwrap_or_else(|_| process::exit_now(FAILED)) {
        Ok(supervisor) => supervisor,
        Err((channel, failure)) => {
            let code = if failure.is_some() { FAILED } else { DONE };
            if let Some(failure) = failure {
                report(&channel, Report::Failed(failure));
            }
            // The end of the stream is what is waited for; the rest of this process's end is not.
            channel.shut_down();
            process::exit_now(code);
        }
    };
    // Whatever happens in there, even a panic: the worker does not outlive its init.
    let _ = catch_unwind(AssertUnwindSafe(|| supervisor.supervise()));
    supervisor.end();
    process::exit_now(DONE);
}

/// From the order to a worker that is on its way, in the process that stays. Without a failure nobody wants one any
/// more. Nothing of the order is left in this process.
fn begin(channel: Channel) -> Result<Supervisor, (Channel, Option<Failure>)> {
    let prepare = |channel: &Channel| -> Result<Option<worker::Started>, Failure> {
        let Some(order) = Order::wait(channel)? else { return Ok(None) };
        let (mapping, descriptors) = order.split();
        let plan = order::decode(&mapping)?;
        let mut belongings = Belongings::new(descriptors, &plan)?;
        let cgroup = belongings.cgroup.take();
        birth::perform(&plan, cgroup.as_ref().map(AsFd::as_fd), channel)?;
        drop(cgroup);
        if !setup::perform(&plan, channel)? {
            return Ok(None);
        }
        let started = worker::start(&plan, belongings, channel)?;
        if plan.is_isolated() {
            worker::reserve_limits(&plan);
            privilege::keep_what_init_needs(&plan).map_err(|error| failed("capabilities", &error, "of init"))?;
        }
        Ok(Some(started))
    };
    match prepare(&channel) {
        Ok(Some(started)) => Supervisor::new(channel, started)
            .map_err(|(channel, error)| (channel, Some(init_failure("child events", &error)))),
        Ok(None) => Err((channel, None)),
        Err(failure) => Err((channel, Some(failure))),
    }
}

/// Makes this process one that needs nothing, holds nothing and cannot be reached but through its socket.
fn harden(channel: &Channel) -> Result<(), (&'static str, io::Error)> {
    let step = |name| move |error: io::Error| (name, error);
    // First, so that no signal finds it half-way. None is wanted but SIGCHLD, which is read from a descriptor: a
    // service manager that sends SIGTERM to every process means the daemon, which will end its workers in order.
    signal::block_all().map_err(step("signal mask"))?;
    // An ignored SIGCHLD, inherited through exec, would reap children behind init's back.
    signal::reset_dispositions();
    // Nothing of the daemon, not even what it holds without close-on-exec, reaches the worker through init.
    descriptor::close_from(3, None).map_err(step("descriptors"))?;
    fcntl_setfd(channel, FdFlags::CLOEXEC).map_err(io::Error::from).map_err(step("descriptors"))?;
    // It keeps no file system busy.
    rustix::process::chdir("/").map_err(io::Error::from).map_err(step("root directory"))?;
    // No mode of what the plan creates is less than it says.
    rustix::process::umask(Mode::empty());
    // No core dump, no ptrace and no /proc/PID/mem for others of the same user.
    set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(io::Error::from).map_err(step("dumpable"))?;
    set_name(c"herd-init").map_err(io::Error::from).map_err(step("name"))?;
    settle().map_err(step("session"))?;
    match process::has_threads() {
        Ok(false) => Ok(()),
        Ok(true) => Err(step("single thread")(io::Error::other("the program had started threads already"))),
        Err(error) => Err(step("/proc")(error)),
    }
}

/// What every process needs that may become the one that stays: a child does not inherit it.
fn settle() -> io::Result<()> {
    // Signals of the daemon's terminal are not for init, nor for the worker below it.
    setsid()?;
    // Others of the same user can stop init. Let it go on at least when the launching thread or process ends, so that
    // it notices; where it was not stopped the signal does nothing.
    set_parent_process_death_signal(Some(Signal::CONT))?;
    // Orphans of the worker become children of init, so that no daemonizing escapes it.
    Ok(set_child_subreaper(Some(getpid()))?)
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

fn failed(step: &str, error: &io::Error, hint: &str) -> Failure {
    failure(step, error.raw_os_error(), hint)
}

fn failure(step: &str, errno: Option<i32>, hint: &str) -> Failure {
    Failure { step: step.to_owned(), errno, hint: hint.to_owned() }
}

fn lossy(text: &CStr) -> String {
    text.to_string_lossy().into_owned()
}
