use http_body_util::Empty;
use hyper::body::Bytes;

use super::*;

fn named(session: &str) -> Named {
    Named { session: session.parse().unwrap(), path: None, in_worker_header: true, new_cookie: None }
}

fn rewritten(protocol: Protocol, fields: &[(&'static str, &'static str)], target: &str) -> Request<Empty<Bytes>> {
    let mut request = Request::get(target).body(Empty::new()).unwrap();
    for (name, value) in fields {
        request.headers_mut().append(*name, HeaderValue::from_static(value));
    }
    let client = HeaderValue::from_static("192.0.2.1");
    let mut to = Rewrite {
        protocol,
        named: &mut named("s"),
        client: Some(&client),
        forwarded: Forwarded::Replace,
        scheme: "http",
        upgrade: None,
    };
    let survey = Survey::of(request.headers());
    super::request(&mut request, &survey, &mut to);
    request
}

#[test]
fn every_field_that_connection_lists_goes_but_not_those_that_make_the_message() {
    let request = rewritten(
        Protocol::Http1,
        &[
            ("host", "h"),
            ("connection", "a, ,B,content-length"),
            ("connection", "x-forwarded-for, x-session-id, not a name"),
            ("a", "1"),
            ("b", "2"),
            ("b", "3"),
            ("c", "4"),
            ("content-length", "0"),
        ],
        "/",
    );
    let mut names: Vec<_> = request.headers().keys().map(HeaderName::as_str).collect();
    names.sort_unstable();
    assert_eq!(
        names,
        ["c", "content-length", "host", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-session-id"]
    );
    assert_eq!(request.headers()["x-session-id"], "s");
    assert_eq!(request.headers()["x-forwarded-for"], "192.0.2.1");
}

#[test]
fn a_request_for_an_http2_worker_has_its_host_in_the_target() {
    let request = rewritten(Protocol::Http2, &[("host", "h:81"), ("te", "gzip, trailers")], "/p?q");
    assert_eq!(request.uri(), "http://h:81/p?q");
    assert_eq!(request.headers().get("host"), None);
    assert_eq!(request.headers()["te"], "trailers");
    assert_eq!(request.headers().get("connection"), None);
}

#[test]
fn a_keep_alive_announcement_is_read_whatever_else_it_says() {
    for (text, seconds) in
        [("timeout=5", Some(5)), ("max=3, timeout=60", Some(60)), ("max=3", None), ("timeout=x", None)]
    {
        let found = keep_alive_timeout(&HeaderValue::from_static(text));
        assert_eq!(found, seconds.map(Duration::from_secs), "{text}");
    }
}
