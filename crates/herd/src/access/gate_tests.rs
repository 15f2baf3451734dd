use std::{
    fs,
    hint::black_box,
    thread,
    time::{Duration, Instant},
};

use aws_lc_rs::hmac;
use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use herd_gateway::{Access as _, Admission, Credential, Refusal};
use hyper::{HeaderMap, Uri, header::AUTHORIZATION};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{Access, Tenants, TokenHash, gate::Now};
use crate::config::settings::{self, Jwt, JwtAlgorithm, TenantLimits, Token, TokenSecret};

const ALICE: &str = "herd_alice-0123456789";
const BOB: &str = "herd_bob-0123456789abcd";
const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef";

/// A moment in 2023.
const NOW: Now = Now { unix_ms: 1_700_000_000_000, rate: 1_000_000_000 };

fn known(name: &str, tenant: Option<&str>, token: &str) -> Token {
    let hash = TokenHash::of(token.as_bytes()).to_string();
    let bytes: Vec<_> = (0..32).map(|at| u8::from_str_radix(&hash[2 * at..2 * at + 2], 16).unwrap()).collect();
    let secret = TokenSecret::Sha256(bytes.try_into().unwrap());
    Token { name: name.to_owned(), tenant: tenant.map(str::to_owned), secret }
}

fn tokens(tokens: Vec<Token>) -> settings::Access {
    settings::Access { tokens, jwt: None, query_parameter: None }
}

/// Settings that believe tokens which are signed with the secret.
fn jwt(directory: &TempDir) -> settings::Access {
    let key_file = directory.path().join("secret");
    fs::write(&key_file, SECRET).unwrap();
    let jwt = Jwt {
        algorithm: JwtAlgorithm::Hs256,
        key_file,
        audience: vec!["herd".to_owned()],
        issuer: None,
        tenant_claim: Some("org".to_owned()),
        session_claim: Some("sid".to_owned()),
        leeway: Duration::ZERO,
    };
    settings::Access { jwt: Some(jwt), ..tokens(vec![known("alice", Some("acme"), ALICE)]) }
}

fn signed(claims: &Value) -> String {
    let part = |json: &Value| BASE64_URL_SAFE_NO_PAD.encode(json.to_string());
    let message = format!("{}.{}", part(&json!({ "alg": "HS256", "typ": "JWT" })), part(claims));
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, SECRET), message.as_bytes());
    format!("{message}.{}", BASE64_URL_SAFE_NO_PAD.encode(tag))
}

fn claims(org: &str, sid: &str, exp: u64) -> Value {
    json!({ "aud": "herd", "org": org, "sid": sid, "exp": exp })
}

fn open(settings: &settings::Access) -> Access {
    Access::open(settings, &Tenants::new(&settings::Tenants::default())).unwrap()
}

fn bearer(token: &str) -> HeaderMap {
    [(AUTHORIZATION, format!("Bearer {token}").parse().unwrap())].into_iter().collect()
}

fn show(access: &Access, token: &str, now: Now) -> Result<Admission, Refusal> {
    access.admit_at(&bearer(token), &Uri::from_static("/"), now)
}

fn tenant(admission: &Admission) -> Option<&str> {
    admission.tenant.as_ref().map(herd_pool::Tenant::name)
}

#[test]
fn a_known_token_is_its_tenants_and_any_other_is_refused() {
    let access = open(&tokens(vec![known("alice", Some("acme"), ALICE), known("bob", None, BOB)]));
    let admission = show(&access, ALICE, NOW).unwrap();
    assert_eq!((tenant(&admission), &admission.credential), (Some("acme"), &Credential::Authorization));
    assert!(admission.session.is_none());
    assert_eq!(tenant(&show(&access, BOB, NOW).unwrap()), None);
    let unknown = Refusal::Invalid("the token is not known");
    for token in [
        &ALICE[..ALICE.len() - 1],
        "herd_alice-0123456780",
        "aaaaaa.bbbbbb.cccccc",
        &TokenHash::of(ALICE.as_bytes()).to_string(),
    ] {
        assert_eq!(show(&access, token, NOW).unwrap_err(), unknown, "{token}");
    }
    let nothing = access.admit(&HeaderMap::new(), &Uri::from_static("/"));
    assert_eq!(nothing.unwrap_err(), Refusal::NoCredentials);
}

#[test]
fn a_token_that_could_be_guessed_is_refused_even_if_its_hash_is_configured() {
    let access = open(&tokens(vec![known("alice", None, "test"), known("bob", None, "test-test-test-t")]));
    assert_eq!(show(&access, "test", NOW).unwrap_err(), Refusal::Invalid("a token has 16 to 8192 bytes"));
    assert!(show(&access, "test-test-test-t", NOW).is_ok());
}

#[test]
fn a_mistyped_token_beside_json_web_tokens_is_said_to_be_neither() {
    let directory = TempDir::new().unwrap();
    let neither = Refusal::Invalid("the token is neither a known one nor a JSON Web Token that was signed");
    assert_eq!(show(&open(&jwt(&directory)), "herd_alice-0123456780", NOW).unwrap_err(), neither);
    let no_jwt = Refusal::Invalid("the token is no JSON Web Token that was signed");
    let alone = settings::Access { tokens: Vec::new(), ..jwt(&directory) };
    assert_eq!(show(&open(&alone), "herd_alice-0123456780", NOW).unwrap_err(), no_jwt);
}

#[test]
fn a_tenant_that_is_no_text_is_said_to_be_none() {
    let directory = TempDir::new().unwrap();
    let access = open(&jwt(&directory));
    let refused = |claims: Value| show(&access, &signed(&claims), NOW).unwrap_err();
    let exp = NOW.unix_ms / 1000 + 60;
    let tenant = refused(json!({ "aud": "herd", "org": 7, "sid": "main", "exp": exp }));
    assert_eq!(tenant, Refusal::Invalid("what the token calls a tenant is no text"));
    let session = refused(json!({ "aud": "herd", "org": "acme", "sid": ["main"], "exp": exp }));
    assert_eq!(session, Refusal::Invalid("what the token calls a session is no text"));
}

#[test]
fn a_token_in_the_query_is_told_to_the_gateway() {
    let settings = settings::Access {
        query_parameter: Some("token".to_owned()),
        ..tokens(vec![known("alice", Some("acme"), ALICE)])
    };
    let uri: Uri = format!("/?token={ALICE}").parse().unwrap();
    let admission = open(&settings).admit_at(&HeaderMap::new(), &uri, NOW).unwrap();
    assert_eq!((tenant(&admission), &admission.credential), (Some("acme"), &Credential::Query("token".into())));
}

#[test]
fn a_signed_token_names_tenant_and_session() {
    let directory = TempDir::new().unwrap();
    let access = open(&jwt(&directory));
    let token = signed(&claims("acme", "alice", 1_800_000_000));
    for _ in 0..2 {
        let admission = show(&access, &token, NOW).unwrap();
        assert_eq!(tenant(&admission), Some("acme"));
        assert_eq!(admission.session.unwrap().as_str(), "alice");
    }
    // Both kinds of token may be configured at once.
    assert_eq!(tenant(&show(&access, ALICE, NOW).unwrap()), Some("acme"));
}

#[test]
fn tokens_that_are_good_are_remembered_and_no_others() {
    let directory = TempDir::new().unwrap();
    let access = open(&jwt(&directory));
    let good = signed(&claims("acme", "alice", 1_700_000_060));
    let expired = signed(&claims("acme", "alice", 1_699_999_999));
    let elsewhere = signed(&json!({ "aud": "other", "org": "acme", "sid": "alice", "exp": 1_800_000_000 }));
    let forged = format!("{}A", &good[..good.len() - 1]);
    for token in [&expired, &elsewhere, &forged, ALICE] {
        assert_eq!(show(&access, token, NOW).is_ok(), token == ALICE, "{token}");
        assert!(!access.remembers(token), "{token}");
    }
    assert!(!access.remembers(&good));
    assert!(show(&access, &good, NOW).is_ok());
    assert!(access.remembers(&good), "its signature is checked once");
}

#[test]
fn a_token_that_was_verified_before_expires_at_its_very_second() {
    let directory = TempDir::new().unwrap();
    let access = open(&jwt(&directory));
    let token = signed(&claims("acme", "alice", 1_700_000_060));
    let at = |unix_ms| Now { unix_ms, ..NOW };
    assert!(show(&access, &token, NOW).is_ok());
    assert!(show(&access, &token, at(1_700_000_059_999)).is_ok());
    assert_eq!(show(&access, &token, at(1_700_000_060_000)).unwrap_err(), Refusal::Expired);
    assert_eq!(show(&access, &token, at(u64::MAX)).unwrap_err(), Refusal::Expired);
}

#[test]
fn nothing_that_was_verified_outlives_a_change_of_the_key() {
    let directory = TempDir::new().unwrap();
    let settings = jwt(&directory);
    let tenants = Tenants::new(&settings::Tenants::default());
    let before = Access::open(&settings, &tenants).unwrap();
    let token = signed(&claims("acme", "alice", 1_800_000_000));
    assert!(show(&before, &token, NOW).is_ok());
    fs::write(directory.path().join("secret"), "another secret that is long enough to be one").unwrap();
    let after = Access::open(&settings, &tenants).unwrap();
    assert_eq!(show(&after, &token, NOW).unwrap_err(), Refusal::Invalid("the token's signature is not right"));
    // Until the new one takes its place, the former does its work as it did.
    assert!(show(&before, &token, NOW).is_ok());
}

#[test]
fn each_tenant_has_its_own_rate_over_all_of_its_tokens() {
    let directory = TempDir::new().unwrap();
    let slow = TenantLimits { requests_per_second: Some(4), ..TenantLimits::default() };
    let tenants = Tenants::new(&settings::Tenants { default: slow, named: [].into() });
    let settings = settings::Access {
        tokens: vec![known("alice", Some("acme"), ALICE), known("bob", None, BOB)],
        ..jwt(&directory)
    };
    let access = Access::open(&settings, &tenants).unwrap();
    let same = signed(&claims("acme", "alice", 1_800_000_000));
    let other = signed(&claims("other", "alice", 1_800_000_000));
    let mut let_in = [ALICE, &same, ALICE, &same].map(|token| show(&access, token, NOW).is_ok());
    assert_eq!(let_in, [true; 4]);
    let retry_after = Duration::from_millis(250);
    let refused = |name: &str| Refusal::TooManyRequests { retry_after, caller: Some(name.into()) };
    assert_eq!(show(&access, ALICE, NOW).unwrap_err(), refused("alice"));
    assert_eq!(show(&access, &same, NOW).unwrap_err(), refused("acme"), "which has no name but its tenant's");
    let_in = [&other; 4].map(|token| show(&access, token, NOW).is_ok());
    assert_eq!(let_in, [true; 4], "another tenant is not held up");
    assert!((0..100).all(|_| show(&access, BOB, NOW).is_ok()), "without a tenant there is no limit");
    let later = Now { rate: NOW.rate + 250_000_000, ..NOW };
    assert!(show(&access, ALICE, later).is_ok() && show(&access, &same, later).is_err());

    // A reload forgets no debt.
    let reloaded = Access::open(&settings, &tenants).unwrap();
    assert!(show(&reloaded, ALICE, later).is_err());
}

#[test]
fn all_mistakes_come_at_once_and_show_no_secret() {
    let directory = TempDir::new().unwrap();
    let short = directory.path().join("short");
    fs::write(&short, "hunter2").unwrap();
    let mut settings = jwt(&directory);
    fs::write(directory.path().join("secret"), "hunter3").unwrap();
    let from_file = |name: &str, path| Token { name: name.to_owned(), tenant: None, secret: TokenSecret::File(path) };
    settings.tokens.push(from_file("short", short));
    settings.tokens.push(from_file("missing", directory.path().join("missing")));
    settings.tokens.push(known("twin", Some("other"), ALICE));
    let said = Access::open(&settings, &Tenants::new(&settings::Tenants::default())).unwrap_err().to_string();
    for expected in [
        "access.tokens, `short`: ",
        "a token of 7 bytes can be guessed",
        "access.tokens, `missing`: cannot read ",
        "access.tokens, `twin`: it is the same token as `alice`",
        "access.jwt.key_file: ",
        "it has 7 bytes, and HS256 needs at least 32",
    ] {
        assert!(said.contains(expected), "{said}");
    }
    assert_eq!(said.lines().count(), 4, "{said}");
    assert!(!said.contains("hunter") && !said.contains(ALICE), "{said}");
}

#[test]
fn nothing_shows_what_it_knows() {
    let directory = TempDir::new().unwrap();
    let access = open(&jwt(&directory));
    let shown = format!("{access:?}");
    assert!(!shown.contains("01234") && !shown.contains(&TokenHash::of(ALICE.as_bytes()).to_string()[..8]), "{shown}");
}

#[test]
fn threads_that_share_it_agree_on_tenants_and_rates() {
    let directory = TempDir::new().unwrap();
    let limited = TenantLimits { requests_per_second: Some(100), ..TenantLimits::default() };
    let tenants = Tenants::new(&settings::Tenants { default: limited, named: [].into() });
    let access = Access::open(&jwt(&directory), &tenants).unwrap();
    let tokens: Vec<_> = (0..20).map(|sid| signed(&claims("acme", &format!("s-{sid}"), 1_800_000_000))).collect();
    let let_in: usize = thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|_| {
                scope
                    .spawn(|| tokens.iter().cycle().take(200).filter(|token| show(&access, token, NOW).is_ok()).count())
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    assert_eq!(let_in, 100);
}

/// The least time that one call takes, of many rounds, so that nobody who uses the machine as well is counted.
fn nanoseconds(mut check: impl FnMut()) -> u128 {
    const CALLS: u32 = 200;
    let round = |_| {
        let begin = Instant::now();
        (0..CALLS).for_each(|_| check());
        begin.elapsed().as_nanos() / u128::from(CALLS)
    };
    (0..500).map(round).min().unwrap()
}

/// An aim of the project is 1 µs. A build that is not optimized takes several times as long, so it has a wider bound,
/// which still tells a lookup from a verification or a scan over all tokens.
#[test]
#[expect(clippy::print_stdout, reason = "what it measures is worth reading")]
fn a_check_takes_less_than_a_microsecond() {
    let directory = TempDir::new().unwrap();
    let mut settings = jwt(&directory);
    for number in 0..1000 {
        settings.tokens.push(known("one of many", Some("acme"), &format!("herd_token-of-many-{number}")));
    }
    let access = open(&settings);
    let signed = signed(&claims("acme", "alice", 4_000_000_000));
    for (what, token) in [("a known token", ALICE), ("a verified JWT", &signed)] {
        let (headers, uri) = (bearer(token), Uri::from_static("/"));
        let taken = nanoseconds(|| drop(black_box(access.admit(black_box(&headers), &uri)).unwrap()));
        println!("{what} ({} bytes): {taken} ns", token.len());
        let aim = if cfg!(debug_assertions) { 20_000 } else { 1000 };
        assert!(taken <= aim, "{what}: {taken} ns");
    }
}
