use std::{collections::HashMap, fmt, sync::Arc};

use anyhow::Context as _;
use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use herd_gateway::Refusal;
use herd_pool::SessionId;
use serde::{
    Deserialize, Deserializer,
    de::{Error as _, MapAccess, Visitor},
};
use serde_json::{Number, Value};

use super::{
    jwt_key::JwtKey,
    tenants::{Member, Tenants},
    token,
};
use crate::config::settings;

/// Believes JSON Web Tokens (RFC 7519) in the compact form of JWS (RFC 7515 §7.1), as strictly as RFC 8725 advises.
///
/// The signature comes first: nothing that an unknown party has written is looked at, but for `alg` and `crit`, which
/// must be what is expected.
#[derive(Debug)]
pub(super) struct Jwt {
    key: JwtKey,
    audience: Vec<String>,
    issuer: Option<String>,
    tenant_claim: Option<String>,
    session_claim: Option<String>,
    /// Milliseconds.
    leeway: u64,
}

/// What is said of a token that is no JSON Web Token.
pub(super) const MALFORMED: &str = "the token is no JSON Web Token that was signed";

/// What a token that is believed says.
#[derive(Clone, Debug)]
pub(super) struct Verified {
    pub(super) member: Option<Arc<Member>>,
    /// The only session that it is for.
    pub(super) session: Option<SessionId>,
    /// From when on it counts no more, in milliseconds of Unix time; the leeway is in it.
    pub(super) until: u64,
}

impl Jwt {
    /// Reads the key.
    ///
    /// # Errors
    /// If there is none that fits.
    pub(super) fn open(settings: &settings::Jwt) -> anyhow::Result<Self> {
        let settings::Jwt { algorithm, key_file, audience, issuer, tenant_claim, session_claim, leeway } = settings;
        Ok(Self {
            key: JwtKey::read(*algorithm, key_file).context("access.jwt.key_file")?,
            audience: audience.clone(),
            issuer: issuer.clone(),
            tenant_claim: tenant_claim.clone(),
            session_claim: session_claim.clone(),
            leeway: u64::try_from(leeway.as_millis()).unwrap_or(u64::MAX),
        })
    }

    /// Checks a token. `now` is in milliseconds of Unix time.
    ///
    /// # Errors
    /// Why it is not believed. Of tokens that are not signed it says no more than that.
    pub(super) fn verify(&self, token: &[u8], now: u64, tenants: &Tenants) -> Result<Verified, Refusal> {
        let claims = self.signed(token)?;
        let deadline = claims.time("exp", Rounding::Down)?;
        let Some(expires) = deadline else { return Err(Refusal::Invalid("the token never expires: it has no exp")) };
        let until = expires.saturating_add(self.leeway);
        // "On or after which" it is no good (RFC 7519 §4.1.4).
        if now >= until {
            return Err(Refusal::Expired);
        }
        if claims.time("nbf", Rounding::Up)?.is_some_and(|begins| now.saturating_add(self.leeway) < begins) {
            return Err(Refusal::Invalid("the token is not valid yet"));
        }
        if !claims.is_for(&self.audience) {
            return Err(Refusal::Invalid("the token's audience is another one"));
        }
        if self.issuer.as_ref().is_some_and(|issuer| claims.text("iss") != Some(issuer)) {
            return Err(Refusal::Invalid("the token's issuer is another one"));
        }
        let member = self.tenant_claim.as_ref().map(|claim| {
            let name =
                claims.required(claim, "the token names no tenant", "what the token calls a tenant is no text")?;
            tenants.member(name).map_err(|_| Refusal::Invalid("what the token calls a tenant can be no tenant's name"))
        });
        let session = self.session_claim.as_ref().map(|claim| {
            let id =
                claims.required(claim, "the token names no session", "what the token calls a session is no text")?;
            SessionId::new(id).map_err(|_| Refusal::Invalid("what the token calls a session can be no session's ID"))
        });
        Ok(Verified { member: member.transpose()?, session: session.transpose()?, until })
    }

    /// The claims of a token that the key has signed.
    fn signed(&self, token: &[u8]) -> Result<Object, Refusal> {
        if token.len() > token::MAX_LEN {
            return Err(Refusal::Invalid("the token is too long"));
        }
        let malformed = || Refusal::Invalid(MALFORMED);
        let mut parts = token.rsplitn(2, |byte| *byte == b'.');
        let (Some(signature), Some(message)) = (parts.next(), parts.next()) else { return Err(malformed()) };
        let mut parts = message.split(|byte| *byte == b'.');
        let (Some(header), Some(payload), None) = (parts.next(), parts.next(), parts.next()) else {
            return Err(malformed());
        };
        let header = Object::decode(header).ok_or_else(malformed)?;
        if header.text("alg") != Some(self.key.algorithm()) {
            return Err(Refusal::Invalid("the token is signed by another algorithm"));
        }
        // Whoever does not understand an extension that is critical must refuse the token (RFC 7515 §4.1.11).
        if header.0.contains_key("crit") {
            return Err(Refusal::Invalid("the token has critical extensions, and none is understood"));
        }
        let signature = BASE64_URL_SAFE_NO_PAD.decode(signature).map_err(|_| malformed())?;
        if !self.key.has_signed(message, &signature) {
            return Err(Refusal::Invalid("the token's signature is not right"));
        }
        Object::decode(payload).ok_or(Refusal::Invalid("the token's claims are no JSON object with unique names"))
    }
}

/// A JSON object. Names that come twice are refused, because readers differ in which of them they take.
struct Object(HashMap<String, Value>);

#[derive(Clone, Copy)]
enum Rounding {
    Down,
    Up,
}

impl Object {
    fn decode(part: &[u8]) -> Option<Self> {
        serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(part).ok()?).ok()
    }

    fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name)?.as_str()
    }

    /// A text, or what is said if there is nothing of that name, or something else.
    fn required(&self, name: &str, absent: &'static str, no_text: &'static str) -> Result<&str, Refusal> {
        let value = self.0.get(name).ok_or(Refusal::Invalid(absent))?;
        value.as_str().ok_or(Refusal::Invalid(no_text))
    }

    /// Whether `aud` names one of these.
    fn is_for(&self, audience: &[String]) -> bool {
        let is_ours = |name: &Value| name.as_str().is_some_and(|name| audience.iter().any(|ours| ours == name));
        match self.0.get("aud") {
            Some(Value::Array(names)) => names.iter().all(Value::is_string) && names.iter().any(is_ours),
            Some(name) => is_ours(name),
            None => false,
        }
    }

    /// A point in time (RFC 7519 §2, NumericDate) in milliseconds of Unix time; what is before 1970 is 0.
    fn time(&self, name: &str, rounding: Rounding) -> Result<Option<u64>, Refusal> {
        match self.0.get(name) {
            None => Ok(None),
            Some(Value::Number(seconds)) => Ok(Some(millis(seconds, rounding))),
            Some(_) => Err(Refusal::Invalid("a time in the token is no number")),
        }
    }
}

fn millis(seconds: &Number, rounding: Rounding) -> u64 {
    if let Some(seconds) = seconds.as_u64() {
        return seconds.saturating_mul(1000);
    }
    let millis = seconds.as_f64().unwrap_or_default() * 1000.0;
    // Such a conversion stays within the type's bounds.
    (match rounding {
        Rounding::Down => millis.floor(),
        Rounding::Up => millis.ceil(),
    }) as u64
}

impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;

        impl<'de> Visitor<'de> for Members {
            type Value = Object;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Object, A::Error> {
                let mut members = HashMap::new();
                while let Some((name, value)) = map.next_entry()? {
                    if members.insert(name, value).is_some() {
                        return Err(A::Error::custom("a name comes twice"));
                    }
                }
                Ok(Object(members))
            }
        }

        deserializer.deserialize_map(Members)
    }
}
