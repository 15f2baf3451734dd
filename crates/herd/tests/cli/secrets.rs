//! What is herd's alone, and no worker gets to see.

use std::{
    fs,
    os::unix::{
        fs::{PermissionsExt as _, chown, symlink},
        process::CommandExt as _,
    },
    path::{Path, PathBuf},
};

use tempfile::TempDir;

use crate::{
    client::eval,
    daemon::{Daemon, failure, herd, output},
};

/// A user that owns nothing here.
const NOBODY: u32 = 65534;
const TOKEN: &str = "herd_hush-6b1f0c9d8e7a2435";
const FILLED: &str = "hush-filled-90ab12";

/// A directory with one that workers are shown, by a symbolic link too, and in it everything that they must not see.
struct Place {
    directory: TempDir,
    /// In a directory that every worker sees.
    system: TempDir,
}

impl Place {
    fn new() -> Self {
        let system = tempfile::Builder::new().prefix("herd-test-").tempdir_in("/opt");
        let system = system.expect("these tests make a directory in /opt; run them as root");
        let place = Self { directory: TempDir::new().unwrap(), system };
        fs::create_dir(place.path("shown")).unwrap();
        fs::create_dir(place.path("apart")).unwrap();
        symlink(place.path("shown"), place.path("link")).unwrap();
        symlink(place.path("shown/token"), place.path("token-link")).unwrap();
        for (name, text) in [("shown/data", "the data of everybody"), ("shown/token", TOKEN), ("shown/filled", FILLED)]
        {
            fs::write(place.path(name), text).unwrap();
        }
        fs::write(place.in_system("token"), TOKEN).unwrap();
        let open = fs::Permissions::from_mode(0o755);
        for path in [place.directory.path(), &place.path("shown"), place.system.path()] {
            fs::set_permissions(path, open.clone()).unwrap();
        }
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn in_system(&self, name: &str) -> PathBuf {
        self.system.path().join(name)
    }

    /// Writes the configuration: `{{at}}` is the directory, `{{system}}` the one of the system.
    fn configure(&self, text: &str) -> String {
        let file = self.path("herd.yaml");
        let text = text.replace("{{at}}", self.directory.path().to_str().unwrap());
        let text = text.replace("{{system}}", self.system.path().to_str().unwrap());
        fs::write(&file, text).unwrap();
        file.to_str().unwrap().to_owned()
    }
}

/// Workers that tell what they can read of all this, and end.
const TELLING: &str = "\
worker:
  command: [sh, -c, 'cat data filled {{at}}/link/filled {{system}}/token {{at}}/herd.yaml >&2; exit 3']
  cwd: '{{at}}/shown'
  env: ['FILLED=${file:{{at}}/shown/filled}']
resources: {min_workers: 0, spare: 0, acquire_timeout: 20s}
sandbox: {read_only: ['{{at}}/link']}
network: {admin_token_file: '{{system}}/token'}
";

fn told_nothing(daemon: &Daemon) {
    let answer = eval(daemon.gateway, "alice", "1");
    assert_eq!(answer.status, 503, "{answer:?}");
    assert!(answer.body.contains("the data of everybody") && answer.body.contains("exit code 3"), "{answer:?}");
    assert!(!answer.body.contains("hush"), "{answer:?}");
}

#[test]
fn a_worker_sees_what_is_beside_files_with_secrets_and_not_those() {
    let place = Place::new();
    let mut daemon = Daemon::serve(&["--config", &place.configure(TELLING)]);
    let warning = daemon.log_line(|line| line["message"].as_str().is_some_and(|text| text.contains("is hidden from")));
    assert!(warning["message"].as_str().unwrap().starts_with("network.admin_token_file: /opt/herd-test-"), "{warning}");
    told_nothing(&daemon);
}

#[test]
fn a_daemon_of_another_user_hides_them_too() {
    let place = Place::new();
    let program = place.path("herd");
    fs::copy(env!("CARGO_BIN_EXE_herd"), &program).unwrap();
    let file = place.configure(TELLING);
    for name in ["shown/token", "shown/filled", "herd.yaml", ""] {
        chown(place.path(name), Some(NOBODY), Some(NOBODY)).unwrap();
    }
    chown(place.in_system("token"), Some(NOBODY), Some(NOBODY)).unwrap();
    let runtime = TempDir::new().unwrap();
    chown(runtime.path(), Some(NOBODY), Some(NOBODY)).unwrap();
    let socket = runtime.path().join("control.sock");
    let addresses = ["serve", "--config", &file, "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"];
    let others = ["--log-format", "json", "--control-socket", socket.to_str().unwrap()];
    // Its own memory of which user it is comes from the environment of whoever started it.
    let template = herd(&[&addresses[..], &others].concat(), runtime.path());
    let mut command = std::process::Command::new(&program);
    command.args(template.get_args()).env("XDG_RUNTIME_DIR", runtime.path()).env("HOME", runtime.path());
    command.current_dir("/").uid(NOBODY).gid(NOBODY);
    told_nothing(&Daemon::spawn(command, socket, runtime));
}

/// What is said of a configuration that the daemon refuses before it listens.
#[track_caller]
fn refusal(place: &Place, text: &str) -> String {
    let file = place.configure(text);
    let said = failure(&["serve", "--listen", "127.0.0.1:0", "--admin", "off", "--config", &file], 1);
    assert!(!said.contains("serving") && !said.contains("hush"), "{said}");
    said
}

/// Each as a configuration, the key that is refused, and why.
const REFUSED: [(&str, &str, &str); 8] = [
    (
        "worker: {command: ['true'], cwd: '{{at}}/link'}\naccess: {tokens: [{name: a, file: '{{at}}/shown/token'}]}\n",
        "herd.yaml:1:34: worker.cwd: ",
        "would show workers what `access.tokens[0].file` names",
    ),
    (
        "sandbox: {read_only: ['{{at}}/link']}\nnetwork: {admin_token_file: '{{at}}/shown/token'}\n",
        "herd.yaml:1:23: sandbox.read_only[0]: ",
        "would show workers what `network.admin_token_file` names",
    ),
    (
        "sandbox: {read_only: ['{{at}}/shown']}\nwebhooks: [{url: 'http://localhost/', secret_file: '{{at}}/token-link'}]\n",
        "herd.yaml:1:23: sandbox.read_only[0]: ",
        "would show workers what `webhooks[0].secret_file` names",
    ),
    (
        "worker: {command: [cat, --file={{at}}/token-link]}\naccess: {tokens: [{name: a, file: '{{at}}/shown/token'}]}\n",
        "herd.yaml:1:25: worker.command[1]: ",
        "names what `access.tokens[0].file` names, which no worker may see",
    ),
    (
        "worker: {command: [cat, filled], cwd: '{{at}}/shown', env: ['A=${file:{{at}}/shown/filled}']}\n",
        "herd.yaml:1:25: worker.command[1]: ",
        "names a file whose content `worker.env[0]` is filled with, which no worker may see",
    ),
    (
        "worker: {command: [cat, '{{at}}/herd.yaml']}\n",
        "herd.yaml:1:25: worker.command[1]: ",
        "names herd's configuration, which no worker may see",
    ),
    (
        "worker: {env: ['A=${file:{{at}}/shown/filled}']}\nsandbox: {writable: ['{{at}}/link']}\n",
        "herd.yaml:2:22: sandbox.writable[0]: ",
        "holds a file whose content `worker.env[0]` is filled with, which one worker could move",
    ),
    (
        "pools:\n  a: {}\n  b: {sandbox: {read_only: ['{{at}}/link']}}\naccess: {jwt: {algorithm: HS256, audience: a, key_file: \
         '{{at}}/shown/token'}}\n",
        "herd.yaml:3:29: pools.b.sandbox.read_only[0]: ",
        "would show workers what `access.jwt.key_file` names",
    ),
];

#[test]
fn what_would_show_workers_a_secret_is_refused_with_its_place() {
    let place = Place::new();
    for (text, key, problem) in REFUSED {
        let said = refusal(&place, text);
        assert!(said.contains(key) && said.contains(problem), "{text}\n{said}");
    }
}

#[test]
fn check_refuses_a_working_directory_with_a_key_by_its_name_alone() {
    let place = Place::new();
    let file = place.configure("worker: {cwd: /srv/x}\nnetwork: {tls: {cert_file: /srv/c, key_file: /srv/x/key}}\n");
    let said = String::from_utf8(output(&["check", &file], place.directory.path()).stdout).unwrap();
    let expected = "herd.yaml:1:15: worker.cwd: `/srv/x` would show workers what `network.tls.key_file` names";
    assert!(said.contains(expected), "{said}");
}

#[test]
fn flags_that_would_show_workers_a_key_are_refused() {
    let place = Place::new();
    let path = |name: &str| place.path(name).to_str().unwrap().to_owned();
    let (data, token, link) = (path("shown/data"), path("shown/token"), path("link"));
    let run = |flags: &[&str], directory: &Path| {
        let first = ["run", "--listen", "127.0.0.1:0", "--admin", "off"];
        let mut command = herd(&[&first[..], flags, &["--", "true"]].concat(), directory);
        let refused = command.current_dir(place.path("shown")).output().unwrap();
        assert!(!refused.status.success());
        String::from_utf8(refused.stderr).unwrap()
    };
    let runtime = TempDir::new().unwrap();
    let said = run(&["--cwd", ".", "--tls-cert", "data", "--tls-key", "token"], runtime.path());
    assert!(said.contains("--cwd: ") && said.contains("would show workers what `--tls-key` names"), "{said}");
    let said = run(&["--cwd", &link, "--tls-cert", &data, "--tls-key", &token], runtime.path());
    assert!(said.contains(&format!("--cwd: `{link}` would show workers what `--tls-key` names")), "{said}");
    let said = run(&["--read-only", &link, "--admin-token-file", &token], runtime.path());
    assert!(said.contains("--read-only: ") && said.contains("what `--admin-token-file` names"), "{said}");
}

#[test]
fn a_reload_hides_new_secrets_from_new_workers_and_refuses_what_would_show_them() {
    let place = Place::new();
    let before = "\
worker:
  command: [sh, -c, 'cat data filled >&2; exit 3']
  cwd: '{{at}}/link'
resources: {min_workers: 0, spare: 0, acquire_timeout: 20s}
";
    let daemon = Daemon::serve(&["--config", &place.configure(before)]);
    assert!(eval(daemon.gateway, "alice", "1").body.contains("hush"), "it is no secret yet");
    place.configure(&format!("{before}access: {{tokens: [{{name: a, file: '{{{{at}}}}/shown/token'}}]}}\n"));
    let reloaded = daemon.command(&["reload"]);
    let said = String::from_utf8([reloaded.stdout, reloaded.stderr].concat()).unwrap();
    assert_eq!(reloaded.status.code(), Some(1), "{said}");
    assert!(said.contains("worker.cwd: ") && said.contains("what `access.tokens[0].file` names"), "{said}");
    place.configure(&before.replace("resources:", "  env: ['A=${file:{{at}}/shown/filled}']\nresources:"));
    let reloaded = daemon.command(&["reload"]);
    assert!(reloaded.status.success(), "{}", String::from_utf8_lossy(&reloaded.stderr));
    told_nothing(&daemon);
}

#[test]
fn without_a_sandbox_a_warning_names_what_workers_can_read() {
    let place = Place::new();
    let file = place.configure("sandbox: {mode: off}\nnetwork: {admin_token_file: '{{at}}/shown/token'}\n");
    let checked = output(&["check", "--json", &file], place.directory.path());
    assert!(checked.status.success());
    let rows: serde_json::Value = serde_json::from_slice(&checked.stdout).unwrap();
    let row = &rows[0];
    assert_eq!((&row["kind"], &row["line"], &row["column"]), (&"warning".into(), &1.into(), &17.into()), "{rows}");
    assert!(row["problem"].as_str().unwrap().ends_with("can read what is herd's alone: network.admin_token_file"));
    let said = String::from_utf8(checked.stderr).unwrap();
    assert!(said.contains(&format!("warning: {file}:1:17: sandbox.mode: workers run as herd's own user")), "{said}");
    let mut daemon = Daemon::serve(&["--config", &file]);
    daemon.log_line(|line| line["message"].as_str().is_some_and(|text| text.starts_with("sandbox.mode: workers run")));
}
