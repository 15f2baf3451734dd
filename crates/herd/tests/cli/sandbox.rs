use std::{fs, path::Path};

use rustix::process::{Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use crate::{
    client::eval,
    daemon::{CANARY, Daemon, failure, herd, output},
};

/// A configuration file in a directory of its own.
pub(crate) fn file(text: &str) -> (TempDir, String) {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("herd.yaml");
    fs::write(&file, text).unwrap();
    (directory, file.to_str().unwrap().to_owned())
}

pub(crate) fn said(args: &[&str]) -> String {
    let directory = TempDir::new().unwrap();
    let output = output(args, directory.path());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn the_doctor_says_of_every_layer_and_limit_whether_it_can_be_had_and_what_to_do() {
    let text = said(&["doctor"]);
    for line in
        ["user namespace", "PID namespace", "own root", "network namespace", "seccomp", "cgroup limits", "egress"]
    {
        let told = text
            .lines()
            .any(|told| told.starts_with(&format!("  yes  {line}")) || told.starts_with(&format!("  no   {line}: ")));
        assert!(told, "{line}\n{text}");
    }
    assert_eq!(text.matches("\n  no   ").count() - text.matches("to do: ").count(), missing_limits(&text), "{text}");
    assert!(text.contains("The sandbox `required` can be had here"), "{text}");

    let json: Value = serde_json::from_str(&said(&["doctor", "--json"])).unwrap();
    assert_eq!((&json["possible"], &json["mistakes"]), (&true.into(), &serde_json::json!([])), "{json}");
    for layer in json["layers"].as_array().unwrap() {
        let says_why = ["remedy", "note"].iter().any(|key| layer[key].as_str().is_some_and(|text| !text.is_empty()));
        assert_eq!(layer["available"].as_bool(), Some(!says_why), "{layer}");
    }
    assert_eq!(json["limits"]["open_files"], "RLIMIT_NOFILE", "{json}");
}

/// Of limits it is said that they cannot be had, and what to do is said once, of the layer.
fn missing_limits(text: &str) -> usize {
    let (_, limits) = text.split_once("\nlimits\n").unwrap();
    limits.lines().filter(|line| line.starts_with("  no   ")).count()
}

#[test]
fn the_doctor_explains_the_start_of_a_worker_step_by_step() {
    let text = said(&["doctor", "--explain", "--", "sh", "-c", "exit 3"]);
    let steps: Vec<_> =
        text.lines().filter(|line| line.trim_start().starts_with(|char: char| char.is_ascii_digit())).collect();
    assert!(steps.len() > 30, "{text}");
    assert!(steps.last().unwrap().ends_with(". exec: sh -c exit 3"), "{text}");
    let place =
        |step: &str| steps.iter().position(|line| line.contains(step)).unwrap_or_else(|| panic!("{step}\n{text}"));
    assert!(
        place(". pivot root") < place(". no new privileges") && place(". no new privileges") < place(". seccomp"),
        "{text}"
    );
    for reason in ["init, in the namespaces that it is born into", "There is no code of ours after it."] {
        assert!(text.contains(reason), "{text}");
    }
    assert!(!text.contains(CANARY));
    let json: Value = serde_json::from_str(&said(&["doctor", "--explain", "--json"])).unwrap();
    assert!(
        json.as_array().unwrap().iter().all(|step| step["reason"].as_str().is_some_and(|reason| !reason.is_empty())),
        "{json}"
    );
}

#[test]
fn a_limit_that_this_host_cannot_keep_is_refused_in_every_mode_before_anything_listens() {
    for mode in ["required", "best-effort"] {
        let (_directory, file) = file(&format!(
            "sandbox: {{mode: {mode}}}\nresources: {{memory_limit_mb: 512, cpu_limit_cores: 1, pids_limit: 50}}\n"
        ));
        for command in
            [&["serve", "--listen", "127.0.0.1:0", "--admin", "off", "--config"][..], &["doctor", "--config"]]
        {
            let said = failure(&[command, &[&file]].concat(), 1);
            for (place, key) in [("2:30", "memory_limit_mb"), ("2:52", "cpu_limit_cores"), ("2:67", "pids_limit")] {
                let expected = format!("herd.yaml:{place}: resources.{key}: it cannot be kept: step '");
                let line =
                    said.lines().find(|line| line.contains(&expected)).unwrap_or_else(|| panic!("{expected}\n{said}"));
                // Why, and what to do.
                assert!(line.contains("cgroup") && line.contains("; "), "{line}");
            }
            assert!(!said.contains("serving"), "{said}");
        }
        // Another host may keep them.
        let directory = TempDir::new().unwrap();
        assert!(output(&["check", &file], directory.path()).status.success());
    }
    let said = failure(&["run", "--memory", "512MiB", "--", "true"], 1);
    assert!(said.contains("--memory: it cannot be kept: step '"), "{said}");
}

#[test]
fn paths_that_are_not_there_are_told_with_their_place_before_anything_listens() {
    let (_directory, file) = file("sandbox:\n  read_only: [/usr/share, /no/such/place]\n");
    let said = failure(&["serve", "--listen", "127.0.0.1:0", "--admin", "off", "--config", &file], 1);
    assert!(
        said.contains("herd.yaml:2:27: sandbox.read_only[1]: /no/such/place cannot be shown: No such file"),
        "{said}"
    );
    assert!(!said.contains("serving"), "{said}");
}

#[test]
fn what_would_show_workers_herds_own_files_is_refused() {
    let runtime = TempDir::new().unwrap();
    let shown = runtime.path().to_str().unwrap();
    for (flag, value) in [("--read-only", shown), ("--writable", shown), ("--cwd", shown)] {
        let refused =
            output(&["run", "--listen", "127.0.0.1:0", "--admin", "off", flag, value, "--", "true"], runtime.path());
        let said = String::from_utf8(refused.stderr).unwrap();
        assert_eq!(refused.status.code(), Some(1), "{said}");
        assert!(
            said.contains(&format!("{flag}: `{shown}` would show workers "))
                && said.contains("name something narrower"),
            "{said}"
        );
    }
}

#[test]
fn herds_own_directories_are_refused_where_every_worker_sees_them() {
    let refused = |flags: &[&str], text: &str, runtime: &Path| {
        let directory = TempDir::new().unwrap();
        let file = directory.path().join("herd.yaml");
        fs::write(&file, format!("worker: {{command: [\"true\"]}}\n{text}\n")).unwrap();
        let serve = ["serve", "--listen", "127.0.0.1:0", "--admin", "off", "--config", file.to_str().unwrap()];
        let output = output(&[&serve, flags].concat(), runtime);
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(!said.contains("serving"), "{said}");
        said
    };
    let place = TempDir::new().unwrap();
    let said = refused(
        &[],
        "sandbox: {workspace: persistent, workspace_dir: /opt/herd-is-never-made/kept}\nresources: {spare: 0, min_workers: 0}",
        place.path(),
    );
    assert!(
        said.contains(
            "herd.yaml:2:49: sandbox.workspace_dir: `/opt/herd-is-never-made/kept` lies in /opt, which every worker sees"
        ),
        "{said}"
    );
    assert!(!Path::new("/opt/herd-is-never-made").exists());
    let link = place.path().join("link");
    std::os::unix::fs::symlink("/usr/share", &link).unwrap();
    let said = refused(&[], "", &link);
    assert!(
        said.contains(&format!("XDG_RUNTIME_DIR: `{}` lies in /usr, which every worker sees", link.display())),
        "{said}"
    );
    let socket = link.join("herd-is-never-made/control.sock");
    let said = refused(&["--control-socket", socket.to_str().unwrap()], "", place.path());
    assert!(said.contains(&format!("--control-socket: `{}` lies in /usr, ", socket.display())), "{said}");
}

#[test]
fn a_configuration_in_what_workers_may_change_is_refused() {
    let place = TempDir::new().unwrap();
    let (real, link) = (place.path().join("real"), place.path().join("link"));
    fs::create_dir(&real).unwrap();
    std::os::unix::fs::symlink(&real, &link).unwrap();
    let file = real.join("herd.yaml");
    for writable in [&real, &link] {
        let text = format!("worker: {{command: [\"true\"]}}\nsandbox: {{writable: [{}]}}\n", writable.display());
        fs::write(&file, text).unwrap();
        let serve = ["serve", "--listen", "127.0.0.1:0", "--admin", "off", "--config", file.to_str().unwrap()];
        let said = failure(&serve, 1);
        let problem = "holds herd's configuration, which one worker could move to where others see it";
        assert!(
            said.contains(&format!("herd.yaml:2:22: sandbox.writable[0]: `{}` {problem}", writable.display())),
            "{said}"
        );
    }
}

#[test]
fn a_worker_sees_the_files_beside_the_configuration_and_not_the_configuration() {
    let directory = TempDir::new().unwrap();
    let shared = directory.path().join("shared");
    fs::create_dir(&shared).unwrap();
    fs::write(shared.join("data"), "the data of everybody").unwrap();
    let readable = |path: &Path, mode| {
        fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
    };
    let (file, link) = (shared.join("herd.yaml"), directory.path().join("link"));
    std::os::unix::fs::symlink(&shared, &link).unwrap();
    let text = format!(
        "# {CANARY}\nworker: {{command: [sh, -c, 'cat {0}/data {0}/herd.yaml {1}/herd.yaml >&2; exit 3'], cwd: {0}}}\n\
         resources: {{min_workers: 0, spare: 0, acquire_timeout: 10s}}\nsandbox: {{read_only: [{1}]}}\n",
        shared.display(),
        link.display()
    );
    fs::write(&file, text).unwrap();
    readable(&shared, 0o755);
    readable(&shared.join("data"), 0o644);
    readable(&file, 0o644);
    let socket = directory.path().join("control.sock");
    let args = ["serve", "--config", file.to_str().unwrap(), "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"];
    let control = ["--control-socket", socket.to_str().unwrap(), "--log-format", "json"];
    let runtime = TempDir::new().unwrap();
    let command = herd(&[&args[..], &control].concat(), runtime.path());
    let daemon = Daemon::spawn(command, socket, directory);
    let answer = eval(daemon.gateway, "alice", "1");
    assert_eq!(answer.status, 503, "{answer:?}");
    assert!(answer.body.contains("the data of everybody"), "{answer:?}");
    assert!(!answer.body.contains(CANARY) && answer.body.contains("exit code 3"), "{answer:?}");
}

#[test]
fn a_persistent_workspace_outlives_its_worker_and_is_its_sessions_alone() {
    let kept = TempDir::new().unwrap();
    let socket = kept.path().join("control.sock");
    let file = kept.path().join("herd.yaml");
    let (program, workspaces) = (env!("CARGO_BIN_EXE_herd"), kept.path().join("workspaces"));
    let text = format!(
        "worker: {{command: [sh, -c, 'echo started >> /workspace/starts; exec {program} repl']}}\n\
         sandbox: {{workspace: persistent, workspace_dir: {}, read_only: [{program}]}}\n",
        workspaces.display()
    );
    fs::write(&file, text).unwrap();
    let args = ["serve", "--config", file.to_str().unwrap(), "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"];
    let control = ["--control-socket", socket.to_str().unwrap(), "--log-format", "json"];
    let runtime = TempDir::new().unwrap();
    let command = herd(&[&args[..], &control].concat(), runtime.path());
    let daemon = Daemon::spawn(command, socket, kept);
    for session in ["../../alice", "bob"] {
        assert_eq!(eval(daemon.gateway, session, "1").status, 200);
    }
    kill_process(daemon.worker_of("../../alice"), Signal::KILL).unwrap();
    daemon.page_when("/v1/sessions", |sessions| sessions["items"].as_array().unwrap().len() == 1);
    assert_eq!(eval(daemon.gateway, "../../alice", "1").field("herd-session"), Some("new"));

    let mut found = Vec::new();
    for workspace in fs::read_dir(&workspaces).unwrap().flatten().filter(|entry| entry.path().is_dir()) {
        let Ok(session) = fs::read_to_string(workspace.path().join("session")) else { continue };
        let inside = fs::read_dir(workspace.path()).unwrap().flatten();
        let starts = inside.filter_map(|entry| fs::read_to_string(entry.path().join("starts")).ok());
        found.push((session.trim().to_owned(), starts.collect::<String>()));
    }
    found.sort();
    let expected = [("../../alice", "started\nstarted\n"), ("bob", "started\n")];
    assert_eq!(found, expected.map(|(session, starts)| (session.to_owned(), starts.to_owned())));
}

#[test]
fn ps_and_the_admin_api_say_what_is_on_and_what_is_missing() {
    let daemon = Daemon::repl();
    eval(daemon.gateway, "alice", "1");
    let sandbox = daemon.page("/v1/stats")["pools"][0]["sandbox"].clone();
    assert_eq!(sandbox["mode"], "best-effort", "{sandbox}");
    let listed = String::from_utf8(daemon.command(&["ps"]).stdout).unwrap();
    assert!(listed.contains("\nsandbox best-effort; on: "), "{listed}");
    for layer in sandbox["layers"].as_array().unwrap() {
        assert!(listed.contains(layer.as_str().unwrap()), "{layer}: {listed}");
    }
    for missing in sandbox["missing"].as_array().unwrap() {
        let line = listed
            .lines()
            .find(|line| line.starts_with("missing ") && line.contains(missing["layer"].as_str().unwrap()));
        let line = line.unwrap_or_else(|| panic!("{missing}\n{listed}"));
        // What to do is long, and the same for every pool.
        assert!(line.ends_with(" (`herd doctor` says why, and what to do)"), "{line}\n{listed}");
    }
    // Of one that is still starting, nothing is known yet.
    let workers = daemon.page("/v1/workers?state=in-session");
    let worker = &workers["items"][0];
    assert_eq!((&worker["layers"], &worker["missing"]), (&sandbox["layers"], &sandbox["missing"]));
    let json: Value = serde_json::from_slice(&daemon.command(&["ps", "--json"]).stdout).unwrap();
    assert_eq!(json["pools"][0]["sandbox"], sandbox);
}
