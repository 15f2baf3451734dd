//! What the tests start workers with, and how they talk to them.

use std::{
    env, fs,
    os::unix::{fs::chown, process::CommandExt as _},
    process::{Command, Stdio},
    time::Duration,
};

use herd_pool::{Connect as _, WorkerFactory as _, WorkerId};
use herd_process::{Network, ProcessFactory, ProcessFactoryBuilder, ProcessWorker, Readiness};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, PidfdFlags, geteuid, pidfd_open},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    runtime::{Builder, Runtime},
    task::spawn_blocking,
    time::{sleep, timeout},
};

/// Longer than anything here takes on a busy machine: a test that waits for so long has failed.
const PATIENCE: Duration = Duration::from_secs(60);

/// A user whom nobody on the host knows.
const USER: u32 = 2_100_080_000;

pub(crate) fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().expect("a runtime")
}

/// Waits for something that happens unless the test fails.
pub(crate) async fn patiently<T>(future: impl Future<Output = T>) -> T {
    timeout(PATIENCE, future).await.expect("it happens")
}

/// Workers that this binary plays, with a way out that leads to this beyond public addresses.
pub(crate) fn factory(allow: &[&str]) -> ProcessFactoryBuilder {
    let exe = env::current_exe().expect("this binary");
    let factory = ProcessFactory::new(exe).arg("worker").network(Network::Egress).ready(Readiness::Tcp);
    let allow = allow.iter().map(|text| text.parse().expect("it can be reached"));
    allow.fold(factory.start_timeout(Duration::from_secs(600)), ProcessFactoryBuilder::egress_allow)
}

/// Starts worker 1 of such a factory.
pub(crate) async fn start(allow: &[&str]) -> ProcessWorker {
    let factory = factory(allow).build().expect("the sandbox can be had");
    patiently(factory.spawn(WorkerId::new(1))).await.expect("the worker starts")
}

/// What the worker says of a deed, see [`role`](crate::role).
pub(crate) async fn ask(worker: &ProcessWorker, deed: &str) -> String {
    let mut stream = patiently(worker.connector().connect()).await.expect("it listens");
    let talk = async {
        stream.write_all(format!("{deed}\n").as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok::<_, std::io::Error>(answer.trim_end().to_owned())
    };
    patiently(talk).await.expect("it answers")
}

/// The processes named pasta below this one, which are few: every test has a process of its own.
pub(crate) fn pastas() -> Vec<u32> {
    let own = std::process::id();
    let all = fs::read_dir("/proc").expect("it is mounted").flatten();
    let pids = all.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    // The program is passt, and pasta one of its names.
    let is_pasta = |pid: &u32| {
        let name = fs::read_to_string(format!("/proc/{pid}/comm"));
        name.is_ok_and(|name| name.starts_with("pasta") || name.starts_with("passt"))
    };
    let is_below = |pid: &u32| {
        let mut above = Some(*pid);
        std::iter::from_fn(|| {
            above = above.and_then(parent);
            above
        })
        .any(|pid| pid == own)
    };
    pids.filter(is_pasta).filter(is_below).collect()
}

/// The one pasta below this process. While it starts it goes on as its own child, and for a moment there are two.
pub(crate) async fn the_pasta() -> u32 {
    patiently(async {
        loop {
            if let [pasta] = pastas()[..] {
                return pasta;
            }
            sleep(Duration::from_millis(1)).await;
        }
    })
    .await
}

fn parent(pid: u32) -> Option<u32> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("PPid:"))?.trim().parse().ok()
}

/// Something that can be waited for until a process of any kind has ended.
pub(crate) fn end_of(pid: u32) -> impl Future<Output = ()> {
    let pid = Pid::from_raw(pid.cast_signed()).expect("not 0");
    let pidfd = pidfd_open(pid, PidfdFlags::empty()).expect("it runs");
    async move {
        let ended = spawn_blocking(move || {
            let mut ready = [PollFd::new(&pidfd, PollFlags::IN)];
            poll(&mut ready, Some(&Timespec::try_from(PATIENCE).expect("a minute")))
        });
        assert_eq!(ended.await.expect("no panic"), Ok(1), "it ends");
    }
}

/// Runs one of the tests once more, as a user without any privilege.
pub(crate) fn as_user(test: &str) {
    let home = tempfile::tempdir().expect("a directory");
    let mut again = Command::new(env::current_exe().expect("this binary"));
    again.args(["as-user", test]).stdin(Stdio::null()).env("XDG_RUNTIME_DIR", home.path()).env("TMPDIR", home.path());
    assert!(geteuid().is_root(), "the world was made by root");
    chown(home.path(), Some(USER), Some(USER)).expect("root may");
    again.uid(USER).gid(USER);
    let output = again.output().expect("this binary can be run by every user: its directories let others pass");
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "{}: {said}", output.status);
}
