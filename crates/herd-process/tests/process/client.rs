use herd_pool::{Connect as _, Worker as _};
use herd_process::{ClientError, Connector, HttpClient, Listen};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::fixture::{get, patiently, role, start};

pub(crate) async fn the_default_client_speaks_http() {
    let worker = start(role(&["serve"])).await;
    assert_eq!(get(&worker, "/pid").await, worker.pid().to_string());
    assert_eq!(worker.address(), format!("http://{}", worker.connector().authority()));
    assert!(worker.address().starts_with("http://127.0.0.1:"), "{}", worker.address());
}

pub(crate) async fn the_default_client_speaks_http_2() {
    let worker = start(role(&["serve-h2"]).http2()).await;
    assert_eq!(worker.protocol(), herd_pool::Protocol::Http2);
    assert_eq!(get(&worker, "/").await, "HTTP/2.0");
    patiently(worker.healthy()).await.expect("it answers its health path by HTTP/2");
}

pub(crate) async fn a_client_over_a_unix_socket_reaches_the_worker() {
    let worker = start(role(&["serve-socket", "{{.Socket}}"]).listen(Listen::Socket)).await;
    assert_eq!(get(&worker, "/pid").await, worker.pid().to_string());
    assert!(worker.address().starts_with("unix:/"), "{}", worker.address());
    patiently(worker.healthy()).await.expect("it answers");
}

pub(crate) async fn a_client_of_any_type_is_made_from_the_connector() {
    struct OneLine(Connector);
    let worker = start(role(&["serve"]).client(OneLine)).await;
    let mut stream = patiently(worker.client().0.connect()).await.expect("it listens");
    stream.write_all(b"GET /pid HTTP/1.1\r\n\r\n").await.expect("it reads");
    let mut answer = String::new();
    patiently(stream.read_to_string(&mut answer)).await.expect("it answers");
    assert!(answer.ends_with(&format!("\r\n\r\n{}", worker.pid())), "{answer}");
}

pub(crate) async fn what_goes_wrong_is_told_by_type() {
    let worker = start(role(&["worsen", "babbles"])).await;
    let client: &HttpClient = worker.client();
    assert!(matches!(patiently(client.get("no path")).await, Err(ClientError::Path(_))));
    let missing = patiently(client.get("/missing")).await.expect("a status is no error");
    assert_eq!(missing.status(), 404);
    get(&worker, "/worse").await;
    assert!(matches!(patiently(client.get("/")).await, Err(ClientError::Exchange(_))));
    patiently(worker.kill()).await;
    assert!(matches!(patiently(client.get("/")).await, Err(ClientError::Connect(_))));
}
