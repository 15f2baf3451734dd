//! A client of the control plane that knows nothing of the server's code: HTTP/2 by hyper, and messages by hand.

use std::{convert::Infallible, net::Shutdown, path::Path};

use futures_util::stream;
use http_body_util::{BodyExt as _, Full, StreamBody, combinators::BoxBody};
use hyper::{
    HeaderMap, Request, Response,
    body::{Body, Bytes, Frame, Incoming},
    client::conn::http2::{self, SendRequest},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustix::process::Pid;
use tokio::{
    net::UnixStream,
    sync::mpsc::{UnboundedSender, unbounded_channel},
    time::timeout,
};

use crate::client::PATIENCE;

type Message = BoxBody<Bytes, Infallible>;

/// A connection to the control plane.
#[derive(Debug)]
pub(crate) struct Plane {
    sender: SendRequest<Message>,
    /// The other handle of its socket.
    socket: std::os::unix::net::UnixStream,
}

/// How a call failed.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) code: u32,
    pub(crate) message: String,
    pub(crate) trailers: HeaderMap,
}

/// A session as the control plane tells it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Session {
    pub(crate) id: String,
    pub(crate) proxy_address: String,
    pub(crate) pid: i32,
}

impl Session {
    pub(crate) fn worker(&self) -> Pid {
        Pid::from_raw(self.pid).unwrap()
    }
}

impl Plane {
    pub(crate) async fn connect(socket: &Path) -> Self {
        let stream = std::os::unix::net::UnixStream::connect(socket).unwrap();
        let socket = stream.try_clone().unwrap();
        stream.set_nonblocking(true).unwrap();
        let stream = TokioIo::new(UnixStream::from_std(stream).unwrap());
        let (sender, connection) = http2::handshake(TokioExecutor::new(), stream).await.unwrap();
        // What breaks it is what the test does.
        tokio::spawn(async move { drop(connection.await) });
        Self { sender, socket }
    }

    /// Breaks the connection off without a word, as the kernel does for a process that was killed.
    pub(crate) fn cut(&self) {
        self.socket.shutdown(Shutdown::Both).unwrap();
    }

    /// Sends a request of which everything is told.
    pub(crate) async fn send(
        &mut self,
        path: &str,
        fields: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Response<Incoming> {
        self.request(path, fields, Full::new(body.into()).boxed()).await
    }

    async fn request(&mut self, path: &str, fields: &[(&str, &str)], body: Message) -> Response<Incoming> {
        let mut request = Request::post(format!("http://herd{path}"));
        if !fields.iter().any(|(name, _)| *name == "content-type") {
            request = request.header("content-type", "application/grpc").header("te", "trailers");
        }
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        self.sender.ready().await.unwrap();
        let response = self.sender.send_request(request.body(body).unwrap());
        timeout(PATIENCE, response).await.expect("there is an answer").unwrap()
    }

    /// Calls a method with one message.
    pub(crate) async fn call(&mut self, path: &str, message: &[u8]) -> Result<Vec<u8>, Failure> {
        let response = self.send(path, &[], framed(message)).await;
        Answers::new(response).next().await
    }

    /// Opens a stream of `Acquire`.
    pub(crate) async fn acquire(&mut self, fields: &[(&str, &str)]) -> AcquireStream {
        let (requests, answers) = self.open("/herd.v1.HerdService/Acquire", fields).await;
        AcquireStream { requests, answers }
    }

    /// Opens a stream of any method: where messages are sent, with their prefixes, and what is answered.
    pub(crate) async fn open(&mut self, path: &str, fields: &[(&str, &str)]) -> (UnboundedSender<Bytes>, Answers) {
        let (requests, receiver) = unbounded_channel();
        let frames = stream::unfold(receiver, |mut receiver| async move {
            let message: Bytes = receiver.recv().await?;
            Some((Ok::<_, Infallible>(Frame::data(message)), receiver))
        });
        let body = StreamBody::new(frames).boxed();
        let response = self.request(path, fields, body).await;
        (requests, Answers::new(response))
    }
}

/// A stream of `Acquire`. Dropping it resets it.
#[derive(Debug)]
pub(crate) struct AcquireStream {
    requests: UnboundedSender<Bytes>,
    answers: Answers,
}

impl AcquireStream {
    pub(crate) fn ask(&self, worker_type: &str, timeout_seconds: i32) {
        self.requests.send(framed(&acquire_request(worker_type, timeout_seconds)).into()).unwrap();
    }

    pub(crate) async fn answer(&mut self) -> Result<Session, Failure> {
        self.answers.next().await.map(|message| session(&message))
    }

    /// Asks for a session of any kind, which must be had.
    pub(crate) async fn session(&mut self) -> Session {
        self.ask("", 0);
        self.answer().await.unwrap()
    }

    /// Says that no request follows, and answers how the stream ends.
    pub(crate) async fn close(self) -> Failure {
        let Self { requests, mut answers } = self;
        drop(requests);
        answers.next().await.unwrap_err()
    }
}

/// The messages of an answer.
#[derive(Debug)]
pub(crate) struct Answers {
    head: HeaderMap,
    body: Incoming,
    read: Vec<u8>,
}

impl Answers {
    fn new(response: Response<Incoming>) -> Self {
        assert_eq!(response.status(), 200, "{response:?}");
        let (head, body) = response.into_parts();
        Self { head: head.headers, body, read: Vec::new() }
    }

    /// The next message, or the status at the end, also where that is 0.
    pub(crate) async fn next(&mut self) -> Result<Vec<u8>, Failure> {
        if self.head.contains_key("grpc-status") {
            return Err(failure(&self.head));
        }
        loop {
            if let Some((prefix, rest)) = self.read.split_at_checked(5) {
                let length = usize::try_from(u32::from_be_bytes(prefix[1..].try_into().unwrap())).unwrap();
                if let Some(message) = rest.get(..length) {
                    let message = message.to_vec();
                    self.read.drain(..5 + length);
                    return Ok(message);
                }
            }
            let frame = timeout(PATIENCE, self.body.frame()).await.expect("something comes");
            match frame.expect("a stream ends with a status").map(Frame::into_data) {
                Ok(Ok(data)) => self.read.extend_from_slice(&data),
                Ok(Err(frame)) => return Err(failure(&frame.into_trailers().unwrap())),
                Err(error) => panic!("the stream broke: {error}"),
            }
            assert!(!self.body.is_end_stream() || !self.read.is_empty(), "a stream ends with a status");
        }
    }
}

fn failure(fields: &HeaderMap) -> Failure {
    let text = |name: &str| fields.get(name).map_or("", |value| value.to_str().unwrap());
    let code = text("grpc-status").parse().unwrap();
    // Only what tests look for has to be readable.
    let message = text("grpc-message").replace("%20", " ").replace("%22", "\"").replace("%2C", ",");
    Failure { code, message, trailers: fields.clone() }
}

/// A message with its prefix: not compressed, and so long.
pub(crate) fn framed(message: &[u8]) -> Vec<u8> {
    let length = u32::try_from(message.len()).unwrap();
    [&[0], &length.to_be_bytes()[..], message].concat()
}

pub(crate) fn acquire_request(worker_type: &str, timeout_seconds: i32) -> Vec<u8> {
    let mut message = vec![0x0a];
    varint(worker_type.len().try_into().unwrap(), &mut message);
    message.extend_from_slice(worker_type.as_bytes());
    message.push(0x10);
    // A negative number is written as one of 64 bits.
    varint(i64::from(timeout_seconds).cast_unsigned(), &mut message);
    message
}

fn session(message: &[u8]) -> Session {
    let mut session = Session { id: String::new(), proxy_address: String::new(), pid: 0 };
    for (field, value) in fields(message) {
        match (field, value) {
            (1, Value::Text(text)) => session.id = text,
            (2, Value::Text(text)) => session.proxy_address = text,
            (3, Value::Number(number)) => session.pid = number.try_into().unwrap(),
            other => panic!("an unknown field: {other:?}"),
        }
    }
    session
}

/// What stands in a field of a message.
#[derive(Debug)]
pub(crate) enum Value {
    Number(u64),
    Text(String),
}

/// The fields of a message that has none but numbers and texts.
pub(crate) fn fields(mut message: &[u8]) -> Vec<(u64, Value)> {
    let mut fields = Vec::new();
    while !message.is_empty() {
        let tag = read_varint(&mut message);
        let value = read_varint(&mut message);
        let value = match tag & 7 {
            0 => Value::Number(value),
            2 => {
                let (text, rest) = message.split_at(value.try_into().unwrap());
                message = rest;
                Value::Text(String::from_utf8(text.to_vec()).unwrap())
            }
            other => panic!("the wire type {other}"),
        };
        fields.push((tag >> 3, value));
    }
    fields
}

pub(crate) fn varint(mut value: u64, into: &mut Vec<u8>) {
    while value >= 0x80 {
        into.push(u8::try_from(value & 0x7f).unwrap() | 0x80);
        value >>= 7;
    }
    into.push(u8::try_from(value).unwrap());
}

fn read_varint(from: &mut &[u8]) -> u64 {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (first, rest) = from.split_first().unwrap();
        *from = rest;
        value |= u64::from(first & 0x7f) << shift;
        if first & 0x80 == 0 {
            break;
        }
    }
    value
}
