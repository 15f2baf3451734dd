//! A command that runs on while a test looks at it.

use std::{
    net::Shutdown,
    os::unix::{
        net::{UnixListener, UnixStream},
        process::ExitStatusExt as _,
    },
    path::{Path, PathBuf},
    process::{Child, ExitStatus, Stdio},
    sync::{Arc, Condvar, Mutex, mpsc::Receiver},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::{
    client::PATIENCE,
    daemon::{Daemon, herd, lines},
};

#[derive(Debug)]
pub(crate) struct Running {
    child: Child,
    stdout: Receiver<String>,
    stderr: Receiver<String>,
}

impl Running {
    /// A command that talks to the daemon, over its own socket or a relay's.
    pub(crate) fn start(daemon: &Daemon, socket: &Path, args: &[&str]) -> Self {
        let mut command = herd(&[args, &["--socket", socket.to_str().unwrap()]].concat(), daemon.directory());
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let stdout = lines(child.stdout.take().unwrap());
        let stderr = lines(child.stderr.take().unwrap());
        Self { child, stdout, stderr }
    }

    /// The next line that it prints; waits for it.
    #[track_caller]
    pub(crate) fn line(&self) -> String {
        self.stdout.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("nothing comes: {}", self.said()))
    }

    /// Whether it has printed a line that was not read, which this reads.
    pub(crate) fn has_line(&self) -> bool {
        self.stdout.try_recv().is_ok()
    }

    /// Whether it has a connection to its daemon.
    pub(crate) fn is_connected(&self) -> bool {
        let Ok(descriptors) = std::fs::read_dir(format!("/proc/{}/fd", self.child.id())) else { return false };
        let links = descriptors.flatten().filter_map(|entry| std::fs::read_link(entry.path()).ok());
        links.filter(|link| link.to_string_lossy().starts_with("socket:")).count() > 0
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Its exit code, or 128 and the signal, as a shell has it; with the rest of both outputs.
    #[track_caller]
    pub(crate) fn end(mut self) -> (i32, Vec<String>, String) {
        let status = self.wait();
        let rest = self.stdout.iter().collect();
        let code = status.code().or(status.signal().map(|signal| 128 + signal)).unwrap();
        (code, rest, self.stderr.iter().map(|line| line + "\n").collect())
    }

    #[track_caller]
    fn wait(&mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "it does not end: {}", self.said());
            thread::park_timeout(Duration::from_millis(5));
        }
    }

    fn said(&self) -> String {
        self.stderr.try_iter().collect::<Vec<_>>().join("\n")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Passes on what is said on a socket, can break its connections off, and let new ones wait.
#[derive(Debug)]
pub(crate) struct Relay {
    directory: TempDir,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    target: Mutex<PathBuf>,
    connections: Mutex<Vec<UnixStream>>,
    is_closed: Mutex<bool>,
    opened: Condvar,
}

impl Relay {
    pub(crate) fn to(socket: &Path) -> Self {
        let directory = TempDir::new().unwrap();
        let listener = UnixListener::bind(directory.path().join("relay.sock")).unwrap();
        let shared = Arc::new(Shared {
            target: Mutex::new(socket.to_owned()),
            connections: Mutex::default(),
            is_closed: Mutex::default(),
            opened: Condvar::new(),
        });
        let ours = Arc::clone(&shared);
        thread::spawn(move || relay(&listener, &ours));
        Self { directory, shared }
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.directory.path().join("relay.sock")
    }

    /// New connections go there.
    pub(crate) fn lead_to(&self, socket: &Path) {
        socket.clone_into(&mut self.shared.target.lock().unwrap());
    }

    /// Breaks all connections off, and lets those that come wait.
    pub(crate) fn cut(&self) {
        *self.shared.is_closed.lock().unwrap() = true;
        for connection in self.shared.connections.lock().unwrap().drain(..) {
            // One that is over already is cut well enough.
            let _ = connection.shutdown(Shutdown::Both);
        }
    }

    /// Lets those in that wait, and further ones.
    pub(crate) fn open(&self) {
        *self.shared.is_closed.lock().unwrap() = false;
        self.shared.opened.notify_all();
    }
}

fn relay(listener: &UnixListener, shared: &Shared) {
    loop {
        let (near, _) = listener.accept().unwrap();
        drop(shared.opened.wait_while(shared.is_closed.lock().unwrap(), |is_closed| *is_closed).unwrap());
        let Ok(far) = UnixStream::connect(&*shared.target.lock().unwrap()) else { continue };
        shared.connections.lock().unwrap().extend([near.try_clone().unwrap(), far.try_clone().unwrap()]);
        for (from, to) in [(&near, &far), (&far, &near)] {
            let (mut from, mut to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
            thread::spawn(move || {
                // However it ends, the other side gets to know.
                let _ = std::io::copy(&mut from, &mut to);
                let _ = to.shutdown(Shutdown::Write);
            });
        }
    }
}
