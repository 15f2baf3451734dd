use proptest::prelude::*;

use super::*;

fn find(key: &str, request: &Request<()>) -> Result<Option<String>, KeyError> {
    let key: SessionKey = key.parse().unwrap();
    key.find(request, false).map(|found| match found {
        Found::Session(named) => Some(named.session.to_string()),
        Found::Cookieless(_) | Found::Nothing => None,
    })
}

fn request(target: &str) -> Request<()> {
    Request::get(target).body(()).unwrap()
}

#[test]
fn keys_are_shown_as_they_are_written() {
    for text in
        ["header:x-session-id", "cookie:sid", "query:s", "path:2", "host", "header:x-a,cookie:b,query:c,path:1,host"]
    {
        assert_eq!(text.parse::<SessionKey>().unwrap().to_string(), text);
    }
    assert_eq!("header:X-Session-ID".parse(), Ok(SessionKey::default()));
    assert_eq!(" query:a , host ".parse::<SessionKey>().unwrap().to_string(), "query:a,host");
}

#[test]
fn keys_that_could_never_work_are_refused_with_what_is_allowed() {
    for (text, message) in [
        ("", r#""" is no session key; allowed are header:NAME, cookie:NAME, query:NAME, path:N and host"#),
        (
            "session",
            r#""session" is no session key; allowed are header:NAME, cookie:NAME, query:NAME, path:N and host"#,
        ),
        ("host,", r#""" is no session key; allowed are header:NAME, cookie:NAME, query:NAME, path:N and host"#),
        ("header:", r#""" is no name of a header that could carry a session ID"#),
        ("header:a b", r#""a b" is no name of a header that could carry a session ID"#),
        ("header:Connection", r#""Connection" is no name of a header that could carry a session ID"#),
        ("header:Herd-Session", r#""Herd-Session" is no name of a header that could carry a session ID"#),
        ("cookie:a;b", r#""a;b" is no name of a cookie"#),
        ("query:", "query: needs the name of the parameter, for example query:session"),
        ("path:0", "path:0 names no segment; they are counted from 1"),
        ("path:x", "path:x names no segment; they are counted from 1"),
    ] {
        assert_eq!(text.parse::<SessionKey>().unwrap_err().to_string(), message, "{text}");
    }
}

#[test]
fn cookies_are_told_apart_by_their_whole_name() {
    let with = |cookie: &str| Request::get("/").header("cookie", cookie).body(()).unwrap();
    for (cookie, found) in [
        ("sid=a", Some("a")),
        ("xsid=b; sid=a; sidx=c", Some("a")),
        ("sid=\"a\"", Some("a")),
        ("sid=a; sid=a", Some("a")),
        ("sid = a", None),
        ("sidx=a", None),
        ("sid", None),
    ] {
        assert_eq!(find("cookie:sid", &with(cookie)).unwrap().as_deref(), found, "{cookie}");
    }
}

#[test]
fn query_parameters_are_decoded_and_a_plus_stays_a_plus() {
    for (query, found) in [
        ("s=a", Some("a")),
        ("x=1&s=a&y", Some("a")),
        ("s=a%2Bb+c", Some("a+b+c")),
        ("%73=a", Some("a")),
        ("S=a", None),
        ("xs=a", None),
        ("%zz=1", None),
    ] {
        assert_eq!(find("query:s", &request(&format!("/?{query}"))).unwrap().as_deref(), found, "{query}");
    }
    assert_eq!(find("query:s", &request("/?s=")), Err(KeyError::Invalid(InvalidSessionId::Empty)));
    assert_eq!(find("query:s", &request("/?s=%4")), Err(KeyError::Encoding));
}

#[test]
fn hosts_give_their_first_label() {
    for (host, found) in [
        ("alice.example.com", Some("alice")),
        ("ALICE.example.com.:80", Some("alice")),
        ("a.b", Some("a")),
        ("localhost:80", None),
        ("localhost.", None),
        ("127.0.0.1:80", None),
        ("[::1]:80", None),
        ("[::ffff:1.2.3.4]", None),
    ] {
        let request = Request::get("/").header("host", host).body(()).unwrap();
        assert_eq!(find("host", &request).unwrap().as_deref(), found, "{host}");
    }
    assert_eq!(find("host", &request("http://bob.example.com/")).unwrap().as_deref(), Some("bob"));
}

proptest! {
    #[test]
    fn taking_a_segment_out_leaves_the_others_as_they_were(
        segments in prop::collection::vec("[a-z%]{0,3}[a-z]", 1..6),
        number in 1_usize..6,
        query in prop::option::of("[a-z=&/]{0,8}"),
    ) {
        let text = |segments: &[String]| format!("/{}{}", segments.join("/"), query.as_ref().map(|query| format!("?{query}")).unwrap_or_default());
        let Ok(request) = Request::get(text(&segments)).body(()) else { return Ok(()) };
        let key: SessionKey = format!("path:{number}").parse().unwrap();
        match key.find(&request, false) {
            Ok(Found::Session(named)) => {
                let mut left = segments;
                let taken = left.remove(number - 1);
                prop_assert_eq!(named.session.as_str().as_bytes(), &*percent_decoded(&taken).unwrap());
                let path = named.path.unwrap();
                prop_assert_eq!(path.as_str(), text(&left));
            }
            Ok(_) => prop_assert!(number > segments.len()),
            Err(_) => prop_assert!(segments[number - 1].contains('%')),
        }
    }

    #[test]
    fn what_is_percent_encoded_is_decoded(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
        let encoded: String = bytes.iter().map(|byte| format!("%{byte:02x}")).collect();
        prop_assert_eq!(&*percent_decoded(&encoded).unwrap(), &bytes[..]);
    }

    #[test]
    fn no_request_whatever_makes_a_key_fail_or_yield_a_bad_id(
        target in "/[!-~]{0,60}", cookie in "[ -~]{0,60}", host in "[!-~]{0,40}", header in "[ -~]{0,40}",
    ) {
        let request = Request::get(target).header("cookie", cookie).header("host", host).header("x-session-id", header);
        let Ok(request) = request.body(()) else { return Ok(()) };
        for key in ["header:x-session-id", "cookie:a", "query:a", "path:1", "path:2", "host"] {
            if let Ok(Some(id)) = find(key, &request) {
                prop_assert!(SessionId::new(id).is_ok());
            }
        }
    }

    #[test]
    fn text_is_a_key_or_a_mistake_but_never_a_panic(text in ".{0,40}") {
        if let Ok(key) = text.parse::<SessionKey>() {
            prop_assert_eq!(key.to_string().parse(), Ok(key));
        }
    }
}
