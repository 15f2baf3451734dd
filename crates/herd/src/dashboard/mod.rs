//! The dashboard: a page in the browser that shows what the admin API says, and ends sessions through it.
//!
//! It consists of files that are part of this program, as they were written: no build step, no framework, nothing from
//! elsewhere. They hold no data, so they are served to whoever may reach the address; all that they show comes from `/v1`,
//! which asks for the token if there is one.
//!
//! The page's own files lie under an address that changes with their content, and may be kept for ever; the page itself
//! is asked for again each time.

mod assets;

use std::{fmt::Write as _, sync::LazyLock};

use aws_lc_rs::digest;
use axum::{
    Router,
    extract::Path,
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};

use self::assets::{ASSETS, Asset, PAGE};

/// What the page may do. There is no script and no style in it but its own files, it talks to its own daemon alone, and
/// whatever would take text for HTML or for a script is an error (Trusted Types).
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
                      require-trusted-types-for 'script'; trusted-types 'none'";

/// Where the page's files are, before their digest.
const FILES: &str = "/assets/";

/// The first 64 bits of a digest of all files, in hexadecimal digits.
static DIGEST: LazyLock<String> = LazyLock::new(|| {
    let mut context = digest::Context::new(&digest::SHA256);
    for Asset { name, content, .. } in ASSETS {
        // No name and no file of ours has a zero byte, so that the borders are part of what is digested.
        [name.as_bytes(), b"\0", content.as_bytes(), b"\0"].into_iter().for_each(|part| context.update(part));
    }
    context.update(PAGE.as_bytes());
    context.finish().as_ref()[..8].iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
});

/// The page, which names its files by their digest.
static RENDERED: LazyLock<String> = LazyLock::new(|| PAGE.replace("{{digest}}", &DIGEST));

/// Whether the path is of the dashboard, which tells nothing about anybody.
pub(crate) fn owns(path: &str) -> bool {
    path == "/" || path.starts_with(FILES)
}

/// The page and its files, each of which answers `fallback` where there is no such file.
pub(crate) fn routes<S, R>(fallback: fn() -> R) -> Router<S>
where
    S: Clone + Send + Sync + 'static,
    R: IntoResponse + 'static,
{
    Router::new().route("/", get(page)).route(
        "/assets/{digest}/{name}",
        get(async move |Path((digest, name)): Path<(String, String)>| {
            let asset = ASSETS.iter().find(|asset| asset.name == name && digest == *DIGEST);
            asset.map_or_else(|| fallback().into_response(), file)
        }),
    )
}

async fn page(headers: HeaderMap) -> Response {
    let tag = format!("\"{}\"", *DIGEST);
    let fields = [
        (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
        (header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY)),
        (HeaderName::from_static("cross-origin-opener-policy"), HeaderValue::from_static("same-origin")),
        // Hexadecimal digits in quotation marks.
        (header::ETAG, HeaderValue::from_str(&tag).unwrap_or(HeaderValue::from_static("\"\""))),
    ];
    if is_known(&headers, &tag) {
        return (StatusCode::NOT_MODIFIED, fields).into_response();
    }
    (fields, [(header::CONTENT_TYPE, "text/html; charset=utf-8")], RENDERED.as_str()).into_response()
}

fn file(asset: &Asset) -> Response {
    let fields = [
        // Another content has another address.
        (header::CACHE_CONTROL, "public, max-age=31536000, immutable"),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::CONTENT_TYPE, asset.content_type),
    ];
    (fields, asset.content).into_response()
}

/// Whether the client has this very page (RFC 9110 §13.1.2; the comparison is the weak one).
fn is_known(headers: &HeaderMap, tag: &str) -> bool {
    let fields = headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|field| field.to_str().ok());
    fields
        .flat_map(|field| field.split(','))
        .map(str::trim)
        .any(|known| known == "*" || known.strip_prefix("W/").unwrap_or(known) == tag)
}

#[cfg(test)]
mod tests;
