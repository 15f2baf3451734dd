//! Pools and options are exchanged while requests are answered.

mod fakes;

use std::{sync::Arc, time::Duration};

use fakes::{Client, Fixture, Setup, pool_of, pool_that_says, request_head, response, say_id, soon};
use futures_util::future::join_all;
use herd_gateway::{Access, Admission, GatewayOptions, MetricsPage, Refusal, Routes, Rule, Sessions};
use hyper::{HeaderMap, Uri};
use tokio::{io::AsyncWriteExt, sync::Notify};

fn get(session: &str) -> String {
    format!("GET / HTTP/1.1\r\nhost: h\r\nx-session-id: {session}\r\n\r\n")
}

/// Lets nobody in.
struct Closed;

impl Access for Closed {
    fn admit(&self, _: &HeaderMap, _: &Uri) -> Result<Admission, Refusal> {
        Err(Refusal::NoCredentials)
    }
}

#[tokio::test]
async fn what_is_configured_counts_for_the_next_request_of_open_connections() {
    let fixture = Fixture::start(say_id).await;
    let mut client = fixture.connect().await;
    client.send(get("a")).await;
    assert_eq!(client.answer().await.text(), "worker-1");

    fixture.gateway.configure(pool_that_says("next"), GatewayOptions::default());
    client.send(get("a")).await;
    assert_eq!(client.answer().await.text(), "next worker-1");

    let look_up_only = GatewayOptions { sessions: Sessions::LookUpOnly, ..GatewayOptions::default() };
    fixture.gateway.configure(fixture.pool.clone(), look_up_only);
    client.send(get("b")).await;
    assert_eq!(client.answer().await.status, 404);
    client.send(get("a")).await;
    assert_eq!(client.answer().await.field("herd-session"), Some("resumed"));

    let closed = GatewayOptions { access: Some(Arc::new(Closed)), ..GatewayOptions::default() };
    fixture.gateway.configure(fixture.pool.clone(), closed);
    client.send(get("a")).await;
    assert_eq!(client.answer().await.status, 401);

    let other_key = GatewayOptions { session_key: "header:x-other".parse().unwrap(), ..GatewayOptions::default() };
    fixture.gateway.configure(fixture.pool.clone(), other_key);
    client.send(get("a")).await;
    assert_eq!(client.answer().await.field("herd-error"), Some("no-session-id"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_is_lost_while_pools_and_options_are_exchanged() {
    const REQUESTS: u64 = 400;
    let fixture = Fixture::start(say_id).await;
    let pools = [pool_that_says("one"), pool_that_says("two")];
    let exchange = |round: u32| {
        // The same requests fit both ways to write the rules.
        let rule = |kind: &str| match round % 2 {
            0 => Rule { pool: kind.into(), path_prefix: Some(format!("/{kind}")), ..Rule::default() },
            _ => Rule { pool: kind.into(), header: Some(("x-kind".into(), Some(kind.into()))), ..Rule::default() },
        };
        let mut named = vec![("one".into(), pools[0].clone()), ("two".into(), pools[1].clone())];
        // The order in which pools are written does not matter either.
        if round.is_multiple_of(3) {
            named.reverse();
        }
        let routes = Routes::new(named, vec![rule("one"), rule("two")], None).unwrap();
        // No pause of this test is to look like a connection that is not kept.
        let options = GatewayOptions { upstream_idle_timeout: Duration::from_secs(60), ..GatewayOptions::default() };
        fixture.gateway.configure(routes, options);
    };
    exchange(0);
    let clients = (0..8).map(|number| {
        let address = fixture.address;
        tokio::spawn(async move {
            let mut client = Client::connect(address).await;
            for count in 0..REQUESTS {
                let kind = if count % 2 == 0 { "one" } else { "two" };
                let request =
                    format!("GET /{kind} HTTP/1.1\r\nhost: h\r\nx-session-id: {number}\r\nx-kind: {kind}\r\n\r\n");
                client.send(request).await;
                let answer = client.answer().await;
                assert_eq!((answer.status, answer.text().split(' ').next()), (200, Some(kind)), "{}", answer.text());
            }
        })
    });
    let clients: Vec<_> = clients.collect();
    let mut rounds: u32 = 0;
    while !clients.iter().all(|client| client.is_finished()) {
        rounds += 1;
        exchange(rounds);
        tokio::task::yield_now().await;
    }
    for client in soon(join_all(clients)).await {
        client.unwrap();
    }
    assert!(rounds > 10, "it was exchanged only {rounds} times");
    // Each answer counted once, and workers' connections were kept over all exchanges.
    let counted: u64 = fixture.gateway.latencies().iter().map(|pool| pool.responses_total[1]).sum();
    assert_eq!(counted, 8 * REQUESTS);
    assert_eq!(fixture.gateway.stats().upstream_connections_total, 16);
}

#[tokio::test]
async fn a_request_goes_on_with_what_it_began_with() {
    let (go, arrived) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let slow = pool_of({
        let (go, arrived) = (go.clone(), arrived.clone());
        move |mut stream, _| {
            let (go, arrived) = (go.clone(), arrived.clone());
            async move {
                while request_head(&mut stream).await.is_some() {
                    arrived.notify_one();
                    go.notified().await;
                    let _ = stream.write_all(response("slow").as_bytes()).await;
                }
            }
        }
    });
    let fixture = Fixture::start(say_id).await;
    fixture.gateway.configure(slow, GatewayOptions::default());
    let mut client = fixture.connect().await;
    client.send(get("a")).await;
    soon(arrived.notified()).await;
    // The gateway had the last clone of the pool; now the request has it.
    fixture.gateway.configure(fixture.pool.clone(), GatewayOptions::default());
    assert_eq!(fixture.ask(&get("a")).await.text(), "worker-1");
    go.notify_one();
    let answer = client.answer().await;
    assert_eq!((answer.status, answer.text()), (200, "slow"));
    client.send(get("a")).await;
    assert_eq!(client.answer().await.text(), "worker-1");
}

#[tokio::test]
async fn a_pool_that_left_is_dropped_once_nothing_goes_on_in_it() {
    let fixture = Fixture::start(say_id).await;
    let pool = pool_that_says("old");
    let mut events = pool.subscribe();
    fixture.gateway.configure(pool, GatewayOptions::default());
    assert_eq!(fixture.ask(&get("a")).await.text(), "old worker-1");
    fixture.gateway.configure(fixture.pool.clone(), GatewayOptions::default());
    // The drop of the last clone shuts the pool down, although no request has come since.
    soon(async { while events.next().await.is_ok() {} }).await;
}

#[tokio::test]
async fn what_old_options_hold_is_let_go() {
    struct Held {
        _held: Arc<()>,
    }
    impl Access for Held {
        fn admit(&self, _: &HeaderMap, _: &Uri) -> Result<Admission, Refusal> {
            Ok(Admission::default())
        }
    }
    let held = Arc::new(());
    let for_page = held.clone();
    let render = Arc::new(move || format!("{for_page:?}"));
    let options = GatewayOptions {
        access: Some(Arc::new(Held { _held: held.clone() })),
        metrics: Some(MetricsPage { path: "/metrics".into(), render }),
        ..GatewayOptions::default()
    };
    let fixture = Setup::with(options).start(say_id).await;
    assert_eq!(fixture.ask(&get("a")).await.status, 200);
    assert_eq!(Arc::strong_count(&held), 3);
    fixture.gateway.configure(fixture.pool.clone(), GatewayOptions::default());
    assert_eq!(Arc::strong_count(&held), 1);
}

#[tokio::test]
async fn options_of_connections_stay_as_they_were_started() {
    let fixture = Fixture::start(say_id).await;
    let options = GatewayOptions { idle_timeout: Duration::ZERO, max_header_bytes: 8192, ..GatewayOptions::default() };
    fixture.gateway.configure(fixture.pool.clone(), options);
    let long = format!("GET / HTTP/1.1\r\nhost: h\r\nx-session-id: a\r\nx-long: {}\r\n\r\n", "x".repeat(20_000));
    let mut client = fixture.connect().await;
    for _ in 0..2 {
        client.send(&long).await;
        assert_eq!(client.answer().await.status, 200);
    }
}
