//! Who may use the admin address. On the control socket its mode and the peer's credentials say so.
//!
//! A page in a browser on this host can send requests to loopback. Under a name that its owner points to 127.0.0.1 (DNS
//! rebinding) it could even read the answers. So the `host` field must name loopback or what the operator named, and
//! where there is an `origin`, it must be this very API: a page that a worker serves through the gateway's port is
//! foreign as well. Browsers also say (`sec-fetch-site`) that another site's page asks where they send no `origin`.
//!
//! Beyond loopback a token is asked for as well; it is asked for on loopback too if there is one.

mod failures;

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Instant,
};

use anyhow::{Context as _, bail};
use axum::{
    extract::{Request, State},
    http::{HeaderMap, Method, header, uri::Authority},
    middleware::Next,
    response::{IntoResponse as _, Response},
};
use tokio::sync::watch;

use self::failures::Failures;
use super::{
    problem::{Kind, Problem},
    server::Peer,
    sse,
};
use crate::{access::TokenHash, config::settings, dashboard};

/// Pages for those who look after the daemon from outside. They tell nothing about anybody, as the dashboard's files.
const OPEN_PAGES: [&str; 2] = ["/healthz", "/readyz"];

/// Stands before the admin address. Clones are the same.
#[derive(Clone, Debug)]
pub(crate) struct Guard(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    rules: watch::Sender<Arc<Rules>>,
    failures: Failures,
}

/// What a request to the admin address must have.
#[derive(Debug)]
pub(crate) struct Rules {
    token: Option<TokenHash>,
    /// Names besides loopback's, in lower case and without a port.
    hosts: Vec<String>,
    /// The address that the API listens on, unless it is all of them.
    own: Option<IpAddr>,
    tls: bool,
}

impl Rules {
    /// Reads the token, if one is asked for. Applies nothing.
    ///
    /// # Errors
    /// If the token cannot be had, or if there is none and others than this host can reach the address.
    pub(crate) fn read(network: &settings::Network) -> anyhow::Result<Self> {
        let file = network.admin_token_file.as_deref();
        let token = file.map(TokenHash::read).transpose().context("cannot take network.admin_token_file")?;
        let bound = network.admin_bind.as_ref().map(SocketAddr::ip);
        if let Some(ip) = bound.filter(|ip| token.is_none() && !ip.is_loopback()) {
            bail!(
                "the admin API would ask nobody who they are, and {ip} is not on loopback; set network.admin_token_file, \
                 or choose a loopback address with --admin or network.admin_bind"
            );
        }
        let hosts = network.admin_hosts.iter().map(|host| host.to_ascii_lowercase()).collect();
        let own = bound.filter(|ip| !ip.is_unspecified());
        Ok(Self { token, hosts, own, tls: network.admin_tls.is_some() })
    }

    /// Refuses requests that a web page made somebody's browser send.
    fn refuse_foreign(&self, request: &Request) -> Result<(), Problem> {
        let headers = request.headers();
        let foreign_host = |detail: &str| {
            let remedy = "ask by a loopback address, or name the host in network.admin_hosts";
            Problem::new(Kind::ForeignHost).detail(format!("{detail}; {remedy}"))
        };
        let mut hosts = headers.get_all(header::HOST).iter();
        let field = hosts.next();
        if hosts.next().is_some() {
            return Err(foreign_host("the request names several hosts"));
        }
        let field = field.map(|host| host.to_str().ok().and_then(|host| host.parse::<Authority>().ok()));
        if field == Some(None) {
            return Err(foreign_host("the request's host is no host"));
        }
        // An absolute request target counts before the field, RFC 9112 §3.2.2; HTTP/2 has only it. Both must be fine.
        let target = request.uri().authority();
        let Some(host) = field.as_ref().and_then(Option::as_ref).or(target) else {
            return Err(foreign_host("the request names no host"));
        };
        if ![Some(host), target].into_iter().flatten().all(|host| self.is_own(host)) {
            return Err(foreign_host("the request names a host that is not this API's"));
        }
        self.refuse_foreign_page(request.method(), headers, request.uri().path(), host)
    }

    fn refuse_foreign_page(
        &self,
        method: &Method,
        headers: &HeaderMap,
        path: &str,
        host: &Authority,
    ) -> Result<(), Problem> {
        let foreign = || {
            let detail = "what web pages may do here is for the API's own page alone; use another client";
            Problem::new(Kind::ForeignOrigin).detail(detail)
        };
        let mut origins = headers.get_all(header::ORIGIN).iter();
        if !origins.all(|origin| self.is_own_origin(origin.as_bytes(), host)) {
            return Err(foreign());
        }
        let word = |name| headers.get(name).map(|value| value.as_bytes());
        // A link on some page may lead to this API's page, which then is what the person looks at.
        let is_link = word("sec-fetch-mode") == Some(b"navigate") && method == Method::GET && path == "/";
        match word("sec-fetch-site") {
            None | Some(b"same-origin" | b"none") => Ok(()),
            Some(_) if is_link => Ok(()),
            Some(_) => Err(foreign()),
        }
    }

    fn is_own(&self, authority: &Authority) -> bool {
        if authority.as_str().contains('@') {
            return false;
        }
        let host = plain(authority);
        if host == "localhost" || self.is_named(&host) {
            return true;
        }
        // Nobody can point an address at somebody else. So behind a token, where all interfaces are listened on and
        // nobody knows their addresses, any will do.
        let is_reachable = |ip: IpAddr| ip.is_loopback() || self.own == Some(ip) || self.token.is_some();
        host.parse().is_ok_and(is_reachable)
    }

    fn is_named(&self, host: &str) -> bool {
        self.hosts.iter().any(|named| named == host)
    }

    fn is_own_origin(&self, origin: &[u8], host: &Authority) -> bool {
        let is = |scheme: &str| origin.eq_ignore_ascii_case(format!("{scheme}://{host}").as_bytes());
        // A name of the operator's may lead here through a proxy that speaks TLS for the API.
        let https = self.tls || self.is_named(&plain(host));
        (!self.tls && is("http")) || (https && is("https"))
    }
}

impl Guard {
    pub(crate) fn new(rules: Rules) -> Self {
        Self(Arc::new(Shared { rules: watch::Sender::new(Arc::new(rules)), failures: Failures::default() }))
    }

    /// From now on these rules count, for every request, also on connections that are open, and for streams that are
    /// open: those end whose token is none any more.
    pub(crate) fn configure(&self, rules: Rules) {
        self.0.rules.send_replace(Arc::new(rules));
    }

    fn rules(&self) -> Arc<Rules> {
        Arc::clone(&self.0.rules.borrow())
    }

    fn check(&self, request: &Request) -> Result<(), Problem> {
        let rules = self.rules();
        rules.refuse_foreign(request)?;
        let path = request.uri().path();
        if OPEN_PAGES.contains(&path) || dashboard::owns(path) {
            return Ok(());
        }
        let Some(token) = &rules.token else { return Ok(()) };
        let remedy = "send `authorization: Bearer TOKEN` with the token that network.admin_token_file holds";
        let no_token = || Problem::new(Kind::NoToken).detail(remedy).challenge("Bearer realm=\"herd admin API\"");
        let Some(presented) = bearer(request.headers()) else { return Err(no_token()) };
        // Whose requests do not say where they come from are counted together.
        let from = match request.extensions().get::<Peer>() {
            Some(Peer::Address(address)) => Some(address.ip()),
            _ => None,
        };
        // The right token is let in whatever else comes from there: otherwise others could keep the operator out.
        if token.fits(presented) {
            return Ok(());
        }
        let now = Instant::now();
        if let Some(delay) = self.0.failures.refuse(from, now) {
            let detail =
                format!("wait {} s before the next wrong one; the right one is always taken", delay.as_secs() + 1);
            return Err(Problem::new(Kind::TooManyBadTokens).detail(detail).retry_after(delay));
        }
        self.0.failures.count(from, now);
        let challenge = "Bearer realm=\"herd admin API\", error=\"invalid_token\"";
        Err(Problem::new(Kind::BadToken).detail(remedy).challenge(challenge))
    }
}

pub(super) async fn stand(State(guard): State<Guard>, request: Request, next: Next) -> Response {
    // Before the check, so that no change is missed between it and the stream's beginning.
    let mut rules = guard.0.rules.subscribe();
    if let Err(problem) = guard.check(&request) {
        return problem.into_response();
    }
    let presented = bearer(request.headers()).map(TokenHash::of);
    let response = next.run(request).await;
    if !sse::is_stream(&response) {
        return response;
    }
    let revoked = async move {
        let is_refused =
            |rules: &Arc<Rules>| rules.token.as_ref().is_some_and(|token| presented.as_ref() != Some(token));
        if rules.wait_for(is_refused).await.is_err() {
            // The guard is gone, and with it the daemon, which ends its streams itself.
            std::future::pending::<()>().await;
        }
    };
    sse::end_when(response, revoked, "token-changed")
}

/// The only credentials of the request, if they are a bearer token (RFC 6750 §2.1). The scheme's name has no case.
fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let mut fields = headers.get_all(header::AUTHORIZATION).iter();
    let field = fields.next()?.as_bytes();
    if fields.next().is_some() {
        return None;
    }
    let (scheme, token) = field.split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"bearer ").then(|| token.trim_ascii())
}

/// The host in lower case, without a port and brackets.
fn plain(authority: &Authority) -> String {
    authority.host().trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase()
}

#[cfg(test)]
mod tests;
