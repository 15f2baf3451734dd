//! TLS as its users meet it: curl, certificates in files, and files that change.

use std::{
    fs::{self, rename},
    net::SocketAddr,
    path::PathBuf,
    process::{Command, Stdio},
};

use rcgen::{CertificateParams, KeyPair};
use rustix::process::Signal;
use tempfile::TempDir;

use crate::{
    client::request,
    daemon::{Daemon, failure},
};

/// A directory with a certificate for loopback, its key, and a configuration that uses them.
struct Place(TempDir);

/// What curl says of a response: the version of HTTP, the status, and the body.
#[derive(Debug, Eq, PartialEq)]
struct Fetched {
    version: String,
    status: String,
    body: String,
}

impl Place {
    fn new() -> Self {
        let place = Self(TempDir::new().unwrap());
        place.renew();
        let files = format!("{{ cert_file: {}, key_file: {} }}", place.text("cert.pem"), place.text("key.pem"));
        let config = format!(
            "network: {{ tls: {files}, admin_tls: {files} }}\n\
             sandbox: {{ mode: best-effort }}\nresources: {{ min_workers: 0, spare: 0 }}\n"
        );
        fs::write(place.path("herd.yaml"), config).unwrap();
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    /// Puts another certificate and its key in place, each in one go. What vouches for it is the file `root.pem`.
    fn renew(&self) {
        let key = KeyPair::generate().unwrap();
        let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
        let cert = CertificateParams::new(names).unwrap().self_signed(&key).unwrap().pem();
        fs::write(self.path("root.pem"), &cert).unwrap();
        for (name, text) in [("cert.pem", cert), ("key.pem", key.serialize_pem())] {
            fs::write(self.path("new"), text).unwrap();
            rename(self.path("new"), self.path(name)).unwrap();
        }
    }

    fn serve(&self) -> Daemon {
        Daemon::serve(&["--config", &self.text("herd.yaml")])
    }

    /// Fetches a page from an address on loopback; an error is what curl says.
    fn fetch(&self, from: SocketAddr, path: &str, args: &[&str]) -> Result<Fetched, String> {
        let mut curl = Command::new("curl");
        curl.args(["--silent", "--show-error", "--max-time", "20", "--noproxy", "*", "--cacert"]);
        curl.arg(self.path("root.pem")).args(args).args(["--write-out", "\n%{http_version} %{http_code}"]);
        let output = curl.arg(format!("https://localhost:{}{path}", from.port())).stdin(Stdio::null()).output();
        let output = output.expect("curl is needed: apt-get install curl");
        let text = String::from_utf8(output.stdout).unwrap();
        if !output.status.success() {
            return Err(String::from_utf8(output.stderr).unwrap());
        }
        let (body, about) = text.rsplit_once('\n').unwrap();
        let (version, status) = about.split_once(' ').unwrap();
        Ok(Fetched { version: version.to_owned(), status: status.to_owned(), body: body.to_owned() })
    }

    /// Asks the gateway whether it is well.
    fn health(&self, daemon: &Daemon) -> Result<Fetched, String> {
        self.fetch(daemon.gateway, "/healthz", &[])
    }
}

fn ok(version: &str) -> Fetched {
    Fetched { version: version.to_owned(), status: "200".to_owned(), body: "ok".to_owned() }
}

/// Waits until the daemon has read another certificate than the first.
fn read_again(daemon: &mut Daemon) {
    let line =
        daemon.log_line(|line| line["message"] == "the certificate was read" && line["setting"] == "network.tls");
    assert_eq!(line["names"], r#"["localhost"]"#, "{line}");
}

#[test]
fn curl_speaks_http2_and_http1_with_the_gateway_and_hears_that_it_needs_tls() {
    let place = Place::new();
    let daemon = place.serve();
    assert_eq!(place.fetch(daemon.gateway, "/healthz", &[]), Ok(ok("2")));
    assert_eq!(place.fetch(daemon.gateway, "/healthz", &["--http1.1"]), Ok(ok("1.1")));
    assert_eq!(place.fetch(daemon.gateway, "/healthz", &["--no-alpn"]), Ok(ok("1.1")));
    assert_eq!(place.fetch(daemon.gateway, "/healthz", &["--tlsv1.2", "--tls-max", "1.2"]), Ok(ok("2")));
    for (args, version) in [(&["--http2"][..], "2"), (&["--http1.1"], "1.1")] {
        let worker = place.fetch(daemon.gateway, "/", &[args, &["--header", "x-session-id: a"]].concat()).unwrap();
        assert_eq!((&*worker.status, &*worker.version), ("200", version), "{worker:?}");
    }
    let old = place.fetch(daemon.gateway, "/healthz", &["--tls-max", "1.1"]).unwrap_err();
    assert!(old.contains("SSL") || old.contains("TLS"), "{old}");
    let plain = request(daemon.gateway, "GET", "/healthz", &[]);
    assert_eq!((plain.status, plain.field("herd-error")), (400, Some("tls-required")));
}

#[test]
fn the_admin_address_speaks_tls_too() {
    let place = Place::new();
    let daemon = place.serve();
    for args in [&["--http2"][..], &["--http1.1"]] {
        let page = place.fetch(daemon.admin, "/v1/sessions", args).unwrap();
        assert_eq!(page.status, "200");
        assert!(page.body.contains("\"items\""), "{page:?}");
    }
}

#[test]
fn a_renewed_certificate_is_used_without_a_signal_and_running_sessions_stay() {
    let place = Place::new();
    let mut daemon = place.serve();
    let session = ["--header", "x-session-id: a", "--dump-header", "-"];
    let first = place.fetch(daemon.gateway, "/", &session).unwrap();
    assert!(first.body.contains("herd-session: new"), "{first:?}");
    let before = fs::read(place.path("root.pem")).unwrap();
    place.renew();
    read_again(&mut daemon);
    assert_eq!(place.health(&daemon), Ok(ok("2")));
    let again = place.fetch(daemon.gateway, "/", &session).unwrap();
    assert!(again.body.contains("herd-session: resumed"), "{again:?}");
    fs::write(place.path("root.pem"), before).unwrap();
    let error = place.health(&daemon).unwrap_err();
    assert!(error.contains("certificate"), "the old one is gone: {error}");
}

#[test]
fn a_signal_has_certificates_read_at_once_and_a_bad_pair_changes_nothing() {
    let place = Place::new();
    let mut daemon = place.serve();
    let (cert, key) = (fs::read(place.path("cert.pem")).unwrap(), fs::read(place.path("key.pem")).unwrap());
    let root = fs::read(place.path("root.pem")).unwrap();
    place.renew();
    let renewed = fs::read(place.path("cert.pem")).unwrap();
    // The new certificate with the old key: somebody has forgotten half of it.
    fs::write(place.path("key.pem"), &key).unwrap();
    fs::write(place.path("root.pem"), &root).unwrap();
    daemon.signal(Signal::HUP);
    let line = daemon.log_line(|line| {
        line["message"].as_str().is_some_and(|message| message.contains("is not that of the first certificate in"))
    });
    let message = line["message"].as_str().unwrap();
    assert!(message.contains("network.tls") && message.contains(&place.text("key.pem")), "{message}");
    assert_eq!(place.health(&daemon), Ok(ok("2")), "the old pair is in use");
    // Now the other half, but of the old pair: it is as it was, and there is nothing to read.
    fs::write(place.path("cert.pem"), &cert).unwrap();
    place.renew();
    assert_ne!(fs::read(place.path("cert.pem")).unwrap(), renewed);
    daemon.signal(Signal::HUP);
    read_again(&mut daemon);
    assert_eq!(place.health(&daemon), Ok(ok("2")));
    let secret = String::from_utf8(fs::read(place.path("key.pem")).unwrap()).unwrap();
    let secret = secret.lines().nth(1).unwrap();
    assert!(daemon.log.iter().all(|line| !line.contains(secret)), "no key is logged");
}

#[test]
fn a_daemon_without_a_usable_certificate_does_not_start_and_says_why() {
    let place = Place::new();
    fs::write(place.path("key.pem"), KeyPair::generate().unwrap().serialize_pem()).unwrap();
    let flags = ["serve", "--config", &place.text("herd.yaml"), "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"];
    let stderr = failure(&flags, 1);
    assert!(stderr.contains("network.tls cannot be used"), "{stderr}");
    assert!(stderr.contains(&place.text("key.pem")) && stderr.contains("made together"), "{stderr}");
}
