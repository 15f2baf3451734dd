//! A session as somebody typed it.

use anyhow::anyhow;
use herd_pool::SessionId;
use serde::Deserialize;

use super::Answer;
use crate::{admin::escape, cli::SessionChoice};

/// An ID, and which of several sessions that have it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Named<'a> {
    pub(super) id: &'a SessionId,
    pub(super) choice: &'a SessionChoice,
}

impl Named<'_> {
    /// Where the admin API has it, with a query that can be added to.
    pub(super) fn path(&self) -> String {
        let mut path = format!("/v1/sessions/{}?", escape(self.id.as_str()));
        for (name, value) in self.flags() {
            path += &format!("{name}={}&", escape(value));
        }
        path.truncate(path.len() - 1);
        path
    }

    /// What is wrong with it, if that is what the daemon answered.
    pub(super) fn explain(&self, answer: &Answer) -> Option<anyhow::Error> {
        let id = self.id;
        let words: String = self.flags().map(|(name, value)| format!(" --{name} {}", quote(value))).collect();
        let with = if words.is_empty() { words } else { format!(" with{words}") };
        Some(match answer.kind().as_str() {
            "no-such-session" => anyhow!("there is no session {id}{with}; `herd ps` lists those that live"),
            "no-such-pool" => {
                anyhow!("there is no session {id}{with}, for there is no such pool; {}", answer.detail())
            }
            "invalid-tenant" => anyhow!("there is no session {id}{with}: {}", answer.detail()),
            "ambiguous-session" => anyhow!("there are several sessions {id}; choose one with {}", choices(answer)),
            _ => return None,
        })
    }

    fn flags(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let SessionChoice { pool, tenant } = self.choice;
        let flags = [("pool", pool.as_deref()), ("tenant", tenant.as_deref())];
        flags.into_iter().filter_map(|(name, value)| Some((name, value?)))
    }
}

/// The flags that name one of several sessions.
fn choices(answer: &Answer) -> String {
    #[derive(Deserialize)]
    struct Ambiguous {
        candidates: Vec<Candidate>,
    }
    #[derive(Deserialize)]
    struct Candidate {
        pool: String,
        tenant: Option<String>,
    }
    let Ok(Ambiguous { candidates }) = serde_json::from_slice(&answer.body) else {
        return "--pool and --tenant".to_owned();
    };
    let tenants = candidates.iter().any(|candidate| candidate.tenant.is_some());
    let flags = |Candidate { pool, tenant }: Candidate| match tenant {
        Some(tenant) => format!("--pool {} --tenant {}", quote(&pool), quote(&tenant)),
        None if tenants => format!("--pool {} --tenant ''", quote(&pool)),
        None => format!("--pool {}", quote(&pool)),
    };
    candidates.into_iter().map(flags).collect::<Vec<_>>().join(", or ")
}

/// As one word of a shell: what is suggested is pasted, and a tenant may be called `$(reboot)`.
fn quote(text: &str) -> String {
    // Arguments hold no zero byte, which is all that it refuses.
    shlex::try_quote(text).map_or_else(|_| format!("{text:?}"), std::borrow::Cow::into_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_suggested_is_safe_to_paste() {
        assert_eq!(["acme", "", "$(id)", "it's"].map(quote), ["acme", "''", "'$(id)'", "\"it's\""]);
    }

    #[test]
    fn hostile_ids_stay_in_their_segment_of_the_path() {
        let id = SessionId::new("a/../b?c#d%e").unwrap();
        let choice = SessionChoice { pool: None, tenant: None };
        assert_eq!(Named { id: &id, choice: &choice }.path(), "/v1/sessions/a%2F..%2Fb%3Fc%23d%25e");
        let choice = SessionChoice { pool: Some("a&b".to_owned()), tenant: Some(String::new()) };
        assert_eq!(Named { id: &id, choice: &choice }.path(), "/v1/sessions/a%2F..%2Fb%3Fc%23d%25e?pool=a%26b&tenant=");
    }
}
