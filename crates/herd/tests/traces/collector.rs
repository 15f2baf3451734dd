//! A collector of traces: what it was sent, read from the bytes without the library that wrote them.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::mpsc::{Receiver, channel},
    thread,
};

use prost::Message;

use crate::client::PATIENCE;

/// One that listens on a port of its own.
#[derive(Debug)]
pub(crate) struct Collector {
    pub(crate) address: SocketAddr,
    batches: Receiver<Vec<Span>>,
    waiting: Vec<Span>,
}

impl Collector {
    /// Answers posts with these statuses, and further ones with the last.
    pub(crate) fn start(answers: &'static [&'static str]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, batches) = channel();
        thread::spawn(move || {
            let mut taken = 0;
            for stream in listener.incoming() {
                let mut stream = BufReader::new(stream.unwrap());
                while let Some(spans) = read(&mut stream) {
                    let answer = answers[taken.min(answers.len() - 1)];
                    taken += 1;
                    let _ = write!(stream.get_mut(), "HTTP/1.1 {answer}\r\ncontent-length: 0\r\n\r\n");
                    if answer.starts_with("200") && sender.send(spans).is_err() {
                        return;
                    }
                }
            }
        });
        Self { address, batches, waiting: Vec::new() }
    }

    /// The next span that it took.
    #[track_caller]
    pub(crate) fn span(&mut self) -> Span {
        while self.waiting.is_empty() {
            self.waiting = self.batches.recv_timeout(PATIENCE).expect("a span should have come");
        }
        self.waiting.remove(0)
    }

    /// Whether nothing is left of what has come so far.
    pub(crate) fn is_empty(&mut self) -> bool {
        self.waiting.extend(self.batches.try_iter().flatten());
        self.waiting.is_empty()
    }
}

/// The spans of the next post on a connection, unless that has ended.
fn read(stream: &mut BufReader<TcpStream>) -> Option<Vec<Span>> {
    let mut head = stream.by_ref().lines().map_while(Result::ok).take_while(|line| !line.is_empty());
    let asked = head.next()?;
    let expected = ["/v1/traces", "/otlp/v1/traces?key=hidden"].map(|path| format!("POST {path} HTTP/1.1"));
    assert!(expected.contains(&asked), "{asked}");
    let fields: Vec<_> = head.map(|line| line.to_ascii_lowercase()).collect();
    assert!(fields.iter().any(|field| field == "content-type: application/x-protobuf"), "{fields:?}");
    let length = fields.iter().find_map(|field| field.strip_prefix("content-length: "))?;
    let mut body = vec![0; length.parse().unwrap()];
    stream.read_exact(&mut body).ok()?;
    let request = Request::decode(&*body).unwrap();
    let of_resource = |of: ResourceSpans| {
        let resource = of.resource.unwrap_or_default();
        let service = text(&resource.attributes, "service.name");
        assert_eq!(service.as_deref(), Some("herd"), "{resource:?}");
        of.scopes.into_iter().flat_map(|scope| scope.spans)
    };
    Some(request.resources.into_iter().flat_map(of_resource).collect())
}

fn text(attributes: &[Attribute], key: &str) -> Option<String> {
    let attribute = attributes.iter().find(|attribute| attribute.key == key)?;
    match attribute.value.as_ref()?.value.as_ref()? {
        Is::Text(text) => Some(text.clone()),
        Is::Bool(is) => Some(is.to_string()),
        Is::Number(number) => Some(number.to_string()),
    }
}

// What is looked at of opentelemetry/proto/trace/v1/trace.proto and its neighbours, with the numbers that are there.

#[derive(Clone, PartialEq, Message)]
struct Request {
    #[prost(message, repeated, tag = "1")]
    resources: Vec<ResourceSpans>,
}

#[derive(Clone, PartialEq, Message)]
struct ResourceSpans {
    #[prost(message, optional, tag = "1")]
    resource: Option<Resource>,
    #[prost(message, repeated, tag = "2")]
    scopes: Vec<ScopeSpans>,
}

#[derive(Clone, PartialEq, Message)]
struct Resource {
    #[prost(message, repeated, tag = "1")]
    attributes: Vec<Attribute>,
}

#[derive(Clone, PartialEq, Message)]
struct ScopeSpans {
    #[prost(message, repeated, tag = "2")]
    spans: Vec<Span>,
}

/// A span as it came.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Span {
    #[prost(bytes = "vec", tag = "1")]
    trace: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    id: Vec<u8>,
    #[prost(bytes = "vec", tag = "4")]
    parent: Vec<u8>,
    #[prost(string, tag = "5")]
    pub(crate) name: String,
    /// 2: a server's.
    #[prost(int32, tag = "6")]
    pub(crate) kind: i32,
    #[prost(fixed64, tag = "7")]
    pub(crate) begun: u64,
    #[prost(fixed64, tag = "8")]
    pub(crate) ended: u64,
    #[prost(message, repeated, tag = "9")]
    attributes: Vec<Attribute>,
    #[prost(message, repeated, tag = "11")]
    pub(crate) events: Vec<Event>,
    #[prost(message, optional, tag = "15")]
    status: Option<Status>,
}

impl Span {
    pub(crate) fn trace(&self) -> String {
        hex(&self.trace)
    }

    pub(crate) fn id(&self) -> String {
        hex(&self.id)
    }

    pub(crate) fn parent(&self) -> String {
        hex(&self.parent)
    }

    pub(crate) fn attribute(&self, key: &str) -> Option<String> {
        text(&self.attributes, key)
    }

    pub(crate) fn has_failed(&self) -> bool {
        self.status.as_ref().is_some_and(|status| status.code == 2)
    }
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Event {
    #[prost(fixed64, tag = "1")]
    pub(crate) at: u64,
    #[prost(string, tag = "2")]
    pub(crate) name: String,
}

#[derive(Clone, PartialEq, Message)]
struct Status {
    #[prost(int32, tag = "3")]
    code: i32,
}

#[derive(Clone, PartialEq, Message)]
struct Attribute {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(message, optional, tag = "2")]
    value: Option<Value>,
}

#[derive(Clone, PartialEq, Message)]
struct Value {
    #[prost(oneof = "Is", tags = "1, 2, 3")]
    value: Option<Is>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum Is {
    #[prost(string, tag = "1")]
    Text(String),
    #[prost(bool, tag = "2")]
    Bool(bool),
    #[prost(int64, tag = "3")]
    Number(i64),
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
