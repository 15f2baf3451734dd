use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

use tempfile::TempDir;

use crate::daemon::{Daemon, herd};

const HIERARCHY: &str = "/sys/fs/cgroup";

/// A cgroup for one daemon, with all controllers, as systemd makes one for a service with `Delegate=yes`.
pub(crate) fn delegated() -> &'static Path {
    static CGROUP: OnceLock<PathBuf> = OnceLock::new();
    CGROUP.get_or_init(|| {
        let own = fs::read_to_string("/proc/self/cgroup").unwrap();
        let own = own.lines().find_map(|line| line.strip_prefix("0::/")).expect("a cgroup of version 2");
        let own = Path::new(HIERARCHY).join(own);
        // A cgroup with processes hands no controllers on, so this one makes room.
        let tests = own.join("tests");
        fs::create_dir(&tests).expect("the tests run in a cgroup that is theirs: cargo xtask test -- enforced::");
        fs::write(tests.join("cgroup.procs"), "0").unwrap();
        fs::write(own.join("cgroup.subtree_control"), "+cpu +memory +pids").unwrap();
        let daemon = own.join("daemon");
        fs::create_dir(&daemon).unwrap();
        daemon
    })
}

/// `herd` with these arguments, inside that cgroup.
pub(crate) fn herd_in_cgroup(args: &[&str], runtime_dir: &Path) -> Command {
    let inner = herd(args, runtime_dir);
    let mut command = Command::new("/bin/sh");
    // 0 is whoever writes it: the shell, which then becomes the daemon. Once a daemon was there, no process can be in the
    // cgroup that it divided, but where the daemon itself went.
    let script = "{ echo 0 > $0/cgroup.procs || echo 0 > $0/herd-daemon/cgroup.procs; } 2> /dev/null && exec \"$@\"";
    command.args(["-c", script]).arg(delegated()).arg(inner.get_program()).args(inner.get_args());
    for (name, value) in inner.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command
}

/// A daemon with the built-in REPL, or with the worker that the configuration names.
pub(crate) fn daemon(configuration: &str) -> Daemon {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("herd.yaml");
    fs::write(&file, configuration).unwrap();
    let socket = directory.path().join("control.sock");
    let (file, control) = (file.to_str().unwrap().to_owned(), socket.to_str().unwrap().to_owned());
    let args = ["serve", "--config", &file, "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"];
    let args = [&args[..], &["--log-format", "json", "--control-socket", &control]].concat();
    let command = herd_in_cgroup(&args, directory.path());
    Daemon::spawn(command, socket, directory)
}

/// The cgroups that daemons have made for their workers.
pub(crate) fn cgroups_of_workers() -> Vec<PathBuf> {
    let entries = fs::read_dir(delegated()).unwrap().map(|entry| entry.unwrap().path());
    entries.filter(|path| path.file_name().unwrap().to_string_lossy().starts_with("herd-workers-")).collect()
}
