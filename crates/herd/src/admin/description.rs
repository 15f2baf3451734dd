//! The API's description, made from the code: <https://spec.openapis.org/oas/v3.1.0>.

use axum::{
    body::Bytes,
    http::header,
    response::{IntoResponse, Response},
};
use utoipa::{
    OpenApi,
    openapi::{
        ContentBuilder, Ref, RefOr, Response as Described, ResponseBuilder,
        path::PathItem,
        security::{HttpAuthScheme, HttpBuilder, SecurityScheme},
    },
};

use super::{
    live::{Departures, Hello},
    model::{Event, LogLine},
};

#[derive(Debug, OpenApi)]
#[openapi(
    info(
        title = "herd admin API",
        description = "What a running daemon says of its sessions, workers and pools, and what it does with them when it is \
                       told to. Errors are problem documents (RFC 9457). Lists come in pages.",
        license(name = "MIT", identifier = "MIT"),
    ),
    tags(
        (name = "sessions", description = "Sessions: start, look at, end"),
        (name = "workers", description = "Workers, and their output"),
        (name = "events", description = "What happens, as it happens"),
        (name = "daemon", description = "The daemon itself, and its pools"),
    ),
    components(schemas(Departures, Event, Hello, LogLine<'static>)),
    security((), ("token" = [])),
)]
struct Description;

/// The description without its pages, which come with their routes.
pub(super) fn begin() -> utoipa::openapi::OpenApi {
    let mut api = Description::openapi();
    api.info.version = env!("CARGO_PKG_VERSION").to_owned();
    let scheme = HttpBuilder::new()
        .scheme(HttpAuthScheme::Bearer)
        .description(Some("On the admin address, if `network.admin_token_file` is set. Not on the control socket."))
        .build();
    api.components.get_or_insert_default().add_security_scheme("token", SecurityScheme::Http(scheme));
    api
}

/// The description as a page, with what stands before all pages.
pub(super) fn render(mut api: utoipa::openapi::OpenApi) -> Page {
    let pages = api.paths.paths.values_mut();
    for operation in pages.flat_map(|PathItem { get, post, delete, .. }| [get, post, delete]).flatten() {
        for (status, what) in BEFORE_ALL {
            let responses = &mut operation.responses.responses;
            responses.entry(status.to_owned()).or_insert_with(|| RefOr::T(refusal(what)));
        }
    }
    // It consists of structures whose keys are text, which cannot fail.
    Page(serde_json::to_vec_pretty(&api).unwrap_or_default().into())
}

/// What the guard of the admin address answers.
const BEFORE_ALL: [(&str, &str); 3] = [
    ("401", "On the admin address: a token is asked for, and it is not there or another one"),
    ("403", "On the admin address: the request names a foreign host, or comes from another site's page"),
    ("429", "On the admin address: too many wrong tokens came from there"),
];

fn refusal(what: &str) -> Described {
    let problem = ContentBuilder::new().schema(Some(Ref::from_schema_name("Problem"))).build();
    ResponseBuilder::new().description(what).content("application/problem+json", problem).build()
}

#[derive(Clone, Debug)]
pub(super) struct Page(Bytes);

impl IntoResponse for Page {
    fn into_response(self) -> Response {
        ([(header::CONTENT_TYPE, "application/json")], self.0).into_response()
    }
}
