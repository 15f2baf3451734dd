//! What is asked for on the control socket: gRPC by its content type, and everything else of the admin API.

use std::{convert::Infallible, future::pending, sync::Arc, time::Duration};

use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    http::{self, HeaderMap, HeaderValue, Method, StatusCode, Version, header},
    middleware::{self, Next},
    response::{IntoResponse as _, Response},
};
use http_body_util::BodyExt as _;
use serde_json::json;
use tokio::time::timeout;
use tonic::{Status, server::NamedService};
use tonic_health::{ServingStatus, server::HealthReporter};
use tonic_reflection::server::Builder as Reflection;
use tower_service::Service;

use super::{
    service::Control,
    wire::{DESCRIPTORS, exec_service_server::ExecServiceServer, herd_service_server::HerdServiceServer},
};
use crate::{
    admin::server::{Bounds, Peer, Room},
    draining::Draining,
};

/// The largest message that is read, in bytes.
const MOST_MESSAGE_BYTES: usize = 4096;
/// The same where a command is run, whose arguments and environment are in one message.
pub(crate) const MOST_EXEC_MESSAGE_BYTES: usize = 256 * 1024;
/// How long the beginning of an answer may take, which has to wait for nothing but the request.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// How many gRPC requests there may be at once, most of which hold a session each.
const REQUESTS: Bounds = Bounds { most: 20_000, most_of_one: 10_000, reserve: 500 };
/// The beginning of the content type of everything that has to do with gRPC.
const GRPC: &str = "application/grpc";
/// Which program answers.
const SIGNATURE: &str = concat!("herd/", env!("CARGO_PKG_VERSION"));
/// The paths of the services.
const SERVICES: [&str; 2] = ["/herd.v1.", "/grpc."];

type Herd = HerdServiceServer<Control>;
type Exec = ExecServiceServer<Control>;

/// The services, and the bounds of those who use them.
#[derive(Clone)]
struct Services {
    routes: Router,
    room: Arc<Room>,
}

/// What says how the services are.
#[derive(Debug)]
pub(super) struct Health(HealthReporter);

impl Health {
    /// Says that the services are to be asked, and that they are not any more once the daemon drains. Does not end by
    /// itself.
    pub(super) async fn follow(self, draining: Draining) {
        self.say(ServingStatus::Serving).await;
        draining.begun().await;
        self.say(ServingStatus::NotServing).await;
        pending::<()>().await;
    }

    async fn say(&self, status: ServingStatus) {
        for service in ["", Herd::NAME, Exec::NAME] {
            self.0.set_service_status(service, status).await;
        }
    }
}

/// Puts the services in front of the admin API.
pub(super) fn routes(control: Control, admin: Router) -> anyhow::Result<(Router, Health)> {
    let reporter = HealthReporter::new();
    let health = tonic_health::server::HealthService::from_health_reporter(reporter.clone());
    let health = tonic_health::pb::health_server::HealthServer::new(health);
    let reflection = || {
        Reflection::configure()
            .register_encoded_file_descriptor_set(DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let exec = Exec::new(control.clone()).max_decoding_message_size(MOST_EXEC_MESSAGE_BYTES);
    let routes = mount(Router::new(), Herd::new(control).max_decoding_message_size(MOST_MESSAGE_BYTES));
    let routes = mount(routes, exec);
    let routes = mount(routes, health.max_decoding_message_size(MOST_MESSAGE_BYTES));
    let routes = mount(routes, reflection().build_v1()?.max_decoding_message_size(MOST_MESSAGE_BYTES));
    let routes = mount(routes, reflection().build_v1alpha()?.max_decoding_message_size(MOST_MESSAGE_BYTES));
    let routes = routes.fallback(async || status(Status::unimplemented("there is no such service")));
    let services = Services { routes, room: Arc::new(Room::new(REQUESTS)) };
    let routes = admin.layer(middleware::from_fn_with_state(services, choose));
    Ok((routes.layer(middleware::map_response(sign)), Health(reporter)))
}

/// Says who answers, so that a command of another version knows why it does not understand the answer. Only here: on the
/// admin address it would tell everybody.
async fn sign(mut response: Response) -> Response {
    response.headers_mut().insert(header::SERVER, HeaderValue::from_static(SIGNATURE));
    response
}

fn mount<S>(routes: Router, service: S) -> Router
where
    S: Service<Request, Response = http::Response<tonic::body::Body>, Error = Infallible>,
    S: NamedService + Clone + Send + Sync + 'static,
    S::Future: Send,
{
    routes.route_service(&methods::<S>(), service)
}

fn methods<S: NamedService>() -> String {
    format!("/{}/{{method}}", S::NAME)
}

async fn choose(State(services): State<Services>, request: Request, next: Next) -> Response {
    match kind(request.headers()) {
        Kind::Other if SERVICES.iter().any(|service| request.uri().path().starts_with(service)) => {
            problem(StatusCode::UNSUPPORTED_MEDIA_TYPE, "a gRPC service takes content-type: application/grpc")
        }
        Kind::Other => next.run(request).await,
        Kind::Unknown => {
            problem(StatusCode::UNSUPPORTED_MEDIA_TYPE, "of gRPC the services take application/grpc alone, with proto")
        }
        Kind::Grpc if request.version() != Version::HTTP_2 => {
            problem(StatusCode::HTTP_VERSION_NOT_SUPPORTED, "gRPC needs HTTP/2 with prior knowledge")
        }
        Kind::Grpc if request.method() != Method::POST => {
            let mut refused = problem(StatusCode::METHOD_NOT_ALLOWED, "gRPC requests are sent with POST");
            refused.headers_mut().insert(header::ALLOW, HeaderValue::from_static("POST"));
            refused
        }
        Kind::Grpc => services.call(request).await,
    }
}

impl Services {
    async fn call(mut self, request: Request) -> Response {
        let peer = request.extensions().get::<Peer>().and_then(|peer| peer.key());
        let Some(place) = self.room.enter(peer) else {
            return status(Status::resource_exhausted("there are too many requests on the control socket at once"));
        };
        let answer = match timeout(HEAD_TIMEOUT, self.routes.call(request)).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(never)) => match never {},
            Err(_) => status(Status::deadline_exceeded(format!("the request did not come within {HEAD_TIMEOUT:?}"))),
        };
        // The place is taken until the answer has been given.
        answer.map(|body| {
            Body::new(body.map_frame(move |frame| {
                let _ = &place;
                frame
            }))
        })
    }
}

/// What a request's content type says.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Kind {
    /// gRPC with Protocol Buffers.
    Grpc,
    /// gRPC with another encoding, or for browsers.
    Unknown,
    /// Something else.
    Other,
}

fn kind(headers: &HeaderMap) -> Kind {
    let Some(value) = headers.get(header::CONTENT_TYPE) else { return Kind::Other };
    let value = value.as_bytes().to_ascii_lowercase();
    match value.strip_prefix(GRPC.as_bytes()) {
        Some(b"" | b"+proto" | [b';', ..] | [b'+', b'p', b'r', b'o', b't', b'o', b';', ..]) => Kind::Grpc,
        Some(_) => Kind::Unknown,
        None => Kind::Other,
    }
}

/// A status of gRPC as the whole answer.
fn status(status: Status) -> Response {
    status.into_http()
}

fn problem(status: StatusCode, detail: &str) -> Response {
    let title = status.canonical_reason().unwrap_or("Error");
    let body = json!({ "type": "about:blank", "title": title, "status": status.as_u16(), "detail": detail });
    (status, [(header::CONTENT_TYPE, "application/problem+json")], body.to_string()).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grpc_is_told_by_its_content_type() {
        let kind = |value: &'static str| {
            kind(&HeaderMap::from_iter([(header::CONTENT_TYPE, HeaderValue::from_static(value))]))
        };
        for value in ["application/grpc", "application/grpc+proto", "Application/gRPC", "application/grpc;x=y"] {
            assert_eq!(kind(value), Kind::Grpc, "{value}");
        }
        for value in ["application/grpc-web", "application/grpc+json", "application/grpcx"] {
            assert_eq!(kind(value), Kind::Unknown, "{value}");
        }
        for value in ["application/json", "text/plain", ""] {
            assert_eq!(kind(value), Kind::Other, "{value}");
        }
    }
}
