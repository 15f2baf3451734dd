//! The filters in the kernel: what a confined program is answered.

use std::{fmt::Write as _, path::PathBuf, process::Command};

use tempfile::TempDir;

use super::{super::table, *};

const EPERM: i64 = -(libc::EPERM as i64);
const ENOSYS: i64 = -(libc::ENOSYS as i64);

/// A program that makes any system calls, for which this one would need `unsafe`.
struct Probe {
    directory: TempDir,
}

impl Probe {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/src/seccomp/tests/probe.c");
        let mut compiler = Command::new("gcc");
        compiler.args(["-Wall", "-Werror", "-o"]).arg(directory.path().join("probe")).arg(source);
        let compiled = compiler.output().expect("gcc is installed; `cargo xtask test` does that");
        assert!(compiled.status.success(), "{}", String::from_utf8_lossy(&compiled.stderr));
        Self { directory }
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("probe")
    }

    /// What the calls return under a profile.
    fn ask(&self, profile: Seccomp, calls: Vec<String>) -> Vec<i64> {
        let path = self.path();
        let number = calls.len();
        let output = confined(profile, false, move || Command::new(path).args(calls).output().expect("the probe"));
        let text = String::from_utf8(output.stdout).expect("text");
        let answers: Vec<i64> = text.lines().map(|line| line.parse().expect("a number")).collect();
        assert_eq!((output.status.code(), answers.len()), (Some(0), number), "{:?} {answers:?}", output.status);
        answers
    }
}

/// A call as the probe takes it.
fn call(name: &str, arguments: &[u64]) -> String {
    let number = table::number(name).unwrap_or_else(|| panic!("{name} is no call here"));
    arguments.iter().fold(number.to_string(), |mut text, argument| {
        let _ = write!(text, ",{argument}");
        text
    })
}

/// All calls of one kind that this architecture has. Numbers and addresses that exist nowhere: should a filter let the
/// call through, it still does nothing.
fn all(verdict: Verdict) -> (Vec<&'static str>, Vec<String>) {
    let rules = policy(Seccomp::Default).flat_map(|group| &group.rules).filter(|rule| rule.verdict() == verdict);
    let names: Vec<&str> = rules.map(Rule::call).filter(|name| table::number(name).is_some()).collect();
    let calls = names.iter().map(|name| call(name, &[u64::MAX; 6])).collect();
    (names, calls)
}

#[test]
fn refused_calls_fail_with_eperm() {
    let (names, calls) = all(Verdict::Refuse);
    for (name, answer) in names.iter().zip(Probe::new().ask(Seccomp::Default, calls)) {
        assert_eq!(answer, EPERM, "{name}");
    }
}

#[test]
fn absent_and_unknown_calls_fail_with_enosys() {
    let (names, mut calls) = all(Verdict::Absent);
    assert!(names.contains(&"clone3"));
    calls.extend([400, 500, 1000, 100_000, u32::MAX].iter().map(ToString::to_string));
    for (call, answer) in calls.clone().iter().zip(Probe::new().ask(Seccomp::Default, calls)) {
        assert_eq!(answer, ENOSYS, "{call}");
    }
}

#[cfg(target_arch = "x86_64")]
#[test]
fn foreign_calls_fail_with_enosys() {
    /// getpid(2), by the numbers of i386 and of x32. Both interfaces may be left out of a kernel, which then answers the
    /// same, or has the program killed: the filter comes first.
    const CALLS: [&str; 2] = ["x20", "0x40000027"];
    let answers = Probe::new().ask(Seccomp::Default, CALLS.map(str::to_owned).to_vec());
    assert_eq!(answers, [ENOSYS; 2]);
}

#[test]
fn arguments_decide() {
    let bits = |value: i32| u64::from(value.cast_unsigned());
    let socket = |domain, kind, protocol| call("socket", &[bits(domain), bits(kind), bits(protocol)]);
    let clone = |flags| call("clone", &[bits(flags | libc::SIGCHLD)]);
    let refused = vec![
        socket(libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_ICMP),
        socket(libc::AF_INET6, libc::SOCK_RAW, libc::IPPROTO_RAW),
        socket(libc::AF_INET, libc::SOCK_STREAM, libc::IPPROTO_MPTCP),
        socket(libc::AF_PACKET, libc::SOCK_RAW, 0),
        socket(libc::AF_PACKET, libc::SOCK_DGRAM, 0),
        socket(libc::AF_VSOCK, libc::SOCK_STREAM, 0),
        socket(libc::AF_ALG, libc::SOCK_SEQPACKET, 0),
        socket(libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_NETFILTER),
        clone(libc::CLONE_NEWUSER),
        clone(libc::CLONE_NEWUSER | libc::CLONE_NEWNET),
        clone(libc::CLONE_NEWNS),
        call("ioctl", &[0, libc::TIOCSTI, 0]),
        call("ioctl", &[0, (1 << 32) | libc::TIOCSTI, 0]),
        call("personality", &[bits(libc::ADDR_NO_RANDOMIZE)]),
        call("personality", &[bits(libc::READ_IMPLIES_EXEC)]),
        call("mknodat", &[u64::MAX, 0, u64::from(libc::S_IFCHR), 0x103]),
        call("prctl", &[bits(libc::PR_SET_MM), 1, 0, 0, 0]),
    ];
    let carried_out = vec![
        socket(libc::AF_INET, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0),
        socket(libc::AF_INET, libc::SOCK_DGRAM, libc::IPPROTO_UDP),
        socket(libc::AF_UNIX, libc::SOCK_SEQPACKET, 0),
        socket(libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_ROUTE),
        clone(0),
        call("personality", &[0xffff_ffff]),
        call("prctl", &[bits(libc::PR_GET_DUMPABLE)]),
    ];
    let probe = Probe::new();
    for (call, answer) in refused.clone().iter().zip(probe.ask(Seccomp::Default, refused)) {
        assert_eq!(answer, EPERM, "{call}");
    }
    for (call, answer) in carried_out.clone().iter().zip(probe.ask(Seccomp::Default, carried_out)) {
        assert!(answer >= 0, "{call}: {answer}");
    }
}

#[test]
fn a_browser_gets_as_far_as_the_kernel() {
    let nowhere = call("chroot", &[u64::MAX]);
    let (default, browser) = (vec![nowhere.clone()], vec![nowhere]);
    let probe = Probe::new();
    assert_eq!(probe.ask(Seccomp::Default, default), [EPERM]);
    assert_eq!(probe.ask(Seccomp::Browser, browser), [-i64::from(libc::EFAULT)]);
}

#[test]
fn filters_are_inherited_and_cannot_be_taken_off() {
    let fields = |log| {
        let status = confined(Seccomp::Default, log, || {
            Command::new("sh").args(["-c", "exec cat /proc/self/status"]).output().expect("a shell")
        });
        let status = String::from_utf8(status.stdout).expect("text");
        let field = |name| status.lines().find_map(|line| line.strip_prefix(name)).map(|it| it.trim().to_owned());
        ["Seccomp:", "Seccomp_filters:"].map(|name| field(name).unwrap_or_default())
    };
    assert_eq!(fields(false), ["2", "1"]);
    assert_eq!(fields(true), ["2", "2"]);
    // PR_SET_SECCOMP with mode 0, and seccomp(2) with an operation that does not exist.
    let disabled = vec![call("prctl", &[22, 0, 0]), call("seccomp", &[99, 0, 0])];
    let einval = -i64::from(libc::EINVAL);
    assert_eq!(Probe::new().ask(Seccomp::Default, disabled), [einval; 2]);
}

#[test]
fn what_is_no_filter_is_refused() {
    let install = |code: &'static [u8]| {
        let confine = move || {
            rustix::thread::set_no_new_privs(true).expect("it needs no privilege");
            sys::seccomp::install(code, false).map_err(|error| error.kind())
        };
        thread::spawn(confine).join().expect("no panic")
    };
    assert_eq!(install(&[0; 7]), Err(io::ErrorKind::InvalidInput));
    assert_eq!(install(&[]), Err(io::ErrorKind::InvalidInput));
    assert_eq!(install(&[0; 8]), Err(io::ErrorKind::InvalidInput));
    assert_eq!(install(&[0; 8 * 65_536]), Err(io::ErrorKind::InvalidInput));
}
