//! The gateway over TLS, with real clients.

mod fakes;

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use fakes::{Client, Fixture, Setup, echo_heads, request_head, response, say_id, soon};
use futures_util::{SinkExt, StreamExt};
use herd_gateway::{GatewayOptions, Tls};
use herd_pool::ExitStatus;
use http_body_util::{BodyExt, Empty};
use hyper::{Request, Version, body::Bytes};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{CertificateParams, KeyPair, date_time_ymd};
use rustls::{
    ClientConfig, HandshakeKind, ProtocolVersion, RootCertStore, SupportedProtocolVersion,
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName},
    sign::CertifiedKey,
    version::{TLS12, TLS13},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpSocket, TcpStream},
    sync::Semaphore,
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tokio_tungstenite::{
    client_async,
    tungstenite::{Message, client::IntoClientRequest},
};

const GET: &str = "GET / HTTP/1.1\r\nhost: h\r\nx-session-id: a\r\n\r\n";

fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

/// A certificate that nobody but itself vouches for.
struct Issued {
    certificate: CertificateDer<'static>,
    key: KeyPair,
}

impl Issued {
    fn named(name: &str) -> Self {
        Self::of(&CertificateParams::new([name.to_owned()]).unwrap())
    }

    fn of(params: &CertificateParams) -> Self {
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap().der().clone();
        Self { certificate, key }
    }

    fn with_key(&self) -> CertifiedKey {
        let key = PrivateKeyDer::try_from(self.key.serialize_der()).unwrap();
        CertifiedKey::from_der(vec![self.certificate.clone()], key, &provider()).unwrap()
    }

    fn tls(&self) -> Arc<Tls> {
        Arc::new(Tls::new(self.with_key()).unwrap())
    }
}

/// A client that trusts these certificates and offers these protocols.
fn trusting_over(
    versions: &[&'static SupportedProtocolVersion],
    trusted: &[&Issued],
    protocols: &[&str],
) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    for issued in trusted {
        roots.add(issued.certificate.clone()).unwrap();
    }
    let builder = ClientConfig::builder_with_provider(provider()).with_protocol_versions(versions).unwrap();
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
    Arc::new(config)
}

fn trusting(trusted: &[&Issued], protocols: &[&str]) -> Arc<ClientConfig> {
    trusting_over(&[&TLS13, &TLS12], trusted, protocols)
}

async fn shake_hands(fixture: &Fixture, config: &Arc<ClientConfig>) -> io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(fixture.address).await?;
    stream.set_nodelay(true)?;
    let name = ServerName::try_from("herd.test").unwrap();
    soon(TlsConnector::from(config.clone()).connect(name, stream)).await
}

async fn connect(fixture: &Fixture, config: &Arc<ClientConfig>) -> Client<TlsStream<TcpStream>> {
    Client { stream: shake_hands(fixture, config).await.unwrap(), unread: Vec::new() }
}

fn over(tls: Arc<Tls>) -> Setup {
    Setup { tls: Some(tls), ..Setup::default() }
}

fn impatient(tls: Arc<Tls>, options: GatewayOptions) -> Setup {
    Setup { tls: Some(tls), ..Setup::with(GatewayOptions { header_timeout: Duration::from_millis(300), ..options }) }
}

async fn connections(fixture: &Fixture, wanted: u64) {
    soon(async {
        while fixture.gateway.stats().connections != wanted {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_client_without_alpn_speaks_http1_and_the_worker_hears_of_https() {
    let issued = Issued::named("herd.test");
    let fixture = over(issued.tls()).start(echo_heads).await;
    for (versions, version) in [(&TLS13, ProtocolVersion::TLSv1_3), (&TLS12, ProtocolVersion::TLSv1_2)] {
        let mut client = connect(&fixture, &trusting_over(&[versions], &[&issued], &[])).await;
        assert_eq!(client.stream.get_ref().1.protocol_version(), Some(version));
        for _ in 0..2 {
            client.send(GET).await;
            let answer = client.answer().await;
            assert_eq!(answer.status, 200);
            assert!(answer.text().contains("x-forwarded-proto: https\r\n"), "{}", answer.text());
        }
    }
    assert_eq!(fixture.gateway.stats().handshake_failures_total, 0);
}

#[tokio::test]
async fn the_client_chooses_http2_by_alpn() {
    let issued = Issued::named("herd.test");
    let fixture = over(issued.tls()).start(echo_heads).await;
    let stream = shake_hands(&fixture, &trusting(&[&issued], &["h2", "http/1.1"])).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let (mut client, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    for _ in 0..2 {
        let request = Request::get("https://herd.test/").header("x-session-id", "a").body(Empty::<Bytes>::new());
        let response = soon(client.send_request(request.unwrap())).await.unwrap();
        assert_eq!(response.version(), Version::HTTP_2);
        let body = soon(response.into_body().collect()).await.unwrap().to_bytes();
        let head = std::str::from_utf8(&body).unwrap();
        assert!(head.contains("x-forwarded-proto: https\r\n") && head.contains("host: herd.test\r\n"), "{head}");
    }
}

#[tokio::test]
async fn a_client_that_chose_http1_gets_nothing_else_and_neither_does_one_that_chose_http2() {
    let issued = Issued::named("herd.test");
    let fixture = over(issued.tls()).start(say_id).await;
    for protocols in [&["http/1.1"][..], &[]] {
        let mut client = connect(&fixture, &trusting(&[&issued], protocols)).await;
        client.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await;
        let mut said = client.unread.clone();
        while client.read_more().await {
            said.clone_from(&client.unread);
        }
        // The settings frame with which HTTP/2 would begin has the type 4.
        assert!(said.is_empty() || said.starts_with(b"HTTP/1.1 400"), "{said:?}");
    }
    let mut client = connect(&fixture, &trusting(&[&issued], &["h2"])).await;
    client.send(GET).await;
    assert!(client.is_closed().await);
    assert_eq!(client.unread, b"");
    let error = shake_hands(&fixture, &trusting(&[&issued], &["spdy/3"])).await.unwrap_err();
    assert!(error.to_string().contains("NoApplicationProtocol"), "{error}");
}

#[tokio::test]
async fn a_session_cookie_is_for_tls_alone() {
    let issued = Issued::named("herd.test");
    let options = GatewayOptions { session_key: "cookie:session".parse().unwrap(), ..GatewayOptions::default() };
    let fixture = Setup { tls: Some(issued.tls()), ..Setup::with(options) }.start(say_id).await;
    let mut client = connect(&fixture, &trusting(&[&issued], &[])).await;
    client.send("GET / HTTP/1.1\r\nhost: h\r\n\r\n").await;
    let answer = client.answer().await;
    assert!(
        answer.field("set-cookie").unwrap().ends_with("; Path=/; HttpOnly; SameSite=Lax; Secure"),
        "{}",
        answer.head
    );
}

#[tokio::test]
async fn websockets_pass_and_hear_why_their_session_ended() {
    let issued = Issued::named("herd.test");
    let fixture = over(issued.tls())
        .start(|stream, _| async move {
            let mut socket = tokio_tungstenite::accept_async(stream).await.unwrap();
            while let Some(Ok(message)) = socket.next().await {
                if socket.send(message).await.is_err() {
                    break;
                }
            }
        })
        .await;
    let stream = shake_hands(&fixture, &trusting(&[&issued], &["http/1.1"])).await.unwrap();
    let mut request = "wss://herd.test/".into_client_request().unwrap();
    request.headers_mut().insert("x-session-id", "a".parse().unwrap());
    let (mut socket, _) = soon(client_async(request, stream)).await.unwrap();
    // One message within a record, one that takes many, and both come back.
    for len in [5, 1_000_000] {
        let message = Message::binary(vec![7; len]);
        socket.send(message.clone()).await.unwrap();
        assert!(soon(socket.next()).await.unwrap().unwrap() == message);
    }
    fixture.last_worker().exit_as(herd_pool::Exit::with_status(ExitStatus::Signal(11)));
    let Some(Ok(Message::Close(Some(frame)))) = soon(socket.next()).await else { panic!("no goodbye came") };
    assert_eq!((u16::from(frame.code), frame.reason.as_str()), (4005, "crashed"));
}

#[tokio::test]
async fn ambiguous_framing_is_refused_as_in_plain_text() {
    let issued = Issued::named("herd.test");
    let fixture = over(issued.tls()).start(say_id).await;
    let config = trusting(&[&issued], &[]);
    for fields in
        ["content-length: 5\r\ntransfer-encoding: chunked\r\n", "transfer-encoding: chunked\r\ncontent-length: 5\r\n"]
    {
        let mut client = connect(&fixture, &config).await;
        // In two records, so that what was kept of the head comes from more than one read.
        client.send(format!("POST / HTTP/1.1\r\nhost: h\r\nx-session-id: a\r\n{}", &fields[..20])).await;
        client.send(format!("{}\r\n0\r\n\r\n", &fields[20..])).await;
        let answer = client.answer().await;
        assert_eq!((answer.status, answer.field("herd-error")), (400, Some("bad-request")), "{}", answer.text());
        assert!(answer.text().contains("both a content-length and a transfer-encoding"), "{}", answer.text());
        assert!(client.is_closed().await);
    }
    assert_eq!(fixture.pool.stats().sessions, 0);
}

#[tokio::test]
async fn what_the_parser_refuses_is_said_as_a_problem_and_the_end_is_told() {
    let issued = Issued::named("herd.test");
    let fixture = impatient(issued.tls(), GatewayOptions::default()).start(say_id).await;
    let config = trusting(&[&issued], &[]);
    let cases = [
        ("GET / HTTP/1.1\r\nhost h\r\n\r\n".to_owned(), 400),
        (format!("GET / HTTP/1.1\r\nhost: h\r\nx: {}\r\n\r\n", "x".repeat(70_000)), 431),
        // Its rest never comes.
        (GET[..20].to_owned(), 408),
    ];
    for (request, status) in cases {
        let mut client = connect(&fixture, &config).await;
        client.send(&request).await;
        let answer = client.answer().await;
        assert_eq!(answer.status, status, "{}", answer.text());
        answer.problem("detail");
        // Without a close_notify, this would be an error.
        assert_eq!(soon(client.stream.read(&mut [0; 16])).await.unwrap(), 0);
    }
}

#[tokio::test]
async fn plain_http_hears_that_tls_is_needed() {
    let issued = Issued::named("herd.test");
    let fixture = over(issued.tls()).start(say_id).await;
    for request in [GET, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"] {
        let mut client = fixture.connect().await;
        client.send(request).await;
        let answer = client.answer().await;
        assert_eq!((answer.status, answer.field("herd-error")), (400, Some("tls-required")));
        assert!(answer.problem("detail").as_str().unwrap().contains("https://"));
        assert!(client.is_closed().await);
    }
    connections(&fixture, 0).await;
    let stats = fixture.gateway.stats();
    assert_eq!(stats.handshake_failures_total, 2);
    assert!(stats.failures_total().any(|failures| failures == ("tls-required", 2)), "{stats:?}");
    assert_eq!(fixture.pool.stats().sessions, 0);
}

#[tokio::test]
async fn handshakes_that_stall_are_cut_and_hold_nobody_up() {
    let issued = Issued::named("herd.test");
    let fixture = impatient(issued.tls(), GatewayOptions::default()).start(say_id).await;
    let mut stalled = Vec::new();
    // Nothing; the head of a record; and a record that claims to be longer than what comes.
    for first in [&b""[..], b"\x16\x03", b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03"] {
        let mut client = fixture.connect().await;
        client.send(first).await;
        stalled.push(client);
    }
    connections(&fixture, 3).await;
    let mut client = connect(&fixture, &trusting(&[&issued], &[])).await;
    client.send(GET).await;
    assert_eq!(client.answer().await.status, 200);
    assert_eq!(fixture.gateway.stats().connections, 4, "the others are still there");
    for client in &mut stalled {
        assert!(client.is_closed().await);
    }
    connections(&fixture, 1).await;
    assert_eq!(fixture.gateway.stats().handshake_failures_total, 3);
    // A client that has chosen HTTP/2 and then says nothing has had its time as well.
    let mut silent = connect(&fixture, &trusting(&[&issued], &["h2"])).await;
    assert!(silent.is_closed().await);
}

#[tokio::test]
async fn handshakes_count_among_all_connections() {
    let issued = Issued::named("herd.test");
    let options = GatewayOptions { max_connections: 2, ..GatewayOptions::default() };
    let fixture = impatient(issued.tls(), options).start(say_id).await;
    let (mut first, _second) = (fixture.connect().await, fixture.connect().await);
    connections(&fixture, 2).await;
    let config = trusting(&[&issued], &[]);
    let mut third = connect(&fixture, &config).await;
    third.send(GET).await;
    assert_eq!(third.answer().await.status, 200);
    assert!(first.is_closed().await);
    assert!(fixture.gateway.stats().handshake_failures_total >= 1, "the third had to wait until one was cut");
}

#[tokio::test]
async fn a_thousand_garbage_handshakes_leave_nothing_behind() {
    let issued = Issued::named("herd.test");
    let fixture = over(issued.tls()).start(say_id).await;
    let config = trusting(&[&issued], &[]);
    let descriptors = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let before = descriptors();
    let garbage: [&[u8]; 4] = [
        b"\0\0\0\0\0\0\0\0\0\0\0\0",
        b"\x16\x03\x01\0\x05hello",
        b"\x16\x03\x01\xff\xff\x01\0\xff\xfb\x03\x03",
        b"\x80\x2e\x01\0\x02\0\x15\0\0\0\x10",
    ];
    for round in 0..20 {
        let mut clients = Vec::new();
        for number in 0..50 {
            let mut client = fixture.connect().await;
            client.send(garbage[number % garbage.len()]).await;
            clients.push(client);
        }
        drop(clients);
        if round % 5 == 0 {
            let mut client = connect(&fixture, &config).await;
            client.send(GET).await;
            assert_eq!(client.answer().await.status, 200);
        }
    }
    connections(&fixture, 0).await;
    assert_eq!(fixture.gateway.stats().handshake_failures_total, 1000);
    assert!(descriptors() <= before + 8, "{before} descriptors were open, and now {}", descriptors());
}

#[tokio::test]
async fn shutdown_says_goodbye_to_idle_clients_and_finishes_requests() {
    let issued = Issued::named("herd.test");
    let go = Arc::new(Semaphore::new(0));
    let gate = go.clone();
    let mut fixture = over(issued.tls())
        .start(move |mut stream, life| {
            let gate = gate.clone();
            async move {
                while request_head(&mut stream).await.is_some() {
                    life.tell("asked");
                    gate.acquire().await.unwrap().forget();
                    stream.write_all(response("done").as_bytes()).await.unwrap();
                }
            }
        })
        .await;
    let config = trusting(&[&issued], &[]);
    let mut busy = connect(&fixture, &config).await;
    busy.send(GET).await;
    assert_eq!(fixture.next_told().await, "asked");
    let mut idle = connect(&fixture, &config).await;
    let mut shaking = fixture.connect().await;
    connections(&fixture, 3).await;
    fixture.shut_down();
    // A clean end: rustls makes an error of one without a close_notify.
    assert_eq!(soon(idle.stream.read(&mut [0; 16])).await.unwrap(), 0);
    assert!(shaking.is_closed().await);
    assert!(!fixture.served.is_finished());
    go.add_permits(1);
    let last = busy.answer().await;
    assert_eq!((last.text(), last.field("connection")), ("done", Some("close")));
    assert_eq!(soon(busy.stream.read(&mut [0; 16])).await.unwrap(), 0);
    soon(&mut fixture.served).await.unwrap();
    assert_eq!(fixture.gateway.stats().connections, 0);
}

#[tokio::test]
async fn a_client_that_asks_for_another_name_gets_the_same_certificate_and_judges_itself() {
    let issued = Issued::named("other.test");
    let fixture = over(issued.tls()).start(say_id).await;
    let error = shake_hands(&fixture, &trusting(&[&issued], &[])).await.unwrap_err();
    assert!(error.to_string().contains("not valid for name"), "{error}");
    soon(async {
        while fixture.gateway.stats().handshake_failures_total == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    connections(&fixture, 0).await;
    assert_eq!(fixture.pool.stats().sessions, 0);
}

#[tokio::test]
async fn a_new_certificate_is_for_new_handshakes_and_old_connections_go_on() {
    let (old, new) = (Issued::named("herd.test"), Issued::named("herd.test"));
    let tls = old.tls();
    let fixture = over(tls.clone()).start(say_id).await;
    let config = trusting(&[&old, &new], &[]);
    let seen = |client: &Client<TlsStream<TcpStream>>| {
        let session = client.stream.get_ref().1;
        (session.peer_certificates().unwrap()[0].clone().into_owned(), session.handshake_kind().unwrap())
    };
    let mut first = connect(&fixture, &config).await;
    first.send(GET).await;
    assert_eq!(first.answer().await.text(), "worker-1");
    let again = connect(&fixture, &config).await;
    assert_eq!(seen(&again), (old.certificate.clone(), HandshakeKind::Resumed), "sessions are resumed by tickets");
    tls.replace(new.with_key()).unwrap();
    let mut second = connect(&fixture, &config).await;
    assert_eq!(seen(&second), (new.certificate.clone(), HandshakeKind::Full), "no ticket hides the new certificate");
    for client in [&mut first, &mut second] {
        client.send(GET).await;
        assert_eq!(client.answer().await.text(), "worker-1");
    }
    assert_eq!(seen(&first).0, old.certificate);
}

#[tokio::test]
async fn an_expired_certificate_is_mended_while_the_gateway_runs() {
    let mut params = CertificateParams::new(["herd.test".to_owned()]).unwrap();
    (params.not_before, params.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(2021, 1, 1));
    let (expired, renewed) = (Issued::of(&params), Issued::named("herd.test"));
    let tls = expired.tls();
    let fixture = over(tls.clone()).start(say_id).await;
    let config = trusting(&[&expired, &renewed], &[]);
    let error = shake_hands(&fixture, &config).await.unwrap_err();
    assert!(error.to_string().contains("expired"), "{error}");
    tls.replace(renewed.with_key()).unwrap();
    let mut client = connect(&fixture, &config).await;
    client.send(GET).await;
    assert_eq!(client.answer().await.status, 200);
}

/// 8 MiB that tell where they are.
fn pattern() -> Vec<u8> {
    (0..8 << 20).map(|at: u32| (at ^ at >> 8 ^ at >> 16) as u8).collect()
}

#[tokio::test]
async fn large_bodies_pass_whole_both_ways() {
    let issued = Issued::named("herd.test");
    let fixture = over(issued.tls())
        .start(|mut stream, _| async move {
            request_head(&mut stream).await.unwrap();
            let mut body = vec![0; 8 << 20];
            stream.read_exact(&mut body).await.unwrap();
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
            stream.write_all(head.as_bytes()).await.unwrap();
            stream.write_all(&body).await.unwrap();
        })
        .await;
    let mut client = connect(&fixture, &trusting(&[&issued], &[])).await;
    let body = pattern();
    let head = format!("POST / HTTP/1.1\r\nhost: h\r\nx-session-id: a\r\ncontent-length: {}\r\n\r\n", body.len());
    client.send(head).await;
    client.send(&body).await;
    assert!(client.answer().await.body == body);
}

#[tokio::test]
async fn what_tls_holds_back_follows_when_the_client_reads_on() {
    let issued = Issued::named("herd.test");
    let fixture = Setup { send_buffer: Some(4096), ..over(issued.tls()) }
        .start(|mut stream, _| async move {
            while request_head(&mut stream).await.is_some() {
                stream.write_all(response(&"x".repeat(48_000)).as_bytes()).await.unwrap();
            }
        })
        .await;
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let stream = socket.connect(fixture.address).await.unwrap();
    let name = ServerName::try_from("herd.test").unwrap();
    let stream = soon(TlsConnector::from(trusting(&[&issued], &[])).connect(name, stream)).await.unwrap();
    let mut client = Client { stream, unread: Vec::new() };
    for round in 1..=2 {
        client.send(GET).await;
        // The worker has said everything, so that nothing but the client's reading moves the rest on.
        soon(async {
            while fixture.gateway.stats().sent_bytes_total < round * 48_000 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
        assert_eq!(client.answer().await.body.len(), 48_000);
    }
}

/// What two sides say to each other passes here; what the client says, in small pieces with pauses between them once
/// it is slow.
async fn slow_line(to: SocketAddr, slow: Arc<AtomicBool>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (client, _) = listener.accept().await.unwrap();
        let (mut from_client, mut to_client) = client.into_split();
        let (mut from_gateway, mut to_gateway) = TcpStream::connect(to).await.unwrap().into_split();
        tokio::spawn(async move { tokio::io::copy(&mut from_gateway, &mut to_client).await });
        let mut piece = [0; 4096];
        while let Ok(read @ 1..) = from_client.read(&mut piece).await {
            if slow.load(Relaxed) {
                tokio::time::sleep(Duration::from_millis(400)).await;
            }
            if to_gateway.write_all(&piece[..read]).await.is_err() {
                break;
            }
        }
    });
    address
}

#[tokio::test]
async fn a_record_that_comes_slowly_is_no_standstill_and_one_that_does_not_come_is() {
    let issued = Issued::named("herd.test");
    let options = GatewayOptions { body_idle_timeout: Some(Duration::from_secs(1)), ..GatewayOptions::default() };
    let fixture = Setup { tls: Some(issued.tls()), ..Setup::with(options) }
        .start(|mut stream, life| async move {
            while request_head(&mut stream).await.is_some() {
                let mut body = vec![0; 16_000];
                match stream.read_exact(&mut body).await {
                    Ok(_) => stream.write_all(response("got it").as_bytes()).await.unwrap(),
                    Err(_) => return life.tell("cut"),
                }
            }
        })
        .await;
    let slow = Arc::new(AtomicBool::new(false));
    let stream = TcpStream::connect(slow_line(fixture.address, slow.clone()).await).await.unwrap();
    let name = ServerName::try_from("herd.test").unwrap();
    let stream = soon(TlsConnector::from(trusting(&[&issued], &[])).connect(name, stream)).await.unwrap();
    let mut client = Client { stream, unread: Vec::new() };
    let post = "POST / HTTP/1.1\r\nhost: h\r\nx-session-id: a\r\ncontent-length: 16000\r\n\r\n";
    client.send(post).await;
    slow.store(true, Relaxed);
    // One record, which nobody can read before its last byte is there: that takes longer than the limit.
    client.send(vec![b'x'; 16_000]).await;
    assert_eq!(client.answer().await.text(), "got it");
    client.send(post).await;
    assert!(client.is_closed().await);
}

#[tokio::test]
async fn a_client_that_takes_nothing_is_cut() {
    let issued = Issued::named("herd.test");
    let options = GatewayOptions { body_idle_timeout: Some(Duration::from_millis(500)), ..GatewayOptions::default() };
    let mut fixture = Setup { tls: Some(issued.tls()), ..Setup::with(options) }
        .start(|mut stream, life| async move {
            request_head(&mut stream).await.unwrap();
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000000\r\n\r\n").await.unwrap();
            while stream.write_all(&[7; 64 << 10]).await.is_ok() {}
            life.tell("cut");
        })
        .await;
    let mut client = connect(&fixture, &trusting(&[&issued], &[])).await;
    client.send(GET).await;
    assert_eq!(fixture.next_told().await, "cut");
    connections(&fixture, 0).await;
    assert!(client.is_closed().await);
}
