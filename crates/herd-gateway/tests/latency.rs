//! How long requests take, by pool and phase.

mod fakes;

use std::{sync::Arc, time::Duration};

use fakes::{Fixture, Setup, pool_of, pool_that_says, request_head, response, say_id, soon};
use herd_gateway::{Gateway, GatewayOptions, PoolLatencies, Routes, Rule};
use herd_pool::{Histogram, WorkerFactory};
use tokio::{io::AsyncWriteExt, sync::Notify, time::Instant};

const GET: &str = "GET / HTTP/1.1\r\nhost: h\r\nx-session-id: a\r\n\r\n";

fn of<F>(gateway: &Gateway<F>, pool: &str) -> PoolLatencies
where
    F: WorkerFactory,
    F::Worker: herd_pool::Connect,
{
    gateway.latencies().into_iter().find(|latencies| *latencies.pool == *pool).expect("the pool is there")
}

fn phase(latencies: &PoolLatencies, name: &str) -> Histogram {
    latencies.phases.iter().find(|(phase, _)| *phase == name).expect("the phase is there").1
}

/// Waits until that many requests of the pool are complete.
async fn complete(fixture: &Fixture, pool: &str, requests: u64) -> PoolLatencies {
    soon(async {
        loop {
            let latencies = of(&fixture.gateway, pool);
            if latencies.request.count() == requests {
                return latencies;
            }
            tokio::task::yield_now().await;
        }
    })
    .await
}

#[tokio::test]
async fn every_request_counts_once_in_every_phase() {
    let fixture = Fixture::start(say_id).await;
    let mut client = fixture.connect().await;
    for _ in 0..10 {
        client.send(GET).await;
        assert_eq!(client.answer().await.status, 200);
    }
    let latencies = complete(&fixture, "default", 10).await;
    for (name, latency) in latencies.phases {
        assert_eq!(latency.count(), if name == "end" { 0 } else { 10 }, "{name}");
    }
    assert_eq!(latencies.first_byte.count(), 10);
    assert_eq!(latencies.responses_total, [0, 10, 0, 0, 0]);
    assert!(latencies.first_byte.sum() <= latencies.request.sum());
    let phases: Duration = latencies.phases.iter().map(|(_, latency)| latency.sum()).sum();
    assert!(phases <= latencies.request.sum(), "{latencies:?}");
    // A session that lives, and a connection that was kept, took nothing.
    for name in ["lease", "connect"] {
        let (bound, quick) = phase(&latencies, name).cumulative().next().unwrap();
        assert_eq!(bound, Duration::from_micros(50));
        assert!(quick >= 9, "{name}: {quick}");
    }
}

#[tokio::test]
async fn what_a_worker_and_a_client_wait_for_counts_in_its_phase() {
    const LONG: Duration = Duration::from_millis(60);
    // It lets the head wait for some time, and the body for a word.
    let go = Arc::new(Notify::new());
    let slow = {
        let go = go.clone();
        move |mut stream: tokio::net::TcpStream, _| {
            let go = go.clone();
            async move {
                while request_head(&mut stream).await.is_some() {
                    tokio::time::sleep(LONG).await;
                    let head = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n";
                    stream.write_all(head.as_bytes()).await.unwrap();
                    go.notified().await;
                    stream.write_all(b"ab").await.unwrap();
                }
            }
        }
    };
    let fixture = Fixture::start(slow).await;
    let begun = Instant::now();
    let mut client = fixture.connect().await;
    client.send(GET).await;
    assert_eq!(client.head().await.status, 200);
    tokio::time::sleep(LONG).await;
    go.notify_one();
    assert_eq!(client.read_exactly(2).await.unwrap(), b"ab");
    let latencies = complete(&fixture, "default", 1).await;
    let took = begun.elapsed();
    for waited in [phase(&latencies, "send"), phase(&latencies, "relay"), latencies.first_byte] {
        assert!(waited.sum() >= LONG && waited.sum() <= took, "{latencies:?}");
    }
    assert!(latencies.request.sum() >= 2 * LONG && latencies.request.sum() <= took, "{latencies:?}");
}

#[tokio::test]
async fn each_pool_has_its_own_and_who_reaches_none_counts_in_none() {
    let fixture = Fixture::start(say_id).await;
    let pools = ["a", "b"].map(|name| (name.into(), pool_that_says(name)));
    let by_path = |pool: &str| Rule { pool: pool.into(), path_prefix: Some(format!("/{pool}")), ..Rule::default() };
    let routes = || Routes::new(pools.to_vec(), vec![by_path("a"), by_path("b")], None).unwrap();
    fixture.gateway.configure(routes(), GatewayOptions::default());
    for (path, session, status) in
        [("/a", "s", 200), ("/b", "s", 200), ("/b", "s", 200), ("/b", "", 400), ("/c", "s", 404)]
    {
        let request = format!("GET {path} HTTP/1.1\r\nhost: h\r\nx-session-id: {session}\r\n\r\n");
        assert_eq!(fixture.ask(&request).await.status, status);
    }
    let counts = |latencies: &PoolLatencies| {
        (latencies.responses_total, latencies.request.count(), latencies.first_byte.count())
    };
    complete(&fixture, "a", 1).await;
    complete(&fixture, "b", 3).await;
    assert_eq!(counts(&of(&fixture.gateway, "a")), ([0, 1, 0, 0, 0], 1, 1));
    assert_eq!(counts(&of(&fixture.gateway, "b")), ([0, 2, 0, 1, 0], 3, 2));
    // Whoever is still there goes on counting, and whoever left counts no more.
    let rest = Routes::new(pools[1..].to_vec(), vec![by_path("b")], None).unwrap();
    fixture.gateway.configure(rest, GatewayOptions::default());
    assert_eq!(fixture.gateway.latencies().len(), 1);
    assert_eq!(counts(&of(&fixture.gateway, "b")), ([0, 2, 0, 1, 0], 3, 2));
    fixture.gateway.configure(routes(), GatewayOptions::default());
    assert_eq!(counts(&of(&fixture.gateway, "a")), ([0; 5], 0, 0));
}

#[tokio::test]
async fn a_request_without_a_worker_counts_with_its_wait() {
    const PATIENCE: Duration = Duration::from_millis(50);
    let setup = Setup {
        pool: |builder| builder.min_workers(0).spare(0).max_workers(1).acquire_timeout(PATIENCE),
        ..Setup::default()
    };
    let fixture = setup.start(say_id).await;
    let _taken = fixture.pool.acquire(&"other".parse().unwrap()).await.unwrap();
    assert_eq!(fixture.ask(GET).await.status, 503);
    let latencies = complete(&fixture, "default", 1).await;
    assert!(phase(&latencies, "lease").sum() >= PATIENCE);
    assert_eq!((latencies.responses_total[4], latencies.first_byte.count()), (1, 0));
}

#[tokio::test]
async fn a_client_that_leaves_before_the_answer_is_no_answered_request() {
    let arrived = Arc::new(Notify::new());
    let silent = pool_of({
        let arrived = arrived.clone();
        move |mut stream, _| {
            let arrived = arrived.clone();
            async move {
                if request_head(&mut stream).await.is_some() {
                    arrived.notify_one();
                    // Until the gateway hangs up.
                    request_head(&mut stream).await;
                    arrived.notify_one();
                }
            }
        }
    });
    let fixture = Fixture::start(|mut stream, _| async move {
        while request_head(&mut stream).await.is_some() {
            stream.write_all(response("x").as_bytes()).await.unwrap();
        }
    })
    .await;
    fixture.gateway.configure(silent, GatewayOptions::default());
    let mut client = fixture.connect().await;
    client.send(GET).await;
    soon(arrived.notified()).await;
    drop(client);
    soon(arrived.notified()).await;
    let latencies = of(&fixture.gateway, "default");
    assert_eq!((latencies.request.count(), latencies.responses_total), (0, [0; 5]));
}
