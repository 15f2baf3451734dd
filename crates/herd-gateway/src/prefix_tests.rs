use proptest::prelude::*;

use super::*;

fn prefix(text: &str) -> Prefix {
    Prefix::new(text).unwrap()
}

#[test]
fn a_prefix_fits_whole_segments_and_leaves_the_rest() {
    for (text, path, rest) in [
        ("/", "/", Some("/")),
        ("/", "/x", Some("/x")),
        ("/", "*", Some("*")),
        ("/api", "/api", Some("")),
        ("/api/", "/api", Some("")),
        ("/api", "/api/", Some("/")),
        ("/api", "/api/x//y", Some("/x//y")),
        ("/api", "/api//x", Some("//x")),
        ("/api", "/%61p%69/a%2fb;c", Some("/a%2fb;c")),
        ("/api", "/api/.well-known/x", Some("/.well-known/x")),
        ("/api/v1", "/api/v1/x", Some("/x")),
        ("/api", "/apis", None),
        ("/api", "/API", None),
        ("/api", "/x/api", None),
        ("/api", "/", None),
        ("/api", "*", None),
        ("/api", "/other/a%2fb;c\\d", None),
        ("/api/v1", "/api", None),
        ("/api/v1", "/api/v2/v1", None),
    ] {
        assert_eq!(prefix(text).fit(path).unwrap(), rest, "{text} {path}");
    }
}

#[test]
fn a_path_that_other_servers_would_read_otherwise_is_refused() {
    for path in [
        "//api/x",
        "/%zz",
        "/api%2f;%zz",
        "/api/%",
        "/%2fapi/x",
        "/\\api",
        "/api%2fx",
        "/api%5cx",
        "/api\\x",
        "/api;x/y",
        "/api%3bx",
        "/;/api",
        "/x;a%2fb",
        "/x/../api",
        "/api/../x",
        "/api/..",
        "/api/./x",
        "/api/%2e%2E/x",
        "/x/..;y/api",
        "/x%2f..%2fapi",
        "/x/..%5capi",
        "/x\\..\\api",
    ] {
        assert!(matches!(prefix("/api").fit(path), Err(Failure::Malformed(_))), "{path}");
    }
}

#[test]
fn prefixes_that_no_path_or_not_every_path_would_fit_are_refused() {
    for text in [
        "", "api", "//", "/a//b", "/a//", "/.", "/a/../b", "/a%2fb", "/%61", "/a;b", "/a\\b", "/a b", "/a?b", "/a#b",
        "/\u{e9}", "/a\n",
    ] {
        assert_eq!(Prefix::new(text), Err(InvalidRoutes::PathPrefix { prefix: text.into() }), "{text:?}");
    }
    assert!(Prefix::new("/-._~!$&'()*+,=:@/v1").is_ok());
}

#[test]
fn what_is_stripped_leaves_a_target() {
    let target = |text: &str| PathAndQuery::try_from(text).unwrap();
    for (path, left) in [
        ("/api", "/"),
        ("/api?", "/?"),
        ("/api?x=/api", "/?x=/api"),
        ("/api/", "/"),
        ("/api/x?y", "/x?y"),
        ("/api//x", "//x"),
        ("/a%70i/a%2fb", "/a%2fb"),
    ] {
        let path = target(path);
        let api = prefix("/api");
        let rest = api.fit(path.path()).unwrap().unwrap();
        assert_eq!(api.strip(&path, rest), target(left), "{path}");
    }
}

/// What servers do to a path before they compare it.
#[derive(Clone, Copy, Debug)]
enum Step {
    Decode,
    BackslashIsSlash,
    CutParameters,
    MergeSlashes,
    ResolveDots,
}

const STEPS: [Step; 5] =
    [Step::Decode, Step::BackslashIsSlash, Step::CutParameters, Step::MergeSlashes, Step::ResolveDots];

fn decode(text: &[u8]) -> Vec<u8> {
    let text = String::from_utf8_lossy(text).into_owned();
    // Several slashes in one piece are what decoding may leave, but a segment that cannot be decoded stays whole.
    text.split('/').map(|segment| decoded(segment).into_owned()).collect::<Vec<_>>().join(&b'/')
}

impl Step {
    fn apply(self, path: &[u8]) -> Vec<u8> {
        let segments = || path.split(|byte| *byte == b'/');
        match self {
            Self::Decode => decode(path),
            Self::BackslashIsSlash => path.iter().map(|byte| if *byte == b'\\' { b'/' } else { *byte }).collect(),
            Self::CutParameters => {
                let cut = segments().map(|segment| segment.split(|byte| *byte == b';').next().unwrap().to_vec());
                cut.collect::<Vec<_>>().join(&b'/')
            }
            Self::MergeSlashes => {
                let mut merged = path.to_vec();
                merged.dedup_by(|a, b| *a == b'/' && *b == b'/');
                merged
            }
            Self::ResolveDots => {
                let mut resolved: Vec<&[u8]> = Vec::new();
                for segment in segments().skip(1) {
                    match segment {
                        b"." => {}
                        b".." => {
                            resolved.pop();
                        }
                        other => resolved.push(other),
                    }
                }
                [b"/", &*resolved.join(&b'/')].concat()
            }
        }
    }
}

/// Whether the path begins with `/a/b` for a server that takes these steps.
fn begins(path: &str, steps: &[Step]) -> bool {
    let mut read = path.as_bytes().to_vec();
    for step in steps {
        read = step.apply(&read);
    }
    // Sooner or later every server decodes, once.
    if !steps.iter().any(|step| matches!(step, Step::Decode)) {
        let segments: Vec<_> = read.split(|byte| *byte == b'/').map(decode).collect();
        return segments.len() >= 3 && segments[..3] == [&b""[..], b"a", b"b"];
    }
    let segments: Vec<_> = read.split(|byte| *byte == b'/').collect();
    segments.len() >= 3 && segments[..3] == [&b""[..], b"a", b"b"]
}

/// Every order of every choice of steps.
fn readings() -> Vec<Vec<Step>> {
    let mut all = vec![Vec::new()];
    let mut begun: Vec<Vec<usize>> = vec![Vec::new()];
    while let Some(chosen) = begun.pop() {
        for next in (0..STEPS.len()).filter(|step| !chosen.contains(step)) {
            let longer = [&*chosen, &[next]].concat();
            all.push(longer.iter().map(|step| STEPS[*step]).collect());
            begun.push(longer);
        }
    }
    all
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn no_way_to_read_a_path_leads_elsewhere_than_the_gateways(
        pieces in prop::collection::vec(
            prop::sample::select(vec![
                "/", "/", "/a", "/b", "/a/b", "a", "b", "c", "%61", "%2f", "%2F", "\\", "%5c", ";", "%3b", ".", "..", "/..",
                "%2e", "%zz", "%", "%252f",
            ]),
            0..8,
        ),
    ) {
        let path = format!("/{}", pieces.concat());
        if let Ok(found) = prefix("/a/b").fit(&path) {
            for steps in readings() {
                prop_assert_eq!(begins(&path, &steps), found.is_some(), "{} {:?}", path, steps);
            }
        }
    }

    #[test]
    fn any_path_at_all_is_read_or_refused_and_can_be_stripped(path in "/[!-~]{0,40}") {
        let Ok(target) = PathAndQuery::try_from(path.as_str()) else { return Ok(()) };
        for text in ["/", "/a", "/a/b"] {
            if let Ok(Some(rest)) = prefix(text).fit(target.path()) {
                let stripped = prefix(text).strip(&target, rest);
                prop_assert!(target.as_str().ends_with(stripped.as_str()) || rest.is_empty());
            }
        }
    }
}
