//! The virtual machine itself: whether it has what the tests in it rely on.
#![forbid(unsafe_code)]

use std::{
    fs::{self, File},
    io,
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use libtest_mimic::{Arguments, Failed, Trial};

const HIERARCHY: &str = "/sys/fs/cgroup";

/// Names each test as the built-in harness does.
macro_rules! trials {
    ($($test:ident),* $(,)?) => { vec![$(Trial::test(stringify!($test), $test)),*] };
}

#[expect(clippy::print_stderr, reason = "it is for whoever started this by hand")]
fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    if !arguments.list && !fs::read_to_string("/proc/1/comm").is_ok_and(|name| name.starts_with("virtme")) {
        eprintln!("these tests are for the virtual machine: cargo xtask test");
        return ExitCode::FAILURE;
    }
    let trials = trials![
        a_test_has_a_cgroup_of_its_own,
        a_cgroup_has_the_controllers_of_limits,
        a_limit_of_processes_holds,
        a_user_may_make_namespaces,
        landlock_is_on,
        loopback_is_up,
        scratch_directories_are_in_memory,
        tap_devices_can_be_made,
        the_host_cannot_be_written_to,
    ];
    libtest_mimic::run(&arguments, trials).exit_code()
}

/// Where the process is in the unified hierarchy: cgroups(7), "/proc files".
fn cgroup() -> Result<PathBuf, Failed> {
    let cgroups = fs::read_to_string("/proc/self/cgroup")?;
    let path = cgroups.lines().find_map(|line| line.strip_prefix("0::/")).ok_or("there is no unified hierarchy")?;
    Ok(Path::new(HIERARCHY).join(path))
}

fn a_test_has_a_cgroup_of_its_own() -> Result<(), Failed> {
    let cgroup = cgroup()?;
    check(cgroup != Path::new(HIERARCHY), "this is the root of the hierarchy")?;
    let processes = fs::read_to_string(cgroup.join("cgroup.procs"))?;
    check(processes.trim() == std::process::id().to_string(), &format!("others are in it: {processes}"))
}

fn a_cgroup_has_the_controllers_of_limits() -> Result<(), Failed> {
    let controllers = fs::read_to_string(cgroup()?.join("cgroup.controllers"))?;
    for controller in ["cpu", "memory", "pids"] {
        check(controllers.split_whitespace().any(|word| word == controller), &format!("{controller} is missing"))?;
    }
    Ok(())
}

fn a_limit_of_processes_holds() -> Result<(), Failed> {
    // Its own process is one, and so is each of its threads.
    fs::write(cgroup()?.join("pids.max"), "1")?;
    match Command::new("true").status() {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
        other => Err(format!("a process too many: {other:?}").into()),
    }
}

fn a_user_may_make_namespaces() -> Result<(), Failed> {
    let mut command = Command::new("setpriv");
    command.args(["--reuid=1000", "--regid=1000", "--clear-groups"]);
    command.args(["unshare", "--map-root-user", "--user", "--pid", "--fork", "--mount", "--net", "--ipc", "true"]);
    let output = command.output()?;
    check(output.status.success(), &String::from_utf8_lossy(&output.stderr))
}

fn landlock_is_on() -> Result<(), Failed> {
    let modules = fs::read_to_string("/sys/kernel/security/lsm")?;
    check(modules.split(',').any(|module| module.trim() == "landlock"), &modules)
}

fn loopback_is_up() -> Result<(), Failed> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    TcpStream::connect(listener.local_addr()?)?;
    Ok(())
}

fn scratch_directories_are_in_memory() -> Result<(), Failed> {
    let mounts = fs::read_to_string("/proc/self/mounts")?;
    for directory in ["/run", "/dev/shm", env!("CARGO_TARGET_TMPDIR")] {
        let mounted = mounts.lines().any(|line| line.split(' ').skip(1).take(2).eq([directory, "tmpfs"]));
        check(mounted, &format!("{directory} is no file system in memory:\n{mounts}"))?;
    }
    let file = Path::new("/tmp/written-in-the-virtual-machine");
    File::create_new(file)?;
    Ok(fs::remove_file(file)?)
}

fn tap_devices_can_be_made() -> Result<(), Failed> {
    // What pasta needs to be a worker's way out.
    File::options().read(true).write(true).open("/dev/net/tun")?;
    Ok(())
}

fn the_host_cannot_be_written_to() -> Result<(), Failed> {
    // Directories such as /etc and /tmp can be: what is written there stays in the machine's memory.
    match File::create_new("/written-in-the-virtual-machine") {
        Err(error) if error.kind() == io::ErrorKind::ReadOnlyFilesystem => Ok(()),
        other => Err(format!("the host's file system was written to: {other:?}").into()),
    }
}

fn check(holds: bool, otherwise: &str) -> Result<(), Failed> {
    if holds { Ok(()) } else { Err(otherwise.into()) }
}
