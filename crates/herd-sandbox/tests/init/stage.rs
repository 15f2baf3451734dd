//! What the tests have in common: launching, waiting with a deadline, and looking at processes from outside.

use std::{
    fs::{self, File},
    io::{self, Read, Write},
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
    process::{Command, ExitStatus},
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use herd_sandbox::{Failure, Init, Report, Spec, Usage};
use rustix::{
    event::{PollFd, PollFlags, poll},
    process::{Pid, PidfdFlags, pidfd_open},
};

/// Longer than anything here takes on a loaded machine. Reaching it fails the test.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// The environment variable by which processes of one test are found.
pub(crate) const MARK: &str = "HERD_TEST_MARK";

pub(crate) const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A text that no other test and no other run has.
pub(crate) fn mark() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("herd-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// This very binary.
pub(crate) fn this_program() -> PathBuf {
    std::env::current_exe().expect("the test binary has a path")
}

/// Writes a file by another process. One that this process has written may not be executable for a moment: a program
/// that another thread is starting holds a copy of the open file until its exec.
pub(crate) fn write_program(path: &Path, text: &str, mode: u32) {
    let (reader, mut writer) = io::pipe().expect("a pipe");
    let mut install = installer(Path::new("/dev/stdin"), path, mode).stdin(reader).spawn().expect("coreutils");
    writer.write_all(text.as_bytes()).expect("install reads");
    drop(writer);
    assert!(install.wait().expect("it is our child").success());
}

/// Copies a file by another process, for the same reason.
pub(crate) fn install(from: &Path, to: &Path, mode: u32) {
    assert!(installer(from, to, mode).status().expect("coreutils").success());
}

fn installer(from: &Path, to: &Path, mode: u32) -> Command {
    let mut install = Command::new("install");
    install.arg("-m").arg(format!("{mode:o}")).arg(from).arg(to);
    install
}

/// A program of the system with arguments.
pub(crate) fn command(program: &str, args: &[&str]) -> Spec {
    let mut spec = Spec::new(program);
    spec.args = args.iter().map(Into::into).collect();
    spec.env = vec![("PATH".into(), PATH.into())];
    spec
}

/// A shell script.
pub(crate) fn script(text: &str) -> Spec {
    command("sh", &["-c", text])
}

/// This binary in one of its roles.
pub(crate) fn role(name: &str, args: &[&str]) -> Spec {
    let mut spec = command(this_program().to_str().expect("the path is text"), &[&format!("role:{name}")]);
    spec.args.extend(args.iter().map(Into::into));
    spec
}

/// Like [`Init::launch`], for specs that are right.
pub(crate) fn launch(spec: Spec) -> Init {
    Init::launch(spec).expect("init starts")
}

/// Launches with a pipe as standard output and gives its reading end.
pub(crate) fn launch_piped(mut spec: Spec) -> (Init, Lines) {
    let (reader, writer) = io::pipe().expect("a pipe");
    spec.stdout = Some(writer.into());
    (launch(spec), Lines::new(reader.into()))
}

/// Runs to the end and gives the output.
pub(crate) fn output(spec: Spec) -> String {
    let (init, mut lines) = launch_piped(spec);
    let output = lines.rest();
    ready(&init);
    assert_eq!(exited(&init).0.code(), Some(0), "{output}");
    gone(&init);
    output
}

/// Waits for the next report.
pub(crate) fn report(init: &Init) -> Option<Report> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match init.recv() {
            Ok(report) => return report,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                assert!(readable(init, deadline), "no report from init {}", init.pid());
            }
            Err(error) => panic!("init {}: {error}", init.pid()),
        }
    }
}

pub(crate) fn ready(init: &Init) -> Pid {
    match report(init) {
        Some(Report::Ready { pid }) => Pid::from_raw(pid.cast_signed()).expect("a process ID"),
        other => panic!("not ready: {other:?}"),
    }
}

pub(crate) fn failure(init: &Init) -> Failure {
    match report(init) {
        Some(Report::Failed(failure)) => failure,
        other => panic!("no failure: {other:?}"),
    }
}

pub(crate) fn exited(init: &Init) -> (ExitStatus, Usage) {
    match report(init) {
        Some(Report::Exited { status, usage }) => (status, usage),
        other => panic!("not exited: {other:?}"),
    }
}

/// Init says that nothing is left, and is reaped.
pub(crate) fn gone(init: &Init) {
    let last = report(init);
    assert!(last.is_none(), "{last:?}");
    assert!(init.reap().expect("init is our child").success());
}

/// Waits until the descriptor is readable; false if the deadline comes first.
pub(crate) fn readable(descriptor: impl AsFd, deadline: Instant) -> bool {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let mut polled = [PollFd::new(&descriptor, PollFlags::IN)];
        let timeout = left.try_into().expect("a short time");
        match poll(&mut polled, Some(&timeout)) {
            Ok(0) => return false,
            Ok(_) => return true,
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => panic!("poll: {error}"),
        }
    }
}

/// Looks again and again until it finds what it waits for: for what the kernel sends no event about.
pub(crate) fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        let pause = Duration::from_millis(1).try_into().expect("a short time");
        let _ = poll(&mut [], Some(&pause));
    }
}

/// Lines from a pipe, with a deadline for each.
#[derive(Debug)]
pub(crate) struct Lines {
    pipe: File,
    buffer: Vec<u8>,
}

impl Lines {
    pub(crate) fn new(pipe: OwnedFd) -> Self {
        Self { pipe: pipe.into(), buffer: Vec::new() }
    }

    pub(crate) fn next(&mut self) -> String {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                return String::from_utf8(line).expect("text").trim_end().to_owned();
            }
            assert!(self.fill(), "the pipe ended in the middle of {:?}", String::from_utf8_lossy(&self.buffer));
        }
    }

    /// As many lines as there are names, in any order.
    pub(crate) fn roll_call(&mut self, names: &[&str]) {
        let mut missing = names.to_vec();
        while !missing.is_empty() {
            let line = self.next();
            let place = missing.iter().position(|name| *name == line);
            missing.remove(place.unwrap_or_else(|| panic!("{line:?} is none of {missing:?}")));
        }
    }

    /// All up to the end, which comes when the last process that holds the pipe is gone.
    pub(crate) fn rest(&mut self) -> String {
        while self.fill() {}
        String::from_utf8(std::mem::take(&mut self.buffer)).expect("text")
    }

    fn fill(&mut self) -> bool {
        assert!(readable(&self.pipe, Instant::now() + PATIENCE), "the pipe stays silent and open");
        let mut chunk = [0; 4096];
        let length = self.pipe.read(&mut chunk).expect("a readable pipe");
        self.buffer.extend_from_slice(&chunk[..length]);
        length > 0
    }
}

/// One line of `/proc/PID/stat`.
#[derive(Debug)]
pub(crate) struct Stat {
    pub(crate) state: char,
    pub(crate) parent: i32,
    pub(crate) group: i32,
    pub(crate) session: i32,
    pub(crate) terminal: i32,
}

pub(crate) fn stat(pid: Pid) -> Option<Stat> {
    let text = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_pid())).ok()?;
    let mut fields = text.rsplit_once(')')?.1.split_ascii_whitespace();
    let state = fields.next()?.chars().next()?;
    let mut number = || fields.next()?.parse().ok();
    Some(Stat { state, parent: number()?, group: number()?, session: number()?, terminal: number()? })
}

/// The field of `/proc/PID/status`.
pub(crate) fn status_field(status: &str, name: &str) -> String {
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.unwrap_or_else(|| panic!("no {name} in {status}")).trim().to_owned()
}

pub(crate) fn processes() -> impl Iterator<Item = Pid> {
    let entries = fs::read_dir("/proc").expect("/proc is mounted");
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok().and_then(Pid::from_raw))
}

/// All processes with this mark in their environment.
pub(crate) fn marked(mark: &str) -> Vec<Pid> {
    let variable = format!("{MARK}={mark}").into_bytes();
    let has_mark = |pid: &Pid| {
        let environ = fs::read(format!("/proc/{}/environ", pid.as_raw_pid())).unwrap_or_default();
        environ.split(|byte| *byte == 0).any(|entry| entry == variable)
    };
    processes().filter(has_mark).collect()
}

pub(crate) fn children(of: Pid) -> Vec<Pid> {
    processes().filter(|pid| stat(*pid).is_some_and(|stat| stat.parent == of.as_raw_pid())).collect()
}

pub(crate) fn pid_of(init: &Init) -> Pid {
    Pid::from_raw(init.pid().cast_signed()).expect("a process ID")
}

pub(crate) fn hold(pids: &[Pid]) -> Vec<OwnedFd> {
    pids.iter().map(|pid| pidfd_open(*pid, PidfdFlags::empty()).expect("it runs")).collect()
}

/// Waits until all these processes have ended; gives the number of those that have not at the deadline.
pub(crate) fn survivors(pidfds: &[OwnedFd], deadline: Instant) -> usize {
    pidfds.iter().filter(|pidfd| !readable(pidfd, deadline)).count()
}
