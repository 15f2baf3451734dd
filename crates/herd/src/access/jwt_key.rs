use std::{fmt, path::Path};

use anyhow::{Context as _, bail};
use aws_lc_rs::{
    hmac, rsa,
    signature::{ED25519, ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256, RsaParameters},
};
use rustls_pki_types::pem::{SectionKind, from_buf};

use super::secret_file;
use crate::config::settings::JwtAlgorithm;

/// The shortest secret for HS256, in bytes: as long as the hash (RFC 7518 §3.2).
const MIN_SECRET: usize = 32;

/// The shortest RSA key, in bits (RFC 7518 §3.3).
const MIN_RSA: u32 = 2048;

/// How many public keys a file may have: one that is used and one that replaces it are what is needed.
const MAX_KEYS: usize = 8;

/// What signatures are checked with. The algorithm belongs to the key; a token has no say in it.
pub(super) enum JwtKey {
    Hs256(Box<hmac::Key>),
    EdDsa(Vec<ParsedPublicKey>),
    Rs256(Vec<ParsedPublicKey>),
}

impl JwtKey {
    /// Reads the key for this algorithm.
    ///
    /// # Errors
    /// If the file cannot be read, or holds something else: then what it holds, as far as that is known.
    pub(super) fn read(algorithm: JwtAlgorithm, path: &Path) -> anyhow::Result<Self> {
        let content = secret_file::read(path)?;
        let shown = path.display();
        match algorithm {
            JwtAlgorithm::Hs256 => {
                let secret = secret(&content).with_context(|| format!("{shown} holds no secret for HS256"))?;
                if let Some(exposed) = secret_file::exposed(path) {
                    tracing::warn!("{exposed}");
                }
                Ok(Self::Hs256(Box::new(hmac::Key::new(hmac::HMAC_SHA256, secret))))
            }
            JwtAlgorithm::EdDsa => {
                let keys = public_keys(&content, ed25519).with_context(|| {
                    format!("{shown} holds no public key for EdDSA (Ed25519, `-----BEGIN PUBLIC KEY-----`)")
                })?;
                Ok(Self::EdDsa(keys))
            }
            JwtAlgorithm::Rs256 => {
                let keys = public_keys(&content, rsa).with_context(|| {
                    format!("{shown} holds no public key for RS256 (RSA, `-----BEGIN PUBLIC KEY-----`)")
                })?;
                Ok(Self::Rs256(keys))
            }
        }
    }

    /// Its algorithm as `alg` names it (RFC 7518 §3.1, RFC 8037 §3.1).
    pub(super) fn algorithm(&self) -> &'static str {
        match self {
            Self::Hs256(_) => "HS256",
            Self::EdDsa(_) => "EdDSA",
            Self::Rs256(_) => "RS256",
        }
    }

    /// Whether the message was signed with it. Secrets are compared in constant time.
    pub(super) fn has_signed(&self, message: &[u8], signature: &[u8]) -> bool {
        match self {
            Self::Hs256(key) => hmac::verify(key, message, signature).is_ok(),
            Self::EdDsa(keys) | Self::Rs256(keys) => keys.iter().any(|key| key.verify_sig(message, signature).is_ok()),
        }
    }
}

/// Nothing of the key.
impl fmt::Debug for JwtKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.algorithm())
    }
}

/// A secret is the whole file. The end of the last line of a text does not count, since editors and `echo` write one.
fn secret(content: &[u8]) -> anyhow::Result<&[u8]> {
    if let Some(kind) = kind_of_key(content) {
        // Whoever knows a public key could sign with it if it were taken for a secret (RFC 8725 §2.1).
        bail!("it holds {kind}; a secret is {MIN_SECRET} or more random bytes, for example of `openssl rand -hex 32`");
    }
    let is_text = content.iter().all(|byte| byte.is_ascii_graphic() || matches!(byte, b' ' | b'\n' | b'\r'));
    let secret = match content {
        [secret @ .., b'\r', b'\n'] | [secret @ .., b'\n'] if is_text => secret,
        secret => secret,
    };
    if secret.len() < MIN_SECRET {
        bail!(
            "it has {} bytes, and HS256 needs at least {MIN_SECRET} (RFC 7518 §3.2): `openssl rand -hex 32` makes 64",
            secret.len()
        );
    }
    Ok(secret)
}

fn public_keys(
    content: &[u8],
    parse: fn(&[u8]) -> anyhow::Result<ParsedPublicKey>,
) -> anyhow::Result<Vec<ParsedPublicKey>> {
    let mut keys = Vec::new();
    let mut rest = content;
    // What the parser has to say may quote the file.
    while let Some((kind, der)) = from_buf(&mut rest).ok().context("its PEM is broken; make it anew")? {
        if kind != SectionKind::PublicKey {
            break;
        }
        keys.push(parse(&der)?);
    }
    // A private key after a public one is no better than one alone.
    let stranger = kind_of_key(content).filter(|kind| *kind != PUBLIC_KEY);
    match stranger {
        Some(kind) => bail!("it holds {kind}"),
        None if keys.is_empty() => bail!("it holds no PEM; `openssl pkey -in PRIVATE.pem -pubout` writes a public key"),
        None if keys.len() > MAX_KEYS => bail!("it holds {} keys, and may hold {MAX_KEYS}", keys.len()),
        None => Ok(keys),
    }
}

fn ed25519(der: &[u8]) -> anyhow::Result<ParsedPublicKey> {
    match ParsedPublicKey::new(&ED25519, der) {
        Ok(key) => Ok(key),
        Err(_) if rsa_bits(der).is_some() => bail!("it holds an RSA key, which is for RS256"),
        Err(_) => bail!(
            "it holds a public key of another kind, such as ECDSA or Ed448; `openssl genpkey -algorithm ed25519` makes one that fits"
        ),
    }
}

fn rsa(der: &[u8]) -> anyhow::Result<ParsedPublicKey> {
    match rsa_bits(der) {
        Some(bits) if bits < MIN_RSA => {
            bail!("it holds an RSA key of {bits} bits, and RS256 needs at least {MIN_RSA} (RFC 7518 §3.3)")
        }
        Some(bits) => ParsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, der)
            .ok()
            .with_context(|| format!("it holds an RSA key of {bits} bits that cannot be used; 2048 to 8192 can")),
        None if ParsedPublicKey::new(&ED25519, der).is_ok() => bail!("it holds an Ed25519 key, which is for EdDSA"),
        None => {
            bail!("it holds a public key of another kind, such as ECDSA; `openssl genrsa 3072` makes one that fits")
        }
    }
}

/// How long the modulus is, if this is the public key of RSA (RFC 5280 §4.1.2.7).
fn rsa_bits(der: &[u8]) -> Option<u32> {
    let key = rsa::PublicKey::from_der(der).ok()?;
    RsaParameters::public_modulus_len(key.as_ref()).ok()
}

const PUBLIC_KEY: &str = "a public key";

/// What kind of key a file has, other than a plain secret.
fn kind_of_key(content: &[u8]) -> Option<&'static str> {
    let text = String::from_utf8_lossy(content);
    let labels = || text.lines().filter_map(|line| line.trim().strip_prefix("-----BEGIN "));
    let first = labels().find(|label| !label.starts_with("PUBLIC KEY")).or_else(|| labels().next());
    match first {
        Some(label) if label.contains("PRIVATE KEY") => Some(
            "a private key, which only the issuer should have; \
             `openssl pkey -in PRIVATE.pem -pubout` writes its public key",
        ),
        Some(label) if label.starts_with("PUBLIC KEY") => Some(PUBLIC_KEY),
        Some(label) if label.starts_with("RSA PUBLIC KEY") => {
            Some("an RSA key in the older form (PKCS #1); `openssl rsa -RSAPublicKey_in -in FILE -pubout` converts it")
        }
        Some(label) if label.starts_with("CERTIFICATE") => {
            Some("a certificate; `openssl x509 -in FILE -noout -pubkey` writes its public key")
        }
        Some(_) => Some("PEM of another kind"),
        None if text.trim_start().starts_with('{') => Some("JSON, perhaps a JSON Web Key; convert it to PEM"),
        None if text.starts_with("ssh-") => Some("a key of OpenSSH; `ssh-keygen -e -m PKCS8 -f FILE` converts it"),
        None => None,
    }
}
