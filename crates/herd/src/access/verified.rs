use std::{
    collections::HashMap,
    fmt,
    sync::{PoisonError, RwLock},
};

use super::{jwt::Verified, token::TokenHash};

/// How many parts there are. Threads seldom meet in one, and when they do, they only read.
const SHARDS: usize = 16;

/// How many tokens one part remembers.
const SHARD_LEN: usize = 256;

/// Tokens that have been verified, until they expire, so that a signature is checked once and not for each request.
///
/// Only tokens that were good come in, so that nobody can fill it who has none; what is bad is verified each time, which
/// is what it would cost without a memory too. When a part is full, what has expired goes, or else what came first.
pub(super) struct VerifiedTokens([RwLock<Shard>; SHARDS]);

#[derive(Default)]
struct Shard {
    tokens: HashMap<TokenHash, Remembered>,
    /// How many have come so far.
    count: u64,
}

struct Remembered {
    verified: Verified,
    number: u64,
}

impl VerifiedTokens {
    pub(super) fn new() -> Self {
        Self(std::array::from_fn(|_| RwLock::default()))
    }

    /// What the token said when it was verified. It may have expired since.
    pub(super) fn find(&self, token: &TokenHash) -> Option<Verified> {
        // Nothing in here can panic half-way through a change.
        let shard = self.shard(token).read().unwrap_or_else(PoisonError::into_inner);
        shard.tokens.get(token).map(|remembered| remembered.verified.clone())
    }

    /// Remembers a token that is good. `now` is in milliseconds of Unix time.
    pub(super) fn remember(&self, token: TokenHash, verified: Verified, now: u64) {
        let mut shard = self.shard(&token).write().unwrap_or_else(PoisonError::into_inner);
        if shard.tokens.len() >= SHARD_LEN {
            shard.make_room(now);
        }
        shard.count += 1;
        let number = shard.count;
        shard.tokens.insert(token, Remembered { verified, number });
    }

    fn shard(&self, token: &TokenHash) -> &RwLock<Shard> {
        &self.0[token.spread() % SHARDS]
    }
}

impl Shard {
    fn make_room(&mut self, now: u64) {
        self.tokens.retain(|_, remembered| remembered.verified.until > now);
        if self.tokens.len() >= SHARD_LEN {
            let first = self.tokens.iter().min_by_key(|(_, remembered)| remembered.number).map(|(token, _)| *token);
            if let Some(first) = first {
                self.tokens.remove(&first);
            }
        }
    }
}

impl fmt::Debug for VerifiedTokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("VerifiedTokens(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verified(until: u64) -> Verified {
        Verified { member: None, session: None, until }
    }

    fn token(number: u64) -> TokenHash {
        TokenHash::of(&number.to_be_bytes())
    }

    fn len(tokens: &VerifiedTokens) -> usize {
        tokens.0.iter().map(|shard| shard.read().unwrap().tokens.len()).sum()
    }

    #[test]
    fn there_are_never_more_than_its_bound_and_the_newest_are_among_them() {
        let tokens = VerifiedTokens::new();
        for number in 0..10_000 {
            tokens.remember(token(number), verified(2), 1);
            assert!(tokens.find(&token(number)).is_some());
        }
        assert_eq!(len(&tokens), SHARDS * SHARD_LEN);
        // Those of the last round are so few that no part has had to let one of them go.
        assert!((9_000..10_000).all(|number| tokens.find(&token(number)).is_some()));
        assert!(tokens.find(&token(0)).is_none());
    }

    #[test]
    fn what_has_expired_goes_before_anything_that_is_good() {
        let tokens = VerifiedTokens::new();
        for number in 0..1000 {
            tokens.remember(token(number), verified(100), 1);
        }
        for number in 1000..10_000 {
            tokens.remember(token(number), verified(2), 1);
        }
        let good = |tokens: &VerifiedTokens| (0..1000).filter(|number| tokens.find(&token(*number)).is_some()).count();
        let before = good(&tokens);
        assert_eq!(before, 0, "as long as nothing has expired, what came first goes");
        for number in 0..1000 {
            tokens.remember(token(number), verified(100), 2);
        }
        assert_eq!(good(&tokens), 1000);
        for number in 10_000..12_500 {
            tokens.remember(token(number), verified(100), 2);
        }
        assert_eq!(good(&tokens), 1000, "the others had expired, and made room");
    }

    #[test]
    fn a_token_that_is_verified_again_takes_no_second_place() {
        let tokens = VerifiedTokens::new();
        for _ in 0..10 {
            tokens.remember(token(1), verified(2), 1);
        }
        assert_eq!(len(&tokens), 1);
    }
}
