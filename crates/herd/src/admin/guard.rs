//! Keeps web pages away from the admin API.
//!
//! A page in a browser on this host can send requests to loopback. Under a name that its owner points to 127.0.0.1 (DNS
//! rebinding) it could even read the answers. So the `host` field must name loopback itself, and where there is an
//! `origin`, it must be this very API: a page that a worker serves through the gateway's port is foreign as well.

use std::net::IpAddr;

use axum::{
    extract::Request,
    http::{HeaderMap, StatusCode, header, uri::Authority},
    middleware::Next,
    response::{IntoResponse as _, Response},
};

use super::problem::Problem;

pub(super) async fn refuse_foreign(request: Request, next: Next) -> Response {
    match check(request.headers(), request.uri().authority()) {
        Ok(()) => next.run(request).await,
        Err(title) => Problem::new(StatusCode::FORBIDDEN, title)
            .detail("reach the admin API by its loopback address, and not from another site's page")
            .into_response(),
    }
}

fn check(headers: &HeaderMap, target: Option<&Authority>) -> Result<(), &'static str> {
    let mut hosts = headers.get_all(header::HOST).iter();
    let host = hosts.next().and_then(|host| host.to_str().ok()).ok_or("The request names no host")?;
    if hosts.next().is_some() {
        return Err("The request names several hosts");
    }
    let host: Authority = host.parse().map_err(|_| "The request's host is no host")?;
    // An absolute request target counts before the field, RFC 9112 §3.2.2; so both must be fine.
    if !is_loopback(&host) || target.is_some_and(|target| !is_loopback(target)) {
        return Err("The request names a foreign host");
    }
    let mut origins = headers.get_all(header::ORIGIN).iter();
    let foreign = origins.any(|origin| origin.as_bytes() != format!("http://{host}").as_bytes());
    if foreign { Err("The request comes from a foreign origin") } else { Ok(()) }
}

fn is_loopback(authority: &Authority) -> bool {
    let host = authority.host().trim_start_matches('[').trim_end_matches(']');
    let plain = !authority.as_str().contains('@');
    plain && (host.eq_ignore_ascii_case("localhost") || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(fields: &[(&str, &str)]) -> Result<(), &'static str> {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(header::HeaderName::from_bytes(name.as_bytes()).unwrap(), value.parse().unwrap());
        }
        check(&headers, None)
    }

    #[test]
    fn loopback_by_any_name_is_let_in() {
        for host in ["127.0.0.1:8081", "127.0.0.1", "localhost:8081", "LOCALHOST", "[::1]:8081", "127.1.2.3:1"] {
            assert_eq!(request(&[("host", host)]), Ok(()), "{host}");
        }
    }

    #[test]
    fn foreign_hosts_are_refused() {
        for host in [
            "example.com",
            "example.com:8081",
            "127.0.0.1.example.com",
            "localhost.example.com",
            "10.0.0.1",
            "a@127.0.0.1",
            "",
        ] {
            assert!(request(&[("host", host)]).is_err(), "{host}");
        }
        assert!(request(&[]).is_err());
        assert!(request(&[("host", "localhost"), ("host", "example.com")]).is_err());
    }

    #[test]
    fn only_the_apis_own_origin_is_let_in() {
        let from = |origin| request(&[("host", "127.0.0.1:8081"), ("origin", origin)]);
        assert_eq!(from("http://127.0.0.1:8081"), Ok(()));
        for origin in
            ["http://127.0.0.1:8080", "https://127.0.0.1:8081", "http://localhost:8081", "null", "http://evil.test"]
        {
            assert!(from(origin).is_err(), "{origin}");
        }
    }

    #[test]
    fn an_absolute_target_must_be_loopback_too() {
        let headers = HeaderMap::from_iter([(header::HOST, "localhost".parse().unwrap())]);
        assert!(check(&headers, Some(&"example.com".parse().unwrap())).is_err());
        assert!(check(&headers, Some(&"127.0.0.1:8081".parse().unwrap())).is_ok());
    }
}
