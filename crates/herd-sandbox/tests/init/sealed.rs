//! What the namespaces change between the launching process and an init.

use std::{
    fs,
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    os::{fd::OwnedFd, unix::fs::PermissionsExt},
    path::Path,
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use herd_sandbox::{Identity, Init, Isolation, Mode, Mount, Report, Signal, Spec};
use rustix::{
    event::{PollFd, PollFlags, poll},
    io::Errno,
    net::{SocketAddrV4, connect, sockopt::socket_error},
    process::{Pid, Signal as UnixSignal, geteuid, kill_process},
};

use crate::{
    role::{NASTY, outside},
    stage::{
        MARK, PATIENCE, children, command, eventually, exited, gone, hold, launch, launch_piped, mark, marked, output,
        pid_of, ready, report, role, script, stat, status_field, survivors, this_program,
    },
};

/// The same worker in a sandbox that hides nothing of what these tests look at.
pub(crate) fn sealed(mut spec: Spec) -> Spec {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    spec.isolation = Isolation::new(Mode::Required);
    // This very binary, for its roles.
    spec.isolation.files.read_only.push(this_program());
    if geteuid().is_root() {
        let own = 61_000 + (std::process::id() % 1000) * 4 + NEXT.fetch_add(1, Ordering::Relaxed) % 4;
        spec.isolation.identity = Some(Identity { uid: own, gid: own });
    }
    spec
}

pub(crate) fn reported_numbers_are_those_of_the_launchers_namespace() {
    let (init, mut lines) = launch_piped(sealed(script("echo $$; exec sleep 1000")));
    let worker = ready(&init);
    let inside = lines.next();
    assert_eq!(inside, "2", "init is the first process of its namespace");
    let found = stat(worker).expect("it runs");
    assert_eq!(found.parent, pid_of(&init).as_raw_pid());
    assert_eq!(stat(pid_of(&init)).expect("it runs").parent, std::process::id().cast_signed());
    let status = fs::read_to_string(format!("/proc/{}/status", worker.as_raw_pid())).expect("it runs");
    assert!(status.contains(&format!("NSpid:\t{}\t2\n", worker.as_raw_pid())), "{status}");
}

pub(crate) fn a_worker_that_ends_at_once_is_reported_all_the_same() {
    for _ in 0..50 {
        let init = launch(sealed(command("true", &[])));
        assert!(ready(&init).as_raw_pid() > 2);
        assert!(exited(&init).0.success());
        gone(&init);
    }
}

/// PID 1 is immune to signals without a handler; a worker is not PID 1.
pub(crate) fn default_signal_handling_works_as_outside() {
    let init = launch(sealed(command("sleep", &["1000"])));
    ready(&init);
    init.signal(Signal::TERM).expect("init reads");
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&exited(&init).0), Some(libc_sigterm()));
    gone(&init);
}

fn libc_sigterm() -> i32 {
    UnixSignal::TERM.as_raw()
}

pub(crate) fn orphans_are_reaped_by_init() {
    let text = "(sleep 0 & exec true); n=0; while [ $(ls -d /proc/[0-9]* | wc -l) -gt 5 ] && [ $n -lt 1000 ]; \
                do n=$((n+1)); done; grep -l '^State:.Z' /proc/[0-9]*/status; echo end";
    assert!(output(sealed(script(text))).ends_with("end\n"));
}

pub(crate) fn sockets_of_its_network_reach_the_worker_and_nothing_else() {
    let port = 8000;
    let (init, mut lines) = launch_piped(sealed(role("echo", &[&port.to_string()])));
    ready(&init);
    assert_eq!(lines.next(), "listening");
    let mut stream = dial(&init, port).expect("it listens");
    stream.write_all(b"ping").expect("it reads");
    let mut answer = [0; 4];
    stream.read_exact(&mut answer).expect("it answers");
    assert_eq!(&answer, b"ping");
    // The same port outside is another one.
    let outside = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let SocketAddr::V4(address) = outside.local_addr().expect("it has one") else { panic!("it is IPv4") };
    assert_eq!(dial(&init, address.port()).expect_err("nobody listens inside"), Errno::CONNREFUSED);
}

pub(crate) fn two_workers_have_the_same_port() {
    let start = || {
        let (init, mut lines) = launch_piped(sealed(role("echo", &["8000"])));
        ready(&init);
        assert_eq!(lines.next(), "listening");
        init
    };
    let (one, other) = (start(), start());
    let streams = [&one, &other].map(|init| dial(init, 8000).expect("it listens"));
    drop(streams);
}

pub(crate) fn a_listening_port_of_its_network_is_passed_on() {
    let mut spec = sealed(role("accept", &[]));
    spec.listen_ports = vec![8000];
    let (init, mut lines) = launch_piped(spec);
    ready(&init);
    assert_eq!(lines.next(), "1 socket");
    let mut stream = dial(&init, 8000).expect("the socket listens");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("it says something");
    assert_eq!(text, "accepted");
}

pub(crate) fn sockets_are_made_while_there_are_descriptors() {
    let init = launch(sealed(command("sleep", &["1000"])));
    ready(&init);
    init.request_sockets(u8::MAX, true).expect("init reads");
    let Some(Report::Sockets { sockets, errno }) = report(&init) else { panic!("they are made") };
    assert_eq!((sockets.len(), errno), (64, None));
}

pub(crate) fn kill_ends_all_in_the_namespace() {
    let mark = mark();
    let mut spec = sealed(role("nasty", &[]));
    spec.env.push((MARK.into(), mark.clone().into()));
    let (init, mut lines) = launch_piped(spec);
    ready(&init);
    lines.roll_call(NASTY);
    let everyone = hold(&[marked(&mark), vec![pid_of(&init)]].concat());
    init.kill();
    exited(&init);
    assert_eq!(survivors(&everyone, Instant::now() + PATIENCE), 0);
    gone(&init);
}

pub(crate) fn init_keeps_no_capability_but_to_signal_its_worker() {
    let init = launch(sealed(command("sleep", &["1000"])));
    ready(&init);
    let kill = if geteuid().is_root() { "0000000000000020" } else { "0000000000000000" };
    // It gives them up right after the worker's process has come to be.
    eventually("init to give its capabilities up", || {
        let status = fs::read_to_string(format!("/proc/{}/status", init.pid())).expect("it runs");
        let field = |name: &str| status_field(&status, name);
        let is_done = field("CapEff") == kill && field("CapPrm") == kill;
        is_done.then(|| {
            let none = "0000000000000000".to_owned();
            assert_eq!([field("CapInh"), field("CapBnd"), field("CapAmb")], [none.clone(), none.clone(), none]);
            assert_eq!(field("NoNewPrivs"), "1");
        })
    });
}

pub(crate) fn a_link_that_a_worker_made_is_not_mounted() {
    let directory = tempfile::tempdir().expect("a directory");
    let fixed = directory.path().join("fixed");
    std::os::unix::fs::symlink("/etc", &fixed).expect("a link");
    let mut spec = sealed(command("true", &[]));
    spec.isolation.files.writable.push(directory.path().to_owned());
    spec.isolation.files.read_only.push(fixed.clone());
    let failure = crate::stage::failure(&launch(spec));
    assert_eq!((failure.step.as_str(), failure.errno), ("mount", Some(Errno::LOOP.raw_os_error())), "{failure}");
    assert!(failure.hint.contains(fixed.to_str().expect("text")), "{failure}");
}

pub(crate) fn mounts_and_covers_are_where_the_links_of_the_sandbox_lead() {
    let directory = tempfile::tempdir().expect("a directory");
    let [outer, inner] = ["outer", "inner"].map(|name| directory.path().join(name));
    for path in [directory.path(), &outer, &inner] {
        fs::create_dir_all(path).expect("it is ours");
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("it is ours");
    }
    fs::create_dir(outer.join("place")).expect("it is ours");
    std::os::unix::fs::symlink("/data/place", outer.join("link")).expect("a link");
    for name in ["seen", "secret"] {
        fs::write(inner.join(name), name).expect("it is ours");
        fs::set_permissions(inner.join(name), fs::Permissions::from_mode(0o644)).expect("it is ours");
    }
    let mut spec = sealed(script("cat /data/place/seen; cat /data/place/secret /data/link/secret; ls /data; true"));
    let mount = |source: &Path, target: &str| Mount { source: source.into(), target: target.into(), writable: false };
    spec.isolation.files.mounts = vec![mount(&outer, "/data"), mount(&inner, "/data/place")];
    spec.isolation.files.hidden.push("/data/link/secret".into());
    assert_eq!(output(spec), "seenlink\nplace\n");
}

/// What closes the gap that is left without a PID namespace: the kernel ends the namespace with its PID 1.
pub(crate) fn a_killed_init_takes_all_along() {
    let mark = mark();
    let mut spec = sealed(role("nasty", &[]));
    spec.env.push((MARK.into(), mark.clone().into()));
    let (init, mut lines) = launch_piped(spec);
    ready(&init);
    lines.roll_call(NASTY);
    let everyone = hold(&marked(&mark));
    assert!(everyone.len() >= NASTY.len());
    kill_process(pid_of(&init), UnixSignal::KILL).expect("it runs");
    assert_eq!(survivors(&everyone, Instant::now() + PATIENCE), 0);
}

pub(crate) fn a_worker_cannot_end_or_stop_its_init() {
    let text = "kill -9 1; kill -STOP 1; kill -TERM 1; kill -CHLD 1; kill -SEGV 1; sleep 0.1; echo alive";
    let (init, mut lines) = launch_piped(sealed(script(text)));
    ready(&init);
    assert_eq!(lines.next(), "alive");
    assert!(!matches!(stat(pid_of(&init)).map(|stat| stat.state), Some('T')));
    assert!(exited(&init).0.success());
    gone(&init);
}

pub(crate) fn a_killed_daemon_leaves_no_process() {
    let mark = mark();
    let mut daemon =
        outside("sealed-daemon", &["3", &mark]).stdout(std::process::Stdio::piped()).spawn().expect("it runs");
    let mut lines = crate::stage::Lines::new(daemon.stdout.take().expect("a pipe").into());
    lines.roll_call(&[NASTY; 3].concat());
    let full = 3 * (NASTY.len() + 1);
    let workers = eventually("all to be there", || Some(marked(&mark)).filter(|found| found.len() >= full));
    let inits = children(Pid::from_child(&daemon));
    assert_eq!(inits.len(), 3);
    let everyone = hold(&[workers, inits].concat());
    daemon.kill().expect("it runs");
    assert_eq!(survivors(&everyone, Instant::now() + Duration::from_millis(200)), 0);
    daemon.wait().expect("it is our child");
}

pub(crate) fn lives_leave_no_descriptor_no_zombie_and_no_mount() {
    let before = fs::read_to_string("/proc/self/mountinfo").expect("/proc is mounted");
    let output = outside("sealed-cycles", &[]).output().expect("it runs");
    let text = String::from_utf8_lossy(&output.stdout);
    let words: Vec<&str> = text.split_whitespace().collect();
    let ["before", before_count, "after", after_count, "zombies", zombies] = words[..] else { panic!("{output:?}") };
    assert_eq!((before_count, zombies), (after_count, "0"));
    assert_eq!(fs::read_to_string("/proc/self/mountinfo").expect("/proc is mounted"), before);
}

pub(crate) fn dropped_at_any_moment_an_init_is_reaped() {
    let output = outside("sealed-drops", &[]).output().expect("it runs");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "reaped\n", "{output:?}");
}

/// Takes a socket from init and connects it to a port of the worker's loopback.
fn dial(init: &Init, port: u16) -> Result<TcpStream, Errno> {
    init.request_sockets(1, false).expect("init reads");
    let Some(Report::Sockets { sockets, errno: None }) = report(init) else { panic!("a socket is made") };
    let socket: OwnedFd = sockets.into_iter().next().expect("one");
    match connect(&socket, &SocketAddrV4::new(Ipv4Addr::LOCALHOST, port)) {
        Ok(()) => {}
        Err(Errno::INPROGRESS) => {
            poll(&mut [PollFd::new(&socket, PollFlags::OUT)], None).expect("it can be polled");
            socket_error(&socket).expect("it is a socket")?;
        }
        Err(error) => return Err(error),
    }
    let stream = TcpStream::from(socket);
    stream.set_nonblocking(false).expect("it is a socket");
    Ok(stream)
}
