use std::time::Duration;

use herd_pool::{Worker as _, WorkerFactory as _, WorkerId};
use herd_process::{Listen, ProcessFactory, Readiness, StartError};

use crate::fixture::{NEVER, PATIENCE, fail_to_start, get, patiently, role, script, start, timed};

/// Long enough for a worker to show itself on a busy machine.
const SHORT: Duration = Duration::from_secs(2);

fn ready(text: &str) -> Readiness {
    text.parse().expect("it is one")
}

pub(crate) async fn http_waits_for_a_2xx_answer() {
    let worker = start(role(&["serve"])).await;
    assert_eq!(get(&worker, "/pid").await, worker.pid().to_string());
    for status in ["204", "299"] {
        start(role(&["status", status])).await;
    }
    for status in ["302", "404", "500"] {
        let failure = fail_to_start(role(&["status", status]).start_timeout(SHORT)).await;
        assert!(failure.text().contains(&format!("status {status}")), "{}", failure.text());
    }
}

pub(crate) async fn http_has_a_path_of_its_own() {
    start(role(&["serve"]).health_path("/fine")).await;
    start(role(&["serve"]).health_path("/missing").ready(ready("http:/fine"))).await;
    for options in [role(&["serve"]).health_path("/missing"), role(&["serve"]).ready(ready("http:/missing"))] {
        let failure = fail_to_start(options.start_timeout(SHORT)).await;
        assert!(failure.text().contains("GET /missing, last saw status 404"), "{}", failure.text());
    }
}

pub(crate) async fn tcp_waits_for_a_connection() {
    start(role(&["listen"]).ready(Readiness::Tcp)).await;
    let failure = fail_to_start(role(&["sleep"]).ready(Readiness::Tcp).start_timeout(SHORT)).await;
    assert!(failure.text().contains("a connection to its port, last saw connection refused"), "{}", failure.text());
    assert!(
        failure.text().contains("it has to listen on 127.0.0.1 at the port that `{{.Port}}`"),
        "{}",
        failure.text()
    );
}

pub(crate) async fn a_unix_socket_is_listened_on() {
    let listening = role(&["serve-socket", "{{.Socket}}"]).listen(Listen::Socket).ready(Readiness::Socket);
    start(listening).await;
    let sleeping = role(&["sleep"]).listen(Listen::Socket).ready(Readiness::Socket).start_timeout(SHORT);
    let failure = fail_to_start(sleeping).await;
    assert!(failure.text().contains("its Unix socket, last saw no socket yet"), "{}", failure.text());
}

pub(crate) async fn a_line_on_stdout_makes_it_ready() {
    let said = "stdout:^listening on [0-9]+$";
    let worker = start(role(&["say", "listening on 80"]).ready(ready(said))).await;
    assert_eq!(get(&worker, "/pid").await, worker.pid().to_string());
    let failure = fail_to_start(role(&["say", "listening on a port"]).ready(ready(said)).start_timeout(SHORT)).await;
    assert!(failure.text().contains("last saw no such line"), "{}", failure.text());
}

pub(crate) async fn a_notification_makes_it_ready() {
    start(role(&["notify", "STATUS=done READY=1"]).ready(Readiness::Notify)).await;
    let failure =
        fail_to_start(role(&["notify", "STATUS=loading"]).ready(Readiness::Notify).start_timeout(SHORT)).await;
    assert!(failure.text().contains("last saw the status `loading`"), "{}", failure.text());
}

pub(crate) async fn a_command_makes_it_ready() {
    let worker = start(
        script(r#""$0" worker serve & echo done > "$HOME/done"; wait"#)
            .ready(ready(r#"command:test "$(cat {{.Workspace}}/done)" = done && test $PORT = {{.Port}}"#)),
    )
    .await;
    patiently(worker.healthy()).await.expect("it lives");
    let failing = role(&["serve"]).ready(ready("command:exit 4")).start_timeout(SHORT);
    let failure = fail_to_start(failing).await;
    assert!(failure.text().contains("last saw exit code 4"), "{}", failure.text());
}

pub(crate) async fn a_worker_that_says_it_is_ready_must_listen_too() {
    let failure =
        fail_to_start(script("echo ready; sleep 1000").ready(ready("stdout:ready")).start_timeout(SHORT)).await;
    let StartError::TimedOut { last_seen, .. } = failure.reason() else { panic!("{:?}", failure.reason()) };
    assert!(last_seen.starts_with("that, but nobody listens on port"), "{last_seen}");
}

pub(crate) async fn a_listening_socket_is_inherited() {
    let text = r#"
import os, socket
assert os.environ["LISTEN_FDS"] == "1" and int(os.environ["LISTEN_PID"]) == os.getpid()
listener = socket.socket(fileno=3)
assert listener.getsockname() == ("127.0.0.1", int(os.environ["PORT"]))
while True:
    connection, _ = listener.accept()
    connection.recv(4096)
    connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\nconnection: close\r\n\r\nhere")
    connection.close()
"#;
    let options = ProcessFactory::new("python3")
        .args(["-c", text])
        .listen(Listen::Inherit)
        .start_timeout(NEVER)
        .insecure_sandbox();
    let worker = start(options).await;
    assert_eq!(get(&worker, "/").await, "here");
    patiently(worker.close()).await;
    // The daemon keeps no copy of the socket: nobody listens any more.
    let refused = patiently(herd_pool::Connect::connect(&worker)).await.expect_err("nobody listens");
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
}

pub(crate) async fn readiness_is_noticed_within_milliseconds() {
    // Of several tries the quickest counts: the machine may be busy with other things.
    let mut quickest = PATIENCE;
    for _ in 0..5 {
        let worker = start(role(&["serve-after", "30"])).await;
        quickest = quickest.min(worker.ready_after());
    }
    let bound = Duration::from_millis(250);
    assert!((Duration::from_millis(30)..bound).contains(&quickest), "{quickest:?}");
}

pub(crate) async fn the_first_look_can_be_delayed() {
    let delay = Duration::from_millis(300);
    let (worker, took) = timed(start(role(&["serve"]).start_health_check_delay(delay))).await;
    assert!(took >= delay && worker.ready_after() >= delay, "{took:?}");
}

pub(crate) async fn many_workers_start_together() {
    let factory = role(&["serve"]).build().expect("the options are valid");
    let mut spawns = tokio::task::JoinSet::new();
    for number in 0..30 {
        let factory = factory.clone();
        spawns.spawn(async move { factory.spawn(WorkerId::new(number)).await.expect("the worker starts") });
    }
    let workers = patiently(spawns.join_all()).await;
    for worker in &workers {
        assert_eq!(get(worker, "/pid").await, worker.pid().to_string());
    }
    drop(workers);
    patiently(factory.none_left()).await;
}
