//! What a worker reaches and what not.

use std::{io, net::TcpStream};

use herd_pool::Worker as _;
use herd_process::Layer;

use crate::{
    fixture::{ask, patiently, start},
    world::{ECHO, HOST, METADATA, OTHER_PRIVATE, PORT, PRIVATE, PUBLIC},
};

/// Where the worker's router is, and what it takes for its gateway.
const ROUTER: &str = "198.51.100.1";
const OUTLET: &str = "198.51.100.6";
const GATEWAY: &str = "198.51.100.5";

async fn assert_reached(worker: &herd_process::ProcessWorker, address: &str) {
    assert_eq!(ask(worker, &format!("tcp {address}:{PORT}")).await, format!("reached {address}"));
}

async fn assert_refused(worker: &herd_process::ProcessWorker, address: &str) {
    let answer = ask(worker, &format!("tcp {address}:{PORT}")).await;
    assert!(answer.starts_with("refused"), "{address}: {answer}");
}

pub(crate) async fn a_worker_reaches_public_addresses() {
    let worker = start(&[]).await;
    assert!(worker.layers().contains(&Layer::Egress));
    assert_reached(&worker, PUBLIC).await;
    patiently(worker.close()).await;
}

pub(crate) async fn what_is_private_or_the_hosts_own_is_refused() {
    let worker = start(&[]).await;
    for address in [METADATA, PRIVATE, OTHER_PRIVATE, HOST, "127.0.0.1", "127.0.0.2", "0.0.0.0"] {
        assert_refused(&worker, address).await;
    }
    for address in [ROUTER, OUTLET, GATEWAY, "198.51.100.3", "198.51.100.7", "192.168.0.1", "172.16.0.1", "224.0.0.1"] {
        assert_refused(&worker, address).await;
    }
    let answer = ask(&worker, "tcp [::1]:1").await;
    assert!(!answer.starts_with("reached"), "{answer}");
    patiently(worker.close()).await;
}

pub(crate) async fn a_socket_that_ignores_routes_gets_no_further() {
    let worker = start(&[]).await;
    let public = ask(&worker, &format!("bound {PUBLIC} {PORT}")).await;
    assert_eq!(public, format!("reached {PUBLIC}"), "such a socket can be made");
    for address in [METADATA, PRIVATE, HOST, GATEWAY] {
        let answer = ask(&worker, &format!("bound {address} {PORT}")).await;
        assert!(answer.starts_with("refused"), "{address}: {answer}");
    }
    patiently(worker.close()).await;
}

pub(crate) async fn datagrams_are_not_passed_on() {
    let worker = start(&[]).await;
    let answer = ask(&worker, &format!("udp {PUBLIC}:{ECHO}")).await;
    assert!(answer.starts_with("refused"), "{answer}");
    patiently(worker.close()).await;
}

pub(crate) async fn nothing_comes_in() {
    let worker = start(&[]).await;
    assert_eq!(worker.address(), "http://127.0.0.1:8000");
    for address in ["127.0.0.1:8000", "203.0.113.1:8000"] {
        let error = TcpStream::connect(address).expect_err("nobody listens on the host");
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused, "{address}");
    }
    patiently(worker.close()).await;
}

pub(crate) async fn one_range_can_be_allowed_and_opens_nothing_else() {
    let worker = start(&["10.1.2.0/24"]).await;
    assert_reached(&worker, OTHER_PRIVATE).await;
    assert_reached(&worker, PUBLIC).await;
    for address in [PRIVATE, METADATA, HOST, GATEWAY] {
        assert_refused(&worker, address).await;
    }
    patiently(worker.close()).await;
}

pub(crate) async fn what_is_allowed_by_name_is_open() {
    let all = [("private", PRIVATE), ("metadata", METADATA), ("host", HOST)];
    for (name, opened) in all {
        let worker = start(&[name]).await;
        for (other, address) in all {
            match other == name {
                true => assert_reached(&worker, opened).await,
                false => assert_refused(&worker, address).await,
            }
        }
        patiently(worker.close()).await;
    }
}

pub(crate) async fn the_hosts_loopback_can_be_allowed() {
    let worker = start(&["loopback"]).await;
    assert_eq!(ask(&worker, &format!("tcp {GATEWAY}:{PORT}")).await, "reached 127.0.0.1");
    for address in [HOST, PRIVATE, METADATA, "127.0.0.1"] {
        assert_refused(&worker, address).await;
    }
    patiently(worker.close()).await;
}

pub(crate) async fn many_connections_at_once_all_get_out() {
    let worker = start(&[]).await;
    assert_eq!(ask(&worker, &format!("many {PUBLIC}:{PORT} 50")).await, "50");
    patiently(worker.close()).await;
}
