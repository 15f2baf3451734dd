use std::{
    collections::{HashMap, hash_map::Entry},
    fmt,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::bail;
use herd_gateway::{Admission, Refusal};
use hyper::{HeaderMap, Uri};

use super::{
    jwt::{self, Jwt, Verified},
    presented::Presented,
    tenants::{Member, Tenants},
    token::{self, TokenHash},
    verified::VerifiedTokens,
};
use crate::config::settings::{self, TokenSecret};

/// Lets in whoever has a token that the settings name, or a JSON Web Token that their key has signed.
///
/// One is made from the settings, and another one when they change, so that nothing of the former is believed by then.
pub(crate) struct Access {
    tokens: HashMap<TokenHash, Known>,
    jwt: Option<Jwt>,
    verified: VerifiedTokens,
    query_parameter: Option<Arc<str>>,
    tenants: Tenants,
}

/// A token of the settings.
struct Known {
    /// What logs call it.
    name: Arc<str>,
    member: Option<Arc<Member>>,
}

/// The time of a request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Now {
    /// Milliseconds of Unix time, which tokens expire by.
    pub(super) unix_ms: u64,
    /// The time that the tenants' rates count by, which nobody can set.
    pub(super) rate: u64,
}

impl Access {
    /// Reads all keys and tokens, and changes nothing yet.
    ///
    /// # Errors
    /// Everything that is wrong with them, a line each: which setting, which file, what to do. No secret is shown.
    pub(crate) fn open(settings: &settings::Access, tenants: &Tenants) -> anyhow::Result<Self> {
        let settings::Access { tokens, jwt, query_parameter } = settings;
        let mut mistakes = Vec::new();
        let mut known = HashMap::new();
        for token in tokens {
            match hash_and_tenant(token, tenants) {
                Err(error) => mistakes.push(format!("access.tokens, `{}`: {error:#}", token.name)),
                Ok((hash, member)) => match known.entry(hash) {
                    Entry::Vacant(entry) => {
                        entry.insert(Known { name: token.name.as_str().into(), member });
                    }
                    Entry::Occupied(entry) => mistakes.push(format!(
                        "access.tokens, `{}`: it is the same token as `{}`; give each a token of its own",
                        token.name,
                        entry.get().name
                    )),
                },
            }
        }
        let jwt = jwt.as_ref().map(Jwt::open).transpose().unwrap_or_else(|error| {
            mistakes.push(format!("{error:#}"));
            None
        });
        if !mistakes.is_empty() {
            bail!("{}", mistakes.join("\n"));
        }
        let query_parameter = query_parameter.as_deref().map(Arc::from);
        Ok(Self { tokens: known, jwt, verified: VerifiedTokens::new(), query_parameter, tenants: tenants.clone() })
    }

    pub(super) fn admit_at(&self, headers: &HeaderMap, uri: &Uri, now: Now) -> Result<Admission, Refusal> {
        let Presented { token, credential } = Presented::find(headers, uri, self.query_parameter.as_ref())?;
        if !(token::MIN_LEN..=token::MAX_LEN).contains(&token.len()) {
            // Also one whose hash somebody has configured: it could be guessed.
            return Err(Refusal::Invalid("a token has 16 to 8192 bytes"));
        }
        let hash = TokenHash::of(&token);
        let (member, session, name) = match (self.tokens.get(&hash), &self.jwt) {
            (Some(known), _) => (known.member.clone(), None, Some(&known.name)),
            (None, Some(jwt)) => {
                let verified = self.verified(jwt, &token, hash, now.unix_ms);
                let Verified { member, session, .. } = verified.map_err(|refusal| self.explained(refusal))?;
                (member, session, None)
            }
            (None, None) => return Err(Refusal::Invalid("the token is not known")),
        };
        if let Some(member) = &member {
            member.admit(now.rate).map_err(|retry_after| {
                // A token without a name in the settings is one of the tenant's many.
                let caller = name.cloned().unwrap_or_else(|| member.tenant.name().into());
                Refusal::TooManyRequests { retry_after, caller: Some(caller) }
            })?;
        }
        let tenant = member.map(|member| member.tenant.clone());
        Ok(Admission { tenant, session, caller: name.cloned(), credential })
    }

    /// Whether the token is known to be signed without a look at its signature.
    #[cfg(test)]
    pub(super) fn remembers(&self, token: &str) -> bool {
        self.verified.find(&TokenHash::of(token.as_bytes())).is_some()
    }

    /// What looks like no JSON Web Token may have been meant as one of the settings' tokens.
    fn explained(&self, refusal: Refusal) -> Refusal {
        match refusal {
            Refusal::Invalid(jwt::MALFORMED) if !self.tokens.is_empty() => {
                Refusal::Invalid("the token is neither a known one nor a JSON Web Token that was signed")
            }
            refusal => refusal,
        }
    }

    fn verified(&self, jwt: &Jwt, token: &[u8], hash: TokenHash, now: u64) -> Result<Verified, Refusal> {
        if let Some(verified) = self.verified.find(&hash) {
            return if now < verified.until { Ok(verified) } else { Err(Refusal::Expired) };
        }
        let verified = jwt.verify(token, now, &self.tenants)?;
        self.verified.remember(hash, verified.clone(), now);
        Ok(verified)
    }
}

impl herd_gateway::Access for Access {
    fn query_parameter(&self) -> Option<&str> {
        self.query_parameter.as_deref()
    }

    fn admit(&self, headers: &HeaderMap, uri: &Uri) -> Result<Admission, Refusal> {
        // Before 1970 nothing has expired; a clock that is so wrong is believed to be at its end, when all has.
        let unix = SystemTime::now().duration_since(UNIX_EPOCH);
        let unix_ms = unix.map_or(u64::MAX, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX));
        self.admit_at(headers, uri, Now { unix_ms, rate: self.tenants.now() })
    }
}

impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Access").field("tokens", &self.tokens.len()).field("jwt", &self.jwt).finish_non_exhaustive()
    }
}

fn hash_and_tenant(token: &settings::Token, tenants: &Tenants) -> anyhow::Result<(TokenHash, Option<Arc<Member>>)> {
    let hash = match &token.secret {
        TokenSecret::Sha256(hash) => TokenHash::known(*hash),
        TokenSecret::File(path) => TokenHash::read(path)?,
    };
    let member = token.tenant.as_ref().map(|name| tenants.member(name)).transpose()?;
    Ok((hash, member))
}
