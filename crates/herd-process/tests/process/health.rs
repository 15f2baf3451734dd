use herd_pool::Worker as _;
use herd_process::{ProcessWorker, Readiness};

use crate::{
    fixture::{get, patiently, role, start},
    role::Foreigner,
};

async fn finding(worker: &ProcessWorker) -> String {
    patiently(worker.healthy()).await.expect_err("it is not healthy").to_string()
}

pub(crate) async fn a_worker_that_answers_is_healthy() {
    let worker = start(role(&["serve"])).await;
    patiently(worker.healthy()).await.expect("it is healthy");
}

pub(crate) async fn a_worker_that_does_not_know_the_path_lives() {
    let worker = start(role(&["worsen", "404"])).await;
    get(&worker, "/worse").await;
    patiently(worker.healthy()).await.expect("it answers, so it lives");
}

pub(crate) async fn a_worker_that_answers_500_is_not_healthy() {
    let worker = start(role(&["worsen", "500"])).await;
    get(&worker, "/worse").await;
    assert_eq!(finding(&worker).await, "status 500");
}

pub(crate) async fn a_worker_that_answers_garbage_is_not_healthy() {
    let worker = start(role(&["worsen", "babbles"])).await;
    get(&worker, "/worse").await;
    let finding = finding(&worker).await;
    assert!(finding.starts_with("no HTTP answer: "), "{finding}");
}

pub(crate) async fn a_worker_that_closed_its_listener_is_not_healthy() {
    for ready in [Readiness::default(), Readiness::Tcp] {
        let worker = start(role(&["worsen", "closes"]).ready(ready)).await;
        get(&worker, "/worse").await;
        while patiently(worker.healthy()).await.is_ok() {}
        assert!(finding(&worker).await.starts_with("nobody listens on its port"));
    }
}

pub(crate) async fn a_foreign_listener_on_the_workers_port_is_not_the_worker() {
    let worker = start(role(&["worsen", "closes"])).await;
    get(&worker, "/worse").await;
    while patiently(worker.healthy()).await.is_ok() {}
    let port = worker.address().rsplit(':').next().and_then(|port| port.parse().ok()).expect("a port");
    let _foreigner = Foreigner::listen(port).await;
    assert!(finding(&worker).await.starts_with("another program listens on its port"));
}

pub(crate) async fn a_worker_that_is_busy_for_long_lives() {
    for ready in [Readiness::Tcp, Readiness::Command { command: vec!["true".to_owned()] }] {
        let worker = start(role(&["worsen", "busy"]).ready(ready)).await;
        get(&worker, "/worse").await;
        patiently(worker.healthy()).await.expect("it is busy, and lives");
    }
}

pub(crate) async fn a_worker_that_hangs_is_not_healthy() {
    let worker = start(role(&["worsen", "hangs"])).await;
    get(&worker, "/worse").await;
    assert_eq!(finding(&worker).await, "no answer within 4s");
}

pub(crate) async fn a_worker_that_ended_is_not_healthy() {
    let worker = start(role(&["serve"])).await;
    let _ = patiently(worker.client().get("/abort")).await;
    patiently(worker.exited()).await;
    assert_eq!(finding(&worker).await, "it ended with signal 6");
}
