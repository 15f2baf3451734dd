use std::{
    fmt,
    hash::{Hash, Hasher},
    path::Path,
};

use anyhow::{Context as _, bail};
use aws_lc_rs::{constant_time::verify_slices_are_equal, digest};

use super::secret_file;

/// The shortest token, in bytes. At 6 bits a byte these are 96 bits, which nobody guesses.
pub(crate) const MIN_LEN: usize = 16;

/// The longest token, in bytes; JSON Web Tokens too.
pub(crate) const MAX_LEN: usize = 8 * 1024;

/// What stands before a hash where a token could stand.
const HASH_MARK: &str = "sha256:";

/// What `herd token` prints before a token. There is a space in it, which no token has.
const TOKEN_MARK: &str = "token: ";

/// The SHA-256 of a token, which is all that herd keeps of it.
///
/// Tokens are looked up by it in a `HashMap`. How long that takes tells nothing about the tokens that are known: which
/// entries are compared follows from a hash of the hash under a key that the process drew at random (`RandomState`), and
/// the comparison itself takes as long whatever the bytes are. Even without that a caller could not choose the hash of
/// what they present bit by bit, and a part of a token's hash does not help to find a token of 128 random bits.
#[derive(Clone, Copy)]
pub(crate) struct TokenHash([u8; 32]);

impl TokenHash {
    /// The hash of a token that somebody has presented.
    pub(crate) fn of(token: &[u8]) -> Self {
        let digest = digest::digest(&digest::SHA256, token);
        Self(digest.as_ref().try_into().expect("SHA-256 has 32 bytes"))
    }

    /// A hash that was computed elsewhere.
    pub(crate) fn known(hash: [u8; 32]) -> Self {
        Self(hash)
    }

    /// A number that is as good as random, for spreading tokens over a few places.
    pub(super) fn spread(&self) -> usize {
        usize::from(self.0[31])
    }

    /// Reads the first line of a file, which is the token, with or without the `token: ` that `herd token` prints before
    /// it, or `sha256:` and its hash in hexadecimal.
    ///
    /// # Errors
    /// If the file cannot be read, or its first line is neither.
    pub(crate) fn read(path: &Path) -> anyhow::Result<Self> {
        let shown = path.display();
        let content = secret_file::read(path)?;
        let content = str::from_utf8(&content).ok().with_context(|| format!("{shown} is no text; {REMEDY}"))?;
        let line = content.lines().next().unwrap_or_default().trim();
        if let Some(hash) = line.strip_prefix(HASH_MARK) {
            let hash = from_hex(hash.trim());
            return hash.map(Self).with_context(|| {
                format!(
                    "{shown} does not have 64 hexadecimal digits after `{HASH_MARK}`; `herd token --hash` makes them"
                )
            });
        }
        let line = bare(line);
        check(line).with_context(|| format!("the first line of {shown} can be no token"))?;
        if let Some(exposed) = secret_file::exposed(path) {
            tracing::warn!("{exposed}");
        }
        Ok(Self::of(line.as_bytes()))
    }

    /// Whether this is the token. It takes as long for every token of one length.
    pub(crate) fn fits(&self, token: &[u8]) -> bool {
        *self == Self::of(token)
    }
}

/// The token in a line, which may be one that `herd token` has printed.
pub(super) fn bare(line: &str) -> &str {
    line.strip_prefix(TOKEN_MARK).map_or(line, str::trim_start)
}

const REMEDY: &str = "write a token, or `sha256:` and its hash, there (`herd token` makes both)";

/// Checks that a text can be a bearer token.
///
/// # Errors
/// What is wrong with it, without a byte of it.
pub(crate) fn check(token: &str) -> anyhow::Result<()> {
    if token.is_empty() {
        bail!("it is empty; {REMEDY}");
    }
    if !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        bail!("a token is visible ASCII without spaces; {REMEDY}");
    }
    if token.len() < MIN_LEN {
        bail!("a token of {} bytes can be guessed; it needs at least {MIN_LEN} (`herd token` makes one)", token.len());
    }
    if token.len() > MAX_LEN {
        bail!("a token of {} bytes is too long to be sent; it may have {MAX_LEN}", token.len());
    }
    Ok(())
}

fn from_hex(text: &str) -> Option<[u8; 32]> {
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    let mut bytes = [0; 32];
    for (byte, digits) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        let digit = |at: usize| char::from(digits[at]).to_digit(16);
        *byte = u8::try_from(digit(0)? * 16 + digit(1)?).expect("two hexadecimal digits make a byte");
    }
    Some(bytes)
}

impl PartialEq for TokenHash {
    fn eq(&self, other: &Self) -> bool {
        verify_slices_are_equal(&self.0, &other.0).is_ok()
    }
}

impl Eq for TokenHash {}

impl Hash for TokenHash {
    fn hash<H: Hasher>(&self, state: &mut H) {
        // Half of it is as good as random already.
        state.write(&self.0[..16]);
    }
}

/// As the configuration has it.
impl fmt::Display for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Not even the hash: of a token that somebody has thought up, it could be enough.
impl fmt::Debug for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenHash(..)")
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use proptest::prelude::*;
    use tempfile::NamedTempFile;

    use super::*;

    const TOKEN: &str = "herd_0123456789abcdef";
    /// By `printf %s herd_0123456789abcdef | sha256sum`.
    const HEX: &str = "1a7cdf4d77be096c389cfeee2500b4877c02fba4a262c9308ce43ef52b6e29e4";

    fn read(content: &str) -> anyhow::Result<TokenHash> {
        let file = NamedTempFile::new().unwrap();
        fs::write(file.path(), content).unwrap();
        TokenHash::read(file.path())
    }

    #[test]
    fn a_file_holds_a_token_or_its_hash_in_its_first_line() {
        let printed = format!("token: {TOKEN}\nsha256: {HEX}\n");
        let lines = [&format!("  {TOKEN} \r\nmore"), &format!("sha256:{HEX}\n"), &format!("sha256: {HEX}"), &printed];
        for content in lines.into_iter().map(String::as_str).chain([TOKEN]) {
            let hash = read(content).unwrap();
            assert!(hash.fits(TOKEN.as_bytes()), "{content}");
            assert!(!hash.fits(b"herd_0123456789abcdee"));
            assert_eq!(hash.to_string(), HEX);
        }
    }

    #[test]
    fn what_can_be_no_token_is_refused_without_being_shown() {
        for (content, expected) in [
            ("short", "a token of 5 bytes can be guessed"),
            ("two words of a token", "visible ASCII without spaces"),
            ("\nhidden-hidden-hidden", "can be no token: it is empty"),
            ("sha256:abc", "64 hexadecimal digits"),
            (&format!("sha256:{}", "zz".repeat(32)), "64 hexadecimal digits"),
            (&format!("sha256:{}", "é".repeat(32)), "64 hexadecimal digits"),
            (&"x".repeat(9000), "too long"),
        ] {
            let said = format!("{:#}", read(content).unwrap_err());
            assert!(said.contains(expected), "{said}");
            assert!(!said.contains(content), "{said}");
        }
        let hash = TokenHash::of(TOKEN.as_bytes());
        assert!(!format!("{hash:?}").contains(&HEX[..8]));
    }

    proptest! {
        #[test]
        fn hashes_are_equal_only_if_all_bytes_are(bytes: [u8; 32], at in 0_usize..32, bit in 0_u32..8) {
            let mut other = bytes;
            prop_assert!(TokenHash::known(bytes) == TokenHash::known(other));
            other[at] ^= 1 << bit;
            prop_assert!(TokenHash::known(bytes) != TokenHash::known(other));
        }

        #[test]
        fn a_hash_reads_back_as_it_was_written(bytes: [u8; 32]) {
            let text = TokenHash::known(bytes).to_string();
            prop_assert_eq!(from_hex(&text), Some(bytes));
            prop_assert_eq!(from_hex(&text.to_uppercase()), Some(bytes));
        }
    }
}
