//! The host and the world around it, each a network namespace:
//!
//! ```text
//! host: 127.0.0.1, 203.0.113.1 ── outside: 203.0.113.10, 10.9.9.9, 10.1.2.3, 169.254.169.254
//! ```

use std::{
    env,
    ffi::OsString,
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpListener, UdpSocket},
    process::{Child, ChildStdin, Command, ExitCode, Stdio},
    thread,
};

use rustix::process::geteuid;

/// The host's own address.
pub(crate) const HOST: &str = "203.0.113.1";
/// A machine in the public network, which is also the name server.
pub(crate) const PUBLIC: &str = "203.0.113.10";
/// What stands for machines in private networks, and for a cloud's metadata service.
pub(crate) const PRIVATE: &str = "10.9.9.9";
pub(crate) const OTHER_PRIVATE: &str = "10.1.2.3";
pub(crate) const METADATA: &str = "169.254.169.254";

/// Every machine serves there by TCP, and tells the address at which it was reached.
pub(crate) const PORT: u16 = 8081;
/// The public machine sends datagrams back there.
pub(crate) const ECHO: u16 = 7;

/// The world, for as long as this lives.
pub(crate) struct World {
    outside: Child,
    /// Its end ends the machines outside.
    _hold: ChildStdin,
    _configuration: tempfile::NamedTempFile,
}

/// Runs the tests with these arguments in a host of their own.
pub(crate) fn enter(args: &[OsString]) -> ExitCode {
    if !geteuid().is_root() {
        return refuse("these tests make networks of their own: run them as root");
    }
    let mut staged = Command::new("unshare");
    staged.args(["--net", "--mount", "--propagation", "private", "--"]);
    staged.arg(env::current_exe().expect("this binary")).arg("staged").args(args);
    match staged.status() {
        Ok(status) if status.success() => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => refuse(&format!("unshare cannot be run ({error}): install the package util-linux")),
    }
}

#[expect(clippy::print_stderr, reason = "it is read by whoever runs the tests")]
fn refuse(why: &str) -> ExitCode {
    eprintln!("{why}");
    ExitCode::FAILURE
}

impl World {
    /// Makes the world around this process, which is in namespaces of its own.
    pub(crate) fn make() -> Self {
        let exe = env::current_exe().expect("this binary");
        let mut outside = Command::new("unshare");
        outside.args(["--net", "--"]).arg(exe).arg("outside").stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut outside = outside.spawn().expect("unshare: install the package util-linux");
        let mut said = BufReader::new(outside.stdout.take().expect("a pipe"));
        let mut hold = outside.stdin.take().expect("a pipe");
        expect_word(&mut said, "here");
        ip("link set lo up");
        ip(&format!("link add out0 type veth peer name in0 netns {}", outside.id()));
        ip(&format!("addr add {HOST}/24 dev out0"));
        ip("link set out0 up");
        hold.write_all(b"go\n").expect("it listens");
        expect_word(&mut said, "serving");
        ip(&format!("route add default via {PUBLIC}"));
        for address in ["127.0.0.1", HOST] {
            serve(address);
        }
        let mut configuration = tempfile::NamedTempFile::new().expect("a file");
        writeln!(configuration, "nameserver {PUBLIC}").expect("it can be written");
        let path = fs::canonicalize("/etc/resolv.conf").expect("/etc/resolv.conf is there: make an empty one");
        let mounted = Command::new("mount").arg("--bind").arg(configuration.path()).arg(path).status();
        assert!(mounted.expect("mount: install the package mount").success());
        let public = std::os::unix::fs::PermissionsExt::from_mode(0o644);
        fs::set_permissions(configuration.path(), public).expect("it is ours");
        Self { outside, _hold: hold, _configuration: configuration }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let _ = self.outside.kill();
        let _ = self.outside.wait();
    }
}

/// All machines outside: sets their addresses up, and serves until nobody holds them any more.
#[expect(clippy::print_stdout, reason = "the test waits for it")]
pub(crate) fn outside() -> ExitCode {
    println!("here");
    let mut stdin = std::io::stdin().lock();
    let mut line = String::new();
    stdin.read_line(&mut line).expect("the host says when");
    ip("link set lo up");
    ip("link set in0 up");
    ip(&format!("addr add {PUBLIC}/24 dev in0"));
    for address in [PRIVATE, OTHER_PRIVATE, METADATA] {
        ip(&format!("addr add {address}/32 dev lo"));
    }
    for address in [PUBLIC, PRIVATE, OTHER_PRIVATE, METADATA] {
        serve(address);
    }
    echo();
    answer_names();
    println!("serving");
    let _ = stdin.read_to_end(&mut Vec::new());
    ExitCode::SUCCESS
}

/// Says to everybody who connects where they are.
fn serve(address: &'static str) {
    let listener = TcpListener::bind((address, PORT)).expect("an address of this machine");
    thread::spawn(move || {
        for stream in listener.incoming() {
            let _ = stream.and_then(|mut stream| stream.write_all(format!("{address}\n").as_bytes()));
        }
    });
}

fn echo() {
    let socket = UdpSocket::bind((PUBLIC, ECHO)).expect("an address of this machine");
    thread::spawn(move || {
        let mut buffer = [0; 512];
        while let Ok((length, from)) = socket.recv_from(&mut buffer) {
            let _ = socket.send_to(&buffer[..length], from);
        }
    });
}

/// Knows that `public.example` is the public machine, and `private.example` one that is private; RFC 1035.
fn answer_names() {
    let at: SocketAddr = format!("{PUBLIC}:53").parse().expect("an address");
    let socket = UdpSocket::bind(at).expect("an address of this machine");
    thread::spawn(move || {
        let mut buffer = [0; 512];
        while let Ok((length, from)) = socket.recv_from(&mut buffer) {
            let _ = socket.send_to(&answer(&buffer[..length]), from);
        }
    });
    let listener = TcpListener::bind(at).expect("an address of this machine");
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let mut stream = stream;
            let mut length = [0; 2];
            if stream.read_exact(&mut length).is_err() {
                continue;
            }
            let mut question = vec![0; usize::from(u16::from_be_bytes(length))];
            if stream.read_exact(&mut question).is_ok() {
                let answer = answer(&question);
                let length = u16::try_from(answer.len()).expect("it is short").to_be_bytes();
                let _ = stream.write_all(&[&length[..], &answer].concat());
            }
        }
    });
}

fn answer(question: &[u8]) -> Vec<u8> {
    const HEADER: usize = 12;
    let name_end = question[HEADER..].iter().position(|byte| *byte == 0).expect("a name") + HEADER + 1;
    let name = String::from_utf8_lossy(&question[HEADER..name_end]).into_owned();
    let is_address = question[name_end..name_end + 2] == [0, 1];
    let address: Option<std::net::Ipv4Addr> = match name {
        _ if !is_address => None,
        name if name.contains("public") => PUBLIC.parse().ok(),
        name if name.contains("private") => PRIVATE.parse().ok(),
        _ => None,
    };
    let mut answer = question[..2].to_vec();
    // A response, with recursion; one question and at most one answer.
    answer.extend([0x81, 0x80, 0, 1, 0, u8::from(address.is_some()), 0, 0, 0, 0]);
    answer.extend(&question[HEADER..name_end + 4]);
    if let Some(address) = address {
        // The name of the question; an address; for a minute; four bytes.
        answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
        answer.extend(address.octets());
    }
    answer
}

fn ip(words: &str) {
    let done = Command::new("ip").args(words.split(' ')).status().expect("ip: install the package iproute2");
    assert!(done.success(), "ip {words}");
}

fn expect_word(said: &mut impl std::io::BufRead, word: &str) {
    let mut line = String::new();
    said.read_line(&mut line).expect("it speaks");
    assert_eq!(line.trim_end(), word);
}
