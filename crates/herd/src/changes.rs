//! What differs between the settings of a daemon that runs and those of a changed file.

use std::{
    fmt,
    fs::{self, File},
    io::Read as _,
    path::{Path, PathBuf},
};

use aws_lc_rs::digest::{Context, Digest, SHA256};

use crate::config::{
    Mistakes, Settings,
    mistake::{Mistake, Origin},
    raw::Maybe,
    settings::{Network, Telemetry, Tls, TokenSecret},
};

/// Far above what the settings' files may hold, so that whatever counts of one is looked at.
const MOST_OF_FILE: u64 = 1 << 20;

/// What the files that settings name held when they were read: nothing of it, but enough to tell that they hold something
/// else by now.
#[derive(Clone)]
pub(crate) struct Contents {
    access: Digest,
    tls: Digest,
    admin_tls: Digest,
    admin_token: Digest,
    webhooks: Digest,
}

impl Contents {
    /// Reads the files. One that cannot be read is like none: whoever needs it says so.
    pub(crate) fn read(settings: &Settings) -> Self {
        let network = &settings.network;
        let tokens = settings.access.iter().flat_map(|access| &access.tokens);
        let tokens = tokens.filter_map(|token| match &token.secret {
            TokenSecret::File(path) => Some(path),
            TokenSecret::Sha256(_) => None,
        });
        let keys = settings.access.iter().filter_map(|access| Some(&access.jwt.as_ref()?.key_file));
        let pair = |tls: &Option<Tls>| digest(tls.iter().flat_map(|tls| [&tls.cert_file, &tls.key_file]));
        Self {
            access: digest(tokens.chain(keys)),
            tls: pair(&network.tls),
            admin_tls: pair(&network.admin_tls),
            admin_token: digest(&network.admin_token_file),
            webhooks: digest(settings.webhooks.iter().filter_map(|webhook| webhook.secret_file.as_ref())),
        }
    }

    /// The settings whose files hold something else than before.
    fn changed(&self, after: &Self) -> [(&'static str, bool); 5] {
        let Self { access, tls, admin_tls, admin_token, webhooks } = self;
        let differ = |before: &Digest, after: &Digest| before.as_ref() != after.as_ref();
        [
            ("network.tls", differ(tls, &after.tls)),
            ("network.admin_tls", differ(admin_tls, &after.admin_tls)),
            ("network.admin_token_file", differ(admin_token, &after.admin_token)),
            ("access", differ(access, &after.access)),
            ("webhooks", differ(webhooks, &after.webhooks)),
        ]
    }
}

/// Not even the digests: of a secret that somebody has thought up, they could be enough.
impl fmt::Debug for Contents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Contents(..)")
    }
}

fn digest<'a>(files: impl IntoIterator<Item = &'a PathBuf>) -> Digest {
    let mut digest = Context::new(&SHA256);
    for path in files {
        let content = content(path);
        // With their lengths, so that no two lists of contents read the same.
        let length = content.as_ref().map_or(u64::MAX, |content| content.len() as u64);
        digest.update(&length.to_be_bytes());
        digest.update(content.as_deref().unwrap_or_default());
    }
    digest.finish()
}

/// What a regular file holds; a pipe could hold the daemon up.
fn content(path: &Path) -> Option<Vec<u8>> {
    let mut content = Vec::new();
    if fs::metadata(path).is_ok_and(|metadata| metadata.is_file()) {
        File::open(path).ok()?.take(MOST_OF_FILE).read_to_end(&mut content).ok()?;
        return Some(content);
    }
    None
}

/// What has another value and cannot change while the daemon runs, each told at its place.
pub(crate) fn needs_restart(before: &Settings, after: &Settings) -> Mistakes {
    let (old, new, written) = (&before.network, &after.network, &after.raw.network);
    let telemetry = (&before.telemetry, &after.telemetry, &after.raw.telemetry);
    let fixed = [
        (old.data_bind != new.data_bind, "network.data_bind", place(&written.data_bind)),
        (old.admin_bind != new.admin_bind, "network.admin_bind", place(&written.admin_bind)),
        (old.control_socket != new.control_socket, "network.control_socket", place(&written.control_socket)),
        (old.max_connections != new.max_connections, "network.max_connections", place(&written.max_connections)),
        (old.threads != new.threads, "network.threads", place(&written.threads)),
        (old.tls.is_some() != new.tls.is_some(), "network.tls", place(&written.tls)),
        (old.admin_tls.is_some() != new.admin_tls.is_some(), "network.admin_tls", place(&written.admin_tls)),
        (
            telemetry.0.otlp_endpoint != telemetry.1.otlp_endpoint,
            "telemetry.otlp_endpoint",
            place(&telemetry.2.otlp_endpoint),
        ),
        (telemetry.0.trace_ratio != telemetry.1.trace_ratio, "telemetry.trace_ratio", place(&telemetry.2.trace_ratio)),
    ];
    let mut mistakes = Mistakes { file: after.file.clone(), all: Vec::new() };
    for (_, name, origin) in fixed.into_iter().filter(|(differs, ..)| *differs) {
        let origin = origin.unwrap_or_else(|| Origin::flag(name));
        let problem = "needs a restart: it cannot change while the daemon runs";
        mistakes.push(Mistake::new(origin, problem, "restart the daemon, or set it to what it was").unavailable());
    }
    mistakes.sort();
    mistakes
}

fn place<T>(written: &Maybe<T>) -> Option<Origin> {
    written.as_ref().map(|written| written.origin.clone())
}

/// The sections and keys outside of pools that have another value, or whose files hold something else.
pub(crate) fn changed(before: (&Settings, &Contents), after: (&Settings, &Contents)) -> Vec<String> {
    let ((before, held), (after, hold)) = (before, after);
    let files = held.changed(hold);
    // All fields are named, so that a new one is not forgotten here.
    let Settings {
        network: _,
        pools: _,
        routes,
        access,
        tenants,
        webhooks,
        telemetry: _,
        warnings: _,
        file: _,
        raw: _,
    } = before;
    let sections = [
        ("routes", *routes != after.routes),
        ("access", *access != after.access),
        ("tenants", *tenants != after.tenants),
        ("webhooks", *webhooks != after.webhooks),
    ];
    let keys = network(&before.network, &after.network).into_iter();
    let keys = keys.chain(telemetry(&before.telemetry, &after.telemetry)).chain(sections);
    let holds_else = |name: &str| files.contains(&(name, true));
    keys.filter(|(name, differs)| *differs || holds_else(name)).map(|(name, _)| name.to_owned()).collect()
}

fn network(before: &Network, after: &Network) -> [(&'static str, bool); 13] {
    let Network {
        data_bind,
        admin_bind,
        tls,
        admin_tls,
        admin_token_file,
        admin_hosts,
        control_socket,
        session_key,
        lookup_only,
        drain_timeout,
        response_timeout,
        max_connections,
        threads,
    } = before;
    [
        ("network.data_bind", *data_bind != after.data_bind),
        ("network.admin_bind", *admin_bind != after.admin_bind),
        ("network.tls", *tls != after.tls),
        ("network.admin_tls", *admin_tls != after.admin_tls),
        ("network.admin_token_file", *admin_token_file != after.admin_token_file),
        ("network.admin_hosts", *admin_hosts != after.admin_hosts),
        ("network.control_socket", *control_socket != after.control_socket),
        ("network.session_key", *session_key != after.session_key),
        ("network.lookup_only", *lookup_only != after.lookup_only),
        ("network.drain_timeout", *drain_timeout != after.drain_timeout),
        ("network.response_timeout", *response_timeout != after.response_timeout),
        ("network.max_connections", *max_connections != after.max_connections),
        ("network.threads", *threads != after.threads),
    ]
}

fn telemetry(before: &Telemetry, after: &Telemetry) -> [(&'static str, bool); 5] {
    let Telemetry { log_format, log_level, metrics_path, otlp_endpoint, trace_ratio } = before;
    [
        ("telemetry.log_format", *log_format != after.log_format),
        ("telemetry.log_level", *log_level != after.log_level),
        ("telemetry.metrics_path", *metrics_path != after.metrics_path),
        ("telemetry.otlp_endpoint", *otlp_endpoint != after.otlp_endpoint),
        ("telemetry.trace_ratio", *trace_ratio != after.trace_ratio),
    ]
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tempfile::TempDir;

    use super::*;
    use crate::config::{
        self,
        raw::Raw,
        settings::{Access, Jwt, JwtAlgorithm, Token, Webhook},
    };

    /// Settings with a file wherever one can be named, each named after what it is for.
    fn settings(directory: &TempDir) -> Settings {
        let mut settings = config::settle(Raw::default(), Mistakes::default()).unwrap();
        let file = |name: &str| {
            let path = directory.path().join(name);
            fs::write(&path, "former").unwrap();
            path
        };
        let tls = |name: &str| Tls { cert_file: file(&format!("{name}.cert")), key_file: file(&format!("{name}.key")) };
        settings.network.tls = Some(tls("network.tls"));
        settings.network.admin_tls = Some(tls("network.admin_tls"));
        settings.network.admin_token_file = Some(file("network.admin_token_file"));
        let secret = TokenSecret::File(file("access.token"));
        let jwt = Jwt {
            algorithm: JwtAlgorithm::Hs256,
            key_file: file("access.jwt"),
            audience: vec!["herd".to_owned()],
            issuer: None,
            tenant_claim: None,
            session_claim: None,
            leeway: Duration::ZERO,
        };
        let tokens = vec![Token { name: "first".to_owned(), tenant: None, secret }];
        settings.access = Some(Access { tokens, jwt: Some(jwt), query_parameter: None });
        settings.webhooks = vec![Webhook {
            url: "http://127.0.0.1:1/".to_owned(),
            secret_file: Some(file("webhooks.secret")),
            events: Vec::new(),
            timeout: Duration::from_secs(1),
            max_queue: 1,
            give_up_after: Duration::from_secs(1),
        }];
        settings
    }

    #[test]
    fn a_file_that_holds_something_else_is_a_change_of_the_setting_that_names_it() {
        let directory = TempDir::new().unwrap();
        let settings = settings(&directory);
        for (file, setting) in [
            ("network.tls.cert", "network.tls"),
            ("network.tls.key", "network.tls"),
            ("network.admin_tls.cert", "network.admin_tls"),
            ("network.admin_tls.key", "network.admin_tls"),
            ("network.admin_token_file", "network.admin_token_file"),
            ("access.token", "access"),
            ("access.jwt", "access"),
            ("webhooks.secret", "webhooks"),
        ] {
            let before = Contents::read(&settings);
            let since = |before: &Contents| changed((&settings, before), (&settings, &Contents::read(&settings)));
            assert!(since(&before).is_empty(), "{file}");
            for latter in ["latter", ""] {
                fs::write(directory.path().join(file), latter).unwrap();
                assert_eq!(since(&before), [setting], "{file}");
            }
            fs::remove_file(directory.path().join(file)).unwrap();
            assert_eq!(since(&before), [setting], "{file}");
        }
    }

    #[test]
    fn nothing_of_what_files_held_is_shown() {
        let contents = Contents::read(&settings(&TempDir::new().unwrap()));
        assert_eq!(format!("{contents:?}"), "Contents(..)");
    }
}
