use std::{fs, process::Command, time::Duration};

use aws_lc_rs::hmac;
use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use herd_gateway::Refusal;
use proptest::prelude::*;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{
    jwt::{Jwt, Verified},
    tenants::Tenants,
};
use crate::config::settings::{self, JwtAlgorithm};

const SECRET: &str = "0123456789abcdef0123456789abcdef";

/// What the fixtures say: `iat` and `nbf` are 1700000000, `exp` is 2000000000. PyJWT 2.15 has made them.
const BEGINS: u64 = 1_700_000_000_000;
const ENDS: u64 = 2_000_000_000_000;
const LEEWAY: u64 = 30_000;

const HS256: &str = "eyJhbGciOiJIUzI1NiIsImtpZCI6Im9uZSIsInR5cCI6IkpXVCJ9.eyJpc3MiOiJodHRwczovL2lzc3Vlci5leGFtcGxlIiwiYXVkIjpbImhlcmQiLCJvdGhlciJdLCJleHAiOjIwMDAwMDAwMDAsIm5iZiI6MTcwMDAwMDAwMCwiaWF0IjoxNzAwMDAwMDAwLCJvcmciOiJhY21lIiwic2lkIjoiYWxpY2UifQ.gJYRV7XaCU6UFVS0lhef6ik3oW4DkMlRtQxcwgQKLmo";
const EDDSA: &str = "eyJhbGciOiJFZERTQSIsInR5cCI6IkpXVCJ9.eyJpc3MiOiJodHRwczovL2lzc3Vlci5leGFtcGxlIiwiYXVkIjpbImhlcmQiLCJvdGhlciJdLCJleHAiOjIwMDAwMDAwMDAsIm5iZiI6MTcwMDAwMDAwMCwiaWF0IjoxNzAwMDAwMDAwLCJvcmciOiJhY21lIiwic2lkIjoiYWxpY2UifQ._Bh4ekvwfS0KZd-MAD4atAszerupdM3jvgF95GHLVlFvJIClHIFWYU56vgHLZyoG9wg2LXmMEvGT-5rJmxLaAw";
const RS256: &str = "eyJhbGciOiJSUzI1NiIsInR5cCI6IkpXVCJ9.eyJpc3MiOiJodHRwczovL2lzc3Vlci5leGFtcGxlIiwiYXVkIjpbImhlcmQiLCJvdGhlciJdLCJleHAiOjIwMDAwMDAwMDAsIm5iZiI6MTcwMDAwMDAwMCwiaWF0IjoxNzAwMDAwMDAwLCJvcmciOiJhY21lIiwic2lkIjoiYWxpY2UifQ.WmW5CMHXRRVENJz6d44bQ5R2oNkjeorAUWeCeFhMjbkmztljwH5fxmjLb18VMoStjCCNPfwoZpEtCCAbZ7iFg9YUTHlaJoPzJeCaLC_RsZcLW2v7OtNWxOSEeZW0WANJ87TN039cJDfcCWVxt7SplDNy9WhKKfA-E4tkWLrTZs0kuuIqq7YUrlPmqj4fogG-Hku_8P7D1mPXLdUDwPk-208cgrFU6cAAptP_w9ra3VkVT1cSwW_i5WKXXBttC8oUvNJ5nV6GshkbG35OiUjJHBt9R5x8n7rIctUMsmAI54Q6YxmtdENNM_HVR3QNNh30ZWTyVmUbXrlLeo5gPzgfUg";

const ED25519_KEY: &str = "\
-----BEGIN PUBLIC KEY-----
MCowBQYDK2VwAyEAa67lvFRUTT7xY0YBgh3lfl5haZjDSZ92DmMj3M26qLg=
-----END PUBLIC KEY-----
";
const RSA_KEY: &str = "\
-----BEGIN PUBLIC KEY-----
MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEA27iXn1A/1W8sVLL2r0ra
X88Ac/tNegL4hg1uwiheVoqomHW1NPDSt2TPcpfUR98inbmpTpollHla9+l71ST1
G3lq9ZKm4Moh9VCLcxqCbytl8xMSynli7Ap79K2nbyXGdfzUHUqDTMiWkC6gjX+2
mNpeWxhLJmdYs0E5DMjXxHrHR62OH4sVW0r/ql2hXrN55CoNMZY3yYHaQE+s/s6d
E1bTdkop0J1osW9p830AqSFEt5RNTK3ER7quRcxCJ08sfPHyEmseRumwMQXSjky5
tjHoDgNEff0GXF7vGt29mkP9BaY+7bOzFqGlYSzsyowET3uQ207HGUgUoDIg5OMv
FQIDAQAB
-----END PUBLIC KEY-----
";

/// RFC 7515, appendix A.1.1.
const RFC7515_SECRET: &str = "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow";
const RFC7515_TOKEN: &str = "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";

/// An issuer that is believed, and its keys.
struct Issuer {
    directory: TempDir,
    settings: settings::Jwt,
}

impl Issuer {
    fn new(algorithm: JwtAlgorithm, key: impl AsRef<[u8]>) -> Self {
        let directory = TempDir::new().unwrap();
        let key_file = directory.path().join("key");
        fs::write(&key_file, key).unwrap();
        let settings = settings::Jwt {
            algorithm,
            key_file,
            audience: vec!["herd".to_owned()],
            issuer: None,
            tenant_claim: None,
            session_claim: None,
            leeway: Duration::from_millis(LEEWAY),
        };
        Self { directory, settings }
    }

    fn hs256() -> Self {
        Self::new(JwtAlgorithm::Hs256, SECRET)
    }

    #[track_caller]
    fn open(&self) -> Jwt {
        Jwt::open(&self.settings).unwrap()
    }

    #[track_caller]
    fn verify(&self, token: impl AsRef<[u8]>, now: u64) -> Result<Verified, Refusal> {
        self.open().verify(token.as_ref(), now, &Tenants::new(&settings::Tenants::default()))
    }

    /// What the settings' mistake is.
    #[track_caller]
    fn mistake(&self) -> String {
        let said = format!("{:#}", Jwt::open(&self.settings).unwrap_err());
        assert!(said.contains(self.settings.key_file.to_str().unwrap()), "{said}");
        assert!(said.contains("access.jwt.key_file"), "{said}");
        said
    }

    /// Runs OpenSSL in the issuer's directory.
    #[track_caller]
    fn openssl(&self, args: &str) -> Vec<u8> {
        let output = Command::new("openssl").args(args.split(' ')).current_dir(self.directory.path()).output();
        let output = output.expect("these tests need OpenSSL: apt-get install openssl");
        assert!(output.status.success(), "openssl {args}: {}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    }
}

fn part(json: &Value) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(json.to_string())
}

/// A token with this header and these claims as they are, signed by HMAC-SHA256.
fn signed(header: &str, claims: &str) -> String {
    let message = format!("{}.{}", BASE64_URL_SAFE_NO_PAD.encode(header), BASE64_URL_SAFE_NO_PAD.encode(claims));
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes()), message.as_bytes());
    format!("{message}.{}", BASE64_URL_SAFE_NO_PAD.encode(tag))
}

fn token(claims: &Value) -> String {
    signed(r#"{"alg":"HS256"}"#, &claims.to_string())
}

fn good() -> Value {
    json!({ "aud": "herd", "exp": 2_000_000_000 })
}

/// The good claims, but for one.
fn with(name: &str, value: impl Into<Value>) -> String {
    let mut claims = good();
    claims[name] = value.into();
    token(&claims)
}

fn without(name: &str) -> String {
    let mut claims = good();
    claims.as_object_mut().unwrap().remove(name);
    token(&claims)
}

#[track_caller]
fn refused(verified: Result<Verified, Refusal>) -> &'static str {
    match verified {
        Err(Refusal::Invalid(why)) => why,
        other => panic!("{other:?}"),
    }
}

#[test]
fn tokens_of_another_implementation_are_believed_for_all_algorithms() {
    for (algorithm, key, token) in [
        (JwtAlgorithm::Hs256, SECRET, HS256),
        (JwtAlgorithm::EdDsa, ED25519_KEY, EDDSA),
        (JwtAlgorithm::Rs256, RSA_KEY, RS256),
    ] {
        let mut issuer = Issuer::new(algorithm, key);
        issuer.settings.issuer = Some("https://issuer.example".to_owned());
        issuer.settings.tenant_claim = Some("org".to_owned());
        issuer.settings.session_claim = Some("sid".to_owned());
        let verified = issuer.verify(token, BEGINS).unwrap();
        assert_eq!(verified.member.unwrap().tenant.name(), "acme");
        assert_eq!(verified.session.unwrap().as_str(), "alice");
        assert_eq!(verified.until, ENDS + LEEWAY);
        // One character of the signature, and one of the claims.
        for at in [token.len() - 5, token.find('.').unwrap() + 5] {
            let mut other = token.as_bytes().to_vec();
            other[at] = if other[at] == b'A' { b'B' } else { b'A' };
            assert_eq!(refused(issuer.verify(other, BEGINS)), "the token's signature is not right");
        }
    }
}

#[test]
fn what_openssl_signs_with_fresh_keys_is_believed_and_other_keys_are_not() {
    for (algorithm, make, sign) in [
        ("EdDSA", "genpkey -algorithm ed25519 -out private", "pkeyutl -sign -rawin -inkey private -in message"),
        ("RS256", "genrsa -out private 2048", "dgst -sha256 -sign private message"),
    ] {
        let kind = if algorithm == "EdDSA" { JwtAlgorithm::EdDsa } else { JwtAlgorithm::Rs256 };
        let issuer = Issuer::new(kind, "");
        issuer.openssl(make);
        issuer.openssl("pkey -in private -pubout -out key");
        let message = format!("{}.{}", part(&json!({ "alg": algorithm })), part(&good()));
        fs::write(issuer.directory.path().join("message"), &message).unwrap();
        let token = format!("{message}.{}", BASE64_URL_SAFE_NO_PAD.encode(issuer.openssl(sign)));
        assert_eq!(issuer.verify(&token, BEGINS).unwrap().until, ENDS + LEEWAY);

        // Both the old key and its successor, in either order.
        let old = fs::read_to_string(&issuer.settings.key_file).unwrap();
        issuer.openssl(make);
        let new = String::from_utf8(issuer.openssl("pkey -in private -pubout")).unwrap();
        fs::write(&issuer.settings.key_file, &new).unwrap();
        assert_eq!(refused(issuer.verify(&token, BEGINS)), "the token's signature is not right");
        for both in [format!("{old}{new}"), format!("{new}{old}")] {
            fs::write(&issuer.settings.key_file, both).unwrap();
            issuer.verify(&token, BEGINS).unwrap();
        }
    }
}

#[test]
fn the_example_of_rfc_7515_is_signed_right_and_has_no_audience() {
    let issuer = Issuer::new(JwtAlgorithm::Hs256, BASE64_URL_SAFE_NO_PAD.decode(RFC7515_SECRET).unwrap());
    let expires = 1_300_819_380_000;
    assert_eq!(refused(issuer.verify(RFC7515_TOKEN, expires)), "the token's audience is another one");
    assert_eq!(issuer.verify(RFC7515_TOKEN, expires + LEEWAY).unwrap_err(), Refusal::Expired);
}

#[test]
fn the_algorithm_is_the_keys_and_never_the_tokens() {
    let issuer = Issuer::hs256();
    for alg in ["none", "None", "HS384", "HS512", "hs256", "RS256", "EdDSA", ""] {
        let token = signed(&json!({ "alg": alg }).to_string(), &good().to_string());
        assert_eq!(refused(issuer.verify(token, BEGINS)), "the token is signed by another algorithm", "{alg}");
    }
    let unsigned = format!("{}.{}.", part(&json!({ "alg": "none" })), part(&good()));
    assert_eq!(refused(issuer.verify(unsigned, BEGINS)), "the token is signed by another algorithm");
    let emptied = token(&good());
    let emptied = &emptied[..=emptied.rfind('.').unwrap()];
    assert_eq!(refused(issuer.verify(emptied, BEGINS)), "the token's signature is not right");
}

#[test]
fn a_public_key_is_no_secret_whatever_the_token_says() {
    // The classic: whoever knows the public key signs with it as if it were the secret.
    for (algorithm, key) in [(JwtAlgorithm::Rs256, RSA_KEY), (JwtAlgorithm::EdDsa, ED25519_KEY)] {
        let issuer = Issuer::new(algorithm, key);
        let message = format!("{}.{}", part(&json!({ "alg": "HS256" })), part(&good()));
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key.as_bytes()), message.as_bytes());
        let token = format!("{message}.{}", BASE64_URL_SAFE_NO_PAD.encode(tag));
        assert_eq!(refused(issuer.verify(token, BEGINS)), "the token is signed by another algorithm");
        let said = Issuer::new(JwtAlgorithm::Hs256, key).mistake();
        assert!(said.contains("it holds a public key; a secret is 32 or more random bytes"), "{said}");
    }
}

#[test]
fn keys_in_the_token_itself_count_for_nothing() {
    let issuer = Issuer::hs256();
    let jwk =
        json!({ "alg": "HS256", "jwk": { "kty": "oct", "k": "AAAA" }, "jku": "http://127.0.0.1/", "kid": "../x" });
    issuer.verify(signed(&jwk.to_string(), &good().to_string()), BEGINS).unwrap();
    let other = Issuer::new(JwtAlgorithm::Hs256, "another secret that is long enough to be one");
    assert!(other.verify(signed(&jwk.to_string(), &good().to_string()), BEGINS).is_err());
}

#[test]
fn critical_extensions_are_refused() {
    for header in [r#"{"alg":"HS256","crit":["b64"],"b64":false}"#, r#"{"alg":"HS256","crit":[]}"#] {
        let why = refused(Issuer::hs256().verify(signed(header, &good().to_string()), BEGINS));
        assert!(why.contains("critical extensions"), "{why}");
    }
}

#[test]
fn a_token_expires_at_the_very_millisecond_and_begins_at_it() {
    let issuer = Issuer::hs256();
    let token = token(&good());
    assert!(issuer.verify(&token, ENDS + LEEWAY - 1).is_ok());
    assert_eq!(issuer.verify(&token, ENDS + LEEWAY).unwrap_err(), Refusal::Expired);
    assert_eq!(issuer.verify(&token, u64::MAX).unwrap_err(), Refusal::Expired);

    let early = with("nbf", 1_700_000_000);
    assert_eq!(refused(issuer.verify(&early, BEGINS - LEEWAY - 1)), "the token is not valid yet");
    assert!(issuer.verify(&early, BEGINS - LEEWAY).is_ok());

    // Fractions: never longer than was said, and never earlier.
    let fraction = with("exp", 2_000_000_000.500_4);
    assert!(issuer.verify(&fraction, ENDS + 500 + LEEWAY - 1).is_ok());
    assert_eq!(issuer.verify(&fraction, ENDS + 500 + LEEWAY).unwrap_err(), Refusal::Expired);
}

#[test]
fn times_that_are_none_are_refused_and_extreme_ones_do_not_overflow() {
    let issuer = Issuer::hs256();
    assert_eq!(refused(issuer.verify(without("exp"), BEGINS)), "the token never expires: it has no exp");
    for value in [json!("2000000000"), json!(null), json!([2_000_000_000]), json!(true)] {
        assert_eq!(refused(issuer.verify(with("exp", value.clone()), BEGINS)), "a time in the token is no number");
        assert_eq!(refused(issuer.verify(with("nbf", value), BEGINS)), "a time in the token is no number");
    }
    for value in [json!(0), json!(-1), json!(-1e300), json!(i64::MIN)] {
        assert_eq!(issuer.verify(with("exp", value), BEGINS).unwrap_err(), Refusal::Expired);
    }
    for value in [json!(u64::MAX), json!(1e300)] {
        assert_eq!(issuer.verify(with("exp", value.clone()), BEGINS).unwrap().until, u64::MAX);
        assert_eq!(refused(issuer.verify(with("nbf", value), BEGINS)), "the token is not valid yet");
    }
    assert!(
        refused(issuer.verify(signed(r#"{"alg":"HS256"}"#, r#"{"aud":"herd","exp":1e999}"#), BEGINS)).contains("JSON")
    );
}

#[test]
fn a_token_for_somebody_else_is_refused() {
    let mut issuer = Issuer::hs256();
    issuer.settings.audience = vec!["herd".to_owned(), "herd-2".to_owned()];
    for aud in [json!("herd"), json!("herd-2"), json!(["other", "herd"])] {
        assert!(issuer.verify(with("aud", aud), BEGINS).is_ok());
    }
    for aud in [json!("Herd"), json!("herd "), json!([]), json!(["other"]), json!({}), json!(null), json!([1, "herd"])]
    {
        assert_eq!(refused(issuer.verify(with("aud", aud), BEGINS)), "the token's audience is another one");
    }
    assert_eq!(refused(issuer.verify(without("aud"), BEGINS)), "the token's audience is another one");

    issuer.settings.issuer = Some("https://a.example".to_owned());
    assert!(issuer.verify(with("iss", "https://a.example"), BEGINS).is_ok());
    for token in [token(&good()), with("iss", "https://b.example"), with("iss", json!(["https://a.example"]))] {
        assert_eq!(refused(issuer.verify(token, BEGINS)), "the token's issuer is another one");
    }
}

#[test]
fn claims_that_name_tenant_and_session_are_needed_where_they_are_configured() {
    let mut issuer = Issuer::hs256();
    let verified = issuer.verify(with("org", "acme"), BEGINS).unwrap();
    assert!(verified.member.is_none() && verified.session.is_none(), "nothing is configured");
    issuer.settings.tenant_claim = Some("org".to_owned());
    assert_eq!(issuer.verify(with("org", "acme"), BEGINS).unwrap().member.unwrap().tenant.name(), "acme");
    for token in [token(&good()), with("org", 1), with("org", json!(null)), with("org", "a b"), with("org", "")] {
        assert!(refused(issuer.verify(token, BEGINS)).contains("tenant"));
    }
    issuer.settings.tenant_claim = None;
    issuer.settings.session_claim = Some("sid".to_owned());
    assert_eq!(issuer.verify(with("sid", "alice"), BEGINS).unwrap().session.unwrap().as_str(), "alice");
    for token in [token(&good()), with("sid", 1), with("sid", "a b"), with("sid", "x".repeat(257))] {
        assert!(refused(issuer.verify(token, BEGINS)).contains("session"));
    }
}

#[test]
fn names_that_come_twice_are_refused() {
    let issuer = Issuer::hs256();
    let header = r#"{"alg":"HS256"}"#;
    for claims in [
        r#"{"aud":"herd","exp":2000000000,"exp":9000000000}"#,
        r#"{"aud":"other","aud":"herd","exp":2000000000}"#,
        r#"{"aud":"herd","exp":2000000000,"\u0061ud":"herd"}"#,
    ] {
        assert!(refused(issuer.verify(signed(header, claims), BEGINS)).contains("unique names"));
    }
    let twice = signed(r#"{"alg":"none","alg":"HS256"}"#, &good().to_string());
    assert!(issuer.verify(twice, BEGINS).is_err());
}

#[test]
fn what_is_no_jwt_is_refused() {
    let issuer = Issuer::hs256();
    let good = token(&good());
    let (message, signature) = good.rsplit_once('.').unwrap();
    let (header, payload) = message.split_once('.').unwrap();
    assert!(issuer.verify(&good, BEGINS).is_ok());
    for token in [
        String::new(),
        ".".to_owned(),
        "..".to_owned(),
        "...".to_owned(),
        message.to_owned(),
        format!("{good}."),
        format!(".{good}"),
        format!("{good}.{signature}"),
        format!("{good}="),
        format!("{good}=="),
        format!("{good}A"),
        format!(" {good}"),
        format!("{good}\n"),
        format!("{header}=.{payload}.{signature}"),
        format!("{header}..{signature}"),
        format!(".{payload}.{signature}"),
        format!("{header}.{payload}"),
        format!("{header}.{payload}.{}", signature.replace(['-', '_'], "+")),
        format!("{header}.{payload}.\u{e9}"),
        format!("{payload}.{header}.{signature}"),
        // The general form of JWS, and an encrypted token (five parts).
        r#"{"payload":"","signatures":[]}"#.to_owned(),
        "a.b.c.d.e".to_owned(),
        signed("[]", "{}"),
        signed(r#""HS256""#, "{}"),
        signed("", "{}"),
        signed(r#"{"alg":["HS256"]}"#, "{}"),
        signed(r#"{"alg":"HS256"}"#, "[]"),
        signed(r#"{"alg":"HS256"}"#, "null"),
        signed(r#"{"alg":"HS256"}"#, "{} {}"),
        signed(r#"{"alg":"HS256"}"#, &"[".repeat(4000)),
        signed(r#"{"alg":"HS256"}"#, &format!(r#"{{"aud":{}"#, "[".repeat(4000))),
    ] {
        refused(issuer.verify(&token, BEGINS));
    }
    // The last character of a signature has bits to spare, and they must be zero: else one token could be many.
    let last = *signature.as_bytes().last().unwrap();
    let spares = (0..=127_u8).filter(|byte| *byte != last && byte.is_ascii_alphanumeric());
    for byte in spares {
        let token = format!("{message}.{}{}", &signature[..signature.len() - 1], char::from(byte));
        assert!(issuer.verify(token, BEGINS).is_err());
    }
    let long = with("filler", "x".repeat(9000));
    assert_eq!(refused(issuer.verify(long, BEGINS)), "the token is too long");
}

#[test]
fn keys_that_do_not_fit_are_refused_with_what_they_are() {
    use JwtAlgorithm::{EdDsa, Hs256, Rs256};
    let maker = Issuer::hs256();
    let file = |name: &str| fs::read(maker.directory.path().join(name)).unwrap();
    maker.openssl("genpkey -algorithm ed25519 -out ed");
    maker.openssl("genpkey -algorithm ed448 -out ed448");
    maker.openssl("ecparam -name prime256v1 -genkey -noout -out ec");
    maker.openssl("genrsa -out rsa 2048");
    maker.openssl("genrsa -out small 1024");
    maker.openssl("rsa -in rsa -RSAPublicKey_out -out pkcs1");
    maker.openssl("req -x509 -new -key rsa -subj /CN=x -out certificate");
    for name in ["ed", "ed448", "ec", "small"] {
        maker.openssl(&format!("pkey -in {name} -pubout -out {name}.pub"));
    }
    let broken = RSA_KEY.replace('x', "*");
    let truncated = &RSA_KEY[..200];
    for (algorithm, key, expected) in [
        (Hs256, b"short".to_vec(), "it has 5 bytes, and HS256 needs at least 32"),
        (Hs256, [SECRET.as_bytes(), b"\n"].concat()[1..].to_vec(), "it has 31 bytes"),
        (Hs256, file("rsa"), "it holds a private key"),
        (Hs256, file("certificate"), "it holds a certificate"),
        (Hs256, b"\n \n".to_vec(), "is empty"),
        (EdDsa, RSA_KEY.into(), "it holds an RSA key, which is for RS256"),
        (EdDsa, file("ec.pub"), "it holds a public key of another kind"),
        (EdDsa, file("ed448.pub"), "it holds a public key of another kind"),
        (EdDsa, file("ed"), "it holds a private key, which only the issuer should have"),
        (EdDsa, [ED25519_KEY.as_bytes(), &file("ed")].concat(), "it holds a private key"),
        (EdDsa, SECRET.into(), "it holds no PEM"),
        (EdDsa, vec![7; 32], "it holds no PEM"),
        (EdDsa, br#"{"kty":"OKP"}"#.to_vec(), "it holds JSON, perhaps a JSON Web Key"),
        (EdDsa, b"ssh-ed25519 AAAA x@y".to_vec(), "it holds a key of OpenSSH"),
        (EdDsa, ED25519_KEY.repeat(9).into(), "it holds 9 keys, and may hold 8"),
        (Rs256, ED25519_KEY.into(), "it holds an Ed25519 key, which is for EdDSA"),
        (Rs256, file("small.pub"), "it holds an RSA key of 1024 bits, and RS256 needs at least 2048"),
        (Rs256, file("ec.pub"), "it holds a public key of another kind"),
        (Rs256, file("pkcs1"), "it holds an RSA key in the older form (PKCS #1)"),
        (Rs256, file("certificate"), "it holds a certificate; `openssl x509"),
        (Rs256, broken.into(), "its PEM is broken"),
        (Rs256, truncated.into(), "its PEM is broken"),
    ] {
        let said = Issuer::new(algorithm, &key).mistake();
        assert!(said.contains(expected), "{said}\nand not {expected}");
        for line in String::from_utf8_lossy(&key).lines().filter(|line| line.len() > 4 && !line.starts_with('-')) {
            assert!(!said.contains(line), "{said}");
        }
    }
    let mut missing = Issuer::hs256();
    missing.settings.key_file = missing.directory.path().join("nowhere");
    assert!(missing.mistake().contains("No such file"));
}

#[test]
fn a_secret_is_the_whole_file_but_for_the_end_of_a_texts_last_line() {
    let token = token(&good());
    for content in [SECRET.to_owned(), format!("{SECRET}\n"), format!("{SECRET}\r\n")] {
        assert!(Issuer::new(JwtAlgorithm::Hs256, content).verify(&token, BEGINS).is_ok());
    }
    assert!(Issuer::new(JwtAlgorithm::Hs256, format!("{SECRET}\n\n")).verify(&token, BEGINS).is_err());
    // Of random bytes none is left out: this one has 32 of them only with its last.
    assert!(Jwt::open(&Issuer::new(JwtAlgorithm::Hs256, [&[0xff; 31][..], b"\n"].concat()).settings).is_ok());
}

proptest! {
    #[test]
    fn no_garbage_is_believed_and_none_of_it_panics(token in prop::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(Issuer::hs256().verify(&token, BEGINS).is_err());
    }

    #[test]
    fn nothing_that_looks_like_a_token_panics(
        header in "[\\[\\]{}\":,a-z0-9HS]{0,40}",
        claims in "[\\[\\]{}\":,a-z0-9]{0,60}",
    ) {
        prop_assert!(Issuer::hs256().verify(signed(&header, &claims), BEGINS).is_err());
    }

    #[test]
    fn a_changed_byte_is_noticed_wherever_it_is(at in 0_usize..1000, to in 0x21_u8..0x7f) {
        let good = token(&good());
        let mut changed = good.into_bytes();
        let at = at % changed.len();
        prop_assume!(changed[at] != to);
        changed[at] = to;
        prop_assert!(Issuer::hs256().verify(&changed, BEGINS).is_err());
    }

    #[test]
    fn a_token_is_good_exactly_from_nbf_to_exp(begins in 0_u32.., lasts in 0_u32.., now: u32) {
        let expires = u64::from(begins) + u64::from(lasts);
        let token = token(&json!({ "aud": "herd", "nbf": begins, "exp": expires }));
        let now = u64::from(now) * 1000;
        let is_good = now + LEEWAY >= u64::from(begins) * 1000 && now < expires * 1000 + LEEWAY;
        prop_assert_eq!(Issuer::hs256().verify(token, now).is_ok(), is_good);
    }
}
