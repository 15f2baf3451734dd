use std::{fs, time::Duration};

use rustix::process::{Pid, Signal, kill_process};

use crate::{daemon::Daemon, processes::Watch};

#[tokio::test]
async fn each_session_has_a_python_file_server_of_its_own() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("greeting.txt"), "hello from a file").unwrap();
    let flags = ["--health-path", "/", "--cwd", directory.path().to_str().unwrap()];
    let daemon = Daemon::run(&flags, &["python3", "-m", "http.server", "{{.Port}}", "--bind", "127.0.0.1"]);
    let gateway = daemon.gateway;

    for session in ["alice", "bob"] {
        let answer = gateway.get(Some(session), "/greeting.txt").await;
        assert_eq!((answer.status, answer.body.as_str()), (200, "hello from a file"));
        assert!(answer.field("server").starts_with("SimpleHTTP"), "{:?}", answer.headers);
        assert_eq!(answer.field("herd-session"), "new");
    }
    let (alice, alices_pid) = daemon.worker_of("alice").await;
    let (bob, bobs_pid) = daemon.worker_of("bob").await;
    assert_ne!((&alice, alices_pid), (&bob, bobs_pid));
    for pid in [alices_pid, bobs_pid] {
        assert!(fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap().contains("http.server"));
    }

    // One process ends: the other session does not notice.
    let watch = Watch::of([alices_pid]);
    kill_process(Pid::from_raw(i32::try_from(alices_pid).unwrap()).unwrap(), Signal::KILL).unwrap();
    watch.wait_for_exits(Duration::from_secs(5));
    let again = gateway.get(Some("bob"), "/greeting.txt").await;
    assert_eq!((again.field("herd-session"), again.worker()), ("resumed", bob.as_str()));
    let fresh = gateway.get(Some("alice"), "/greeting.txt").await;
    assert_ne!(fresh.worker(), alice);
}
