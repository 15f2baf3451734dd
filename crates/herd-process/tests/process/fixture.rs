//! What the tests start workers with.

use std::{
    env, fs,
    os::fd::AsFd as _,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use herd_pool::{SpawnError, Worker as _, WorkerFactory as _, WorkerId};
use herd_process::{ProcessFactory, ProcessFactoryBuilder, ProcessWorker, StartError};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, PidfdFlags, pidfd_open},
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{UnixListener, UnixStream},
    runtime::{Builder, Runtime},
    time::timeout,
};

/// Longer than anything here takes on a busy machine: a test that waits for so long has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A start timeout that only a failed test reaches.
pub(crate) const NEVER: Duration = Duration::from_secs(600);

/// Like the daemon's control runtime.
pub(crate) fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().expect("a runtime")
}

/// A worker that this binary plays, without a sandbox; see [`role`](crate::role).
pub(crate) fn role(words: &[&str]) -> ProcessFactoryBuilder {
    sandboxed_role(words).insecure_sandbox()
}

/// The same in the sandbox that is required.
pub(crate) fn sandboxed_role(words: &[&str]) -> ProcessFactoryBuilder {
    let exe = env::current_exe().expect("this binary");
    ProcessFactory::new(exe).arg("worker").args(words).start_timeout(NEVER)
}

/// A worker that a shell script plays; `$0` in it is this binary.
pub(crate) fn script(text: &str) -> ProcessFactoryBuilder {
    let exe = env::current_exe().expect("this binary");
    ProcessFactory::new("/bin/sh").args(["-c", text]).arg(exe).start_timeout(NEVER).insecure_sandbox()
}

/// Starts worker 1 of a factory with these options.
pub(crate) async fn start<C: Send + Sync + 'static>(options: ProcessFactoryBuilder<C>) -> ProcessWorker<C> {
    let factory = options.build().expect("the options are valid");
    patiently(factory.spawn(WorkerId::new(1))).await.expect("the worker starts")
}

/// Starts worker 1 of a factory with these options, which fails.
pub(crate) async fn fail_to_start(options: ProcessFactoryBuilder) -> Failure {
    let factory = options.build().expect("the options are valid");
    let error = patiently(factory.spawn(WorkerId::new(1))).await.expect_err("the worker does not start");
    patiently(factory.none_left()).await;
    Failure(error)
}

/// Why a worker did not start.
pub(crate) struct Failure(SpawnError);

impl Failure {
    pub(crate) fn reason(&self) -> &StartError {
        self.0.reason().downcast_ref().expect("a factory's errors are start errors")
    }

    /// What clients read.
    pub(crate) fn text(&self) -> String {
        self.0.to_string()
    }
}

/// Waits for something that happens unless the test fails.
pub(crate) async fn patiently<T>(future: impl Future<Output = T>) -> T {
    timeout(PATIENCE, future).await.expect("it happens")
}

/// The body of the worker's answer to a GET.
pub(crate) async fn get(worker: &ProcessWorker, path: &str) -> String {
    use http_body_util::BodyExt as _;

    let response = patiently(worker.client().get(path)).await.expect("the worker answers");
    let body = patiently(response.into_body().collect()).await.expect("the worker answers completely");
    String::from_utf8(body.to_bytes().to_vec()).expect("the worker answers in UTF-8")
}

/// What a shell script prints that the worker runs.
pub(crate) async fn shell(worker: &ProcessWorker, script: &str) -> String {
    let script: String = script.bytes().map(|byte| format!("{byte:02x}")).collect();
    get(worker, &format!("/sh/{script}")).await.trim_end().to_owned()
}

/// Where processes report that they run. They keep the connection open, so its end is theirs.
pub(crate) struct Roll {
    listener: UnixListener,
    directory: TempDir,
}

impl Roll {
    pub(crate) fn new() -> Self {
        let directory = TempDir::new().expect("a directory");
        let listener = UnixListener::bind(directory.path().join("roll")).expect("a socket");
        Self { listener, directory }
    }

    /// What a process of these tests is told in the variable `ROLL`.
    pub(crate) fn path(&self) -> PathBuf {
        self.directory.path().join("roll")
    }

    /// The next process that reports.
    pub(crate) async fn next(&self) -> Process {
        let (stream, _) = patiently(self.listener.accept()).await.expect("a process reports");
        let mut stream = BufReader::new(stream);
        let mut line = String::new();
        patiently(stream.read_line(&mut line)).await.expect("it says who it is");
        let numbers: Vec<u32> = line.split_whitespace().map(|word| word.parse().expect("a number")).collect();
        let [pid, port] = numbers[..] else { panic!("it says its process ID and its port: {line:?}") };
        Process { pid, port: u16::try_from(port).expect("a port"), stream }
    }
}

impl Roll {
    /// Waits until every process that has reported has ended.
    pub(crate) async fn all_gone(&self) {
        while let Ok(accepted) = timeout(Duration::ZERO, self.listener.accept()).await {
            let (mut stream, _) = accepted.expect("a connection");
            let _ = patiently(stream.read_to_end(&mut Vec::new())).await;
        }
    }
}

/// A process that has reported.
pub(crate) struct Process {
    pub(crate) pid: u32,
    pub(crate) port: u16,
    stream: BufReader<UnixStream>,
}

impl Process {
    /// Lets a process go on that waits for it, if it still runs.
    pub(crate) async fn go_on(&mut self) {
        let _ = self.stream.get_mut().write_all(b"\n").await;
    }

    /// Waits until it has ended.
    pub(crate) async fn gone(mut self) {
        // A process that is killed with something unread in its socket resets the connection, which is an end too.
        let _ = patiently(self.stream.read(&mut [0])).await;
    }
}

/// A process of any kind, known by its ID, that runs.
pub(crate) struct Running(rustix::fd::OwnedFd);

impl Running {
    pub(crate) fn new(pid: u32) -> Self {
        let pid = Pid::from_raw(pid.cast_signed()).expect("not 0");
        Self(pidfd_open(pid, PidfdFlags::empty()).expect("it runs"))
    }

    /// Whether it has ended, now.
    pub(crate) fn has_ended(&self) -> bool {
        let mut ready = [PollFd::from_borrowed_fd(self.0.as_fd(), PollFlags::IN)];
        poll(&mut ready, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).expect("a pidfd can be polled") == 1
    }
}

/// Whether a process exists, as a zombie at least.
pub(crate) fn exists(pid: u32) -> bool {
    PathBuf::from(format!("/proc/{pid}")).exists()
}

/// What is left in the one state directory of a base, besides its lock.
pub(crate) fn files_of_workers(base: &Path) -> Vec<String> {
    let state = fs::read_dir(base).expect("it is there").next().expect("a state directory").expect("it can be read");
    let entries = fs::read_dir(state.path()).expect("it is there").flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok()).filter(|name| name != "lock").collect()
}

/// Runs something and tells how long it took.
pub(crate) async fn timed<T>(future: impl Future<Output = T>) -> (T, Duration) {
    let began = Instant::now();
    let result = future.await;
    (result, began.elapsed())
}
