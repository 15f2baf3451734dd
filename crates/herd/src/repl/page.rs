use http_body_util::Full;
use hyper::{
    Response,
    body::Bytes,
    header::{self, HeaderValue},
};

/// The page, with `{{nonce}}` where its style and its script say that they belong to it.
const PAGE: &str = include_str!("page.html");

/// The prompt, whole in one response: behind a gateway that finds the session in a header, a second request for a style
/// sheet would have no session.
pub(super) fn response() -> Response<Full<Bytes>> {
    let mut nonce = [0; 16];
    // The page holds nothing of any session's, so an attacker who could guess the nonce would have nothing to put into it.
    let _ = getrandom::fill(&mut nonce);
    let nonce = format!("{:032x}", u128::from_ne_bytes(nonce));
    let mut response = Response::new(Full::new(PAGE.replace("{{nonce}}", &nonce).into()));
    let policy = format!(
        "default-src 'none'; style-src 'nonce-{nonce}'; script-src 'nonce-{nonce}'; connect-src 'self'; base-uri 'none'; \
         form-action 'none'; frame-ancestors 'none'"
    );
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    headers.insert(header::CONTENT_SECURITY_POLICY, policy.try_into().expect("hexadecimal digits are visible ASCII"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
