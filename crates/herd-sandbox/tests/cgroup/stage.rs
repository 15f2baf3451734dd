//! What the tests have in common: cgroups to work in, and processes of this binary in other roles.

use std::{
    fs,
    io::{self, BufRead as _, BufReader, Write as _},
    os::unix::process::ExitStatusExt as _,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio},
    time::Duration,
};

use herd_sandbox::cgroup::{Cgroup, CgroupRoot, Limits};

/// The hierarchy of the virtual machine.
pub(crate) const HIERARCHY: &str = "/sys/fs/cgroup";

/// Everything that is waited for happens within milliseconds, or tens of them under emulation.
pub(crate) const SOON: Duration = Duration::from_secs(30);

/// The user of tests without root.
pub(crate) const USER: u32 = 1000;

pub(crate) const NO_LIMITS: Limits = Limits { memory: None, cpu: None, pids: None };

/// Opens the test's own cgroup.
pub(crate) fn root() -> CgroupRoot {
    CgroupRoot::open().expect("the test's cgroup is delegated: cargo xtask test sees to that")
}

pub(crate) fn cgroup(root: &CgroupRoot, name: &str, limits: &Limits) -> Cgroup {
    root.create(name, limits).expect("a cgroup with limits")
}

/// The directory of this process's own cgroup.
pub(crate) fn own_cgroup() -> PathBuf {
    let text = fs::read_to_string("/proc/self/cgroup").expect("/proc");
    let path = text.strip_prefix("0::/").expect("cgroup v2 alone: cargo xtask test runs this where it is").trim_end();
    Path::new(HIERARCHY).join(path)
}

/// Leaves the test's cgroup for one below, hands the controllers on, and makes another one below it, in which nobody is.
pub(crate) fn place(name: &str, controllers: &str) -> PathBuf {
    let own = own_cgroup();
    let runner = own.join("runner");
    fs::create_dir(&runner).expect("a cgroup for this process");
    write(&runner, "cgroup.procs", "0");
    write(&own, "cgroup.subtree_control", controllers);
    let place = own.join(name);
    fs::create_dir(&place).expect("a cgroup for others");
    place
}

pub(crate) const CONTROLLERS: &str = "+cpu +memory +pids";

/// What systemd does for a user: the directory and what `/sys/kernel/cgroup/delegate` lists, as far as it is for dividing.
pub(crate) fn give_to_user(place: &Path) {
    for file in [".", "cgroup.procs", "cgroup.subtree_control", "cgroup.threads"] {
        std::os::unix::fs::chown(place.join(file), Some(USER), Some(USER)).expect("root may give it away");
    }
}

pub(crate) fn write(cgroup: &Path, file: &str, value: &str) {
    let path = cgroup.join(file);
    fs::write(&path, value).unwrap_or_else(|error| panic!("{} <- {value}: {error}", path.display()));
}

pub(crate) fn read(cgroup: &Path, file: &str) -> String {
    let path = cgroup.join(file);
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    text.trim_end().to_owned()
}

/// This binary, started in a cgroup to play a role.
pub(crate) fn role(cgroup: &Path, role: &[&str]) -> Actor {
    Actor::start(Command::new(THIS_PROGRAM).arg("role:in").arg(cgroup).args(role))
}

/// The same without root.
pub(crate) fn user_role(cgroup: &Path, role: &[&str]) -> Actor {
    Actor::start(Command::new(THIS_PROGRAM).arg("role:user").arg(cgroup).args(role))
}

/// The user need not be able to get at its file by name.
pub(crate) const THIS_PROGRAM: &str = "/proc/self/exe";

/// A process that plays a role and says what happens, a line each. Dropping it kills it.
pub(crate) struct Actor {
    child: Child,
    lines: BufReader<ChildStdout>,
    /// Its end tells some roles to go on.
    stdin: Option<ChildStdin>,
}

impl Actor {
    pub(crate) fn start(command: &mut Command) -> Self {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("this binary again");
        let lines = BufReader::new(child.stdout.take().expect("it is piped"));
        let stdin = child.stdin.take();
        Self { child, lines, stdin }
    }

    /// What it says next; empty if it ended.
    pub(crate) fn says(&mut self) -> String {
        let mut line = String::new();
        self.lines.read_line(&mut line).expect("lines of text");
        line.trim_end().to_owned()
    }

    /// Waits until it says so.
    #[track_caller]
    pub(crate) fn expect(&mut self, line: &str) {
        assert_eq!(self.says(), line);
    }

    /// Tells it to go on.
    pub(crate) fn prompt(&mut self) {
        drop(self.stdin.take());
    }

    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("it is a child");
    }

    pub(crate) fn end(&mut self) -> ExitStatus {
        self.child.wait().expect("it is a child")
    }

    #[track_caller]
    pub(crate) fn succeeds(mut self) {
        let status = self.end();
        assert!(status.success(), "{status}");
    }

    #[track_caller]
    pub(crate) fn was_killed(&mut self) {
        assert_eq!(self.end().signal(), Some(9));
    }

    pub(crate) fn is_alive(&mut self) -> bool {
        self.child.try_wait().expect("it is a child").is_none()
    }
}

impl Drop for Actor {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One write, so that lines of several processes do not mix.
pub(crate) fn say(line: &str) {
    let mut out = io::stdout().lock();
    out.write_all(format!("{line}\n").as_bytes()).and_then(|()| out.flush()).expect("somebody listens");
}

#[track_caller]
pub(crate) fn empties(cgroup: &Cgroup) {
    assert!(cgroup.wait_empty(SOON).expect("its events can be waited for"), "processes live on in it");
}
