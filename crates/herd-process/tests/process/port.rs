use std::{collections::HashSet, io::ErrorKind};

use herd_pool::{Connect as _, Worker as _, WorkerFactory as _, WorkerId};
use herd_process::{Readiness, StartError};

use crate::{
    fixture::{Roll, fail_to_start, get, patiently, role, script, start},
    role::Foreigner,
};

pub(crate) async fn workers_have_ports_of_their_own() {
    // Two factories, as for two pools of one daemon.
    let factories = [(); 2].map(|()| role(&["serve"]).build().expect("the options are valid"));
    let mut workers = Vec::new();
    for number in 0..6 {
        for factory in &factories {
            workers.push(patiently(factory.spawn(WorkerId::new(number))).await.expect("the worker starts"));
        }
    }
    let addresses: HashSet<_> = workers.iter().map(|worker| worker.address().to_owned()).collect();
    assert_eq!(addresses.len(), workers.len());
    for worker in &workers {
        assert_eq!(get(worker, "/pid").await, worker.pid().to_string());
    }
}

pub(crate) async fn a_port_that_another_program_took_is_replaced() {
    let roll = Roll::new();
    let factory = role(&["serve-when-told"]).env("ROLL", roll.path()).build().expect("the options are valid");
    let thief = async {
        let mut first = roll.next().await;
        let foreigner = Foreigner::listen(first.port).await;
        first.go_on().await;
        let stolen = first.port;
        first.gone().await;
        let mut second = roll.next().await;
        second.go_on().await;
        (stolen, second, foreigner)
    };
    let (worker, (stolen, second, _foreigner)) = tokio::join!(patiently(factory.spawn(WorkerId::new(1))), thief);
    let worker = worker.expect("it gets another port");
    assert_ne!(second.port, stolen);
    assert_eq!(worker.address(), format!("http://127.0.0.1:{}", second.port));
    assert_eq!(get(&worker, "/pid").await, second.pid.to_string());
}

pub(crate) async fn what_answers_on_a_stolen_port_is_not_taken_for_the_worker() {
    let roll = Roll::new();
    // The worker itself never complains: it only never listens the first time.
    let factory = role(&["serve-when-told"]).env("ROLL", roll.path()).build().expect("the options are valid");
    let thief = async {
        let first = roll.next().await;
        let foreigner = Foreigner::listen(first.port).await;
        first.gone().await;
        let mut second = roll.next().await;
        second.go_on().await;
        (second, foreigner)
    };
    let (worker, (second, _foreigner)) = tokio::join!(patiently(factory.spawn(WorkerId::new(1))), thief);
    let worker = worker.expect("it gets another port");
    assert_eq!((worker.pid(), &*get(&worker, "/pid").await), (second.pid, &*second.pid.to_string()));
}

pub(crate) async fn no_connection_goes_to_a_program_that_took_over_the_port_of_a_ready_worker() {
    let worker = start(role(&["worsen", "closes"]).ready(Readiness::Tcp)).await;
    get(&worker, "/worse").await;
    // While it closes the listener a connection can be reset, too.
    patiently(async {
        while !worker.connect().await.is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused) {}
    })
    .await;
    let port = worker.address().rsplit(':').next().and_then(|port| port.parse().ok()).expect("a port");
    let _foreigner = Foreigner::listen(port).await;
    let error = patiently(worker.connect()).await.expect_err("it is not the worker");
    assert_eq!(error.to_string(), format!("another program listens on the worker's port {port}"));
    patiently(worker.client().get("/pid")).await.expect_err("the client is not answered by another program");
    patiently(worker.healthy()).await.expect_err("it has lost its port");
}

pub(crate) async fn a_worker_that_replaces_its_listener_is_reached() {
    let worker = start(role(&["worsen", "reopens"]).ready(Readiness::Tcp)).await;
    get(&worker, "/worse").await;
    patiently(async { while worker.client().get("/").await.is_err() {} }).await;
    assert_eq!(get(&worker, "/pid").await, worker.pid().to_string());
    patiently(worker.healthy()).await.expect("it is the worker that listens");
}

pub(crate) async fn a_worker_that_loses_every_port_is_given_up() {
    let roll = Roll::new();
    let factory = role(&["serve-when-told"]).env("ROLL", roll.path()).build().expect("the options are valid");
    let thief = async {
        let mut foreigners = Vec::new();
        for _ in 0..5 {
            let process = roll.next().await;
            foreigners.push((process.port, Foreigner::listen(process.port).await));
            process.gone().await;
        }
        foreigners
    };
    let (worker, foreigners) = tokio::join!(patiently(factory.spawn(WorkerId::new(1))), thief);
    let error = worker.expect_err("there is no sixth port");
    let Some(StartError::PortsLost { ports, .. }) = error.reason().downcast_ref() else { panic!("{error}") };
    assert_eq!(*ports, foreigners.iter().map(|(port, _)| *port).collect::<Vec<_>>());
}

pub(crate) async fn a_conflict_about_another_port_is_the_workers_own_fault() {
    let options = role(&["exit", "1", "metrics on port 9: Address already in use"]);
    let failure = fail_to_start(options).await;
    assert!(matches!(failure.reason(), StartError::Exited { .. }), "{}", failure.text());
}

pub(crate) async fn a_listener_of_a_descendant_is_the_workers() {
    // The one who listens has a session of its own, and its parent has ended.
    let worker = start(script(r#"(setsid "$0" worker serve & ); exec "$0" worker sleep"#)).await;
    assert_ne!(get(&worker, "/pid").await, worker.pid().to_string());
    patiently(worker.healthy()).await.expect("it is healthy");
}
