use std::{
    fmt::Display,
    io::{self, Read as _},
};

use anyhow::Context as _;
use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use serde_json::json;

use super::token::{self, TokenHash};
use crate::{cli::TokenArgs, console};

/// What tokens begin with, so that whoever finds one knows what it is.
const PREFIX: &str = "herd_";

/// `herd token`: makes a bearer token and its hash, or the hash of one from standard input.
///
/// # Errors
/// If the system has no random numbers, what is to be hashed can be no token, or nothing can be written.
pub(crate) fn run(args: &TokenArgs) -> anyhow::Result<()> {
    if args.hash {
        let hash = hash_of(io::stdin().lock())?;
        return print(args.json, &json!({ "sha256": hash.to_string() }), format_args!("sha256: {hash}\n"));
    }
    let token = generate()?;
    let hash = TokenHash::of(token.as_bytes());
    let for_programs = json!({ "token": token, "sha256": hash.to_string() });
    print(args.json, &for_programs, format_args!("token: {token}\nsha256: {hash}\n"))
}

fn print(as_json: bool, json: &serde_json::Value, text: impl Display) -> anyhow::Result<()> {
    if as_json { console::print(format_args!("{json:#}\n")) } else { console::print(text) }
}

/// 256 random bits.
fn generate() -> anyhow::Result<String> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).context("the system gave no random numbers")?;
    Ok(format!("{PREFIX}{}", BASE64_URL_SAFE_NO_PAD.encode(bytes)))
}

/// The hash of the token in the first line.
fn hash_of(input: impl io::Read) -> anyhow::Result<TokenHash> {
    let mut text = String::new();
    let read = input.take(64 * 1024).read_to_string(&mut text);
    read.context("cannot read a token from standard input")?;
    let line = token::bare(text.lines().next().unwrap_or_default().trim());
    token::check(line).context("the first line of standard input can be no token")?;
    Ok(TokenHash::of(line.as_bytes()))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn tokens_are_256_random_bits_in_a_form_that_needs_no_escaping() {
        let tokens: HashSet<_> = (0..100).map(|_| generate().unwrap()).collect();
        assert_eq!(tokens.len(), 100);
        for text in &tokens {
            let bits = text.strip_prefix("herd_").unwrap();
            assert_eq!(BASE64_URL_SAFE_NO_PAD.decode(bits).unwrap().len(), 32);
            token::check(text).unwrap();
        }
    }

    #[test]
    fn a_token_is_hashed_without_the_end_of_its_line() {
        let hash = hash_of("  a-token-of-some-length\r\n".as_bytes()).unwrap();
        assert!(hash.fits(b"a-token-of-some-length"));
        let printed = hash_of("token: a-token-of-some-length\nsha256: 00\n".as_bytes()).unwrap();
        assert!(printed.fits(b"a-token-of-some-length"), "what `herd token` printed");
        assert!(hash_of("short\n".as_bytes()).is_err());
        assert!(hash_of("".as_bytes()).is_err());
    }
}
