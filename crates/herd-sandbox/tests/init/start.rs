use std::{
    fs::{self, File},
    io,
    net::TcpListener,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::{
            fs::{MetadataExt, PermissionsExt},
            net::UnixListener,
            process::CommandExt,
        },
    },
    process::Stdio,
};

use herd_sandbox::Limit;
use rustix::{
    io::{FdFlags, fcntl_dupfd_cloexec, fcntl_setfd},
    process::geteuid,
};

use crate::stage::{
    Lines, command, exited, gone, install, launch, output, pid_of, ready, script, stat, status_field, this_program,
    write_program,
};

pub(crate) fn the_worker_leads_its_own_session_and_group() {
    let init = launch(command("sleep", &["1000"]));
    let worker = ready(&init);
    let stat = stat(worker).expect("it runs");
    let pid = worker.as_raw_pid();
    assert_eq!((stat.session, stat.group, stat.terminal), (pid, pid, 0));
    assert_eq!(stat.parent, pid_of(&init).as_raw_pid());
}

pub(crate) fn init_has_a_session_of_its_own_and_stands_at_the_root() {
    let init = launch(command("sleep", &["1000"]));
    ready(&init);
    let stat = stat(pid_of(&init)).expect("it runs");
    assert_eq!((stat.session, stat.group), (pid_of(&init).as_raw_pid(), pid_of(&init).as_raw_pid()));
    let name = fs::read_to_string(format!("/proc/{}/comm", init.pid())).expect("it runs");
    assert_eq!(name, "herd-init\n");
    if geteuid().is_root() {
        // Others may not look: init is not dumpable.
        assert_eq!(fs::read_link(format!("/proc/{}/cwd", init.pid())).expect("it runs").to_str(), Some("/"));
    }
}

pub(crate) fn the_worker_gets_exactly_the_environment_of_its_spec() {
    let mut spec = command("/usr/bin/env", &["-0"]);
    spec.env = vec![("B".into(), "two = 2".into()), ("A".into(), "".into()), ("LONG".into(), "x\ny".into())];
    assert_eq!(output(spec), "B=two = 2\0A=\0LONG=x\ny\0");

    let mut spec = command("/usr/bin/env", &[]);
    spec.env.clear();
    assert_eq!(output(spec), "");
}

pub(crate) fn the_worker_inherits_no_descriptor() {
    let _strays = strays();
    // `ls` itself opens the directory, as the lowest free number.
    let listed = output(command("ls", &["/proc/self/fd"]));
    assert_eq!(listed.split_whitespace().collect::<Vec<_>>(), ["0", "1", "2", "3"]);
}

/// What a careless program holds: descriptors that survive exec, so that they reach init.
fn strays() -> [OwnedFd; 2] {
    let low = OwnedFd::from(File::open("/etc/passwd").expect("it exists"));
    let high = fcntl_dupfd_cloexec(&low, 700).expect("a high number");
    fcntl_setfd(&low, FdFlags::empty()).expect("a flag");
    fcntl_setfd(&high, FdFlags::empty()).expect("a flag");
    [low, high]
}

pub(crate) fn standard_input_is_dev_null() {
    assert_eq!(output(command("readlink", &["/proc/self/fd/0"])), "/dev/null\n");
    // As a default the outputs are, too.
    let mut spec = script("a=$(readlink /proc/$$/fd/1); b=$(readlink /proc/$$/fd/2); echo $a $b > $OUT");
    let out = tempfile::NamedTempFile::new().expect("a file");
    spec.env.push(("OUT".into(), out.path().into()));
    let init = launch(spec);
    ready(&init);
    exited(&init);
    gone(&init);
    assert_eq!(fs::read_to_string(out.path()).expect("it is there"), "/dev/null /dev/null\n");
}

pub(crate) fn listening_sockets_arrive_as_descriptors_3_and_up() {
    let directory = tempfile::tempdir().expect("a directory");
    let tcp = TcpListener::bind("127.0.0.1:0").expect("a port");
    let unix = UnixListener::bind(directory.path().join("socket")).expect("a socket");
    let name = |fd: i32| fs::read_link(format!("/proc/self/fd/{fd}")).expect("it is open").display().to_string();
    let expected = [name(tcp.as_raw_fd()), name(unix.as_raw_fd())];

    let mut spec =
        script("echo $LISTEN_FDS $LISTEN_PID $$; for fd in 3 4 5; do readlink /proc/$$/fd/$fd; done; exit 0");
    spec.listen = vec![tcp.into(), unix.into()];
    let text = output(spec);
    let mut lines = text.lines();
    let announced: Vec<&str> = lines.next().expect("a line").split(' ').collect();
    assert_eq!(announced[0], "2");
    assert_eq!(announced[1], announced[2], "LISTEN_PID is the worker's own process ID");
    assert_eq!(lines.collect::<Vec<_>>(), expected);
}

pub(crate) fn descriptors_arrive_whatever_their_numbers_were() {
    // More than there are numbers free below, so that old and new numbers overlap in init.
    let files: Vec<tempfile::NamedTempFile> =
        (0..40).map(|_| tempfile::NamedTempFile::new().expect("a file")).collect();
    let mut spec = script("for fd in $(seq 3 42); do readlink /proc/$$/fd/$fd; done; echo $LISTEN_FDS");
    spec.listen = files.iter().rev().map(|file| OwnedFd::from(file.reopen().expect("it is there"))).collect();
    let expected: Vec<String> = files.iter().rev().map(|file| file.path().display().to_string()).collect();
    let text = output(spec);
    let mut lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.pop(), Some("40"));
    assert_eq!(lines, expected);
}

pub(crate) fn limits_are_those_of_the_spec() {
    let mut spec = command("cat", &["/proc/self/limits"]);
    spec.open_files = 123;
    spec.limits.push((Limit::FileSize, 1 << 20));
    spec.limits.push((Limit::CpuTime, 77));
    spec.limits.push((Limit::AddressSpace, 1 << 30));
    let text = output(spec);
    let limit = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)).expect("the limit is listed");
        line.split_whitespace().take(2).map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(limit("Max open files"), ["123", "123"]);
    assert_eq!(limit("Max core file size"), ["0", "0"]);
    assert_eq!(limit("Max file size"), ["1048576", "1048576"]);
    assert_eq!(limit("Max cpu time"), ["77", "77"]);
    assert_eq!(limit("Max address space"), ["1073741824", "1073741824"]);
}

pub(crate) fn umask_and_directory_are_those_of_the_spec() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut spec = script("umask; pwd -P; : > file");
    spec.cwd = Some(directory.path().to_owned());
    spec.umask = 0o026;
    let path = fs::canonicalize(directory.path()).expect("it is there");
    assert_eq!(output(spec), format!("0026\n{}\n", path.display()));
    let mode = fs::metadata(directory.path().join("file")).expect("it was made").permissions().mode();
    assert_eq!(mode & 0o777, 0o640);
    assert_eq!(output(script("umask")), "0077\n");
}

pub(crate) fn the_directory_defaults_to_the_launchers() {
    let here = std::env::current_dir().expect("a directory");
    assert_eq!(output(script("pwd -P")).trim_end(), here.to_str().expect("text"));
}

pub(crate) fn no_signal_is_blocked_or_ignored() {
    // This process ignores SIGPIPE, as all programs in Rust do, and init blocks everything.
    let status = output(command("cat", &["/proc/self/status"]));
    for field in ["SigBlk", "SigIgn", "SigPnd", "ShdPnd"] {
        assert_eq!(status_field(&status, field), "0000000000000000", "{field}");
    }
}

pub(crate) fn privileges_cannot_be_gained() {
    let status = output(command("cat", &["/proc/self/status"]));
    assert_eq!(status_field(&status, "NoNewPrivs"), "1");
}

pub(crate) fn a_program_is_found_in_the_path_of_the_worker() {
    let directory = tempfile::tempdir().expect("a directory");
    let first = directory.path().join("first");
    let second = directory.path().join("second");
    for (directory, mode) in [(&first, 0o644), (&second, 0o755)] {
        fs::create_dir(directory).expect("a directory");
        write_program(&directory.join("herd-tool"), "#!/bin/sh\necho $0\n", mode);
    }
    // As execvp(3) does, the search goes on past what cannot be executed.
    let path = format!("/nonexistent:{}:{}", first.display(), second.display());
    let mut spec = command("herd-tool", &[]);
    spec.env = vec![("PATH".into(), path.into())];
    assert_eq!(output(spec), format!("{}/herd-tool\n", second.display()));

    // Without a PATH there is a default one, and never the launcher's.
    let mut spec = command("cat", &["/dev/null"]);
    spec.env.clear();
    assert_eq!(output(spec), "");
}

pub(crate) fn a_relative_program_is_found_from_the_working_directory() {
    let directory = tempfile::tempdir().expect("a directory");
    write_program(&directory.path().join("tool"), "#!/bin/sh\necho found\n", 0o755);
    let mut spec = command("./tool", &[]);
    spec.cwd = Some(directory.path().to_owned());
    assert_eq!(output(spec), "found\n");
}

pub(crate) fn a_plan_larger_than_any_socket_buffer_arrives() {
    let mut spec = script("echo ${#BIG0} $#");
    // Half a mebibyte; the default buffer of a socket holds 208 KiB.
    spec.env.extend((0..8).map(|number| (format!("BIG{number}").into(), "x".repeat(65_536).into())));
    spec.args.extend((0..1000).map(|number| format!("argument {number}").into()));
    // The first one after the script is `$0`.
    assert_eq!(output(spec), "65536 999\n");
}

pub(crate) fn init_is_found_after_its_file_was_removed() {
    let directory = tempfile::tempdir().expect("a directory");
    let copy = directory.path().join("copy");
    install(&this_program(), &copy, 0o755);
    let output = std::process::Command::new(&copy).arg("role:removed").output().expect("it runs");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "launched\n", "{output:?}");
    assert!(!copy.exists());
}

/// As root its environment, descriptors and memory can be looked at; others are refused that, which is as good.
pub(crate) fn init_keeps_nothing_of_the_launcher_or_the_plan() {
    const SECRET: &str = "correct horse battery";
    let _strays = strays();
    let mut spec = command("sleep", &["1000"]);
    // Put together at run time, so that the text as a whole is not in the program itself.
    let secret = format!("{SECRET} staple {}", std::process::id());
    spec.env.push(("SECRET".into(), secret.clone().into()));
    let init = launch(spec);
    let worker = ready(&init);
    let file = |pid: i32, name: &str| format!("/proc/{pid}/{name}");
    let pid = pid_of(&init).as_raw_pid();
    if !geteuid().is_root() {
        for name in ["environ", "fd", "mem", "maps"] {
            let refused = File::open(file(pid, name)).expect_err("init is not dumpable");
            assert_eq!(refused.kind(), io::ErrorKind::PermissionDenied, "{name}");
        }
        return;
    }
    assert_eq!(fs::read(file(pid, "environ")).expect("it runs"), b"");
    let mut open: Vec<String> = fs::read_dir(file(pid, "fd"))
        .expect("it runs")
        .map(|entry| fs::read_link(entry.expect("an entry").path()).expect("it is open").display().to_string())
        .map(|name| if name.starts_with("socket:") { "socket".to_owned() } else { name })
        .collect();
    open.sort();
    assert_eq!(open, ["/dev/null", "/dev/null", "anon_inode:[signalfd]", "socket"]);
    let finds = |pid: i32| memory(pid).windows(secret.len()).any(|window| window == secret.as_bytes());
    assert!(finds(worker.as_raw_pid()), "the search finds what is there");
    assert!(!finds(pid), "init's memory holds the worker's secret");
}

/// All that can be read of a process's memory.
fn memory(pid: i32) -> Vec<u8> {
    use std::os::unix::fs::FileExt;
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).expect("it runs");
    let mem = File::open(format!("/proc/{pid}/mem")).expect("it runs");
    let mut all = Vec::new();
    for line in maps.lines().filter(|line| !line.contains("[v")) {
        let (start, end) = line.split(' ').next().and_then(|range| range.split_once('-')).expect("a range");
        let number = |text| u64::from_str_radix(text, 16).expect("a number");
        let mut part = vec![0; usize::try_from(number(end) - number(start)).expect("it fits")];
        if mem.read_exact_at(&mut part, number(start)).is_ok() {
            all.append(&mut part);
        }
    }
    all
}

/// The kernel gives the files of a process that is not dumpable to root, see proc_pid(5). Root's own processes do not
/// show that, so the test goes on as another user if it can.
pub(crate) fn init_is_not_dumpable() {
    const NOBODY: u32 = 65534;
    let mut launcher = std::process::Command::new("/proc/self/exe");
    launcher.arg("role:idle").env_clear().current_dir("/").stdin(Stdio::null()).stdout(Stdio::piped());
    let user = if geteuid().is_root() {
        launcher.uid(NOBODY).gid(NOBODY);
        NOBODY
    } else {
        geteuid().as_raw()
    };
    let mut launcher = launcher.spawn().expect("this binary again");
    let mut lines = Lines::new(launcher.stdout.take().expect("a pipe").into());
    let line = lines.next();
    let (init, worker) = line.split_once(' ').expect("two process IDs");
    let owner = |pid: &str| fs::metadata(format!("/proc/{pid}/environ")).expect("it runs").uid();
    let owners = (owner(init), owner(worker));
    launcher.kill().expect("it runs");
    launcher.wait().expect("it is our child");
    assert_eq!(owners, (0, user));
}

pub(crate) fn init_costs_less_than_a_mebibyte() {
    let init = launch(command("sleep", &["1000"]));
    ready(&init);
    let kib = |text: &str, names: &[&str]| -> u64 {
        let value = |name: &&str| status_field(text, name).trim_end_matches(" kB").parse::<u64>().expect("a number");
        names.iter().map(value).sum()
    };
    let status = fs::read_to_string(format!("/proc/{}/status", init.pid())).expect("it runs");
    let anonymous = kib(&status, &["RssAnon"]);
    assert!(anonymous <= 1024, "{anonymous} KiB anonymous");
    if geteuid().is_root() {
        // More exact, and refused to others: init is not dumpable.
        let rollup = fs::read_to_string(format!("/proc/{}/smaps_rollup", init.pid())).expect("it runs");
        let private = kib(&rollup, &["Private_Dirty", "Private_Hugetlb"]);
        assert!(private <= 1024, "{private} KiB private\n{rollup}");
    }
}
