//! The section `network`.

use std::{net::Ipv4Addr, time::Duration};

use super::{
    Mode,
    fields::{Fields, about},
    form::{
        ADDRESS_OF_GATEWAY, ADDRESS_OR_OFF, BOOLEAN, DURATION, HOST_NAME, POSITIVE, POSITIVE_DURATION, SECRET_FILE,
        SESSION_KEY, SOCKET,
    },
    mistake::{Mistake, Mistakes, Origin, Written},
    raw::{Maybe, RawNetwork, RawTls},
    resolve::or,
    settings::{Network, Tls},
};

/// The data plane's port unless one is named.
const DATA_PORT: u16 = 8080;
/// The admin API's port unless one is named.
const ADMIN_PORT: u16 = 8081;

pub(super) fn read(f: &mut Fields<'_>) -> RawNetwork {
    RawNetwork {
        data_bind: f.value(
            "data_bind",
            ADDRESS_OF_GATEWAY,
            about("Where the gateway listens, IP:PORT. Port 0 lets the system choose.").default(r#""127.0.0.1:8080""#),
        ),
        admin_bind: f
            .nullable(
                "admin_bind",
                ADDRESS_OR_OFF,
                about("Where the admin API and the dashboard listen; null or off for nowhere. Beyond loopback it needs admin_token_file.")
                    .default(r#""127.0.0.1:8081""#),
            )
            .map(flatten),
        control_socket: f.value(
            "control_socket",
            SOCKET,
            about("The Unix socket (0600) of the control plane, an absolute path. Default: herd.sock in the runtime directory."),
        ),
        session_key: f.list_or_one(
            "session_key",
            SESSION_KEY,
            about("Where requests name their session: header:NAME, cookie:NAME, query:NAME, path:N or host. Of a list, the first that is there counts.")
                .default(r#""header:X-Session-ID""#),
        ),
        lookup_only: f.value(
            "lookup_only",
            BOOLEAN,
            about("Answer requests of unknown sessions with 404 and start none.").default("false"),
        ),
        drain_timeout: f.value(
            "drain_timeout",
            DURATION,
            about("How long requests may go on after SIGTERM.").default(r#""30s""#),
        ),
        response_timeout: f.nullable(
            "response_timeout",
            POSITIVE_DURATION,
            about("How long a worker may take until its response begins; then 504. null: no limit.").default("null"),
        ),
        max_connections: f.value(
            "max_connections",
            POSITIVE,
            about("How many client connections there may be at once; more wait to be accepted.").default("10000"),
        ),
        threads: f.value("threads", POSITIVE, about("Threads of the gateway, at most 1024. Default: one for each core.")),
        tls: f.section("tls", about("The TLS of the gateway. Without it, the gateway speaks plain HTTP."), read_tls),
        admin_tls: f.section("admin_tls", about("The TLS of the admin address."), read_tls),
        admin_token_file: f.nullable(
            "admin_token_file",
            SECRET_FILE,
            about("A file with the bearer token that the admin address asks for, or with `sha256:HEX`, its hash.")
                .default("null"),
        ),
        admin_hosts: f.list(
            "admin_hosts",
            HOST_NAME,
            about("Host names, besides those of loopback, under which the admin address may be asked.").default("[]"),
        ),
    }
}

fn read_tls(f: &mut Fields<'_>) -> RawTls {
    RawTls {
        cert_file: f.required(
            "cert_file",
            SECRET_FILE,
            about("The certificate with its chain, PEM, an absolute path."),
        ),
        key_file: f.required("key_file", SECRET_FILE, about("Its private key, PEM, an absolute path.")),
    }
}

/// `null` and the word for "none" mean the same.
fn flatten<T>(written: Written<Option<Option<T>>>) -> Written<Option<T>> {
    Written { value: written.value.flatten(), origin: written.origin }
}

pub(super) fn resolve(raw: RawNetwork, mode: Mode, mistakes: &mut Mistakes) -> Network {
    let RawNetwork {
        data_bind,
        admin_bind,
        control_socket,
        session_key,
        lookup_only,
        drain_timeout,
        response_timeout,
        max_connections,
        threads,
        tls,
        admin_tls,
        admin_token_file,
        admin_hosts,
    } = raw;
    let data = data_bind.as_ref().map_or((Ipv4Addr::LOCALHOST, DATA_PORT).into(), |written| written.value);
    let admin_by_default = match mode {
        Mode::Serve => Some((Ipv4Addr::LOCALHOST, ADMIN_PORT).into()),
        Mode::Start => None,
    };
    let admin = admin_bind.as_ref().map_or(admin_by_default, |written| written.value);
    if let (Some(admin), Some(written)) = (admin, &admin_bind)
        && !admin.ip().is_loopback()
        && admin_token_file.as_ref().is_none_or(|file| file.value.is_none())
    {
        mistakes.push(Mistake::new(
            written.origin.clone(),
            "is not on loopback, and whoever reaches the admin API could end every session",
            "write `admin_token_file` too, a loopback address such as 127.0.0.1:8081, or off",
        ));
    }
    if admin == Some(data) && data.port() != 0 {
        let (origin, other) = match (admin_bind, data_bind) {
            (Some(admin), _) => (Some(admin.origin), "the data plane's"),
            (None, Some(data)) => (Some(data.origin), "the admin API's"),
            // The defaults differ.
            (None, None) => (None, ""),
        };
        mistakes.all.extend(origin.map(|origin| {
            Mistake::new(origin, format!("is {other} address as well"), "give each a port of its own")
                .found(data.to_string())
        }));
    }
    if let Some(threads) = threads.as_ref().filter(|threads| threads.value > 1024) {
        mistakes.push(
            Mistake::new(threads.origin.clone(), "is more than 1024 threads", "write about as many as there are cores")
                .found(threads.value.to_string()),
        );
    }
    if let (Mode::Start, Some(lookup_only)) = (mode, lookup_only.as_ref().filter(|lookup_only| !lookup_only.value)) {
        let problem = "contradicts `herd start`, where sessions come through the control plane alone";
        mistakes.push(Mistake::new(lookup_only.origin.clone(), problem, "leave it out, or use `herd serve`"));
    }
    Network {
        data_bind: data,
        admin_bind: admin,
        control_socket: control_socket.map(|written| written.value),
        tls: resolve_tls(tls),
        admin_tls: resolve_tls(admin_tls),
        admin_token_file: or(admin_token_file, None),
        admin_hosts: or(admin_hosts, Vec::new()).into_iter().map(|written| written.value).collect(),
        session_key: resolve_session_key(session_key, mistakes),
        lookup_only: mode == Mode::Start || or(lookup_only, false),
        drain_timeout: or(drain_timeout, Duration::from_secs(30)),
        response_timeout: or(response_timeout, None),
        max_connections: or(max_connections, 10_000),
        threads: threads.map(|written| written.value),
    }
}

/// One of both files without the other is a mistake that the reader has told.
fn resolve_tls(raw: Maybe<RawTls>) -> Option<Tls> {
    let RawTls { cert_file, key_file } = raw?.value;
    Some(Tls { cert_file: cert_file?.value, key_file: key_file?.value })
}

fn resolve_session_key(raw: Maybe<Vec<Written<String>>>, mistakes: &mut Mistakes) -> herd_gateway::SessionKey {
    let Some(raw) = raw else { return herd_gateway::SessionKey::default() };
    if raw.value.is_empty() {
        let remedy = "write header:X-Session-ID, cookie:NAME, query:NAME, path:N or host";
        mistakes.push(Mistake::new(raw.origin, "is an empty list", remedy));
        return herd_gateway::SessionKey::default();
    }
    let sources: Vec<_> = raw.value.into_iter().map(|written| written.value).collect();
    // Each source was checked when it was read, and a list of sources is what they make together.
    sources.join(",").parse().unwrap_or_default()
}

/// What is no mistake and hardly wanted.
pub(super) fn warnings(raw: &RawNetwork, network: &Network, has_access: bool) -> Vec<Mistake> {
    let place = |origin: Option<&Origin>, key: &str| origin.cloned().unwrap_or_else(|| Origin::flag(key));
    let mut warnings = Vec::new();
    let admin_settings = [
        raw.admin_tls.as_ref().map(|written| &written.origin),
        raw.admin_token_file.as_ref().filter(|file| file.value.is_some()).map(|written| &written.origin),
        raw.admin_hosts.as_ref().filter(|hosts| !hosts.value.is_empty()).map(|written| &written.origin),
    ];
    match network.admin_bind {
        None => warnings.extend(admin_settings.into_iter().flatten().map(|origin| {
            Mistake::warning(origin.clone(), "means nothing, since there is no admin address", "leave it out")
        })),
        Some(address) if !address.ip().is_loopback() && network.admin_tls.is_none() => warnings.push(Mistake::warning(
            place(raw.admin_bind.as_ref().map(|written| &written.origin), "network.admin_bind"),
            "the admin token travels in the clear beyond this host",
            "write `network.admin_tls` too",
        )),
        Some(_) if has_access && network.admin_token_file.is_none() => warnings.push(Mistake::warning(
            place(raw.admin_bind.as_ref().map(|written| &written.origin), "network.admin_bind"),
            "other users of this host, and workers with `network: host`, may use the admin API, and so end and start \
             every tenant's sessions",
            "write `network.admin_token_file`, or `admin_bind: off`",
        )),
        Some(_) => {}
    }
    if network.data_bind.ip().is_loopback() {
        return warnings;
    }
    let gateway = place(raw.data_bind.as_ref().map(|written| &written.origin), "network.data_bind");
    if !has_access {
        warnings.push(Mistake::warning(
            gateway,
            "the gateway asks nobody who they are, and is open to the network",
            "ask for tokens (`access`, `herd token`), or let only those reach it who may use it",
        ));
    } else if network.tls.is_none() {
        warnings.push(Mistake::warning(
            gateway,
            "tokens travel in the clear beyond this host",
            "write `network.tls` too, unless a proxy in front of herd has TLS",
        ));
    }
    warnings
}
