//! HTTP/2 on either side, and gRPC through both.

mod fakes;

use std::{convert::Infallible, io};

use fakes::{Fixture, Life, Setup, echo_heads, request_head, response, soon};
use futures_util::{future::join_all, stream};
use herd_pool::Protocol;
use http_body_util::{BodyExt, Full, StreamBody, combinators::BoxBody};
use hyper::{
    HeaderMap, Request, Response, Version,
    body::{Bytes, Frame, Incoming},
    client::conn::http2::SendRequest,
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::mpsc,
};

type Body = BoxBody<Bytes, io::Error>;

fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed()
}

/// A body whose frames the test sends one by one.
fn piecewise() -> (mpsc::UnboundedSender<io::Result<Frame<Bytes>>>, Body) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let frames = stream::unfold(receiver, |mut receiver: mpsc::UnboundedReceiver<_>| async {
        let frame = receiver.recv().await?;
        Some((frame, receiver))
    });
    (sender, BodyExt::boxed(StreamBody::new(frames)))
}

async fn client(fixture: &Fixture) -> SendRequest<Body> {
    let stream = TcpStream::connect(fixture.address).await.unwrap();
    let (sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    sender
}

fn post(path: &str, body: Body) -> Request<Body> {
    Request::post(format!("http://herd{path}")).header("x-session-id", "a").body(body).unwrap()
}

fn trailers(name: &'static str, value: &'static str) -> HeaderMap {
    HeaderMap::from_iter([(name.parse().unwrap(), value.parse().unwrap())])
}

fn http2_workers() -> Setup {
    Setup { protocol: Protocol::Http2, ..Setup::default() }
}

/// A worker that speaks gRPC as far as HTTP is concerned: it sends each message back and says in its trailers that all
/// went well.
async fn grpc(stream: TcpStream, life: Life) {
    life.tell("connected");
    let service = service_fn(move |request: Request<Incoming>| {
        let life = life.clone();
        async move {
            assert_eq!(request.version(), Version::HTTP_2);
            assert_eq!(request.headers()["te"], "trailers");
            assert_eq!(request.headers()["x-session-id"], "a");
            assert_eq!(request.uri().authority().unwrap().as_str(), "herd");
            if request.uri().path() == "/refuse" {
                // gRPC's way to fail: only a head, which is the trailers too.
                return Ok(Response::builder().header("grpc-status", "5").body(full("")).unwrap());
            }
            let mut incoming = request.into_body();
            let (frames, body) = piecewise();
            tokio::spawn(async move {
                while let Some(frame) = incoming.frame().await {
                    match frame {
                        Ok(frame) => {
                            if frame.is_data() && frames.send(Ok(frame)).is_err() {
                                break;
                            }
                        }
                        Err(_) => return life.tell("cancelled"),
                    }
                }
                let _ = frames.send(Ok(Frame::trailers(trailers("grpc-status", "0"))));
                drop(frames);
                life.tell("complete");
            });
            Ok::<_, Infallible>(Response::builder().header("content-type", "application/grpc").body(body).unwrap())
        }
    });
    let _ = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

fn call(path: &str, body: Body) -> Request<Body> {
    let mut request = post(path, body);
    request.headers_mut().insert("te", "trailers".parse().unwrap());
    request.headers_mut().insert("content-type", "application/grpc".parse().unwrap());
    request
}

#[tokio::test]
async fn a_grpc_call_passes_with_its_trailers() {
    let fixture = http2_workers().start(grpc).await;
    let mut client = client(&fixture).await;
    let response = soon(client.send_request(call("/echo", full("message")))).await.unwrap();
    assert_eq!(response.version(), Version::HTTP_2);
    assert_eq!(response.headers()["herd-worker"], "worker-1");
    assert_eq!(response.headers()["herd-session"], "new");
    let body = soon(response.into_body().collect()).await.unwrap();
    assert_eq!(body.trailers().unwrap()["grpc-status"], "0");
    assert_eq!(body.to_bytes(), "message");
    let refused = soon(client.send_request(call("/refuse", full("x")))).await.unwrap();
    assert_eq!(refused.headers()["grpc-status"], "5");
    fixture.released("a").await;
}

#[tokio::test]
async fn messages_of_a_grpc_stream_pass_one_by_one_in_both_directions() {
    let mut fixture = http2_workers().start(grpc).await;
    let mut client = client(&fixture).await;
    let (frames, body) = piecewise();
    let mut response = soon(client.send_request(call("/echo", body))).await.unwrap().into_body();
    for number in 0..10 {
        let message = Bytes::from(format!("message {number}"));
        frames.send(Ok(Frame::data(message.clone()))).unwrap();
        let frame = soon(response.frame()).await.unwrap().unwrap();
        assert_eq!(frame.into_data().unwrap(), message);
        assert_eq!(fixture.pool.session(&"a".parse().unwrap()).unwrap().leases, 1);
    }
    drop(frames);
    let last = soon(response.frame()).await.unwrap().unwrap();
    assert_eq!(last.into_trailers().unwrap()["grpc-status"], "0");
    assert_eq!(fixture.next_told().await, "connected");
    assert_eq!(fixture.next_told().await, "complete");
}

#[tokio::test]
async fn a_cancelled_grpc_call_is_cancelled_at_the_worker() {
    let mut fixture = http2_workers().start(grpc).await;
    let mut client = client(&fixture).await;
    let (frames, body) = piecewise();
    let response = soon(client.send_request(call("/echo", body))).await.unwrap();
    frames.send(Ok(Frame::data("x".into()))).unwrap();
    assert_eq!(fixture.next_told().await, "connected");
    // This is how a client's body ends when the call is given up: the stream is reset.
    frames.send(Err(io::ErrorKind::Other.into())).unwrap();
    drop(response);
    assert_eq!(fixture.next_told().await, "cancelled");
    fixture.released("a").await;
    // The connection is not the worse for it.
    let response = soon(client.send_request(call("/echo", full("again")))).await.unwrap();
    assert_eq!(soon(response.into_body().collect()).await.unwrap().to_bytes(), "again");
}

#[tokio::test]
async fn all_calls_to_a_worker_share_one_connection() {
    let mut fixture = http2_workers().start(grpc).await;
    let client = client(&fixture).await;
    let mut first = client.clone();
    soon(first.send_request(call("/echo", full("0")))).await.unwrap();
    let calls = (0..50).map(|number| {
        let mut client = client.clone();
        async move {
            let text = format!("message {number}");
            let response = client.send_request(call("/echo", full(text.clone()))).await.unwrap();
            assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), text);
        }
    });
    soon(join_all(calls)).await;
    assert_eq!(fixture.gateway.stats().upstream_connections_total, 1);
    assert_eq!(fixture.next_told().await, "connected");
}

#[tokio::test]
async fn a_crash_during_a_grpc_stream_resets_it() {
    let fixture = http2_workers().start(grpc).await;
    let mut client = client(&fixture).await;
    let (frames, body) = piecewise();
    let mut response = soon(client.send_request(call("/echo", body))).await.unwrap().into_body();
    frames.send(Ok(Frame::data("x".into()))).unwrap();
    assert_eq!(soon(response.frame()).await.unwrap().unwrap().into_data().unwrap(), "x");
    fixture.last_worker().crash();
    assert!(soon(response.frame()).await.unwrap().is_err(), "the stream is reset, not ended");
    fixture.released("a").await;
    let next = soon(client.send_request(call("/echo", full("y")))).await.unwrap();
    assert_eq!(next.headers()["herd-session"], "new");
}

#[tokio::test]
async fn a_crash_before_the_head_of_a_response_is_502_on_http2_too() {
    let fixture = http2_workers()
        .start(|stream, life| async move {
            let service = service_fn(move |_: Request<Incoming>| {
                life.crash();
                std::future::pending::<Result<Response<Body>, Infallible>>()
            });
            let _ = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                .serve_connection(TokioIo::new(stream), service)
                .await;
        })
        .await;
    let answer = fixture.ask("GET / HTTP/1.1\r\nhost: herd\r\nx-session-id: a\r\n\r\n").await;
    assert_eq!((answer.status, answer.field("herd-error")), (502, Some("worker-crashed")));
}

#[tokio::test]
async fn requests_of_http2_clients_reach_http1_workers_as_ordinary_ones() {
    let fixture = Fixture::start(echo_heads).await;
    let mut client = client(&fixture).await;
    let mut request = Request::get("http://herd:81/path?q").header("x-session-id", "a").body(full("")).unwrap();
    request.headers_mut().append("cookie", "a=1".parse().unwrap());
    request.headers_mut().append("cookie", "b=2".parse().unwrap());
    let response = soon(client.send_request(request)).await.unwrap();
    assert_eq!(response.version(), Version::HTTP_2);
    assert!(!response.headers().contains_key("connection"));
    let seen = soon(response.into_body().collect()).await.unwrap().to_bytes();
    let seen = std::str::from_utf8(&seen).unwrap();
    let mut lines: Vec<_> = seen.lines().filter(|line| !line.is_empty()).collect();
    lines.sort_unstable();
    assert_eq!(
        lines,
        [
            "GET /path?q HTTP/1.1",
            "cookie: a=1; b=2",
            "host: herd:81",
            "x-forwarded-for: 127.0.0.1",
            "x-forwarded-host: herd:81",
            "x-forwarded-proto: http",
            "x-session-id: a",
        ]
    );
}

#[tokio::test]
async fn bodies_of_http2_clients_pass_to_http1_workers_as_they_come() {
    let mut fixture = Fixture::start(|mut stream, life| async move {
        let head = request_head(&mut stream).await.unwrap();
        assert!(head.contains("transfer-encoding: chunked\r\n"), "{head}");
        let mut seen = Vec::new();
        while !seen.ends_with(b"0\r\n\r\n") {
            stream.read_buf(&mut seen).await.unwrap();
            life.tell(String::from_utf8_lossy(&seen));
        }
        stream.write_all(response("done").as_bytes()).await.unwrap();
    })
    .await;
    let mut client = client(&fixture).await;
    let (frames, body) = piecewise();
    let answered = tokio::spawn(async move { client.send_request(post("/", body)).await });
    for text in ["one", "two"] {
        frames.send(Ok(Frame::data(text.into()))).unwrap();
        while !fixture.next_told().await.contains(text) {}
    }
    drop(frames);
    let response = soon(answered).await.unwrap().unwrap();
    assert_eq!(soon(response.into_body().collect()).await.unwrap().to_bytes(), "done");
}

#[tokio::test]
async fn an_http2_stream_that_the_client_resets_cuts_the_http1_worker_off() {
    let mut fixture = Fixture::start(|mut stream, life| async move {
        request_head(&mut stream).await.unwrap();
        life.tell("asked");
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest).await;
        life.tell("cut");
    })
    .await;
    let mut client = client(&fixture).await;
    let asked = tokio::spawn(async move { client.send_request(post("/", full(""))).await });
    assert_eq!(fixture.next_told().await, "asked");
    asked.abort();
    assert_eq!(fixture.next_told().await, "cut");
    fixture.released("a").await;
}

#[tokio::test]
async fn an_http1_client_reaches_an_http2_worker() {
    let fixture = http2_workers().start(grpc).await;
    let mut client = fixture.connect().await;
    for text in ["one", "two"] {
        client
            .send(format!(
                "POST /echo HTTP/1.1\r\nhost: herd\r\nx-session-id: a\r\nte: trailers\r\nconnection: te\r\n\
                 content-length: {}\r\n\r\n{text}",
                text.len()
            ))
            .await;
        let answer = client.answer().await;
        assert_eq!((answer.status, answer.text()), (200, text));
    }
}

#[tokio::test]
async fn errors_are_problem_documents_on_http2_too() {
    let fixture = Fixture::start(echo_heads).await;
    let mut client = client(&fixture).await;
    let request = Request::get("http://herd/").header("x-session-id", "a b").body(full("")).unwrap();
    let response = soon(client.send_request(request)).await.unwrap();
    assert_eq!(
        (response.status().as_u16(), &response.headers()["herd-error"]),
        (400, &"invalid-session-id".parse().unwrap())
    );
    let other_host =
        Request::get("http://herd/").header("host", "evil").header("x-session-id", "a").body(full("")).unwrap();
    let response = soon(client.send_request(other_host)).await.unwrap();
    assert_eq!(response.status(), 400);
}

#[tokio::test]
async fn an_http2_connection_is_closed_in_good_order_at_shutdown() {
    let mut fixture = http2_workers().start(grpc).await;
    let mut client = client(&fixture).await;
    let (frames, body) = piecewise();
    let mut response = soon(client.send_request(call("/echo", body))).await.unwrap().into_body();
    fixture.shut_down();
    frames.send(Ok(Frame::data("last".into()))).unwrap();
    assert_eq!(soon(response.frame()).await.unwrap().unwrap().into_data().unwrap(), "last");
    drop(frames);
    assert!(soon(response.frame()).await.unwrap().unwrap().is_trailers());
    soon(&mut fixture.served).await.unwrap();
    assert!(soon(client.send_request(call("/echo", full("late")))).await.is_err());
}

#[tokio::test]
async fn a_preface_that_comes_byte_by_byte_is_recognised() {
    let fixture = Fixture::start(echo_heads).await;
    let mut stream = TcpStream::connect(fixture.address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    for byte in b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0" {
        stream.write_all(&[*byte]).await.unwrap();
        tokio::task::yield_now().await;
    }
    // The answer begins with a settings frame on stream 0.
    let mut frame = [0; 9];
    soon(stream.read_exact(&mut frame)).await.unwrap();
    assert_eq!((frame[3], &frame[5..]), (4, &[0, 0, 0, 0][..]));
}
