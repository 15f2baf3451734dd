//! Signs what is posted, so that receivers can tell it from what others post.
//!
//! The scheme is that of the Standard Webhooks specification, for which receivers find libraries in most languages: the
//! HMAC-SHA256 of `ID.TIMESTAMP.BODY` in Base64, behind the version `v1,`.

use std::{fmt, path::Path};

use anyhow::{Context as _, ensure};
use aws_lc_rs::hmac;
use base64::{Engine as _, engine::general_purpose::STANDARD};

use crate::access::secret_file;

/// Shorter keys, in bytes, are refused: they could be guessed.
const SHORTEST: usize = 16;
/// What stands before a key that is written in Base64.
const PREFIX: &str = "whsec_";

/// The key that a receiver shares.
#[derive(Clone)]
pub(super) struct Key {
    bytes: Vec<u8>,
    hmac: hmac::Key,
}

impl Key {
    /// Reads the first line of the file: `whsec_` and Base64, or the key itself.
    ///
    /// # Errors
    /// If it cannot be read or is no key. What it holds is not told.
    pub(super) fn read(path: &Path) -> anyhow::Result<Self> {
        let content = secret_file::read(path).context("the key of a webhook is not to be had")?;
        if let Some(advice) = secret_file::exposed(path) {
            tracing::warn!("{advice}");
        }
        let refused = || {
            let shown = path.display();
            format!("{shown} holds no key for a webhook; make one with `openssl rand -base64 32`")
        };
        let text = std::str::from_utf8(&content).ok().context("it is no text").with_context(refused)?;
        Self::parse(text.lines().next().unwrap_or_default().trim()).with_context(refused)
    }

    fn parse(text: &str) -> anyhow::Result<Self> {
        let bytes = match text.strip_prefix(PREFIX) {
            // The decoder's error would quote what it read.
            Some(encoded) => STANDARD.decode(encoded).ok().context("what follows `whsec_` is not Base64")?,
            None => text.as_bytes().to_vec(),
        };
        ensure!(bytes.len() >= SHORTEST, "it has {} bytes, and {SHORTEST} are the least", bytes.len());
        Ok(Self { hmac: hmac::Key::new(hmac::HMAC_SHA256, &bytes), bytes })
    }

    /// The value of `webhook-signature`.
    pub(super) fn sign(&self, id: &str, timestamp: u64, body: &[u8]) -> String {
        let mut context = hmac::Context::with_key(&self.hmac);
        context.update(format!("{id}.{timestamp}.").as_bytes());
        context.update(body);
        format!("v1,{}", STANDARD.encode(context.sign()))
    }
}

impl PartialEq for Key {
    /// Both sides are the operator's, so that the time this takes tells nobody anything.
    fn eq(&self, other: &Self) -> bool {
        self.bytes == other.bytes
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key")
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn the_signature_is_the_one_that_other_implementations_make() {
        // Made with Python's hmac and base64.
        let key = Key::parse("whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=").unwrap();
        let signature = key.sign("msg_1", 1_700_000_000, br#"{"events":[]}"#);
        assert_eq!(signature, "v1,2P8zc0lekgWG8PWjgOi003loennlDkfO3J09yulIAZA=");
        assert_eq!(key, Key::parse("0123456789abcdef0123456789abcdef").unwrap(), "the same key, written plainly");
        assert_ne!(key.sign("msg_2", 1_700_000_000, br#"{"events":[]}"#), signature);
        assert_ne!(key.sign("msg_1", 1_700_000_001, br#"{"events":[]}"#), signature);
    }

    #[test]
    fn what_is_no_key_is_refused_without_being_told() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        for text in ["short-secret", "whsec_%%%secret-secret-secret%%%", "whsec_c2hvcnQ="] {
            fs::write(&path, text).unwrap();
            let told = format!("{:#}", Key::read(&path).unwrap_err());
            assert!(told.contains("openssl rand") && !told.contains("secret-") && !told.contains("c2hv"), "{told}");
        }
        let missing = format!("{:#}", Key::read(&directory.path().join("none")).unwrap_err());
        assert!(missing.contains("No such file"), "{missing}");
        assert_eq!(format!("{:?}", Key::parse("0123456789abcdef").unwrap()), "Key");
    }
}
