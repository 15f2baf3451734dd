//! Workers in the sandbox that is required, which is the default. These run as root and, by way of
//! [`rootless`](crate::rootless), as a user without any privilege.

use std::{
    collections::HashSet,
    env, fs, io,
    net::TcpListener,
    os::unix::{fs::MetadataExt as _, net::UnixListener},
    path::Path,
    time::Duration,
};

use herd_pool::{Connect as _, ExitStatus, Worker as _, WorkerFactory as _, WorkerId};
use herd_process::{Layer, Listen, Network, ProcessWorker, Readiness, StartError};

use crate::fixture::{exists, fail_to_start, files_of_workers, get, patiently, sandboxed_role, shell, start};

/// Starts workers of one factory.
async fn start_some<const COUNT: usize>() -> [ProcessWorker; COUNT] {
    let factory = sandboxed_role(&["serve"]).build().expect("the sandbox can be had");
    let mut workers = Vec::new();
    for number in 0..COUNT {
        workers.push(patiently(factory.spawn(WorkerId::new(number as u64))).await.expect("the worker starts"));
    }
    workers.try_into().unwrap_or_else(|_| unreachable!("there are as many"))
}

pub(crate) async fn every_worker_has_the_same_port_in_a_network_of_its_own() {
    let workers = start_some::<3>().await;
    for worker in &workers {
        assert_eq!(worker.address(), "http://127.0.0.1:8000");
        assert!(worker.layers().contains(&Layer::Network));
        let environment = fs::read(format!("/proc/{}/environ", worker.pid()));
        // Its own user's processes are closed to others, so root alone can look.
        if let Ok(environment) = environment {
            assert!(String::from_utf8_lossy(&environment).contains("PORT=8000"));
        }
        patiently(worker.healthy()).await.expect("it is healthy");
    }
    let names: Vec<_> = workers.iter().enumerate().map(|(number, _)| format!("worker {number}")).collect();
    for (worker, name) in workers.iter().zip(&names) {
        shell(worker, &format!("echo '{name}' > /workspace/name")).await;
    }
    for (worker, name) in workers.iter().zip(&names) {
        assert_eq!(shell(worker, "cat /workspace/name").await, *name, "each answers for itself");
    }
}

pub(crate) async fn another_port_can_be_chosen_and_is_what_the_worker_is_told() {
    let worker = start(sandboxed_role(&["serve"]).port(4711).env("MY_PORT", "{{.Port}}")).await;
    assert_eq!(worker.address(), "http://127.0.0.1:4711");
    assert!(get(&worker, "/env").await.contains("MY_PORT=4711\n"));
}

pub(crate) async fn many_connections_at_once_all_reach_the_worker() {
    // A thread serves each of them.
    let worker = start(sandboxed_role(&["serve"]).pids_limit(-1)).await;
    let connector = worker.connector().clone();
    let connections: Vec<_> = (0..300)
        .map(|_| {
            let connector = connector.clone();
            tokio::spawn(async move { connector.connect().await })
        })
        .collect();
    let mut open = Vec::new();
    for connection in connections {
        open.push(patiently(connection).await.expect("no panic").expect("it is open"));
    }
    assert_eq!(get(&worker, "/pid").await, "2", "and there is room for more");
}

pub(crate) async fn a_worker_that_ended_refuses_connections() {
    let [worker] = start_some().await;
    let connector = worker.connector().clone();
    patiently(worker.kill()).await;
    let error = patiently(connector.connect()).await.expect_err("it has ended");
    assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
}

pub(crate) async fn no_worker_reaches_the_hosts_network() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("it is bound").port();
    let [worker] = start_some().await;
    let text = format!("exec 3<>/dev/tcp/127.0.0.1/{port} && echo reached");
    let said = shell(&worker, &format!("/bin/bash -c '{text}' 2>&1")).await;
    assert!(said.contains("refused") && !said.contains("reached"), "{said}");
}

pub(crate) async fn the_hosts_network_can_be_asked_for() {
    let worker = start(sandboxed_role(&["serve"]).network(Network::Host)).await;
    assert!(!worker.layers().contains(&Layer::Network));
    assert_ne!(worker.address(), "http://127.0.0.1:8000");
    let port = worker.address().rsplit(':').next().and_then(|port| port.parse::<u16>().ok()).expect("a port");
    std::net::TcpStream::connect(("127.0.0.1", port)).expect("it listens on the host");
    patiently(worker.healthy()).await.expect("the port is its own");
}

pub(crate) async fn a_listening_socket_is_made_in_the_workers_own_network() {
    let worker = start(sandboxed_role(&["serve-inherited"]).listen(Listen::Inherit)).await;
    assert_eq!(worker.address(), "http://127.0.0.1:8000");
    assert!(get(&worker, "/env").await.contains("LISTEN_FDS=1\n"));
}

pub(crate) async fn a_unix_socket_has_a_short_path_inside() {
    let base = tempfile::tempdir().expect("a directory");
    let long = base.path().join("x".repeat(100));
    let options = sandboxed_role(&["serve-socket", "{{.Socket}}"]).listen(Listen::Socket).state_dir(&long);
    let worker = start(options).await;
    assert_eq!(get(&worker, "/args").await, "worker\nserve-socket\n/run/herd/socket");
    let outside = worker.address().strip_prefix("unix:").expect("a Unix socket");
    assert!(outside.starts_with(long.canonicalize().expect("it is there").to_str().expect("UTF-8")), "{outside}");
    patiently(worker.healthy()).await.expect("it is healthy");
}

pub(crate) async fn a_link_in_place_of_the_socket_is_not_followed() {
    let outside = tempfile::tempdir().expect("a directory");
    let other = outside.path().join("other");
    let _other = UnixListener::bind(&other).expect("a socket");
    let worker = start(sandboxed_role(&["serve-socket", "{{.Socket}}"]).listen(Listen::Socket)).await;
    for thing in [format!("ln -s {} /run/herd/socket", other.display()), "mkdir /run/herd/socket".to_owned()] {
        let connector = worker.connector().clone();
        let said = shell_once(&worker, &format!("mv /run/herd/socket /run/herd/old; {thing}; ls /run/herd")).await;
        assert!(said.contains("old") && said.contains("socket"), "{said}");
        let error = patiently(connector.connect()).await.expect_err("it is no socket");
        assert_eq!(error.to_string(), "the worker made something else of its socket");
        // Nothing is undone by that.
        let run = Path::new(worker.address().strip_prefix("unix:").expect("a path")).parent().expect("it has one");
        let socket = run.join("socket");
        fs::remove_file(&socket).or_else(|_| fs::remove_dir(&socket)).expect("it can be removed");
        fs::rename(run.join("old"), &socket).expect("it is there");
    }
    patiently(worker.healthy()).await.expect("it is healthy again");
}

/// On a connection of its own, since a client may open its next one ahead.
async fn shell_once(worker: &ProcessWorker, script: &str) -> String {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    let script: String = script.bytes().map(|byte| format!("{byte:02x}")).collect();
    let mut stream = worker.connect().await.expect("it listens");
    stream.write_all(format!("GET /sh/{script} HTTP/1.1\r\n\r\n").as_bytes()).await.expect("it reads");
    let mut answer = String::new();
    patiently(stream.read_to_string(&mut answer)).await.expect("it answers");
    answer
}

pub(crate) async fn a_notification_from_inside_makes_it_ready() {
    let worker = start(sandboxed_role(&["notify", "READY=1"]).ready(Readiness::Notify)).await;
    assert!(get(&worker, "/env").await.contains("NOTIFY_SOCKET=/run/herd/notify\n"));
}

pub(crate) async fn a_worker_that_says_it_is_ready_must_listen_in_its_own_network_too() {
    let ready = Readiness::Stdout { pattern: "^ready$".to_owned() };
    let options = sandboxed_role(&["say", "ready"]).ready(ready.clone());
    patiently(start(options).await.healthy()).await.expect("it listens");
    let mute = herd_process::ProcessFactory::new("/bin/sh")
        .args(["-c", "echo ready; exec sleep 1000"])
        .ready(ready)
        .start_timeout(Duration::from_secs(2));
    let failure = fail_to_start(mute).await;
    assert!(matches!(failure.reason(), StartError::TimedOut { .. }), "{}", failure.text());
    assert!(failure.text().contains("connection refused"), "{}", failure.text());
}

pub(crate) async fn a_command_that_makes_it_ready_sees_the_workers_files() {
    let text = "cat /dev/urandom | head -c 8 | od -An -tx1 > /workspace/mark; exec \"$0\" worker serve";
    let exe = env::current_exe().expect("this binary");
    let command = ["/bin/sh", "-c", "test -s /workspace/mark && test \"$HOME\" = /workspace"].map(str::to_owned);
    let options = herd_process::ProcessFactory::new("/bin/sh")
        .args(["-c", text])
        .arg(&exe)
        .read_only(exe)
        .ready(Readiness::Command { command: command.to_vec() });
    let worker = start(options).await;
    assert_ne!(shell(&worker, "cat /workspace/mark").await, "");
}

pub(crate) async fn a_command_that_makes_it_ready_reaches_the_workers_own_port() {
    let ask = "exec 3<>/dev/tcp/127.0.0.1/$PORT; echo -e 'GET /pid HTTP/1.0\\r\\n\\r\\n' >&3; grep -q 200 <&3";
    let command = ["/bin/bash", "-c", ask].map(str::to_owned);
    let options = sandboxed_role(&["serve"]).ready(Readiness::Command { command: command.to_vec() });
    let worker = start(options).await;
    assert_eq!(get(&worker, "/pid").await, "2");
}

pub(crate) async fn the_worker_is_told_of_its_places_as_it_sees_them() {
    let options = sandboxed_role(&["serve"]).env("ALL", "{{.Workspace}} {{.Socket}} {{.Port}} {{.WorkerID}}");
    let worker = start(options).await;
    let environment = get(&worker, "/env").await;
    assert!(environment.contains("ALL=/workspace /run/herd/socket 8000 worker-1\n"), "{environment}");
    assert!(environment.contains("HOME=/workspace\n"), "{environment}");
    assert_eq!(get(&worker, "/cwd").await, "/workspace");
    assert_eq!(shell(&worker, "ls -A /workspace; echo $(stat -c %a /workspace)").await, "700");
}

pub(crate) async fn the_programs_file_and_the_working_directory_are_visible_and_their_surroundings_are_not() {
    let place = tempfile::tempdir().expect("a directory");
    let (inside, beside) = (place.path().join("inside"), place.path().join("beside"));
    for directory in [&inside, &beside] {
        fs::create_dir(directory).expect("a directory");
        fs::write(directory.join("file"), "x").expect("a file");
    }
    open_to_all(place.path());
    open_to_all(&inside);
    let program = beside.join("program");
    fs::copy(env::current_exe().expect("this binary"), &program).expect("a copy");
    let options = herd_process::ProcessFactory::new(&program).args(["worker", "serve"]).cwd(&inside);
    let worker = start(options).await;
    assert_eq!(get(&worker, "/cwd").await, inside.to_str().expect("UTF-8"));
    let text = format!("ls; ls {}; echo y > file; ls {}", beside.display(), place.path().display());
    let said = shell(&worker, &text).await;
    // What goes to the second stream stands last.
    let [seen, refused] = [said.lines().take(4).collect::<Vec<_>>(), said.lines().skip(4).collect()];
    assert_eq!(seen, ["file", "program", "beside", "inside"]);
    assert!(refused.concat().contains("ead-only file system"), "{said}");
    assert_eq!(fs::read_to_string(inside.join("file")).expect("it is there"), "x");
}

/// Lets the workers' users pass, who are not this one.
fn open_to_all(directory: &Path) {
    use std::os::unix::fs::PermissionsExt as _;

    fs::set_permissions(directory, fs::Permissions::from_mode(0o755)).expect("it is ours");
}

pub(crate) async fn paths_can_be_shown_made_writable_and_hidden() {
    let place = tempfile::tempdir().expect("a directory");
    let (shown, shared) = (place.path().join("shown"), place.path().join("shared"));
    for directory in [&shown, &shared] {
        fs::create_dir(directory).expect("a directory");
        open_to_all(directory);
    }
    open_to_all(place.path());
    fs::create_dir(shown.join("secret")).expect("a directory");
    fs::write(shown.join("secret/key"), "x").expect("a file");
    fs::write(shown.join("data"), "known").expect("a file");
    {
        use std::os::unix::fs::PermissionsExt as _;
        fs::set_permissions(&shared, fs::Permissions::from_mode(0o777)).expect("it is ours");
        fs::set_permissions(shown.join("data"), fs::Permissions::from_mode(0o644)).expect("it is ours");
    }
    let options = sandboxed_role(&["serve"]).read_only(&shown).writable(&shared).hidden(shown.join("secret"));
    let worker = start(options).await;
    let [shown, shared] = [&shown, &shared].map(|path| path.to_str().expect("UTF-8"));
    let said =
        shell(&worker, &format!("cat {shown}/data; echo; echo news > {shared}/news; ls -A {shown}/secret")).await;
    assert_eq!(said, "known", "{said}");
    assert_eq!(fs::read_to_string(Path::new(shared).join("news")).expect("it was written"), "news\n");
    patiently(worker.kill()).await;
    assert!(Path::new(shared).join("news").exists(), "what is shared stays");
}

pub(crate) async fn what_is_herds_own_is_in_nothing_that_workers_see() {
    let place = tempfile::tempdir().expect("a directory");
    let at = |name: &str| place.path().join(name);
    fs::create_dir(at("real")).expect("a directory");
    std::os::unix::fs::symlink(at("real"), at("link")).expect("a link");
    let role = || sandboxed_role(&["serve"]);
    let refused = [
        ("state_dir", role().read_only(at("real")).state_dir(at("link/state"))),
        ("state_dir", role().writable(at("link")).state_dir(at("real/state"))),
        ("state_dir", role().cwd(at("link")).state_dir(at("real"))),
        ("persistent_workspaces", role().read_only(at("link")).persistent_workspaces(at("real/kept"))),
        ("persistent_workspaces", role().persistent_workspaces("/opt/herd-is-never-made/kept")),
    ];
    for (option, options) in refused {
        for built in [options.plan().map(drop), options.build().map(drop)] {
            let error = built.expect_err("it would be seen");
            let told: Vec<_> = error.mistakes().iter().map(|mistake| mistake.option.as_str()).collect();
            assert_eq!(told, [option], "{error}");
            assert!(error.to_string().contains("which every worker sees; choose "), "{error}");
        }
    }
    assert_eq!(fs::read_dir(at("real")).expect("it is there").count(), 0, "nothing was made");
    assert!(!Path::new("/opt/herd-is-never-made").exists());
    // A directory that each worker has for itself is looked at when there is one.
    fs::create_dir(at("kept")).expect("a directory");
    std::os::unix::fs::symlink(at("kept"), at("dir-worker-2")).expect("a link");
    fs::create_dir(at("dir-worker-1")).expect("a directory");
    for directory in [place.path().to_owned(), at("dir-worker-1")] {
        open_to_all(&directory);
    }
    let own = role().cwd(at("dir-{{.WorkerID}}")).state_dir(at("kept/state"));
    let factory = own.build().expect("the first one shows nothing");
    patiently(factory.spawn(WorkerId::new(1))).await.expect("it starts");
    let error = patiently(factory.spawn(WorkerId::new(2))).await.expect_err("it would see the state directory");
    let cause = std::error::Error::source(error.reason()).expect("a cause").to_string();
    assert!(cause.contains("which every worker sees"), "{cause}");
}

pub(crate) async fn what_is_hidden_is_so_by_every_name() {
    let place = tempfile::tempdir().expect("a directory");
    let at = |name: &str| place.path().join(name);
    fs::create_dir_all(at("real/secret")).expect("directories");
    fs::write(at("real/secret/key"), "the key").expect("a file");
    fs::write(at("real/data"), "the data").expect("a file");
    std::os::unix::fs::symlink(at("real"), at("link")).expect("a link");
    std::os::unix::fs::symlink(at("real/secret"), at("other")).expect("a link");
    for directory in [place.path().to_owned(), at("real"), at("real/secret")] {
        open_to_all(&directory);
    }
    let options = |shown: &str, hidden: &str| sandboxed_role(&["serve"]).read_only(at(shown)).hidden(at(hidden));
    for (shown, hidden) in [("link", "real/secret"), ("real", "link/secret"), ("link", "other"), ("real", "other")] {
        let worker = start(options(shown, hidden)).await;
        let shown = at(shown);
        let said =
            shell(&worker, &format!("cd {}; cat data; echo; cat secret/key; ls -A secret", shown.display())).await;
        assert!(said.starts_with("the data") && !said.contains("the key") && !said.ends_with("key"), "{said}");
    }
    let refused = |options: herd_process::ProcessFactoryBuilder| {
        let error = options.build().expect_err("it cannot be hidden").to_string();
        assert!(error.starts_with("hidden[0]: ") && error.contains(" cannot be hidden: "), "{error}");
        error
    };
    let error = refused(options("real", "real/secrets"));
    assert!(error.contains("nothing is there to hide"), "{error}");
    // Whoever may write to what is above it can move it.
    for shown in ["real", "link", "real/secret"] {
        let error = refused(sandboxed_role(&["serve"]).writable(at(shown)).hidden(at("link/secret")));
        assert!(error.contains("which is writable, so that one worker could move it"), "{error}");
    }
}

pub(crate) async fn a_path_that_is_not_there_cannot_be_shown() {
    let error = sandboxed_role(&["serve"]).read_only("/nowhere/at/all").build().expect_err("it cannot");
    let text = error.to_string();
    assert!(text.starts_with("read_only[0]: /nowhere/at/all cannot be shown: "), "{text}");
}

pub(crate) async fn a_crash_inside_is_told_with_the_signal_and_the_last_words() {
    let [worker] = start_some().await;
    let exited = worker.exited();
    let _ = patiently(worker.client().get("/abort")).await;
    let exit = patiently(exited).await;
    assert_eq!(exit.status, ExitStatus::Signal(6));
    assert_eq!(&*exit.stderr_tail, &["about to abort".to_owned()][..]);
    assert!(!exit.out_of_memory);
}

pub(crate) async fn close_leaves_no_process_whatever_the_worker_has_started() {
    let base = tempfile::tempdir().expect("a directory");
    let options = sandboxed_role(&["serve"]).state_dir(base.path()).stop_grace(Duration::ZERO);
    let worker = start(options).await;
    // Sessions and process groups of their own, orphans, and one that ignores all it can.
    shell(
        &worker,
        "for i in 1 2 3; do setsid sh -c 'trap \"\" TERM HUP INT; sleep 1000 & wait' >/dev/null 2>&1 & done",
    )
    .await;
    let inside = shell(&worker, "ls -d /proc/[0-9]* | wc -l").await;
    assert!(inside.parse::<usize>().expect("a number") >= 7, "{inside}");
    let pids = [worker.pid(), worker.init_pid()];
    let namespace = fs::read_link(format!("/proc/{}/ns/pid", worker.pid()));
    patiently(worker.close()).await;
    assert!(!pids.into_iter().any(exists));
    if let Ok(namespace) = namespace {
        assert_eq!(processes_in(&namespace), 0);
    }
    assert_eq!(files_of_workers(base.path()), [""; 0]);
}

/// How many processes are in a PID namespace.
fn processes_in(namespace: &Path) -> usize {
    let processes = fs::read_dir("/proc").expect("/proc is there").flatten();
    processes.filter(|process| fs::read_link(process.path().join("ns/pid")).is_ok_and(|ns| ns == namespace)).count()
}

pub(crate) async fn hostile_files_are_removed_with_the_worker_and_nothing_outside_is_touched() {
    let base = tempfile::tempdir().expect("a directory");
    let outside = tempfile::tempdir().expect("a directory");
    let kept = outside.path().join("kept");
    fs::write(&kept, "x").expect("a file");
    let worker = start(sandboxed_role(&["serve"]).state_dir(base.path())).await;
    let text = format!(
        "cd /workspace; ln -s {outside} link; ln -s /etc etc; ln -s . self; ln -s {kept} to-file; \
         mkdir -p locked/away; touch locked/away/file; chmod 000 locked/away locked; \
         touch name; ln name other; mkfifo pipe; \
         i=0; while [ $i -lt 300 ]; do mkdir d && cd d && ln -s {outside} l; i=$((i+1)); done; \
         ln -s {outside} /run/herd/link; mkdir /run/herd/0; touch \"$(printf '/workspace/\\001\\n\\377')\"; echo done",
        outside = outside.path().display(),
        kept = kept.display(),
    );
    assert_eq!(shell(&worker, &text).await, "done");
    patiently(worker.kill()).await;
    assert_eq!(files_of_workers(base.path()), [""; 0]);
    assert_eq!(fs::read_to_string(&kept).expect("it is there"), "x");
    assert!(Path::new("/etc/passwd").exists());
}

pub(crate) async fn open_files_and_core_dumps_are_limited() {
    let worker = start(sandboxed_role(&["serve"]).open_files(64)).await;
    let limits = get(&worker, "/limits").await;
    let line = |name: &str| limits.lines().find(|line| line.starts_with(name)).unwrap_or_default().to_owned();
    assert_eq!(line("Max open files").split_whitespace().nth(3), Some("64"));
    assert_eq!(line("Max core file size").split_whitespace().nth(4), Some("0"));
}

pub(crate) async fn the_layers_that_are_on_are_told() {
    let [worker] = start_some().await;
    let layers: HashSet<_> = worker.layers().iter().copied().collect();
    for layer in [
        Layer::UserNamespace,
        Layer::PidNamespace,
        Layer::Files,
        Layer::Ipc,
        Layer::HostName,
        Layer::Network,
        Layer::Capabilities,
        Layer::Seccomp,
    ] {
        assert!(layers.contains(&layer), "{layer}");
    }
    assert_eq!(layers.contains(&Layer::Identity), rustix::process::geteuid().is_root());
    let workspace = fs::metadata(format!("/proc/{}/root/workspace", worker.pid()));
    if let Ok(workspace) = workspace {
        let process = fs::metadata(format!("/proc/{}", worker.pid())).expect("it runs");
        assert_eq!(workspace.uid(), process.uid());
    }
}
