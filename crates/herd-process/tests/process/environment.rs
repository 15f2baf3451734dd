use std::{
    collections::BTreeMap,
    env, fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use herd_pool::Worker as _;
use herd_process::{Listen, ProcessWorker};

use crate::fixture::{get, patiently, role, start};

async fn variables(worker: &ProcessWorker) -> BTreeMap<String, String> {
    let text = get(worker, "/env").await;
    text.lines().filter_map(|line| line.split_once('=')).map(|(name, value)| (name.into(), value.into())).collect()
}

fn port(worker: &ProcessWorker) -> &str {
    worker.address().rsplit(':').next().expect("an address has a port")
}

pub(crate) async fn the_worker_gets_nothing_of_the_daemons_environment() {
    assert!(env::vars().count() > 4, "there is something that could leak");
    let worker = start(role(&["serve"])).await;
    let variables = variables(&worker).await;
    assert_eq!(variables.keys().collect::<Vec<_>>(), ["HOME", "LANG", "PATH", "PORT"]);
    assert_eq!(variables["PORT"], port(&worker));
    assert_eq!(variables["LANG"], "C.UTF-8");
    assert_eq!(variables["PATH"], env::var("PATH").expect("tests have a path"));
    assert!(Path::new(&variables["HOME"]).is_dir());
}

pub(crate) async fn configured_variables_replace_the_defaults() {
    let options = role(&["serve"]).env("LANG", "de_DE").env("HOME", "/").env("TOKEN", "a=b").env("TOKEN", "c=d");
    let variables = variables(&start(options.env("PORT", "{{.Port}}")).await).await;
    assert_eq!(variables.keys().collect::<Vec<_>>(), ["HOME", "LANG", "PATH", "PORT", "TOKEN"]);
    assert_eq!((&*variables["LANG"], &*variables["HOME"], &*variables["TOKEN"]), ("de_DE", "/", "c=d"));
}

pub(crate) async fn templates_expand_in_arguments_environment_and_directory() {
    let worker = start(
        role(&["serve-socket", "{{.Socket}}"])
            .listen(Listen::Socket)
            .env("ALL", "{{.Port}} {{.Socket}} {{.WorkerID}} {{.Workspace}} {{other}}")
            .cwd("{{.Workspace}}"),
    )
    .await;
    let socket = worker.address().strip_prefix("unix:").expect("a Unix socket");
    assert_eq!(get(&worker, "/args").await, format!("worker\nserve-socket\n{socket}"));
    let variables = variables(&worker).await;
    let (port, workspace) = (&variables["PORT"], &variables["HOME"]);
    assert!(port.parse::<u16>().is_ok_and(|port| port > 0), "PORT is always set: {port}");
    assert_eq!(variables["ALL"], format!("{port} {socket} worker-1 {workspace} {{{{other}}}}"));
    assert_eq!(get(&worker, "/cwd").await, *workspace);
}

pub(crate) async fn the_workspace_is_private_and_goes_with_the_worker() {
    let worker = start(role(&["serve"])).await;
    let workspace = PathBuf::from(&variables(&worker).await["HOME"]);
    for directory in workspace.ancestors().take(3) {
        let mode = fs::metadata(directory).expect("it is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o700, "{directory:?}");
    }
    fs::create_dir_all(workspace.join("deep/er")).expect("it can be written");
    patiently(worker.close()).await;
    assert!(!workspace.parent().expect("it has one").exists());
}

pub(crate) async fn open_files_are_limited() {
    for (options, expected) in [(role(&["serve"]), "4096"), (role(&["serve"]).open_files(64), "64")] {
        let worker = start(options).await;
        let limits = get(&worker, "/limits").await;
        let line = limits.lines().find(|line| line.starts_with("Max open files")).expect("the line is there");
        let values: Vec<_> = line.split_whitespace().skip(3).take(2).collect();
        assert_eq!(values, [expected, expected]);
        assert_eq!(worker.limits().open_files.to_string(), expected);
    }
}
