use std::{
    fs::{self, File},
    io::Read as _,
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use anyhow::{Context as _, anyhow, bail};
use rustix::{fs::OFlags, process::geteuid};
use rustls::{Error, InconsistentKeys, crypto::aws_lc_rs, sign::CertifiedKey};
use rustls_pki_types::{
    CertificateDer, PrivateKeyDer, UnixTime,
    pem::{self, PemObject as _},
};
use webpki::{EndEntityCert, KeyUsage};
use zeroize::Zeroizing;

use crate::config::settings;

/// No certificate or key is nearly as long.
const MOST_BYTES: u64 = 1 << 20;

/// A certificate with its key, as they were read from their files.
#[derive(Debug)]
pub(crate) struct Certificate {
    pub(super) key: CertifiedKey,
    pub(super) chain: Vec<Vec<u8>>,
    pub(super) read: Stamps,
    /// `None`: it could not be told.
    pub(super) expires: Option<SystemTime>,
    names: Vec<String>,
    /// What is no mistake and yet hardly what is wanted, one sentence each.
    warnings: Vec<String>,
}

impl Certificate {
    /// Reads a chain of certificates and the key of the first: PEM (RFC 7468), the key as PKCS#8, PKCS#1 or SEC1.
    ///
    /// # Errors
    /// If a file cannot be read or holds something else, or if the two do not belong together.
    pub(crate) fn read(files: &settings::Tls) -> anyhow::Result<Self> {
        let cert_file = PemFile::read("cert_file", &files.cert_file)?;
        let key_file = PemFile::read("key_file", &files.key_file)?;
        let chain = cert_file.chain()?;
        let key = key_file.key()?;
        let key = match CertifiedKey::from_der(chain, key, &aws_lc_rs::default_provider()) {
            Ok(key) => key,
            Err(Error::InconsistentKeys(InconsistentKeys::KeyMismatch)) => bail!(
                "the key in {} is not that of the first certificate in {}; a key and a certificate that were made \
                 together are needed, and the server's own certificate comes before those of its issuers",
                key_file.path.display(),
                cert_file.path.display()
            ),
            Err(Error::InvalidCertificate(error)) => bail!(
                "the first certificate in {} cannot be used: {error:?}; an X.509 certificate of version 3 is needed",
                cert_file.path.display()
            ),
            Err(error) => {
                let path = key_file.path.display();
                return Err(error).with_context(|| {
                    format!("the key in {path} cannot be used; ECDSA (P-256, P-384), Ed25519 and RSA (2048 to 8192 bits) can")
                });
            }
        };
        let chain = key.cert.iter().map(|certificate| certificate.to_vec()).collect();
        let mut certificate = Self {
            chain,
            read: Stamps { cert: Some(cert_file.stamp), key: Some(key_file.stamp) },
            expires: None,
            names: Vec::new(),
            warnings: Vec::new(),
            key,
        };
        certificate.judge(&key_file);
        Ok(certificate)
    }

    /// Says which certificate is used from now on, and what is odd about it.
    pub(super) fn announce(&self, setting: &str) {
        let expires = self.expires.map(|expires| humantime::format_rfc3339_seconds(expires).to_string());
        tracing::info!(setting, names = ?self.names, expires, "the certificate was read");
        for warning in &self.warnings {
            tracing::warn!(setting, "{warning}");
        }
    }

    /// Finds out what one should know.
    fn judge(&mut self, key_file: &PemFile) {
        if key_file.stamp.mode & 0o007 != 0 {
            let path = key_file.path.display();
            self.warnings.push(format!("every user of this host may read the key in {path}: chmod o= {path}"));
        }
        let Some(Ok(leaf)) = self.key.cert.first().map(EndEntityCert::try_from) else { return };
        self.names = leaf.valid_dns_names().map(str::to_owned).collect();
        // Nothing is trusted here, so that no path is found; but a certificate's time is looked at before its path.
        let at = |time| leaf.verify_for_usage(&[], &[], &[], time, KeyUsage::server_auth(), None, None).err();
        if let Some(webpki::Error::CertExpired { not_after, .. }) = at(END_OF_TIME) {
            self.expires = Some(SystemTime::UNIX_EPOCH + Duration::from_secs(not_after.as_secs()));
        }
        let problem = match at(UnixTime::now()) {
            Some(webpki::Error::CertExpired { .. }) => "has expired",
            Some(webpki::Error::CertNotValidYet { .. }) => "is not valid yet (or this host's clock is wrong)",
            Some(webpki::Error::RequiredEkuNotFoundContext(_)) => "is not meant for servers",
            _ => return,
        };
        self.warnings.push(format!("the certificate {problem}, and clients refuse it"));
    }

    /// What is no mistake and yet hardly what is wanted, one sentence each.
    #[cfg(test)]
    pub(super) fn warnings(&self) -> &[String] {
        &self.warnings
    }
}

/// Later than any certificate can say.
const END_OF_TIME: UnixTime = UnixTime::since_unix_epoch(Duration::from_secs(u64::MAX));

/// How a file was when it was read.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
    mode: u32,
}

impl Stamp {
    fn of(metadata: &fs::Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            // A file whose permissions were mended is the same, but can be read now.
            changed: (metadata.ctime(), metadata.ctime_nsec()),
            mode: metadata.mode(),
        }
    }
}

/// How both files were. `None`: there was none, or it could not be looked at.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Stamps {
    cert: Option<Stamp>,
    key: Option<Stamp>,
}

impl Stamps {
    /// How they are now. Links are followed, which is how some tools swap both at once.
    pub(super) fn of(files: &settings::Tls) -> Self {
        let stamp = |path: &Path| fs::metadata(path).ok().map(|metadata| Stamp::of(&metadata));
        Self { cert: stamp(&files.cert_file), key: stamp(&files.key_file) }
    }
}

/// A file and what is in it, which is forgotten for good afterwards.
struct PemFile {
    /// The setting that names it.
    field: &'static str,
    path: PathBuf,
    stamp: Stamp,
    bytes: Zeroizing<Vec<u8>>,
}

impl PemFile {
    fn read(field: &'static str, path: &Path) -> anyhow::Result<Self> {
        let opened = File::options()
            .read(true)
            // Nobody has to write to a pipe for this to go on.
            .custom_flags(OFlags::NONBLOCK.bits().cast_signed())
            .open(path);
        let cannot = || format!("{field} {} cannot be read", path.display());
        let file = match opened {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
                let user = geteuid().as_raw();
                return Err(error)
                    .with_context(|| format!("{}; let the user {user}, who runs herd, read it", cannot()));
            }
            Err(error) => return Err(error).with_context(cannot),
        };
        // The state first: what is written to the file from now on makes another state.
        let metadata = file.metadata().with_context(cannot)?;
        if !metadata.is_file() {
            bail!("{field} {} is not a file", path.display());
        }
        if metadata.len() > MOST_BYTES {
            bail!("{field} {} is larger than 1 MiB, which no certificate or key is", path.display());
        }
        // What is read with room to spare is not copied about in memory.
        let mut bytes = Zeroizing::new(Vec::with_capacity(usize::try_from(metadata.len())? + 1024));
        file.take(MOST_BYTES).read_to_end(&mut bytes).with_context(cannot)?;
        Ok(Self { field, path: path.to_owned(), stamp: Stamp::of(&metadata), bytes })
    }

    fn chain(&self) -> anyhow::Result<Vec<CertificateDer<'static>>> {
        let chain = CertificateDer::pem_slice_iter(&self.bytes).collect::<Result<Vec<_>, _>>();
        match chain {
            Ok(chain) if chain.is_empty() => Err(self.lacks("certificate", "-----BEGIN CERTIFICATE-----")),
            Ok(chain) => Ok(chain),
            Err(error) => Err(self.broken(&error)),
        }
    }

    fn key(&self) -> anyhow::Result<PrivateKeyDer<'static>> {
        if self.mentions("ENCRYPTED") {
            let path = self.path.display();
            bail!(
                "{} {path} holds a key that is encrypted; nobody is there to type its passphrase: decrypt it with \
                 `openssl pkey -in {path} -out NEW_FILE` and keep that file to yourself",
                self.field
            );
        }
        match PrivateKeyDer::from_pem_slice(&self.bytes) {
            Ok(key) => Ok(key),
            Err(pem::Error::NoItemsFound) => Err(self.lacks("private key", "-----BEGIN PRIVATE KEY-----")),
            Err(error) => Err(self.broken(&error)),
        }
    }

    /// There is nothing of the kind in the file.
    fn lacks(&self, kind: &str, begins: &str) -> anyhow::Error {
        let Self { field, path, .. } = self;
        let path = path.display();
        let hint = if self.bytes.is_empty() {
            "it is empty"
        } else if self.bytes[0] == 0x30 {
            "it seems to be DER, which `openssl x509 -inform der` or `openssl pkey -inform der` makes PEM of"
        } else if self.mentions("PRIVATE KEY-----") || self.mentions("BEGIN CERTIFICATE-----") {
            "perhaps cert_file and key_file are mixed up"
        } else {
            "it holds something else"
        };
        anyhow!("{field} {path} has no {kind}: {hint}; a PEM file with a line `{begins}` is needed")
    }

    /// It begins like PEM, and goes on in another way. What the file holds is not shown.
    fn broken(&self, error: &pem::Error) -> anyhow::Error {
        let what = match error {
            pem::Error::MissingSectionEnd { .. } => "a section has no end; perhaps it was cut off",
            pem::Error::IllegalSectionStart { .. } => "a section has no proper beginning",
            pem::Error::Base64Decode(_) => "a section is not base64",
            pem::Error::SectionTooLarge => "a section is too large",
            _ => "it is malformed",
        };
        anyhow!("{} {} is not proper PEM: {what}", self.field, self.path.display())
    }

    fn mentions(&self, text: &str) -> bool {
        self.bytes.windows(text.len()).any(|window| window == text.as_bytes())
    }
}
