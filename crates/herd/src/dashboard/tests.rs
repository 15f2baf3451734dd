use axum::{body::Body, http::Request};
use http_body_util::BodyExt as _;
use tower_service::Service as _;

use super::*;

/// What the page and its files may weigh, in bytes, as they are sent.
const MOST_BYTES: usize = 150_000;

fn everything() -> impl Iterator<Item = (&'static str, &'static str)> {
    ASSETS.iter().map(|asset| (asset.name, asset.content)).chain([("index.html", PAGE)])
}

async fn ask(path: &str, known: Option<&str>) -> (StatusCode, HeaderMap, String) {
    let mut routes: Router = routes(|| StatusCode::NOT_FOUND);
    let mut request = Request::builder().uri(path);
    if let Some(known) = known {
        request = request.header(header::IF_NONE_MATCH, known);
    }
    let response = routes.call(request.body(Body::empty()).unwrap()).await.unwrap();
    let (parts, body) = response.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    (parts.status, parts.headers, String::from_utf8(body.to_vec()).unwrap())
}

/// What the page names in `src` and `href`, but for links to parts of itself.
fn named_files(page: &str) -> Vec<&str> {
    let values = |name| page.split(name).skip(1).filter_map(|rest| rest.split('"').next());
    values(" src=\"").chain(values(" href=\"")).filter(|value| !value.starts_with('#')).collect()
}

#[test]
fn all_together_is_small() {
    let sum: usize = everything().map(|(_, content)| content.len()).sum();
    assert!(sum < MOST_BYTES, "{sum}");
}

#[test]
fn nothing_turns_text_into_html_or_into_a_script() {
    for (name, content) in everything() {
        for word in [
            "innerHTML",
            "outerHTML",
            "insertAdjacentHTML",
            "setHTMLUnsafe",
            "parseHTMLUnsafe",
            "document.write",
            "DOMParser",
            "createContextualFragment",
            "srcdoc",
            "eval(",
            "new Function",
            "javascript:",
            "createPolicy",
            // It would be a way out, and of no use offline.
            "//fonts.",
            "https://cdn",
        ] {
            assert!(!content.contains(word), "{name} has {word}");
        }
        let asks_strings_to_run = content.contains("setTimeout('") || content.contains("setTimeout(`");
        assert!(!asks_strings_to_run, "{name}");
    }
}

#[test]
fn the_page_has_no_script_no_style_and_no_handler_in_it() {
    assert!(!PAGE.contains("<style") && !PAGE.contains(" style=") && !PAGE.contains(" on"), "{PAGE}");
    for script in PAGE.split("<script").skip(1) {
        assert!(script.split("</script>").next().unwrap().ends_with("\">"), "{script}");
    }
    let icon = ASSETS.iter().find(|asset| asset.name == "icon.svg").unwrap().content;
    assert!(!icon.contains("<script") && !icon.contains("<style") && !icon.contains(" style="));
}

#[test]
fn the_page_and_its_files_ask_nobody_else() {
    for (name, content) in everything() {
        let foreign: Vec<_> = content
            .match_indices("http")
            .map(|(at, _)| content[at..].split(['\'', '"', '>', ' ', '\n']).next().unwrap())
            .filter(|url| url.starts_with("http://") || url.starts_with("https://"))
            // A namespace's name, and where a comment says that something is defined.
            .filter(|url| !url.starts_with("http://www.w3.org/2000/svg") && !url.starts_with("https://html.spec."))
            .collect();
        assert!(foreign.is_empty(), "{name}: {foreign:?}");
    }
}

#[tokio::test]
async fn all_that_the_page_names_is_served_as_what_it_is() {
    let (status, headers, page) = ask("/", None).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(headers[header::CONTENT_TYPE], "text/html; charset=utf-8");
    let mut named = named_files(&page);
    named.retain(|name| *name != "openapi.json");
    assert!(named.len() > ASSETS.len(), "all of them, and one twice: {named:?}");
    for path in &named {
        let (status, headers, content) = ask(&format!("/{path}"), None).await;
        assert_eq!(status, StatusCode::OK, "{path}");
        let expected = match path.rsplit_once('.').unwrap().1 {
            "js" => "text/javascript; charset=utf-8",
            "css" => "text/css; charset=utf-8",
            _ => "image/svg+xml",
        };
        assert_eq!(headers[header::CONTENT_TYPE], expected, "{path}");
        assert_eq!(headers[header::CACHE_CONTROL], "public, max-age=31536000, immutable", "{path}");
        assert_eq!(headers[header::CONTENT_SECURITY_POLICY], POLICY, "{path}");
        // What it imports lies beside it, and is loaded with the page and not one after the other.
        for import in content.split("from './").skip(1).filter_map(|rest| rest.split('\'').next()) {
            assert!(named.iter().any(|name| name.ends_with(&format!("/{import}"))), "{path} imports {import}");
        }
    }
    for asset in ASSETS {
        assert!(named.iter().any(|path| path.ends_with(asset.name)), "the page has no use for {}", asset.name);
    }
}

#[tokio::test]
async fn the_policy_lets_the_page_do_nothing_but_its_own_work() {
    let (_, headers, _) = ask("/", None).await;
    let policy = headers[header::CONTENT_SECURITY_POLICY].to_str().unwrap();
    for part in [
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    ] {
        assert!(policy.split("; ").any(|own| own == part), "{part} in {policy}");
    }
    assert!(!policy.contains("unsafe") && !policy.contains('*') && !policy.contains("data:"), "{policy}");
}

#[tokio::test]
async fn a_browser_that_has_the_page_is_not_sent_it_again() {
    let (_, headers, _) = ask("/", None).await;
    let tag = headers[header::ETAG].to_str().unwrap();
    for known in [tag.to_owned(), format!("W/{tag}"), format!("\"other\", {tag}"), "*".to_owned()] {
        let (status, again, body) = ask("/", Some(&known)).await;
        assert_eq!((status, body.len()), (StatusCode::NOT_MODIFIED, 0), "{known}");
        assert_eq!(again[header::ETAG], headers[header::ETAG]);
        assert_eq!(again[header::CACHE_CONTROL], "no-cache");
    }
    assert_eq!(ask("/", Some("\"other\"")).await.0, StatusCode::OK);
}

#[tokio::test]
async fn files_of_another_version_are_not_there() {
    for path in ["/assets/0123456789abcdef/main.js", &format!("/assets/{}/other.js", *DIGEST)] {
        assert_eq!(ask(path, None).await.0, StatusCode::NOT_FOUND, "{path}");
    }
}
