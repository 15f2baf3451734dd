use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime},
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use rcgen::{CertificateParams, KeyPair, PKCS_RSA_SHA256, SignatureAlgorithm, date_time_ymd};
use tempfile::TempDir;

use super::{Certificate, CertificateStore};
use crate::config::settings;

/// A certificate and its key in PEM.
struct Pair {
    cert: String,
    key: String,
}

impl Pair {
    fn of(params: &CertificateParams, key: &KeyPair) -> Self {
        Self { cert: params.self_signed(key).unwrap().pem(), key: key.serialize_pem() }
    }

    fn new() -> Self {
        Self::until(2090)
    }

    fn until(year: i32) -> Self {
        let mut params = CertificateParams::new(["herd.test".to_owned()]).unwrap();
        (params.not_before, params.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(year, 1, 1));
        Self::of(&params, &KeyPair::generate().unwrap())
    }
}

/// Where a certificate and its key are.
struct Place {
    directory: TempDir,
    files: settings::Tls,
}

impl Place {
    fn new() -> Self {
        let directory = TempDir::new().unwrap();
        let [cert_file, key_file] = ["cert.pem", "key.pem"].map(|name| directory.path().join(name));
        Self { directory, files: settings::Tls { cert_file, key_file } }
    }

    fn with(pair: &Pair) -> Self {
        let place = Self::new();
        place.put(&pair.cert, &pair.key);
        place
    }

    fn put(&self, cert: &str, key: &str) {
        Self::write(&self.files.cert_file, cert);
        Self::write(&self.files.key_file, key);
    }

    fn put_key(&self, key: &str) {
        Self::write(&self.files.key_file, key);
    }

    /// As tools for certificates do it: the file is there at once, or not at all.
    fn write(path: &PathBuf, text: &str) {
        let new = path.with_extension("new");
        fs::write(&new, text).unwrap();
        fs::set_permissions(&new, fs::Permissions::from_mode(0o600)).unwrap();
        fs::rename(new, path).unwrap();
    }

    #[track_caller]
    fn refusal(&self) -> String {
        format!("{:#}", Certificate::read(&self.files).expect_err("it is read"))
    }
}

fn pem(label: &str, der: &[u8]) -> String {
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", BASE64_STANDARD.encode(der))
}

/// The body of the first element in DER, and what comes after it.
fn element(der: &[u8]) -> (&[u8], &[u8]) {
    let (head, len) = match der[1] {
        short @ 0..=0x7f => (2, usize::from(short)),
        0x81 => (3, usize::from(der[2])),
        _ => (4, usize::from(u16::from_be_bytes([der[2], der[3]]))),
    };
    der[head..].split_at(len)
}

/// The key within a PKCS#8 structure (RFC 5208 §5), after its version and its algorithm.
fn inner_key(key: &KeyPair) -> Vec<u8> {
    let der = key.serialize_der();
    let (_version, rest) = element(element(&der).0);
    let (_algorithm, rest) = element(rest);
    element(rest).0.to_vec()
}

fn key_for(algorithm: &'static SignatureAlgorithm) -> KeyPair {
    KeyPair::generate_for(algorithm).unwrap()
}

#[test]
fn keys_of_all_kinds_are_read() {
    let (ec, ed, rsa) =
        (key_for(&rcgen::PKCS_ECDSA_P384_SHA384), key_for(&rcgen::PKCS_ED25519), key_for(&PKCS_RSA_SHA256));
    let cases = [
        (&ec, ec.serialize_pem()),
        (&ec, pem("EC PRIVATE KEY", &inner_key(&ec))),
        (&ed, ed.serialize_pem()),
        (&rsa, rsa.serialize_pem()),
        (&rsa, pem("RSA PRIVATE KEY", &inner_key(&rsa))),
    ];
    for (key, text) in cases {
        let pair = Pair::of(&CertificateParams::new(["herd.test".to_owned()]).unwrap(), key);
        let place = Place::with(&Pair { cert: pair.cert, key: text.clone() });
        let kind = text.lines().next().unwrap();
        assert!(Certificate::read(&place.files).is_ok(), "{kind}: {}", place.refusal());
    }
}

#[test]
fn mistakes_are_told_with_the_file_and_what_to_do_and_without_the_key() {
    let (pair, other) = (Pair::new(), Pair::new());
    let encrypted = pem("ENCRYPTED PRIVATE KEY", b"secret");
    let cut = &pair.key[..pair.key.len() / 2];
    let chain = format!("{}{}", other.cert, pair.cert);
    let garbled = pair.key.replace(|letter: char| letter.is_ascii_digit(), "!");
    let cases = [
        (&*pair.cert, "", "key_file", "key.pem has no private key: it is empty"),
        ("hello", &*pair.key, "cert_file", "cert.pem has no certificate: it holds something else; a PEM file"),
        (&*pair.key, &*pair.cert, "cert_file", "perhaps cert_file and key_file are mixed up"),
        ("0\u{1}DER", &*pair.key, "cert_file", "`openssl x509 -inform der`"),
        (&*pair.cert, &*encrypted, "key_file", "`openssl pkey -in "),
        (&*pair.cert, cut, "key_file", "a section has no end; perhaps it was cut off"),
        (&*pair.cert, &*garbled, "key_file", "a section is not base64"),
        (&*pair.cert, &*other.key, "key.pem", "the key in "),
        (&*chain, &*pair.key, "cert.pem", "the server's own certificate comes before those of its issuers"),
        (&*pem("CERTIFICATE", b"no certificate"), &*pair.key, "cert.pem", "the first certificate in "),
        (&*pair.cert, &*pem("PRIVATE KEY", b"no key"), "key.pem", "ECDSA (P-256, P-384), Ed25519 and RSA"),
    ];
    for (cert, key, place_of, expected) in cases {
        let place = Place::new();
        place.put(cert, key);
        let refusal = place.refusal();
        assert!(refusal.contains(expected) && refusal.contains(place_of), "{expected}: {refusal}");
        let secret = key.lines().filter(|line| line.len() > 20 && !line.starts_with('-'));
        assert!(secret.clone().all(|line| !refusal.contains(&line[..16])), "{refusal}");
    }
}

#[test]
fn what_is_no_file_is_refused_without_waiting_for_it() {
    let pair = Pair::new();
    let mut place = Place::with(&pair);
    place.files.key_file = place.directory.path().join("nothing");
    assert!(place.refusal().contains("key_file") && place.refusal().contains("nothing cannot be read"));
    place.files.key_file = place.directory.path().to_owned();
    assert!(place.refusal().contains("is not a file"), "{}", place.refusal());
    // Nobody ever writes to this one.
    place.files.key_file = place.directory.path().join("pipe");
    let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
    rustix::fs::mknodat(rustix::fs::CWD, &place.files.key_file, rustix::fs::FileType::Fifo, mode, 0).unwrap();
    assert!(place.refusal().contains("is not a file"), "{}", place.refusal());
    place.files.key_file = place.directory.path().join("large");
    fs::File::create(&place.files.key_file).unwrap().set_len(2 << 20).unwrap();
    assert!(place.refusal().contains("larger than 1 MiB"), "{}", place.refusal());
}

#[test]
fn what_is_odd_is_a_warning_and_no_mistake() {
    let place = Place::with(&Pair::new());
    let certificate = Certificate::read(&place.files).unwrap();
    assert_eq!(certificate.warnings(), [] as [&str; 0]);
    let year_2090 = SystemTime::UNIX_EPOCH + Duration::from_secs(3_786_912_000);
    assert_eq!(certificate.expires, Some(year_2090));

    fs::set_permissions(&place.files.key_file, fs::Permissions::from_mode(0o644)).unwrap();
    let warnings = Certificate::read(&place.files).unwrap().warnings().to_vec();
    assert!(warnings.len() == 1 && warnings[0].starts_with("every user of this host may read the key in "));

    // A group for such keys is usual.
    fs::set_permissions(&place.files.key_file, fs::Permissions::from_mode(0o640)).unwrap();
    assert_eq!(Certificate::read(&place.files).unwrap().warnings(), [] as [&str; 0]);

    let expired = Certificate::read(&Place::with(&Pair::until(2021)).files).unwrap();
    assert_eq!(expired.warnings(), ["the certificate has expired, and clients refuse it"]);

    let mut params = CertificateParams::new(["herd.test".to_owned()]).unwrap();
    params.not_before = date_time_ymd(2090, 1, 1);
    params.not_after = date_time_ymd(2091, 1, 1);
    let early = Certificate::read(&Place::with(&Pair::of(&params, &KeyPair::generate().unwrap())).files).unwrap();
    assert!(early.warnings()[0].contains("is not valid yet"), "{:?}", early.warnings());
}

#[test]
fn changed_files_are_used_once_both_of_them_are_there() {
    let (old, new) = (Pair::new(), Pair::new());
    let place = Place::with(&old);
    let store = CertificateStore::open("network.tls", &place.files).unwrap();
    let tls = store.tls();
    let first = tls.config();
    store.look();
    assert!(Arc::ptr_eq(&first, &tls.config()), "nothing has changed");
    // The new certificate is there, its key not yet, however often one looks.
    Place::write(&place.files.cert_file, &new.cert);
    for _ in 0..3 {
        store.look();
        assert!(Arc::ptr_eq(&first, &tls.config()));
    }
    place.put_key(&new.key[..new.key.len() / 2]);
    store.look();
    fs::remove_file(&place.files.key_file).unwrap();
    store.look();
    assert!(Arc::ptr_eq(&first, &tls.config()), "the old pair stays in use");
    place.put_key(&new.key);
    store.look();
    let second = tls.config();
    assert!(!Arc::ptr_eq(&first, &second), "the new pair is in use");
    store.look();
    assert!(Arc::ptr_eq(&second, &tls.config()));
}

#[test]
fn files_that_were_touched_but_say_the_same_cost_nobody_a_session() {
    let pair = Pair::new();
    let place = Place::with(&pair);
    let store = CertificateStore::open("network.tls", &place.files).unwrap();
    let first = store.tls().config();
    place.put(&pair.cert, &pair.key);
    store.look();
    assert!(Arc::ptr_eq(&first, &store.tls().config()));
    assert!(!store.replace(&place.files, Certificate::read(&place.files).unwrap()).unwrap());
    assert!(Arc::ptr_eq(&first, &store.tls().config()), "whoever resumes a session still can");
}

#[test]
fn other_files_are_looked_after_once_they_are_configured() {
    let (old, new, renewed) = (Place::with(&Pair::new()), Place::with(&Pair::new()), Pair::new());
    let store = CertificateStore::open("network.tls", &old.files).unwrap();
    let first = store.tls().config();
    assert!(store.replace(&new.files, Certificate::read(&new.files).unwrap()).unwrap());
    let second = store.tls().config();
    assert!(!Arc::ptr_eq(&first, &second));
    old.put(&renewed.cert, &renewed.key);
    store.look();
    assert!(Arc::ptr_eq(&second, &store.tls().config()), "the old files are of no interest");
    new.put(&renewed.cert, &renewed.key);
    store.look();
    assert!(!Arc::ptr_eq(&second, &store.tls().config()));
}
