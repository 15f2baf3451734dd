//! Programs that nobody here wrote.

use herd_pool::{Connect as _, Worker as _};
use herd_process::{Connector, ProcessFactory, Readiness};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};

use crate::fixture::{NEVER, get, patiently, start};

pub(crate) async fn pythons_web_server_is_a_worker() {
    let options = ProcessFactory::new("python3")
        .insecure_sandbox()
        .args(["-m", "http.server", "{{.Port}}", "--bind", "127.0.0.1"])
        .health_path("/")
        .cwd("{{.Workspace}}")
        .start_timeout(NEVER);
    let worker = start(options).await;
    let page = get(&worker, "/").await;
    assert!(page.contains("Directory listing"), "{page}");
    patiently(worker.healthy()).await.expect("it answers");
    patiently(worker.close()).await;
}

/// A client that knows as much of Redis' protocol as this test needs.
struct Redis(Connector);

impl Redis {
    async fn command(&self, words: &str) -> String {
        let mut stream = BufReader::new(self.0.connect().await.expect("it listens"));
        stream.write_all(format!("{words}\r\n").as_bytes()).await.expect("it reads");
        let mut line = String::new();
        stream.read_line(&mut line).await.expect("it answers");
        line.trim_end().to_owned()
    }
}

pub(crate) async fn a_redis_server_is_a_worker_with_a_client_of_its_own() {
    let options = ProcessFactory::new("redis-server")
        .insecure_sandbox()
        .args(["--port", "{{.Port}}", "--bind", "127.0.0.1", "--save", "", "--dir", "{{.Workspace}}"])
        .ready(Readiness::Tcp)
        .start_timeout(NEVER)
        .client(Redis);
    let factory = options.build().expect("the options are valid");
    let spawn = herd_pool::WorkerFactory::spawn(&factory, herd_pool::WorkerId::new(1));
    let worker = patiently(spawn).await.expect("redis-server starts; install Debian's redis-server if it is missing");
    assert_eq!(patiently(worker.client().command("INCR visits")).await, ":1");
    assert_eq!(patiently(worker.client().command("INCR visits")).await, ":2");
    patiently(worker.close()).await;
    // Asked to stop, it saves nothing and ends with 0.
    assert_eq!(patiently(worker.exited()).await.status, herd_pool::ExitStatus::Code(0));
}
