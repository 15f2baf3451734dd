//! What a sandbox has to keep a deed from: things of the host that all may use, and a neighbour.
//!
//! Their permissions forbid nothing, so that a deed fails for the sandbox alone.

use std::{
    fs::{self, Permissions},
    io,
    net::TcpListener,
    os::{
        fd::OwnedFd,
        linux::net::SocketAddrExt,
        unix::{
            fs::PermissionsExt,
            net::{SocketAddr, UnixListener},
        },
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use rustix::{
    fs::{Mode, OFlags},
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
};
use tempfile::TempDir;

use crate::{
    lines::{Lines, eventually},
    place::{Means, Place},
    raw::{Arg, call},
    target::{ACCOUNTS, NAMES, Target, fingerprint},
    worker::{Job, Worker},
};

/// All of it. It goes when this is dropped.
#[derive(Debug)]
pub(crate) struct Scene {
    pub(crate) place: Place,
    /// What does the deed.
    pub(crate) means: Means,
    pub(crate) assets: PathBuf,
    pub(crate) target: Target,
    pub(crate) terminal: Option<OwnedFd>,
    directory: TempDir,
    files: Vec<PathBuf>,
    processes: Vec<Child>,
    /// The host's process, and the neighbour.
    victims: Vec<Worker>,
    /// What listens, the terminal's other side, and a file that programs started by this one would get.
    held: Vec<OwnedFd>,
    shared_memory: i64,
}

/// An ID that a process inside a sandbox cannot have by chance: those are small.
const HIGH_PID: i32 = 200;

impl Scene {
    pub(crate) fn new(place: Place, assets: &Path) -> Self {
        let directory = tempfile::Builder::new().prefix("herd-deeds-scene-").tempdir().expect("a directory");
        open_to_all(directory.path());
        let mark = directory.path().file_name().and_then(|name| name.to_str()).expect("a text").to_owned();
        let mut target = Target::default();
        target.set("mark", &mark);
        target.set("scene", directory.path().display());
        make_workspaces(directory.path(), &mut target);
        let files = write_files(directory.path(), &mark, &mut target);
        let mut held = listen(directory.path(), &mark, &mut target);
        held.push(rustix::fs::open(&files[0], OFlags::RDONLY, Mode::empty()).expect("the file is there"));
        describe_host(&mut target);
        let shared_memory = share_memory(&mark, &mut target);
        let inside = Job::assets_inside(place, assets);
        target.set("assets", inside.display());
        target.set("setuid", inside.join("setuid").display());
        target.set("capable", inside.join("capable").display());
        Self {
            place,
            means: Means::Worker,
            assets: assets.to_owned(),
            target,
            terminal: None,
            directory,
            files,
            processes: Vec::new(),
            victims: Vec::new(),
            held,
            shared_memory,
        }
    }

    /// Starts a process of the host and a neighbour that is confined in the same way as the deed will be.
    pub(crate) fn populate(&mut self) {
        let outside = if self.place.needs_root() { Place::Host } else { Place::User };
        // In namespaces of its own it would be out of the reach of the control.
        let beside = if self.place == Place::Apart { Place::Host } else { self.place };
        for (name, place) in [("host", outside), ("neighbour", beside)] {
            let (victim, pid) = self.victim(name, place);
            self.target.set(&format!("{name}_pid"), pid);
            self.victims.push(victim);
        }
    }

    fn victim(&mut self, name: &str, place: Place) -> (Worker, i32) {
        let mark = format!("{}-{name}-process", self.target.text("mark"));
        let workspace = if name == "neighbour" { name } else { "." };
        let started = (0..HIGH_PID).find_map(|_| {
            let mut victim = self.job(place, workspace, &["role:victim", &mark]).start();
            if let Some(failure) = victim.failure() {
                panic!("the {name} does not start: {failure}");
            }
            let line = victim.stdout.next();
            let pid = pid_of(&mark).expect("it runs");
            (pid > HIGH_PID).then_some((victim, pid, line))
        });
        let (victim, pid, line) = started.expect("process IDs grow");
        let [port, memory] = line.split(' ').collect::<Vec<_>>()[..] else { panic!("{line:?} is not PORT MEMORY") };
        self.target.set(&format!("{name}_port"), port);
        self.target.set(&format!("{name}_memory"), memory);
        self.target.set(&format!("{name}_abstract"), &mark);
        for (directory, kind) in [("/tmp", "tmp"), ("/dev/shm", "shm")] {
            let path = Path::new(directory).join(&mark);
            self.target.set(&format!("{name}_{kind}"), path.display());
            self.files.push(path);
        }
        (victim, pid)
    }

    /// A terminal that belongs to a session of the host.
    pub(crate) fn open_terminal(&mut self) {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).expect("a terminal");
        grantpt(&master).expect("a terminal");
        unlockpt(&master).expect("a terminal");
        let path = ptsname(&master, Vec::new()).expect("a terminal").into_string().expect("a text");
        let open = || rustix::fs::open(&path, OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC, Mode::empty());
        let mut owner = Command::new("setsid");
        let pipe = "echo mine; exec sleep 1000";
        owner.args(["--ctty", "sh", "-c", pipe]).stdin(Stdio::from(open().expect("a terminal")));
        let mut owner = owner.stdout(Stdio::piped()).spawn().expect("util-linux has setsid");
        assert_eq!(Lines::new(owner.stdout.take().expect("a pipe").into()).next(), "mine");
        self.processes.push(owner);
        self.terminal = Some(open().expect("a terminal"));
        self.held.push(master);
    }

    /// This program with arguments, in one of the two workspaces of the scene.
    pub(crate) fn job(&self, place: Place, workspace: &str, args: &[&str]) -> Job<'_> {
        let does_the_deed = matches!(args.first(), Some(&"role:deed"));
        Job {
            place,
            means: if does_the_deed { self.means } else { Means::Worker },
            assets: &self.assets,
            workspace: self.directory.path().join(workspace),
            program: Job::assets_inside(place, &self.assets).join("program"),
            args: args.iter().map(|arg| (*arg).to_owned()).collect(),
            stderr: self.terminal.as_ref().map(|terminal| terminal.try_clone().expect("a duplicate")),
        }
    }

    /// The workspace in which the deed is done, by the host's name.
    pub(crate) fn workspace(&self) -> PathBuf {
        self.directory.path().join("workspace")
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        for child in &mut self.processes {
            let _ = child.kill();
            let _ = child.wait();
        }
        for path in &self.files {
            let _ = fs::remove_file(path);
        }
        let id = Arg::Int(self.shared_memory);
        let _ = call(libc::SYS_shmctl, &[id, Arg::Int(libc::IPC_RMID.into()), Arg::Int(0)]);
        let _ = call(libc::SYS_mq_unlink, &[Arg::Text(self.target.text("message_queue"))]);
    }
}

/// That of the deed, and that of the neighbour with a secret in it.
fn make_workspaces(directory: &Path, target: &mut Target) {
    for name in ["workspace", "neighbour"] {
        let path = directory.join(name);
        fs::create_dir(&path).expect("a directory");
        open_to_all(&path);
    }
    let neighbour = directory.join("neighbour");
    target.set("neighbour_workspace", neighbour.display());
    fs::write(neighbour.join("secret"), "a secret of another worker").expect("it is ours");
    open_to_all(&neighbour.join("secret"));
}

fn write_files(directory: &Path, mark: &str, target: &mut Target) -> Vec<PathBuf> {
    let places = [
        ("host_tmp", PathBuf::from(format!("/tmp/{mark}-host"))),
        ("host_shm", PathBuf::from(format!("/dev/shm/{mark}-host"))),
        ("host_var_tmp", PathBuf::from(format!("/var/tmp/{mark}-host"))),
        ("configuration", directory.join("herd.yaml")),
    ];
    let write = |(name, path): (&str, PathBuf)| {
        fs::write(&path, "a secret of the host").expect("all may write there");
        open_to_all(&path);
        target.set(name, path.display());
        path
    };
    places.into_iter().map(write).collect()
}

/// As the gateway, as the admin port, as the control socket, and by an abstract name.
fn listen(directory: &Path, mark: &str, target: &mut Target) -> Vec<OwnedFd> {
    let gateway = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
    let admin = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
    let port = |listener: &TcpListener| listener.local_addr().expect("an address").port();
    target.set("gateway_port", port(&gateway));
    target.set("admin_port", port(&admin));
    // Where the host has IPv6.
    let admin_too = TcpListener::bind(("::1", port(&admin))).ok();
    let control = directory.join("herd.sock");
    let control_socket = UnixListener::bind(&control).expect("a path");
    open_to_all(&control);
    target.set("control_socket", control.display());
    let name = format!("{mark}-host");
    let address = SocketAddr::from_abstract_name(&name).expect("a name");
    let abstract_socket = UnixListener::bind_addr(&address).expect("a name of its own");
    target.set("host_abstract", name);
    let ports = [Some(gateway), Some(admin), admin_too].into_iter().flatten().map(OwnedFd::from);
    ports.chain([control_socket, abstract_socket].map(OwnedFd::from)).collect()
}

fn describe_host(target: &mut Target) {
    for path in ACCOUNTS.iter().chain(NAMES) {
        target.set(path, fingerprint(path).unwrap_or_else(|| "none".to_owned()));
    }
    target.set("host_name", fs::read_to_string("/proc/sys/kernel/hostname").expect("a name").trim());
}

/// A segment of System V and a message queue of POSIX, both of which last until they are removed.
fn share_memory(mark: &str, target: &mut Target) -> i64 {
    let key = 0x4844_0000 | i64::from(std::process::id() & 0xffff);
    let create = Arg::Int((libc::IPC_CREAT | 0o666).into());
    let segment = call(libc::SYS_shmget, &[Arg::Int(key), Arg::Int(4096), create]).expect("a segment").value;
    target.set("shared_memory_key", key);
    let queue = [Arg::Text(mark), Arg::Int((libc::O_CREAT | libc::O_RDWR).into()), Arg::Int(0o666), Arg::Int(0)];
    call(libc::SYS_mq_open, &queue).expect("a queue");
    target.set("message_queue", mark);
    segment
}

fn open_to_all(path: &Path) {
    fs::set_permissions(path, Permissions::from_mode(0o777)).expect("it is ours");
}

/// The victim with this mark, by the host's number.
pub(crate) fn pid_of(mark: &str) -> Option<i32> {
    eventually(|| with_argument("role:victim", mark).first().copied())
}

/// Processes that play a role, or scripts in its stead, and have this among their arguments.
pub(crate) fn with_argument(role: &str, mark: &str) -> Vec<i32> {
    let entries = fs::read_dir("/proc").expect("/proc is mounted");
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok());
    let plays = |pid: &i32| {
        let cmdline = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let args: Vec<_> = cmdline.split(|byte| *byte == 0).collect();
        // What starts a sandbox has all of it among its own arguments, further behind.
        let place = if matches!(args.get(1), Some(&b"-e")) { 3 } else { 1 };
        args.get(place).is_some_and(|arg| *arg == role.as_bytes()) && args.contains(&mark.as_bytes())
    };
    pids.filter(plays).collect()
}

/// What the neighbour does: it has secrets in all places that are open to it, says where, and stays.
pub(crate) fn play_victim(mark: &str) {
    for directory in ["/tmp", "/dev/shm"] {
        let path = Path::new(directory).join(mark);
        match fs::write(&path, "a secret") {
            Ok(()) => open_to_all(&path),
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::PermissionDenied, "{error}"),
        }
    }
    let secret = std::hint::black_box(b"a secret in memory, which nobody shall read".to_vec());
    let listener = match TcpListener::bind(("127.0.0.1", 0)) {
        Ok(listener) => Some(listener),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => None,
        Err(error) => panic!("{error}"),
    };
    let port = listener.as_ref().map_or(0, |listener| listener.local_addr().expect("an address").port());
    let address = SocketAddr::from_abstract_name(mark).expect("a name");
    let _abstract = UnixListener::bind_addr(&address).expect("a name of its own");
    crate::worker::say(&format!("{port} {}", secret.as_ptr().addr()));
    crate::role::block();
}
