use axum::body::Body;

use super::*;

const TOKEN: &str = "a token of more than enough bytes";

fn rules() -> Rules {
    Rules { token: None, hosts: Vec::new(), own: None, tls: false }
}

fn request(path: &str, fields: &[(&str, &str)]) -> Request {
    let mut request = Request::builder().uri(path);
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    request.body(Body::empty()).unwrap()
}

fn refusal(rules: &Rules, fields: &[(&str, &str)]) -> Option<String> {
    let problem = rules.refuse_foreign(&request("/v1/sessions", fields)).err()?;
    Some(problem.to_json()["type"].as_str().unwrap().replace("urn:herd:problem:", ""))
}

#[test]
fn loopback_by_any_name_is_let_in() {
    for host in ["127.0.0.1:8081", "127.0.0.1", "localhost:8081", "LOCALHOST", "[::1]:8081", "127.1.2.3:1"] {
        assert_eq!(refusal(&rules(), &[("host", host)]), None, "{host}");
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
        assert_eq!(refusal(&rules(), &[("host", host)]).as_deref(), Some("foreign-host"), "{host}");
    }
    assert!(refusal(&rules(), &[]).is_some());
    assert!(refusal(&rules(), &[("host", "localhost"), ("host", "example.com")]).is_some());
}

#[test]
fn hosts_that_the_operator_names_are_let_in() {
    let named = Rules { hosts: vec!["herd.example.com".to_owned()], own: "10.0.0.7".parse().ok(), ..rules() };
    for host in ["herd.example.com", "HERD.example.com:8081", "10.0.0.7:8081", "localhost"] {
        assert_eq!(refusal(&named, &[("host", host)]), None, "{host}");
    }
    for host in ["example.com", "x.herd.example.com", "10.0.0.8"] {
        assert!(refusal(&named, &[("host", host)]).is_some(), "{host}");
    }
    let from = |origin| refusal(&named, &[("host", "herd.example.com"), ("origin", origin)]);
    assert_eq!((from("https://herd.example.com"), from("http://herd.example.com")), (None, None));
    assert!(from("https://evil.test").is_some());
}

#[test]
fn behind_a_token_any_address_will_do_and_names_will_not() {
    let open = Rules { token: Some(TokenHash::of(TOKEN.as_bytes())), ..rules() };
    assert_eq!(refusal(&open, &[("host", "10.0.0.8:8081")]), None);
    assert!(refusal(&open, &[("host", "evil.test")]).is_some());
}

#[test]
fn only_the_apis_own_origin_is_let_in() {
    let from = |origin| refusal(&rules(), &[("host", "127.0.0.1:8081"), ("origin", origin)]);
    assert_eq!(from("http://127.0.0.1:8081"), None);
    for origin in
        ["http://127.0.0.1:8080", "https://127.0.0.1:8081", "http://localhost:8081", "null", "http://evil.test"]
    {
        assert_eq!(from(origin).as_deref(), Some("foreign-origin"), "{origin}");
    }
    let tls = Rules { tls: true, ..rules() };
    let from = |origin| refusal(&tls, &[("host", "127.0.0.1:8081"), ("origin", origin)]);
    assert_eq!(from("https://127.0.0.1:8081"), None);
    assert!(from("http://127.0.0.1:8081").is_some());
}

#[test]
fn what_a_foreign_page_makes_a_browser_ask_for_is_refused() {
    let from = |site, mode, path| {
        let fields = [("host", "127.0.0.1:8081"), ("sec-fetch-site", site), ("sec-fetch-mode", mode)];
        rules().refuse_foreign(&request(path, &fields)).is_ok()
    };
    assert!(from("same-origin", "cors", "/v1/sessions") && from("none", "navigate", "/v1/sessions"));
    // A page of another port on this host is of the same site.
    for site in ["cross-site", "same-site"] {
        assert!(!from(site, "no-cors", "/v1/events") && !from(site, "navigate", "/v1/sessions"), "{site}");
        assert!(from(site, "navigate", "/"), "a link to the API's page");
    }
}

#[test]
fn an_absolute_target_must_be_loopback_too() {
    let check = |target| rules().refuse_foreign(&request(target, &[("host", "localhost")])).is_ok();
    assert!(!check("http://example.com/") && check("http://127.0.0.1:8081/"));
    assert!(rules().refuse_foreign(&request("http://127.0.0.1:8081/", &[])).is_ok(), "HTTP/2 has nothing else");
}

fn guard() -> Guard {
    Guard::new(Rules { token: Some(TokenHash::of(TOKEN.as_bytes())), ..rules() })
}

fn answer(guard: &Guard, path: &str, authorization: &[&str]) -> u16 {
    let fields: Vec<_> = authorization.iter().map(|value| ("authorization", *value)).collect();
    let request = request(path, &[&[("host", "localhost")], &fields[..]].concat());
    guard.check(&request).map_or_else(|problem| problem.into_response().status().as_u16(), |()| 200)
}

#[test]
fn a_token_is_asked_for_on_every_page_that_tells_something() {
    let right = format!("Bearer {TOKEN}");
    for path in ["/v1/sessions", "/v1/live", "/metrics", "/openapi.json", "/nothing"] {
        assert_eq!((answer(&guard(), path, &[]), answer(&guard(), path, &[&right])), (401, 200), "{path}");
    }
    for path in OPEN_PAGES.into_iter().chain(["/", "/assets/0/main.js"]) {
        assert_eq!(answer(&guard(), path, &[]), 200, "{path}");
    }
}

#[test]
fn only_one_right_token_counts() {
    let right = format!("bearer {TOKEN}");
    assert_eq!(answer(&guard(), "/v1/stats", &[&right]), 200, "the scheme has no case");
    let wrong = [
        vec!["Bearer something else"],
        vec!["Bearer"],
        vec!["Bearer "],
        vec![TOKEN],
        vec!["Basic Zm9vOmJhcg=="],
        vec![&right, &right],
        vec!["Bearer wrong", &right],
    ];
    for fields in wrong {
        assert_eq!(answer(&guard(), "/v1/stats", &fields), 401, "{fields:?}");
    }
}

#[test]
fn who_guesses_has_to_wait() {
    let guard = guard();
    let statuses: Vec<_> = (0..12).map(|_| answer(&guard, "/v1/stats", &["Bearer wrong"])).collect();
    assert_eq!((statuses[..10].to_vec(), statuses[11]), (vec![401; 10], 429));
    assert_eq!(answer(&guard, "/healthz", &[]), 200);
    assert_eq!(answer(&guard, "/v1/stats", &[&format!("Bearer {TOKEN}")]), 200, "others cannot lock the operator out");
}

#[test]
fn new_rules_count_at_once() {
    let guard = guard();
    let other = "quite another token of enough bytes";
    guard.configure(Rules { token: Some(TokenHash::of(other.as_bytes())), ..rules() });
    assert_eq!(answer(&guard, "/v1/stats", &[&format!("Bearer {TOKEN}")]), 401);
    assert_eq!(answer(&guard, "/v1/stats", &[&format!("Bearer {other}")]), 200);
}

#[test]
fn an_address_beyond_loopback_without_a_token_is_refused() {
    let mut settings = crate::config::settle(Default::default(), Default::default()).unwrap();
    settings.network.admin_bind = Some("0.0.0.0:8081".parse().unwrap());
    let error = Rules::read(&settings.network).unwrap_err().to_string();
    assert!(error.contains("set network.admin_token_file"), "{error}");
    settings.network.admin_token_file = Some("/nowhere/token".into());
    let error = format!("{:#}", Rules::read(&settings.network).unwrap_err());
    assert!(error.contains("network.admin_token_file") && error.contains("/nowhere/token"), "{error}");
}
