use proptest::prelude::*;

use super::*;

fn table(rules: Vec<Rule>, default: Option<&str>) -> Table {
    Table::new(&["a".into(), "b".into()], rules, default).unwrap()
}

fn rule(pool: &str) -> Rule {
    Rule { pool: pool.into(), ..Rule::default() }
}

fn for_host(host: &str) -> Request<()> {
    Request::get("/").header("host", host).body(()).unwrap()
}

fn pool_of(table: &Table, request: &Request<()>) -> Option<usize> {
    table.find(request).ok().map(|way| way.pool)
}

#[test]
fn hosts_are_compared_in_any_case_and_without_port_and_last_dot() {
    for (host, found, fits) in [
        ("a.example.com", "a.example.com", true),
        ("A.Example.com", "a.eXample.com:8080", true),
        ("a.example.com", "a.example.com.", true),
        ("a.example.com", "a.example.com.:80", true),
        ("a.example.com", "b.a.example.com", false),
        ("a.example.com", "a.example.com.evil", false),
        ("a.example.com", "a.example.com..", false),
        ("a.example.com", "", false),
        ("*.example.com", "a.example.com", true),
        ("*.example.com", "A.B.EXAMPLE.com:1", true),
        ("*.example.com", "example.com", false),
        ("*.example.com", ".example.com", false),
        ("*.example.com", "aexample.com", false),
        ("*.example.com", "a.example.com.evil", false),
        ("*.example.com", "%61.example.com", true),
        ("a.example.com", "%61.example.com", false),
        ("localhost", "localhost:80", true),
        ("127.0.0.1", "127.0.0.1:80", true),
        ("[::1]", "[::1]:80", true),
        ("[::1]", "[::1]", true),
        ("[::1]", "[::11]", false),
        ("[::1]", "[::1", false),
    ] {
        let table = table(vec![Rule { host: Some(host.into()), ..rule("b") }], None);
        assert_eq!(pool_of(&table, &for_host(found)), fits.then_some(1), "{host} {found}");
    }
}

#[test]
fn the_authority_of_the_target_counts_before_the_host_field() {
    let table = table(vec![Rule { host: Some("real".into()), ..rule("b") }], Some("a"));
    let request = |target: &str, host: &str| Request::get(target).header("host", host).body(()).unwrap();
    assert_eq!(pool_of(&table, &request("http://real/", "fake")), Some(1));
    assert_eq!(pool_of(&table, &request("http://fake/", "real")), Some(0));
}

#[test]
fn all_of_a_rule_has_to_fit_and_the_first_rule_that_fits_counts() {
    let table = table(
        vec![
            Rule {
                host: Some("h".into()),
                path_prefix: Some("/x".into()),
                header: Some(("X-Kind".into(), Some("big".into()))),
                ..rule("b")
            },
            Rule { path_prefix: Some("/x".into()), strip_prefix: true, ..rule("a") },
            Rule { header: Some(("x-kind".into(), None)), ..rule("b") },
        ],
        None,
    );
    let find = |host: &str, target: &str, kinds: &[&str]| {
        let mut request = Request::get(target).header("host", host).body(()).unwrap();
        for kind in kinds {
            request.headers_mut().append("x-kind", HeaderValue::from_bytes(kind.as_bytes()).unwrap());
        }
        table.find(&request).map(|way| (way.pool, way.target.map(|target| target.to_string())))
    };
    assert_eq!(find("h", "/x/y", &["big"]).unwrap(), (1, None));
    assert_eq!(find("h", "/x/y", &["small", "big"]).unwrap(), (1, None));
    for other in [&["BIG"][..], &["big "], &["big, small"], &[]] {
        assert_eq!(find("h", "/x/y", other).unwrap(), (0, Some("/y".into())), "{other:?}");
    }
    assert_eq!(find("g", "/x/y", &["big"]).unwrap(), (0, Some("/y".into())));
    assert_eq!(find("g", "/y", &["\u{e9}"]).unwrap(), (1, None));
    assert!(matches!(find("g", "/y", &[]), Err(Failure::NoRoute)));
}

#[test]
fn a_path_is_only_judged_by_rules_that_look_at_it() {
    let table = table(
        vec![
            Rule { host: Some("h".into()), ..rule("a") },
            Rule { host: Some("g".into()), path_prefix: Some("/x".into()), ..rule("b") },
        ],
        Some("a"),
    );
    let request = |host: &str| Request::get("/x/../y").header("host", host).body(()).unwrap();
    assert_eq!(pool_of(&table, &request("h")), Some(0));
    assert_eq!(pool_of(&table, &request("i")), Some(0));
    assert!(matches!(table.find(&request("g")), Err(Failure::Malformed(_))));
}

#[test]
fn routes_that_could_not_work_are_refused_with_the_reason() {
    let names = |names: &[&str]| names.iter().map(|name| Arc::from(*name)).collect::<Vec<_>>();
    let refused = |pools: &[&str], rule: Rule, default: Option<&str>| {
        Table::new(&names(pools), vec![rule], default).unwrap_err().to_string()
    };
    for (message, expected) in [
        (refused(&["a", "a"], rule("a"), None), r#"two pools are named "a"; each needs a name of its own"#),
        (
            refused(&["a b"], rule("a b"), None),
            r#""a b" is no name for a pool: it needs visible ASCII characters without spaces"#,
        ),
        (refused(&["a"], rule("c"), None), r#"no pool is named "c""#),
        (refused(&["a"], rule("a"), Some("d")), r#"no pool is named "d""#),
    ] {
        assert_eq!(message, expected);
    }
    for host in ["", "*", "*.", "a:80", "a..b", "*.a.*", "b.*.a", "a/b", "\u{e9}", "[::1", "a b", "."] {
        let rule = Rule { host: Some(host.into()), ..rule("a") };
        assert_eq!(
            Table::new(&names(&["a"]), vec![rule], None).unwrap_err(),
            InvalidRoutes::Host { host: host.into() }
        );
    }
    for (name, value) in [("", None), ("a b", None), ("a", Some("b\n"))] {
        let rule = Rule { header: Some((name.into(), value.map(str::to_owned))), ..rule("a") };
        let refused = Table::new(&names(&["a"]), vec![rule], None).unwrap_err();
        assert_eq!(refused, InvalidRoutes::Header { name: name.into() });
    }
}

proptest! {
    #[test]
    fn a_wildcard_fits_exactly_the_names_below(host in "[a-cA-C.:]{0,12}") {
        let table = table(vec![Rule { host: Some("*.a.b".into()), ..rule("b") }], None);
        let name = host.split(':').next().unwrap().to_ascii_lowercase();
        let name = name.strip_suffix('.').unwrap_or(&name);
        let fits = name.len() > ".a.b".len() && name.ends_with(".a.b");
        prop_assert_eq!(pool_of(&table, &for_host(&host)).is_some(), fits);
    }

    #[test]
    fn the_first_rule_that_fits_alone_is_the_one_that_counts(
        rules in prop::collection::vec((
            prop::option::of(prop::sample::select(vec!["h.x", "*.x", "g.x"])),
            prop::option::of(prop::sample::select(vec!["/", "/a", "/a/b"])),
            any::<bool>(),
            prop::option::of(prop::sample::select(vec![None, Some("1"), Some("2")])),
        ), 0..5),
        host in prop::sample::select(vec!["h.x", "g.x:1", "y"]),
        path in prop::sample::select(vec!["/", "/a", "/a/b/c?q", "/b", "//a", "/a%2fb", "/a/../b"]),
        field in prop::option::of(prop::sample::select(vec!["1", "2"])),
    ) {
        let rules: Vec<_> = rules.into_iter().map(|(host, prefix, strip_prefix, header)| Rule {
            pool: "b".into(),
            host: host.map(Into::into),
            path_prefix: prefix.map(Into::into),
            strip_prefix,
            header: header.map(|value| ("x".into(), value.map(str::to_owned))),
        }).collect();
        let mut request = Request::get(path).header("host", host).body(()).unwrap();
        if let Some(field) = field {
            request.headers_mut().insert("x", field.parse().unwrap());
        }
        let alone = rules.iter().map(|rule| table(vec![rule.clone()], None).find(&request));
        let first = alone.into_iter().find(|found| !matches!(found, Err(Failure::NoRoute)));
        match (table(rules, Some("a")).find(&request), first) {
            (Ok(found), Some(Ok(first))) => prop_assert_eq!(found, first),
            (Ok(found), None) => prop_assert_eq!(found, Way { pool: 0, target: None }),
            (Err(Failure::Malformed(_)), Some(Err(Failure::Malformed(_)))) => {}
            (found, first) => prop_assert!(false, "{:?} {:?}", found, first),
        }
    }
}
