use std::{
    convert::Infallible,
    sync::{Arc, Mutex, PoisonError},
};

use http_body_util::{BodyExt as _, Full};
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::{self, HeaderValue},
    upgrade::OnUpgrade,
};
use tokio_tungstenite::tungstenite::handshake::server::create_response;

use super::{MAX_SCRIPT, evaluator::Evaluator, page};

/// How much of a body that is too large is read before the connection is closed, in bytes.
const MAX_DISCARDED: usize = 16 * MAX_SCRIPT;

type Reply = Response<Full<Bytes>>;

/// The WebSocket that a request on this connection asked for. The connection's task takes it over.
#[derive(Clone, Default)]
pub(super) struct Upgrade(Arc<Mutex<Option<OnUpgrade>>>);

impl Upgrade {
    pub(super) fn take(&self) -> Option<OnUpgrade> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn put(&self, upgrade: OnUpgrade) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(upgrade);
    }
}

/// Answers one request. Dropping the future, as happens when the client goes away, cancels its script.
pub(super) async fn respond(
    request: Request<Incoming>,
    evaluator: &Evaluator,
    upgrade: &Upgrade,
) -> Result<Reply, Infallible> {
    let read = matches!(*request.method(), Method::GET | Method::HEAD);
    Ok(match request.uri().path() {
        "/health" if read => text(StatusCode::OK, "ok"),
        "/" if read => page::response(),
        "/eval" if request.method() == Method::POST => match other_site(&request) {
            Some(refusal) => refusal,
            None => evaluate(request, evaluator).await,
        },
        "/ws" if request.method() == Method::GET => match other_site(&request) {
            Some(refusal) => refusal,
            None => open_websocket(request, upgrade),
        },
        "/health" | "/" => not_allowed("GET, HEAD"),
        "/eval" => not_allowed("POST"),
        "/ws" => not_allowed("GET"),
        _ => text(StatusCode::NOT_FOUND, "there are GET /, POST /eval, GET /ws and GET /health"),
    })
}

async fn evaluate(request: Request<Incoming>, evaluator: &Evaluator) -> Reply {
    let script = match read_script(request.into_body()).await {
        Ok(script) => script,
        Err(refusal) => return refusal,
    };
    match evaluator.evaluate(script).await {
        Some(Ok(answer)) => text(StatusCode::OK, answer),
        Some(Err(error)) => text(StatusCode::UNPROCESSABLE_ENTITY, error),
        None => closing(text(StatusCode::INTERNAL_SERVER_ERROR, "the evaluator died")),
    }
}

async fn read_script(mut body: Incoming) -> Result<String, Reply> {
    let mut script = Vec::new();
    let mut length = 0;
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else {
            return Err(closing(text(StatusCode::BAD_REQUEST, "the body did not arrive whole")));
        };
        let Some(data) = frame.data_ref() else { continue };
        length += data.len();
        // Many clients read no answer before they have sent everything, so what is too large is read, up to a point.
        if length <= MAX_SCRIPT {
            script.extend_from_slice(data);
        } else if length > MAX_DISCARDED {
            break;
        }
    }
    if length > MAX_SCRIPT {
        return Err(closing(text(StatusCode::PAYLOAD_TOO_LARGE, "a script has at most 1 MiB")));
    }
    String::from_utf8(script).map_err(|_| text(StatusCode::BAD_REQUEST, "a script is UTF-8"))
}

fn open_websocket(mut request: Request<Incoming>, upgrade: &Upgrade) -> Reply {
    let on_upgrade = hyper::upgrade::on(&mut request);
    match create_response(&request.map(drop)) {
        Ok(response) => {
            upgrade.put(on_upgrade);
            response.map(|()| Full::default())
        }
        Err(error) => text(StatusCode::BAD_REQUEST, error.to_string()),
    }
}

/// Refuses what a page of another site makes a browser send: it must not run scripts in the session of whoever looks at
/// it. Browsers say where a request comes from (Fetch Metadata, `Sec-Fetch-Site`); other clients say nothing.
fn other_site(request: &Request<Incoming>) -> Option<Reply> {
    let site = request.headers().get("sec-fetch-site")?;
    (site != "same-origin" && site != "none")
        .then(|| text(StatusCode::FORBIDDEN, "a page of another site may not use this session"))
}

fn not_allowed(allow: &'static str) -> Reply {
    let mut reply = text(StatusCode::METHOD_NOT_ALLOWED, format!("only {allow} is allowed here"));
    reply.headers_mut().insert(header::ALLOW, HeaderValue::from_static(allow));
    reply
}

/// The rest of the request is unread, so the connection cannot serve another one.
fn closing(mut reply: Reply) -> Reply {
    reply.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    reply
}

fn text(status: StatusCode, text: impl Into<Bytes>) -> Reply {
    let mut reply = Response::new(Full::new(text.into()));
    *reply.status_mut() = status;
    let headers = reply.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    // What a script answers is text, whatever it looks like.
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    reply
}
