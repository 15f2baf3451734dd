//! The program's file is replaced while it runs, as an upgrade of its package does it.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use tempfile::TempDir;

use crate::{
    client::eval,
    daemon::{Daemon, herd},
};

/// A daemon whose program is a file of its own.
struct Installed {
    daemon: Daemon,
    program: PathBuf,
    config: PathBuf,
}

/// By a process of its own: a file that this one has open for writing could not be run.
fn copy(to: &Path) {
    let copied = Command::new("cp").arg("--reflink=auto").arg(env!("CARGO_BIN_EXE_herd")).arg(to).status().unwrap();
    assert!(copied.success(), "{}: {copied}", to.display());
}

impl Installed {
    fn start(configuration: &str) -> Self {
        let directory = TempDir::new().unwrap();
        let [program, config, socket] = ["herd", "herd.yaml", "control.sock"].map(|name| directory.path().join(name));
        copy(&program);
        fs::write(&config, configuration).unwrap();
        let like = herd(&["serve", "--log-format", "json"], directory.path());
        let mut command = Command::new(&program);
        command.args(like.get_args()).arg("--config").arg(&config).arg("--control-socket").arg(&socket);
        command.args(["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]);
        command.envs(like.get_envs().filter_map(|(name, value)| Some((name, value?)))).env_remove("HERD_SOCKET");
        Self { daemon: Daemon::spawn(command, socket, directory), program, config }
    }

    /// As dpkg does it: the new file takes the name of the old one.
    fn replace_program(&self) {
        let new = self.program.with_file_name("herd.dpkg-new");
        copy(&new);
        fs::rename(new, &self.program).unwrap();
        let running = fs::read_link(format!("/proc/{}/exe", self.daemon.pid())).unwrap();
        assert!(running.to_str().unwrap().ends_with("herd (deleted)"), "{}", running.display());
    }

    #[track_caller]
    fn reload(&self, configuration: &str) {
        fs::write(&self.config, configuration).unwrap();
        let reloaded = self.daemon.command(&["reload"]);
        assert!(reloaded.status.success(), "{}", String::from_utf8_lossy(&reloaded.stderr));
    }

    #[track_caller]
    fn answers(&self, session: &str, script: &str) -> String {
        let answer = eval(self.daemon.gateway, session, script);
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.body
    }
}

#[test]
fn sessions_go_on_and_begin_after_the_program_was_replaced_and_after_a_reload() {
    let pool = |ttl: &str| format!("resources: {{min_workers: 0, spare: 0, max_workers: 9, ttl: {ttl}}}\n");
    let herd = Installed::start(&pool("1h"));
    assert_eq!(herd.answers("alice", "let x = 41; x"), "41");
    herd.replace_program();
    assert_eq!(herd.answers("bob", "1 + 1"), "2", "a worker that starts without a reload");
    herd.reload(&pool("2h"));
    assert_eq!(herd.answers("carol", "1 + 2"), "3");
    assert_eq!(herd.answers("alice", "x + 1"), "42");
}

#[test]
fn a_reload_after_the_program_was_replaced_can_add_the_first_pool_that_needs_it() {
    let herd = Installed::start("worker: {command: [sleep, infinity]}\nresources: {min_workers: 0, spare: 0}\n");
    herd.replace_program();
    herd.reload("resources: {min_workers: 0, spare: 0}\n");
    assert_eq!(herd.answers("alice", "6 * 7"), "42");
}
