//! The section `access`.

use std::{fmt::Display, time::Duration};

use super::{
    fields::{Fields, about},
    form::{AUDIENCE, CLAIM, LABEL, LEEWAY, PARAMETER, SECRET_FILE, SHA256, TENANT, word},
    mistake::{Mistake, Mistakes, Origin, Written},
    raw::{Maybe, RawAccess, RawJwt, RawNetwork, RawToken},
    resolve::or,
    settings::{Access, Jwt, Token, TokenSecret},
};

pub(super) fn read(f: &mut Fields<'_>) -> Maybe<RawAccess> {
    f.section("access", about("Who may use the gateway: whoever shows a valid token. Without it, everybody may."), |f| {
        RawAccess {
            tokens: f.sections("tokens", about("Bearer tokens."), read_token),
            jwt: f.section("jwt", about("JSON Web Tokens (RFC 7519) that are believed."), read_jwt),
            query_parameter: f.nullable(
                "query_parameter",
                PARAMETER,
                about("A query parameter that may hold the token where a client cannot send the header authorization. Workers do not see it.")
                    .default("null"),
            ),
        }
    })
}

fn read_token(f: &mut Fields<'_>) -> RawToken {
    RawToken {
        name: f.required("name", LABEL, about("What logs call it.")),
        tenant: f.nullable(
            "tenant",
            TENANT,
            about("To whom the sessions belong that it starts. null: to nobody.").default("null"),
        ),
        sha256: f.value("sha256", SHA256, about("The SHA-256 hash of the token, in hexadecimal. This or file.")),
        file: f.value(
            "file",
            SECRET_FILE,
            about("A file with the token, or with `sha256:HEX`, its hash. This or sha256."),
        ),
    }
}

fn read_jwt(f: &mut Fields<'_>) -> RawJwt {
    RawJwt {
        algorithm: f.required("algorithm", word(), about("How they are signed. Tokens that say something else are refused.")),
        key_file: f.required(
            "key_file",
            SECRET_FILE,
            about("A file with the shared secret (HS256), or with the public key in PEM (EdDSA, RS256)."),
        ),
        audience: {
            f.require("audience");
            f.list_or_one(
                "audience",
                AUDIENCE,
                about("For whom tokens have to be: one of these must be in `aud`. Tokens for other services are refused."),
            )
        },
        issuer: f.nullable("issuer", AUDIENCE, about("Who has to have made them, `iss`. null: anybody.").default("null")),
        tenant_claim: f.nullable(
            "tenant_claim",
            CLAIM,
            about("The claim that names the tenant; a token without it is refused. null: there are no tenants.")
                .default("null"),
        ),
        session_claim: f.nullable(
            "session_claim",
            CLAIM,
            about("The claim that names the only session a token is for; a token without it is refused. null: tokens are for all sessions.")
                .default("null"),
        ),
        leeway: f.value(
            "leeway",
            LEEWAY,
            about("How far clocks may differ when `exp` and `nbf` are checked, at most 10m.").default(r#""30s""#),
        ),
    }
}

pub(super) fn resolve(raw: Maybe<RawAccess>, network: &RawNetwork, mistakes: &mut Mistakes) -> Option<Access> {
    let Written { value: RawAccess { tokens, jwt, query_parameter }, origin } = raw?;
    if tokens.as_ref().is_none_or(|tokens| tokens.value.is_empty()) && jwt.is_none() && !has_mistake(&origin, mistakes)
    {
        mistakes.push(Mistake::new(origin, "lets nobody in", "write `tokens` or `jwt`, or leave `access` out"));
    }
    check_session_key(query_parameter.as_ref(), network, mistakes);
    let tokens = or(tokens, Vec::new());
    check_tokens(&tokens, mistakes);
    Some(Access {
        tokens: tokens.into_iter().filter_map(resolve_token).collect(),
        jwt: resolve_jwt(jwt, mistakes),
        query_parameter: or(query_parameter, None),
    })
}

/// Whether something below was refused, so that what is left of it says nothing.
fn has_mistake(origin: &Origin, mistakes: &Mistakes) -> bool {
    let below = format!("{}.", origin.name);
    mistakes.all.iter().any(|mistake| mistake.origin.name.starts_with(&below))
}

fn check_tokens(tokens: &[Written<RawToken>], mistakes: &mut Mistakes) {
    for (index, Written { value: token, origin }) in tokens.iter().enumerate() {
        match (&token.sha256, &token.file) {
            (Some(_), Some(file)) => {
                mistakes.push(Mistake::new(file.origin.clone(), "is written beside `sha256`", "keep one of the two"));
            }
            (None, None) if !has_mistake(origin, mistakes) => {
                let problem = "has neither `sha256` nor `file`, so nobody could show it";
                mistakes.push(Mistake::new(origin.clone(), problem, "write one of the two"));
            }
            _ => {}
        }
        let earlier = &tokens[..index];
        twice(earlier, &token.name, |token| &token.name, "is the name of", "give each a name of its own", mistakes);
        twice(earlier, &token.sha256, |token| &token.sha256, "is the hash of", "keep one of them", mistakes);
        twice(earlier, &token.file, |token| &token.file, "is the file of", "keep one of them", mistakes);
    }
}

fn twice<T: PartialEq>(
    earlier: &[Written<RawToken>],
    one: &Maybe<T>,
    of: impl Fn(&RawToken) -> &Maybe<T>,
    problem: impl Display,
    remedy: &str,
    mistakes: &mut Mistakes,
) {
    let Some(one) = one else { return };
    let same = |other: &&Written<RawToken>| of(&other.value).as_ref().is_some_and(|other| other.value == one.value);
    if let Some(first) = earlier.iter().find(same) {
        let problem = format!("{problem} {} as well", first.origin.name);
        mistakes.push(Mistake::new(one.origin.clone(), problem, remedy));
    }
}

fn resolve_token(raw: Written<RawToken>) -> Option<Token> {
    let RawToken { name, tenant, sha256, file } = raw.value;
    let secret = match (sha256, file) {
        (Some(hash), _) => TokenSecret::Sha256(hash.value),
        (None, Some(file)) => TokenSecret::File(file.value),
        (None, None) => return None,
    };
    Some(Token { name: name?.value, tenant: or(tenant, None), secret })
}

fn resolve_jwt(raw: Maybe<RawJwt>, mistakes: &mut Mistakes) -> Option<Jwt> {
    let RawJwt { algorithm, key_file, audience, issuer, tenant_claim, session_claim, leeway } = raw?.value;
    let audience = audience?;
    if audience.value.is_empty() {
        let problem = "is an empty list, with which every token would be for somebody else";
        mistakes.push(Mistake::new(audience.origin, problem, "write what stands in `aud` of tokens for this service"));
        return None;
    }
    Some(Jwt {
        algorithm: algorithm?.value,
        key_file: key_file?.value,
        audience: audience.value.into_iter().map(|written| written.value).collect(),
        issuer: or(issuer, None),
        tenant_claim: or(tenant_claim, None),
        session_claim: or(session_claim, None),
        leeway: or(leeway, Duration::from_secs(30)),
    })
}

/// The token is no session's name, and workers do not see it.
fn check_session_key(parameter: Option<&Written<Option<String>>>, network: &RawNetwork, mistakes: &mut Mistakes) {
    let keys = network.session_key.iter().flat_map(|keys| &keys.value);
    for key in keys {
        if key.value.eq_ignore_ascii_case("header:authorization") {
            let problem = "is the header of the token, which would be the session's name as well";
            mistakes.push(Mistake::new(key.origin.clone(), problem, "choose another header"));
        }
        if let Some(Written { value: Some(name), origin }) = parameter
            && key.value.strip_prefix("query:") == Some(name)
        {
            let problem = format!("is the parameter of the session's name, by {}", key.origin.name);
            mistakes.push(Mistake::new(origin.clone(), problem, "choose another parameter"));
        }
    }
}
