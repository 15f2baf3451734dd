use std::{net::SocketAddr, time::Duration};

use http_body_util::{BodyExt as _, Full};
use hyper::{HeaderMap, Method, Request, body::Bytes, client::conn::http1, header};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, task::JoinHandle, time::timeout};
use tokio_tungstenite::{WebSocketStream, client_async, tungstenite::client::IntoClientRequest as _};

/// No answer may take longer than this; it keeps a test that fails from never ending.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

/// Where a gateway listens, and requests to it, each on a connection of its own.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Gateway(pub(crate) SocketAddr);

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
}

impl Answer {
    /// A response field, or nothing.
    pub(crate) fn field(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    pub(crate) fn worker(&self) -> &str {
        self.field("herd-worker")
    }
}

impl Gateway {
    pub(crate) async fn get(self, session: Option<&str>, path: &str) -> Answer {
        self.send(self.request(Method::GET, session, path, "")).await
    }

    /// `POST /eval` of the REPL.
    pub(crate) async fn eval(self, session: &str, script: impl Into<Bytes>) -> Answer {
        self.send(self.request(Method::POST, Some(session), "/eval", script)).await
    }

    pub(crate) fn request(
        self,
        method: Method,
        session: Option<&str>,
        path: &str,
        body: impl Into<Bytes>,
    ) -> Request<Full<Bytes>> {
        let request = Request::builder().method(method).uri(path).header(header::HOST, self.0.to_string());
        let request = match session {
            Some(session) => request.header("x-session-id", session),
            None => request,
        };
        request.body(Full::new(body.into())).unwrap()
    }

    pub(crate) async fn send(self, request: Request<Full<Bytes>>) -> Answer {
        let answer = async {
            let stream = TcpStream::connect(self.0).await.expect("the gateway accepts connections");
            let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
            let (answer, _) = tokio::join!(
                async {
                    let response = sender.send_request(request).await.expect("the gateway answers");
                    drop(sender);
                    let (head, body) = response.into_parts();
                    let body = body.collect().await.expect("the answer arrives whole").to_bytes();
                    let body = String::from_utf8_lossy(&body).into_owned();
                    Answer { status: head.status.as_u16(), headers: head.headers, body }
                },
                connection,
            );
            answer
        };
        timeout(ANSWER_TIMEOUT, answer).await.expect("the answer comes in time")
    }

    /// Sends a request and goes away when what is returned is aborted.
    pub(crate) fn send_in_background(self, request: Request<Full<Bytes>>) -> JoinHandle<Answer> {
        tokio::spawn(self.send(request))
    }

    /// Opens the WebSocket at `/ws`.
    pub(crate) async fn websocket(self, session: &str) -> WebSocketStream<TcpStream> {
        let mut request = format!("ws://{}/ws", self.0).into_client_request().unwrap();
        request.headers_mut().insert("x-session-id", session.parse().unwrap());
        let stream = TcpStream::connect(self.0).await.unwrap();
        let (socket, _) = client_async(request, stream).await.expect("the gateway opens the WebSocket");
        socket
    }
}
