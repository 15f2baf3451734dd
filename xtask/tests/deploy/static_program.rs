use std::{
    env, fs,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use serde_json::Value;

use crate::{output, said};

#[track_caller]
fn program() -> PathBuf {
    let path = env::var_os("HERD_TEST_STATIC_PROGRAM").map(PathBuf::from);
    path.expect("HERD_TEST_STATIC_PROGRAM is not set: `cargo xtask test -- static_program` builds it or says why not")
}

/// The program in a root that has nothing else but a configuration. The network is the host's: somebody has to ask it.
fn alone(configuration: &Path) -> Command {
    let mut command = Command::new("bwrap");
    command.args(["--unshare-pid", "--die-with-parent", "--clearenv", "--ro-bind"]).arg(program()).arg("/herd");
    command
        .args(["--dev", "/dev", "--proc", "/proc", "--tmpfs", "/tmp", "--ro-bind"])
        .arg(configuration)
        .arg("/herd.yaml");
    if rustix::process::geteuid().is_root() {
        // Otherwise root would be none in there.
        command.args(["--cap-add", "ALL"]);
    }
    command.arg("/herd");
    command
}

/// A daemon, which ends with the test.
struct Daemon(Child);

impl Drop for Daemon {
    fn drop(&mut self) {
        // It may be gone already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What the headers of a program for 64 bits say is in it: elf(5), `Phdr`.
fn segments(program: &[u8]) -> Vec<u32> {
    assert_eq!(program[..5], *b"\x7fELF\x02", "it is no program for 64 bits");
    let number = |at: usize, size: usize| {
        program[at..at + size].iter().rev().fold(0, |number, byte| number << 8 | usize::from(*byte))
    };
    let (first, size, count) = (number(0x20, 8), number(0x36, 2), number(0x38, 2));
    (0..count).map(|index| number(first + index * size, 4).try_into().unwrap()).collect()
}

#[test]
fn the_static_program_asks_for_no_loader() {
    const LOAD: u32 = 1;
    const INTERP: u32 = 3;
    let own = segments(&fs::read(program()).unwrap());
    assert!(own.contains(&LOAD) && !own.contains(&INTERP), "{own:?}");
    // What the tests themselves are does ask for one, so it would be seen.
    assert!(segments(&fs::read("/proc/self/exe").unwrap()).contains(&INTERP));
}

#[test]
fn the_static_program_is_all_that_a_root_needs() {
    let directory = tempfile::tempdir().unwrap();
    let configuration = directory.path().join("herd.yaml");
    fs::write(&configuration, "sandbox: {mode: required}\n").unwrap();
    let alone = || alone(&configuration);
    assert_eq!(said(alone().arg("--version")), format!("herd {}\n", version()));
    let examination = said(alone().arg("doctor"));
    assert!(examination.contains("The sandbox `required` can be had here"), "{examination}");
    assert!(examination.contains("there is no program pasta"), "it sees more than itself:\n{examination}");

    let mut command = alone();
    command.args(["serve", "--config", "/herd.yaml", "--log-format", "json", "--control-socket", "/tmp/control.sock"]);
    command.args(["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut daemon = Daemon(command.spawn().unwrap());
    let mut log = BufReader::new(daemon.0.stderr.take().unwrap());
    let mut read = String::new();
    let serving = loop {
        let before = read.len();
        assert_ne!(log.read_line(&mut read).unwrap(), 0, "it does not serve:\n{read}");
        let line: Value = serde_json::from_str(&read[before..]).unwrap_or_default();
        if line["message"] == "serving" {
            break line;
        }
    };
    let gateway = serving["gateway"].as_str().unwrap();

    let eval = |session: &str, script: &str| {
        let mut curl = Command::new("curl");
        curl.args(["--silent", "--show-error", "--max-time", "60", "--header", &format!("X-Session-ID: {session}")]);
        curl.args(["--data", script, &format!("http://{gateway}/eval")]);
        String::from_utf8(output(&mut curl).stdout).unwrap()
    };
    assert_eq!(eval("alice", "let x = 41; x"), "41");
    assert_eq!(eval("alice", "x + 1"), "42");
    assert!(eval("bob", "x + 1").contains("not found"), "a session of its own");
}

fn version() -> String {
    let manifest = fs::read_to_string(crate::repository().join("Cargo.toml")).unwrap();
    let line = manifest.lines().find_map(|line| line.strip_prefix("version = ")).unwrap();
    line.trim_matches('"').to_owned()
}
